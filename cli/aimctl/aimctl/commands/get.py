"""`aimctl get`: a chain in each row, from the service to what it waits for."""

import datetime
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from aimctl.analysis.dependencies import ROOTS, Row, rows
from aimctl.completion import complete_root
from aimctl.connect import connected_bus
from aimctl.options import Namespace, a_console, run
from aimctl.output.console import PlainConsole
from aimctl.output.format import print_text
from aimctl.output.structured import Form, Output, print_data, print_line
from aimctl.parsing import resource_of
from aimctl.state_stream import StateStream, watched_states
from aimschema.resources import Resource

COLUMNS = [field.name.upper() for field in fields(Row)]


async def show_rows(
    root: Resource | None, namespace: str | None, console: PlainConsole, form: Form, *, watch: bool
) -> None:
    """`watch`: every row, then each that is new or has changed, until cancelled. Raises
    RuntimeError where there is no bus or no stream to read."""
    known: Sequence[Row] = ()
    async with connected_bus() as bus, watched_states(bus) as states:
        shown = await _current_rows(states, root, namespace)
        if not watch:
            _show(shown, console, form)
        while watch:
            for row in shown:
                if row not in known:
                    _show_one(row, console, form)
            known, shown = shown, await _current_rows(states, root, namespace)


async def _current_rows(
    states: StateStream, root: Resource | None, namespace: str | None
) -> list[Row]:
    state = await states.next()
    assert state is not None  # without a limit it waits
    return rows(state, root, namespace, datetime.datetime.now(datetime.UTC))


def _show(shown: Sequence[Row], console: PlainConsole, form: Form) -> None:
    if form != "text":
        print_data(console, [asdict(row) for row in shown], form)
    elif not shown:
        print_text(console, "nothing found")
    else:
        table = Table(*COLUMNS, box=None, pad_edge=False)
        for row in shown:
            table.add_row(*(Text(value) for value in asdict(row).values()))
        console.print(table)


def _show_one(row: Row, console: PlainConsole, form: Form) -> None:
    if form != "text":
        print_line(console, asdict(row), form)
    else:
        print_text(console, "  ".join(value for value in asdict(row).values() if value))


def get(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help="Resource kind, for example aimsvc. Default: services and unused resources.",
            autocompletion=complete_root,
        ),
    ] = None,
    namespace: Namespace = None,
    everywhere: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="List all namespaces.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", "-w", help="Watch for changes until Ctrl-C."),
    ] = False,
    output: Output = "text",
) -> None:
    """List services, templates, models and caches with what they wait for; one dependency chain per
    row."""
    root = None if kind is None else resource_of(kind)
    if kind is not None and root not in ROOTS:
        raise typer.BadParameter(
            f"{kind!r} is none of {', '.join(each.kind for each in ROOTS)}", param_hint="KIND"
        )
    if (namespace is None) != everywhere:
        raise typer.BadParameter("name a namespace with -n, or -A for all", param_hint="-n")
    console = a_console()
    run(console, show_rows(root, namespace, console, output, watch=watch))
