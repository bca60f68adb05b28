"""Parses the labels of a model image. They are foreign text: every value is truncated, and
control characters are removed."""

import ast
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

PREFIXES: Final = ("com.amd.aim.", "org.amd.silogen.")
"""The first that has a label counts for it."""
CANONICAL_NAME: Final = "model.canonicalName"
SOURCE: Final = "model.source"
RECOMMENDED: Final = "model.recommendedDeployments"
TOKEN_REQUIRED: Final = "hfToken.required"  # noqa: S105 (a label's name)
TITLE: Final = "title"
OCI_PREFIX: Final = "org.opencontainers.image."
LARGEST_LABEL_BYTES: Final = 64 << 10
LONGEST_VALUE: Final = 256
MOST_DEPLOYMENTS: Final = 64
MOST_ANNOTATIONS: Final = 32
MOST_GPUS: Final = 4096
ANY: Final = "auto"


class Deployment(Struct, frozen=True, omit_defaults=True):
    """One of the deployments an image recommends; what is empty or 0 is left open."""

    gpu_model: str = ""
    gpu_count: int = 0
    precision: str = ""
    metric: str = ""
    description: str = ""
    profile_id: str = ""

    def __str__(self) -> str:
        gpus = f"{self.gpu_model or 'any GPU'}{f' × {self.gpu_count}' if self.gpu_count else ''}"
        return " ".join(part for part in (gpus, self.metric, self.precision) if part)

    def supports(self, requested: "Deployment") -> bool:
        return (
            self.gpu_model.lower() in {"", requested.gpu_model.lower()}
            and self.gpu_count in {0, requested.gpu_count}
            and self.metric.lower() in {"", requested.metric.lower()}
            and (
                requested.precision == ANY
                or self.precision.lower() in {"", ANY, requested.precision.lower()}
            )
        )


class ImageLabels(Struct, frozen=True, omit_defaults=True):
    """`annotations`: the org.opencontainers.image labels without their prefix."""

    canonical_name: str = ""
    source: str = ""
    recommended: tuple[Deployment, ...] = ()
    token_required: bool = False
    title: str = ""
    annotations: dict[str, str] = {}


def read_labels(labels: Mapping[str, Any]) -> ImageLabels:
    """Raises ValueError if there is no AIM label, or one is malformed: the message names it and the
    cause."""
    values = {
        name: _label(labels, name)
        for name in (CANONICAL_NAME, SOURCE, RECOMMENDED, TOKEN_REQUIRED, TITLE)
    }
    if not any(values.values()):
        raise ValueError(
            f"it has none of the labels {PREFIXES[0]}{CANONICAL_NAME}, {PREFIXES[0]}{RECOMMENDED}"
            f" and their like (prefixes {_either})"
        )
    oci = sorted(
        (name.removeprefix(OCI_PREFIX), _clean(value))
        for name, value in labels.items()
        if name.startswith(OCI_PREFIX)
    )
    return ImageLabels(
        canonical_name=_clean(values[CANONICAL_NAME]),
        source=_clean(values[SOURCE]),
        recommended=_recommended_deployments(values[RECOMMENDED]),
        token_required=values[TOKEN_REQUIRED].strip().lower() in {"true", "1", "yes"},
        title=_clean(values[TITLE]),
        annotations={_clean(name): value for name, value in oci[:MOST_ANNOTATIONS]},
    )


_either = " or ".join(PREFIXES)


def _label(labels: Mapping[str, Any], name: str) -> str:
    return next(
        (str(labels[prefix + name]) for prefix in PREFIXES if labels.get(prefix + name)), ""
    )


def _recommended_deployments(text: str) -> tuple[Deployment, ...]:
    """A JSON list, or dicts in Python's notation parted by commas."""
    if not text.strip():
        return ()
    if len(text.encode(errors="replace")) > LARGEST_LABEL_BYTES:
        raise ValueError(f"label {RECOMMENDED} is longer than {LARGEST_LABEL_BYTES >> 10} KiB")
    found = _parse(text)
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise ValueError(
            f"label {RECOMMENDED} is not a list of deployments, but {_clean(text)[:80]!r}"
        )
    if len(found) > MOST_DEPLOYMENTS:
        raise ValueError(
            f"label {RECOMMENDED} has {len(found)} deployments; at most {MOST_DEPLOYMENTS} are read"
        )
    return tuple(_deployment(entry) for entry in found)


def _parse(text: str) -> Any:
    try:
        found = msgspec.json.decode(text)
        return [found] if isinstance(found, dict) else found
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(f"[{text.strip().strip(',')}]")
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _deployment(entry: dict[Any, Any]) -> Deployment:
    return Deployment(
        gpu_model=_text(entry, "gpuModel"),
        gpu_count=_count(entry.get("gpuCount")),
        precision=_text(entry, "precision"),
        metric=_text(entry, "metric"),
        description=_text(entry, "description"),
        profile_id=_text(entry, "profileId"),
    )


def _text(entry: dict[Any, Any], name: str) -> str:
    value = entry.get(name)
    if value is not None and not isinstance(value, str | int | float):
        raise ValueError(f"{name} of a recommended deployment is not a text")
    return "" if value is None else _clean(value)


def _count(value: Any) -> int:
    """As a number or as text; absent means any."""
    if value is None or value == "":
        return 0
    try:
        count = int(value) if isinstance(value, int | str) and not isinstance(value, bool) else -1
    except ValueError:
        count = -1
    if not 1 <= count <= MOST_GPUS:
        raise ValueError(
            f"gpuCount of a recommended deployment is {_clean(value)[:40]!r}, not a number from 1"
            f" to {MOST_GPUS}"
        )
    return count


def _clean(value: Any) -> str:
    """One line of printable characters, cut to size."""
    cut = str(value)[:LONGEST_VALUE]
    return "".join(char if char.isprintable() else " " for char in cut).strip()
