"""Watching the quickstart come up: the state of its objects as they change, live on a terminal,
as plain lines elsewhere."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aimbus import Bus, follow_live
from aimctl.output.console import PlainConsole
from aimctl.output.format import progress_text
from aimkube import Cluster, Deleted, Modified, Snapshot
from aimschema import subjects
from aimschema.messages import Progress
from aimschema.reasons import PROGRESSING, READY
from aimschema.resources import CACHE, SERVICE, TEMPLATE, Resource, key_of

Body = dict[str, Any]
SHOWN = (TEMPLATE, CACHE, SERVICE)


@dataclass
class QuickstartState:
    """What is known of the namespace; `changed` is set whenever that is more than before."""

    objects: dict[tuple[str, str], Body] = field(default_factory=dict)
    progress: Progress | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def of_kind(self, resource: Resource) -> list[Body]:
        return [body for (kind, _), body in sorted(self.objects.items()) if kind == resource.kind]


def condition(body: Body, type_: str) -> Body:
    conditions = (body.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == type_), {})


def is_ready(body: Body) -> bool:
    return condition(body, READY).get("status") == "True"


def row(body: Body) -> tuple[str, str, str, str]:
    """Object, state, reason, message."""
    ready = condition(body, READY)
    return (
        str(key_of(body)),
        str((body.get("status") or {}).get("status", "…")),
        str(ready.get("reason", "")),
        str(ready.get("message", "")),
    )


def table(state: QuickstartState) -> Group:
    shown = Table(box=None, pad_edge=False)
    for name in ("object", "state", "reason", "message"):
        shown.add_column(name, overflow="fold")
    for resource in SHOWN:
        for body in state.of_kind(resource):
            working = condition(body, PROGRESSING).get("status") == "True"
            style = "yellow" if working else "red"
            if is_ready(body):
                style = "green"
            cells = row(body)
            shown.add_row(
                Text(cells[0]), Text(cells[1], style=style), Text(cells[2]), Text(cells[3])
            )
    if state.progress is None:
        return Group(shown)
    bar = ProgressBar(total=max(1, state.progress.total), completed=state.progress.bytes, width=40)
    return Group(shown, bar, Text(progress_text(state.progress)))


@asynccontextmanager
async def watching(cluster: Cluster, bus: Bus, namespace: str) -> AsyncIterator[QuickstartState]:
    """The state of the quickstart, kept current for as long as the block lasts."""
    state = QuickstartState()
    tasks = [asyncio.create_task(_watch(cluster, resource, namespace, state)) for resource in SHOWN]
    tasks.append(asyncio.create_task(_progress(bus, namespace, state)))
    try:
        yield state
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _watch(
    cluster: Cluster, resource: Resource, namespace: str, state: QuickstartState
) -> None:
    async with contextlib.aclosing(cluster.list_and_watch(resource, namespace)) as events:
        async for event in events:
            match event:
                case Snapshot(items=items):
                    for body in items:
                        state.objects[resource.kind, body["metadata"]["name"]] = body
                case Modified(body=body):
                    state.objects[resource.kind, body["metadata"]["name"]] = body
                case Deleted(body=body):
                    state.objects.pop((resource.kind, body["metadata"]["name"]), None)
                case _:
                    pass
            state.changed.set()


async def _progress(bus: Bus, namespace: str, state: QuickstartState) -> None:
    async with contextlib.aclosing(
        follow_live(bus, f"{subjects.LIVE_PROGRESS}.{CACHE.kind}.{namespace}.>")
    ) as lines:
        async for progress in lines:
            state.progress = progress
            state.changed.set()


async def show_until_ready(state: QuickstartState, service: str, console: PlainConsole) -> Body:
    """Shows what happens until the AIMService is ready, and gives it. On a terminal in place,
    elsewhere a line for each change."""
    if not console.is_terminal:
        return await _print_until_ready(state, service, console)
    with Live(table(state), console=console, refresh_per_second=10) as live:
        while (body := state.objects.get((SERVICE.kind, service))) is None or not is_ready(body):
            await state.changed.wait()
            state.changed.clear()
            live.update(table(state))
        live.update(table(state), refresh=True)
    return body


async def _print_until_ready(state: QuickstartState, service: str, console: PlainConsole) -> Body:
    printed: set[tuple[str, ...]] = set()
    while True:
        lines = [row(body) for resource in SHOWN for body in state.of_kind(resource)]
        if state.progress is not None:
            lines.append(
                (
                    f"{CACHE.kind}/{state.progress.namespace}/{state.progress.name}",
                    "",
                    "",
                    progress_text(state.progress),
                )
            )
        for line in lines:
            if line not in printed:
                printed.add(line)
                console.print("  ".join(part for part in line if part), soft_wrap=True)
        body = state.objects.get((SERVICE.kind, service))
        if body is not None and is_ready(body):
            return body
        await state.changed.wait()
        state.changed.clear()
