"""The options that several commands have, and how a command runs."""

import asyncio
import datetime
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import structlog
import typer

from aimctl.analysis.preview import BadManifest
from aimctl.completion import complete_name, complete_namespace
from aimctl.output.console import PlainConsole
from aimctl.output.format import print_text
from aimctl.parsing import key_of, moment
from aimctl.replay.recording import BadRecording
from aimschema.resources import Key

WIDE = 2000
INTERRUPTED = 130
"""As of what ends by SIGINT in a shell."""
T = TypeVar("T")
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace", "-n", help="Namespace of the object.", autocompletion=complete_namespace
    ),
]
Named = Annotated[
    str,
    typer.Argument(
        metavar="KIND/NAME",
        help="For example AIMService/chat, aimsvc/chat or mc/weights.",
        autocompletion=complete_name,
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        help="Only show entries newer than this: 90s, 15m, 2h, 3d, or 2030-01-02T03:04:05Z.",
    ),
]


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
    except (RuntimeError, BadRecording, BadManifest, OSError) as error:
        print_text(console, f"error: {error}", "bold red")
        raise typer.Exit(1) from error


def parse_key(what: str, namespace: str | None) -> Key:
    try:
        return key_of(what, namespace)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="KIND/NAME") from error


def since_when(since: str | None) -> datetime.datetime | None:
    try:
        return None if since is None else moment(since, datetime.datetime.now(datetime.UTC))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from error


Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        "--kubeconfig",
        help="Path of the kubeconfig. Default: same lookup as kubectl.",
        exists=True,
        dir_okay=False,
    ),
]
