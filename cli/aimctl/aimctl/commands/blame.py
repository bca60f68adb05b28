"""`aimctl blame`: which version gave each field of a spec its value."""

from typing import Any

from rich.table import Table
from rich.text import Text

from aimctl.analysis.history import Blame, blame, time_text
from aimctl.analysis.spec_diff import path_text, value_text
from aimctl.connect import connected_bus
from aimctl.invocation import a_console, parse_key, run
from aimctl.options import Form
from aimctl.output.console import PlainConsole
from aimctl.output.structured import print_data
from aimctl.spec_history import read_versions
from aimschema.resources import Key
from aimschema.sanitize import printable

COLUMNS = ("FIELD", "VALUE", "SINCE", "VERSION", "MANAGER")


async def show_blame(key: Key, console: PlainConsole, form: Form) -> None:
    """Raises RuntimeError if there is no version, or if the object was deleted."""
    async with connected_bus() as bus:
        versions = await read_versions(bus, key)
    if versions[-1].deleted:
        raise RuntimeError(f"{key} was deleted at {time_text(versions[-1].since)}")
    if not versions[-1].is_whole:
        raise RuntimeError(f"the spec of {key} is too large to be recorded")
    found = blame(versions)
    if form != "text":
        print_data(console, [_as_json(each) for each in found], form)
        return
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for each in found:
        cells = (
            path_text(each.path),
            value_text(each.value),
            f"{'' if each.exact else 'before '}{time_text(each.version.since)}",
            each.version.name,
            each.version.manager or "unknown",
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(table)


def _as_json(each: Blame) -> dict[str, Any]:
    return {
        "path": path_text(each.path),
        "value": each.value,
        "version": each.version.name,
        "since": each.version.since.isoformat(),
        "exact": each.exact,
        "manager": each.version.manager,
        "operation": each.version.operation,
    }


def show(what: str, namespace: str | None, form: Form) -> None:
    console = a_console()
    run(console, show_blame(parse_key(what, namespace), console, form))
