"""`aimctl timeline`, `aimctl explain` and `aimctl plan`: reading what there is, and showing it."""

import datetime

import typer
from rich.text import Text
from rich.tree import Tree

from aimctl.analysis.diagnosis import State, Told, diagnose, told_data
from aimctl.connect import connected_bus
from aimctl.options import Named, Namespace, a_console, named, run
from aimctl.output.console import PlainConsole
from aimctl.output.format import seconds
from aimctl.output.structured import Form, Output, print_data
from aimctl.state_stream import live_progress, namespace_state
from aimschema.messages import timestamp
from aimschema.reasons import FAILURE, FILLED
from aimschema.resources import CACHE, Key
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
        state = await namespace_state(bus, key.namespace)
        filling = any(
            not cache.holds(FILLED) and not cache.holds(FAILURE)
            for cache in state.everywhere(CACHE.kind)
        )
        live = await live_progress(bus, key.namespace) if filling else {}
    told = diagnose(state, key, datetime.datetime.now(datetime.UTC), live)
    if form != "text":
        print_data(console, told_data(told), form)
    else:
        console.print(words_of(told, datetime.datetime.now(datetime.UTC)))
    return told.state not in {"failed", "missing"}


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
    if told.seconds_left is not None:
        left = seconds(told.seconds_left)
        far.append(f"next attempt in {left}" if told.percent is None else f"about {left} left")
    far += (
        []
        if told.since is None
        else [f"for {seconds((now - told.since).total_seconds())}, since {timestamp(told.since)}"]
    )
    return text.append(f" ({', '.join(far)})" if far else "", style="dim")


def explain(what: Named, namespace: Namespace = None, output: Output = "text") -> None:
    """Explain what an object waits for, since when, and what you need to do. Exits 1 if it has
    failed or does not exist."""
    console = a_console()
    raise typer.Exit(
        0 if run(console, show_explanation(named(what, namespace), console, output)) else 1
    )
