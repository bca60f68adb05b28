"""A self-healing connection to NATS.

1. The client reconnects without end. A client that closes itself (a protocol error, an
   authorisation error), or that stays disconnected for a while, is replaced.
2. Callers use sessions: each is one unbroken connection. `session()` waits for one without a limit.
3. The log has one line per change of state, not one per attempt.
4. Keys and certificates are read again for each client, and a client that the server rejects is
   replaced. So a correction, here or at the server, needs no restart.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.protocol.command import hpub_cmd

from aimbus.credentials import NatsCredentials, inbox_prefix
from aimbus.envelope import decode_headers, encode_headers
from aimbus.errors import AccessDenied, BusClosed
from aimbus.log_dedup import RepeatSuppressor
from aimbus.publish import Publisher
from aimbus.session import Session

RECONNECT_WAIT_S = 0.25
CONNECT_TIMEOUT_S = 3
PING_INTERVAL_S = 10
CHECK_INTERVAL_S = 1.0
REPLACE_AFTER_S = 15.0
ALLOWED_AFTER_S = 15.0
"""Time without a rejection after which the permissions count as fixed. A rejected operation is
retried within 7 s, and a server does not announce new permissions."""

ANONYMOUS = NatsCredentials()
# asyncio warns once for every TLS connection that the other side closes
# (StreamReaderProtocol.eof_received); nothing is wrong.
logging.getLogger("asyncio").addFilter(
    lambda record: "eof_received() has no effect" not in record.getMessage()
)
_log = structlog.stdlib.get_logger("aimbus")


def ignore_status(_: str) -> None:
    """No-op status callback."""


class _Client(Client):
    """The client with two differences.

    It reads subjects that are not UTF-8: the server takes and stores them, and the client's own
    reading ends at the first one, and with it whatever this process hears on the connection. And it
    writes and reads all headers of a message of ours at once: the client goes through them one by
    one, which takes a quarter of the time of a publication.
    """

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        decoded = decode_headers(bytes(headers)) if headers else None
        if decoded is not None:
            return decoded
        found: dict[str, str] | None = await super()._process_headers(headers)
        return found

    async def _send_publish(
        self,
        subject: str,
        reply: str,
        payload: bytes,
        payload_size: int,
        headers: dict[str, Any] | None,
    ) -> None:
        encoded = None if headers is None else encode_headers(headers)
        if encoded is None or not subject:
            await super()._send_publish(subject, reply, payload, payload_size, headers)
            return
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += payload_size
        await self._send_command(hpub_cmd(subject, reply, encoded, payload))
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        message: Msg = super()._build_message(
            sid, subject.decode(errors="replace").encode(), reply, data, headers
        )
        return message


class Bus:
    """One service's connection; make it with `connect`. `name` is the CloudEvents source of what
    it publishes."""

    def __init__(
        self, url: str, name: str, access: NatsCredentials, on_status: Callable[[str], None]
    ) -> None:
        self.name = name
        self.publisher = Publisher(self.session, name)
        self._servers = [server.strip() for server in url.split(",")]
        self._access = access
        self._on_status = on_status
        self._clear_timer: asyncio.TimerHandle | None = None
        self.trouble = ""  # what is in the way of using the bus
        self._session: Session | None = None
        self._available = asyncio.Event()
        self._trouble = RepeatSuppressor()
        self._closing = False
        self._log = _log.bind(
            servers=[server.rpartition("@")[2] for server in self._servers]
        )  # without passwords
        self._task = asyncio.create_task(self._keep_connected())
        self._task.add_done_callback(lambda _: self._available.set())

    @property
    def connected(self) -> bool:
        return self._session is not None

    async def session(self) -> Session:
        """The current session; waits while there is none. Raises BusClosed after `close`."""
        while self._session is None:
            if self._task.done():
                raise BusClosed from (None if self._task.cancelled() else self._task.exception())
            await self._available.wait()
        return self._session

    async def close(self) -> None:
        """Ends the connection; who still waits for a session gets BusClosed."""
        self._closing = True
        self._stop_waiting()
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _keep_connected(self) -> None:
        while True:
            client = _Client()
            closed = asyncio.Event()
            try:
                await self._connect(client, closed)
                await self._up(client)
                await _wait_until_closed_or_stale(client, closed)
            except (nats.errors.Error, OSError, AccessDenied) as error:
                await self._on_error(error)
            finally:
                await self._down()
                await _discard(client)
            await asyncio.sleep(RECONNECT_WAIT_S)

    async def _connect(self, client: Client, closed: asyncio.Event) -> None:
        """Returns when connected, or when another attempt is useless: the client itself would retry
        without end, with the same key."""
        attempt = asyncio.ensure_future(
            client.connect(self._servers, **self._options(client, closed))
        )
        useless = asyncio.ensure_future(closed.wait())
        try:
            await asyncio.wait({attempt, useless}, return_when=asyncio.FIRST_COMPLETED)
            if attempt.done():
                await attempt
        finally:
            useless.cancel()
            attempt.cancel()
            await asyncio.wait({attempt}, timeout=CONNECT_TIMEOUT_S)

    def _options(self, client: Client, closed: asyncio.Event) -> dict[str, Any]:
        async def on_error(error: Exception) -> None:
            await self._on_error(error)
            if self._access.as_credential_error(error):
                closed.set()

        async def on_reconnect() -> None:
            try:
                await self._up(client)
            except AccessDenied as error:
                await on_error(error)

        async def has_closed() -> None:
            closed.set()

        return {
            **self._access.options(),
            "name": self.name,
            "inbox_prefix": inbox_prefix(self.name),
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": RECONNECT_WAIT_S,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "ping_interval": PING_INTERVAL_S,
            "max_outstanding_pings": 2,
            "flush_timeout": CONNECT_TIMEOUT_S,
            "error_cb": on_error,
            "disconnected_cb": self._down,
            "reconnected_cb": on_reconnect,
            "closed_cb": has_closed,
        }

    async def _up(self, client: Client) -> None:
        if not client.is_connected:
            return
        self._access.check_encrypted(client)
        session = Session(client)
        await session.open()
        if not client.is_connected:
            return  # lost again meanwhile; the client calls back when it is there
        previous, self._session = self._session, session
        if previous is not None:
            await previous.end()
        self._trouble.reset()
        self._available.set()
        self._report("")
        self._log.info("nats-connected", max_payload_bytes=session.max_payload_bytes)

    async def _down(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._available.clear()
            if not self._closing:
                self._log.warning("nats-disconnected")
                self._report("the connection is lost")
            await session.end()

    async def _on_error(self, error: Exception) -> None:
        if self.connected and isinstance(error, nats.errors.UnexpectedEOF | OSError):
            return  # the disconnection is logged as such
        if (missing := self._access.as_permission_error(error)) is not None:
            self._stop_waiting()
            self._clear_timer = asyncio.get_running_loop().call_later(
                ALLOWED_AFTER_S, self._on_allowed
            )
        if (denied := missing or self._access.as_credential_error(error)) is not None:
            error = denied
            self._report(str(denied))
        if text := self._trouble.first_occurrence(error):
            self._log.warning("nats-error" if self.connected else "nats-waiting", error=text)

    def _on_allowed(self) -> None:
        """No request has been denied for a while."""
        if self.connected:
            self._trouble.reset()
            self._report("")

    def _stop_waiting(self) -> None:
        if self._clear_timer is not None:
            self._clear_timer.cancel()

    def _report(self, trouble: str) -> None:
        self.trouble = trouble
        self._on_status(trouble)


async def connect(
    url: str,
    *,
    name: str,
    access: NatsCredentials = ANONYMOUS,
    on_status: Callable[[str], None] = ignore_status,
) -> Bus:
    """Connect to `url` (several, separated by commas, for a cluster); waits for the server as long
    as it takes.

    `name` without dots or blanks is the client's name and the CloudEvents source. `on_status` gets
    the problem that prevents the use of the bus, and "" when there is none any more.
    """
    bus = Bus(url, name, access, on_status)
    try:
        await bus.session()
    except asyncio.CancelledError:
        await bus.close()
        raise
    return bus


async def _wait_until_closed_or_stale(client: Client, closed: asyncio.Event) -> None:
    """Returns when the client is closed or has been away for long. Looks for itself: `closed_cb`
    is not called when closing fails midway."""
    loop = asyncio.get_running_loop()
    connected_s = loop.time()
    while (
        not client.is_closed and not closed.is_set() and loop.time() - connected_s < REPLACE_AFTER_S
    ):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_INTERVAL_S):
                await closed.wait()
        if client.is_connected:
            connected_s = loop.time()


async def _discard(client: Client) -> None:
    """A client that failed may fail in closing too; it is thrown away either way."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await client.close()
