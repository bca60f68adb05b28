"""What a model image says of itself in answer to `dry-run --format=json`, and how the control plane
keeps it.

The first element of the answer is kept in the ConfigMap `<template>-discovery`, owned by the
template, annotated with the inputs it is valid for. Caches take the sizes from there, services the
profile. It is annotated with a digest of what it holds, too: there is no other copy to put an
edited answer right from, so one that was edited counts as none, and the image is asked again.
"""

import re
from typing import Annotated, Any, Final

import msgspec
from msgspec import Struct

from aimschema.labels import ANNOTATION_DIGEST
from aimschema.names import short_hash

RESULT_KEY: Final = "result.json"
IMAGE_KEY: Final = "image"
IMAGES_KEY: Final = "images.json"
"""In the ConfigMap of an AIMClusterModel: the images that it had, oldest first, as a JSON list."""
MOST_IMAGES: Final = 32
LARGEST_ELEMENT_BYTES: Final = 256 << 10
GIB: Final = 1 << 30
LARGEST_SIZE_GIB: Final = 1 << 20
"""One PiB: more is a slip of the image's, and as a volume would never be bound."""
_SOURCE = re.compile(r"(hf|s3)://[^\s/]\S*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+/@-]*")


class ProfileMetadata(Struct, frozen=True):
    engine: str = ""
    gpu: str = ""
    precision: str = ""
    gpu_count: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 0
    metric: str = ""


class RuntimeProfile(Struct, frozen=True):
    model: str = ""
    quantized_model: str = ""
    metadata: ProfileMetadata = ProfileMetadata()
    engine_args: dict[str, Any] = {}
    env_vars: dict[str, str | int | float | bool | None] = {}


class SourceModel(Struct, frozen=True):
    """`size_gb` is in GiB; 0: unknown."""

    name: str
    source: str
    size_gb: float = 0.0

    @property
    def size_bytes(self) -> int | None:
        return int(self.size_gb * GIB) or None


class Discovered(Struct, frozen=True):
    """One element of the answer."""

    filename: str = ""
    profile: RuntimeProfile = RuntimeProfile()
    models: tuple[SourceModel, ...] = ()

    @property
    def sources(self) -> list[str]:
        return [model.source for model in self.models]


_DEFAULTS_BYTES: Final = len(msgspec.json.encode(Discovered()))
_DEFAULTS_OF_MODEL_BYTES: Final = 16
"""How much longer an element may be in the ConfigMap than in the answer: fields that the answer
leaves out, and `.0` of a whole size_gb."""


def check(element: Any) -> Discovered:
    """The first element of an answer as a value. Raises ValueError with the cause in words."""
    return _check_element(element, LARGEST_ELEMENT_BYTES)


def _check_element(element: Any, most_bytes: int) -> Discovered:
    try:
        encoded = msgspec.json.encode(element)
    except RecursionError as error:
        raise ValueError("the profile is nested too deeply") from error
    if len(encoded) > most_bytes:
        raise ValueError(
            f"the profile is {len(encoded)} bytes long; at most {LARGEST_ELEMENT_BYTES} are taken"
        )
    try:
        found = msgspec.convert(_without_nulls(msgspec.json.decode(encoded)), type=Discovered)
    except msgspec.ValidationError as error:
        raise ValueError(f"the profile has an unexpected form: {error}") from error
    if not found.models:
        raise ValueError("the profile names no models")
    for model in found.models:
        if (
            not _SOURCE.fullmatch(model.source)
            or len(model.source) > 1024
            or ".." in model.source.split("/")
            or not model.source.isprintable()
        ):
            raise ValueError(
                f"source {model.source[:200]!r} is not of the form hf://owner/name or"
                " s3://bucket/prefix"
            )
        if len(model.name) > 1024 or not _NAME.fullmatch(model.name):
            raise ValueError(
                f"model name {model.name[:200]!r} may have letters, digits and . _ : + / @ - only"
            )
        if not 0 <= model.size_gb <= LARGEST_SIZE_GIB:
            raise ValueError(
                f"size_gb of {model.source[:200]!r} is not between 0 and {LARGEST_SIZE_GIB}"
            )
    return found


def _without_nulls(value: Any) -> Any:
    """A null says the same as leaving the field out; engine arguments and variables are handed
    on as they are."""
    if isinstance(value, dict):
        return {
            name: (
                part
                if name in {"engine_args", "env_vars"} and part is not None
                else _without_nulls(part)
            )
            for name, part in value.items()
            if part is not None
        }
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


def digest(data: dict[str, str]) -> str:
    """Of what a discovery ConfigMap holds."""
    return short_hash(part for name in sorted(data) for part in (name, data[name]))


def recorded_images(data: Any) -> list[str]:
    """The images in the ConfigMap of an AIMClusterModel, oldest first; also the one whose labels
    it holds."""
    if not isinstance(data, dict):
        return []
    try:
        images = msgspec.json.decode(data.get(IMAGES_KEY, "[]"), type=list[str])
    except (TypeError, ValueError, RecursionError):
        images = []
    inspected = data.get(IMAGE_KEY)
    return (
        [*images, inspected] if isinstance(inspected, str) and inspected not in images else images
    )


def with_image(images: list[str], image: str) -> list[str]:
    """`images` with the newest last; of too many the oldest go."""
    return [*(each for each in images if each != image), image][-MOST_IMAGES:]


def from_config_map(body: dict[str, Any]) -> Discovered | None:
    """The result in a discovery ConfigMap; None if it is invalid or was edited.

    A user who may write ConfigMaps can write one with a matching digest. So the result passes the
    same checks as the output of an image.
    """
    data = body.get("data")
    if not isinstance(data, dict) or not all(isinstance(text, str) for text in data.values()):
        return None
    annotations = body["metadata"].get("annotations")
    if not isinstance(annotations, dict) or annotations.get(ANNOTATION_DIGEST) != digest(data):
        return None
    try:
        element = msgspec.json.decode(data[RESULT_KEY])
        return _check_element(
            element,
            LARGEST_ELEMENT_BYTES
            + _DEFAULTS_BYTES
            + _DEFAULTS_OF_MODEL_BYTES * len(element["models"]),
        )
    except (KeyError, TypeError, ValueError, RecursionError, OverflowError):
        return None
