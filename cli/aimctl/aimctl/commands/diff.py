"""`aimctl diff`: what changed in specs between two times."""

import datetime
from collections.abc import Sequence
from typing import Any

import typer

from aimctl.analysis.history import Change, Version, changes_between
from aimctl.analysis.spec_diff import ABSENT, STYLES, differences, lines_of, path_text
from aimctl.connect import connected_bus
from aimctl.invocation import a_console, parse_key, parse_moment, run
from aimctl.options import Form
from aimctl.output.console import PlainConsole
from aimctl.output.format import print_text
from aimctl.output.structured import print_data
from aimctl.spec_history import read_states
from aimschema.resources import Key


async def show_diff(
    key: Key | None,
    namespace: str | None,
    times: tuple[datetime.datetime, datetime.datetime],
    console: PlainConsole,
    form: Form,
) -> bool:
    """True if nothing changed. Raises RuntimeError if the history cannot be read."""
    async with connected_bus() as bus:
        states = await read_states(bus, key, namespace, *times)
    changes = changes_between(states.at(0), states.at(1))
    if form != "text":
        print_data(console, [_as_json(change) for change in changes], form)
    else:
        _print(changes, console)
    return not changes


def _print(changes: Sequence[Change], console: PlainConsole) -> None:
    for change in changes:
        print_text(console, f"{change.key}  {_title(change)}", "bold")
        for line in _lines(change):
            print_text(console, f"  {line}", STYLES.get(line[:1], "dim"))
    if not changes:
        print_text(console, "nothing changed")


def _title(change: Change) -> str:
    before, after = change.before, change.after
    if after is None:
        return "deleted"
    author = f"by {after.manager}" if after.manager else "by an unknown manager"
    if before is None:
        return f"created, version {after.name} {author}"
    if before.uid != after.uid:
        return f"deleted and created again, version {after.name} {author}"
    return f"version {before.name} → {after.name} {author}"


def _lines(change: Change) -> list[str]:
    if not all(each.is_whole for each in _both(change)):
        return ["spec too large to be recorded"]
    return list(lines_of(differences(_spec(change.before), _spec(change.after))))


def _both(change: Change) -> list[Version]:
    return [each for each in (change.before, change.after) if each is not None]


def _spec(version: Version | None) -> dict[str, Any]:
    return {} if version is None else version.spec


def _as_json(change: Change) -> dict[str, Any]:
    before, after = change.before, change.after
    fields = []
    for each in differences(_spec(before), _spec(after)):
        values = {"before": each.before, "after": each.after}
        known = {name: value for name, value in values.items() if value is not ABSENT}
        fields.append({"path": path_text(each.path), **known})
    return {
        "object": str(change.key),
        "before": None if before is None else before.name,
        "after": None if after is None else after.name,
        "manager": "" if after is None else after.manager,
        "complete": all(each.is_whole for each in _both(change)),
        "fields": fields,
    }


def diff(what: str | None, namespace: str | None, start: str, end: str | None, form: Form) -> None:
    if what is None and namespace is None:
        raise typer.BadParameter("name an object, or a namespace with -n", param_hint="KIND/NAME")
    key = None if what is None else parse_key(what, namespace)
    times = (parse_moment(start, "--from"), parse_moment(end or "0s", "--to"))
    console = a_console()
    same = run(console, show_diff(key, namespace, times, console, form))
    raise typer.Exit(0 if same else 1)
