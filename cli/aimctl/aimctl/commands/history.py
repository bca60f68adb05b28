"""`aimctl history`: the versions of a spec, and their removal."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import typer

from aimbus import Bus, BusError, Event, forget_history, forget_version
from aimctl.analysis.effects import Effect, effects_of
from aimctl.analysis.history import Version, find, headline, with_predecessors
from aimctl.analysis.spec_diff import STYLES, differences, lines_of, path_text
from aimctl.connect import connected_bus
from aimctl.event_log import history as read_log_of
from aimctl.event_log import history_of, in_order
from aimctl.invocation import a_console, parse_key, run
from aimctl.options import Form
from aimctl.output.console import PlainConsole
from aimctl.output.format import print_text, seconds
from aimctl.output.structured import print_data
from aimctl.spec_history import read_versions
from aimschema import subjects
from aimschema.resources import Key


async def show_history(key: Key, console: PlainConsole, form: Form) -> None:
    """Raises RuntimeError if there is no version."""
    async with connected_bus() as bus:
        versions = await read_versions(bus, key)
        effects = effects_of(versions, await _log_of(bus, key))
    pairs = with_predecessors(versions)
    if form != "text":
        shown = [_as_json(*pair) | _effect_as_json(effects.get(pair[0].seq)) for pair in pairs]
        print_data(console, shown, form)
        return
    for version, before in pairs:
        print_text(console, headline(version), "red" if version.deleted else "bold")
        effect = effects.get(version.seq)
        if effect is not None and (text := effect_text(effect)):
            print_text(console, f"  → {text}")
        for line in change_lines(version, before):
            print_text(console, f"  {line}", STYLES.get(line[:1], "dim"))


async def _log_of(bus: Bus, key: Key) -> list[Event]:
    """The messages of the log that can be effects; none if the log cannot be read."""
    try:
        before, logged = await (
            read_log_of(bus, [subjects.ALL])
            if key.namespace is None
            else history_of(bus, key.namespace)
        )
    except RuntimeError:
        return []
    return in_order([*before, *logged])


def effect_text(effect: Effect) -> str:
    """What a version led to, in a line."""
    parts = []
    if effect.pods:
        verb = "restarted" if effect.restarted else "started"
        parts.append(f"{verb} {effect.pods} pod{'s' if effect.pods > 1 else ''}")
    else:
        parts += effect.actions
    if effect.ready_after_s is not None:
        parts.append(f"{seconds(effect.ready_after_s)} until {effect.state}")
    elif effect.state:
        when = "before the next version" if effect.over else "yet"
        parts.append(f"not ready {when} ({effect.state})")
    return ", ".join(parts)


def _effect_as_json(effect: Effect | None) -> dict[str, Any]:
    return {} if effect is None else {"effect": asdict(effect)}


def change_lines(version: Version, before: Version | None) -> Iterator[str]:
    """What a version changed."""
    if version.missing:
        yield f"{version.missing} versions missing before it"
    if not version.is_whole:
        yield "spec too large to be recorded"
    if before is None:
        if not version.deleted:
            yield "first recorded version"
        return
    if version.is_whole and before.is_whole and not version.deleted:
        yield from lines_of(differences(before.spec, version.spec))


def _as_json(version: Version, before: Version | None) -> dict[str, Any]:
    shared = {
        "version": version.name,
        "uid": version.uid,
        "generation": version.generation,
        "since": version.since.isoformat(),
        "written": None if version.written is None else version.written.isoformat(),
        "deleted": version.deleted,
    }
    if version.deleted:
        return shared
    return {
        **shared,
        "manager": version.manager,
        "operation": version.operation,
        "missing": version.missing,
        "truncated": list(version.truncated),
        "changed": [
            path_text(each.path)
            for each in (() if before is None else differences(before.spec, version.spec))
        ],
        "spec": version.spec,
    }


async def forget(key: Key, name: str | None, console: PlainConsole) -> None:
    """Raises RuntimeError if there is nothing to remove, or if the user may not."""
    async with connected_bus() as bus:
        versions = await read_versions(bus, key)
        try:
            count = await _remove(bus, key, versions, name)
        except (BusError, TimeoutError) as error:
            raise RuntimeError(bus.trouble or f"not removed: {error or 'no answer'}") from error
    print_text(console, f"removed {count} of {len(versions)} versions of {key}")
    if versions[-1].deleted or (name is not None and name != versions[-1].name):
        return
    print_text(
        console,
        f"{key} still has its newest spec; the watcher records it again when it next starts",
        "yellow",
    )


async def _remove(bus: Bus, key: Key, versions: Sequence[Version], name: str | None) -> int:
    if name is None:
        return await forget_history(bus, key)
    try:
        version = find(versions, name)
    except ValueError as error:
        raise RuntimeError(str(error)) from error
    await forget_version(bus, version.seq)
    return 1


def history(what: str, namespace: str | None, form: Form) -> None:
    console = a_console()
    run(console, show_history(parse_key(what, namespace), console, form))


def history_forget(what: str, namespace: str | None, version: str | None) -> None:
    console = a_console()
    run(console, forget(parse_key(what, namespace), version, console))
    raise typer.Exit(0)
