"""Getting files from a source onto disk: many ranges at once, each checked, with bounded memory.

Ranges are fetched in file order and may finish in any order; each file is read back from its first byte on as its ranges land, so that
hashing goes along with the transfer. A file whose content is not what the source says is fetched a second time from nothing (a power loss
can leave a finished range unwritten) and then given up. A thread that writes to a part always ends before the part is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from aim_downloader.checks import Digests
from aim_downloader.disk import Part
from aim_downloader.manifest import Entry
from aim_downloader.meter import Meter
from aim_downloader.outcome import Failure, Outcome, Retryable
from aim_downloader.ranges import Range
from aim_downloader.retry import Limits, as_retryable, pause_s, with_tries
from aim_downloader.source import Says, Source, SourceFile

T = TypeVar("T")

_CONTENT_TRIES = 2


@dataclass
class Transfer:
    """What all files of a run share."""

    source: Source
    dest: Path
    limits: Limits
    meter: Meter
    ranges: asyncio.Semaphore = field(init=False)
    files: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.ranges = asyncio.Semaphore(self.limits.ranges_in_flight)
        self.files = asyncio.Semaphore(self.limits.files_in_flight)


async def transfer(run: Transfer, files: Sequence[SourceFile]) -> list[Entry]:
    """Fetch, check and place all files. Raises Failure, OSError, or a group of these; what was got so far stays for the next run."""
    async with asyncio.TaskGroup() as tasks:
        fetches = [tasks.create_task(_fetch_in_turn(run, file)) for file in files]
    return [fetch.result() for fetch in fetches]


async def in_thread(call: Callable[..., T], *args: object) -> T:
    """Run blocking code in a thread; cancelled, wait for the thread's end (whichever), so that what it uses may be closed."""
    job = asyncio.ensure_future(asyncio.to_thread(call, *args))
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        while not job.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([job])
        job.exception()
        raise


async def _fetch_in_turn(run: Transfer, file: SourceFile) -> Entry:
    async with run.files:
        says = await with_tries(run.limits, lambda: run.source.says(file))
        for _ in range(_CONTENT_TRIES):
            part = await in_thread(Part, run.dest, file, run.limits.range_bytes)
            try:
                digests = await _fetch_content(run, part, says)
                wrong = digests.mismatches()
                if not wrong:
                    entry = Entry(path=file.path, size_bytes=file.size_bytes, sha256=digests.sha256, tag=file.tag, says=says)
                    await in_thread(part.place, entry)
                    run.meter.done()
                    return entry
                part.discard()
                run.meter.lost(file.size_bytes)
            finally:
                part.close()
        raise Failure(Outcome.CHECKSUM, f"{file.path}: content got twice, and its {', '.join(wrong)} is not what the source says")


async def _fetch_content(run: Transfer, part: Part, says: Says) -> Digests:
    """Fetch the ranges that are missing, and hash all of them in order as they land."""
    digests = Digests(part.file.size_bytes, says)
    landed = {rng.index: asyncio.Event() for rng in part.ranges}
    async with asyncio.TaskGroup() as tasks:
        for rng in part.ranges:
            if rng.index in part.finished:
                landed[rng.index].set()
            else:
                tasks.create_task(_fetch_range(run, part, rng, landed[rng.index]))
        for rng in part.ranges:
            await landed[rng.index].wait()
            await in_thread(part.read, rng, digests.update)
            run.meter.checked(rng.size_bytes, part.file.path)
    return digests


async def _fetch_range(run: Transfer, part: Part, rng: Range, landed: asyncio.Event) -> None:
    cursor = _Cursor(rng.start)
    failed_tries = 0
    async with run.ranges:
        while cursor.at < rng.end:
            before = cursor.at
            try:
                await _stream(run, part, cursor, rng.end)
            except (Retryable, TimeoutError) as error:
                failed_tries = 1 if cursor.at > before else failed_tries + 1
                problem = as_retryable(error, run.limits)
                if failed_tries >= run.limits.tries:
                    message = f"{part.file.path}: gave up after {failed_tries} tries: {problem.message}"
                    raise Failure(Outcome.TRANSIENT, message) from error
                await asyncio.sleep(pause_s(run.limits, failed_tries, problem.retry_after_s))
        await in_thread(part.finish, rng)
        landed.set()


@dataclass
class _Cursor:
    """How far a range is written; it outlives a try that fails."""

    at: int


async def _stream(run: Transfer, part: Part, cursor: _Cursor, end: int) -> None:
    """One request for the rest of a range. Raises Retryable, or TimeoutError if no byte comes for the limit's `stall_s`."""
    clock = asyncio.get_running_loop().time
    buffer = bytearray()
    async with asyncio.timeout(run.limits.stall_s) as stall, run.source.open_range(part.file, cursor.at, end) as body:
        while cursor.at < end:
            stall.reschedule(clock() + run.limits.stall_s)
            data = await body.read(min(run.limits.write_bytes, end - cursor.at - len(buffer)))
            if not data:
                raise Retryable("the answer ended early")
            buffer += data
            if len(buffer) >= run.limits.write_bytes or cursor.at + len(buffer) == end:
                stall.reschedule(None)
                await in_thread(part.write, cursor.at, buffer)
                cursor.at += len(buffer)
                run.meter.got(len(buffer), part.file.path)
                buffer = bytearray()
