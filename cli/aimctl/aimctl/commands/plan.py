"""`aimctl plan`: what would change if manifests were applied."""

import datetime
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import typer

from aimcontroller.projection import Projection, fold
from aimctl.analysis.preview import Preview, diff, manifests, preview
from aimctl.component_registry import PLANNERS, planner
from aimctl.connect import connected_bus
from aimctl.event_log import latest
from aimctl.invocation import a_console, run
from aimctl.options import Form
from aimctl.output.console import PlainConsole
from aimctl.output.format import print_text
from aimctl.output.structured import print_data
from aimctl.replay.engine import missing_markers
from aimschema import subjects
from aimschema.resources import Key


async def show_plan(
    paths: Sequence[Path], namespace: str | None, console: PlainConsole, form: Form
) -> bool:
    """True where nothing would change. Raises BadManifest, OSError or RuntimeError."""
    desired, others = manifests(paths, namespace)
    async with connected_bus() as bus:
        found = await latest(
            bus, [f"{subjects.OBJECT}.>", f"{subjects.SYNCED}.>", f"{subjects.REPORT}.>"]
        )
    services = [planner(name) for name in PLANNERS]
    if missing := {kind for service in services for kind in missing_markers(service, found)}:
        raise RuntimeError(
            f"the watcher has not yet published every {', '.join(sorted(missing))}: what is there"
            " is not known"
        )
    state = reduce(lambda state, event: fold(state, event.message, event.seq), found, Projection())
    planned = preview(state, desired, services, datetime.datetime.now(datetime.UTC))
    if form != "text":
        print_data(console, _preview_json(planned, others), form)
    else:
        _print_preview(planned, others, console)
    return not planned.changes


def _print_preview(planned: Preview, others: Sequence[Key], console: PlainConsole) -> None:
    styles = {"create": "green", "change": "yellow", "delete": "red"}
    for change in planned.changes:
        print_text(
            console, f"{change.who} would {change.verb} {change.key}", f"bold {styles[change.verb]}"
        )
        for line_ in diff(change):
            print_text(
                console, f"  {line_}", {"+": "green", "-": "red", "@": "dim"}.get(line_[:1], "")
            )
    for key, text in planned.outlook:
        print_text(console, f"then {key}: {text}")
    if others:
        print_text(console, f"not checked: {', '.join(map(str, others))}", "dim")
    counts = {verb: sum(1 for change in planned.changes if change.verb == verb) for verb in styles}
    print_text(
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
    outlook = [{"object": str(key), "words": text} for key, text in planned.outlook]
    return {"changes": changes, "outlook": outlook, "not_looked_at": [str(key) for key in others]}


def plan(files: Sequence[Path], namespace: str | None, form: Form) -> None:
    console = a_console()
    raise typer.Exit(0 if run(console, show_plan(files, namespace, console, form)) else 1)
