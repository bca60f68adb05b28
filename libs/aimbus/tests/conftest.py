"""A real nats-server for each test, on a free port and a temporary folder."""

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aimbus import Bus, NatsServer, connect, ensure_streams
from aimschema.messages import ObjectChanged


@pytest.fixture
def fast_dir() -> Iterator[Path]:
    """In memory where there is such a place: every write is synced, which takes a disk a
    millisecond or two."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    with tempfile.TemporaryDirectory(
        prefix="aimbus-", dir=memory if memory.is_dir() else None
    ) as folder:
        yield Path(folder)


@pytest.fixture
async def server(fast_dir: Path) -> AsyncIterator[NatsServer]:
    server = NatsServer(fast_dir / "nats")
    await server.start()
    yield server
    await server.kill()


@pytest.fixture
async def bare_bus(server: NatsServer) -> AsyncIterator[Bus]:
    """Connected to a server without streams."""
    bus = await connect(server.url, name="aim-watcher")
    yield bus
    await bus.close()


@pytest.fixture
async def bus(bare_bus: Bus) -> Bus:
    await ensure_streams(bare_bus)
    return bare_bus


@pytest.fixture
def pod() -> Callable[..., ObjectChanged]:
    """A new version of a Pod; the name is its uid too."""

    def make(name: str, version: int = 1, **body: Any) -> ObjectChanged:
        return ObjectChanged(
            kind="Pod",
            namespace="ml",
            name=name,
            uid=name,
            resource_version=str(version),
            object={"metadata": {"name": name}, **body},
        )

    return make
