"""Fetches files from a source to disk: many ranges at once, each verified, with bounded memory.

Ranges are fetched in file order and may finish in any order. Digests are computed from the bytes in
memory as they arrive. A range keeps its place among those in flight until its bytes are hashed: so
memory is bounded by `ranges_in_flight` ranges. A file with a wrong digest is fetched a second time
from the start (a power loss can leave a finished range unwritten); then the run fails. A thread
that writes to a part always ends before the part is closed.

If a server ignores or rejects ranges, that file and all later ones come over one connection each,
from byte 0."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from aim_downloader import disk
from aim_downloader.assembly import Assembly
from aim_downloader.checksums import Digests
from aim_downloader.disk import Part
from aim_downloader.exit_codes import Failure, Outcome, RangesIgnored, Retryable
from aim_downloader.manifest import Entry
from aim_downloader.plain import Call, NotPlain, PlainRequest
from aim_downloader.progress import Meter
from aim_downloader.ranges import Range
from aim_downloader.retry import Limits, RetriesExhausted, as_retryable, pause_s, retry
from aim_downloader.source import Body, ExpectedChecksums, PlainSource, Source, SourceFile

T = TypeVar("T")

_CONTENT_TRIES = 2


@dataclass
class Transfer:
    """The state that all files of a run share. `guard` raises if this run may not place files any
    more. `in_ranges` becomes False when the server ignores or rejects ranges."""

    source: Source
    dest: Path
    limits: Limits
    meter: Meter
    plain: PlainSource | None = None
    guard: Callable[[], None] = lambda: None
    in_ranges: bool = True
    begun: set[str] = field(default_factory=set)
    ranges: asyncio.Semaphore = field(init=False)
    files: asyncio.Semaphore = field(init=False)
    buffers: Buffers = field(init=False)
    _plain_threads: ThreadPoolExecutor = field(init=False)
    _small: list[tuple[SourceFile, Entry]] = field(default_factory=list)
    _placing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.ranges = asyncio.Semaphore(self.limits.ranges_in_flight)
        self.files = asyncio.Semaphore(self.limits.files_in_flight)
        self.buffers = Buffers(self.limits.buffer_bytes)
        self._plain_threads = ThreadPoolExecutor(self.limits.ranges_in_flight, "plain")

    async def add_small(self, file: SourceFile, entry: Entry) -> None:
        """Place a file that was written whole. Files that come during a placement are placed
        together after it."""
        self._small.append((file, entry))
        if not self._placing.locked():
            await self.place_small()

    async def place_small(self) -> None:
        async with self._placing:
            while self._small:
                placed, self._small = self._small, []
                await in_thread(self.guard)
                await in_thread(disk.place_small, self.dest, placed)

    async def in_plain_thread(self, receive: Callable[..., T], *args: object) -> T:
        """Run a function that receives and blocks, with a Call as its last argument. If cancelled,
        stop the call and wait until the thread ends."""
        call = Call()
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(self._plain_threads, partial(receive, *args, call))
        return await _until_done(job, call.stop)


async def transfer(run: Transfer, files: Sequence[SourceFile]) -> list[Entry]:
    """Fetch, verify and place all files. Raises Failure, OSError, or a group of these. Finished
    ranges stay for the next run."""
    run.begun = await in_thread(disk.begun_paths, run.dest, files)
    async with asyncio.TaskGroup() as tasks:
        fetches = [tasks.create_task(_fetch_in_turn(run, file)) for file in files]
    await run.place_small()
    return [fetch.result() for fetch in fetches]


async def _fetch_small(run: Transfer, file: SourceFile) -> Entry | None:
    """Fetch a file of at most one range by one plain request, without a HEAD. None if that is not
    possible, or the content is wrong: then the usual way decides."""
    plain = run.plain
    if (
        plain is None
        or not plain.reader.is_useful
        or not 0 < file.size_bytes <= run.limits.range_bytes
        or file.path in run.begun
        or not plain.is_checked_by_answer(file)
    ):
        return None
    async with run.ranges:
        request = await plain.plain_request(file, (0, file.size_bytes))
        if request is None:
            return None
        entry = await run.in_plain_thread(_receive_small, run, (request, file))
    if entry:
        run.meter.add_received(file.size_bytes, file.path)
        run.meter.add_checked(file.size_bytes, file.path)
        run.meter.count_file()
        await run.add_small(file, entry)
    return entry


def _receive_small(
    run: Transfer, what: tuple[PlainRequest, SourceFile], call: Call
) -> Entry | None:
    """Blocks."""
    request, file = what
    assert run.plain
    data = bytearray(file.size_bytes)
    try:
        with run.plain.reader.open(request, call) as (headers, body):
            expected = run.plain.checksums_of_answer(file, headers)
            body.fill(memoryview(data))
    except NotPlain:
        return None
    digests = Digests(file.size_bytes, expected)
    digests.update(data)
    if digests.mismatches():
        return None
    disk.write_small(run.dest, file, data)
    return Entry(
        path=file.path,
        size_bytes=file.size_bytes,
        sha256=digests.sha256,
        tag=file.tag,
        expected=expected,
    )


async def in_thread(call: Callable[..., T], *args: object) -> T:
    """Run blocking code in a thread. If cancelled, wait until the thread ends, so that the caller
    may close what it uses."""
    return await _until_done(asyncio.ensure_future(asyncio.to_thread(call, *args)))


async def _until_done(job: asyncio.Future[T], stop: Callable[[], None] = lambda: None) -> T:
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        stop()
        while not job.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([job])
        if not job.cancelled():
            job.exception()
        raise


class Buffers:
    """Buffers of one size that are used again: new memory costs as much as receiving into it."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._free: list[bytearray] = []

    def get(self) -> bytearray:
        try:
            return self._free.pop()
        except IndexError:
            return bytearray(self._size_bytes)

    def put(self, buffer: bytearray) -> None:
        self._free.append(buffer)


async def _fetch_in_turn(run: Transfer, file: SourceFile) -> Entry:
    async with run.files:
        if entry := await _fetch_small(run, file):
            return entry
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
                    await in_thread(run.guard)
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
    """Fetch the missing ranges, and compute the digests of all bytes as they arrive."""
    progress = _Progress(run, part, Digests(part.file.size_bytes, expected, run.limits.range_bytes))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(in_thread(progress.assembly.advance))
        tasks.create_task(_fetch_missing(run, progress))
    return progress.assembly.digests


class _Progress:
    """The ranges of a file that landed on disk, and the bytes that all digests have."""

    def __init__(self, run: Transfer, part: Part, digests: Digests) -> None:
        self.part = part
        self.assembly = Assembly(part, digests, self._on_advance)
        self.landed = set(part.finished)
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._checked_to = 0
        self._change = asyncio.Event()
        self._ends = {rng.end for rng in part.ranges}

    async def land(self, rng: Range) -> None:
        """Record the range. Then wait until its bytes have left the memory."""
        await in_thread(self.part.finish, rng)
        self.landed.add(rng.index)
        while self._checked_to < rng.end:
            self._change.clear()
            await self._change.wait()

    def _on_advance(self, position: int) -> None:
        """Called from threads."""
        if position in self._ends:
            self._loop.call_soon_threadsafe(self._note, position)

    def _note(self, position: int) -> None:
        if position > self._checked_to:
            self._run.meter.add_checked(position - self._checked_to, self.part.file.path)
            self._checked_to = position
            self._change.set()


async def _fetch_missing(run: Transfer, progress: _Progress) -> None:
    missing = [rng for rng in progress.part.ranges if rng.index not in progress.landed]
    if missing and run.in_ranges:
        try:
            async with asyncio.TaskGroup() as tasks:
                for rng in missing:
                    tasks.create_task(_fetch_range(run, progress, rng))
        except* RangesIgnored:
            run.in_ranges = False
    if missing and not run.in_ranges:
        async with run.ranges:
            await _fetch_whole(run, progress)


async def _fetch_range(run: Transfer, progress: _Progress, rng: Range) -> None:
    tries = _Tries(run, progress.part.file)
    async with run.ranges:
        await _fetch_plainly(run, progress, rng)
        while (before := progress.assembly.taken_to(rng)) < rng.end:
            try:
                async with (
                    asyncio.timeout(run.limits.stall_s) as stall,
                    run.source.open_range(progress.part.file, before, rng.end) as body,
                ):
                    await _copy(run, progress, (body, rng), stall)
            except (Retryable, TimeoutError) as error:
                has_progress = progress.assembly.taken_to(rng) > before
                await tries.back_off(error, has_progress=has_progress)
        await progress.land(rng)


async def _fetch_plainly(run: Transfer, progress: _Progress, rng: Range) -> None:
    """Fetch as much of a range as a plain request gives. The source's own client gets the rest."""
    if run.plain is None or not run.plain.reader.is_useful:
        return
    request = await run.plain.plain_request(progress.part.file, (rng.start, rng.end))
    if request is not None:
        await run.in_plain_thread(_receive, run, progress.assembly, (request, rng))


def _receive(
    run: Transfer, assembly: Assembly, what: tuple[PlainRequest, Range], call: Call
) -> None:
    """Blocks."""
    request, rng = what
    assert run.plain
    with suppress(NotPlain), run.plain.reader.open(request, call) as (_, body):
        while (at := assembly.taken_to(rng)) < rng.end:
            buffer = run.buffers.get()
            data = memoryview(buffer)[: min(len(buffer), rng.end - at)]
            body.fill(data)
            assembly.take(rng, data, partial(run.buffers.put, buffer))
            run.meter.add_received(len(data), assembly.part.file.path)


async def _fetch_whole(run: Transfer, progress: _Progress) -> None:
    """Fetch all missing ranges from one response, and from the next one if it breaks. Bytes that
    were taken before are skipped in the body."""
    part, landed = progress.part, progress.landed
    tries = _Tries(run, part.file)
    while missing := [rng for rng in part.ranges if rng.index not in landed]:
        try:
            async with (
                asyncio.timeout(run.limits.stall_s) as stall,
                run.source.open_whole(part.file) as body,
            ):
                for rng in part.ranges:
                    if rng.index in landed:
                        await _skip(run, body, rng.size_bytes, stall)
                    else:
                        await _skip(run, body, progress.assembly.taken_to(rng) - rng.start, stall)
                        await _copy(run, progress, (body, rng), stall)
                        await progress.land(rng)
                if await body.read(1):
                    raise Failure(
                        Outcome.TRANSIENT,
                        f"{part.file.path}: the answer is longer than the {part.file.size_bytes}"
                        " bytes listed",
                    )
        except (Retryable, TimeoutError) as error:
            await tries.back_off(error, has_progress=missing[0].index in landed)


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
    run: Transfer, progress: _Progress, what: tuple[Body, Range], stall: asyncio.Timeout
) -> None:
    """Take a body up to the end of a range. Raises Retryable, or TimeoutError if no byte arrives
    for `limits.stall_s`."""
    clock, (body, rng) = asyncio.get_running_loop().time, what
    buffer = bytearray()
    while (at := progress.assembly.taken_to(rng)) < rng.end:
        stall.reschedule(clock() + run.limits.stall_s)
        data = await body.read(min(run.limits.write_bytes, rng.end - at) - len(buffer))
        if not data:
            raise Retryable("the answer ended early")
        buffer += data
        if len(buffer) >= run.limits.write_bytes or at + len(buffer) == rng.end:
            stall.reschedule(None)
            await in_thread(progress.assembly.take, rng, buffer)
            run.meter.add_received(len(buffer), progress.part.file.path)
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
