"""Publish to AIM_LOG, until it is acknowledged.

1. A message is sent until the stream has acknowledged it, over timeouts, restarts of the server and
   replaced clients, always with the same id. So it is stored once.
2. Messages of one subject are stored in the order of the calls to `publish`: the next is sent after
   the acknowledgement of the last. Different subjects are sent concurrently, up to the window.
3. An oversized message is rejected before any part of it is sent: the server would close the
   connection.
4. Many messages at once are sent in atomic batches (ADR-50 of NATS), which the server syncs to disk
   once before it acknowledges them. This is ten times as many a second. A batch with a stored id is
   rejected as a whole. If a batch is rejected for any reason, its messages are sent one by one, and
   each is stored or found to be stored. So a retry never repeats a message.
5. Ids belong to the whole stream, so any publisher can use the id of a future message. If a message
   counts as stored, the subject of the stored one is compared. If it differs, the message is sent
   under a random id.
"""

import asyncio
import contextlib
import uuid
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import structlog

from aimbus.envelope import BATCH_COMMIT, BATCH_ID, BATCH_SEQUENCE, MSG_ID, TTL, headers_for
from aimbus.errors import ApiError, OversizedMessage, SessionEnded, Unreachable
from aimbus.jetstream import MESSAGE_NOT_FOUND, api
from aimbus.log_dedup import RepeatSuppressor
from aimbus.session import Session
from aimbus.tracing import publishing, record_created, tracer
from aimschema.messages import Message, Progress, encode, key_of, subject_of

WINDOW = 256
ACK_TIMEOUT_S = 5.0
MARGIN_BYTES = 4096
LONGEST_SUBJECT = 2048
"""Bytes. Subject, reply and sizes go in one line, and the server ends a connection over a line
of 4,096."""
FIRST_RETRY_S = 0.05
LONGEST_RETRY_S = 2.0
BATCH = 500
"""Messages in a batch; the server takes 1,000."""
BATCH_TIMEOUT_S = 15.0
_TOO_LARGE = 10054

_log = structlog.stdlib.get_logger("aimbus")


class _Fault(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class Ack(msgspec.Struct):
    """PubAck of JetStream: `error` or the rest."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: _Fault | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message as it is sent."""

    subject: str
    data: bytes
    headers: dict[str, str]


_decode_ack = msgspec.json.Decoder(Ack).decode


class Publisher:
    """`session` gives the current session, waiting if need be; `source` is the CloudEvents
    source."""

    def __init__(self, session: Callable[[], Awaitable[Session]], source: str) -> None:
        self._session = session
        self._source = source
        self._tracer = tracer("aimbus")
        self._trouble = RepeatSuppressor()
        self._window = asyncio.Semaphore(WINDOW)
        # asyncio.Lock is first come, first served; an entry is removed when no task holds or awaits
        # its lock.
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def publish(
        self,
        message: Message,
        *,
        cause: Sequence[int] = (),
        traceparent: str | None = None,
        supersedes_seq: int | None = None,
    ) -> int:
        """Store a message; returns its sequence in AIM_LOG, of the first copy if it was there
        already.

        `supersedes_seq` is the sequence of a later message on the same subject that this one must
        override: the message is stored again. Returns only after the acknowledgement, however long
        that takes. Raises OversizedMessage, and ValueError for a Progress, which is not stored.
        """
        outgoing = self._prepare(message, cause, traceparent, supersedes_seq)
        if self._tracer is None or traceparent is not None:
            return await self._store(outgoing)
        with publishing(self._tracer, outgoing.subject, outgoing.headers, key_of(message)):
            return await self._store(outgoing)

    async def publish_many(self, messages: Sequence[Message]) -> list[int]:
        """`publish` for each, in order, but faster; returns their sequences. OversizedMessage is
        raised before any of them is sent."""
        outgoing = [self._prepare(message) for message in messages]
        if self._tracer is not None:
            for message, each in zip(messages, outgoing, strict=True):
                record_created(self._tracer, each.subject, each.headers, key_of(message))
        session = await self._session()
        for each in outgoing:
            check_size(session, each)
        sequences: list[int] = []
        for start in range(0, len(outgoing), BATCH):
            batch = outgoing[start : start + BATCH]
            async with self._turns_of({each.subject for each in batch}), self._window:
                sequences += await self._until_batch_acked(batch)
        return sequences

    async def resend(self, subject: str, data: bytes, headers: Mapping[str, str]) -> int:
        """Store an undecodable message unchanged under a new id; returns its sequence. Raises
        OversizedMessage."""
        own = {
            name: value
            for name, value in headers.items()
            if name == TTL or not name.startswith("Nats-")
        }  # what it says to the server is void
        outgoing = Outgoing(subject, data, {**own, MSG_ID: uuid.uuid4().hex})
        return await self._store(outgoing)

    async def publish_live(self, message: Progress) -> None:
        """Send to the current subscribers. Not stored, not retried; nothing is sent while the
        server is unreachable."""
        outgoing = Outgoing(
            subject_of(message), encode(message), headers_for(message, source=self._source)
        )
        session = await self._session()
        check_size(session, outgoing)
        try:
            await session.send(outgoing.subject, outgoing.data, outgoing.headers)
        except (Unreachable, TimeoutError):
            _log.debug("progress-not-sent", subject=outgoing.subject)

    def _prepare(
        self,
        message: Message,
        cause: Sequence[int] = (),
        traceparent: str | None = None,
        supersedes_seq: int | None = None,
    ) -> Outgoing:
        if isinstance(message, Progress):
            raise ValueError("Progress is not stored: use publish_live")  # noqa: TRY004 - a message, but of the wrong sort
        headers = headers_for(
            message,
            source=self._source,
            cause=cause,
            traceparent=traceparent,
            supersedes_seq=supersedes_seq,
        )
        return Outgoing(subject_of(message), encode(message), headers)

    @contextlib.asynccontextmanager
    async def _turns_of(self, subjects: Iterable[str]) -> AsyncIterator[None]:
        """It is the turn of all these subjects; taken in one order, so that two batches never
        wait for each other."""
        async with contextlib.AsyncExitStack() as turns:
            for subject in sorted(subjects):
                await turns.enter_async_context(self._turn_of(subject))
            yield

    def _turn_of(self, subject: str) -> asyncio.Lock:
        turn = self._turns.get(subject)
        if turn is None:
            turn = self._turns[subject] = asyncio.Lock()
        return turn

    async def _store(self, outgoing: Outgoing) -> int:
        async with self._turn_of(outgoing.subject), self._window:
            return await self._until_acked(outgoing)

    async def _until_acked(self, outgoing: Outgoing) -> int:
        wait_s = FIRST_RETRY_S
        while True:
            session = await self._session()
            check_size(session, outgoing)
            try:
                reply = await session.request(
                    outgoing.subject, outgoing.data, outgoing.headers, timeout_s=ACK_TIMEOUT_S
                )
                ack = parse_ack(reply.data)
                if ack.duplicate and not await _is_on(session, ack, outgoing.subject):
                    _log.warning(
                        "message-id-reused",
                        subject=outgoing.subject,
                        id=outgoing.headers[MSG_ID],
                        seq=ack.seq,
                    )
                    outgoing = _with_new_id(outgoing)
                    continue
            except (Unreachable, TimeoutError, ApiError, msgspec.DecodeError) as error:
                if isinstance(error, ApiError) and error.err_code == _TOO_LARGE:
                    raise OversizedMessage(
                        outgoing.subject, _size_bytes(outgoing), session.max_payload_bytes
                    ) from error
                self._report(error, outgoing.subject)
            else:
                self._trouble.reset()
                return ack.seq
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, LONGEST_RETRY_S)

    async def _until_batch_acked(self, batch: Sequence[Outgoing]) -> list[int]:
        wait_s = FIRST_RETRY_S
        while len(batch) > 1:
            session = await self._session()
            try:
                last_seq = await send_batch(session, batch)
            except ApiError as error:
                if error.code != 503:
                    break
                self._report(error, batch[0].subject)
            except (Unreachable, TimeoutError, msgspec.DecodeError) as error:
                self._report(error, batch[0].subject)
            else:
                self._trouble.reset()
                return list(range(last_seq - len(batch) + 1, last_seq + 1))
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, LONGEST_RETRY_S)
        return await self._one_by_one(batch)

    async def _one_by_one(self, batch: Sequence[Outgoing]) -> list[int]:
        """Side by side, but those of one subject in order."""
        lanes: dict[str, list[int]] = {}
        for place, each in enumerate(batch):
            lanes.setdefault(each.subject, []).append(place)
        sequences = [0] * len(batch)

        async def store(places: list[int]) -> None:
            for place in places:
                sequences[place] = await self._until_acked(batch[place])

        async with asyncio.TaskGroup() as storing:
            for places in lanes.values():
                storing.create_task(store(places))
        return sequences

    def _report(self, error: Exception, subject: str) -> None:
        """The bus logs a lost connection."""
        if not isinstance(error, SessionEnded) and (
            reason := self._trouble.first_occurrence(error)
        ):
            _log.warning("publish-retried", subject=subject, error=reason)


async def send_batch(session: Session, batch: Sequence[Outgoing]) -> int:
    """The sequence of the last message; those of the others precede it. Raises ApiError where
    nothing of the batch was stored."""
    name = uuid.uuid4().hex
    for number, each in enumerate(batch[:-1], 1):
        await session.send(
            each.subject, each.data, {**each.headers, BATCH_ID: name, BATCH_SEQUENCE: str(number)}
        )
    last = batch[-1]
    headers = {**last.headers, BATCH_ID: name, BATCH_SEQUENCE: str(len(batch)), BATCH_COMMIT: "1"}
    reply = await session.request(last.subject, last.data, headers, timeout_s=BATCH_TIMEOUT_S)
    return parse_ack(reply.data).seq


async def _is_on(session: Session, ack: Ack, subject: str) -> bool:
    """Whether the message that was acknowledged is of this subject. Raises ApiError, Unreachable
    or TimeoutError."""
    try:
        answer = await api(session, f"STREAM.MSG.GET.{ack.stream}", {"seq": ack.seq})
    except ApiError as error:
        if error.err_code == MESSAGE_NOT_FOUND:
            return False
        raise
    return bool(answer["message"]["subject"] == subject)


def _with_new_id(outgoing: Outgoing) -> Outgoing:
    message_id = f"{outgoing.headers[MSG_ID]}:{uuid.uuid4().hex}"
    return Outgoing(
        outgoing.subject,
        outgoing.data,
        {**outgoing.headers, "ce-id": message_id, MSG_ID: message_id},
    )


def parse_ack(data: bytes) -> Ack:
    """Raises ApiError if the message was rejected, and msgspec.DecodeError."""
    ack = _decode_ack(data)
    if ack.error is not None:
        raise ApiError(ack.error.code, ack.error.err_code, ack.error.description)
    return ack


def _size_bytes(outgoing: Outgoing) -> int:
    values = "".join(outgoing.headers.values()).encode()
    names = sum(map(len, outgoing.headers)) + 4 * len(outgoing.headers)
    return len(outgoing.data) + len(values) + names + len("NATS/1.0\r\n\r\n")


def check_size(session: Session, outgoing: Outgoing) -> None:
    """Raises OversizedMessage."""
    subject_bytes = len(outgoing.subject.encode())
    if subject_bytes > LONGEST_SUBJECT:
        raise OversizedMessage(
            f"{outgoing.subject[:LONGEST_SUBJECT]}...", subject_bytes, LONGEST_SUBJECT
        )
    size_bytes = _size_bytes(outgoing)
    limit_bytes = session.max_payload_bytes - MARGIN_BYTES
    if size_bytes > limit_bytes:
        raise OversizedMessage(outgoing.subject, size_bytes, limit_bytes)
