"""The work queue: keys to reconcile.

1. A key is in the queue at most once; adding it again only adds to its causes.
2. One worker at a time gets a key; if it is added meanwhile, it comes again once that worker is
   done.
3. Each namespace has a lane, and the lanes take turns: a thousand keys of one namespace delay a key
   of another by one turn.
4. Keys that failed last time come after all others, in separate lanes, but after
   `MOST_BEFORE_RETRY` others in a row one of them is taken.
5. `add_after` keeps the earliest requested time.
"""

import asyncio
import contextlib
import heapq
import random
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from aimschema.resources import Key

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 300.0
MAX_CAUSES = 16
MOST_BEFORE_RETRY = 4
"""Keys that did not fail and are taken in a row while one that failed is ready."""


@dataclass(slots=True)
class _Entry:
    causes: set[int] = field(default_factory=set)
    working: bool = False
    waiting: bool = False


class _Lanes:
    """Keys in the order they came, a lane for each namespace (one for cluster-scoped kinds); the
    lanes take turns."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[str | None, deque[Key]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def append(self, key: Key) -> None:
        self._lanes.setdefault(key.namespace, deque()).append(key)

    def pop(self) -> Key:
        """The first key of the lane whose turn it is."""
        namespace, lane = next(iter(self._lanes.items()))
        key = lane.popleft()
        if lane:
            self._lanes.move_to_end(namespace)
        else:
            del self._lanes[namespace]
        return key


class WorkQueue:
    """For one event loop; no method but `take` waits."""

    def __init__(self) -> None:
        self._wake = asyncio.Event()
        self.clear()

    def clear(self) -> None:
        """Forget all keys, timers and failures. No key may be in work."""
        self._entries: dict[Key, _Entry] = {}
        self._ready = _Lanes()
        self._again = _Lanes()
        self._in_a_row = 0
        self._timers: dict[Key, float] = {}
        self._causes_later: dict[Key, set[int]] = {}
        self._heap: list[tuple[float, Key]] = []
        self._failures: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._ready) + len(self._again)

    @property
    def idle(self) -> bool:
        """No key is due and no worker is busy (timers may still run)."""
        return not self._entries

    def add(self, key: Key, *causes: int) -> None:
        """`causes` are sequence numbers of events; 0, an own write's, is none."""
        entry = self._entries.setdefault(key, _Entry())
        entry.causes.update(cause for cause in causes[: MAX_CAUSES - len(entry.causes)] if cause)
        if not entry.waiting:
            entry.waiting = True
            if not entry.working:
                self._line_up(key)

    def add_after(self, key: Key, delay_s: float, causes: Iterable[int] = ()) -> None:
        later = self._causes_later.setdefault(key, set())
        later.update(list(causes)[: MAX_CAUSES - len(later)])
        at = asyncio.get_running_loop().time() + delay_s
        if at < self._timers.get(key, float("inf")):
            self._timers[key] = at
            heapq.heappush(self._heap, (at, key))
            self._wake.set()

    async def take(self) -> tuple[Key, tuple[int, ...]]:
        """The next key and the sequence numbers of the events that asked for it. The caller must
        call `done` afterwards."""
        while True:
            next_s = self._fire_timers()
            if self._ready or self._again:
                key = self._pop()
                entry = self._entries[key]
                entry.working, entry.waiting = True, False
                causes, entry.causes = tuple(sorted(entry.causes)), set()
                return key, causes
            self._wake.clear()
            # Not wait_for: in Python 3.11 it may swallow a cancellation, and a worker must end when
            # the lease is lost.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(next_s):
                    await self._wake.wait()

    def _pop(self) -> Key:
        retries = bool(self._again) and (not self._ready or self._in_a_row >= MOST_BEFORE_RETRY)
        self._in_a_row = self._in_a_row + 1 if self._again and not retries else 0
        return (self._again if retries else self._ready).pop()

    def done(self, key: Key) -> None:
        entry = self._entries[key]
        entry.working = False
        if entry.waiting:
            self._line_up(key)
        else:
            del self._entries[key]

    def _line_up(self, key: Key) -> None:
        (self._again if key in self._failures else self._ready).append(key)
        self._wake.set()

    def add_rate_limited(
        self, key: Key, causes: Iterable[int] = (), at_least_s: float = 0.0
    ) -> int:
        """Requeue, for the same causes, after a jittered exponential time, not before `at_least_s`;
        returns the consecutive failures."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        longest_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(failures - 1, 20))
        self.add_after(key, max(at_least_s, longest_s * random.uniform(0.5, 1.0)), causes)  # noqa: S311 (jitter, not a secret)
        return failures

    def failures(self, key: Key) -> int:
        """How often it failed in a row."""
        return self._failures.get(key, 0)

    def forget(self, key: Key) -> None:
        self._failures.pop(key, None)

    def _fire_timers(self) -> float | None:
        """Adds what is due; returns seconds to the next timer, None without one."""
        now = asyncio.get_running_loop().time()
        while self._heap:
            at, key = self._heap[0]
            if self._timers.get(key) != at:
                heapq.heappop(self._heap)
                continue
            if at > now:
                return at - now
            heapq.heappop(self._heap)
            del self._timers[key]
            self.add(key, *self._causes_later.pop(key, ()))
        return None
