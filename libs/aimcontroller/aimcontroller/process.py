"""A service as a process: settings, logs, health, signals, exit code.

SIGTERM and SIGINT cancel the main coroutine, which finishes or gives back what is in hand; after
`DRAIN_S` the process ends all the same, as it does when the main coroutine ended by itself and
something it started does not. The exit code is 0 after a signal, 1 when the main coroutine ended by
itself, 2 for bad settings. /livez says that the event loop turns, also while the service still
waits for NATS or the API server.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from pydantic import ValidationError

from aimcontroller import logs, tracing
from aimcontroller.health import Health, serve_http
from aimcontroller.settings import ServiceSettings, describe_invalid, unknown_variables

DRAIN_S = 9.0
FLUSH_S = 2.0
"""For the last spans, out of what is left of `DRAIN_S`."""
LEAST_FLUSH_S = 0.5
BEAT_S = 5.0
S = TypeVar("S", bound=ServiceSettings)
log = structlog.get_logger()


def run(service: str, settings_type: type[S], main: Callable[[S, Health], Awaitable[None]]) -> int:
    """Run a service until a signal ends it; returns the exit code."""
    try:
        settings = settings_type()
    except ValidationError as error:
        sys.stderr.writelines(f"aim-{service}: {line}\n" for line in describe_invalid(error))
        return 2
    logs.configure(settings, service)
    for name in unknown_variables(settings_type):
        log.warning("unknown-setting", variable=name, hint="no AIM service knows this variable")
    flush = tracing.configure(f"aim-{service}")
    return asyncio.run(_supervise(settings, main, flush))


async def _supervise(
    settings: S, main: Callable[[S, Health], Awaitable[None]], flush: tracing.Flush
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    health = Health()
    async with serve_http(health, settings.http_port):
        work = asyncio.ensure_future(main(settings, health))
        stopping, beating = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(_beat(health))
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        beating.cancel()
        if work.done():
            error = _error_of(work)
            log.error("exited-unexpectedly", error=repr(error), exc_info=error)
            await asyncio.to_thread(flush, FLUSH_S)
            await _end_all(1)
            return 1
        log.info("stopping")
        signalled_s = loop.time()
        work.cancel()
        done, _ = await asyncio.wait({work}, timeout=DRAIN_S)
        if not done:
            log.warning("drain-timed-out", drain_s=DRAIN_S)
            os._exit(0)  # asyncio.run would wait for what does not end
        if (error := _error_of(work)) is not None:
            log.error("failed-while-stopping", error=repr(error), exc_info=error)
        await asyncio.to_thread(
            flush, max(LEAST_FLUSH_S, min(FLUSH_S, signalled_s + DRAIN_S - loop.time()))
        )
        log.info("stopped")
        return 0


async def _end_all(exit_code: int) -> None:
    """Cancel what still runs; ends the process where that takes no notice: asyncio.run would
    wait for it for ever."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others and (await asyncio.wait(others, timeout=DRAIN_S))[1]:
        log.error("shutdown-timed-out", drain_s=DRAIN_S)
        os._exit(exit_code)


def _error_of(work: asyncio.Future[None]) -> BaseException | None:
    return None if work.cancelled() else work.exception()


async def _beat(health: Health) -> None:
    while True:
        health.heartbeat()
        await asyncio.sleep(BEAT_S)
