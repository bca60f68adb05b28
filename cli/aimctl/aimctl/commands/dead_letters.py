"""`aimctl dead`: list dead letters, and retry what they are about."""

import asyncio

import typer
from rich.table import Table
from rich.text import Text

from aimctl.connect import WITHIN_S, connected_bus
from aimctl.dead_letters import ListedDeadLetter, retry, unhandled_dead_letters
from aimctl.invocation import run
from aimctl.options import Form
from aimctl.output.console import PlainConsole
from aimctl.output.structured import print_data


def show(found: list[ListedDeadLetter], console: PlainConsole, form: Form) -> None:
    rows = [each.row() for each in found]
    if form != "text":
        print_data(console, rows, form)
    elif not rows:
        console.print("no dead letters")
    else:
        table = Table(*(name.upper() for name in rows[0]), box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(Text(str(value)) for value in row.values()))
        console.print(table)


async def list_dead_letters(console: PlainConsole, form: Form) -> None:
    async with connected_bus() as bus:
        show(await unhandled_dead_letters(bus), console, form)


async def retry_dead_letters(requested: list[str] | None, console: PlainConsole) -> bool:
    """`requested` are subjects; None selects all. Raises RuntimeError for a subject without a dead
    letter."""
    async with connected_bus() as bus:
        found = await unhandled_dead_letters(bus)
        known = {name for each in found for name in (each.subject, each.address)}
        if unknown := sorted(set(requested or ()) - known):
            raise RuntimeError(f"no dead letter on {', '.join(unknown)}: see aimctl dead")
        chosen = [
            each
            for each in found
            if requested is None or {each.subject, each.address} & set(requested)
        ]
        try:
            async with asyncio.timeout(WITHIN_S):
                return await retry(bus, chosen, console)
        except TimeoutError:
            raise RuntimeError(bus.trouble or "the NATS server does not accept them") from None


def dead_list(form: Form) -> None:
    console = PlainConsole()
    run(console, list_dead_letters(console, form))


def dead_retry(requested: list[str] | None) -> None:
    console = PlainConsole()
    raise typer.Exit(0 if run(console, retry_dead_letters(requested, console)) else 1)
