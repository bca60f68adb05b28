"""The loop between a real NATS server and a cluster that answers from a script."""

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import pytest
from msgspec import structs

from aim_statuswriter.actions import SendEvent
from aimbus import Bus, Event, ensure_streams, read_log
from aimbus.jetstream import api
from aimcontroller.action import Action, ApplyObject, DeleteObject, PatchObject
from aimcontroller.component import Component
from aimcontroller.controller import Controller
from aimcontroller.handler import ActionContext, ActionResult
from aimcontroller.health import Health
from aimcontroller.plan import EMPTY_PLAN, Plan, actions, condition, report, requeue_after
from aimcontroller.projection import (
    REJECTED,
    ApplyRejected,
    KubeObject,
    Projection,
    changed_from_response,
)
from aimkube import (
    Cause,
    Cluster,
    Conflict,
    Forbidden,
    Invalid,
    KubeError,
    NotFound,
    Rejected,
    Throttled,
    Unavailable,
)
from aimschema import subjects
from aimschema.messages import (
    ActionTaken,
    DeadLetter,
    KindSynced,
    ObjectChanged,
    ObjectDeleted,
    StatusReported,
    decode,
)
from aimschema.resources import CACHE, CLAIM, JOB, Key, Resource

Body = dict[str, Any]
NAME = "test"
A, B = Key(CACHE.kind, "ml", "a"), Key(CACHE.kind, "ml", "b")
JOB_OF_A = Key(JOB.kind, "ml", "a-job")


def changed(key: Key, version: int, uid: str | None = None) -> ObjectChanged:
    metadata = {
        "name": key.name,
        "namespace": key.namespace,
        "uid": uid or key.name,
        "resourceVersion": str(version),
        "generation": 1,
    }
    return ObjectChanged(
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        uid=uid or key.name,
        resource_version=str(version),
        object={"apiVersion": CACHE.api_version, "kind": key.kind, "metadata": metadata},
    )


def synced(resource: Resource, *, installed: bool = True) -> KindSynced:
    return KindSynced(kind=resource.kind, resource_version="1", objects=0, installed=installed)


def job() -> ApplyObject:
    return ApplyObject(
        {
            "apiVersion": "batch/v1",
            "kind": JOB.kind,
            "metadata": {"name": JOB_OF_A.name, "namespace": "ml"},
            "spec": {},
        }
    )


def claim() -> ApplyObject:
    return ApplyObject(
        {
            "apiVersion": "v1",
            "kind": CLAIM.kind,
            "metadata": {"name": "a-cache", "namespace": "ml"},
            "spec": {},
        }
    )


@dataclass
class FakeCluster:
    """Has the objects it is given; answers an apply with the next error of the script, and after
    the last one it succeeds."""

    errors: list[Exception] = field(default_factory=list)
    objects: dict[Key, Body] = field(default_factory=dict)
    applied: list[Body] = field(default_factory=list)
    deleted: list[Key] = field(default_factory=list)
    patched: list[Key] = field(default_factory=list)
    got: list[Key] = field(default_factory=list)

    async def apply(self, body: Body, *, manager: str, dry_run: bool = False) -> Body:
        assert manager == f"aim-{NAME}"
        if dry_run:
            raise Forbidden("dry runs are forbidden", status=403, reason="Forbidden")
        self.applied.append(body)
        if self.errors:
            raise self.errors.pop(0)
        return {**body, "metadata": {**body["metadata"], "uid": "job", "resourceVersion": "50"}}

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Body:
        key = Key(resource.kind, namespace, name)
        self.got.append(key)
        if key not in self.objects:
            raise NotFound(f"{key} not found", status=404, reason="NotFound")
        return self.objects[key]

    async def merge_patch(
        self, resource: Resource, namespace: str | None, name: str, _patch: Body
    ) -> Body:
        self.patched.append(Key(resource.kind, namespace, name))
        raise NotFound(f"{resource.kind} {namespace}/{name} not found")

    async def delete(self, resource: Resource, namespace: str | None, name: str, **_: Any) -> None:
        self.deleted.append(Key(resource.kind, namespace, name))
        raise NotFound(f"{resource.kind} {namespace}/{name} not found")


def cluster_of(*objects: ObjectChanged) -> FakeCluster:
    """A cluster that has what these events describe."""
    return FakeCluster(
        objects={Key(event.kind, event.namespace, event.name): event.object for event in objects}
    )


Decide = Callable[[Projection, KubeObject], Plan]


@dataclass
class Planner:
    """Plans by `decide` and writes down what it was asked."""

    decide: Decide = lambda _state, _obj: EMPTY_PLAN
    planned: list[Key] = field(default_factory=list)
    rejections: list[ApplyRejected | None] = field(default_factory=list)

    unmapped: Key | None = None

    def map_to_keys(self, state: Projection, key: Key) -> Iterable[Key]:
        if key == self.unmapped:
            raise RuntimeError(f"{key} is unexpected")
        return map_to_keys(state, key)

    def plan(self, state: Projection, key: Key, now: datetime.datetime) -> Plan:
        assert now.tzinfo is not None
        self.planned.append(key)
        self.rejections.append(state.observation(key, REJECTED))
        obj = state.get(key)
        return EMPTY_PLAN if obj is None else self.decide(state, obj)


@dataclass
class Bench:
    """A running controller, its inputs and its outputs."""

    watcher: Bus
    loop: Controller
    planner: Planner
    cluster: FakeCluster
    health: Health
    published: list[Event] = field(default_factory=list)

    async def publish(
        self, *messages: ObjectChanged | ObjectDeleted | KindSynced | StatusReported
    ) -> None:
        """What the watcher publishes is in the cluster, or was."""
        for message in messages:
            match message:
                case ObjectChanged():
                    self.cluster.objects[Key(message.kind, message.namespace, message.name)] = (
                        message.object
                    )
                case ObjectDeleted():
                    self.cluster.objects.pop(
                        Key(message.kind, message.namespace, message.name), None
                    )
            await self.watcher.publisher.publish(message)

    async def forge(self, message: ObjectChanged) -> None:
        """An event on what is not in the cluster."""
        await self.watcher.publisher.publish(message)

    async def reload(self) -> None:
        """The service's connection is replaced, so that it reloads everything."""
        session = await self.loop.bus.session()
        await session.client.close()
        await session.ended

    async def listen(self) -> None:
        async for item in read_log(
            self.watcher, ["aim.report.>", "aim.action.>", "aim.dead.>"], follow=True
        ):
            if isinstance(item, Event):
                self.published.append(item)

    def of(self, kind: type) -> list[Any]:
        return [event.message for event in self.published if isinstance(event.message, kind)]

    async def started(self, decide: Decide, *objects: Key) -> None:
        """The state of a cluster with these objects has been published."""
        self.planner.decide = decide
        await self.publish(
            *(changed(key, version) for version, key in enumerate(objects, start=1)),
            synced(CACHE),
            synced(JOB),
        )


async def until(holds: Callable[[], bool]) -> None:
    """Waits for an effect of a server or of other tasks for which there is no event."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 (see above)
            await asyncio.sleep(0.005)


async def settled(bench: Bench) -> None:
    """Everything published so far has been reconciled: a marker that is sent last is planned
    last."""
    marker = Key(CACHE.kind, "ml", f"marker-{len(bench.planner.planned)}")
    await bench.publish(changed(marker, 1))
    await until(lambda: marker in bench.planner.planned and bench.loop.queue.idle)


def map_to_keys(_state: Projection, key: Key) -> Iterable[Key]:
    return (key,) if key.kind == CACHE.kind else (A,)


@pytest.fixture
async def bench(watcher_bus: Bus, service_bus: Bus) -> AsyncIterator[Bench]:
    planner = Planner()
    cluster = FakeCluster()
    health = Health()
    service = Component(NAME, (CACHE,), (CACHE, JOB), planner.map_to_keys, planner.plan)
    bench = Bench(
        watcher_bus,
        Controller(service, service_bus, cast(Cluster, cluster), health),
        planner,
        cluster,
        health,
    )
    tasks = [asyncio.ensure_future(bench.loop.run()), asyncio.ensure_future(bench.listen())]
    yield bench
    for task in tasks:
        assert not task.done(), task
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_nothing_is_planned_before_every_kind_is_synced(bench: Bench) -> None:
    await bench.publish(changed(A, 1), changed(B, 2), synced(CACHE))
    await until(
        lambda: (
            JOB.kind in bench.health.not_ready.get("sync", "")
            and CACHE.kind not in bench.health.not_ready["sync"]
        )
    )
    await until(lambda: bench.loop.state.get(B) is not None)
    assert bench.planner.planned == []
    await bench.publish(synced(JOB))
    await until(lambda: set(bench.planner.planned) == {A, B})
    assert bench.health.not_ready == {}


async def test_an_event_makes_its_keys_looked_at_again(bench: Bench) -> None:
    await bench.started(bench.planner.decide, A, B)
    await until(lambda: set(bench.planner.planned) == {A, B})
    bench.planner.planned.clear()
    await bench.publish(changed(JOB_OF_A, 9))
    await settled(bench)
    assert bench.planner.planned[0] == A
    assert B not in bench.planner.planned


async def test_an_added_or_removed_kind_requeues_everything(bench: Bench) -> None:
    await bench.started(bench.planner.decide, A)
    await until(lambda: bench.planner.planned == [A])
    await bench.publish(synced(JOB, installed=False))
    await until(lambda: bench.planner.planned == [A, A])
    assert not bench.loop.state.is_kind_served(JOB.kind)
    await bench.publish(synced(JOB, installed=False))
    await settled(bench)
    assert bench.planner.planned.count(A) == 2


async def test_an_owned_object_missing_from_a_list_is_recreated(bench: Bench) -> None:
    """It was deleted while the watch was interrupted: there is no event."""
    await bench.started(lambda _state, obj: actions(job()) if obj.key == A else EMPTY_PLAN, A)
    await until(lambda: bench.loop.state.get(JOB_OF_A) is not None)
    await bench.publish(KindSynced(kind=JOB.kind, resource_version="60", objects=0))
    await until(lambda: len(bench.cluster.applied) == 2)
    assert bench.loop.state.get(JOB_OF_A) is None


def reports_filled(_state: Projection, obj: KubeObject) -> Plan:
    return (
        report(obj, condition("Filled", True, "Warm"), progress="100%")
        if obj.key == A
        else EMPTY_PLAN
    )


async def test_a_report_goes_out_once_and_names_what_led_to_it(bench: Bench) -> None:
    await bench.started(reports_filled, A)
    await until(lambda: len(bench.published) == 1)
    (event,) = bench.published
    assert event.subject == subjects.of_report(A, NAME)
    assert isinstance(event.message, StatusReported)
    assert (event.message.uid, event.message.observed_generation, event.message.fields) == (
        "a",
        1,
        {"progress": "100%"},
    )
    assert event.cause
    for version in (5, 6):
        await bench.publish(changed(A, version))
    await settled(bench)
    assert bench.planner.planned.count(A) >= 2
    assert len(bench.of(StatusReported)) == 1


async def test_reports_of_a_former_process_are_not_repeated(bench: Bench) -> None:
    obj = KubeObject(A, "a", 1, changed(A, 1).object)
    (before,) = reports_filled(Projection(), obj).reports
    await bench.publish(before.message(NAME))
    await bench.started(reports_filled, A)
    await settled(bench)
    assert A in bench.planner.planned
    assert len(bench.of(StatusReported)) == 1


def makes_a_job(state: Projection, obj: KubeObject) -> Plan:
    return actions(job()) if obj.key == A else EMPTY_PLAN


async def test_an_action_is_taken_once_published_and_folded(bench: Bench) -> None:
    await bench.started(makes_a_job, A)
    await until(lambda: len(bench.of(ActionTaken)) == 1)
    await bench.publish(changed(A, 5))
    await settled(bench)
    (taken,) = bench.of(ActionTaken)
    assert (taken.verb, taken.name, Key(*taken.about), taken.outcome, taken.resource_version) == (
        "apply",
        JOB_OF_A.name,
        A,
        "done",
        "50",
    )
    made = bench.loop.state.get(JOB_OF_A)
    assert made is not None
    assert made.version == 50
    assert bench.loop.state.pending_creates(JOB.kind) == set()
    assert len(bench.cluster.applied) == 1


def deletes_a_job(_state: Projection, obj: KubeObject) -> Plan:
    return actions(DeleteObject(JOB_OF_A, "gone")) if obj.key == A else EMPTY_PLAN


async def test_deleting_a_missing_object_is_not_published(bench: Bench) -> None:
    await bench.started(deletes_a_job, A)
    await settled(bench)
    assert A in bench.planner.planned
    assert bench.published == []


QUOTA = Forbidden("exceeded quota: gpus", status=403)


TYPED_PATCH = Rejected(
    "failed to create typed patch object: .spec.a: field not declared in schema", status=500
)


@pytest.mark.parametrize(
    "error",
    [QUOTA, Invalid("spec.size: Invalid value", status=422), TYPED_PATCH],
    ids=["forbidden", "invalid", "typed-patch"],
)
async def test_the_planner_gets_a_rejection_until_a_success(bench: Bench, error: KubeError) -> None:
    bench.cluster.errors = [error, error]
    await bench.started(makes_a_job, A)
    await until(lambda: len(bench.planner.rejections) == 2)
    assert bench.planner.rejections == [None, ApplyRejected(JOB_OF_A, str(error))]
    await until(lambda: len(bench.of(ActionTaken)) == 2)
    assert [(taken.outcome, taken.detail) for taken in bench.of(ActionTaken)] == [
        ("refused", str(error))
    ] * 2
    await bench.publish(changed(A, 5))
    await until(lambda: len(bench.planner.rejections) == 4)
    assert bench.planner.rejections[2:] == [ApplyRejected(JOB_OF_A, str(error)), None]
    await settled(bench)
    assert len(bench.cluster.applied) == 3


def hook(code: int, message: str) -> KubeError:
    if code >= 500:
        return Unavailable(message, status=code)
    return (Rejected if code == 400 else Conflict)(message, status=code)


DOWN = (
    'Internal error occurred: failed calling webhook "v": failed to call webhook: no endpoints'
    ' available for service "w"'
)
DENIED = 'admission webhook "v" denied the request: no'


@pytest.mark.parametrize(
    ("error", "reported_after"),
    [
        pytest.param(hook(500, DOWN), 1, id="webhook-down"),
        pytest.param(hook(500, DENIED), 1, id="webhook-denies-with-500"),
        pytest.param(hook(409, DENIED), 1, id="webhook-denies-with-409"),
        pytest.param(Unavailable("etcdserver: request timed out", status=500), 3, id="500"),
        pytest.param(Unavailable("overloaded", status=503), 3, id="503"),
        pytest.param(Throttled("too many requests", status=429, retry_after_s=0.01), 3, id="429"),
        pytest.param(Conflict("the object has been modified", status=409), 3, id="409"),
        pytest.param(
            NotFound("the server could not find the requested resource", status=404), 3, id="404"
        ),
    ],
)
async def test_a_repeated_server_error_is_reported(
    bench: Bench, error: KubeError, reported_after: int
) -> None:
    bench.cluster.errors = [error] * 4
    await bench.started(makes_a_job, A)
    reported = ApplyRejected(
        JOB_OF_A, str(error), transient=True, by_webhook="webhook" in str(error)
    )
    await until(lambda: reported in bench.planner.rejections)
    assert bench.planner.rejections.index(reported) == reported_after
    await until(
        lambda: (
            bench.planner.rejections[-1] is None and len(bench.planner.rejections) > reported_after
        )
    )
    assert {(taken.outcome, taken.detail) for taken in bench.of(ActionTaken)} >= {
        ("retry", str(error))
    }


async def test_a_rejection_is_remembered_until_it_is_accepted(bench: Bench) -> None:
    """The order of two responses shows a planner what has been tried."""
    bench.cluster.errors = [Forbidden("no such mode", status=403), QUOTA, hook(500, DOWN)]
    await bench.started(makes_a_job, A)
    for version in (5, 6, 7):
        count = len(bench.planner.rejections)
        await bench.publish(changed(A, version))
        await until(lambda: len(bench.planner.rejections) > count)  # noqa: B023 (awaited in the same round)
        await settled(bench)
    known = [
        (rejection.message, rejection.earlier)
        for rejection in bench.planner.rejections
        if rejection is not None
    ]
    assert known[0] == ("no such mode", frozenset())
    assert (str(QUOTA), frozenset({"no such mode"})) in known
    assert bench.planner.rejections[-1] is None


async def test_a_server_that_does_not_answer_is_no_object_s_fault(bench: Bench) -> None:
    bench.cluster.errors = [Unavailable("connection refused")] * 4
    await bench.started(makes_a_job, A)
    await until(lambda: len(bench.cluster.applied) == 5)
    assert set(bench.planner.rejections) == {None}


async def test_a_rejection_with_varying_text_causes_no_hot_loop(
    bench: Bench,
) -> None:
    bench.cluster.errors = [Forbidden(f"denied, request {number}") for number in range(1000)]
    await bench.started(makes_a_job, A)
    await until(lambda: len(bench.cluster.applied) == 2)
    await settled(bench)
    assert len(bench.cluster.applied) == 2


async def test_a_rejected_action_ends_the_list(bench: Bench) -> None:
    bench.cluster.errors = [QUOTA] * 10

    def two(_state: Projection, obj: KubeObject) -> Plan:
        other = ApplyObject({**job().body, "metadata": {"name": "other", "namespace": "ml"}})
        return actions(job(), other) if obj.key == A else EMPTY_PLAN

    await bench.started(two, A)
    await settled(bench)
    assert {body["metadata"]["name"] for body in bench.cluster.applied} == {JOB_OF_A.name}


async def test_a_terminating_namespace_is_no_failure(bench: Bench) -> None:
    terminating = Forbidden(
        "being terminated",
        status=403,
        causes=(Cause("metadata.namespace", "NamespaceTerminating", "being terminated"),),
    )
    bench.cluster.errors = [terminating]
    await bench.started(makes_a_job, A)
    await settled(bench)
    assert len(bench.cluster.applied) == 1
    assert bench.published == []
    assert set(bench.planner.rejections) == {None}


@pytest.mark.parametrize(
    "error",
    [
        Conflict("uid differs", status=409),
        Throttled("slow down", status=429, retry_after_s=0.2),
        Unavailable("webhook is down", status=500),
    ],
    ids=["conflict", "throttled", "unavailable"],
)
async def test_what_passes_is_tried_again_without_an_event(bench: Bench, error: KubeError) -> None:
    bench.cluster.errors = [error]
    await bench.started(makes_a_job, A)
    await until(lambda: len(bench.of(ActionTaken)) == 1)
    assert len(bench.cluster.applied) == 2
    assert bench.of(ActionTaken)[0].outcome == "done"
    assert set(bench.planner.rejections) == {None}


async def test_five_unexpected_failures_make_one_dead_letter(
    bench: Bench,
) -> None:
    def fails(_state: Projection, obj: KubeObject) -> Plan:
        if obj.key == A:
            raise KeyError("unexpected")
        return EMPTY_PLAN

    await bench.started(fails, A, B)
    for attempt in range(1, 8):
        await until(
            lambda count=attempt: bench.planner.planned.count(A) >= count and bench.loop.queue.idle  # type: ignore[misc]
        )
        await bench.publish(changed(A, 10 + attempt))
    await settled(bench)
    (dead_letter,) = bench.of(DeadLetter)
    assert (dead_letter.service, dead_letter.name, dead_letter.attempts, dead_letter.error) == (
        NAME,
        "a",
        5,
        "KeyError('unexpected')",
    )
    assert B in bench.planner.planned


async def test_outages_do_not_prevent_a_dead_letter(
    bench: Bench,
) -> None:
    def fails(_state: Projection, obj: KubeObject) -> Plan:
        if obj.key != A:
            return EMPTY_PLAN
        if bench.planner.planned.count(A) in {2, 5}:
            return actions(job())
        raise ValueError("unexpected")

    bench.cluster.errors = [Conflict("busy", status=409)] * 2
    await bench.started(fails, A)
    for attempt in range(1, 8):
        await until(
            lambda count=attempt: bench.planner.planned.count(A) >= count and bench.loop.queue.idle  # type: ignore[misc]
        )
        await bench.publish(changed(A, 10 + attempt))
    await settled(bench)
    assert len(bench.of(DeadLetter)) == 1


async def test_an_action_without_a_handler_is_a_fault_of_ours(bench: Bench) -> None:
    await bench.started(
        lambda _state, obj: (
            actions(SendEvent(A, "a", "Normal", "Ok", "")) if obj.key == A else EMPTY_PLAN
        ),
        A,
        B,
    )
    await settled(bench)
    assert B in bench.planner.planned
    assert bench.loop.state.observation(A, REJECTED) is None


async def test_a_plan_may_requeue_its_key(bench: Bench) -> None:
    await bench.started(lambda _state, obj: requeue_after(0.02) if obj.key == A else EMPTY_PLAN, A)
    await until(lambda: bench.planner.planned.count(A) >= 3)


async def test_after_a_wipe_nothing_is_planned_until_all_is_synced(
    bench: Bench,
) -> None:
    await bench.started(reports_filled, A, B)
    await until(lambda: len(bench.of(StatusReported)) == 1)
    session = await bench.watcher.session()
    for stream in ("AIM_STATE", "AIM_LOG"):
        await api(session, f"STREAM.DELETE.{stream}")
    await ensure_streams(bench.watcher)
    await until(lambda: "sync" in bench.health.not_ready and bench.loop.state.get(A) is None)
    assert bench.loop.state.report(A, NAME) is None
    bench.planner.planned.clear()
    await bench.publish(changed(A, 7), synced(CACHE))
    await until(lambda: bench.loop.state.get(A) is not None)
    assert bench.planner.planned == []
    await bench.publish(synced(JOB))
    await until(lambda: bench.planner.planned == [A] and bench.loop.queue.idle)
    assert [obj.key for obj in bench.loop.state.all_objects()] == [A]
    assert bench.loop.state.report(A, NAME) is not None


async def test_a_message_that_cannot_be_read_is_passed_over(bench: Bench) -> None:
    session = await bench.watcher.session()
    await session.request(subjects.of_object(A), b"no json")
    await bench.started(bench.planner.decide, B)
    await until(lambda: bench.planner.planned == [B])


async def test_a_handler_gets_the_actions_of_its_service(
    watcher_bus: Bus, service_bus: Bus
) -> None:
    handled: list[Action] = []

    async def handle(action: Action, _ctx: ActionContext, /) -> ActionResult:
        handled.append(action)
        return ActionResult()

    event = SendEvent(A, "a", "Normal", "Ok", "ready")
    service = Component(
        NAME,
        (CACHE,),
        (CACHE,),
        map_to_keys,
        lambda _state, _key, _now: actions(event),
        reports=subjects.reports(),
    )
    loop = Controller(
        service, service_bus, cast(Cluster, cluster_of(changed(A, 1))), Health(), handle
    )
    task = asyncio.ensure_future(loop.run())
    await watcher_bus.publisher.publish(changed(A, 1))
    await watcher_bus.publisher.publish(synced(CACHE))
    await until(lambda: handled == [event])
    await watcher_bus.publisher.publish(
        StatusReported(
            kind=A.kind,
            namespace=A.namespace,
            name=A.name,
            uid="a",
            service="other",
            observed_generation=1,
        )
    )
    await until(lambda: len(handled) == 2)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_process_applies_nothing_that_one_before_it_did(
    watcher_bus: Bus, service_bus: Bus
) -> None:
    """What the first one applied is on the bus, and so comes with the state."""
    cluster = cluster_of(changed(A, 1))
    planner = Planner(lambda _state, obj: actions(claim()) if obj.key == A else EMPTY_PLAN)
    service = Component(NAME, (CACHE,), (CACHE, CLAIM), map_to_keys, planner.plan, owns=(CLAIM,))
    for message in (changed(A, 1), synced(CACHE), synced(CLAIM)):
        await watcher_bus.publisher.publish(message)
    for process in ("first", "second"):
        loop = Controller(service, service_bus, cast(Cluster, cluster), Health())
        running = asyncio.ensure_future(loop.run())
        marker = Key(CACHE.kind, "ml", process)
        await watcher_bus.publisher.publish(changed(marker, 1))
        await until(lambda marker=marker, loop=loop: marker in planner.planned and loop.queue.idle)  # type: ignore[misc]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        body = {
            **cluster.applied[0],
            "metadata": {**cluster.applied[0]["metadata"], "uid": "job", "resourceVersion": "50"},
        }
        await watcher_bus.publisher.publish(changed_from_response(body))
    assert planner.planned.count(A) >= 2
    assert len(cluster.applied) == 1


async def test_a_handled_dead_letter_requeues_at_once(bench: Bench) -> None:
    def breaks(_state: Projection, obj: KubeObject) -> Plan:
        if obj.key == A:
            raise RuntimeError("unexpected")
        return EMPTY_PLAN

    await bench.started(breaks, A)
    await until(lambda: len(bench.of(DeadLetter)) == 1)
    (dead_letter,) = bench.of(DeadLetter)
    bench.planner.decide = lambda _state, _obj: EMPTY_PLAN
    bench.planner.planned.clear()
    await bench.watcher.publisher.publish(structs.replace(dead_letter, handled=True))
    await until(lambda: A in bench.planner.planned)


async def test_an_unreadable_message_reports_nothing_after_a_reload(
    bench: Bench,
) -> None:
    """The object stays in the state, the service's own report is sent again, another reload writes
    no second dead letter."""
    await bench.started(reports_filled, A, B)
    await until(lambda: len(bench.of(StatusReported)) == 1)
    hidden = [
        await bench.watcher.publisher.resend(subject, b"{", {})
        for subject in (subjects.of_object(A), subjects.of_report(A, NAME))
    ]
    await until(lambda: len(bench.of(DeadLetter)) == 2)
    await until(lambda: len(bench.of(StatusReported)) == 2)
    assert {dead_letter.seq for dead_letter in bench.of(DeadLetter)} == set(hidden)
    for _ in range(2):
        before = len(bench.planner.planned)
        await bench.reload()
        await until(
            lambda before=before: A in bench.planner.planned[before:] and bench.loop.queue.idle  # type: ignore[misc]
        )
        assert bench.loop.state.get(A) is not None
    await settled(bench)
    assert len(bench.of(DeadLetter)) == 2


async def test_an_unreadable_report_on_an_unknown_object_is_harmless(
    bench: Bench,
) -> None:
    await bench.started(bench.planner.decide, A)
    await until(lambda: bench.planner.planned == [A])
    await bench.watcher.publisher.resend(subjects.of_report(B, NAME), b"{", {})
    await until(lambda: len(bench.of(DeadLetter)) == 1)
    await bench.publish(changed(B, 8))
    await until(lambda: bench.planner.planned[-1] == B)


async def test_an_event_that_cannot_be_dealt_with_stops_nothing(bench: Bench) -> None:
    bench.planner.unmapped = JOB_OF_A
    await bench.started(bench.planner.decide, A)
    await until(lambda: bench.planner.planned == [A])
    await bench.publish(changed(JOB_OF_A, 7))
    await until(lambda: len(bench.of(DeadLetter)) == 1)
    (dead_letter,) = bench.of(DeadLetter)
    assert (dead_letter.subject, dead_letter.error) == (
        subjects.of_object(JOB_OF_A),
        f"RuntimeError('{JOB_OF_A} is unexpected')",
    )
    assert decode(dead_letter.data) == changed(JOB_OF_A, 7)
    await settled(bench)


def renamed(event: ObjectChanged, **metadata: str) -> ObjectChanged:
    """The event, with another identity in its object."""
    return structs.replace(
        event, object={**event.object, "metadata": {**event.object["metadata"], **metadata}}
    )


EVERY_WRITE = (job(), DeleteObject(JOB_OF_A, "job"), PatchObject(JOB_OF_A, "job", {"spec": {}}))
FORGED = [
    pytest.param(A, changed(A, 9), None, id="an-absent-object"),
    pytest.param(A, changed(A, 9, "another"), changed(A, 3), id="another-uid"),
    pytest.param(
        A,
        structs.replace(
            changed(A, 9), object={**changed(A, 9).object, "apiVersion": "unserved.example/v1"}
        ),
        changed(A, 3),
        id="api-version",
    ),
    pytest.param(
        A,
        structs.replace(changed(A, 9), object={"metadata": changed(A, 9).object["metadata"]}),
        changed(A, 3),
        id="no-api-version",
    ),
    pytest.param(A, renamed(changed(A, 9), uid="another"), changed(A, 3), id="uid-in-the-body"),
    pytest.param(A, renamed(changed(A, 9), name="b"), changed(A, 3), id="name-in-the-body"),
    pytest.param(
        A,
        renamed(changed(A, 9), namespace="kube-system"),
        changed(A, 3),
        id="namespace-in-the-body",
    ),
    pytest.param(
        elsewhere := Key(CACHE.kind, "kube-system", "a"),
        changed(elsewhere, 9),
        changed(A, 3),
        id="kube-system",
    ),
]


@pytest.mark.parametrize("action", EVERY_WRITE, ids=lambda action: type(action).__name__)
@pytest.mark.parametrize(("key", "forged", "stored"), FORGED)
async def test_nothing_is_written_for_what_only_the_bus_has(
    bench: Bench, key: Key, forged: ObjectChanged, stored: ObjectChanged | None, action: Action
) -> None:
    if stored is not None:
        bench.cluster.objects[A] = stored.object
    await bench.started(lambda _state, obj: actions(action) if obj.key == key else EMPTY_PLAN, B)
    await bench.forge(forged)
    await until(lambda: key in bench.planner.planned)
    await settled(bench)
    assert (bench.cluster.applied, bench.cluster.deleted, bench.cluster.patched) == ([], [], [])
    assert bench.loop.state.get(key) is None
    assert bench.of(ActionTaken) == []


async def test_a_handler_is_not_called_for_what_only_the_bus_has(
    watcher_bus: Bus, service_bus: Bus
) -> None:
    handled: list[Key] = []

    async def handle(action: Action, _ctx: ActionContext, /) -> ActionResult:
        assert isinstance(action, SendEvent)
        handled.append(action.regarding)
        return ActionResult()

    service = Component(
        NAME,
        (CACHE,),
        (CACHE,),
        map_to_keys,
        lambda _state, key, _now: actions(SendEvent(key, key.name, "Normal", "Ok", "ready")),
    )
    loop = Controller(
        service, service_bus, cast(Cluster, cluster_of(changed(B, 2))), Health(), handle
    )
    task = asyncio.ensure_future(loop.run())
    for message in (changed(A, 1), changed(B, 2), synced(CACHE)):
        await watcher_bus.publisher.publish(message)
    await until(lambda: handled == [B] and loop.queue.idle)
    assert loop.state.get(A) is None
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_what_was_forged_counts_once_the_watcher_publishes_it(bench: Bench) -> None:
    await bench.started(lambda _state, obj: actions(job()) if obj.key == A else EMPTY_PLAN, B)
    await bench.forge(changed(A, 9, "another"))
    await until(lambda: A in bench.planner.planned)
    await settled(bench)
    await bench.publish(changed(A, 4))
    await until(lambda: len(bench.cluster.applied) == 1)


async def test_an_object_is_confirmed_once(bench: Bench) -> None:
    await bench.started(
        lambda _state, obj: actions(DeleteObject(JOB_OF_A, "job")) if obj.key == A else EMPTY_PLAN,
        A,
    )
    for version in (5, 6):
        await bench.publish(changed(A, version))
        await settled(bench)
    assert len(bench.cluster.deleted) > 1
    assert bench.cluster.got.count(A) == 1


async def test_a_successor_of_the_same_name_is_confirmed(bench: Bench) -> None:
    await bench.started(
        lambda _state, obj: actions(DeleteObject(JOB_OF_A, "job")) if obj.key == A else EMPTY_PLAN,
        A,
    )
    await settled(bench)
    deletion = ObjectDeleted(
        kind=A.kind,
        namespace="ml",
        name="a",
        uid="a",
        resource_version="7",
        object=changed(A, 7).object,
    )
    await bench.publish(deletion, changed(A, 8, "successor"))
    await settled(bench)
    assert bench.cluster.got.count(A) == 2


async def test_the_404_of_a_proxy_does_not_make_an_object_forgotten(bench: Bench) -> None:
    get, answers = bench.cluster.get, [NotFound("404 page not found", status=404)]

    async def behind_a_proxy(resource: Resource, namespace: str | None, name: str) -> Body:
        if answers and resource == CACHE:
            raise answers.pop()
        return await get(resource, namespace, name)

    bench.cluster.get = behind_a_proxy  # type: ignore[method-assign]
    await bench.started(lambda _state, obj: actions(job()) if obj.key == A else EMPTY_PLAN, A)
    await until(lambda: len(bench.cluster.applied) == 1)
    assert answers == []


async def test_nothing_is_written_while_existence_is_unknown(
    bench: Bench,
) -> None:
    """The object also stays in the state: the permissions of an earlier release may not include
    `get`."""

    async def rejects(resource: Resource, namespace: str | None, name: str) -> Body:
        raise Forbidden(f"cannot get {resource.plural} {namespace}/{name}", status=403)

    bench.cluster.get = rejects  # type: ignore[method-assign]
    await bench.started(
        lambda _state, obj: actions(DeleteObject(JOB_OF_A, "job")) if obj.key == A else EMPTY_PLAN,
        A,
    )
    await until(lambda: len(bench.planner.rejections) > 1)
    assert bench.planner.rejections[-1] == ApplyRejected(JOB_OF_A, "cannot get modelcaches ml/a")
    assert bench.cluster.deleted == []
    assert bench.loop.state.get(A) is not None


async def test_a_plan_that_waits_is_carried_out_when_the_term_ends(
    watcher_bus: Bus, service_bus: Bus
) -> None:
    cluster = cluster_of(changed(A, 1))
    planner = Planner(lambda _state, _obj: Plan(actions=(job(),), hold_s=3600.0))
    service = Component(NAME, (CACHE,), (CACHE,), map_to_keys, planner.plan)
    loop = Controller(service, service_bus, cast(Cluster, cluster), Health())
    running = asyncio.ensure_future(loop.run())
    for message in (changed(A, 1), synced(CACHE)):
        await watcher_bus.publisher.publish(message)
    await until(lambda: planner.planned == [A] and loop.queue.idle)
    assert cluster.applied == []
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(cluster.applied) == 1
    recorded = [
        item.message
        async for item in read_log(watcher_bus, ["aim.action.>"])
        if isinstance(item, Event) and isinstance(item.message, ActionTaken)
    ]
    assert [action.name for action in recorded] == [JOB_OF_A.name], "its record too"


async def test_a_better_plan_replaces_one_that_waits(bench: Bench) -> None:
    def decide(_state: Projection, obj: KubeObject) -> Plan:
        better = actions(claim()) if obj.version > 1 else Plan(actions=(job(),), hold_s=3600.0)
        return better if obj.key == A else EMPTY_PLAN

    await bench.started(decide, A)
    await settled(bench)
    assert bench.cluster.applied == []
    await bench.publish(changed(A, 5))
    await settled(bench)
    assert {body["kind"] for body in bench.cluster.applied} == {CLAIM.kind}


async def test_a_plan_waits_no_longer_than_it_may(bench: Bench) -> None:
    await bench.started(
        lambda _state, obj: Plan(actions=(job(),), hold_s=0.01) if obj.key == A else EMPTY_PLAN,
        A,
    )
    await until(lambda: len(bench.cluster.applied) == 1)


GUARDED: list[tuple[KubeError | None, str | None, bool]] = [
    (None, "a", True),
    (None, "another", False),
    (NotFound("gone", status=404), None, False),
    (Conflict("newer", status=409), None, False),
]


@dataclass(frozen=True, slots=True)
class Guarded(Action):
    """A write that the API server rejects for an object that it does not have."""

    verb: ClassVar[str] = "guarded"
    is_guarded: ClassVar[bool] = True


@pytest.mark.parametrize(("error", "uid", "counts"), GUARDED)
async def test_a_guarded_write_is_confirmed_by_its_answer(
    watcher_bus: Bus, service_bus: Bus, error: KubeError | None, uid: str | None, counts: bool
) -> None:
    """Only where it has no answer is the object read, which here only the bus has."""

    async def handle(_action: Action, _ctx: ActionContext, /) -> ActionResult:
        if error is not None and not isinstance(error, NotFound):
            raise error
        if error is not None:
            return ActionResult()
        metadata = {**changed(A, 5).object["metadata"], "uid": uid}
        return ActionResult.from_response({**changed(A, 5).object, "metadata": metadata})

    cluster, planner = FakeCluster(), Planner(lambda _state, obj: actions_of(obj))
    service = Component(NAME, (CACHE,), (CACHE,), map_to_keys, planner.plan)
    loop = Controller(service, service_bus, cast(Cluster, cluster), Health(), handle)
    running = asyncio.ensure_future(loop.run())
    for message in (changed(A, 1), synced(CACHE)):
        await watcher_bus.publisher.publish(message)
    await until(lambda: A in planner.planned and loop.queue.idle)
    obj = loop.state.get(A)
    assert (obj is not None and obj.version == 5) == counts
    assert cluster.got == ([] if error is None else [A])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def actions_of(obj: KubeObject) -> Plan:
    return actions(Guarded()) if obj.version == 1 else EMPTY_PLAN
