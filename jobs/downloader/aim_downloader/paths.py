"""Checks of the names that a source may use under DEST. Pure.

A key is untrusted. It must stay below DEST and be writable as a path there. No name may be a file
and a folder at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from aim_downloader.exit_codes import Failure, Outcome
from aim_downloader.source import OWN_NAMES, SourceFile

_SEGMENT_BYTES_MAX = 255


def is_own(path: str) -> bool:
    """Whether the path belongs to the records of the downloader in DEST."""
    return path.partition("/")[0] in OWN_NAMES


def is_safe(path: str) -> bool:
    """Whether the path can be a file below DEST."""
    return bool(path) and not _fault(path)


def without_placeholders(files: Iterable[SourceFile]) -> list[SourceFile]:
    """The files without empty objects that only represent a folder: names that end in a slash, and
    `x` beside `x/...`."""
    listed = list(files)
    folders = {folder for file in listed for folder in _folders(file.path)}
    return [
        file
        for file in listed
        if file.size_bytes or not (file.path.endswith("/") or not file.path or file.path in folders)
    ]


def _folders(path: str) -> Iterator[str]:
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)


def require_safe(paths: Iterable[str]) -> None:
    """Raise Failure(NOT_FOUND), naming the key, if any path cannot be a separate file below
    DEST."""
    known_paths: set[str] = set()
    for path in paths:
        if fault := _fault(path):
            raise Failure(
                Outcome.NOT_FOUND,
                f"rejected: the source lists {path!r}, which {fault}; rename it at the source",
            )
        if path in known_paths:
            raise Failure(Outcome.NOT_FOUND, f"rejected: the source lists {path!r} twice")
        known_paths.add(path)
    for path in known_paths:
        segments = path.split("/")
        for depth in range(1, len(segments)):
            if "/".join(segments[:depth]) in known_paths:
                folder = "/".join(segments[:depth])
                raise Failure(
                    Outcome.NOT_FOUND,
                    (
                        f"rejected: the source lists {folder!r} as a file and as the folder of"
                        f" {path!r}"
                    ),
                )


def _fault(path: str) -> str:
    segments = path.split("/")
    if path.startswith("/"):
        return "is an absolute path"
    if path.endswith("/"):
        return "is the name of a folder, and has content"
    if "" in segments:
        return "has an empty path segment"
    if "." in segments or ".." in segments:
        return "has a '.' or '..' path segment"
    if "\x00" in path or any(0xD800 <= ord(char) <= 0xDFFF for char in path):
        return "has characters no file name can have"
    if any(len(segment.encode()) > _SEGMENT_BYTES_MAX for segment in segments):
        return f"has a path segment of more than {_SEGMENT_BYTES_MAX} bytes"
    return ""
