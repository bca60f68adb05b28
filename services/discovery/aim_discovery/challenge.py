"""Parses the WWW-Authenticate header (RFC 9110, 11.6.1) with which a registry requests docker's
token authentication."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

LONGEST_HEADER = 8192
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 (RFC 9110, 5.6.2)
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*(?:,|$)')
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?:\s+(?!=)|\s*(?:,|$))")


@dataclass(frozen=True, slots=True)
class Challenge:
    """`scheme` and the names of parameters in lower case."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of an answer, in order; what cannot be read ends its header. Total."""
    found: list[Challenge] = []
    for header in headers:
        text = header[:LONGEST_HEADER]
        position = 0
        while (scheme := _SCHEME.match(text, position)) is not None:
            position = scheme.end()
            parameters: dict[str, str] = {}
            while (parameter := _PARAMETER.match(text, position)) is not None:
                quoted = parameter[2]
                bare = parameter[3]
                parameters.setdefault(
                    parameter[1].lower(),
                    bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted),
                )
                position = parameter.end()
            found.append(Challenge(scheme[1].lower(), parameters))
    return found


def choose(offered: list[Challenge]) -> Challenge | None:
    """Bearer before Basic; no other is known."""
    return next(
        (each for scheme in ("bearer", "basic") for each in offered if each.scheme == scheme), None
    )
