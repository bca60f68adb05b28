"""For tests that need a laptop cluster: how to wait for it. The fixtures are in
`aimlab.testing.fixtures`, a pytest plugin."""

import asyncio
from collections.abc import Awaitable, Callable

from aimctl.local.processes import Children
from aimlab.kinds import Body
from aimschema.resources import Resource

Wait = Callable[[Resource, str, Callable[[Body], bool]], Awaitable[Body]]
Start = Callable[[], Awaitable[Children]]
WITHIN_S = 60.0
POLL_S = 0.03
NAMESPACE = "demo"
"""The one namespace that the `cluster` fixture makes."""


async def eventually(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Waits until it holds, for what no watch reports. Raises AssertionError with `what` after 20
    s."""
    try:
        async with asyncio.timeout(WITHIN_S):
            while not await holds():  # noqa: ASYNC110 (other processes make it true)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"not within {WITHIN_S:g} s: {what}") from None
