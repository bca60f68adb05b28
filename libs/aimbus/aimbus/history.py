"""AIM_HISTORY: the versions of the specs of AIM objects, the last 100 of each object, for at most a
year.

1. Each message is appended behind a given last message of its subject: the server compares the
   sequence numbers. So two writers, or a writer that was killed and started again, never store a
   version twice or out of order.
2. The stream is not a part of the log: if it is lost or rejected, everything else continues.
3. Nothing here waits without a limit. The caller retries.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from aimbus.connection import Bus
from aimbus.envelope import MSG_ID, Event, Undecodable, headers_for, open_event
from aimbus.errors import ApiError, HistoryMoved, SessionEnded
from aimbus.jetstream import SECOND_NS, api, create_consumer, stream_info
from aimbus.publish import Outgoing, check_size, parse_ack, send_batch
from aimbus.pull import Delivered, pull
from aimbus.session import Session
from aimbus.streams import common_config, make_stream
from aimschema import subjects
from aimschema.messages import SpecDeleted, SpecVersion, encode, subject_of
from aimschema.resources import Key

HISTORY = "AIM_HISTORY"
MAX_AGE_S = 365 * 24 * 3600
VERSIONS = 100
"""Maximum number of messages of an object."""
HISTORY_MAX_BYTES = 1 << 28
ACK_TIMEOUT_S = 5.0
MOST_SUBJECTS = 1024
"""The server looks up no more at once."""
EXPECTED_LAST = "Nats-Expected-Last-Subject-Sequence"
_WRONG_LAST = 10071


class Appended(NamedTuple):
    """A message, and the sequence of the last message of its subject; 0 if it has none."""

    message: SpecVersion | SpecDeleted
    last_seq: int


async def ensure_history(
    bus: Bus, *, replicas: int = 1, max_bytes: int = HISTORY_MAX_BYTES
) -> bool:
    """Create or update the stream; True if it is new. Raises StreamsRejected, which names the
    limit, Unreachable, TimeoutError or ApiError."""
    session = await bus.session()
    info = await stream_info(session, HISTORY)
    await make_stream(session, _config(replicas, max_bytes), info)
    return info is None


def _config(replicas: int, max_bytes: int) -> dict[str, Any]:
    return {
        "name": HISTORY,
        "subjects": [f"{subjects.HISTORY}.>"],
        "max_age": MAX_AGE_S * SECOND_NS,
        "max_bytes": max_bytes,
        "max_msgs_per_subject": VERSIONS,
        "allow_atomic": True,
        "allow_direct": True,
        **common_config(replicas),
    }


async def read_history(
    bus: Bus, filters: Sequence[str], *, newest_only: bool = False
) -> AsyncGenerator[Event | Undecodable, None]:
    """What the stream has at the call, in order; nothing if there is no stream. `newest_only`: the
    last message of each subject. Raises Unreachable, TimeoutError, ApiError or ConsumerLost."""
    session = await bus.session()
    info = await stream_info(session, HISTORY)
    if info is None:
        return
    last_seq = int(info["state"]["last_seq"])
    policy = {"deliver_policy": "last_per_subject" if newest_only else "all"}
    consumer, pending = await create_consumer(session, HISTORY, filters, policy)
    if pending == 0:
        return
    async with contextlib.aclosing(pull(session, HISTORY, consumer)) as items:
        async for item in items:
            if not isinstance(item, Delivered):
                return  # (a limit of the stream has dropped the rest)
            if item.seq <= last_seq or newest_only:
                yield open_event(item.seq, item.subject, item.time, item.data, item.headers)
            if item.pending == 0 or (item.seq >= last_seq and not newest_only):
                return


async def read_newest(
    bus: Bus, pattern: str, before: datetime | None = None
) -> list[Event | Undecodable] | None:
    """The last message of each matching subject; `before`: of those stored before a time (ADR-31 of
    NATS). The server looks them up without reading the messages between.

    None if it cannot: more than MOST_SUBJECTS, or a server before 2.11. Raises Unreachable or
    TimeoutError.
    """
    session = await bus.session()
    body: dict[str, Any] = {"multi_last": [pattern], "batch": MOST_SUBJECTS}
    if before is not None:
        body["up_to_time"] = before.astimezone(UTC).isoformat().replace("+00:00", "Z")
    inbox = session.client.new_inbox()
    found: list[Event | Undecodable] = []
    async with session.subscription(inbox) as arrived:
        await session.send(f"$JS.API.DIRECT.GET.{HISTORY}", msgspec.json.encode(body), reply=inbox)
        while True:
            async with asyncio.timeout(ACK_TIMEOUT_S):
                message = await arrived.get()
            if message is None:
                raise SessionEnded
            headers = message.headers or {}
            match headers.get("Status"):
                case None:
                    found.append(_looked_up(message.data, headers))
                case "204":
                    return found if headers.get("Nats-Num-Pending", "0") == "0" else None
                case "404":
                    return []
                case _:
                    return None


def _looked_up(data: bytes, headers: Mapping[str, str]) -> Event | Undecodable:
    time = datetime.fromisoformat(headers["Nats-Time-Stamp"])
    subject = headers["Nats-Subject"]
    return open_event(int(headers["Nats-Sequence"]), subject, time.astimezone(UTC), data, headers)


async def append_history(bus: Bus, messages: Sequence[Appended], *, source: str) -> list[int]:
    """Store messages of different subjects, in one batch; returns their sequences.

    Raises HistoryMoved if a subject has another last message, and OversizedMessage; nothing is
    stored then. Raises Unreachable, TimeoutError or ApiError: it may be stored.
    """
    session = await bus.session()
    outgoing = [_outgoing(each, source) for each in messages]
    for each in outgoing:
        check_size(session, each)
    try:
        if len(outgoing) == 1:
            return [await _send(session, outgoing[0])]
        last_seq = await send_batch(session, outgoing)
    except msgspec.DecodeError as error:
        raise TimeoutError("no acknowledgement") from error
    except ApiError as error:
        if error.err_code == _WRONG_LAST:
            raise HistoryMoved(str(error)) from error
        raise
    return list(range(last_seq - len(outgoing) + 1, last_seq + 1))


def _outgoing(appended: Appended, source: str) -> Outgoing:
    """Under an id that never repeats: rule 1 finds duplicates, and the server would reject the id
    of a version that a user has removed."""
    headers = {
        **headers_for(appended.message, source=source),
        MSG_ID: uuid.uuid4().hex,
        EXPECTED_LAST: str(appended.last_seq),
    }
    return Outgoing(subject_of(appended.message), encode(appended.message), headers)


async def _send(session: Session, outgoing: Outgoing) -> int:
    reply = await session.request(
        outgoing.subject, outgoing.data, outgoing.headers, timeout_s=ACK_TIMEOUT_S
    )
    return parse_ack(reply.data).seq


async def forget_history(bus: Bus, key: Key) -> int:
    """Remove all versions of an object; returns how many there were. Raises Unreachable,
    TimeoutError or ApiError."""
    session = await bus.session()
    answer = await api(session, f"STREAM.PURGE.{HISTORY}", {"filter": subjects.of_history(key)})
    return int(answer.get("purged", 0))


async def forget_version(bus: Bus, seq: int) -> None:
    """Overwrite one message. Raises Unreachable, TimeoutError, or ApiError if there is none."""
    session = await bus.session()
    await api(session, f"STREAM.MSG.DELETE.{HISTORY}", {"seq": seq, "no_erase": False})
