"""A service run again over what happened: its own fold and plan, no I/O, no clock but the events'
times. Pure.

1. The picture is built from the record alone. What the service would do or say now changes nothing:
   it can be compared with what was done and said then step by step, and one difference does not
   lead to others.
2. The service looks at every key that an event touches, right after the event and at the event's
   time; at a key whose time to look again has come between two events, at that time; and once more
   at the time of each report and action of its own, for then it did look.
3. It begins as a process does: nothing is planned before all that was there has been folded and
   every followed kind was marked as synced.
4. An own write is seen as soon as it is recorded, not only when the watcher brings it, since the
   service had the answer.
5. Observations that were never on the bus are inferred from what the service then reported
   (aimctl.replay.inferred_observations), or stay unknown.
"""

import datetime
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

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
from aimctl.replay.inferred_observations import learned_from
from aimschema.messages import ActionTaken, KindSynced, ObjectChanged, ObjectDeleted, StatusReported
from aimschema.resources import Key

SOONEST_S = 1.0
"""How soon a key is looked at again at the earliest. Events and own reports are looked at
anyway; this bounds the work between them."""
LONG_AGO = datetime.datetime.min.replace(tzinfo=datetime.UTC)
WRITES = frozenset({"apply", "patch", "write-status"})


@dataclass(frozen=True, slots=True)
class Look:
    """The service looks at a key: the picture it has, what it would do and say. `seq`: the last
    event it knows. `failed`: what the planner raised."""

    service: str
    seq: int
    time: datetime.datetime
    why: str
    key: Key
    seen: Projection
    plan: Plan
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Own:
    """A report or an action of the service itself, as recorded; `wrote` is the version of the
    object that the action made, where that is known."""

    event: Event
    wrote: ObjectChanged | None = None


Step: TypeAlias = Look | Own
Versions: TypeAlias = dict[tuple[Key, str, int], ObjectChanged]
"""By key, version and epoch: after a restore the same version may come again."""


def replay(
    service: Component,
    events: Sequence[Event],
    *,
    begins: int = 0,
    until: datetime.datetime | None = None,
) -> Iterator[Step]:
    """Everything the service looks at, and everything it said and did, in order.

    Events up to `begins` say how things were. `until`: when the record ends; later timers do not
    come due.
    """
    run = _Run(service, begins, _versions(events), events)
    for place, event in enumerate(events):
        yield from run.until(event.time)
        yield from run.take(event, place)
    yield from run.until(until or (events[-1].time if events else LONG_AGO))


def takes_part(service: Component, events: Iterable[Event]) -> bool:
    """Whether the service said or did anything."""
    return any(
        isinstance(event.message, StatusReported | ActionTaken)
        and event.message.service == service.name
        for event in events
    )


def missing_markers(service: Component, events: Iterable[Event]) -> list[str]:
    """Kinds that the record never says are complete: a service that follows one of them plans
    nothing."""
    marked = {event.message.kind for event in events if isinstance(event.message, KindSynced)}
    return [resource.kind for resource in service.follows if resource.kind not in marked]


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
    seen: Projection = field(default_factory=Projection)
    seq: int = 0
    now: datetime.datetime = LONG_AGO
    epoch: int = 0
    started: bool = False

    def __post_init__(self) -> None:
        self.unsynced = {resource.kind for resource in self.service.follows}
        self.follows = frozenset(self.unsynced)
        self.plans_for = frozenset(resource.kind for resource in self.service.plans_for)
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
                yield self.look(key, "its time has come")

    def take(self, event: Event, place: int) -> Iterator[Step]:
        self.now = max(self.now, event.time)
        message = event.message
        if isinstance(message, ObjectChanged | ObjectDeleted | KindSynced):
            self.epoch = max(self.epoch, message.epoch)
        if not self.started and event.seq > self.begins:
            yield from self.start()
        match message:
            case ObjectChanged() | ObjectDeleted() if message.kind in self.follows:
                key = _key(message)
                before = self.seen
                self.fold_in(event)
                yield from self.look_at(self.touched(before, key), event)
            case StatusReported() if message.service == self.service.name:
                yield from self.own(event, self.reported_for(_key(message)), None)
            case StatusReported() if self.service.reports:
                self.fold_in(event)
                yield from self.look_at({_key(message)}, event)
            case ActionTaken() if message.service == self.service.name:
                yield from self.acted(event, message, place)
            case KindSynced():
                yield from self.synced(event, message)
            case _:
                pass

    def start(self) -> Iterator[Step]:
        if self.unsynced:
            return
        self.started = True
        keys = {seen.key for kind in self.plans_for for seen in self.seen.everywhere(kind)}
        yield from (self.look(key, "the start") for key in sorted(keys, key=str))

    def synced(self, event: Event, message: KindSynced) -> Iterator[Step]:
        changed = self.seen.installed(message.kind) != message.installed
        self.fold_in(event)
        self.unsynced.discard(message.kind)
        self.started = self.started and not changed
        if not self.started and event.seq > self.begins:
            yield from self.start()

    def own(self, event: Event, keys: set[Key], wrote: ObjectChanged | None) -> Iterator[Step]:
        """The service looked at these keys, then said or did it, then saw that it had."""
        yield from self.look_at(keys, event, "what it then said or did")
        yield Own(event, wrote)
        self.fold_in(event)
        touched = set[Key]()
        if wrote is not None:
            before = self.seen
            self.seen = fold(self.seen, changed_from_response(wrote.object))
            touched = self.touched(before, _key(wrote))
        yield from self.look_at(keys | touched, event, "its own news")

    def acted(self, event: Event, message: ActionTaken, place: int) -> Iterator[Step]:
        target, wrote = _key(message), None
        if message.outcome == "done" and message.verb in WRITES:
            wrote = self.versions.get((target, message.resource_version, self.epoch))
        yield from self.own(event, {message.about}, wrote)
        for fact in learned_from(
            message, self.planned.get(message.about, ()), self.seen, self.events, place
        ):
            self.seen = fold(self.seen, fact)
            yield from self.look_at({message.about}, event, "what it found out")

    def reported_for(self, key: Key) -> set[Key]:
        """Which keys the service may have looked at to say this."""
        return {key} if key.kind in self.plans_for else self.touched(self.seen, key)

    def touched(self, before: Projection, key: Key) -> set[Key]:
        return (
            set(self.service.touched(before, self.seen, key))
            if self.started and key.kind in self.follows
            else set()
        )

    def fold_in(self, event: Event) -> None:
        self.seen = fold(self.seen, event.message, event.seq)
        self.seq = event.seq

    def look_at(self, keys: set[Key], event: Event, why: str = "") -> Iterator[Step]:
        if self.started:
            for key in sorted(keys, key=str) if len(keys) > 1 else keys:
                if key.kind in self.plans_for:
                    yield self.look(key, why or event.subject)

    def look(self, key: Key, why: str) -> Look:
        try:
            plan, failed = self.service.plan(self.seen, key, self.now), ""
        except Exception as error:  # (a planner may be the very thing that is being tested)
            plan, failed = EMPTY_PLAN, repr(error)
        plan = self.without_refusal(key, plan)
        self.planned[key] = plan.actions
        if plan.requeue_after_s is not None:
            due = self.now + datetime.timedelta(seconds=max(SOONEST_S, plan.requeue_after_s))
            if due < self.due.get(key, due + datetime.timedelta(1)):
                self.due[key] = due
                heapq.heappush(self.timers, (due, key))
        return Look(self.service.name, self.seq, self.now, why, key, self.seen, plan, failed)

    def without_refusal(self, key: Key, plan: Plan) -> Plan:
        """A refusal is forgotten once what was refused is no longer wanted: then the service
        gets through its actions."""
        refusal: ApplyRejected | None = self.seen.learned(key, REJECTED)
        targets = {
            action.key
            for action in plan.actions
            if isinstance(action, ApplyObject | DeleteObject | PatchObject)
        }
        if refusal is None or refusal.target in targets or refusal.target == key:
            return plan
        self.seen = fold(self.seen, Observation(key, REJECTED, None))
        return self.service.plan(self.seen, key, self.now)
