"""The connection that is never given up."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, cast

import pytest
import structlog
from nats.aio.client import Client

from aimbus import Bus, BusClosed, NatsServer, Unreachable, connect
from aimbus.session import Session


async def test_connecting_waits_for_a_server_that_is_not_there_yet(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    await server.start()
    await server.stop()
    with structlog.testing.capture_logs() as lines:
        connecting = asyncio.create_task(connect(server.url, name="t"))
        async with asyncio.timeout(10):
            while not lines:  # noqa: ASYNC110 - the log has no event
                await asyncio.sleep(0.02)
            assert not connecting.done()
            await server.start()
            bus = await connecting
    assert bus.connected
    await bus.close()
    await server.kill()
    assert [line["event"] for line in lines] == ["nats-waiting", "nats-connected"]


async def test_it_reconnects_and_logs_it_once(server: NatsServer) -> None:
    bus = await connect(server.url, name="t")
    with structlog.testing.capture_logs() as lines:
        session = await bus.session()
        async with asyncio.timeout(10):
            await server.kill()
            await session.ended
            assert not bus.connected
            await asyncio.sleep(0.6)  # two attempts in vain
            await server.start()
            assert await bus.session() is not session
        assert [line["event"] for line in lines] == [
            "nats-disconnected",
            "nats-waiting",
            "nats-connected",
        ]
    await bus.close()


async def test_requests_in_flight_fail_when_the_connection_breaks(
    server: NatsServer, bare_bus: Bus
) -> None:
    session = await bare_bus.session()
    await session.client.subscribe("silent")
    request = asyncio.create_task(session.request("silent", b"", timeout_s=60))
    await session.client.flush()
    await server.kill()
    async with asyncio.timeout(10):
        with pytest.raises(Unreachable):
            await request


async def test_a_closed_bus_lets_go_of_everyone_who_waits(server: NatsServer) -> None:
    bus = await connect(server.url, name="t")
    session = await bus.session()
    await server.kill()
    await session.ended
    waiting = asyncio.create_task(bus.session())
    await asyncio.sleep(0)
    await bus.close()
    async with asyncio.timeout(5):
        with pytest.raises(BusClosed):
            await waiting


async def test_passwords_are_not_logged(server: NatsServer) -> None:
    with structlog.testing.capture_logs() as lines:
        bus = await connect(server.url.replace("nats://", "nats://me:secret@"), name="t")
        await bus.close()
    assert lines
    assert "secret" not in str(lines)


class SwallowingClient:
    """A client that is busy with a flush when it is cancelled, and takes no notice (nats-py
    2.16.0, Client._flush_pending)."""

    max_payload = 1 << 20
    options: ClassVar = {"name": "t"}

    def __init__(self) -> None:
        self.flushing = asyncio.Event()

    def new_inbox(self) -> str:
        return "_INBOX.t"

    async def publish(self, *_: object, **__: object) -> None:
        self.flushing.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async def subscribe(self, *_: object, **__: object) -> "SwallowingClient":
        await self.publish()
        return self

    async def unsubscribe(self) -> None:
        pass


async def sends(session: Session) -> None:
    await session.send("a", b"")


async def requests(session: Session) -> None:
    await session.request("a", b"")


async def subscribes(session: Session) -> None:
    async with session.subscription("a"):
        await asyncio.Event().wait()


@pytest.mark.parametrize("act", [sends, requests, subscribes])
async def test_a_cancellation_that_the_client_swallows_ends_the_work(
    act: Callable[[Session], Awaitable[None]],
) -> None:
    client = SwallowingClient()
    continued = False

    async def work() -> None:
        nonlocal continued
        await act(Session(cast("Client", client)))
        continued = True

    task = asyncio.create_task(work())
    await client.flushing.wait()
    task.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait([task])
    assert task.cancelled()
    assert not continued


async def test_who_cleans_up_after_a_cancellation_may_send(bare_bus: Bus) -> None:
    session = await bare_bus.session()
    sent = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await session.send("a", b"")
            sent.set()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert sent.is_set()
    assert task.cancelled()


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"ce-id": "a:1", "ce-source": "aim-watcher", "aim-cause": "1,2"}, id="ours"),
        pytest.param({"ce-subject": "Pod/ml/ü"}, id="not-ascii"),
        pytest.param({"ce-id": ""}, id="empty"),
        pytest.param({"ce-id": "  padded\u00a0"}, id="padded"),
        pytest.param({"ce-id": "a\r\nce-source: forged"}, id="a-line-end"),
        pytest.param({"ce-id": "a\x00b\x7f"}, id="control-characters"),
        pytest.param({"Foreign": "x", "ce-id": "y"}, id="another-name"),
        pytest.param({}, id="none"),
    ],
)
async def test_headers_arrive_as_from_the_plain_client(
    bare_bus: Bus, headers: dict[str, str]
) -> None:
    session = await bare_bus.session()
    async with session.subscription("a") as arrived:
        await session.client.publish("a", b"data", headers=headers)
        await Client._send_publish(session.client, "a", "", b"data", 4, headers)
        first, second = [await arrived.get(), await arrived.get()]
    assert first is not None
    assert second is not None
    assert (first.headers, first.data) == (second.headers, second.data)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"NATS/1.0\r\nce-id: a:b: c\r\naim-cause: 1,2\r\n\r\n", id="ours"),
        pytest.param(b"NATS/1.0\r\nce-id:  padded \r\n\r\n", id="padded"),
        pytest.param(b"NATS/1.0\r\nce-id: \r\n\r\n", id="an-empty-value"),
        pytest.param(b"NATS/1.0\r\nce-id:\r\n\r\n", id="no-value"),
        pytest.param(b"NATS/1.0\r\nce-id\r\n\r\n", id="no-colon"),
        pytest.param(b"NATS/1.0\r\nce-id: a\r\nce-id: b\r\n\r\n", id="one-name-twice"),
        pytest.param(b"NATS/1.0\r\nce-id: \xc3\xbc\r\n\r\n", id="not-ascii"),
        pytest.param(b"NATS/1.0\r\nce-id: \xff\r\n\r\n", id="not-utf-8"),
        pytest.param(b"NATS/1.0\r\nce-id: a\nb\r\n\r\n", id="a-bare-line-feed"),
        pytest.param(b"NATS/1.0\r\nForeign: x\r\nce-id: y\r\n\r\n", id="another-name"),
        pytest.param(b"NATS/1.0\r\n\r\n", id="none"),
        pytest.param(b"NATS/1.0 503\r\n\r\n", id="a-status"),
        pytest.param(b"NATS/1.0 100 Idle Heartbeat\r\nce-id: a\r\n\r\n", id="a-status-and-more"),
        pytest.param(b"", id="nothing"),
    ],
)
async def test_headers_are_read_as_by_the_plain_client(bare_bus: Bus, raw: bytes) -> None:
    client = (await bare_bus.session()).client
    assert await client._process_headers(raw) == await Client._process_headers(client, raw)
