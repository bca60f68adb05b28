"""The record of DEST: its revision, its files and their checksums. Pure.

The downloader writes `.aim-manifest.json` last. A manifest therefore means that every file of its
revision is complete. During a run, a journal records each file that is in place, with the same
entries. A run after a kill continues from the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec
from msgspec import Struct, field

from aim_downloader.source import ExpectedChecksums, Listing, SourceFile

MANIFEST_NAME = ".aim-manifest.json"


class Entry(Struct, frozen=True, kw_only=True):
    """A verified file in its place. `tag` and `expected` come from the source; `sha256` is computed
    from the file. The JSON name of `expected` is `says`: files on volumes have it."""

    path: str
    size_bytes: int
    sha256: str
    tag: str
    expected: ExpectedChecksums = field(default=ExpectedChecksums(), name="says")


class Manifest(Struct, frozen=True, kw_only=True):
    """A complete revision in DEST."""

    uri: str
    revision: str
    files: tuple[Entry, ...]


def encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def decode(data: bytes) -> Manifest | None:
    """None for a torn or foreign file: DEST then counts as empty."""
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


def recorded_entries(manifest: Manifest | None, journal: Iterable[Entry]) -> dict[str, Entry]:
    """The entries of DEST by path. The journal wins: it is newer than the manifest."""
    entries = {entry.path: entry for entry in (manifest.files if manifest else ())}
    return entries | {entry.path: entry for entry in journal}


def reusable_entries(
    listing: Listing, entries: Mapping[str, Entry], size_on_disk: Callable[[str], int | None]
) -> dict[str, Entry]:
    """The listed files that DEST has in the listed version. `size_on_disk` returns bytes, or
    None without a regular file."""
    return {
        file.path: entries[file.path]
        for file in listing.files
        if file.path in entries and _is_current(file, entries[file.path], size_on_disk)
    }


def obsolete_paths(listing: Listing, entries: Iterable[str]) -> list[str]:
    """Paths that an earlier run fetched and that the source no longer lists."""
    return sorted(set(entries) - {file.path for file in listing.files})


def _is_current(file: SourceFile, entry: Entry, size_on_disk: Callable[[str], int | None]) -> bool:
    return (entry.tag, entry.size_bytes) == (file.tag, file.size_bytes) and size_on_disk(
        file.path
    ) == file.size_bytes
