"""The bytes of one file on their way to disk and through the digests. Threads call `take`.

Ranges arrive in any order, and digests need the file in order. Bytes that came early wait in
memory, so nothing is read back that this run has written. Each digest is a lane that advances
alone: the slow MD5 does not hold up the sha256. Whichever thread brings the next bytes of an idle
lane computes it, with all bytes that wait behind them.

Writes to one file are in turn: the kernel would let the threads spin for its lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from aim_downloader.checksums import Digests, PartHasher
from aim_downloader.disk import Part
from aim_downloader.ranges import Range

Update = Callable[[bytes | bytearray | memoryview], None]


@dataclass
class _Lane:
    update: Update
    at: int = 0
    is_busy: bool = False


@dataclass
class _Piece:
    """Bytes that wait for `lanes_left` lanes."""

    data: bytes | bytearray | memoryview
    lanes_left: int
    release: Callable[[], None]


@dataclass
class Assembly:
    """A part and its digests. `advanced` is called from threads with the position up to which all
    digests are computed. Finished ranges of an earlier run are read from disk."""

    part: Part
    digests: Digests
    advanced: Callable[[int], None] = lambda _: None
    _lanes: list[_Lane] = field(init=False)
    _waiting: dict[int, _Piece] = field(default_factory=dict)
    _on_disk: dict[int, Range] = field(init=False)
    _taken: dict[int, int] = field(default_factory=dict)
    _hashers: dict[int, PartHasher | None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._lanes = [_Lane(update) for update in self.digests.lanes()]
        self._on_disk = {
            rng.start: rng for rng in self.part.ranges if rng.index in self.part.finished
        }

    def taken_to(self, rng: Range) -> int:
        """The position in the range up to which bytes were taken."""
        return self._taken.get(rng.index, rng.start)

    def take(
        self,
        rng: Range,
        data: bytes | bytearray | memoryview,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        """Write the next bytes of a range, and compute digests as far as possible. `data` must not
        change until `release` is called."""
        at = self.taken_to(rng)
        with self._writing:
            self.part.write(at, data)
        self._hash_parts(rng, data)
        with self._lock:
            self._taken[rng.index] = at + len(data)
            self._waiting[at] = _Piece(data, len(self._lanes), release)
        self.advance()

    def advance(self) -> None:
        """Compute the digests of all bytes that are next."""
        for lane in self._lanes:
            while (found := self._next(lane)) is not None:
                size_bytes = self._compute(lane, found)
                with self._lock:
                    lane.at += size_bytes
                    lane.is_busy = False
                    position = min(each.at for each in self._lanes)
                self.advanced(position)

    def _hash_parts(self, rng: Range, data: bytes | bytearray | memoryview) -> None:
        """The parts of a range are hashed apart from the rest of the file."""
        if rng.index not in self._hashers:
            self._hashers[rng.index] = self.digests.hasher_of_range(rng.start)
        if hasher := self._hashers[rng.index]:
            hasher.update(data)
            if self.taken_to(rng) + len(data) == rng.end:
                hasher.finish()

    def _next(self, lane: _Lane) -> _Piece | Range | None:
        """The next bytes of an idle lane, which is busy from then on."""
        with self._lock:
            found = self._waiting.get(lane.at) or self._on_disk.get(lane.at)
            if lane.is_busy or found is None:
                return None
            lane.is_busy = True
            return found

    def _compute(self, lane: _Lane, found: _Piece | Range) -> int:
        if isinstance(found, Range):
            self._read_back(lane, found)
            return found.size_bytes
        lane.update(found.data)
        size_bytes = len(found.data)
        with self._lock:
            found.lanes_left -= 1
            is_done = found.lanes_left == 0
            if is_done:
                del self._waiting[lane.at]
        if is_done:
            found.release()
        return size_bytes

    def _read_back(self, lane: _Lane, rng: Range) -> None:
        """A range of an earlier run. The first lane also hashes its parts."""
        hasher = self.digests.hasher_of_range(rng.start) if lane is self._lanes[0] else None

        def update(data: bytes) -> None:
            lane.update(data)
            if hasher:
                hasher.update(data)

        self.part.read(rng, update)
        if hasher:
            hasher.finish()
