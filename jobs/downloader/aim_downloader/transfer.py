"""Fetches files from a source to disk: many ranges at once, each verified, with bounded memory.

Ranges are fetched in file order and may finish in any order. Each file is read back from its first
byte as its ranges arrive, so that hashing runs along with the transfer. A file with a wrong digest
is fetched a second time from the start (a power loss can leave a finished range unwritten); then
the run fails. A thread that writes to a part always ends before the part is closed.

If a server ignores or rejects ranges, that file and all later ones come over one connection each,
from byte 0."""

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
from aim_downloader.retry import Limits, RetriesExhausted, as_retryable, pause_s, retry
from aim_downloader.source import Body, ExpectedChecksums, Source, SourceFile

T = TypeVar("T")

_CONTENT_TRIES = 2


@dataclass
class Transfer:
    """The state that all files of a run share. `in_ranges` becomes False when the server ignores or
    rejects ranges."""

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
    """Fetch, verify and place all files. Raises Failure, OSError, or a group of these. Finished
    ranges stay for the next run."""
    async with asyncio.TaskGroup() as tasks:
        fetches = [tasks.create_task(_fetch_in_turn(run, file)) for file in files]
    return [fetch.result() for fetch in fetches]


async def in_thread(call: Callable[..., T], *args: object) -> T:
    """Run blocking code in a thread. If cancelled, wait until the thread ends, so that the caller
    may close what it uses."""
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
        expected = await _expected_checksums(run, file)
        for _ in range(_CONTENT_TRIES):
            part = await in_thread(Part, run.dest, file, run.limits.range_bytes)
            try:
                digests = await _fetch_content(run, part, expected)
                wrong = digests.mismatches()
                if not wrong:
                    entry = Entry(
                        path=file.path,
                        size_bytes=file.size_bytes,
                        sha256=digests.sha256,
                        tag=file.tag,
                        expected=expected,
                    )
                    await in_thread(part.place, entry)
                    run.meter.count_file()
                    return entry
                part.discard()
                run.meter.discard(file.size_bytes)
            finally:
                part.close()
        raise Failure(
            Outcome.CHECKSUM,
            f"{file.path}: downloaded twice, and its {', '.join(wrong)} does not match the source",
        )


async def _expected_checksums(run: Transfer, file: SourceFile) -> ExpectedChecksums:
    """The expected checksums; empty if the source does not answer. A read then shows whether the
    source is unreachable."""
    try:
        return await retry(run.limits, lambda: run.source.expected_checksums(file))
    except RetriesExhausted:
        return ExpectedChecksums()


async def _fetch_content(run: Transfer, part: Part, expected: ExpectedChecksums) -> Digests:
    """Fetch the missing ranges, and hash all ranges in order as they arrive."""
    digests = Digests(part.file.size_bytes, expected)
    landed = {rng.index: asyncio.Event() for rng in part.ranges}
    for index in part.finished:
        landed[index].set()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_fetch_missing(run, part, landed))
        for rng in part.ranges:
            await landed[rng.index].wait()
            await in_thread(part.read, rng, digests.update)
            run.meter.add_checked(rng.size_bytes, part.file.path)
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
                    run.meter.add_received(rng.start - cursor.at, part.file.path)
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
                await tries.back_off(error, has_progress=cursor.at > before)
        await in_thread(part.finish, rng)
        landed.set()


async def _fetch_whole(run: Transfer, part: Part, landed: Mapping[int, asyncio.Event]) -> None:
    """Fetch all missing ranges from one response, and from the next one if it breaks. Finished
    ranges are skipped in the body."""
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
            await tries.back_off(error, has_progress=landed[missing[0].index].is_set())


async def _land(run: Transfer, part: Part, body: Body, rng: Range, stall: asyncio.Timeout) -> None:
    cursor = _Cursor(rng.start)
    try:
        await _copy(run, part, body, (cursor, rng.end), stall)
    except (Retryable, TimeoutError, asyncio.CancelledError):
        run.meter.add_received(rng.start - cursor.at, part.file.path)
        raise
    await in_thread(part.finish, rng)


@dataclass
class _Cursor:
    """The next byte of a range to write. It outlives a failed try."""

    at: int


@dataclass
class _Tries:
    """Counts failed tries without progress in between."""

    run: Transfer
    file: SourceFile
    count: int = 0

    async def back_off(self, error: Retryable | TimeoutError, *, has_progress: bool) -> None:
        """Wait before the next try. Raises Failure after the last."""
        self.count = 1 if has_progress else self.count + 1
        problem = as_retryable(error, self.run.limits)
        if self.count >= self.run.limits.tries:
            message = f"{self.file.path}: gave up after {self.count} tries: {problem.message}"
            raise Failure(Outcome.TRANSIENT, message) from error
        await asyncio.sleep(pause_s(self.run.limits, self.count, problem.retry_after_s))


async def _copy(
    run: Transfer, part: Part, body: Body, where: tuple[_Cursor, int], stall: asyncio.Timeout
) -> None:
    """Write a body from the cursor to an end. Raises Retryable, or TimeoutError if no byte arrives
    for `limits.stall_s`."""
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
            run.meter.add_received(len(buffer), part.file.path)
            buffer = bytearray()


async def _skip(run: Transfer, body: Body, size_bytes: int, stall: asyncio.Timeout) -> None:
    """Read and drop bytes that are already on disk."""
    clock, left_bytes = asyncio.get_running_loop().time, size_bytes
    while left_bytes:
        stall.reschedule(clock() + run.limits.stall_s)
        data = await body.read(min(run.limits.write_bytes, left_bytes))
        if not data:
            raise Retryable("the answer ended early")
        left_bytes -= len(data)
