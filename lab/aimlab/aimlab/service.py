"""Runs a process of the lab until SIGINT or SIGTERM, leaving nothing behind."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine


def run_until_signalled(work: Coroutine[None, None, None]) -> None:
    """Runs `work`; SIGTERM and SIGINT cancel it and wait for it to clean up."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    asyncio.run(_until_signalled(work))


async def _until_signalled(work: Coroutine[None, None, None]) -> None:
    task = asyncio.create_task(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
