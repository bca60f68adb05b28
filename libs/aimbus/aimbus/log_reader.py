"""Read the history: AIM_LOG from the start, in order, and live progress.

1. Events of the log come in the order of their sequences, each once, also over reconnects: reading
   continues after the last received one.
2. A bounded read ends at the last message that existed when it started. A following read continues,
   and restarts at the beginning of a re-created log.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

import structlog

from aimbus.connection import Bus
from aimbus.envelope import Event, Undecodable, open_event
from aimbus.errors import ApiError, Unreachable
from aimbus.jetstream import create_consumer, stream_info
from aimbus.log_dedup import RepeatSuppressor
from aimbus.pull import ConsumerLost, Delivered, pull
from aimbus.session import Session
from aimbus.streams import LOG
from aimschema.messages import Progress, decode

RETRY_S = 0.5

_log = structlog.stdlib.get_logger("aimbus")


async def read_log(
    bus: Bus, filters: Sequence[str], *, after_seq: int = 0, follow: bool = False
) -> AsyncGenerator[Event | Undecodable, None]:
    """The events after `after_seq` that match one of `filters`, which must not overlap. Raises only
    BusClosed.

    Bounded, it ends with the last sequence there is at the call (at once if there is no log); with
    `follow` it does not end.
    """
    position, end_seq = after_seq, None
    trouble = RepeatSuppressor()
    while True:
        session = await bus.session()
        try:
            info = await stream_info(session, LOG)
            last_seq = 0 if info is None else int(info["state"]["last_seq"])
            if end_seq is None and not follow:
                end_seq = last_seq
            if last_seq < position:
                position = 0
            async with contextlib.aclosing(_read(session, filters, position, end_seq)) as items:
                async for item in items:
                    position = item.seq
                    trouble.reset()
                    yield open_event(item.seq, item.subject, item.time, item.data, item.headers)
        except (Unreachable, TimeoutError, ApiError, ConsumerLost) as error:
            if reason := trouble.first_occurrence(error):
                _log.info("log-read-resumed", stream=LOG, after_seq=position, error=reason)
            await asyncio.sleep(RETRY_S)
        else:
            return


async def read_stored(bus: Bus, filters: Sequence[str]) -> AsyncGenerator[Delivered, None]:
    """What is in the log at the call, as it is stored: headers and bytes. Raises Unreachable or
    ApiError when NATS does not answer."""
    session = await bus.session()
    info = await stream_info(session, LOG)
    async with contextlib.aclosing(
        _read(session, filters, 0, 0 if info is None else int(info["state"]["last_seq"]))
    ) as items:
        async for item in items:
            yield item


async def _read(
    session: Session, filters: Sequence[str], after_seq: int, end_seq: int | None
) -> AsyncGenerator[Delivered, None]:
    """Ends, if there is an `end_seq`, behind the last message up to it."""
    if end_seq is not None and after_seq >= end_seq:
        return
    deliver = {"deliver_policy": "by_start_sequence", "opt_start_seq": after_seq + 1}
    consumer, pending = await create_consumer(session, LOG, filters, deliver)
    if end_seq is not None and pending == 0:
        return
    async with contextlib.aclosing(pull(session, LOG, consumer)) as items:
        async for item in items:
            if not isinstance(item, Delivered):
                if end_seq is not None:
                    return
                continue
            if end_seq is not None and item.seq > end_seq:
                return
            yield item
            if end_seq is not None and (item.seq == end_seq or item.pending == 0):
                return


async def follow_live(bus: Bus, subject: str) -> AsyncGenerator[Progress, None]:
    """Progress as it is sent, on `subject` (wildcards allowed). Endless; what is sent while the
    connection is away is missed."""
    while True:
        session = await bus.session()
        try:
            async with session.subscription(subject) as arrived:
                while (message := await arrived.get()) is not None:
                    progress = _decode_progress(message.data)
                    if progress is not None:
                        yield progress
        except Unreachable:
            await asyncio.sleep(RETRY_S)


def _decode_progress(data: bytes) -> Progress | None:
    try:
        message = decode(data)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, Progress) else None
