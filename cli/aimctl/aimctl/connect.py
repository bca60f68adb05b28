"""Connections to the NATS server. A RuntimeError has the reason why there is none."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from aimbus import (
    Bus,
    NatsCredentials,
    connect,
)
from aimbus.credentials import CA_SETTING, CREDS_SETTING

DEFAULT_URL = "nats://127.0.0.1:4222"


WITHIN_S = 10.0


@contextlib.asynccontextmanager
async def connected_bus(within_s: float = WITHIN_S) -> AsyncIterator[Bus]:
    """The bus at AIM_NATS_URL. Raises RuntimeError if no server answers."""
    url, trouble = os.environ.get("AIM_NATS_URL", DEFAULT_URL), [""]
    try:
        async with asyncio.timeout(within_s):
            bus = await connect(
                url,
                name="aimctl",
                access=NatsCredentials(os.environ.get(CREDS_SETTING), os.environ.get(CA_SETTING)),
                on_status=trouble.append,
            )
    except TimeoutError:
        raise RuntimeError(
            trouble[-1]
            or f"no NATS server answers at {url}:"
            " set AIM_NATS_URL; aimlab dev and aimctl up print theirs"
        ) from None
    try:
        yield bus
    finally:
        await bus.close()
