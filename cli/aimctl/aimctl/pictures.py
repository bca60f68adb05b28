"""The cluster as the bus has it, now and with every change."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aimbus import Bus, CaughtUp, Event, Loading, Stalled, follow
from aimcontroller.projection import Projection, fold
from aimctl.dead import WITHIN_S
from aimschema import subjects

NO_STREAM = "the NATS server has no stream AIM_STATE, or does not answer: is the watcher running?"


class Pictures:
    """All objects as they are, and with every change. Made by `watched`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._seen = Projection()
        self._changed = asyncio.Event()
        self.task = asyncio.create_task(self._read())

    async def next(self, within_s: float | None = None) -> Projection | None:
        """The picture after the next change, or changes; the first is the present one. None where
        nothing changed in time.

        Raises RuntimeError where there is no stream to read.
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
        return self._seen

    async def _read(self) -> None:
        """After a lost connection the picture is only told of when all has been read anew."""
        seen, complete = Projection(), False
        async with contextlib.aclosing(follow(self._bus, [f"{subjects.OBJECT}.>"])) as items:
            while True:
                try:
                    async with asyncio.timeout(None if complete else WITHIN_S):
                        item = await anext(items)
                except TimeoutError:
                    raise RuntimeError(NO_STREAM) from None
                match item:
                    case Loading():
                        seen, complete = Projection(), False
                    case Event(message=message, seq=seq):
                        seen = fold(seen, message, seq)
                    case CaughtUp():
                        complete = True
                    case Stalled(why=why) if not complete:
                        raise RuntimeError(why)
                if complete:
                    self._seen = seen
                    self._changed.set()


@contextlib.asynccontextmanager
async def watched(bus: Bus) -> AsyncIterator[Pictures]:
    """For as long as the block lasts."""
    pictures = Pictures(bus)
    try:
        yield pictures
    finally:
        pictures.task.cancel()
        await asyncio.wait([pictures.task])
