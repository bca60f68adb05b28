"""Writing: one guarded apply, then at most one Event of a kind per object and minute, in the
form of events.k8s.io/v1."""

import datetime
import time
from dataclasses import dataclass, field, replace
from typing import Any, cast

import kubernetes_validate
import pytest

from aim_statuswriter import render
from aim_statuswriter.action_handlers import EVENT_TTL_S, Writer
from aim_statuswriter.actions import SendEvent, WriteStatus
from aim_statuswriter.projection import RECONCILES, WATCHES, map_to_keys
from aimcontroller.action import Action, DeleteObject
from aimcontroller.action_log import ActionRecord
from aimcontroller.handler import ActionContext, ActionResult
from aimcontroller.projection import Projection
from aimcontroller.testing import golden
from aimkube import AlreadyExists, Cluster, Conflict, Forbidden, NotFound
from aimschema.reasons import STATUS_OWNERSHIP
from aimschema.resources import CONFIG, EVENT, Key, Resource

Body = dict[str, Any]
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, 67, tzinfo=datetime.UTC)
CACHE_KEY = Key("ModelCache", "ml", "llama.8b")
MODEL_KEY = Key("AIMClusterModel", None, "llama")
WRITE = WriteStatus(CACHE_KEY, "u", "7", {"status": "Available"})


def event(
    key: Key = CACHE_KEY, uid: str = "u", reason: str = "Warm", note: str = "all there"
) -> SendEvent:
    return SendEvent(key, uid, "Normal", reason, note)


@dataclass
class FakeCluster:
    error: Exception | None = None
    statuses: list[Body] = field(default_factory=list)
    created: list[Body] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)
    may_read: bool = True
    requests_to_create: int = 0

    async def apply_status(self, body: Body, *, manager: str) -> Body:
        if self.error is not None:
            raise self.error
        assert manager == "aim-statuswriter"
        self.statuses.append(body)
        return {
            **body,
            "metadata": {
                **body["metadata"],
                "uid": "u",
                "resourceVersion": "8",
                "managedFields": [],
            },
        }

    async def get(self, resource: Resource, namespace: str, name: str) -> Body:
        self.requested.append(name)
        if not self.may_read:
            raise Forbidden("no")
        for existing in self.created:
            if (resource, existing["metadata"]["namespace"], existing["metadata"]["name"]) == (
                EVENT,
                namespace,
                name,
            ):
                return existing
        raise NotFound(name)

    async def create(self, body: Body) -> Body:
        self.requests_to_create += 1
        if body["metadata"]["name"] in {existing["metadata"]["name"] for existing in self.created}:
            raise AlreadyExists(body["metadata"]["name"])
        self.created.append(body)
        return body


@dataclass
class Bench:
    cluster: FakeCluster = field(default_factory=FakeCluster)
    results: list[ActionResult] = field(default_factory=list)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def not_used(_argument: object) -> Any:
    raise AssertionError("the statuswriter does not use this")


async def carry_out(
    bench: Bench, *actions: Action, writer: Writer | None = None, is_new: bool = False
) -> None:
    handler = writer or Writer()
    cluster = cast(Cluster, bench.cluster)
    for action in actions:
        ctx = ActionContext(cluster, not_used, not_used, not_used, is_new)
        bench.results.append(await handler(action, ctx))


async def test_the_status_is_applied_whole_and_guarded_by_the_version(bench: Bench) -> None:
    await carry_out(bench, WRITE)
    assert bench.cluster.statuses == [
        {
            "apiVersion": "aim.silogen.ai/v1alpha1",
            "kind": "ModelCache",
            "metadata": {"name": "llama.8b", "namespace": "ml", "resourceVersion": "7"},
            "status": {"status": "Available"},
        }
    ]
    [result] = bench.results
    assert result.record == ActionRecord(resource_version="8")
    assert result.response is not None
    assert result.response["metadata"] == {
        "name": "llama.8b",
        "namespace": "ml",
        "uid": "u",
        "resourceVersion": "8",
    }


async def test_a_cluster_scoped_object_has_no_namespace(bench: Bench) -> None:
    await carry_out(bench, WriteStatus(MODEL_KEY, "u", "7", {}))
    assert bench.cluster.statuses[0]["metadata"] == {"name": "llama", "resourceVersion": "7"}


async def test_a_deleted_object_needs_no_status(bench: Bench) -> None:
    bench.cluster.error = NotFound("gone")
    await carry_out(bench, WRITE)
    assert bench.results == [ActionResult()]


async def test_a_conflict_is_retried_by_the_controller(bench: Bench) -> None:
    bench.cluster.error = Conflict("newer")
    with pytest.raises(Conflict):
        await carry_out(bench, WRITE)


async def test_one_event_of_a_kind_is_sent_a_minute(bench: Bench) -> None:
    writer = Writer()
    await carry_out(
        bench,
        event(),
        event(note="again"),
        event(reason="AuthError"),
        event(uid="successor"),
        writer=writer,
    )
    assert [(body["reason"], body["regarding"]["uid"]) for body in bench.cluster.created] == [
        ("Warm", "u"),
        ("AuthError", "u"),
        ("Warm", "successor"),
    ]


async def test_another_process_sends_no_second_one_in_the_minute(bench: Bench) -> None:
    writers = [Writer(lambda: 1200.0), Writer(lambda: 1215.0), Writer(lambda: 1259.9)]
    for writer in writers:
        await carry_out(bench, event(), event(note="again"), writer=writer)
    assert len(bench.cluster.created) == 1
    await carry_out(
        bench,
        event(reason="AuthError"),
        event(uid="successor"),
        event(MODEL_KEY, uid="model"),
        writer=writers[-1],
    )
    assert len(bench.cluster.created) == 4, "of another kind it may come at once"


@pytest.mark.parametrize(
    ("killed_after_s", "sent_again"),
    [(1.0, False), (15.0, False), (59.0, False), (60.0, True), (61.0, True), (125.0, True)],
)
@pytest.mark.parametrize("at_s", [0.0, 1.0, 30.0, 59.5])
async def test_nor_a_second_one_in_the_next_minute(
    bench: Bench, at_s: float, killed_after_s: float, *, sent_again: bool
) -> None:
    """The first one is sent now, at any time in its minute, since the API server records its
    time."""
    began_s = time.time()
    began_s += (
        at_s - began_s
    ) % 60  # so far into a minute; its time on the Event is set to that below
    await carry_out(bench, event(), writer=Writer(lambda: began_s))
    sent = datetime.datetime.fromtimestamp(began_s, datetime.UTC)
    bench.cluster.created[0]["eventTime"] = sent.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    await carry_out(
        bench,
        event(),
        event(),
        writer=Writer(lambda: began_s + killed_after_s, has_predecessor=True),
    )
    assert len(bench.cluster.created) == 1 + sent_again


async def test_events_are_sent_without_the_right_to_read_them(bench: Bench) -> None:
    bench.cluster.may_read = False
    await carry_out(bench, event(), writer=Writer(has_predecessor=True))
    assert len(bench.cluster.created) == 1


async def test_sent_events_are_read_only_after_a_quiet_minute(bench: Bench) -> None:
    """Once for each kind: a process that sends all the time knows what it has sent."""
    now_s = 0.0
    requested_at = []
    writer = Writer(lambda: now_s, has_predecessor=True)
    for second in (0, 30, 59, 61, 90, 120, 200):
        now_s = float(second)
        before = len(bench.cluster.requested)
        await carry_out(bench, event(uid=f"object-{second}"), writer=writer)
        requested_at += [second] * (len(bench.cluster.requested) - before)
    assert requested_at == [0, 30, 59, 200]


async def test_for_a_new_object_no_sent_event_is_read(bench: Bench) -> None:
    writer = Writer(lambda: 0.0, has_predecessor=True)
    await carry_out(bench, event(), event(), writer=writer, is_new=True)
    assert (bench.cluster.requested, len(bench.cluster.created)) == ([], 1)


async def test_a_flapping_object_sends_each_event_once_a_minute(
    bench: Bench,
) -> None:
    now_s = 0.0
    writer = Writer(lambda: now_s)
    sent_s: dict[tuple[str, str], list[float]] = {}
    for second in range(600):
        now_s = float(second)
        for each in (
            event(reason="Warm"),
            event(reason="AuthError"),
            event(uid="other"),
            *([event(reason="PVCLost")] if second == 301 else []),
        ):
            before = len(bench.cluster.created)
            await carry_out(bench, each, writer=writer)
            if len(bench.cluster.created) > before:
                sent_s.setdefault((each.uid, each.reason), []).append(now_s)
    each_minute = [60.0 * minute for minute in range(10)]
    assert sent_s == {
        ("u", "Warm"): each_minute,
        ("u", "AuthError"): each_minute,
        ("other", "Warm"): each_minute,
        ("u", "PVCLost"): [301.0],
    }


ADVICE = SendEvent(
    Key(CONFIG.kind, "ml", "default"),
    "c",
    "Warning",
    "RouteFailed",
    "set spec.routing.gateway",
    since="2026-01-02T03:04:05Z",
)


async def test_advice_is_sent_once_by_any_process(bench: Bench) -> None:
    await carry_out(bench, ADVICE)
    await carry_out(bench, ADVICE, writer=Writer())
    assert len(bench.cluster.created) == 1, "another process does not repeat it: the cluster has it"
    await carry_out(bench, replace(ADVICE, since="2026-01-02T04:00:00Z"), writer=Writer())
    assert len(bench.cluster.created) == 2, "the fault went and came back"


async def test_a_known_event_costs_no_request_until_it_expires(bench: Bench) -> None:
    """A cache with a warning has a new status every ten seconds while it is filled."""
    now_s = 0.0
    await carry_out(bench, ADVICE)
    later = Writer(lambda: now_s)
    for time_s in (10.0, 20.0, 90.0, EVENT_TTL_S):
        now_s = time_s
        await carry_out(bench, ADVICE, writer=later)
    assert bench.cluster.requests_to_create == 2, "this process asks once, though it sent none"
    bench.cluster.created.clear()
    now_s = EVENT_TTL_S + 11.0
    await carry_out(bench, ADVICE, writer=later)
    assert len(bench.cluster.created) == 1


async def test_held_back_advice_is_requeued_after_the_minute(
    bench: Bench,
) -> None:
    now_s = 0.0
    writer = Writer(lambda: now_s)
    other = replace(ADVICE, note="create Gateway infra/nowhere")
    await carry_out(bench, ADVICE, writer=writer)
    now_s = 20.0
    await carry_out(bench, other, writer=writer)
    assert bench.results == [ActionResult(), ActionResult(requeue_after_s=40.0)]
    now_s = 60.0
    await carry_out(bench, ADVICE, other, writer=writer)
    assert [body["note"] for body in bench.cluster.created] == [
        ADVICE.note,
        other.note,
    ], "and the one that was sent takes no turn"


async def test_other_actions_are_not_the_statuswriters(bench: Bench) -> None:
    with pytest.raises(TypeError, match="not an action of the statuswriter"):
        await carry_out(bench, DeleteObject(CACHE_KEY, "u"))


LONG_NAME = "a" * 238 + "-.-" + "b" * 12


@pytest.mark.parametrize(
    "action",
    [
        pytest.param(event(), id="namespaced"),
        pytest.param(event(MODEL_KEY), id="cluster-scoped"),
        pytest.param(event(note="ä" * 1024), id="long-note"),
        pytest.param(event(Key("ModelCache", "ml", LONG_NAME)), id="long-name"),
    ],
)
def test_an_event_has_the_form_that_the_api_server_takes(action: SendEvent) -> None:
    body = render.event(action, NOW, "0123456789", "host")
    kubernetes_validate.validate(body, kubernetes_validate.latest_version(), strict=True)
    assert len(str(body["note"]).encode()) <= render.NOTE_LENGTH_BYTES
    metadata = cast(Body, body["metadata"])
    assert len(metadata["name"]) <= 253
    assert all(
        label[:1].isalnum() and label[-1:].isalnum() for label in metadata["name"].split(".")
    )


@pytest.mark.parametrize(
    ("name", "key"), [("namespaced", CACHE_KEY), ("cluster-scoped", MODEL_KEY)]
)
def test_an_event_is_as_recorded(name: str, key: Key) -> None:
    """AIM_WRITE_GOLDEN=1 rewrites the files in golden/. Those of cluster-scoped objects are in
    the default namespace."""
    golden(__file__, f"event.{name}", render.event(event(key), NOW, "0123456789", "host"))


def test_followed_kinds_depend_on_themselves_alone() -> None:
    assert (
        {resource.kind for resource in RECONCILES}
        == {resource.kind for resource in WATCHES}
        == {*STATUS_OWNERSHIP, CONFIG.kind}
    )
    assert list(map_to_keys(Projection(), CACHE_KEY)) == [CACHE_KEY]
