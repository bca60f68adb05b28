"""The commands that look back and ahead: record and replay, timeline, explain, plan. Exit codes:
0 fine, 1 differs or failed, 2 wrong usage."""

import asyncio
import datetime
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import structlog
import typer

from aimcontroller import tracing
from aimcontroller.process import FLUSH_S
from aimctl.completing import complete_name, complete_namespace
from aimctl.console import PlainConsole
from aimctl.output import Output
from aimctl.planners import PLANNERS
from aimctl.planning import BadManifest
from aimctl.recording import BadRecording, load
from aimctl.replaying import (
    LIVE_MOST_PER_S,
    live,
    record_namespace,
    replay_and_tell,
    services_in,
    up_to,
)
from aimctl.telling import show_explanation, show_plan, show_timeline
from aimctl.words import key_of, moment, say
from aimschema.resources import Key

WIDE = 2000
INTERRUPTED = 130
"""As of what ends by SIGINT in a shell."""
T = TypeVar("T")
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace", "-n", help="The namespace of the object.", autocompletion=complete_namespace
    ),
]
Named = Annotated[
    str,
    typer.Argument(
        metavar="KIND/NAME",
        help="Such as AIMService/chat, aimsvc/chat or mc/weights.",
        autocompletion=complete_name,
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        help="Only what came later: 90s, 15m, 2h, 3d ago, or a time such as 2030-01-02T03:04:05Z.",
    ),
]


def add_to(app: typer.Typer) -> None:
    for command in (timeline, explain, plan, record, replay):
        app.command()(command)


def timeline(
    what: Named,
    namespace: Namespace = None,
    since: Since = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with every further step, until Ctrl-C.")
    ] = False,
    output: Output = "text",
) -> None:
    """What happened to an object and to all it depends on or owns: who did what, because of
    what, how long after. Exit code 1 if nothing is known."""
    console = a_console()
    shown = show_timeline(
        named(what, namespace), since_when(since), console, follow=follow, form=output
    )
    raise typer.Exit(0 if run(console, shown) else 1)


def explain(what: Named, namespace: Namespace = None, output: Output = "text") -> None:
    """What an object is waiting for, since when, how far that is, and what a person has to do.
    Exit code 1 if it has failed or does not exist."""
    console = a_console()
    raise typer.Exit(
        0 if run(console, show_explanation(named(what, namespace), console, output)) else 1
    )


def plan(
    files: Annotated[
        list[Path],
        typer.Option("--filename", "-f", help="A manifest, or a folder of them.", exists=True),
    ],
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", help="For objects that name none; left out, default."),
    ] = None,
    output: Output = "text",
) -> None:
    """What would be made and changed if these manifests were applied, as a diff. Exit code 1 if
    anything would."""
    console = a_console()
    raise typer.Exit(0 if run(console, show_plan(files, namespace, console, output)) else 1)


def record(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Whose events.")],
    file: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    since: Since = None,
) -> None:
    """A namespace's events as a file for `aimctl replay`; without literal values of environment
    variables (NATS server: AIM_NATS_URL)."""
    console = a_console()
    begin = since_when(since)
    run(console, record_namespace(namespace, begin, file, console))


def replay(  # noqa: PLR0913, PLR0917 (the options of a command)
    file: Annotated[
        Path | None, typer.Argument(help="A recording.", exists=True, dir_okay=False)
    ] = None,
    from_bus: Annotated[
        bool,
        typer.Option("--live", help="What the NATS server of AIM_NATS_URL has, instead of a file."),
    ] = False,
    service: Annotated[
        str | None,
        typer.Option("--service", help=f"One of {', '.join(PLANNERS)}; left out, all in the file."),
    ] = None,
    steps: Annotated[
        bool,
        typer.Option(
            "--step", help="Show each step: what it would do and say, and what it did and said."
        ),
    ] = False,
    until: Annotated[
        int | None, typer.Option("--until", help="Up to this sequence number.")
    ] = None,
    most_per_s: Annotated[
        float,
        typer.Option("--rate", min=1, help="With --live: read at most so many events a second."),
    ] = LIVE_MOST_PER_S,
    output: Output = "text",
) -> None:
    """Run a service's own fold and plan over what happened, changing nothing, and show where it
    would do otherwise today. Exit code 1 if so."""
    if (file is None) != from_bus:
        raise typer.BadParameter("name a file, or --live")
    if service is not None and service not in PLANNERS:
        raise typer.BadParameter(
            f"{service} is not one of {', '.join(PLANNERS)}", param_hint="--service"
        )
    if from_bus and service is None:
        raise typer.BadParameter("--live needs --service", param_hint="--service")
    console = a_console()

    async def work() -> bool:
        recording = up_to(
            load(file) if file is not None else await live(str(service), most_per_s), until
        )
        flush = tracing.configure("aimctl")
        try:
            return replay_and_tell(
                recording, services_in(recording, service), console, steps=steps, form=output
            )
        finally:
            flush(FLUSH_S)

    raise typer.Exit(0 if run(console, work()) else 1)


def a_console() -> PlainConsole:
    """On a terminal as wide as that; elsewhere nothing is cut or broken."""
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=WIDE)


def run(console: PlainConsole, work: Coroutine[Any, Any, T]) -> T:
    """Run it; what cannot be done is an error in words and exit code 1."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except (RuntimeError, BadRecording, BadManifest, OSError) as error:
        say(console, f"error: {error}", "bold red")
        raise typer.Exit(1) from error


def named(what: str, namespace: str | None) -> Key:
    try:
        return key_of(what, namespace)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="KIND/NAME") from error


def since_when(since: str | None) -> datetime.datetime | None:
    try:
        return None if since is None else moment(since, datetime.datetime.now(datetime.UTC))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from error
