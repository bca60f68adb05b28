"""One unbroken connection to a NATS server.

1. A session never reconnects. When its connection breaks, `ended` is done, every waiting request
   fails with SessionEnded at once, and the Bus creates a new session. So no message is missing
   between two replies of a session.
2. A request ends with its reply, or with one of the three exceptions of `request`, each of which
   may be retried.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Mapping
from typing import cast

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from aimbus.errors import NoResponders, SessionEnded


class Session:
    """Made by the Bus. `ended` is done, with no result, as soon as the connection is lost."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inbox = client.new_inbox()
        self._tokens = itertools.count()
        self._waiting: dict[str, asyncio.Future[Msg]] = {}

    @property
    def name(self) -> str:
        """What the client calls itself."""
        return str(self.client.options["name"])

    @property
    def max_payload_bytes(self) -> int:
        """What the server takes in one message, headers included."""
        return self.client.max_payload

    async def open(self) -> None:
        self._subscription = await self.client.subscribe(f"{self._inbox}.*", pending_bytes_limit=0)
        # The client puts each message that arrives into this: a reply needs no task to hand it on.
        self._subscription._pending_queue = _Replies(self._waiting)

    async def end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(SessionEnded())
        # The client replays its subscriptions when it reconnects; this one must not pile up there.
        with contextlib.suppress(nats.errors.Error):
            await self._subscription.unsubscribe()

    async def request(
        self,
        subject: str,
        data: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float = 5.0,
    ) -> Msg:
        """Raises SessionEnded, NoResponders, or TimeoutError; after each of them the server may
        or may not have acted."""
        if self.ended.done():
            raise SessionEnded
        token = str(next(self._tokens))
        reply: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._waiting[token] = reply
        try:
            await self.send(
                subject, data, headers, reply=f"{self._inbox}.{token}", timeout_s=timeout_s
            )
            async with asyncio.timeout(timeout_s):
                message = await reply
        finally:
            del self._waiting[token]
            if reply.done() and not reply.cancelled():
                reply.exception()  # retrieved, even if sending failed first
        if message.headers and message.headers.get("Status") == "503":
            raise NoResponders
        return message

    async def send(
        self,
        subject: str,
        data: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        reply: str = "",
        timeout_s: float = 5.0,
    ) -> None:
        """Hand a message to the client. Raises SessionEnded or TimeoutError.

        The time-out is its own, apart from a reply's: the client waits without end for a flush that
        a closed connection never makes, and swallows a cancellation there, with which one time-out
        around both would be used up.
        """
        try:
            async with _cancellable(), asyncio.timeout(timeout_s):
                await self.client.publish(
                    subject, data, reply=reply, headers=dict(headers) if headers else None
                )
        except (
            nats.errors.ConnectionClosedError,
            nats.errors.ConnectionDrainingError,
            nats.errors.OutboundBufferLimitError,
            OSError,
        ) as error:
            raise SessionEnded from error

    @contextlib.asynccontextmanager
    async def subscription(self, subject: str) -> AsyncIterator[asyncio.Queue[Msg | None]]:
        """What arrives on a subject; None is put when the session has ended. Raises SessionEnded.

        The queue has no bound: readers bound what they ask for.
        """

        def wake(_: object) -> None:
            arrived.put_nowait(None)

        try:
            async with _cancellable():
                subscription = await self.client.subscribe(
                    subject, pending_msgs_limit=0, pending_bytes_limit=0
                )
        except nats.errors.Error as error:
            raise SessionEnded from error
        # Read directly: no task has to hand on what arrives.
        arrived = cast("asyncio.Queue[Msg | None]", subscription._pending_queue)
        self.ended.add_done_callback(wake)
        try:
            yield arrived
        finally:
            self.ended.remove_done_callback(wake)
            with contextlib.suppress(nats.errors.Error):
                async with _cancellable():
                    await subscription.unsubscribe()


class _Replies(asyncio.Queue[Msg]):
    """Takes the place of a subscription's queue, and hands each reply to the request that waits for
    it at once."""

    def __init__(self, waiting: Mapping[str, asyncio.Future[Msg]]) -> None:
        super().__init__()
        self._waiting = waiting

    def put_nowait(self, item: Msg) -> None:
        waiting = self._waiting.get(item.subject.rpartition(".")[2])
        if waiting is not None and not waiting.done():
            waiting.set_result(item)


@contextlib.asynccontextmanager
async def _cancellable() -> AsyncIterator[None]:
    """Raises the cancellation that the client swallowed while it waited for a flush: cancelled work
    must not continue."""
    task = asyncio.current_task()
    before = (
        0 if task is None else task.cancelling()
    )  # (who cleans up after a cancellation may send)
    yield
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
