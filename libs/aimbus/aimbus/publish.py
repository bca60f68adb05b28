"""Publishing into AIM_LOG, until it is acknowledged.

1. A message is sent until the stream has acknowledged it, over time-outs, restarts of the server and replaced clients, always with the
   same id: stored once.
2. Messages of one subject are stored in the order in which `publish` was called: the next is sent after the last one's acknowledgement.
   Different subjects go side by side, up to the window.
3. An oversized message is refused before anything of it is sent: the server would close the connection over it.
"""

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from aimbus.envelope import headers_for
from aimbus.errors import ApiError, OversizedMessage, SessionEnded, Unreachable
from aimbus.once import Once
from aimbus.session import Session
from aimschema.messages import Message, Progress, encode, subject_of

WINDOW = 256
ACK_TIMEOUT_S = 5.0
MARGIN_BYTES = 4096
FIRST_RETRY_S = 0.05
LONGEST_RETRY_S = 2.0
_TOO_LARGE = 10054

_log = structlog.stdlib.get_logger("aimbus")


class _Fault(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    """PubAck of JetStream: `error` or the rest."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: _Fault | None = None


_decode_ack = msgspec.json.Decoder(_Ack).decode


class Publisher:
    """`session` gives the current session, waiting if need be; `source` is the CloudEvents source."""

    def __init__(self, session: Callable[[], Awaitable[Session]], source: str) -> None:
        self._session = session
        self._source = source
        self._trouble = Once()
        self._window = asyncio.Semaphore(WINDOW)
        # asyncio.Lock is first come, first served; an entry goes when nobody holds or awaits its lock.
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def publish(self, message: Message, *, cause: Sequence[int] = (), traceparent: str | None = None) -> int:
        """Store a message; returns its sequence in AIM_LOG, of the first copy if it was there already.

        Ends only with the acknowledgement, however long that takes. Raises OversizedMessage, and ValueError for a Progress, which is not stored.
        """
        if isinstance(message, Progress):
            raise ValueError("Progress is not stored: use publish_live")  # noqa: TRY004 - a message, but of the wrong sort
        subject = subject_of(message)
        data = encode(message)
        headers = headers_for(message, source=self._source, cause=cause, traceparent=traceparent)
        turn = self._turns.get(subject)
        if turn is None:
            turn = self._turns[subject] = asyncio.Lock()
        async with turn, self._window:
            return await self._until_acked(subject, data, headers)

    async def publish_live(self, message: Progress) -> None:
        """Send to whoever listens right now. Not stored, not retried; nothing is sent while the server is away."""
        subject, data = subject_of(message), encode(message)
        headers = headers_for(message, source=self._source)
        session = await self._session()
        _check_size(session, subject, data, headers)
        try:
            await session.send(subject, data, headers)
        except (Unreachable, TimeoutError):
            _log.debug("progress not sent", subject=subject)

    async def _until_acked(self, subject: str, data: bytes, headers: dict[str, str]) -> int:
        wait_s = FIRST_RETRY_S
        while True:
            session = await self._session()
            _check_size(session, subject, data, headers)
            try:
                reply = await session.request(subject, data, headers, timeout_s=ACK_TIMEOUT_S)
                seq = _acked_seq(reply.data)
            except (Unreachable, TimeoutError, ApiError, msgspec.DecodeError) as error:
                if isinstance(error, ApiError) and error.err_code == _TOO_LARGE:
                    raise OversizedMessage(subject, _size_bytes(data, headers), session.max_payload_bytes) from error
                # A lost connection is said by the bus.
                if not isinstance(error, SessionEnded) and (reason := self._trouble.news(error)):
                    _log.warning("publish retried", subject=subject, error=reason)
            else:
                self._trouble.reset()
                return seq
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, LONGEST_RETRY_S)


def _acked_seq(data: bytes) -> int:
    ack = _decode_ack(data)
    if ack.error is not None:
        raise ApiError(ack.error.code, ack.error.err_code, ack.error.description)
    return ack.seq


def _size_bytes(data: bytes, headers: dict[str, str]) -> int:
    return len(data) + sum(len(name) + len(value.encode()) + 4 for name, value in headers.items()) + len("NATS/1.0\r\n\r\n")


def _check_size(session: Session, subject: str, data: bytes, headers: dict[str, str]) -> None:
    size_bytes = _size_bytes(data, headers)
    limit_bytes = session.max_payload_bytes - MARGIN_BYTES
    if size_bytes > limit_bytes:
        raise OversizedMessage(subject, size_bytes, limit_bytes)
