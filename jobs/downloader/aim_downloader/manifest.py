"""The record of what is in DEST: which revision, which files, and what was checked. Pure.

`.aim-manifest.json` is written last, so a manifest means every file of its revision is whole. While
a run is under way, each file put in place is noted in a journal of the same entries, so that a run
that was killed is not begun from nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec
from msgspec import Struct

from aim_downloader.source import Listing, Says, SourceFile

MANIFEST_NAME = ".aim-manifest.json"


class Entry(Struct, frozen=True, kw_only=True):
    """A file that was checked and put in place. `tag` and `says` are the source's words,
    `sha256` was computed from the file."""

    path: str
    size_bytes: int
    sha256: str
    tag: str
    says: Says = Says()


class Manifest(Struct, frozen=True, kw_only=True):
    """A whole revision in DEST."""

    uri: str
    revision: str
    files: tuple[Entry, ...]


def encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def decode(data: bytes) -> Manifest | None:
    """None where it is torn or none of ours: it is then as if nothing were there."""
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def decode_journal(data: bytes) -> list[Entry]:
    """All entries up to a torn last line."""
    entries = []
    for line in data.splitlines():
        try:
            entries.append(msgspec.json.decode(line, type=Entry))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            break
    return entries


def known(manifest: Manifest | None, journal: Iterable[Entry]) -> dict[str, Entry]:
    """What is in DEST by path; the journal is the younger record."""
    entries = {entry.path: entry for entry in (manifest.files if manifest else ())}
    return entries | {entry.path: entry for entry in journal}


def kept(
    listing: Listing, entries: Mapping[str, Entry], size_on_disk: Callable[[str], int | None]
) -> dict[str, Entry]:
    """The listed files that are in DEST in the listed version. `size_on_disk` gives bytes, or
    None where no plain file is there."""
    return {
        file.path: entries[file.path]
        for file in listing.files
        if file.path in entries and _is_current(file, entries[file.path], size_on_disk)
    }


def stale(listing: Listing, entries: Iterable[str]) -> list[str]:
    """Paths of files we once put there that the source no longer lists."""
    return sorted(set(entries) - {file.path for file in listing.files})


def _is_current(file: SourceFile, entry: Entry, size_on_disk: Callable[[str], int | None]) -> bool:
    return (entry.tag, entry.size_bytes) == (file.tag, file.size_bytes) and size_on_disk(
        file.path
    ) == file.size_bytes
