"""`aimctl timeline`, `aimctl explain` and `aimctl plan`: reading what there is, and showing it."""

import asyncio
import contextlib
import datetime
from collections import defaultdict
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from rich.text import Text
from rich.tree import Tree

import aimbus
from aimbus import Bus, Event
from aimcontroller.projection import Projection, fold
from aimctl.console import PlainConsole
from aimctl.dead import reached
from aimctl.explain import State, Told, explain
from aimctl.output import Form, print_data, print_line
from aimctl.planners import PLANNERS, planner
from aimctl.planning import Preview, diff, manifests, preview
from aimctl.recording import history, history_of, in_order, latest, rests_on
from aimctl.replay import missing_markers
from aimctl.timeline import Entry, settled, timeline
from aimctl.words import say, seconds
from aimschema import subjects
from aimschema.messages import Progress, timestamp
from aimschema.reasons import FAILURE, FILLED
from aimschema.resources import CACHE, Key
from aimschema.sanitize import printable

HEARD_S = 1.5
"""How long live progress is listened for: the downloader says something every second."""
STYLES: dict[State, str] = {
    "ready": "green",
    "working": "cyan",
    "waiting": "yellow",
    "failed": "bold red",
    "missing": "bold red",
}
MARKS: dict[State, str] = {
    "ready": "✓",
    "working": "…",
    "waiting": "…",
    "failed": "✗",
    "missing": "✗",
}


async def show_timeline(
    key: Key, since: datetime.datetime | None, console: PlainConsole, *, follow: bool, form: Form
) -> bool:
    """False where nothing is known of the object."""
    async with reached() as bus:
        filters = [subjects.ALL] if key.namespace is None else subjects.within(key.namespace)
        before, logged = await (
            history(bus, filters) if key.namespace is None else history_of(bus, key.namespace)
        )
        events = in_order([*before, *logged])
        entries = [entry for entry in timeline(events, key) if since is None or entry.time >= since]
        if form != "text" and not follow:
            print_data(console, [_entry_json(entry) for entry in entries], form)
        elif form != "text":
            for entry in entries:
                print_line(console, _entry_json(entry), form)
        elif entries:
            console.print(tree(key, entries))
        elif not follow:
            say(
                console,
                f"nothing is known of {key}{'' if since is None else ' since then'}",
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
    told = {entry.seq for entry in settled(events, key)}
    async with contextlib.aclosing(
        aimbus.read_log(
            bus, filters, after_seq=max((e.seq for e in events), default=0), follow=True
        )
    ) as items:
        async for item in items:
            if isinstance(item, Event):
                events.append(item)
                for entry in settled(events, key):
                    if entry.seq not in told:
                        told.add(entry.seq)
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


async def show_explanation(key: Key, console: PlainConsole, form: Form) -> bool:
    """False where the object has failed or does not exist."""
    async with reached() as bus:
        seen = await picture(bus, key.namespace)
        filling = any(
            not cache.holds(FILLED) and not cache.holds(FAILURE)
            for cache in seen.everywhere(CACHE.kind)
        )
        live = await heard(bus, key.namespace) if filling else {}
    told = explain(seen, key, datetime.datetime.now(datetime.UTC), live)
    if form != "text":
        print_data(console, told_data(told), form)
    else:
        console.print(words_of(told, datetime.datetime.now(datetime.UTC)))
    return told.state not in {"failed", "missing"}


async def picture(bus: Bus, namespace: str | None) -> Projection:
    """The objects of a namespace and of cluster-scoped kinds as they are, and its gateways.
    Raises RuntimeError where there is no stream to read."""
    found = await latest(bus, [subjects.ALL] if namespace is None else subjects.within(namespace))
    elsewhere = [] if namespace is None else rests_on(found, namespace)
    found += await latest(bus, elsewhere) if elsewhere else []
    return reduce(lambda seen, event: fold(seen, event.message, event.seq), found, Projection())


async def heard(bus: Bus, namespace: str | None, for_s: float = HEARD_S) -> dict[Key, Progress]:
    """The latest progress of each download, as far as something is said just now."""
    found: dict[Key, Progress] = {}
    with contextlib.suppress(TimeoutError):
        async with (
            asyncio.timeout(for_s),
            contextlib.aclosing(
                aimbus.follow_live(
                    bus, f"{subjects.LIVE_PROGRESS}.{CACHE.kind}.{namespace or '*'}.>"
                )
            ) as lines,
        ):
            async for progress in lines:
                found[Key(progress.kind, progress.namespace, progress.name)] = progress
    return found


def words_of(told: Told, now: datetime.datetime) -> Tree:
    """The chain as a tree, each with what is to be done."""
    root = Tree(_label(told, now), guide_style="dim")
    if told.to_do:
        root.add(Text(printable(f"you: {told.to_do}"), style="bold"))
    for behind in told.because:
        root.add(words_of(behind, now))
    return root


def _label(told: Told, now: datetime.datetime) -> Text:
    text = Text(f"{MARKS[told.state]} ", style=STYLES[told.state])
    text.append(f"{told.key.kind}/{told.key.name} ", style="bold")
    text.append(printable(told.words), style="none")
    far = [] if told.percent is None else [f"{told.percent} %"]
    far += (
        []
        if told.seconds_left is None or told.percent is None
        else [f"about {seconds(told.seconds_left)} left"]
    )
    far += (
        []
        if told.since is None
        else [f"for {seconds((now - told.since).total_seconds())}, since {timestamp(told.since)}"]
    )
    return text.append(f" ({', '.join(far)})" if far else "", style="dim")


def told_data(told: Told) -> dict[str, Any]:
    return {
        "object": str(told.key),
        "state": told.state,
        "reason": told.reason,
        "words": told.words,
        "since": None if told.since is None else timestamp(told.since),
        "percent": told.percent,
        "seconds_left": told.seconds_left,
        "to_do": told.to_do,
        "because": [told_data(behind) for behind in told.because],
    }


async def show_plan(
    paths: Sequence[Path], namespace: str | None, console: PlainConsole, form: Form
) -> bool:
    """True where nothing would change. Raises BadManifest, OSError or RuntimeError."""
    wanted, others = manifests(paths, namespace)
    async with reached() as bus:
        found = await latest(
            bus, [f"{subjects.OBJECT}.>", f"{subjects.SYNCED}.>", f"{subjects.REPORT}.>"]
        )
    services = [planner(name) for name in PLANNERS]
    if missing := {kind for service in services for kind in missing_markers(service, found)}:
        raise RuntimeError(
            f"the watcher has not yet published every {', '.join(sorted(missing))}: what is there"
            " is not known"
        )
    seen = reduce(
        lambda picture, event: fold(picture, event.message, event.seq), found, Projection()
    )
    planned = preview(seen, wanted, services, datetime.datetime.now(datetime.UTC))
    if form != "text":
        print_data(console, _preview_json(planned, others), form)
    else:
        _tell_preview(planned, others, console)
    return not planned.changes


def _tell_preview(planned: Preview, others: Sequence[Key], console: PlainConsole) -> None:
    styles = {"create": "green", "change": "yellow", "delete": "red"}
    for change in planned.changes:
        say(
            console, f"{change.who} would {change.verb} {change.key}", f"bold {styles[change.verb]}"
        )
        for line_ in diff(change):
            say(console, f"  {line_}", {"+": "green", "-": "red", "@": "dim"}.get(line_[:1], ""))
    for key, words in planned.outlook:
        say(console, f"then {key}: {words}")
    if others:
        say(console, f"not looked at: {', '.join(map(str, others))}", "dim")
    counts = {verb: sum(1 for change in planned.changes if change.verb == verb) for verb in styles}
    say(
        console,
        ", ".join(f"{count} to {verb}" for verb, count in counts.items() if count)
        or "nothing would change",
        "bold",
    )


def _preview_json(planned: Preview, others: Sequence[Key]) -> dict[str, Any]:
    changes = [
        {"who": c.who, "verb": c.verb, "object": str(c.key), "before": c.before, "after": c.after}
        for c in planned.changes
    ]
    outlook = [{"object": str(key), "words": words} for key, words in planned.outlook]
    return {"changes": changes, "outlook": outlook, "not_looked_at": [str(key) for key in others]}
