"""A service as a process: settings, logs, health, signals, exit code.

SIGTERM and SIGINT cancel the main coroutine, which finishes or gives back what is in hand; after
`DRAIN_S` the process ends all the same, as it does when the main coroutine ended by itself and
something it started does not. The exit code is 0 after a signal, 1 when the main coroutine ended by
itself, 2 for bad settings. /livez says that the event loop turns, also while the service still
waits for NATS or the API server.

Several components can share a process: it ends when one of them does, as each would alone, and has
one HTTP port for all.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

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


class Program(NamedTuple):
    """A component to run: its settings are read from the environment."""

    component: str
    settings_type: type[ServiceSettings]
    main: Callable[[Any, Health], Awaitable[None]]


def run(service: str, settings_type: type[S], main: Callable[[S, Health], Awaitable[None]]) -> int:
    """Run a service until a signal ends it; returns the exit code."""
    return _run(service, [Program(service, settings_type, main)], main)


def run_together(name: str, programs: Sequence[Program]) -> int:
    """Run components in one process until a signal ends it; returns the exit code."""

    async def main(_: ServiceSettings, health: Health) -> None:
        health.set_ready("start")
        async with asyncio.TaskGroup() as components:
            for program in programs:
                components.create_task(_run_component(program, health.component(program.component)))

    return _run(name, programs, main)


def _run(
    name: str, programs: Sequence[Program], main: Callable[[Any, Health], Awaitable[None]]
) -> int:
    """`main` gets the settings of the first program."""
    try:
        read = [program.settings_type() for program in programs]
    except ValidationError as error:
        sys.stderr.writelines(f"aim-{name}: {line}\n" for line in describe_invalid(error))
        return 2
    first = read[0].of_component(programs[0].component)
    logs.configure(first, name)
    for variable in unknown_variables(programs[0].settings_type):
        log.warning("unknown-setting", variable=variable, hint="no AIM service knows this variable")
    flush = tracing.configure(f"aim-{name}")
    return asyncio.run(_supervise(first, main, flush))


async def _run_component(program: Program, health: Health) -> None:
    """In a task of its own, whose log lines have the name of the component. Raises RuntimeError
    when it ends."""
    structlog.contextvars.bind_contextvars(service=program.component)
    await program.main(program.settings_type().of_component(program.component), health)
    raise RuntimeError(f"{program.component} ended")


async def _supervise(
    settings: ServiceSettings,
    main: Callable[[Any, Health], Awaitable[None]],
    flush: tracing.Flush,
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
