"""Parses an image reference by docker's rules (distribution/reference, its grammar and its
normalisation).

1. The first segment is a registry if it has a dot, a colon or a capital letter, or is `localhost`;
   otherwise the image is on Docker Hub.
2. A Docker Hub image of one segment is an official one: `library/<name>`.
3. Without a tag and a digest the tag is `latest`; a digest takes precedence over a tag.
"""

import ipaddress
import re
from dataclasses import dataclass

DOCKER_HUB = "docker.io"
_HUB_NAMES = frozenset({DOCKER_HUB, "index.docker.io"})
_HUB_HOST = "registry-1.docker.io"
LONGEST_NAME = 255
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::(?P<port>[0-9]{{1,5}}))?")
_SEGMENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


@dataclass(frozen=True, slots=True)
class Image:
    """`registry` is host[:port] as people write it, `reference` a tag or a digest."""

    registry: str
    repository: str
    reference: str

    @property
    def host(self) -> str:
        """Where the registry's API is: host[:port]."""
        return _HUB_HOST if self.registry == DOCKER_HUB else self.registry

    @property
    def scheme(self) -> str:
        """http on loopback only."""
        return "http" if is_loopback(self.host) else "https"

    def __str__(self) -> str:
        separator = "@" if is_digest(self.reference) else ":"
        return f"{self.registry}/{self.repository}{separator}{self.reference}"


def parse_image(text: str) -> Image:
    """Raises ValueError saying which part is wrong."""
    name, _, digest = text.partition("@")
    if digest and not is_digest(digest):
        raise ValueError(f"{digest[:80]!r} is not a digest of the form sha256:<64 hex digits>")
    if "@" in text and not digest:
        raise ValueError("there is no digest after @")
    registry, path = _split_registry(name)
    repository, colon, tag = path.partition(":")
    if colon and _TAG.fullmatch(tag) is None:
        raise ValueError(f"{tag[:80]!r} is not a tag: letters, digits, _ . and -, at most 128")
    if _REPOSITORY.fullmatch(repository) is None:
        raise ValueError(
            f"{repository[:80]!r} is not a repository: lower-case letters and digits, with . _ -"
            " between them, segments separated by /"
        )
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    if len(registry) + 1 + len(repository) > LONGEST_NAME:
        raise ValueError(f"the name is longer than {LONGEST_NAME} characters")
    return Image(registry, repository, digest or tag or "latest")


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash or not (
        any(char in ".:" or char.isupper() for char in first) or first == "localhost"
    ):
        return DOCKER_HUB, name
    found = _HOST.fullmatch(first)
    if found is None or int(found["port"] or 1) not in range(1, 65536):
        raise ValueError(f"{first[:80]!r} is not a registry of the form host or host:port")
    return (DOCKER_HUB if first in _HUB_NAMES else first), rest


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` names this machine itself."""
    bare = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare.lower() == "localhost"
