"""`aimctl timeline`, `aimctl explain` and `aimctl plan`: reading what there is, and showing it."""

import datetime

import typer
from rich.text import Text
from rich.tree import Tree

from aimctl.analysis.diagnosis import diagnose, diagnosis_data, running_downloads
from aimctl.analysis.object_diagnosis import Diagnosis, State
from aimctl.connect import connected_bus
from aimctl.invocation import a_console, parse_key, run
from aimctl.options import Form
from aimctl.output.console import PlainConsole
from aimctl.output.format import seconds
from aimctl.output.structured import print_data
from aimctl.state_stream import chain_state, live_progress
from aimschema.messages import timestamp
from aimschema.resources import Key
from aimschema.sanitize import printable

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


async def show_explanation(key: Key, console: PlainConsole, form: Form) -> bool:
    """False where the object has failed or does not exist."""
    async with connected_bus() as bus:
        now = datetime.datetime.now(datetime.UTC)
        state = await chain_state(bus, key, now)
        diagnosis = diagnose(state, key, now, {})
        if running := running_downloads(diagnosis):
            live = await live_progress(bus, key.namespace, until=running)
            diagnosis = diagnose(state, key, datetime.datetime.now(datetime.UTC), live)
    if form != "text":
        print_data(console, diagnosis_data(diagnosis), form)
    else:
        console.print(tree_of(diagnosis, datetime.datetime.now(datetime.UTC)))
    return diagnosis.state not in {"failed", "missing"}


def tree_of(diagnosis: Diagnosis, now: datetime.datetime) -> Tree:
    """The chain as a tree, each with what is to be done."""
    root = Tree(_label(diagnosis, now), guide_style="dim")
    if diagnosis.remedy:
        root.add(Text(printable(f"you: {diagnosis.remedy}"), style="bold"))
    for behind in diagnosis.causes:
        root.add(tree_of(behind, now))
    return root


def _label(item: Diagnosis, now: datetime.datetime) -> Text:
    text = Text(f"{MARKS[item.state]} ", style=STYLES[item.state])
    text.append(f"{item.key.kind}/{item.key.name} ", style="bold")
    text.append(printable(item.summary), style="none")
    far = [] if item.percent is None else [f"{item.percent} %"]
    if item.seconds_left is not None:
        left = seconds(item.seconds_left)
        far.append(f"next attempt in {left}" if item.percent is None else f"about {left} left")
    far += (
        []
        if item.since is None
        else [f"for {seconds((now - item.since).total_seconds())}, since {timestamp(item.since)}"]
    )
    return text.append(f" ({', '.join(far)})" if far else "", style="dim")


def explain(what: str, namespace: str | None, form: Form) -> None:
    console = a_console()
    raise typer.Exit(
        0 if run(console, show_explanation(parse_key(what, namespace), console, form)) else 1
    )
