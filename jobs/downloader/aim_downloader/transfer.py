"""Getting files from a source onto disk: many ranges at once, each checked, with bounded memory.

Ranges are fetched in file order and may finish in any order; each file is read back from its first
byte on as its ranges land, so that hashing goes along with the transfer. A file whose content is
not what the source says is fetched a second time from nothing (a power loss can leave a finished
range unwritten) and then given up. A thread that writes to a part always ends before the part is
closed.

Where a server answers ranges with the whole file, or not at all, that file and all after it come
over one connection each, from byte 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from aim_downloader.checksums import Digests
from aim_downloader.disk import Part
from aim_downloader.exit_codes import Failure, Outcome, RangesIgnored, Retryable
from aim_downloader.manifest import Entry
from aim_downloader.progress import Meter
from aim_downloader.ranges import Range
from aim_downloader.retry import GaveUp, Limits, as_retryable, pause_s, with_tries
from aim_downloader.source import Body, Says, Source, SourceFile

T = TypeVar("T")

_CONTENT_TRIES = 2


@dataclass
class Transfer:
    """What all files of a run share. `in_ranges` goes when the server turns out not to know
    them."""

    source: Source
    dest: Path
    limits: Limits
    meter: Meter
    in_ranges: bool = True
    ranges: asyncio.Semaphore = field(init=False)
    files: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.ranges = asyncio.Semaphore(self.limits.ranges_in_flight)
        self.files = asyncio.Semaphore(self.limits.files_in_flight)


async def transfer(run: Transfer, files: Sequence[SourceFile]) -> list[Entry]:
    """Fetch, check and place all files. Raises Failure, OSError, or a group of these; what was
    got so far stays for the next run."""
    async with asyncio.TaskGroup() as tasks:
        fetches = [tasks.create_task(_fetch_in_turn(run, file)) for file in files]
    return [fetch.result() for fetch in fetches]


async def in_thread(call: Callable[..., T], *args: object) -> T:
    """Run blocking code in a thread; cancelled, wait for the thread's end (whichever), so that
    what it uses may be closed."""
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
        says = await _says(run, file)
        for _ in range(_CONTENT_TRIES):
            part = await in_thread(Part, run.dest, file, run.limits.range_bytes)
            try:
                digests = await _fetch_content(run, part, says)
                wrong = digests.mismatches()
                if not wrong:
                    entry = Entry(
                        path=file.path,
                        size_bytes=file.size_bytes,
                        sha256=digests.sha256,
                        tag=file.tag,
                        says=says,
                    )
                    await in_thread(part.place, entry)
                    run.meter.done()
                    return entry
                part.discard()
                run.meter.lost(file.size_bytes)
            finally:
                part.close()
        raise Failure(
            Outcome.CHECKSUM,
            f"{file.path}: content got twice, and its {', '.join(wrong)} is not what the source"
            " says",
        )


async def _says(run: Transfer, file: SourceFile) -> Says:
    """What the source says of the content. A source that does not answer is read without:
    reading tells whether it is away."""
    try:
        return await with_tries(run.limits, lambda: run.source.says(file))
    except GaveUp:
        return Says()


async def _fetch_content(run: Transfer, part: Part, says: Says) -> Digests:
    """Fetch the ranges that are missing, and hash all of them in order as they land."""
    digests = Digests(part.file.size_bytes, says)
    landed = {rng.index: asyncio.Event() for rng in part.ranges}
    for index in part.finished:
        landed[index].set()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_fetch_missing(run, part, landed))
        for rng in part.ranges:
            await landed[rng.index].wait()
            await in_thread(part.read, rng, digests.update)
            run.meter.checked(rng.size_bytes, part.file.path)
    return digests


async def _fetch_missing(run: Transfer, part: Part, landed: Mapping[int, asyncio.Event]) -> None:
    missing = [(rng, _Cursor(rng.start)) for rng in part.ranges if not landed[rng.index].is_set()]
    if missing and run.in_ranges:
        try:
            async with asyncio.TaskGroup() as tasks:
                for rng, cursor in missing:
                    tasks.create_task(_fetch_range(run, part, (rng, cursor), landed[rng.index]))
        except* RangesIgnored:
            run.in_ranges = False
            for rng, cursor in missing:
                if not landed[rng.index].is_set():
                    run.meter.got(rng.start - cursor.at, part.file.path)
    if missing and not run.in_ranges:
        async with run.ranges:
            await _fetch_whole(run, part, landed)


async def _fetch_range(
    run: Transfer, part: Part, what: tuple[Range, _Cursor], landed: asyncio.Event
) -> None:
    rng, cursor = what
    tries = _Tries(run, part.file)
    async with run.ranges:
        while cursor.at < rng.end:
            before = cursor.at
            try:
                async with (
                    asyncio.timeout(run.limits.stall_s) as stall,
                    run.source.open_range(part.file, cursor.at, rng.end) as body,
                ):
                    await _copy(run, part, body, (cursor, rng.end), stall)
            except (Retryable, TimeoutError) as error:
                await tries.failed(error, has_progress=cursor.at > before)
        await in_thread(part.finish, rng)
        landed.set()


async def _fetch_whole(run: Transfer, part: Part, landed: Mapping[int, asyncio.Event]) -> None:
    """All missing ranges from one answer, and of the next one if it breaks; what is there
    already is read past."""
    tries = _Tries(run, part.file)
    while missing := [rng for rng in part.ranges if not landed[rng.index].is_set()]:
        try:
            async with (
                asyncio.timeout(run.limits.stall_s) as stall,
                run.source.open_whole(part.file) as body,
            ):
                for rng in part.ranges:
                    if landed[rng.index].is_set():
                        await _skip(run, body, rng.size_bytes, stall)
                    else:
                        await _land(run, part, body, rng, stall)
                        landed[rng.index].set()
                if await body.read(1):
                    raise Failure(
                        Outcome.TRANSIENT,
                        f"{part.file.path}: the answer is longer than the {part.file.size_bytes}"
                        " bytes listed",
                    )
        except (Retryable, TimeoutError) as error:
            await tries.failed(error, has_progress=landed[missing[0].index].is_set())


async def _land(run: Transfer, part: Part, body: Body, rng: Range, stall: asyncio.Timeout) -> None:
    cursor = _Cursor(rng.start)
    try:
        await _copy(run, part, body, (cursor, rng.end), stall)
    except (Retryable, TimeoutError, asyncio.CancelledError):
        run.meter.got(rng.start - cursor.at, part.file.path)
        raise
    await in_thread(part.finish, rng)


@dataclass
class _Cursor:
    """How far a range is written; it outlives a try that fails."""

    at: int


@dataclass
class _Tries:
    """Tries that failed without progress in between."""

    run: Transfer
    file: SourceFile
    count: int = 0

    async def failed(self, error: Retryable | TimeoutError, *, has_progress: bool) -> None:
        """Wait before the next one. Raises Failure after the last."""
        self.count = 1 if has_progress else self.count + 1
        problem = as_retryable(error, self.run.limits)
        if self.count >= self.run.limits.tries:
            message = f"{self.file.path}: gave up after {self.count} tries: {problem.message}"
            raise Failure(Outcome.TRANSIENT, message) from error
        await asyncio.sleep(pause_s(self.run.limits, self.count, problem.retry_after_s))


async def _copy(
    run: Transfer, part: Part, body: Body, where: tuple[_Cursor, int], stall: asyncio.Timeout
) -> None:
    """Write an answer from the cursor on up to an end. Raises Retryable, or TimeoutError if no
    byte comes for the limit's `stall_s`."""
    clock, (cursor, end) = asyncio.get_running_loop().time, where
    buffer = bytearray()
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


async def _skip(run: Transfer, body: Body, size_bytes: int, stall: asyncio.Timeout) -> None:
    """Read past bytes that are there already."""
    clock, left_bytes = asyncio.get_running_loop().time, size_bytes
    while left_bytes:
        stall.reschedule(clock() + run.limits.stall_s)
        data = await body.read(min(run.limits.write_bytes, left_bytes))
        if not data:
            raise Retryable("the answer ended early")
        left_bytes -= len(data)
