"""How a command runs: its arguments parsed, its errors as messages and exit codes."""

import asyncio
import datetime
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog
import typer

from aimctl.output.console import PlainConsole
from aimctl.output.format import print_text
from aimctl.parsing import BadFile, key_of, moment
from aimschema.resources import Key

WIDE = 2000
INTERRUPTED = 130
"""As of what ends by SIGINT in a shell."""
T = TypeVar("T")


def a_console() -> PlainConsole:
    """On a terminal as wide as that; elsewhere nothing is cut or broken."""
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=WIDE)


def run(console: PlainConsole, work: Coroutine[Any, Any, T]) -> T:
    """Run it; a failure is an error message and exit code 1."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except (RuntimeError, BadFile, OSError) as error:
        print_text(console, f"error: {error}", "bold red")
        raise typer.Exit(1) from error


def parse_key(what: str, namespace: str | None) -> Key:
    try:
        return key_of(what, namespace)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="KIND/NAME") from error


def since_when(since: str | None) -> datetime.datetime | None:
    return None if since is None else parse_moment(since, "--since")


def parse_moment(text: str, option: str) -> datetime.datetime:
    """A time, or how long ago. Raises BadParameter that names the option."""
    try:
        return moment(text, datetime.datetime.now(datetime.UTC))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
