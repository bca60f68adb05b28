"""Which local command stands for which container image, and what goes wrong with it.

The table is a JSON file `{image: {"command": [...], "env": {...}}}`, read again at each pull, so
that an image can appear while pods wait for it. A trouble of an image is in its entry, and is over
for pods that still wait when it is taken out.
"""

from pathlib import Path

import msgspec

from aimlab.apiserver.guests import SIDECAR_IMAGE


class Trouble(msgspec.Struct, frozen=True):
    """The text in a pod's status or an Event."""

    reason: str
    message: str = ""


class ImageCommand(msgspec.Struct, frozen=True):
    """`command` is the image's entry point, `env` what the image itself sets; the pod's `command`
    and `env` take precedence.

    `pod_fails`: the pod ends Failed with this status.reason before a container runs, like a pod
    that the kubelet cannot admit, that is evicted, or that is lost with its node. `cannot_start`:
    the pod stays in ContainerCreating, and a Warning Event names the cause (FailedMount,
    FailedAttachVolume). `end_reason`: the reported reason of a container that fails, such as
    OOMKilled.
    """

    command: tuple[str, ...]
    env: dict[str, str] = {}
    pod_fails: Trouble | None = None
    cannot_start: Trouble | None = None
    end_reason: str = ""


Images = dict[str, ImageCommand]
BUILT_IN: Images = {SIDECAR_IMAGE: ImageCommand(("/bin/sleep", "infinity"))}
"""Those that the lab itself puts into pods."""


def read_images(path: Path) -> Images:
    """Raises OSError where the file cannot be read and msgspec.DecodeError where it is not such
    a table."""
    return msgspec.json.decode(path.read_bytes(), type=Images)


def write_images(path: Path, images: Images) -> None:
    """Whole or not at all: a reader never sees half a table."""
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(images))
    part.replace(path)
