"""A real nats-server with its streams, and connections to it."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from aimbus import Bus, NatsServer, connect, ensure_streams


@pytest.fixture
def fast_dir() -> Iterator[Path]:
    """In memory where there is such a place: every write is synced."""
    memory = Path("/dev/shm")  # noqa: S108 (a folder of our own is made in it)
    with tempfile.TemporaryDirectory(
        prefix="aimservice-", dir=memory if memory.is_dir() else None
    ) as folder:
        yield Path(folder)


@pytest.fixture
async def nats(fast_dir: Path) -> AsyncIterator[NatsServer]:
    server = NatsServer(fast_dir / "nats")
    await server.start()
    yield server
    await server.kill()


@pytest.fixture
async def watcher_bus(nats: NatsServer) -> AsyncIterator[Bus]:
    """The watcher's connection; the streams are there."""
    bus = await connect(nats.url, name="aim-watcher")
    await ensure_streams(bus)
    yield bus
    await bus.close()


@pytest.fixture
async def service_bus(nats: NatsServer) -> AsyncIterator[Bus]:
    bus = await connect(nats.url, name="aim-test")
    yield bus
    await bus.close()
