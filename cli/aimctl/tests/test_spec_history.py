"""Versions of specs: their names and times, the state of a time, differences and blame, and the
commands on a real nats-server."""

import asyncio
import datetime
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from typer.testing import CliRunner

from aimbus import (
    Appended,
    Bus,
    Event,
    NatsServer,
    append_history,
    connect,
    ensure_history,
    ensure_streams,
)
from aimbus.history import MOST_SUBJECTS
from aimctl.analysis.history import (
    States,
    blame,
    changes_between,
    find,
    headline,
    version_of,
    versions_of,
    with_predecessors,
)
from aimctl.analysis.spec_diff import ABSENT, differences, leaves, lines_of, path_text
from aimctl.app import app
from aimctl.commands.blame import show_blame
from aimctl.commands.diff import show_diff
from aimctl.commands.get import show_past
from aimctl.commands.history import forget, show_history
from aimctl.output.console import PlainConsole
from aimctl.spec_history import end_of, read_states, version_at
from aimschema.messages import SpecDeleted, SpecVersion, subject_of, timestamp
from aimschema.resources import Key

START = datetime.datetime(2030, 1, 2, 3, 0, 0, tzinfo=datetime.UTC)
KEY = Key("AIMService", "ml", "chat")


def at(minutes: float) -> datetime.datetime:
    return START + datetime.timedelta(minutes=minutes)


def message(
    generation: int, minutes: float | None, uid: str = "uid-1-of-chat", **more: Any
) -> SpecVersion:
    spec = more.pop("spec", {"replicas": generation})
    time = "" if minutes is None else timestamp(at(minutes))
    return SpecVersion(
        kind=KEY.kind,
        namespace=KEY.namespace,
        name=more.pop("name", KEY.name),
        uid=uid,
        generation=generation,
        resource_version=str(generation),
        spec=spec,
        manager=more.pop("manager", "kubectl-edit"),
        operation="Update",
        time=time,
        **more,
    )


def deletion(generation: int = 1, uid: str = "uid-1-of-chat") -> SpecDeleted:
    return SpecDeleted(
        kind=KEY.kind,
        namespace=KEY.namespace,
        name=KEY.name,
        uid=uid,
        generation=generation,
        resource_version="9",
    )


def events(*stored: tuple[SpecVersion | SpecDeleted, float]) -> list[Event]:
    """Each message with the minute in which it was recorded."""
    return [
        Event(seq, subject_of(found), found, at(minutes), (), "aim-watcher")
        for seq, (found, minutes) in enumerate(stored, 1)
    ]


LIVES = events(
    (message(1, 0), 0),
    (message(2, 10, manager="argocd-controller"), 10),
    (message(5, 20), 20),
    (deletion(5), 30),
    (message(1, 40, "uid-2-of-chat"), 40),
)


def test_versions_are_named_by_generation_and_object() -> None:
    versions = versions_of(LIVES)
    assert [version.name for version in versions] == [
        *(f"{generation}@uid-1-of" for generation in (1, 2, 5, 5)),
        "1",
    ]
    assert [version.missing for version in versions] == [0, 0, 2, 0, 0]
    assert find(versions, "2@uid-1-of").spec == {"replicas": 2}
    assert find(versions, "1").uid == "uid-2-of-chat"
    with pytest.raises(ValueError, match=r"no version '2'; recorded: 1@uid-1-of, .*, 1$"):
        find(versions, "2")


@pytest.mark.parametrize(
    ("written", "recorded", "since", "late"),
    [
        pytest.param(5, 5.01, "2030-01-02T03:05:00.600Z", "", id="soon"),
        pytest.param(1, 5, "2030-01-02T03:05:00Z", ", written 2030-01-02T03:01:00Z", id="late"),
        pytest.param(None, 5, "2030-01-02T03:05:00Z", "", id="no-time"),
        pytest.param(9, 5, "2030-01-02T03:05:00Z", "", id="skewed"),
    ],
)
def test_a_version_applies_since_its_recording(
    written: float | None, recorded: float, since: str, late: str
) -> None:
    (version,) = versions_of(events((message(1, written), recorded)))
    assert headline(version) == f"{since}  version 1  kubectl-edit (Update){late}"


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [(-1, None), (0, 1), (5, 1), (10, 2), (25, 5), (30, None), (35, None), (40, 1), (99, 1)],
)
def test_the_state_of_a_time(minutes: float, expected: int | None) -> None:
    states = States(at(minutes))
    for event in LIVES:
        states.add(event)
    version = states.at(0).get(KEY)
    assert (None if version is None else version.generation) == expected
    try:
        named = version_at(versions_of(LIVES), timestamp(at(minutes)), at(99))
    except ValueError:
        assert expected is None
    else:
        assert named == version


def test_the_changes_between_two_times() -> None:
    states = States(at(5), at(15))
    stored: list[tuple[SpecVersion | SpecDeleted, float]] = [
        (message(1, 0), 0.0),
        (message(1, 1, name="gone"), 1.0),
        (message(2, 10), 10.0),
        (message(1, 12, name="new"), 12.0),
        (message(1, 3, name="same"), 3.0),
    ]
    for event in events(*stored, (structs.replace(deletion(), name="gone"), 14.0)):
        states.add(event)
    changes = changes_between(states.at(0), states.at(1))
    assert [
        (
            change.key.name,
            change.before and change.before.generation,
            change.after and change.after.generation,
        )
        for change in changes
    ] == [("chat", 1, 2), ("gone", 1, None), ("new", None, 1)]


ENV = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param({"a": 1}, {"a": 1}, [], id="equal"),
        pytest.param({"a": 1}, {"a": 2}, ["- spec.a: 1", "+ spec.a: 2"], id="changed"),
        pytest.param({"a": 1}, {"a": True}, ["- spec.a: 1", "+ spec.a: true"], id="as-json"),
        pytest.param({"a": 1, "b": 2}, {"b": 2, "a": 1}, [], id="order-of-fields"),
        pytest.param({}, {"a": {"b": 1}}, ['+ spec.a: {"b":1}'], id="added"),
        pytest.param({"a": None}, {}, ["- spec.a: null"], id="null-is-a-value"),
        pytest.param({"env": ENV}, {"env": ENV[::-1]}, [], id="order-of-a-list-map"),
        pytest.param(
            {"env": ENV},
            {"env": [{"name": "A", "value": "3"}]},
            [
                "- spec.env.A.value: 1",
                "+ spec.env.A.value: 3",
                '- spec.env.B: {"name":"B","value":"2"}',
            ],
            id="items-by-name",
        ),
        pytest.param({"a": [1]}, {"a": [1, 2]}, ["- spec.a: [1]", "+ spec.a: [1,2]"], id="a-list"),
        pytest.param(
            {"s": "1Gi"}, {"s": "1024Mi"}, ["- spec.s: 1Gi", "+ spec.s: 1024Mi"], id="exact"
        ),
    ],
)
def test_differences(before: Any, after: Any, expected: list[str]) -> None:
    assert list(lines_of(differences(before, after))) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "name", "env"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(JSON, JSON)
def test_differences_are_mirrored(one: Any, other: Any) -> None:
    forth = {each.path: (each.before, each.after) for each in differences(one, other)}
    back = {each.path: (each.after, each.before) for each in differences(other, one)}
    assert forth.keys() == back.keys()
    assert list(differences(one, one)) == []
    assert all(before is not after or before is not ABSENT for before, after in forth.values())


def test_blame_names_the_version_of_each_field() -> None:
    versions = versions_of(
        events(
            (message(1, 0, spec={"model": "m", "replicas": 1, "env": ENV}), 0),
            (message(2, 1, spec={"model": "m", "replicas": 2, "env": ENV}, manager="a"), 1),
            (message(3, 2, spec={"model": "m", "replicas": 1, "env": ENV}, manager="b"), 2),
            (message(5, 3, spec={"model": "n", "replicas": 1, "env": ENV}, manager="c"), 3),
        )
    )
    assert [
        (path_text(each.path), each.version.manager, each.exact) for each in blame(versions)
    ] == [
        ("spec.model", "c", False),
        ("spec.replicas", "b", True),
        ("spec.env.A.name", "kubectl-edit", True),
        ("spec.env.A.value", "kubectl-edit", True),
        ("spec.env.B.name", "kubectl-edit", True),
        ("spec.env.B.value", "kubectl-edit", True),
    ]
    assert blame(versions_of(LIVES[:4])) == []


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)), min_size=1))
def test_blame_agrees_with_the_versions(specs: list[dict[str, int]]) -> None:
    versions = versions_of(
        events(*((message(n, n, spec=spec), float(n)) for n, spec in enumerate(specs, 1)))
    )
    found = blame(versions)
    assert {each.path: each.value for each in found} == dict(leaves(specs[-1]))
    for each in found:
        place = each.version.generation - 1
        value = dict(leaves(specs[place]))
        assert value[each.path] == each.value
        assert place == 0 or dict(leaves(specs[place - 1])).get(each.path) != each.value


def test_foreign_messages_are_no_versions() -> None:
    unknown = message(1, 0)
    stranger = SpecVersion(
        kind="Unknown", name="x", uid="u", generation=1, resource_version="1", spec={}
    )
    assert version_of(events((stranger, 0))[0]) is None
    assert [v.generation for v in versions_of(events((stranger, 0), (unknown, 1)))] == [1]
    (version,) = versions_of(events((message(1, None, manager=""), 0)))
    assert headline(version).endswith("version 1  unknown manager")
    assert with_predecessors([]) == []


@pytest.fixture
async def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bus]:
    """With a history of two objects."""
    server = NatsServer(tmp_path / "nats")
    await server.start()
    monkeypatch.setenv("AIM_NATS_URL", server.url)
    connected = await connect(server.url, name="aim-watcher")
    yield connected
    await connected.close()
    await server.kill()


async def record(bus: Bus, stored: Iterable[SpecVersion | SpecDeleted]) -> None:
    last: dict[str, int] = {}
    for each in stored:
        subject = subject_of(each)
        appended = [Appended(each, last.get(subject, 0))]
        [last[subject]] = await append_history(bus, appended, source="aim-watcher")


async def prepared(bus: Bus) -> datetime.datetime:
    """Returns a time before the last change."""
    await ensure_streams(bus)
    await ensure_history(bus)
    now = datetime.datetime.now(datetime.UTC)
    minutes = (now - START).total_seconds() / 60
    await record(
        bus,
        [
            message(1, minutes, spec={"replicas": 1, "model": "m"}),
            message(1, minutes, name="other", spec={"replicas": 1}),
        ],
    )
    middle = datetime.datetime.now(datetime.UTC)
    while end_of(middle) > datetime.datetime.now(datetime.UTC):  # noqa: ASYNC110 (time has no event)
        await asyncio.sleep(0)
    changed = message(2, minutes, spec={"replicas": 2, "model": "m"}, manager="argocd")
    await append_history(bus, [Appended(changed, 1)], source="aim-watcher")
    return middle


def output(console: PlainConsole) -> str:
    file = console.file
    file.seek(0)
    return file.read()


@pytest.fixture
def console(tmp_path: Path) -> PlainConsole:
    return PlainConsole(file=(tmp_path / "output").open("w+"), width=200)


async def test_history_shows_versions_and_changes(bus: Bus, console: PlainConsole) -> None:
    await prepared(bus)
    await show_history(KEY, console, "text")
    lines = [
        line.partition("Z  ")[2] if line.startswith("20") else line
        for line in output(console).splitlines()
    ]
    assert lines == [
        "version 1  kubectl-edit (Update)",
        "  first recorded version",
        "version 2  argocd (Update)",
        "  - spec.replicas: 1",
        "  + spec.replicas: 2",
    ]


async def test_history_as_json_has_the_specs(bus: Bus, console: PlainConsole) -> None:
    await prepared(bus)
    await show_history(KEY, console, "json")
    found = json.loads(output(console))
    assert [(each["version"], each["changed"], each["spec"]["replicas"]) for each in found] == [
        ("1", [], 1),
        ("2", ["spec.replicas"], 2),
    ]


async def test_diff_shows_only_what_changed(bus: Bus, console: PlainConsole) -> None:
    since = await prepared(bus)
    now = datetime.datetime.now(datetime.UTC)
    assert not await show_diff(None, "ml", (since, now), console, "text")
    assert await show_diff(Key("AIMService", "ml", "other"), "ml", (since, now), console, "text")
    assert output(console).splitlines() == [
        "AIMService/ml/chat  version 1 → 2 by argocd",
        "  - spec.replicas: 1",
        "  + spec.replicas: 2",
        "nothing changed",
    ]


async def test_states_are_the_same_looked_up_or_read(
    bus: Bus,
) -> None:
    """More objects of a kind than the server looks up at once are read in full."""
    since = await prepared(bus)
    looked_up = await read_states(bus, None, "ml", since)
    for number in range(0, MOST_SUBJECTS + 1, 100):
        names = range(number, min(number + 100, MOST_SUBJECTS + 1))
        batch = [Appended(message(1, 0, name=f"n{each}"), 0) for each in names]
        await append_history(bus, batch, source="aim-watcher")
    read = await read_states(bus, None, "ml", since)
    assert looked_up.at(0) == read.at(0)
    assert set(looked_up.at(0)) == {KEY, Key("AIMService", "ml", "other")}
    assert len(read.newest()) == MOST_SUBJECTS + 3


async def test_blame_shows_each_field(bus: Bus, console: PlainConsole) -> None:
    await prepared(bus)
    await show_blame(KEY, console, "json")
    found = json.loads(output(console))
    assert {each["path"]: each["manager"] for each in found} == {
        "spec.replicas": "argocd",
        "spec.model": "kubectl-edit",
    }


async def test_get_lists_the_specs_of_a_time(bus: Bus, console: PlainConsole) -> None:
    since = await prepared(bus)
    assert await show_past(None, "ml", since, console, "json")
    manifests = json.loads(output(console))
    assert [(each["metadata"], each["spec"]) for each in manifests] == [
        ({"name": "chat", "namespace": "ml"}, {"replicas": 1, "model": "m"}),
        ({"name": "other", "namespace": "ml"}, {"replicas": 1}),
    ]
    assert not await show_past(None, "ml", since - datetime.timedelta(hours=9), console, "text")


async def test_forget_removes_a_version_or_all(bus: Bus, console: PlainConsole) -> None:
    await prepared(bus)
    await forget(KEY, "1", console)
    await show_history(KEY, console, "json")
    with pytest.raises(RuntimeError, match="no version '7'"):
        await forget(KEY, "7", console)
    await forget(KEY, None, console)
    shown = output(console)
    assert shown.startswith("removed 1 of 2 versions of AIMService/ml/chat\n")
    assert '"version": "1"' not in shown
    assert "still has its newest spec" in shown
    with pytest.raises(RuntimeError, match="AIM_HISTORY has no version of AIMService/ml/chat"):
        await show_history(KEY, console, "text")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["history", "chat"], "KIND/NAME"),
        (["diff", "--from", "1h"], "name an object, or a namespace"),
        (["diff", "-n", "ml", "--from", "noon"], "--from"),
        (["get", "-n", "ml", "--at", "noon"], "--at"),
        (["get", "-n", "ml", "--at", "999999999999d"], "--at"),
        (["get", "-n", "ml", "--at", "1h", "-w"], "not both"),
        (["get", "pods", "-n", "ml", "--at", "1h"], "KIND"),
    ],
)
def test_wrong_usage_names_the_argument(arguments: list[str], error: str) -> None:
    shown = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert shown.exit_code == 2
    assert error in shown.output
