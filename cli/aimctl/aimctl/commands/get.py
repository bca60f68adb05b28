"""`aimctl get`: a chain in each row, from the service to what it waits for."""

import datetime
from collections.abc import Sequence
from dataclasses import asdict, fields

import typer
from rich.table import Table
from rich.text import Text

from aimctl.analysis.dependencies import Row, rows
from aimctl.connect import connected_bus
from aimctl.invocation import a_console, run
from aimctl.options import Form
from aimctl.output.console import PlainConsole
from aimctl.output.format import print_text
from aimctl.output.structured import print_data, print_line
from aimctl.parsing import ROOTS, resource_of
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
    kind: str | None, namespace: str | None, form: Form, *, everywhere: bool, watch: bool
) -> None:
    root = None if kind is None else resource_of(kind)
    if kind is not None and root not in ROOTS:
        raise typer.BadParameter(
            f"{kind!r} is none of {', '.join(each.kind for each in ROOTS)}", param_hint="KIND"
        )
    if (namespace is None) != everywhere:
        raise typer.BadParameter("name a namespace with -n, or -A for all", param_hint="-n")
    console = a_console()
    run(console, show_rows(root, namespace, console, form, watch=watch))
