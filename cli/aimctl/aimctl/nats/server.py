"""A NATS server on this machine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aimbus import NatsServer
from aimctl.nats.key_files import Guard


@asynccontextmanager
async def embedded_nats(folder: Path, guard: Guard | None = None) -> AsyncIterator[NatsServer]:
    """A NATS server of our own for as long as the block lasts."""
    nats = (
        NatsServer(folder)
        if guard is None
        else NatsServer(folder, includes=guard.includes, heard=guard.log.append)
    )
    await nats.start()
    try:
        yield nats
    finally:
        await nats.stop()
