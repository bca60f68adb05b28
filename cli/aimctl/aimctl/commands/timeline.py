"""`aimctl timeline`: what happened to an object and to all it depends on or owns."""

import contextlib
import datetime
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import typer
from rich.text import Text
from rich.tree import Tree

import aimbus
from aimbus import Bus, Event
from aimctl.analysis.timeline import Entry, build_timeline, without_unconfirmed_writes
from aimctl.connect import connected_bus
from aimctl.event_log import history, history_of, in_order
from aimctl.invocation import a_console, parse_key, run, since_when
from aimctl.options import Form
from aimctl.output.console import PlainConsole
from aimctl.output.format import print_text, seconds
from aimctl.output.structured import print_data, print_line
from aimschema import subjects
from aimschema.resources import Key
from aimschema.sanitize import printable


async def show_timeline(
    key: Key, since: datetime.datetime | None, console: PlainConsole, *, follow: bool, form: Form
) -> bool:
    """False where no events of the object."""
    async with connected_bus() as bus:
        filters = [subjects.ALL] if key.namespace is None else subjects.in_namespace(key.namespace)
        before, logged = await (
            history(bus, filters) if key.namespace is None else history_of(bus, key.namespace)
        )
        events = in_order([*before, *logged])
        entries = [
            entry for entry in build_timeline(events, key) if since is None or entry.time >= since
        ]
        if form != "text" and not follow:
            print_data(console, [_entry_json(entry) for entry in entries], form)
        elif form != "text":
            for entry in entries:
                print_line(console, _entry_json(entry), form)
        elif entries:
            console.print(tree(key, entries))
        elif not follow:
            print_text(
                console,
                f"no events of {key}{'' if since is None else ' since then'}",
                "bold red",
            )
        if follow:
            await _follow(bus, filters, key, events, console, form)
    return bool(entries)


async def _follow(
    bus: Bus,
    filters: Sequence[str],
    key: Key,
    events: list[Event],
    console: PlainConsole,
    form: Form,
) -> None:
    """Every further step as it comes, a line each; until cancelled."""
    printed = {entry.seq for entry in without_unconfirmed_writes(events, key)}
    async with contextlib.aclosing(
        aimbus.read_log(
            bus, filters, after_seq=max((e.seq for e in events), default=0), follow=True
        )
    ) as items:
        async for item in items:
            if isinstance(item, Event):
                events.append(item)
                for entry in without_unconfirmed_writes(events, key):
                    if entry.seq not in printed:
                        printed.add(entry.seq)
                        if form != "text":
                            print_line(console, _entry_json(entry), form)
                        else:
                            console.print(line(entry), soft_wrap=True)


def tree(key: Key, entries: Sequence[Entry]) -> Tree:
    """What led to what. A step that alone follows from another stands below it, not inside:
    depth shows where ways part."""
    followed: defaultdict[int | None, list[Entry]] = defaultdict(list)
    known = {entry.seq for entry in entries}
    for entry in entries:
        followed[entry.cause if entry.cause in known else None].append(entry)
    root = Tree(Text(str(key), style="bold"), guide_style="dim")
    open_ = [(root, entry) for entry in reversed(followed[None])]
    while open_:
        branch, entry = open_.pop()
        node = branch.add(line(entry))
        below = followed[entry.seq]
        open_ += [(branch if len(below) == 1 else node, each) for each in reversed(below)]
    return root


def line(entry: Entry) -> Text:
    after = "" if entry.cause is None else f" +{seconds(entry.after_s)}"
    text = Text(f"{entry.seq:>4} {entry.time.strftime('%H:%M:%S.%f')[:-3]}{after}", style="dim")
    text.append(f" epoch {entry.epoch}" if entry.epoch else "")
    text.append(f"  {entry.who}", style="not dim bold")
    text.append(printable(f"  {entry.key.kind}/{entry.key.name} {entry.what}"), style="not dim")
    return text.append(printable(f"  {entry.why}") if entry.why else "", style="italic not dim")


def _entry_json(entry: Entry) -> dict[str, Any]:
    return {
        "seq": entry.seq,
        "time": entry.time.isoformat(),
        "who": entry.who,
        "object": str(entry.key),
        "what": entry.what,
        "why": entry.why,
        "cause": entry.cause,
        "after_s": round(entry.after_s, 3),
        "epoch": entry.epoch,
    }


def timeline(
    what: str, namespace: str | None, since: str | None, form: Form, *, follow: bool
) -> None:
    console = a_console()
    shown = show_timeline(
        parse_key(what, namespace), since_when(since), console, follow=follow, form=form
    )
    raise typer.Exit(0 if run(console, shown) else 1)
