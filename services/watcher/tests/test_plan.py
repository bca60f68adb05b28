"""Which messages bring the bus level with the cluster."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_watcher import plan
from aim_watcher.plan import Outgoing
from aim_watcher.projection import NOTHING, PublishedObjects, fold, live_object
from aim_watcher.prune import reduce_body
from aimcontroller.projection import Projection
from aimcontroller.projection import fold as service_fold
from aimschema.labels import PREFIX
from aimschema.messages import KindSynced, ObjectChanged, ObjectDeleted
from aimschema.published import limit_bytes, size_bytes
from aimschema.resources import AIM_KINDS, CACHE, JOB, TEMPLATE, WATCHED, Key, Resource, key_of


def body(name: str = "c", version: int = 5, uid: str = "u1") -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": str(version)}
    return {"apiVersion": CACHE.api_version, "kind": CACHE.kind, "metadata": metadata}


def on_the_bus(*bodies: dict[str, Any]) -> PublishedObjects:
    known = NOTHING
    for object_ in bodies:
        for message in plan.plan_changed(known, object_):
            assert isinstance(message, ObjectChanged)
            known = fold(known, message, len(known) + 1)
    return known


def summaries(messages: list[Outgoing]) -> list[str]:
    return [summary_of(message) for message in messages]


def summary_of(message: Outgoing) -> str:
    match message:
        case ObjectChanged(name=name, uid=uid, resource_version=version):
            return f"changed {name} {uid} @{version}"
        case ObjectDeleted(name=name, uid=uid, resource_version=version):
            return f"deleted {name} {uid} @{version}"
        case KindSynced(objects=objects, resource_version=version, installed=installed):
            return f"synced {objects} @{version}" if installed else "not installed"


KNOWN = [body("c", 5)]


@pytest.mark.parametrize(
    ("known", "listed", "expected"),
    [
        pytest.param([], [], ["synced 0 @9"], id="empty-cluster"),
        pytest.param([], [body()], ["changed c u1 @5", "synced 1 @9"], id="new"),
        pytest.param(KNOWN, [body()], ["synced 1 @9"], id="nothing-happened"),
        pytest.param(
            KNOWN, [body(version=6)], ["changed c u1 @6", "synced 1 @9"], id="changed-meanwhile"
        ),
        pytest.param(KNOWN, [], ["deleted c u1 @9", "synced 0 @9"], id="deleted-meanwhile"),
        pytest.param(
            KNOWN,
            [body(version=8, uid="u2")],
            ["deleted c u1 @5", "changed c u2 @8", "synced 1 @9"],
            id="made-again-meanwhile",
        ),
        pytest.param(
            KNOWN, [body(version=4)], ["synced 1 @9"], id="older-version-of-the-same-object"
        ),
        pytest.param(
            KNOWN,
            [body(version=3, uid="u2")],
            ["deleted c u1 @5", "changed c u2 @3", "synced 1 @9"],
            id="another-cluster",
        ),
        pytest.param(
            KNOWN,
            [body("d", 7)],
            ["changed d u1 @7", "deleted c u1 @9", "synced 1 @9"],
            id="one-for-another",
        ),
    ],
)
def test_a_list(
    known: list[dict[str, Any]], listed: list[dict[str, Any]], expected: list[str]
) -> None:
    assert summaries(plan.plan_listed(on_the_bus(*known), CACHE, listed, "9")) == expected


@pytest.mark.parametrize(
    ("known", "change", "expected"),
    [
        pytest.param([], body(), ["changed c u1 @5"], id="new"),
        pytest.param(KNOWN, body(version=6), ["changed c u1 @6"], id="newer"),
        pytest.param(KNOWN, body(), [], id="repeated"),
        pytest.param(KNOWN, body(version=4), [], id="older"),
        pytest.param(
            KNOWN, body(version=10), ["changed c u1 @10"], id="versions-are-numbers-not-text"
        ),
        pytest.param(
            KNOWN,
            body(version=6, uid="u2"),
            ["deleted c u1 @5", "changed c u2 @6"],
            id="made-again",
        ),
        pytest.param(KNOWN, body(version=4, uid="u0"), [], id="late-event-of-a-predecessor"),
    ],
)
def test_a_change(known: list[dict[str, Any]], change: dict[str, Any], expected: list[str]) -> None:
    assert summaries(plan.plan_changed(on_the_bus(*known), change)) == expected


@pytest.mark.parametrize(
    ("known", "removed", "expected"),
    [
        pytest.param(KNOWN, body(version=6), ["deleted c u1 @6"], id="deleted"),
        pytest.param(
            KNOWN, body(version=5), ["deleted c u1 @5"], id="deleted-in-the-version-known"
        ),
        pytest.param(KNOWN, body(version=4), [], id="late-event"),
        pytest.param([], body(), [], id="never-published"),
        pytest.param(
            KNOWN, body(version=8, uid="u2"), ["deleted c u1 @8"], id="a-successor-no-one-saw"
        ),
    ],
)
def test_a_removal(
    known: list[dict[str, Any]], removed: dict[str, Any], expected: list[str]
) -> None:
    assert summaries(plan.plan_removed(on_the_bus(*known), removed)) == expected


def with_manager(manager: str) -> dict[str, Any]:
    """An object whose spec this manager changed last."""
    fields = {"manager": manager, "operation": "Update", "fieldsV1": {"f:spec": {"f:size": {}}}}
    found = body(version=6)
    found["metadata"]["managedFields"] = [fields | {"time": "2030-01-02T03:04:05Z"}]
    return found


@pytest.mark.parametrize("reduce", [dict, reduce_body], ids=["whole", "reduced-on-arrival"])
def test_a_change_names_the_manager_of_the_spec(
    reduce: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    arrived = reduce(with_manager("kubectl-edit"))
    listed = plan.plan_listed(on_the_bus(*KNOWN), CACHE, [arrived], "9")[0]
    (changed,) = plan.plan_changed(on_the_bus(*KNOWN), arrived)
    for message in (listed, changed):
        assert isinstance(message, ObjectChanged)
        assert (message.manager, message.operation, message.time) == (
            "kubectl-edit",
            "Update",
            "2030-01-02T03:04:05Z",
        )
        assert "managedFields" not in message.object["metadata"]


def test_a_message_without_a_manager_is_not_replaced() -> None:
    """An upgrade from a release without managers publishes nothing a second time."""
    known = on_the_bus(body(version=6))
    assert summaries(plan.plan_listed(known, CACHE, [with_manager("kubectl")], "9")) == [
        "synced 1 @9"
    ]


def test_what_replaces_a_hidden_message_names_the_manager() -> None:
    known = on_the_bus(with_manager("kubectl-edit"))
    message = plan.plan_hidden(known, key_of(body()))
    assert isinstance(message, ObjectChanged)
    assert message.manager == "kubectl-edit"


def test_a_delete_only_identifies_its_object() -> None:
    (message,) = plan.plan_removed(
        on_the_bus(body()), body(version=6) | {"status": {"phase": "last"}}
    )
    assert isinstance(message, ObjectDeleted)
    assert message.object == body(version=6)


def test_a_delete_found_by_a_list_only_identifies_its_object() -> None:
    messages = plan.plan_listed(on_the_bus(body() | {"spec": {"big": "x"}}), CACHE, [], "9")
    assert [message.object for message in messages if isinstance(message, ObjectDeleted)] == [
        body()
    ]


@pytest.mark.parametrize("resource", WATCHED, ids=lambda resource: resource.kind)
@pytest.mark.parametrize(
    "field",
    [
        "metadata.annotations",
        "metadata.labels",
        "metadata.ownerReferences",
        "spec",
        "status",
        "data",
        "spec.listeners",
    ],
)
def test_no_object_takes_more_than_its_share_of_the_bus(resource: Resource, field: str) -> None:
    """Beside a spec of an AIM kind, which is published whole."""
    object_: dict[str, Any] = {
        "kind": resource.kind,
        "metadata": {
            "name": "n",
            "uid": "u",
            "resourceVersion": "1",
            "ownerReferences": [{"kind": TEMPLATE.kind, "uid": "o"}],
        },
    }
    *above, last = field.split(".")
    place: dict[str, Any] = object_.setdefault(above[0], {}) if above else object_
    bulk = {f"{PREFIX}{number}": "\N{PILE OF POO}" * 1000 for number in range(200)} | {
        "result.json": "x" * 900_000,
        "image": "x" * 900_000,
    }
    place[last] = bulk if last != "ownerReferences" else [{"kind": TEMPLATE.kind, "uid": "o"}, bulk]
    (message,) = plan.plan_changed(NOTHING, object_)
    assert isinstance(message, ObjectChanged)
    spec = message.object.pop("spec", None) if resource in AIM_KINDS else None
    assert spec == (object_.get("spec") if resource in AIM_KINDS else None)
    assert size_bytes(message.object) <= limit_bytes(resource.kind)


def test_a_message_of_another_release_is_replaced_once() -> None:
    job = body("j", 5) | {
        "kind": "Job",
        "spec": {"template": {"spec": {"containers": [{"args": ["--password=PW"]}]}}},
    }
    before = ObjectChanged(
        kind="Job", namespace="ns", name="j", uid="u1", resource_version="5", object=job
    )
    known = fold(NOTHING, before, 1)
    message, _ = plan.plan_listed(known, JOB, [job], "9")
    assert isinstance(message, ObjectChanged)
    assert (message.object, message.resource_version) == (body("j", 5) | {"kind": "Job"}, "5")
    obj = service_fold(service_fold(Projection(), before, 1), message, 2)
    assert [found.body for found in obj.in_namespace("Job", "ns")] == [message.object]
    assert summaries(plan.plan_listed(fold(known, message, 2), JOB, [job], "9")) == ["synced 1 @9"]


def test_a_repeated_message_names_the_removed_parts() -> None:
    (message,) = plan.plan_changed(NOTHING, body() | {"status": {"big": "x" * 100_000}})
    assert isinstance(message, ObjectChanged)
    assert plan.plan_hidden(fold(NOTHING, message, 1), Key(CACHE.kind, "ns", "c")) == message


def test_a_kind_that_is_not_installed_has_no_objects() -> None:
    assert summaries(plan.plan_absent(on_the_bus(body()), CACHE)) == [
        "deleted c u1 @5",
        "not installed",
    ]


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_kind_that_comes_back_is_published_for_every_reader(times: int) -> None:
    known = NOTHING
    obj = Projection()
    epoch = 0
    seq = 0

    def publish(messages: list[Outgoing]) -> None:
        nonlocal known, obj, epoch, seq
        for message in messages:
            seq += 1
            obj = service_fold(obj, message, seq)
            epoch = max(epoch, message.epoch)
            if not isinstance(message, KindSynced):
                known = fold(known, message, seq)

    publish(plan.plan_listed(known, CACHE, [body()], "9", epoch))
    for _ in range(times):
        publish(plan.plan_absent(known, CACHE, epoch))
        assert (obj.get(Key(CACHE.kind, "ns", "c")), obj.is_kind_served(CACHE.kind)) == (
            None,
            False,
        )
        publish(plan.plan_absent(known, CACHE, epoch))  # a watcher that was started meanwhile
        publish(plan.plan_listed(known, CACHE, [body()], "9", epoch))
        assert obj.get(Key(CACHE.kind, "ns", "c")) is not None
        publish(plan.plan_changed(known, body(version=10 + seq), epoch))
        publish(plan.plan_listed(known, CACHE, [body()], str(10 + seq), epoch))
    assert epoch == times


def test_a_kind_that_was_never_served_begins_no_epoch() -> None:
    (marker,) = plan.plan_absent(NOTHING, CACHE, 3)
    assert marker.epoch == 3


def test_removed_parts_are_named() -> None:
    (message,) = plan.plan_changed(
        NOTHING, body() | {"status": {"big": "x" * 100, "bigger": "x" * 1000}, "spec": {"size": 1}}
    )
    assert isinstance(message, ObjectChanged)
    smaller = plan.truncated_message(message)
    assert isinstance(smaller, ObjectChanged)
    smallest = plan.truncated_message(smaller)
    assert isinstance(smallest, ObjectChanged)
    assert (smallest.truncated, smallest.object["spec"]) == (
        ("status.bigger", "status.big"),
        {"size": 1},
    )


def test_an_oversized_spec_of_an_aim_kind_is_left_out_whole() -> None:
    (message,) = plan.plan_changed(
        NOTHING,
        body()
        | {
            "status": {"status": "Available"},
            "spec": {"env": [{"name": "A", "value": "x" * 1000}], "size": 1},
        },
    )
    assert isinstance(message, ObjectChanged)
    smaller = plan.truncated_message(message)
    assert isinstance(smaller, ObjectChanged)
    assert (smaller.truncated, smaller.object) == (
        ("spec",),
        body() | {"status": {"status": "Available"}},
    )


# --- whatever happens, the last message of every subject is the state of the cluster ---

NAMES = ("a", "b", "c")


class Cluster:
    """One kind, with versions counted as etcd counts them, and the events a watch would bring."""

    def __init__(self) -> None:
        self.version = 0
        self.objects: dict[Key, dict[str, Any]] = {}
        self.events: list[tuple[str, dict[str, Any]]] = []

    def write(self, name: str) -> None:
        self.version += 1
        key = Key(CACHE.kind, "ns", name)
        uid = self.objects[key]["metadata"]["uid"] if key in self.objects else f"u{self.version}"
        self.objects[key] = body(name, self.version, uid)
        self.events.append(("changed", self.objects[key]))

    def delete(self, name: str) -> None:
        deleted = self.objects.pop(Key(CACHE.kind, "ns", name), None)
        if deleted is not None:
            self.version += 1
            self.events.append(
                (
                    "removed",
                    deleted
                    | {"metadata": deleted["metadata"] | {"resourceVersion": str(self.version)}},
                )
            )

    def restore(self, back: int) -> None:
        """Restored from a backup of `back` changes ago: later changes are lost, and their
        versions are used again."""
        events = self.events[: max(0, len(self.events) - back)]
        self.version = len(events)
        self.objects = {}
        self.events = events
        for kind, object_ in events:
            if kind == "changed":
                self.objects[key_of(object_)] = object_
            else:
                del self.objects[key_of(object_)]


class Bus:
    """The last message of every subject, as AIM_STATE has it."""

    def __init__(self) -> None:
        self.seq = 0
        self.last: dict[Key, tuple[int, ObjectChanged | ObjectDeleted]] = {}
        self.log: list[ObjectChanged | ObjectDeleted] = []
        self.marker: KindSynced | None = None

    def publish(self, message: ObjectChanged | ObjectDeleted) -> int:
        self.seq += 1
        self.log.append(message)
        self.last[Key(message.kind, message.namespace, message.name)] = (self.seq, message)
        return self.seq

    def live_object(self) -> dict[Key, dict[str, Any]]:
        return {
            key: message.object
            for key, (_, message) in self.last.items()
            if isinstance(message, ObjectChanged)
        }


class Watcher:
    """The shell without its I/O: `publish_at_most` is where it is killed."""

    def __init__(self, cluster: Cluster, bus: Bus) -> None:
        self.cluster = cluster
        self.bus = bus
        self.known = NOTHING
        self.read = 0
        self.epoch = 0
        self.newest = (0, 0)
        for seq, message in bus.last.values():
            self._receive(seq, message)
        if bus.marker is not None:
            self._receive(0, bus.marker)

    def relist(self, publish_at_most: int = 1_000) -> None:
        self.read = len(self.cluster.events)
        version = str(self.cluster.version)
        if plan.is_older_than_published(self.newest, version, self.epoch):
            self.epoch += 1
        self._publish(
            plan.plan_listed(self.known, CACHE, self.cluster.objects.values(), version, self.epoch),
            publish_at_most,
        )

    def watch(self, events: int, back: int = 0) -> None:
        """Takes the next `events`, after it has repeated some earlier ones."""
        self.read = max(0, self.read - back)
        for kind, object_ in self.cluster.events[self.read : self.read + events + back]:
            self.read += 1
            planned = plan.plan_changed if kind == "changed" else plan.plan_removed
            self._publish(planned(self.known, object_, self.epoch), 1_000)

    def _receive(self, seq: int, message: Outgoing) -> None:
        if not isinstance(message, KindSynced):
            self.known = fold(self.known, message, seq)
        self.epoch = max(self.epoch, message.epoch)
        self.newest = max(self.newest, plan.newest_of(message))

    def _publish(self, messages: list[Outgoing], at_most: int) -> None:
        for message in messages[:at_most]:
            if isinstance(message, KindSynced):
                self.bus.marker = message
                self._receive(0, message)
                continue
            self._receive(self.bus.publish(message), message)
            for at, last in list(self.bus.last.values())[:1]:
                self._receive(at, last)  # the bus shows it to us, again


STEPS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(NAMES)),
    st.tuples(st.just("delete"), st.sampled_from(NAMES)),
    st.tuples(st.just("watch"), st.integers(0, 4), st.integers(0, 3)),
    st.tuples(st.just("list")),
    st.tuples(st.just("killed"), st.integers(0, 3)),
    st.tuples(st.just("bus-lost")),
    st.tuples(st.just("restored"), st.integers(1, 6)),
)


def run(steps: list[tuple[Any, ...]]) -> tuple[Cluster, Bus, Watcher]:
    cluster = Cluster()
    bus = Bus()
    watcher = Watcher(cluster, bus)
    watcher.relist()
    for step in steps:
        match step:
            case ("write", name):
                cluster.write(name)
            case ("delete", name):
                cluster.delete(name)
            case ("watch", events, back):
                watcher.watch(events, back)
            case ("list",):
                watcher.relist()
            case ("killed", published):
                watcher = Watcher(cluster, bus)
                watcher.relist(published)
                watcher = Watcher(cluster, bus)
                watcher.relist()
            case ("restored", back):  # which breaks all watches
                cluster.restore(back)
                watcher.relist()
            case ("bus-lost",):
                bus = Bus()
                watcher = Watcher(cluster, bus)
                watcher.relist()
    return cluster, bus, watcher


@given(st.lists(STEPS, max_size=30))
@settings(max_examples=300, deadline=None)
def test_after_a_list_the_bus_is_the_cluster(steps: list[tuple[Any, ...]]) -> None:
    cluster, bus, watcher = run(steps)
    watcher.relist()
    assert bus.live_object() == cluster.objects


@given(st.lists(STEPS, max_size=30))
@settings(max_examples=300, deadline=None)
def test_after_all_events_the_bus_is_the_cluster(steps: list[tuple[Any, ...]]) -> None:
    cluster, bus, watcher = run(steps)
    watcher.watch(len(cluster.events))
    assert bus.live_object() == cluster.objects
    assert {key for key in watcher.known if live_object(watcher.known, key)} == set(cluster.objects)


@given(st.lists(STEPS, max_size=30))
@settings(max_examples=200, deadline=None)
def test_nothing_is_published_twice(steps: list[tuple[Any, ...]]) -> None:
    cluster, bus, watcher = run(steps)
    watcher.relist()
    seq_before = bus.seq
    watcher.relist()
    again = [
        plan.plan_changed(watcher.known, object_, watcher.epoch)
        for object_ in cluster.objects.values()
    ]
    assert again == [[]] * len(cluster.objects)
    assert bus.seq == seq_before


@given(st.lists(STEPS.filter(lambda step: step[0] != "bus-lost"), max_size=30))
@settings(max_examples=200, deadline=None)
def test_a_reader_that_drops_older_versions_has_the_cluster(
    steps: list[tuple[Any, ...]],
) -> None:
    cluster, bus, watcher = run(steps)
    watcher.relist()
    state = Projection()
    for seq, message in enumerate(bus.log, start=1):
        state = service_fold(state, message, seq)
    assert {obj.key: obj.body for obj in state.all_objects()} == cluster.objects
