"""Which versions of a spec are recorded."""

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_watcher import history
from aim_watcher.history import HistoryMessage, Recorded, Scope
from aim_watcher.prune import reduce_body
from aimschema.labels import PREFIX
from aimschema.messages import SpecDeleted, SpecVersion
from aimschema.resources import SERVICE, Key, key_of

KEY = Key(SERVICE.kind, "ns", "a")
SCOPE = Scope(SERVICE.kind, None)


def body(
    generation: Any = 1, version: int = 5, uid: str = "u1", name: str = "a", **more: Any
) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": str(version)}
    spec = more.pop("spec", {"replicas": generation})
    return {
        "apiVersion": SERVICE.api_version,
        "kind": SERVICE.kind,
        "metadata": metadata | {"generation": generation} | more,
        "spec": spec,
    }


def last(generation: int = 1, version: int = 5, uid: str = "u1", **more: Any) -> Recorded:
    return Recorded(uid, generation, more.get("epoch", 0), version, 7, more.get("deleted", False))


def summary(messages: list[HistoryMessage]) -> list[str]:
    return [
        f"{'deleted' if isinstance(message, SpecDeleted) else 'version'}"
        f" {message.uid}/{message.generation} @{message.resource_version}"
        for message in messages
    ]


@pytest.mark.parametrize(
    ("known", "found", "epoch", "expected"),
    [
        pytest.param(None, body(), 0, ["version u1/1 @5"], id="new"),
        pytest.param(last(), body(), 0, [], id="repeated"),
        pytest.param(last(), body(version=6), 0, [], id="a-change-of-status"),
        pytest.param(last(), body(2, 6), 0, ["version u1/2 @6"], id="another-generation"),
        pytest.param(last(), body(4, 9), 0, ["version u1/4 @9"], id="a-jump"),
        pytest.param(last(3, 9), body(2, 6), 0, [], id="a-late-event"),
        pytest.param(
            last(), body(1, 8, "u2"), 0, ["deleted u1/1 @5", "version u2/1 @8"], id="re-created"
        ),
        pytest.param(last(1, 8, "u2"), body(1, 5, "u1"), 0, [], id="an-event-of-a-predecessor"),
        pytest.param(
            last(deleted=True, version=6),
            body(1, 8, "u2"),
            0,
            ["version u2/1 @8"],
            id="after-delete",
        ),
        pytest.param(
            last(deleted=True, version=6), body(1, 5), 0, [], id="a-late-event-revives-nothing"
        ),
        pytest.param(last(7, 90), body(5, 50), 1, ["version u1/5 @50"], id="a-restored-cluster"),
        pytest.param(last(7, 90), body(7, 50), 1, [], id="a-restored-cluster-with-the-same"),
        pytest.param(None, body("x"), 0, ["version u1/0 @5"], id="a-generation-that-is-none"),
    ],
)
def test_an_object_is_recorded_once_per_generation(
    known: Recorded | None, found: dict[str, Any], epoch: int, expected: list[str]
) -> None:
    assert summary(history.plan_version(known, found, epoch)) == expected


@pytest.mark.parametrize(
    ("known", "version", "expected"),
    [
        pytest.param(last(), 6, ["deleted u1/1 @6"], id="deleted"),
        pytest.param(None, 6, [], id="never-recorded"),
        pytest.param(last(deleted=True), 6, [], id="recorded-already"),
        pytest.param(last(1, 8, "u2"), 6, [], id="a-late-delete-of-a-predecessor"),
    ],
)
def test_a_delete_is_recorded_once(
    known: Recorded | None, version: int, expected: list[str]
) -> None:
    objects = {} if known is None else {KEY: known}
    assert summary(history.plan_removed(objects, body(version=version), 0)) == expected


def test_a_list_records_what_it_lacks_as_delete_of() -> None:
    beside = Key(SERVICE.kind, "other", "b")
    known = {KEY: last(), beside: last(), Key("ModelCache", "ns", "a"): last()}
    assert summary(history.plan_listed(known, SCOPE, [body(name="c")], "9", 0)) == [
        "version u1/1 @5",
        "deleted u1/1 @9",
        "deleted u1/1 @9",
    ]
    scope = Scope(SERVICE.kind, "ns")
    assert summary(history.plan_listed(known, scope, [], "9", 0)) == ["deleted u1/1 @9"]
    assert summary(history.plan_absent(known, scope, 0)) == ["deleted u1/1 @5"]


def test_a_version_has_what_a_person_asks_for() -> None:
    fields = {
        "manager": "kubectl-edit",
        "operation": "Update",
        "time": "2030-01-02T03:04:05Z",
        "fieldsV1": {"f:spec": {}},
    }
    found = body(
        spec={"env": [{"name": "HF_TOKEN", "value": "hf_hunter2"}]},
        labels={"team": "x"},
        annotations={PREFIX + "retry": "now", "kubectl.kubernetes.io/last-applied": "hf_hunter2"},
        managedFields=[fields],
    )
    (message,) = history.plan_version(None, reduce_body(found), 3)
    digest = hashlib.sha256(b"hf_hunter2").hexdigest()
    assert message == SpecVersion(
        kind=SERVICE.kind,
        namespace="ns",
        name="a",
        uid="u1",
        generation=1,
        resource_version="5",
        spec={"env": [{"name": "HF_TOKEN", "value": f"sha256:{digest}"}]},
        labels={"team": "x"},
        annotations={PREFIX + "retry": "now"},
        manager="kubectl-edit",
        operation="Update",
        time="2030-01-02T03:04:05Z",
        epoch=3,
    )


def test_a_spec_is_cut_as_a_whole_and_marked() -> None:
    (message,) = history.plan_version(None, body(labels={"team": "x"}), 0)
    smaller = history.cut(message)
    assert isinstance(smaller, SpecVersion)
    assert (smaller.spec, smaller.truncated, smaller.labels) == ({}, ("spec",), {"team": "x"})
    smallest = history.cut(smaller)
    assert isinstance(smallest, SpecVersion)
    assert (smallest.labels, smallest.truncated[0]) == ({}, "spec")
    assert history.cut(smallest) is None


class Stream:
    """The history of one object: it compares the last sequence, as NATS does."""

    def __init__(self) -> None:
        self.messages: list[HistoryMessage] = []

    @property
    def last(self) -> Recorded | None:
        if not self.messages:
            return None
        return history.record_of(self.messages[-1], len(self.messages))

    def append(self, message: HistoryMessage, last_seq: int) -> bool:
        if last_seq != len(self.messages):
            return False
        self.messages.append(message)
        return True


class Writer:
    """A watcher. It remembers the last message, until it is killed."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.last = stream.last

    def write(self, found: dict[str, Any], *, deleted: bool, killed_after: int) -> bool:
        """Whether it still runs."""
        while True:
            known = {} if self.last is None else {KEY: self.last}
            planned = (
                history.plan_removed(known, found, 0)
                if deleted
                else history.plan_changed(known, found, 0)
            )
            for number, message in enumerate(planned):
                if number >= killed_after:
                    return False
                seq = 0 if self.last is None else self.last.seq
                if not self.stream.append(message, seq):
                    self.last = self.stream.last
                    break
                self.last = self.stream.last
            else:
                return len(planned) < killed_after


STEPS = st.lists(
    st.tuples(st.sampled_from(["edit", "edit", "status", "delete", "create"]), st.booleans()),
    min_size=1,
    max_size=12,
)


def cluster_events(steps: list[tuple[str, bool]]) -> list[tuple[dict[str, Any], bool]]:
    """What a watch delivers: bodies, and whether each is a delete."""
    events = [(body(1, 1, "u0"), False)]
    uid, generation = 0, 1
    exists = True
    for version, (step, _) in enumerate(steps, 2):
        if step == "create" and not exists:
            uid, generation = uid + 1, 1
            exists = True
        elif step == "edit" and exists:
            generation += 1
        elif step == "delete" and exists:
            exists = False
            events.append((body(generation, version, f"u{uid}"), True))
            continue
        if exists:
            events.append((body(generation, version, f"u{uid}"), False))
    return events


@given(STEPS, st.randoms(use_true_random=False), st.integers(1, 2))
@settings(max_examples=300)
def test_kills_shuffles_and_doubles_record_each_version_once(
    steps: list[tuple[str, bool]], chance: Any, watchers: int
) -> None:
    events = cluster_events(steps)
    stream = Stream()
    writers = [Writer(stream) for _ in range(watchers)]
    delivered = [event for event in events for _ in range(chance.randint(0, 2))]
    if chance.random() < 0.5:
        chance.shuffle(delivered)
    # what comes at the end is a list: the newest state
    for found, deleted in [*delivered, events[-1]]:
        before = list(stream.messages)
        place = chance.randrange(watchers)
        killed_after = chance.choice([0, 1, 99, 99])
        if not writers[place].write(found, deleted=deleted, killed_after=killed_after):
            writers[place] = Writer(stream)
        assert stream.messages[: len(before)] == before
    # who takes over reads the stream
    assert Writer(stream).write(events[-1][0], deleted=events[-1][1], killed_after=99)
    versions = [each for each in stream.messages if isinstance(each, SpecVersion)]
    places = [(each.uid, each.generation) for each in versions]
    assert places == sorted(set(places))
    assert all(key_of(body()) == Key(each.kind, each.namespace, each.name) for each in versions)
    found, deleted = events[-1]
    newest = stream.messages[-1] if stream.messages else None
    if not deleted:
        assert isinstance(newest, SpecVersion)
        assert (newest.uid, newest.generation) == (
            found["metadata"]["uid"],
            found["metadata"]["generation"],
        )
    elif newest is not None:
        assert isinstance(newest, SpecDeleted)
