"""The verbs fetch, size and verify. Each fills a `Done` for the result line.

Blocking work runs in threads. Failures are exceptions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from aim_downloader import disk
from aim_downloader.checksums import Digests
from aim_downloader.exit_codes import Failure, Outcome
from aim_downloader.lock import Lock, hold_lock
from aim_downloader.manifest import (
    Entry,
    Manifest,
    obsolete_paths,
    recorded_entries,
    reusable_entries,
)
from aim_downloader.paths import require_safe
from aim_downloader.progress import Meter
from aim_downloader.report import Reporter
from aim_downloader.retry import Limits, retry
from aim_downloader.selection import Selection, select
from aim_downloader.source import Listing, PlainSource, Source, SourceFile
from aim_downloader.transfer import Transfer, in_thread, transfer
from aim_downloader.uri import HUB_SCHEME, HubUri, SourceUri, has_serverless_mirror

_LINE_EVERY_S = 1.0
_NAMED_MAX = 5


@dataclass
class Done:
    """The result of a verb. The verb fills it step by step, so that a failure can report it too.
    `left_bytes` are not written yet."""

    revision: str = ""
    size_bytes: int = 0
    files: int = 0
    message: str = ""
    manifest_digest: str = ""
    meter: Meter | None = None

    @property
    def left_bytes(self) -> int:
        return self.meter.left_bytes if self.meter else self.size_bytes


@dataclass(frozen=True)
class Verb:
    """The inputs of every verb. The verb fills `done`. `free_bytes` returns the free space of DEST,
    None if unknown."""

    uri: str
    reporter: Reporter
    limits: Limits
    done: Done
    free_bytes: Callable[[Path], int | None] = disk.free_bytes
    selection: Selection = field(default_factory=Selection)


def open_source(
    uri: SourceUri, env: Mapping[str, str], limits: Limits
) -> AbstractAsyncContextManager[Source]:
    """The source of a URI, open for the duration of a run. Its client is imported only then: each
    takes 0.1 s of CPU."""
    if isinstance(uri, HubUri) and has_serverless_mirror(env):
        from aim_downloader.mirror import open_mirror  # noqa: PLC0415

        return open_mirror(uri, env, limits)
    if isinstance(uri, HubUri):
        from aim_downloader.hub import open_hub  # noqa: PLC0415

        return open_hub(uri, env, limits)
    from aim_downloader.s3 import open_s3  # noqa: PLC0415

    return open_s3(uri, env, limits)


async def size(verb: Verb, source: Source) -> None:
    """Report total bytes and number of files of the source's current revision."""
    listing = await _listing(verb, source)
    verb.done.message = f"{listing.size_bytes} bytes in {len(listing.files)} files"


async def fetch(verb: Verb, source: Source, dest: Path) -> None:
    """Make DEST hold exactly the source's current revision and its manifest. Files and ranges that
    DEST already has are not fetched. Waits while another downloader fills DEST."""
    listing = await _listing(verb, source)
    have = await in_thread(_have, verb, listing, dest)
    if not have.is_complete:
        await in_thread(disk.make_dest, dest)
        async with hold_lock(dest, verb.limits) as lock:
            have = await in_thread(_have, verb, listing, dest)
            if not have.is_complete:
                await _fill(verb, (source, listing, dest), have, lock)
                return
    verb.done.meter = Meter(listing.size_bytes, len(listing.files))
    verb.done.meter.add_existing(listing.size_bytes, files=len(listing.files))
    verb.reporter.progress(verb.done.meter.line(_now_s()))
    verb.done.manifest_digest = have.manifest_digest
    verb.done.message = "this revision is already complete"


@dataclass(frozen=True)
class _Have:
    """What DEST has of a listing: files that an entry vouches for."""

    entries: Mapping[str, Entry]
    reusable: Mapping[str, Entry]
    is_complete: bool
    manifest_digest: str


def _have(verb: Verb, listing: Listing, dest: Path) -> _Have:
    manifest = disk.read_manifest(dest)
    entries = recorded_entries(manifest, disk.read_journal(dest))
    reusable = reusable_entries(listing, entries, lambda path: disk.size_on_disk(dest, path))
    is_same = (
        manifest is not None
        and (manifest.uri, manifest.revision) == (verb.uri, listing.revision)
        and {entry.path for entry in manifest.files} == {file.path for file in listing.files}
    )
    is_whole = len(reusable) == len(listing.files)
    return _Have(
        entries,
        reusable,
        is_same and is_whole and disk.is_settled(dest),
        disk.manifest_digest(dest),
    )


async def _fill(verb: Verb, what: tuple[Source, Listing, Path], have: _Have, lock: Lock) -> None:
    source, listing, dest = what
    missing = [file for file in listing.files if file.path not in have.reusable]
    meter = verb.done.meter = Meter(listing.size_bytes, len(listing.files))
    existing_bytes = sum(entry.size_bytes for entry in have.reusable.values())
    meter.add_existing(existing_bytes, files=len(have.reusable))
    await in_thread(disk.prepare, dest)
    await in_thread(disk.drop_other_parts, dest, missing)
    resumed_bytes = await in_thread(_resumed_bytes, dest, missing, verb.limits)
    meter.add_existing(resumed_bytes)
    await in_thread(_require_space, verb, dest, missing)
    run = Transfer(
        source, dest, verb.limits, meter, plain=_plain_source(source), guard=lock.require
    )
    async with _lines(verb.reporter, meter):
        placed = await transfer(run, missing)
    await in_thread(lock.require)
    await in_thread(disk.remove_files, dest, obsolete_paths(listing, have.entries))
    placed_now = {**have.reusable, **{entry.path: entry for entry in placed}}
    files = tuple(placed_now[file.path] for file in listing.files)
    manifest = Manifest(uri=verb.uri, revision=listing.revision, files=files)
    verb.done.manifest_digest = await in_thread(disk.write_manifest, dest, manifest)
    verb.done.message = f"fetched {len(missing)} of {len(listing.files)} files"
    if resumed_bytes:
        verb.done.message += f", {resumed_bytes} bytes were already there"
    if listing.remark:
        verb.done.message += f"; {listing.remark}"


def _plain_source(source: Source) -> PlainSource | None:
    return source if isinstance(source, PlainSource) else None


async def verify(verb: Verb, source: Source, dest: Path) -> None:
    """Read every file in DEST and compare it with the manifest and with the source. Changes
    nothing."""
    listing = await _listing(verb, source)
    manifest = await in_thread(disk.read_manifest, dest)
    if manifest is None:
        raise Failure(
            Outcome.CHECKSUM, f"{dest} has no manifest, so no fetch was completed; run fetch"
        )
    if manifest.revision != listing.revision:
        message = (
            f"{dest} holds revision {manifest.revision} of {manifest.uri}, the source is at"
            f" {listing.revision}: fetch it"
        )
        raise Failure(Outcome.CHECKSUM, message)
    entries = {entry.path: entry for entry in manifest.files}
    meter = Meter(listing.size_bytes, len(listing.files), verifying=True)
    async with _lines(verb.reporter, meter):
        faults = [
            fault
            for file in listing.files
            if (fault := await _fault(verb, source, dest, (file, entries.get(file.path)), meter))
        ]
    if faults:
        more = f" and {len(faults) - _NAMED_MAX} more" if len(faults) > _NAMED_MAX else ""
        raise Failure(
            Outcome.CHECKSUM,
            f"{len(faults)} files are incomplete or damaged:"
            f" {'; '.join(faults[:_NAMED_MAX])}{more}; remove and fetch them",
        )
    verb.done.message = f"all {len(listing.files)} files match the source"


async def _listing(verb: Verb, source: Source) -> Listing:
    listing = select(await source.listing(), verb.selection, is_hub=verb.uri.startswith(HUB_SCHEME))
    verb.done.revision = listing.revision
    verb.done.size_bytes = listing.size_bytes
    verb.done.files = len(listing.files)
    if not listing.files:
        raise Failure(Outcome.NOT_FOUND, f"{verb.uri} has no files")
    require_safe(file.path for file in listing.files)
    return listing


async def _fault(
    verb: Verb, source: Source, dest: Path, expected: tuple[SourceFile, Entry | None], meter: Meter
) -> str:
    """The fault of one file as a short phrase; empty without a fault."""
    file, entry = expected
    if entry is None:
        return f"{file.path} is not in the manifest"
    found_bytes = await in_thread(disk.size_on_disk, dest, file.path)
    if found_bytes != file.size_bytes:
        return (
            f"{file.path} is missing"
            if found_bytes is None
            else f"{file.path} has {found_bytes} bytes, not {file.size_bytes}"
        )
    digests = Digests(
        file.size_bytes, await retry(verb.limits, lambda: source.expected_checksums(file))
    )

    def take(data: bytes) -> None:
        digests.update(data)
        meter.add_checked(len(data), file.path)

    await in_thread(disk.read_through, dest / file.path, take)
    meter.count_file()
    wrong = digests.mismatches()
    if digests.sha256 != entry.sha256:
        return f"{file.path}: sha256 is not the manifest's"
    return f"{file.path}: {', '.join(wrong)} is not the source's" if wrong else ""


def _resumed_bytes(dest: Path, files: Iterable[SourceFile], limits: Limits) -> int:
    return sum(disk.finished_bytes(dest, file, limits.range_bytes) for file in files)


def _require_space(verb: Verb, dest: Path, files: Iterable[SourceFile]) -> None:
    needed_bytes = sum(file.size_bytes - disk.allocated_bytes(dest, file) for file in files)
    free_bytes = verb.free_bytes(dest)
    if free_bytes is not None and needed_bytes > free_bytes:
        raise no_space(dest, needed_bytes, free_bytes)


def no_space(
    dest: Path, needed_bytes: int, free_bytes: int | None, *, quota: bool = False
) -> Failure:
    """The failure with both numbers. `needed_bytes` are not written yet; `free_bytes` is None if
    unknown."""
    free = (
        "its file system does not report its free space"
        if free_bytes is None
        else f"{free_bytes} free"
    )
    message = f"{dest} has too little space: {needed_bytes} bytes still needed, {free}" + (
        ", but a quota is used up" if quota else ""
    )
    return Failure(Outcome.NO_SPACE, message, needed_bytes=needed_bytes, free_bytes=free_bytes)


@asynccontextmanager
async def _lines(reporter: Reporter, meter: Meter) -> AsyncIterator[None]:
    """Print a progress line at the start, every second, and at the end."""

    async def tick() -> None:
        while True:
            reporter.progress(meter.line(_now_s()))
            await asyncio.sleep(_LINE_EVERY_S)

    ticking = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticking.cancel()
        with suppress(asyncio.CancelledError):
            await ticking
        reporter.progress(meter.line(_now_s()))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
