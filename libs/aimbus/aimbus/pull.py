"""Read a consumer by pull requests for batches, with heartbeats.

1. Messages come in the consumer's order without a gap, or the read ends with ConsumerLost. The
   caller decides what to do then.
2. Silence is detected: while a request is open the server sends a heartbeat at least every
   HEARTBEAT_S.
3. `pending` is the number of messages that the consumer still had to deliver when the server sent
   this message. Only 0 means that all are received. Counting up to the number at creation is not
   enough: if a subject changes meanwhile, its old message disappears and the new one comes later.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from nats.aio.msg import Msg

from aimbus.errors import BusError
from aimbus.jetstream import SECOND_NS
from aimbus.session import Session

BATCH = 500
EXPIRES_S = 30
HEARTBEAT_S = 1
PATIENCE_S = 4.0
_REQUEST = json.dumps(
    {"batch": BATCH, "expires": EXPIRES_S * SECOND_NS, "idle_heartbeat": HEARTBEAT_S * SECOND_NS}
).encode()


class ConsumerLost(BusError):
    """A message may be missing: read again with a new consumer."""


class Delivered(NamedTuple):
    """`time` of storing, aware UTC."""

    seq: int
    consumer_seq: int
    subject: str
    data: bytes
    headers: Mapping[str, str]
    time: datetime
    pending: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A heartbeat: the server has nothing to deliver at the moment."""


async def pull(
    session: Session, stream: str, consumer: str
) -> AsyncGenerator[Delivered | Heartbeat, None]:
    """Endless. Raises ConsumerLost, SessionEnded or TimeoutError."""
    inbox = session.client.new_inbox()
    subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
    last = 0
    async with session.subscription(inbox) as arrived:
        while True:
            await session.send(subject, _REQUEST, reply=inbox)
            still_open = BATCH
            while still_open > 0:
                match _read(await _next(arrived), last):
                    case Delivered() as delivered:
                        last = delivered.consumer_seq
                        still_open -= 1
                        yield delivered
                    case Heartbeat() as idle:
                        yield idle
                    case None:
                        still_open = 0


async def _next(arrived: asyncio.Queue[Msg | None]) -> Msg:
    try:
        message = arrived.get_nowait()
    except asyncio.QueueEmpty:
        try:
            async with asyncio.timeout(PATIENCE_S):
                message = await arrived.get()
        except TimeoutError:
            raise ConsumerLost(f"no heartbeat for {PATIENCE_S} s") from None
    if message is None:
        raise ConsumerLost("connection lost")
    return message


def _read(message: Msg, last: int) -> Delivered | Heartbeat | None:
    """`last` is the consumer sequence before. None: the request has run out and the next is due.
    Raises ConsumerLost."""
    headers = message.headers or {}
    status = headers.get("Status")
    if status is not None and not message.reply.startswith("$JS.ACK."):
        return _read_status(status, headers, last)
    delivered = _parse_delivery(message, headers)
    if delivered.consumer_seq != last + 1:
        raise ConsumerLost(f"gap: {delivered.consumer_seq} came after {last}")
    return delivered


def _read_status(status: str, headers: Mapping[str, str], last: int) -> Heartbeat | None:
    match status:
        case "100":
            delivered = int(headers.get("Nats-Last-Consumer", last))
            if delivered != last:
                raise ConsumerLost(f"gap: {delivered} were sent, {last} have come")
            return Heartbeat()
        case "408":
            return None
        case _:
            raise ConsumerLost(f"{status} {headers.get('Description', '')}".strip())


def _parse_delivery(message: Msg, headers: Mapping[str, str]) -> Delivered:
    """Reply subjects (ADR-15 of NATS):
    $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<tries>.<seq>.<consumer
    seq>.<ns>.<pending>[.<token>]"""
    tokens = message.reply.split(".")
    first = 4 if len(tokens) == 9 else 6
    _, seq, consumer_seq, time_ns, pending = (int(token) for token in tokens[first : first + 5])
    seconds, rest_ns = divmod(time_ns, SECOND_NS)
    time = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1000)
    return Delivered(seq, consumer_seq, message.subject, message.data, headers, time, pending)
