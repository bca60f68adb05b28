"""Following AIM_STATE: the latest message of every subject, then every new one, for as long as the process lives.

1. The order is: Loading, every subject's latest, CaughtUp, then what is new. What was known before and did not come between
   Loading and CaughtUp is gone: sweep it.
2. On any doubt (a lost connection, a missed heartbeat, a gap, a consumer or stream that is gone) it begins again with Loading. An event
   may therefore come twice; none is left out.
3. A load has everything that was acknowledged before it began: it waits until the mirror, which may be behind after a crash of the
   server, is level with the log. A picture from before would be taken for the present one: what it lacks would look deleted.
4. It never raises for anything on the bus and never ends: an unreadable message is an item like the others, an absent stream is
   waited for.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import structlog

from aimbus.connection import Bus
from aimbus.envelope import Event, Undecodable, open_event
from aimbus.errors import ApiError, Unreachable
from aimbus.jetstream import create_consumer
from aimbus.once import Once
from aimbus.pull import Delivered, Doubt, pull
from aimbus.session import Session
from aimbus.streams import LOG, STATE, until_level

FIRST_RETRY_S = 0.05
LONGEST_RETRY_S = 1.0
LEVEL_WITHIN_S = 10.0

_log = structlog.stdlib.get_logger("aimbus")


@dataclass(frozen=True, slots=True)
class Loading:
    """A new load begins; the picture from before stays usable until CaughtUp."""


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """All that was there has been delivered; what follows is news."""


Item = Loading | Event | Undecodable | CaughtUp


async def follow(bus: Bus, filters: Sequence[str]) -> AsyncGenerator[Item, None]:
    """Endless. `filters` are subjects that do not overlap, with wildcards. Raises only BusClosed."""
    wait_s = FIRST_RETRY_S
    trouble = Once()
    while True:
        session = await bus.session()
        try:
            async with contextlib.aclosing(_load_and_follow(session, filters)) as items:
                async for item in items:
                    if isinstance(item, CaughtUp):
                        wait_s = FIRST_RETRY_S
                        trouble.reset()
                    yield item
        except (Unreachable, TimeoutError, ApiError, Doubt) as error:
            if reason := trouble.news(error):
                _log.info("follow begins again", stream=STATE, error=reason)
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, LONGEST_RETRY_S)


async def _load_and_follow(session: Session, filters: Sequence[str]) -> AsyncGenerator[Item, None]:
    try:
        async with asyncio.timeout(LEVEL_WITHIN_S):
            await until_level(session)
    except TimeoutError:
        raise Doubt(f"{STATE} is not level with {LOG} after {LEVEL_WITHIN_S:.0f} s") from None
    consumer, pending = await create_consumer(session, STATE, filters, {"deliver_policy": "last_per_subject"})
    yield Loading()
    caught_up = pending == 0
    if caught_up:
        yield CaughtUp()
    async with contextlib.aclosing(pull(session, STATE, consumer)) as items:
        async for item in items:
            if isinstance(item, Delivered):
                pending = item.pending
                yield open_event(item.seq, item.subject, item.time, item.data, item.headers, item.pending)
            else:
                pending = 0
            if pending == 0 and not caught_up:
                caught_up = True
                yield CaughtUp()
