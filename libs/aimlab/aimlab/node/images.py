"""Which local command stands for which container image.

The table is a JSON file `{image: {"command": [...], "env": {...}}}`, read again at each pull, so that an image can appear while pods wait for it.
"""

from pathlib import Path

import msgspec


class ImageCommand(msgspec.Struct, frozen=True):
    """`command` is the image's entry point, `env` what the image itself sets; the pod's `command` and `env` win over them."""

    command: tuple[str, ...]
    env: dict[str, str] = {}


Images = dict[str, ImageCommand]


def read_images(path: Path) -> Images:
    """Raises OSError where the file cannot be read and msgspec.DecodeError where it is not such a table."""
    return msgspec.json.decode(path.read_bytes(), type=Images)


def write_images(path: Path, images: Images) -> None:
    """Whole or not at all: a reader never sees half a table."""
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(images))
    part.replace(path)
