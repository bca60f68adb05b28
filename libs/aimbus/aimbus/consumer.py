"""Follow AIM_STATE: the latest message of every subject, then every new one, for the lifetime of
the process.

1. The order is: Loading, the latest message of every subject, CaughtUp, then new messages. Objects
   without a message between Loading and CaughtUp are deleted: the caller removes them.
2. On any doubt (a lost connection, a missed heartbeat, a gap, a deleted consumer or stream) it
   starts again with Loading. So an event may come twice, and none is missing.
3. A load has everything that was acknowledged before it started. It waits until the mirror, which
   may be behind after a crash of the server, has caught up with the log. An older state would be
   taken for the current one, and its missing objects would look deleted.
4. While the mirror is behind and makes no progress, there are no events. After STALLED_AFTER_S it
   yields Stalled and starts again. The watcher re-creates the mirror.
5. It never raises for a fault of the bus and never ends. An undecodable message is an item like the
   others, and a missing stream is waited for.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

import structlog

from aimbus.connection import Bus
from aimbus.envelope import Event, Undecodable, open_event
from aimbus.errors import ApiError, MirrorStalled, Unreachable
from aimbus.jetstream import create_consumer
from aimbus.log_dedup import RepeatSuppressor
from aimbus.pull import ConsumerLost, Delivered, pull
from aimbus.session import Session
from aimbus.streams import STATE, MirrorProgress, last_message_seq, wait_until_mirrored

FIRST_RETRY_S = 0.05
LONGEST_RETRY_S = 1.0
STALLED_AFTER_S = 10.0
MIRROR_CHECK_INTERVAL_S = 5.0
"""Interval between checks of the mirror while no message comes."""

_log = structlog.stdlib.get_logger("aimbus")


@dataclass(frozen=True, slots=True)
class Loading:
    """A new load starts; the previous state stays usable until CaughtUp."""


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """All that was there has been delivered; what follows is news."""


@dataclass(frozen=True, slots=True)
class Stalled:
    """AIM_STATE does not follow AIM_LOG: its events do not arrive. `why` says how far it is
    behind; the next load ends it."""

    why: str


Item = Loading | Event | Undecodable | CaughtUp | Stalled
IsKnown = Callable[[int, int], bool]


def _nothing(_seq: int, _pending: int) -> bool:
    return False


async def follow(
    bus: Bus, filters: Sequence[str], is_known: IsKnown = _nothing
) -> AsyncGenerator[Item, None]:
    """Endless. `filters` are subjects that do not overlap, with wildcards. `is_known` gets the
    sequence number of each message, in order, and how many are pending; if it is true, the message
    is not decoded and not yielded. Raises only BusClosed."""
    wait_s = FIRST_RETRY_S
    trouble = RepeatSuppressor()
    blind = False
    while True:
        session = await bus.session()
        try:
            async with contextlib.aclosing(_load_and_follow(session, filters, is_known)) as items:
                async for item in items:
                    if isinstance(item, CaughtUp):
                        wait_s = FIRST_RETRY_S
                        trouble.reset()
                        blind = False
                    yield item
        except MirrorStalled as stalled:
            if not blind:
                _log.error("mirror-stalled", stream=STATE, error=str(stalled))
            blind = True
            yield Stalled(str(stalled))
        except (Unreachable, TimeoutError, ApiError, ConsumerLost) as error:
            if reason := trouble.first_occurrence(error):
                _log.info("consumer-restarted", stream=STATE, error=reason)
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, LONGEST_RETRY_S)


async def _load_and_follow(
    session: Session, filters: Sequence[str], is_known: IsKnown
) -> AsyncGenerator[Item, None]:
    await wait_until_mirrored(session, STALLED_AFTER_S)
    consumer, pending = await create_consumer(
        session, STATE, filters, {"deliver_policy": "last_per_subject"}
    )
    yield Loading()
    caught_up = pending == 0
    if caught_up:
        yield CaughtUp()
    checks = _MirrorChecks(session)
    async with contextlib.aclosing(pull(session, STATE, consumer)) as items:
        async for item in items:
            if isinstance(item, Delivered):
                pending = item.pending
                if not is_known(item.seq, pending):
                    yield _open(item)
            else:
                pending = 0
                await checks.again()
            if pending == 0 and not caught_up:
                caught_up = True
                yield CaughtUp()


def _open(item: Delivered) -> Event | Undecodable:
    return open_event(item.seq, item.subject, item.time, item.data, item.headers, item.pending)


class _MirrorChecks:
    """Checks the mirror while it delivers nothing: silence does not prove that there are no
    events."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pace = MirrorProgress()
        self._looked_s = time.monotonic()

    async def again(self) -> None:
        """At most every LOOK_INTERVAL_S. Raises MirrorStalled."""
        if time.monotonic() - self._looked_s < MIRROR_CHECK_INTERVAL_S:
            return
        self._looked_s = time.monotonic()
        try:
            level = await self._pace.measure(self._session, await last_message_seq(self._session))
        except (Unreachable, TimeoutError, ApiError):
            # (reading detects a lost connection; a slow server is no reason to reload)
            return
        if level.still_s >= STALLED_AFTER_S:
            raise MirrorStalled(level.lag, level.still_s)
