"""Gives a process without mounts the files of its pod.

A container's root is a folder with a symbolic link at every mount path. Absolute paths in its
arguments and environment are moved under that root if they equal a mount path, are under one or
contain one. Read-only mounts are links too: the process can write through them.
"""

import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path


def rewrite(text: str, mounts: Sequence[str], root: Path) -> str:
    """`text` with its path moved under `root` where it touches a mount path.

    The whole text may be a path, or what follows the first `=` of an option (`--data=/cache`). `/`
    alone and anything else is left as it is.
    """
    head, equals, tail = text.partition("=")
    if equals and head.startswith("-"):
        return head + equals + rewrite(tail, mounts, root)
    if not text.startswith("/") or "\n" in text:
        return text
    path = posixpath.normpath(text)
    touches = any(
        path == mount or path.startswith(mount + "/") or mount.startswith(path + "/")
        for mount in map(posixpath.normpath, mounts)
    )
    return under(root, path) if touches and path != "/" else text


def under(root: Path, path: str) -> str:
    """Where `path` of the container is on this machine; `..` cannot lead out of the root."""
    return str(root / posixpath.normpath("/" + path).lstrip("/"))


def lay_out(root: Path, mounts: Mapping[str, Path]) -> None:
    """Makes the root with a link to each folder at its mount path, outer mounts first; what is
    there already is left."""
    root.mkdir(parents=True, exist_ok=True)
    for mount_path in sorted(mounts, key=len):
        link = Path(under(root, mount_path))
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            link.unlink()
        if not link.exists():
            link.symlink_to(mounts[mount_path])
