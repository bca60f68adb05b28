"""How a container becomes a process: its files, its address, its command line and its
environment."""

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aimctl.local.processes import Program
from aimlab.kinds import Body
from aimlab.node import paths
from aimlab.node.environment import expand
from aimlab.node.images import ImageCommand

TERMINATION_PATH = "/dev/termination-log"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class ContainerFiles:
    """Where a container's things are on this machine."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def log(self, restarts: int) -> Path:
        return self.folder / "logs" / f"{restarts}.log"

    def termination(self, container: Body) -> Path:
        return Path(
            paths.under(self.root, container.get("terminationMessagePath") or TERMINATION_PATH)
        )


LOOPBACK = ipaddress.IPv4Network("127.128.0.0/10")
"""Where pods have their addresses if no other network is given."""


def address_of(uid: str, network: ipaddress.IPv4Network = LOOPBACK) -> str:
    """An address of a pod's own in `network`, the same for the same uid.

    Linux has all of 127.0.0.0/8 on the loopback interface; elsewhere the addresses must be added to
    it first.
    """
    number = int(hashlib.sha256(uid.encode()).hexdigest(), 16)
    return str(network[1 + number % (network.num_addresses - 2)])


def prepare(container: Body, folders: Mapping[str, Path], files: ContainerFiles) -> None:
    """Lays out the container's root with its mounts, and an empty termination message."""
    paths.lay_out(
        files.root,
        {
            mount["mountPath"]: _mount_folder(mount, folders)
            for mount in container.get("volumeMounts") or []
        },
    )
    termination = files.termination(container)
    termination.parent.mkdir(parents=True, exist_ok=True)
    termination.write_bytes(b"")


def _mount_folder(mount: Body, folders: Mapping[str, Path]) -> Path:
    folder = folders[mount["name"]]
    if mount.get("subPath"):
        folder = Path(paths.under(folder, mount["subPath"]))
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything that a process is made from. `env` is the container's, resolved; `account` what
    stands for its ServiceAccount's token."""

    container: Body
    image: ImageCommand
    env: Mapping[str, str]
    files: ContainerFiles
    pod_ip: str
    account: Mapping[str, str] = field(default_factory=dict)

    def program(self, restarts: int) -> Program:
        """The process gets its container's variables, PATH, HOME, the pod's address and where
        its termination message goes; nothing of the lab's."""
        root = self.files.root
        mounts = [mount["mountPath"] for mount in self.container.get("volumeMounts") or []]
        own = {"PATH": SEARCH_PATH, "HOME": str(root), "LANG": "C.UTF-8"}
        theirs = {name: paths.rewrite(value, mounts, root) for name, value in self.env.items()}
        lab = {
            "AIMLAB_POD_IP": self.pod_ip,
            "AIM_TERMINATION_LOG": str(self.files.termination(self.container)),
        }
        command = [expand(part, self.env) for part in self.container.get("command") or []] or list(
            self.image.command
        )
        args = [
            paths.rewrite(expand(part, self.env), mounts, root)
            for part in self.container.get("args") or []
        ]
        working_dir = Path(paths.under(root, self.container.get("workingDir") or "/"))
        working_dir.mkdir(parents=True, exist_ok=True)
        return Program(
            [*command, *args],
            self.files.log(restarts),
            own | self.image.env | dict(self.account) | theirs | lab,
            working_dir,
        )
