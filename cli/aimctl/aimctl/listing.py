"""`aimctl get`: a chain in each row, from the service to what it waits for."""

import datetime
from collections.abc import Sequence
from dataclasses import asdict, fields

from rich.table import Table
from rich.text import Text

from aimctl.chains import Row, rows
from aimctl.console import PlainConsole
from aimctl.dead import reached
from aimctl.output import Form, print_data, print_line
from aimctl.pictures import Pictures, watched
from aimctl.words import say
from aimschema.resources import Resource

COLUMNS = [field.name.upper() for field in fields(Row)]


async def show_rows(
    root: Resource | None, namespace: str | None, console: PlainConsole, form: Form, *, watch: bool
) -> None:
    """`watch`: every row, then each that is new or has changed, until cancelled. Raises
    RuntimeError where there is no bus or no stream to read."""
    known: Sequence[Row] = ()
    async with reached() as bus, watched(bus) as pictures:
        shown = await _look(pictures, root, namespace)
        if not watch:
            _show(shown, console, form)
        while watch:
            for row in shown:
                if row not in known:
                    _show_one(row, console, form)
            known, shown = shown, await _look(pictures, root, namespace)


async def _look(pictures: Pictures, root: Resource | None, namespace: str | None) -> list[Row]:
    seen = await pictures.next()
    assert seen is not None  # without a limit it waits
    return rows(seen, root, namespace, datetime.datetime.now(datetime.UTC))


def _show(shown: Sequence[Row], console: PlainConsole, form: Form) -> None:
    if form != "text":
        print_data(console, [asdict(row) for row in shown], form)
    elif not shown:
        say(console, "nothing found")
    else:
        table = Table(*COLUMNS, box=None, pad_edge=False)
        for row in shown:
            table.add_row(*(Text(value) for value in asdict(row).values()))
        console.print(table)


def _show_one(row: Row, console: PlainConsole, form: Form) -> None:
    if form != "text":
        print_line(console, asdict(row), form)
    else:
        say(console, "  ".join(value for value in asdict(row).values() if value))
