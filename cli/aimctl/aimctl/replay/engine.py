"""Runs a service over a record: its own fold and plan, no I/O, no clock but the times of the
events. Pure.

1. The state comes from the record alone. The results of the replay change nothing: each step is
   compared with the record by itself, and one difference does not lead to others.
2. The service reconciles every key that an event affects, right after the event and at its time. It
   reconciles a key whose requeue time comes between two events at that time. It reconciles once
   more at the time of each of its own reports and actions, since the live service did so too.
3. It starts as a process does: nothing is planned before the initial state is folded and every
   followed kind is marked as synced.
4. An own write is folded as soon as it is recorded, before the watcher publishes it, since the
   service had the response.
5. Observations that were never on the bus are inferred from the following reports
   (aimctl.replay.inferred_observations), or stay unknown.
"""

import datetime
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from aim_cacher.actions import CreateClaim, EvictCache
from aimbus import Event
from aimcontroller.action import Action, ApplyObject, DeleteObject, PatchObject
from aimcontroller.component import Component
from aimcontroller.plan import EMPTY_PLAN, Plan
from aimcontroller.projection import (
    REJECTED,
    ApplyRejected,
    Observation,
    Projection,
    changed_from_response,
    fold,
)
from aimctl.replay.inferred_observations import infer_observations
from aimschema.messages import ActionTaken, KindSynced, ObjectChanged, ObjectDeleted, StatusReported
from aimschema.resources import Key

SOONEST_S = 1.0
"""The shortest requeue delay. Events and own reports are reconciled anyway; this bounds the work
between them."""
LONG_AGO = datetime.datetime.min.replace(tzinfo=datetime.UTC)
WRITES = frozenset({"apply", "patch", "write-status", CreateClaim.verb, EvictCache.verb})


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """A reconcile of a key: the state and the plan. `seq` is the last event that the service knows.
    `failed` is what the planner raised."""

    service: str
    seq: int
    time: datetime.datetime
    why: str
    key: Key
    state: Projection
    plan: Plan
    failed: str = ""


@dataclass(frozen=True, slots=True)
class OwnEvent:
    """A report or an action of the service itself, as recorded; `wrote` is the version of the
    object that the action made, where that is known."""

    event: Event
    wrote: ObjectChanged | None = None


Step: TypeAlias = Reconciliation | OwnEvent
Versions: TypeAlias = dict[tuple[Key, str, int], ObjectChanged]
"""By key, version and epoch: after a restore the same version may come again."""


def replay(
    service: Component,
    events: Sequence[Event],
    *,
    begins: int = 0,
    until: datetime.datetime | None = None,
) -> Iterator[Step]:
    """Every reconcile, and every recorded report and action of the service, in order.

    Events up to `begins` are the initial state. `until` is the end of the record; later timers do
    not fire.
    """
    run = _Run(service, begins, _versions(events), events)
    for place, event in enumerate(events):
        yield from run.until(event.time)
        yield from run.take(event, place)
    yield from run.until(until or (events[-1].time if events else LONG_AGO))


def takes_part(service: Component, events: Iterable[Event]) -> bool:
    """Whether the service reported or did anything."""
    return any(
        isinstance(event.message, StatusReported | ActionTaken)
        and event.message.service == service.name
        for event in events
    )


def missing_markers(service: Component, events: Iterable[Event]) -> list[str]:
    """Kinds without a sync marker in the record: a service that follows one plans nothing."""
    marked = {event.message.kind for event in events if isinstance(event.message, KindSynced)}
    return [resource.kind for resource in service.watches if resource.kind not in marked]


def _versions(events: Iterable[Event]) -> Versions:
    found = (event.message for event in events if isinstance(event.message, ObjectChanged))
    return {(_key(message), message.resource_version, message.epoch): message for message in found}


def _key(message: ObjectChanged | ObjectDeleted | StatusReported | ActionTaken) -> Key:
    return Key(message.kind, message.namespace, message.name)


@dataclass
class _Run:
    service: Component
    begins: int
    versions: Versions
    events: Sequence[Event]
    state: Projection = field(default_factory=Projection)
    seq: int = 0
    now: datetime.datetime = LONG_AGO
    epoch: int = 0
    started: bool = False

    def __post_init__(self) -> None:
        self.unsynced = {resource.kind for resource in self.service.watches}
        self.watches = frozenset(self.unsynced)
        self.reconciles = frozenset(resource.kind for resource in self.service.reconciles)
        self.timers: list[tuple[datetime.datetime, Key]] = []
        self.due: dict[Key, datetime.datetime] = {}
        self.planned: dict[Key, tuple[Action, ...]] = {}

    def until(self, moment: datetime.datetime) -> Iterator[Step]:
        """What comes due before `moment`."""
        while self.timers and self.timers[0][0] <= moment:
            due, key = heapq.heappop(self.timers)
            if self.due.get(key) == due:
                del self.due[key]
                self.now = due
                yield self.reconcile(key, "its time has come")

    def take(self, event: Event, place: int) -> Iterator[Step]:
        self.now = max(self.now, event.time)
        message = event.message
        if isinstance(message, ObjectChanged | ObjectDeleted | KindSynced):
            self.epoch = max(self.epoch, message.epoch)
        if not self.started and event.seq > self.begins:
            yield from self.start()
        match message:
            case ObjectChanged() | ObjectDeleted() if message.kind in self.watches:
                key = _key(message)
                before = self.state
                self.fold_in(event)
                yield from self.reconcile_keys(self.keys_to_reconcile(before, key), event)
            case StatusReported() if message.service == self.service.name:
                yield from self.own(event, self.reported_for(_key(message)), None)
            case StatusReported() if self.service.reports:
                self.fold_in(event)
                yield from self.reconcile_keys({_key(message)}, event)
            case ActionTaken() if message.service == self.service.name:
                yield from self.on_action(event, message, place)
            case KindSynced():
                yield from self.on_synced(event, message)
            case _:
                pass

    def start(self) -> Iterator[Step]:
        if self.unsynced:
            return
        self.started = True
        keys = {obj.key for kind in self.reconciles for obj in self.state.in_all_namespaces(kind)}
        yield from (self.reconcile(key, "the start") for key in sorted(keys, key=str))

    def on_synced(self, event: Event, message: KindSynced) -> Iterator[Step]:
        changed = self.state.is_kind_served(message.kind) != message.installed
        self.fold_in(event)
        self.unsynced.discard(message.kind)
        self.started = self.started and not changed
        if not self.started and event.seq > self.begins:
            yield from self.start()

    def own(self, event: Event, keys: set[Key], wrote: ObjectChanged | None) -> Iterator[Step]:
        """The service reconciled these keys, reported or acted, and then received its own event."""
        yield from self.reconcile_keys(keys, event, "what it then reported or did")
        yield OwnEvent(event, wrote)
        self.fold_in(event)
        touched = set[Key]()
        if wrote is not None:
            before = self.state
            self.state = fold(self.state, changed_from_response(wrote.object))
            touched = self.keys_to_reconcile(before, _key(wrote))
        yield from self.reconcile_keys(keys | touched, event, "its own news")

    def on_action(self, event: Event, message: ActionTaken, place: int) -> Iterator[Step]:
        target, wrote = _key(message), None
        if message.outcome == "done" and message.verb in WRITES:
            wrote = self.versions.get((target, message.resource_version, self.epoch))
        yield from self.own(event, {message.about}, wrote)
        for observation in infer_observations(
            message, self.planned.get(message.about, ()), self.state, self.events, place
        ):
            self.state = fold(self.state, observation)
            yield from self.reconcile_keys({message.about}, event, "what it found out")

    def reported_for(self, key: Key) -> set[Key]:
        """The keys whose reconcile may have led to this report."""
        return {key} if key.kind in self.reconciles else self.keys_to_reconcile(self.state, key)

    def keys_to_reconcile(self, before: Projection, key: Key) -> set[Key]:
        return (
            set(self.service.keys_to_reconcile(before, self.state, key))
            if self.started and key.kind in self.watches
            else set()
        )

    def fold_in(self, event: Event) -> None:
        self.state = fold(self.state, event.message, event.seq)
        self.seq = event.seq

    def reconcile_keys(self, keys: set[Key], event: Event, why: str = "") -> Iterator[Step]:
        if self.started:
            for key in sorted(keys, key=str) if len(keys) > 1 else keys:
                if key.kind in self.reconciles:
                    yield self.reconcile(key, why or event.subject)

    def reconcile(self, key: Key, why: str) -> Reconciliation:
        try:
            plan, failed = self.service.plan(self.state, key, self.now), ""
        except Exception as error:  # (a planner may be the very thing that is being tested)
            plan, failed = EMPTY_PLAN, repr(error)
        plan = self.without_rejection(key, plan)
        self.planned[key] = plan.actions
        if plan.requeue_after_s is not None:
            due = self.now + datetime.timedelta(seconds=max(SOONEST_S, plan.requeue_after_s))
            if due < self.due.get(key, due + datetime.timedelta(1)):
                self.due[key] = due
                heapq.heappush(self.timers, (due, key))
        return Reconciliation(
            self.service.name, self.seq, self.now, why, key, self.state, plan, failed
        )

    def without_rejection(self, key: Key, plan: Plan) -> Plan:
        """Drops a rejection once the rejected object is no longer planned: then the service
        continues with its other actions."""
        rejection: ApplyRejected | None = self.state.observation(key, REJECTED)
        targets = {
            action.key
            for action in plan.actions
            if isinstance(action, ApplyObject | DeleteObject | PatchObject)
        }
        if rejection is None or rejection.target in targets or rejection.target == key:
            return plan
        self.state = fold(self.state, Observation(key, REJECTED, None))
        return self.service.plan(self.state, key, self.now)
