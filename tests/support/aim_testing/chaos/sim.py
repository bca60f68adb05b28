"""The whole control plane in one thread without I/O: all planners on a cluster that is a dict, a
bus that is a list, and a clock that jumps.

The control loop of every service is modelled after aimcontroller.controller: fold, collect the
affected keys, plan, report, act, fold the responses. The caller chooses the steps: deliver the next
message of a subject to a service, reconcile a key, or let the node act. Any order of such steps is
possible in reality.
"""

import datetime
import random
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast
from uuid import UUID

from aim_cacher.actions import CreateClaim, EvictCache, FollowLog
from aim_cacher.storage_handlers import Handlers
from aim_discovery.actions import InspectImage, ReadLog
from aim_discovery.catalogue import INSPECTION, Inspection
from aim_discovery.dry_run_output import LOG, ReadLogResult, digest_log
from aim_discovery.image_labels import ImageLabels
from aim_statuswriter.actions import SendEvent, WriteStatus
from aim_testing.chaos.observer import Get
from aimcontroller.action import Action, ApplyObject, DeleteObject, PatchObject
from aimcontroller.additions import merge, removal
from aimcontroller.component import Component
from aimcontroller.handler import ActionContext
from aimcontroller.plan import Plan
from aimcontroller.projection import (
    PENDING_CREATE,
    Observation,
    Projection,
    changed_from_response,
    drop_object,
    drop_reports,
    fold,
    reset_report_order,
)
from aimctl.component_registry import PLANNERS, planner
from aimkube import Conflict, NotFound
from aimkube.watch import Snapshot
from aimlab.apiserver.objects import clone
from aimlab.kinds import Body, stamp
from aimschema.messages import (
    KindSynced,
    Message,
    ObjectChanged,
    ObjectDeleted,
    StatusReported,
    subject_of,
)
from aimschema.resources import AIM_KINDS, POD, RESOURCES, Key, Resource, key_of

T = TypeVar("T")
JUDGED = frozenset(resource.kind for resource in AIM_KINDS)
START = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
RETRY_S = 1.0
Judge = Callable[[Body | None, Body, Get], list[str]]
"""What is wrong with a version of an AIM object, from the one before it and the cluster."""


class OutOfDateError(Exception):
    """409: the version or uid that was named is not there any more."""


def services() -> list[Component]:
    """All five that plan, as their processes wire them."""
    return [planner(name) for name in PLANNERS]


class Cluster:
    """An API server as far as it matters: versions, uids, generations, owners, server-side apply
    of what one manager sends."""

    def __init__(self, clock: "Clock", judge: Judge) -> None:
        self.objects: dict[Key, Body] = {}
        self._by_kind: defaultdict[str, set[Key]] = defaultdict(set)
        self.changed: Callable[[Message], object] = lambda _: None
        self.violations: list[str] = []
        self._clock = clock
        self._judge = judge
        self._version = 100
        self._uids = 0
        self._sent: dict[tuple[Key, str], Body] = {}

    def get(self, resource: Resource, namespace: str, name: str) -> Body | None:
        return self.objects.get(Key(resource.kind, namespace or None, name))

    def of(self, kind: str) -> list[Body]:
        keys = self._by_kind.get(kind, ())
        return [self.objects[key] for key in sorted(keys, key=_namespace_and_name)]

    def create(self, body: Body) -> Body:
        self._uids += 1
        made = clone(body)
        made["metadata"] |= {
            "uid": str(UUID(int=self._uids)),
            "creationTimestamp": stamp(self._clock.now),
            "generation": 1,
        }
        if made["kind"] in {"AIMService"}:
            made["spec"] = {
                "configRef": "default",
                "replicas": 1,
                "cacheModel": True,
                **made["spec"],
            }
        if made["kind"] == "AIMServiceTemplate":
            made["spec"] = {"precision": "auto", **made["spec"]}
        return self._store(made)

    def apply(self, body: Body, manager: str) -> Body:
        """Fields sent before and left out now go; raises OutOfDateError where the uid is
        another's."""
        key = key_of(body)
        existing, before = self.objects.get(key), self._sent.get((key, manager), {})
        self._sent[key, manager] = clone(body)
        if existing is None:
            if "uid" in body["metadata"]:
                raise OutOfDateError
            return self.create(body)
        if body["metadata"].get("uid", existing["metadata"]["uid"]) != existing["metadata"]["uid"]:
            raise OutOfDateError
        merged = _merged(_without(clone(existing), before, body), body)
        if merged == existing:
            unchanged: Body = clone(existing)
            return unchanged
        if merged.get("spec") != existing.get("spec"):
            merged["metadata"]["generation"] += 1
        return self._store(merged)

    def apply_status(self, key: Key, version: str, status: Body) -> Body | None:
        """None if the object was deleted; raises OutOfDateError if it has been written since."""
        existing = self.objects.get(key)
        if existing is None:
            return None
        if existing["metadata"]["resourceVersion"] != version:
            raise OutOfDateError
        return self._store({**clone(existing), "status": clone(status)})

    def patch(self, body: Body, **fields: Body) -> Body | None:
        """What others than the control plane write: parts of spec or status, of this very
        object."""
        existing = self.objects.get(key_of(body))
        if existing is None or existing["metadata"]["uid"] != body["metadata"]["uid"]:
            return None
        merged = _merged(clone(existing), fields)
        if merged.get("spec") != existing.get("spec"):
            merged["metadata"]["generation"] += 1
        return self._store(merged)

    def merge_patch(self, key: Key, uid: str, patch: Body) -> Body | None:
        existing = self.objects.get(key)
        if existing is None or existing["metadata"]["uid"] != uid:
            return None
        version = existing["metadata"]["resourceVersion"]
        if patch.get("metadata", {}).get("resourceVersion", version) != version:
            raise OutOfDateError
        return self._store(clone(merge(existing, patch)))

    def delete(self, key: Key, uid: str | None = None) -> None:
        """With everything it owns, at once."""
        existing = self.objects.get(key)
        if existing is None or uid not in {None, existing["metadata"]["uid"]}:
            return
        del self.objects[key]
        self._by_kind[key.kind].remove(key)
        self._sent = {sent: body for sent, body in self._sent.items() if sent[0] != key}
        self._version += 1
        deleted_uid = existing["metadata"]["uid"]
        self.changed(
            ObjectDeleted(
                kind=key.kind,
                namespace=key.namespace,
                name=key.name,
                uid=deleted_uid,
                resource_version=str(self._version),
                object=existing,
            )
        )
        for owned in [
            key_of(body)
            for body in self.objects.values()
            if any(ref["uid"] == deleted_uid for ref in body["metadata"].get("ownerReferences", ()))
        ]:
            self.delete(owned)

    def _store(self, body: Body) -> Body:
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        key = key_of(body)
        if key.kind in JUDGED:
            self.violations += self._judge(self.objects.get(key), body, self.get)
        self.objects[key] = body
        self._by_kind[key.kind].add(key)
        self.changed(changed_from_response(clone(body)))
        answer: Body = clone(body)
        return answer


def _namespace_and_name(key: Key) -> tuple[str, str]:
    return key.namespace or "", key.name


def _merged(existing: Any, sent: Any) -> Any:
    if isinstance(existing, dict) and isinstance(sent, dict):
        return existing | {
            field: _merged(existing.get(field), value) for field, value in sent.items()
        }
    return clone(sent)


def _without(existing: Body, before: Body, now: Body) -> Body:
    """Annotations and data that the manager sent before and sends no more."""
    metadata = existing["metadata"]
    dropped = (before.get("metadata", {}).get("annotations") or {}).keys() - (
        now["metadata"].get("annotations") or {}
    ).keys()
    if dropped:
        metadata["annotations"] = {
            name: value for name, value in metadata["annotations"].items() if name not in dropped
        }
    return existing


@dataclass
class Clock:
    now: datetime.datetime = START

    def at(self, after_s: float) -> datetime.datetime:
        return self.now + datetime.timedelta(seconds=after_s)


@dataclass
class Bus:
    """The latest message of every subject, as in AIM_STATE, and all messages, as in AIM_LOG."""

    latest: dict[str, tuple[int, Message]] = field(default_factory=dict)
    readers: list["Process"] = field(default_factory=list)
    published: list[tuple[int, Message]] = field(default_factory=list)
    seq: int = 0

    def publish(self, message: Message) -> int:
        self.seq += 1
        self.published.append((self.seq, message))
        self.latest[subject_of(message)] = (self.seq, message)
        for reader in self.readers:
            reader.hear(subject_of(message), self.seq, message)
        return self.seq


class Process:
    """One service as a process: its state, its pending messages, and its queued keys."""

    def __init__(
        self, service: Component, bus: Bus, cluster: Cluster, clock: Clock, logs: dict[Key, str]
    ) -> None:
        self.service = service
        self.unheard: dict[str, list[tuple[int, Message]]] = {}
        self.queue: dict[Key, None] = {}
        self.timers: dict[Key, datetime.datetime] = {}
        self.state = Projection()
        self._heard: list[tuple[int, Message]] = []
        self._kinds = {resource.kind for resource in service.watches}
        self._bus = bus
        self._cluster = cluster
        self._clock = clock
        self._logs = logs

    def hear(self, subject: str, seq: int, message: Message) -> None:
        if self._follows(message):
            self.unheard.setdefault(subject, []).append((seq, message))

    def _follows(self, message: Message) -> bool:
        match message:
            case StatusReported():
                return bool(self.service.reports) or message.service == self.service.name
            case ObjectChanged() | ObjectDeleted() | KindSynced():
                return message.kind in self._kinds
        return False

    def deliver(self, subject: str) -> None:
        """The next message of a subject, once."""
        seq, message = self.unheard[subject].pop(0)
        if not self.unheard[subject]:
            del self.unheard[subject]
        self._heard.append((seq, message))
        self._take(seq, message)

    def skip_to_last(self, subject: str) -> None:
        """A slow reader of a stream that keeps the latest does not see what was between."""
        self.unheard[subject] = self.unheard[subject][-1:]

    def deliver_again(self, rng: random.Random) -> None:
        """Something that was heard before, the latest of its subject or not."""
        if self._heard:
            self._take(*rng.choice(self._heard))

    def _take(self, seq: int, message: Message) -> None:
        if isinstance(message, KindSynced):
            self.state = fold(self.state, message, seq)
            return
        assert not isinstance(message, Observation)
        key = Key(message.kind, message.namespace, message.name)
        if isinstance(message, StatusReported):
            self.state = fold(self.state, message, seq)
            touched = {key} if self.service.reports else set()
        else:
            before = self.state
            self.state = fold(self.state, message, seq)
            touched = set(self.service.keys_to_reconcile(before, self.state, key))
        for each in sorted(touched, key=str):
            self.queue.setdefault(each)

    def restart(self) -> None:
        """kill -9 and a new process, which loads AIM_STATE."""
        self.state = Projection()
        self.reload()

    def reload(self) -> None:
        """As after any doubt about the connection: everything again, and what did not come is
        gone."""
        self.unheard = {}
        self.queue = {}
        self.timers = {}
        self._heard = []
        self.state = reset_report_order(self.state)
        objects, reports = set(), set()
        for seq, message in self._bus.latest.values():
            if self._follows(message):
                self.state = fold(self.state, message, seq)
                self._heard.append((seq, message))
                if isinstance(message, StatusReported):
                    reports.add(
                        (Key(message.kind, message.namespace, message.name), message.service)
                    )
                elif isinstance(message, ObjectChanged | ObjectDeleted):
                    objects.add(Key(message.kind, message.namespace, message.name))
        for key in [obj.key for obj in self.state.all_objects() if obj.key not in objects]:
            self.state = drop_object(self.state, key)
        self.state = drop_reports(
            self.state, [report for report in self.state.report_keys() if report not in reports]
        )
        keys = [
            obj.key
            for resource in self.service.reconciles
            for obj in self.state.in_all_namespaces(resource.kind)
        ]
        self.queue |= dict.fromkeys(
            sorted(keys, key=str)
        )  # (the order must not depend on hashes: a seed is to be had again)

    def work(self, key: Key, dies_before: int | None = None) -> None:
        """Reconcile a key. `dies_before`: killed before that many reports and actions; the cluster
        may then have more than the process knows."""
        self.queue.pop(key, None)
        plan = self.service.plan(self.state, key, self._clock.now)
        self._wake(key, plan.requeue_after_s)
        for number, step in enumerate(self._steps(plan, key)):
            if number == dies_before:
                self.restart()
                return
            try:
                step()
            except OutOfDateError:
                self._wake(key, RETRY_S)
                return

    def _wake(self, key: Key, after_s: float | None) -> None:
        if after_s is not None:
            self.timers[key] = min(
                self._clock.at(after_s), self.timers.get(key, self._clock.at(after_s))
            )

    def _steps(self, plan: Plan, key: Key) -> Iterator[Callable[[], None]]:
        """Each report and action, and each folding of an answer, is a step that a process may
        die before."""
        for report in plan.reports:
            message = report.message(self.service.name)
            if self.state.report(report.key, self.service.name) != message:
                sent: list[int] = []
                yield partial(self._publish, message, sent)
                yield partial(self._fold_report, message, sent)
        for action in plan.actions:
            answers: list[Body] = []
            yield partial(self._act, action, key, answers)
            yield partial(self._fold_answer, action, answers)

    def _publish(self, message: StatusReported, sent: list[int]) -> None:
        sent.append(self._bus.publish(message))

    def _fold_report(self, message: StatusReported, sent: list[int]) -> None:
        self.state = fold(self.state, message, sent[0])

    def _act(self, action: Action, key: Key, answers: list[Body]) -> None:
        match action:
            case ApplyObject():
                self._apply(action, answers)
            case DeleteObject():
                self._cluster.delete(action.key, action.uid)
            case PatchObject():
                answer = self._cluster.merge_patch(action.key, action.uid, action.patch)
                answers += [] if answer is None else [answer]
            case WriteStatus():
                answer = self._cluster.apply_status(
                    action.key, action.resource_version, action.status
                )
                answers += [] if answer is None else [answer]
            case ReadLog():
                pod = self._pod_of(action)
                text = None if pod is None else self._logs.get(pod)
                result = (
                    ReadLogResult(problem="the log does not exist any more")
                    if text is None
                    else digest_log(text.encode())
                )
                self.state = fold(self.state, Observation(action.of, LOG, result))
                self.queue.setdefault(key)
            case InspectImage():
                found = Inspection(
                    action.image,
                    action.inputs,
                    action.attempt,
                    self._clock.now,
                    ImageLabels(action.image),
                )
                self.state = fold(self.state, Observation(action.model, INSPECTION, found))
                self.queue.setdefault(key)
            case CreateClaim() | EvictCache():
                answers += self._handle(action, key)
            case FollowLog() | SendEvent():
                pass

    def _handle(self, action: CreateClaim | EvictCache, key: Key) -> list[Body]:
        """By the cacher's own handlers, on the API of this cluster."""
        try:
            result = finished(Handlers()(action, cast("ActionContext", Api(self._cluster))))
        except Conflict:
            raise OutOfDateError from None
        self._wake(key, result.requeue_after_s)
        return [] if result.response is None else [result.response]

    def _apply(self, action: ApplyObject, answers: list[Body]) -> None:
        obj = self.state.get(action.key)
        if obj is not None and obj.deleting:
            return
        uid = {} if obj is None else {"uid": obj.uid}
        body = {**action.body, "metadata": {**action.body["metadata"], **uid}}
        self.state = fold(self.state, Observation(action.key, PENDING_CREATE, value=True))
        try:
            answers += self._applied(body)
        finally:
            self.state = fold(self.state, Observation(action.key, PENDING_CREATE, None))

    def _applied(self, body: Body) -> list[Body]:
        """The answers to an apply: what others added and must be absent is removed by a patch."""
        answer = self._cluster.apply(body, self.service.name)
        patch = removal(body, answer)
        left = (
            None
            if patch is None
            else self._cluster.merge_patch(key_of(answer), answer["metadata"]["uid"], patch)
        )
        return [answer] if left is None else [answer, left]

    def _pod_of(self, action: ReadLog) -> Key | None:
        if action.of.kind == POD.kind:
            return action.of
        owned = (
            pod
            for pod in self._cluster.of(POD.kind)
            if pod["metadata"]["ownerReferences"][0]["uid"] == action.uid
        )
        return next(map(key_of, owned), None)

    def _fold_answer(self, _action: Action, answers: list[Body]) -> None:
        for answer in answers:
            self.state = fold(self.state, changed_from_response(answer))


class Api:
    """The cluster as handlers of actions have it: no request takes time."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.cluster = self

    async def get(self, resource: Resource, namespace: str, name: str) -> Body:
        return self._existing(Key(resource.kind, namespace, name))

    async def list(self, resource: Resource, namespace: str | None) -> Snapshot:
        found = self._cluster.of(resource.kind)
        items = [clone(body) for body in found if body["metadata"].get("namespace") == namespace]
        return Snapshot(tuple(items), "0")

    async def apply(self, body: Body, *, manager: str) -> Body:
        """Only creates, as an apply with a version that no object has."""
        if key_of(body) in self._cluster.objects:
            raise Conflict("exists")
        metadata = {k: v for k, v in body["metadata"].items() if k != "resourceVersion"}
        return self._cluster.apply({**body, "metadata": metadata}, manager.removeprefix("aim-"))

    async def merge_patch(self, resource: Resource, namespace: str, name: str, patch: Body) -> Body:
        existing = self._existing(Key(resource.kind, namespace, name))
        answer = self._cluster.merge_patch(key_of(existing), existing["metadata"]["uid"], patch)
        assert answer is not None
        return answer

    async def delete_version(self, body: Body) -> None:
        existing, metadata = self._existing(key_of(body)), body["metadata"]
        if existing["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            raise Conflict("changed")
        self._cluster.delete(key_of(body), metadata["uid"])

    def _existing(self, key: Key) -> Body:
        if key not in self._cluster.objects:
            raise NotFound("is not there")
        found: Body = clone(self._cluster.objects[key])
        return found


def finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it waits")


def synced(kinds: Iterable[Resource]) -> list[KindSynced]:
    return [KindSynced(kind=resource.kind, resource_version="1", objects=0) for resource in kinds]


ALL_KINDS = tuple(
    RESOURCES[kind]
    for kind in RESOURCES
    if kind not in {"Event", "Lease", "CustomResourceDefinition", "Namespace"}
)
