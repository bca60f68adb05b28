"""`aimctl get`: a chain in each row, from the service to what it waits for."""

import datetime
from collections.abc import Sequence
from dataclasses import asdict, fields

import typer
from rich.table import Table
from rich.text import Text

from aimctl.analysis.cache_row import CacheRow
from aimctl.analysis.dependencies import Row, rows
from aimctl.analysis.history import time_text
from aimctl.cache_table import cache_table
from aimctl.connect import connected_bus
from aimctl.invocation import a_console, parse_moment, run
from aimctl.options import Form
from aimctl.output.console import PlainConsole
from aimctl.output.format import print_text
from aimctl.output.structured import print_data, print_line
from aimctl.parsing import ROOTS, resource_of
from aimctl.spec_history import in_kind, read_states
from aimctl.state_stream import StateStream, watched_states
from aimschema.resources import AIM_KINDS, CACHE, Resource
from aimschema.sanitize import printable

COLUMNS = [field.name.upper() for field in fields(Row)]


async def show_rows(
    root: Resource | None, namespace: str | None, console: PlainConsole, form: Form, *, watch: bool
) -> None:
    """`watch`: every row, then each that is new or has changed, until cancelled. Raises
    RuntimeError where there is no bus or no stream to read."""
    known: Sequence[Row | CacheRow] = ()
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
) -> Sequence[Row | CacheRow]:
    state = await states.next()
    assert state is not None  # without a limit it waits
    if root == CACHE:
        from aimctl.analysis.cache_storage import cache_rows  # noqa: PLC0415 (takes long to import)

        return cache_rows(state, namespace)
    return rows(state, root, namespace, datetime.datetime.now(datetime.UTC))


def _show(shown: Sequence[Row | CacheRow], console: PlainConsole, form: Form) -> None:
    if form != "text":
        print_data(console, [asdict(row) for row in shown], form)
    elif not shown:
        print_text(console, "nothing found")
    else:
        console.print(_table(shown))


def _table(shown: Sequence[Row | CacheRow]) -> Table:
    caches = [row for row in shown if isinstance(row, CacheRow)]
    if caches:
        return cache_table(caches)
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for row in shown:
        table.add_row(*(Text(value) for value in asdict(row).values()))
    return table


def _show_one(row: Row | CacheRow, console: PlainConsole, form: Form) -> None:
    if form != "text":
        print_line(console, asdict(row), form)
    else:
        print_text(console, "  ".join(value for value in asdict(row).values() if value))


async def show_past(
    kind: Resource | None,
    namespace: str | None,
    at: datetime.datetime,
    console: PlainConsole,
    form: Form,
) -> bool:
    """The objects that existed at a time; False if there were none. Raises RuntimeError."""
    async with connected_bus() as bus:
        states = await read_states(bus, None, namespace, at)
    found = in_kind(states.at(0), None if kind is None else kind.kind)
    versions = [found[key] for key in sorted(found, key=str)]
    if form != "text":
        print_data(console, [version.manifest for version in versions], form)
    elif not versions:
        print_text(console, "nothing found")
    else:
        table = Table("OBJECT", "VERSION", "SINCE", "MANAGER", box=None, pad_edge=False)
        for each in versions:
            cells = (str(each.key), each.name, time_text(each.since), each.manager or "unknown")
            table.add_row(*(Text(printable(cell)) for cell in cells))
        console.print(table)
    return bool(versions)


def get_past(kind: str | None, namespace: str | None, at: str, form: Form) -> None:
    """`namespace` None: of all."""
    resource = None if kind is None else resource_of(kind)
    if kind is not None and resource not in AIM_KINDS:
        raise typer.BadParameter(
            f"{kind!r} is none of {', '.join(each.kind for each in AIM_KINDS)}", param_hint="KIND"
        )
    console = a_console()
    past = show_past(resource, namespace, parse_moment(at, "--at"), console, form)
    raise typer.Exit(0 if run(console, past) else 1)


def get(kind: str | None, namespace: str | None, form: Form, *, watch: bool) -> None:
    """`namespace` None: of all."""
    root = None if kind is None else resource_of(kind)
    if kind is not None and root not in ROOTS:
        raise typer.BadParameter(
            f"{kind!r} is none of {', '.join(each.kind for each in ROOTS)}", param_hint="KIND"
        )
    console = a_console()
    run(console, show_rows(root, namespace, console, form, watch=watch))
