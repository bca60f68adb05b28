"""How a command runs that starts processes and stores their files in a folder."""

import asyncio
import logging
import shutil
import signal
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import structlog
import typer

from aimctl.output.console import PlainConsole

T = TypeVar("T")


def run_in_state_dir(
    state: Path | None, work: Callable[[Path, PlainConsole], Coroutine[Any, Any, T]]
) -> T | None:
    """Run until done or interrupted; None when interrupted. Delete a temporary folder at the
    end, unless a process did not start: its log is in the folder."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    console = PlainConsole()
    folder = state or Path(tempfile.mkdtemp(prefix="aim-"))
    try:
        result = asyncio.run(_until_interrupted(work(folder.absolute(), console)))
    except (RuntimeError, ExceptionGroup) as error:
        problem = _first(error)
        if not isinstance(problem, RuntimeError):
            raise
        console.print(f"error: {problem}", style="bold red", soft_wrap=True)
        raise typer.Exit(1) from error
    if state is None:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def _first(error: Exception) -> Exception:
    """The first error, out of the groups that tasks wrap it in."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


async def _until_interrupted(work: Coroutine[Any, Any, T]) -> T | None:
    """SIGINT and SIGTERM cancel the work, which cleans up; then there is no result."""
    task = asyncio.create_task(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return None
