"""Puts recorded specs back: reads the objects, shows the plan with what follows from it, and
writes.

1. Each write is a JSON patch that the API server accepts only for the version that was read. If
   only the status has changed meanwhile, the write is tried again. If the spec has changed, another
   user is at work: nothing more is written, and the message names the manager.
2. Writes are in the order of dependencies. A run that was interrupted left some of them undone; the
   next run plans those.
"""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from aimbus import Bus
from aimcontroller.drift import field_managers_at
from aimcontroller.projection import Projection, fold
from aimctl.analysis.history import Version
from aimctl.analysis.preview import Change, preview
from aimctl.analysis.rollback import (
    MANAGER,
    Rollback,
    Write,
    plan_rollback,
    restarts_pods,
    secret_names,
)
from aimctl.analysis.spec_diff import STYLES, canonical, lines_of, path_text
from aimctl.cluster import cluster_at
from aimctl.component_registry import PLANNERS, planner
from aimctl.event_log import latest
from aimctl.options import Form
from aimctl.output.console import PlainConsole
from aimctl.output.format import print_text
from aimctl.output.structured import print_data
from aimctl.replay.engine import missing_markers
from aimkube import (
    AlreadyExists,
    Cluster,
    Conflict,
    Invalid,
    KubeError,
    NotFound,
    describe_error,
)
from aimschema import subjects
from aimschema.resources import INFERENCE_SERVICE, RESOURCES, SECRET, Key
from aimschema.spec_change import newest_spec_change

Body = dict[str, Any]
ATTEMPTS = 20
DONE = 0
SKIPPED = 2
"""Exit codes. SKIPPED: an immutable field differs."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for. `again` is the command that continues this one."""

    kubeconfig: Path | None
    form: Form
    again: str
    write: bool
    force: bool


class Interfered(RuntimeError):
    """Another user changed an object that is to be written."""


async def put_back(
    bus: Bus, versions: Mapping[Key, Version], later: Sequence[Key], options: Options,
    console: PlainConsole,
) -> int:  # fmt: skip
    """Bring the objects back to these versions; `later` came into being afterwards. Returns the
    exit code. Raises RuntimeError."""
    async with cluster_at(options.kubeconfig) as cluster:
        live = await _read_live(cluster, [*versions, *later])
        plan = plan_rollback(versions, live, force=options.force)
        notes = [*plan.notes, *await _missing_secrets(cluster, plan)]
        follows, unknown = await _consequences(bus, plan)
        if options.form != "text":
            print_data(console, _as_json(plan, notes, follows), options.form)
        else:
            _print(plan, notes, follows, console)
            if unknown:
                print_text(console, f"what follows is not known: {unknown}", "yellow")
        if plan.managed:
            tools = ", ".join(sorted({tool for _, tool in plan.managed}))
            raise RuntimeError(
                f"{tools} manages what is to be written, and would undo it: change it there, or"
                " give --force. Nothing was written"
            )
        if options.write:
            await _write_all(cluster, plan, options, console)
        elif plan.writes and options.form == "text":
            print_text(console, f"to write this: {options.again} --yes", "bold")
    return SKIPPED if any(each.immutable for each in plan.skipped) else DONE


async def _read_live(cluster: Cluster, keys: Sequence[Key]) -> dict[Key, Body]:
    found = {}
    for key in keys:
        try:
            found[key] = await cluster.get(RESOURCES[key.kind], key.namespace, key.name)
        except NotFound:
            continue
        except KubeError as error:
            raise RuntimeError(f"{key}: {describe_error(error)}") from error
    return found


async def _missing_secrets(cluster: Cluster, plan: Rollback) -> list[str]:
    notes = []
    for write in plan.writes:
        for name in sorted(secret_names(write.spec) if write.key.namespace else ()):
            try:
                await cluster.get(SECRET, write.key.namespace, name)
            except NotFound:
                notes.append(f"{write.key} refers to Secret {name}, which does not exist")
            except KubeError:
                notes.append(f"{write.key} refers to Secret {name}, which you may not read")
    return notes


async def _consequences(bus: Bus, plan: Rollback) -> tuple[list[Change], str]:
    """What the services would do, as `aimctl plan` shows it; and why it is not known."""
    if not plan.writes:
        return [], ""
    try:
        found = await latest(
            bus, [f"{subjects.OBJECT}.>", f"{subjects.SYNCED}.>", f"{subjects.REPORT}.>"]
        )
        services = [planner(name) for name in PLANNERS]
    except RuntimeError as error:
        return [], str(error)
    missing = {kind for service in services for kind in missing_markers(service, found)}
    if missing:
        return [], f"the watcher has not yet published every {', '.join(sorted(missing))}"
    state = reduce(lambda state, event: fold(state, event.message, event.seq), found, Projection())
    bodies = [write.body for write in plan.writes]
    planned = preview(state, bodies, services, datetime.datetime.now(datetime.UTC))
    written = {write.key for write in plan.writes}
    return [change for change in planned.changes if change.key not in written], ""


def _print(
    plan: Rollback, notes: Sequence[str], follows: Sequence[Change], console: PlainConsole
) -> None:
    for write in plan.writes:
        verb = "create" if write.live is None else "write"
        print_text(console, f"{verb} {write.key}: version {write.version.name}", "bold")
        for line in lines_of(write.changes):
            print_text(console, f"  {line}", STYLES.get(line[:1], "dim"))
        for path, managers in write.takes:
            print_text(console, f"  {path_text(path)}: {', '.join(managers)} → {MANAGER}", "dim")
    for change in follows:
        print_text(console, f"then {change.who} would {_text_of(change)}")
    for note in notes:
        print_text(console, f"note: {note}", "yellow")
    for skipped in plan.skipped:
        print_text(console, f"not put back: {skipped}", "red")
    for key, tool in plan.managed:
        print_text(console, f"not written: {key} is managed by {tool}", "red")
    if not (plan.writes or plan.managed):
        print_text(console, "nothing to write")


def _text_of(change: Change) -> str:
    is_runtime = change.key.kind == INFERENCE_SERVICE.kind and change.verb == "change"
    restarts = is_runtime and restarts_pods(change.before or {}, change.after or {})
    return f"{change.verb} {change.key}{', which restarts its pods' if restarts else ''}"


def _as_json(plan: Rollback, notes: Sequence[str], follows: Sequence[Change]) -> Body:
    return {
        "writes": [
            {
                "object": str(write.key),
                "verb": "create" if write.live is None else "patch",
                "version": write.version.name,
                "spec": write.spec,
                "fields": [path_text(each.path) for each in write.changes],
                "managers": {path_text(path): list(names) for path, names in write.takes},
            }
            for write in plan.writes
        ],
        "follows": [
            {"who": each.who, "verb": each.verb, "object": str(each.key)} for each in follows
        ],
        "notes": list(notes),
        "skipped": [
            {
                "object": str(each.key),
                "path": path_text(each.path) if each.path else "",
                "reason": each.reason,
                "immutable": each.immutable,
            }
            for each in plan.skipped
        ],
        "managed": [{"object": str(key), "tool": tool} for key, tool in plan.managed],
    }


async def _write_all(
    cluster: Cluster, plan: Rollback, options: Options, console: PlainConsole
) -> None:
    for count, write in enumerate(plan.writes):
        try:
            await write_one(cluster, write)
        except Interfered as error:
            raise RuntimeError(
                f"{error}. {count} of {len(plan.writes)} objects were written before. See the new"
                f" plan: {options.again}"
            ) from error
        except KubeError as error:
            raise RuntimeError(
                f"{write.key}: {describe_error(error)}. {count} of {len(plan.writes)} objects were"
                f" written. To continue: {options.again} --yes"
            ) from error
        if options.form == "text":
            print_text(console, f"written: {write.key}", "green")


async def write_one(cluster: Cluster, write: Write) -> None:
    """Write once. Raises Interfered if the object is not as planned, and KubeError."""
    resource, key = RESOURCES[write.key.kind], write.key
    if write.live is None:
        try:
            await cluster.create(write.body, manager=MANAGER)
        except AlreadyExists:
            live = await cluster.get(resource, key.namespace, key.name)
            if canonical(live.get("spec")) != canonical(write.spec):
                raise Interfered(_interference(write, live)) from None
        return
    live = write.live
    for _ in range(ATTEMPTS):
        try:
            await cluster.json_patch(key, write.operations(live), manager=MANAGER)
        except NotFound:
            raise Interfered(f"{key} was deleted meanwhile") from None
        except (Conflict, Invalid) as error:
            live = await _read_again(cluster, write, error)
            if canonical(live.get("spec")) == canonical(write.spec):
                return
        else:
            return
    raise Interfered(f"{key} keeps changing")


async def _read_again(cluster: Cluster, write: Write, error: KubeError) -> Body:
    """The object, if its spec is as planned or as it is to be. Raises the error if the object did
    not change at all."""
    assert write.live is not None
    try:
        live = await cluster.get(RESOURCES[write.key.kind], write.key.namespace, write.key.name)
    except NotFound:
        raise Interfered(f"{write.key} was deleted meanwhile") from None
    if live["metadata"]["uid"] != write.live["metadata"]["uid"]:
        raise Interfered(f"{write.key} was deleted and created again meanwhile")
    known = {canonical(write.live.get("spec")), canonical(write.spec)}
    if canonical(live.get("spec")) not in known:
        raise Interfered(_interference(write, live))
    if isinstance(error, Invalid):
        raise error
    return live


def _interference(write: Write, live: Body) -> str:
    """Names the managers of the fields that are not as planned; times have only seconds, so the
    newest entry may be another one."""
    planned = write.spec if write.live is None else write.live.get("spec") or {}
    spec = live.get("spec") or {}
    managers = {
        manager
        for name in planned.keys() | spec.keys()
        if canonical(planned.get(name)) != canonical(spec.get(name))
        for manager in field_managers_at(live, ("spec", name), but="")
    }
    newest = newest_spec_change(live["metadata"].get("managedFields")).manager
    author = ", ".join(sorted(managers)) or newest or "an unknown manager"
    return f"{write.key} was changed by {author} meanwhile, and was not written"
