"""The transfer against a source that misbehaves on purpose, and DEST with things in the way."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from aim_downloader import disk
from aim_downloader.disk import Part
from aim_downloader.exit_codes import Outcome, RangesIgnored, Retryable
from aim_downloader.manifest import Entry
from aim_downloader.progress import Meter
from aim_downloader.retry import Limits
from aim_downloader.source import ExpectedChecksums, Listing, SourceFile
from aim_downloader.transfer import Transfer, transfer

CONTENT = os.urandom(100_000)
FILE = SourceFile("sub/weights", len(CONTENT), "v1", "key")
LIMITS = Limits(range_bytes=30_000, write_bytes=3_000, backoff_s=0.001, stall_s=0.05, tries=3)


class Bytes:
    """An answer that has what is given and then ends, hangs or breaks."""

    def __init__(self, content: bytes, at_end: Callable[[], object] | None = None) -> None:
        self._content = content
        self._at_end = at_end

    async def read(self, size: int, /) -> bytes:
        taken, self._content = self._content[: min(size, 1500)], self._content[min(size, 1500) :]
        if not taken and self._at_end:
            self._at_end()
            await asyncio.Event().wait()
        return taken


@dataclass
class Scripted:
    """A source whose next answers are in `faults`, how many bytes come first and what then;
    after those it behaves."""

    faults: list[tuple[int, Callable[[], object] | None]] = field(default_factory=list)
    content: bytes = CONTENT
    requested: list[tuple[int, int]] = field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0
    knows_ranges: bool = True
    wholes: int = 0

    async def listing(self) -> Listing:
        return Listing("r", (FILE,))

    async def expected_checksums(self, file: SourceFile) -> ExpectedChecksums:
        assert file == FILE
        return ExpectedChecksums(sha256=hashlib.sha256(CONTENT).hexdigest())

    @asynccontextmanager
    async def open_range(self, file: SourceFile, start: int, end: int) -> AsyncIterator[Bytes]:
        assert file == FILE
        self.requested.append((start, end))
        if not self.knows_ranges:
            raise RangesIgnored
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.faults:
                good_bytes, then = self.faults.pop(0)
                yield Bytes(self.content[start : start + good_bytes], then)
            else:
                yield Bytes(self.content[start:end])
        finally:
            self.at_once -= 1

    @asynccontextmanager
    async def open_whole(self, file: SourceFile) -> AsyncIterator[Bytes]:
        assert file == FILE
        self.wholes += 1
        if self.faults:
            good_bytes, then = self.faults.pop(0)
            yield Bytes(self.content[:good_bytes], then)
        else:
            yield Bytes(self.content)


def breaks(error: Exception) -> Callable[[], object]:
    def then() -> object:
        raise error

    return then


def hangs() -> None:
    """Says nothing more, for ever."""


async def got(source: Scripted, dest: Path, limits: Limits = LIMITS) -> list[Entry]:
    disk.prepare(dest)
    return await transfer(Transfer(source, dest, limits, Meter(len(CONTENT), 1)), [FILE])


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param((10_000, hangs), id="no-byte-comes-any-more"),
        pytest.param((0, hangs), id="never-a-byte"),
        pytest.param((10_000, None), id="ends-early"),
        pytest.param((10_000, breaks(Retryable("reset"))), id="connection-breaks"),
    ],
)
async def test_a_broken_response_is_resumed_where_it_stopped(
    tmp_path: Path, fault: tuple[int, Callable[[], object] | None]
) -> None:
    source = Scripted([fault])
    [entry] = await got(source, tmp_path)
    assert (tmp_path / "sub/weights").read_bytes() == CONTENT
    assert entry.sha256 == hashlib.sha256(CONTENT).hexdigest()
    written = fault[0] // LIMITS.write_bytes * LIMITS.write_bytes
    assert sorted(source.requested) == sorted(
        [(0, 30_000), (30_000, 60_000), (60_000, 90_000), (90_000, 100_000), (written, 30_000)]
    )


async def test_a_source_that_never_answers_fails_after_a_few_tries(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await got(Scripted([(0, hangs)] * 12), tmp_path)
    [failure] = leaves(caught.value)[:1]
    assert (failure.outcome, failure.message) == (  # type: ignore[attr-defined]
        Outcome.TRANSIENT,
        "sub/weights: gave up after 3 tries: no byte for 0.05 s",
    )


def leaves(error: BaseException) -> list[BaseException]:
    return (
        [leaf for each in error.exceptions for leaf in leaves(each)]
        if isinstance(error, BaseExceptionGroup)
        else [error]
    )


@pytest.mark.parametrize(
    ("faults", "wholes"),
    [
        pytest.param([], 1, id="at-once"),
        pytest.param([(45_000, hangs)], 2, id="no-byte-comes-any-more"),
        pytest.param([(45_000, None), (95_000, breaks(Retryable("reset")))], 3, id="breaks-twice"),
    ],
)
async def test_without_ranges_the_file_comes_over_one_connection(
    tmp_path: Path, faults: list[tuple[int, Callable[[], object] | None]], wholes: int
) -> None:
    source, meter = Scripted(faults, knows_ranges=False), Meter(len(CONTENT), 1)
    disk.prepare(tmp_path)
    [entry] = await transfer(Transfer(source, tmp_path, LIMITS, meter), [FILE])
    assert (tmp_path / "sub/weights").read_bytes() == CONTENT
    assert entry.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (source.wholes, meter.left_bytes) == (wholes, 0)


async def test_without_ranges_existing_bytes_are_skipped(tmp_path: Path) -> None:
    disk.prepare(tmp_path)
    part = Part(tmp_path, FILE, LIMITS.range_bytes)
    part.write(30_000, CONTENT[30_000:60_000])
    part.finish(part.ranges[1])
    part.close()
    source = Scripted(knows_ranges=False)
    await got(source, tmp_path)
    assert (tmp_path / "sub/weights").read_bytes() == CONTENT


async def test_a_whole_file_that_goes_on_after_its_end_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await got(Scripted(content=CONTENT + b"more", knows_ranges=False), tmp_path)
    assert "longer than the 100000 bytes listed" in str(leaves(caught.value)[0])
    assert not (tmp_path / "sub/weights").exists()


async def test_without_ranges_a_server_that_never_answers_fails(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await got(Scripted([(0, hangs)] * 12, knows_ranges=False), tmp_path)
    assert "gave up after 3 tries" in str(leaves(caught.value)[0])


def test_a_transfer_is_stalled_after_two_minutes_without_a_byte() -> None:
    assert Limits().stall_s == 120.0


async def test_ranges_in_flight_are_bounded(tmp_path: Path) -> None:
    source = Scripted()
    await got(source, tmp_path, Limits(range_bytes=1_000, ranges_in_flight=3))
    assert source.most_at_once == 3


async def test_a_full_disk_ends_the_transfer_and_leaves_its_files(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await got(
            Scripted(
                [(30_000, None), (0, breaks(OSError(errno.ENOSPC, "No space left on device")))]
            ),
            tmp_path,
            one_at_a_time(),
        )
    assert [leaf.errno for leaf in leaves(caught.value) if isinstance(leaf, OSError)] == [
        errno.ENOSPC
    ]
    source = Scripted()
    await got(source, tmp_path)
    assert (0, 30_000) not in source.requested


def one_at_a_time() -> Limits:
    return Limits(range_bytes=30_000, write_bytes=4_000, ranges_in_flight=1)


async def test_a_recorded_range_missing_on_disk_restarts_the_file(
    tmp_path: Path,
) -> None:
    disk.prepare(tmp_path)
    part = Part(tmp_path, FILE, LIMITS.range_bytes)
    part.write(0, bytes(90_000))
    for rng in part.ranges[:3]:
        part.finish(rng)
    part.close()
    source = Scripted()
    await got(source, tmp_path)
    assert (tmp_path / "sub/weights").read_bytes() == CONTENT
    assert source.requested.count((90_000, 100_000)) == 2


@pytest.mark.parametrize(
    ("record", "finished"),
    [
        pytest.param(b"0\n2\n", {0, 2}, id="as-it-was-written"),
        pytest.param(b"0\n2", {0}, id="torn-at-the-end"),
        pytest.param(b"0\n7\nx\n", {0}, id="no-such-range"),
        pytest.param(b"0\n3\n", {0}, id="beyond-the-data-there-is"),
    ],
)
def test_a_record_counts_as_far_as_it_can_be_true(
    tmp_path: Path, record: bytes, finished: set[int]
) -> None:
    disk.prepare(tmp_path)
    part = Part(tmp_path, FILE, LIMITS.range_bytes)
    part.write(0, CONTENT[:90_000])
    part.close()
    [done] = (tmp_path / ".aim-part").glob("*.done")
    done.write_bytes(done.read_bytes() + record)
    assert disk.finished_bytes(tmp_path, FILE, LIMITS.range_bytes) == 30_000 * len(finished)
    reopened = Part(tmp_path, FILE, LIMITS.range_bytes)
    reopened.close()
    assert reopened.finished == finished


@pytest.mark.parametrize(
    "other",
    [
        SourceFile("sub/weights", len(CONTENT), "v2", "key"),
        SourceFile("sub/weights", 90_000, "v1", "key"),
    ],
)
def test_a_part_of_another_version_is_not_used(tmp_path: Path, other: SourceFile) -> None:
    disk.prepare(tmp_path)
    part = Part(tmp_path, FILE, LIMITS.range_bytes)
    part.write(0, CONTENT)
    part.finish(part.ranges[0])
    part.close()
    assert disk.finished_bytes(tmp_path, FILE, LIMITS.range_bytes) == 30_000
    assert disk.finished_bytes(tmp_path, other, LIMITS.range_bytes) == 0
    assert disk.finished_bytes(tmp_path, FILE, 10_000) == 0


@pytest.mark.parametrize(
    "in_the_way", ["link-as-folder", "link-as-file", "file-as-folder", "folder-as-file"]
)
async def test_what_is_in_the_way_is_replaced_and_no_link_is_followed(
    tmp_path: Path, in_the_way: str
) -> None:
    outside, dest = tmp_path / "outside", tmp_path / "dest"
    outside.mkdir()
    (outside / "weights").write_text("not ours")
    dest.mkdir()
    if in_the_way == "link-as-folder":
        (dest / "sub").symlink_to(outside)
    elif in_the_way == "link-as-file":
        (dest / "sub").mkdir()
        (dest / "sub/weights").symlink_to(outside / "weights")
    elif in_the_way == "file-as-folder":
        (dest / "sub").write_text("older revision")
    else:
        (dest / "sub/weights/older").mkdir(parents=True)
    await got(Scripted(), dest)
    assert (dest / "sub/weights").read_bytes() == CONTENT
    assert not (dest / "sub").is_symlink()
    assert (outside / "weights").read_text() == "not ours"


def test_obsolete_files_go_with_their_empty_folders_not_links(tmp_path: Path) -> None:
    (tmp_path / "dest/a/b").mkdir(parents=True)
    (tmp_path / "dest/a/b/old").touch()
    (tmp_path / "dest/new").touch()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/old").touch()
    (tmp_path / "dest/link").symlink_to(tmp_path / "outside")
    disk.remove_files(tmp_path / "dest", ["a/b/old", "link/old", "never-there"])
    assert sorted(path.name for path in (tmp_path / "dest").iterdir()) == ["link", "new"]
    assert (tmp_path / "outside/old").exists()


def test_space_that_a_part_takes_already_is_not_needed_twice(tmp_path: Path) -> None:
    disk.prepare(tmp_path)
    part = Part(tmp_path, FILE, LIMITS.range_bytes)
    part.write(60_000, CONTENT[60_000:])
    part.close()
    assert 40_000 <= disk.allocated_bytes(tmp_path, FILE) < 60_000
    assert disk.finished_bytes(tmp_path, FILE, LIMITS.range_bytes) == 0
    assert disk.allocated_bytes(tmp_path, SourceFile("never-begun", 1, "", "")) == 0
