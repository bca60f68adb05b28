"""The cluster as the bus has it, now and with every change."""

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator, Set

import aimbus
from aimbus import Bus, CaughtUp, Event, Loading, Stalled, follow
from aimcontroller.projection import Projection, fold
from aimctl.analysis.lookups import unread_subjects
from aimctl.connect import WITHIN_S, connected_bus
from aimctl.event_log import latest
from aimschema import subjects
from aimschema.messages import Progress
from aimschema.resources import CACHE, Key

NO_STREAM = "the NATS server has no stream AIM_STATE, or does not answer: is the watcher running?"


class StateStream:
    """All objects as they are, and with every change. Made by `watched_states`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._state = Projection()
        self._changed = asyncio.Event()
        self.task = asyncio.create_task(self._read())

    async def next(self, within_s: float | None = None) -> Projection | None:
        """The state after the next changes; the first call returns the current state. None if
        nothing changed in time.

        Raises RuntimeError without a stream to read.
        """
        change = asyncio.create_task(self._changed.wait())
        done, _ = await asyncio.wait(
            {change, self.task}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED
        )
        change.cancel()
        if self.task in done:
            self.task.result()
        if change not in done:
            return None
        self._changed.clear()
        return self._state

    async def _read(self) -> None:
        """After a lost connection, the state is published only once it is loaded completely."""
        state, complete = Projection(), False
        async with contextlib.aclosing(follow(self._bus, [f"{subjects.OBJECT}.>"])) as items:
            while True:
                try:
                    async with asyncio.timeout(None if complete else WITHIN_S):
                        item = await anext(items)
                except TimeoutError:
                    raise RuntimeError(NO_STREAM) from None
                match item:
                    case Loading():
                        state, complete = Projection(), False
                    case Event(message=message, seq=seq):
                        state = fold(state, message, seq)
                    case CaughtUp():
                        complete = True
                    case Stalled(why=why) if not complete:
                        raise RuntimeError(why)
                if complete:
                    self._state = state
                    self._changed.set()


@contextlib.asynccontextmanager
async def watched_states(bus: Bus) -> AsyncIterator[StateStream]:
    """For as long as the block lasts."""
    states = StateStream(bus)
    try:
        yield states
    finally:
        states.task.cancel()
        await asyncio.wait([states.task])


LISTEN_S = 1.5
"""How long to listen for live progress: the downloader reports every second."""


async def chain_state(bus: Bus, key: Key, now: datetime.datetime) -> Projection:
    """The objects that a diagnosis of `key` needs, as they are. Raises RuntimeError where there is
    no stream to read."""
    state, read = Projection(), frozenset[str]()
    while filters := unread_subjects(state, key, now, read):
        for event in await latest(bus, sorted(filters)):
            state = fold(state, event.message, event.seq)
        read |= filters
    return state


async def live_progress(
    bus: Bus, namespace: str | None, for_s: float = LISTEN_S, until: Set[Key] = frozenset()
) -> dict[Key, Progress]:
    """The latest progress of each download that reports just now; ends early with one of each of
    `until`."""
    found: dict[Key, Progress] = {}
    with contextlib.suppress(TimeoutError):
        async with (
            asyncio.timeout(for_s),
            contextlib.aclosing(
                aimbus.follow_live(
                    bus, f"{subjects.LIVE_PROGRESS}.{CACHE.kind}.{namespace or '*'}.>"
                )
            ) as lines,
        ):
            async for progress in lines:
                found[Key(progress.kind, progress.namespace, progress.name)] = progress
                if until and until <= found.keys():
                    break
    return found


async def current_state() -> Projection:
    """What the bus has now. Raises RuntimeError where there is none, or no stream to read."""
    async with connected_bus() as bus, watched_states(bus) as states:
        state = await states.next()
        assert state is not None  # without a limit it waits
        return state
