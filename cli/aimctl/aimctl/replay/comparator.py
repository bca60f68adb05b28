"""Where a replay differs from the record. Pure; docs/adr/0020 has the rule.

For each object, what the service reports (the statuswriter: the status it writes):

1. Reported then and not now. Every recorded report must be among the replayed ones, in the same
   order and no later than `GRACE_S` after it. More in between is fine: the live service reconciles
   a key once for several events.
2. Not reported then and reported now. A replayed report that stays for longer than `SETTLES_S` must
   be the last one recorded, before another takes its place or the record ends.

For each action (for which object, what, on which):

3. Done then and not now. A recorded action must have been planned since the last of its kind. An
   applied object must have, in every field that the service sets, the value that it would set.
4. Not done then and done now. A planned action that would change something and stays planned for
   longer than `SETTLES_S` must be recorded.

Times are equal within `CLOCK_S`: the live service reconciled a moment after the event.
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aim_cacher.actions import CreateClaim, EvictCache
from aim_discovery.actions import InspectImage, ReadLog
from aim_statuswriter.actions import WriteStatus
from aimbus import Event
from aimcontroller.action import Action, ApplyObject, DeleteObject, PatchObject
from aimcontroller.applier import CREATE_ONLY_KINDS
from aimcontroller.drift import digest, managed_fields_of
from aimctl.analysis.diff import alike, applied_alike, as_shown, differing, summarize
from aimctl.replay.engine import OwnEvent, Reconciliation, Step
from aimctl.replay.inferred_observations import without_unknowable
from aimschema.messages import ActionTaken, ObjectChanged, StatusReported
from aimschema.resources import Key

GRACE_S = 1.0
SETTLES_S = 5.0
MAX_BODIES = 8
MAX_ENTRIES = 64


@dataclass(frozen=True, slots=True)
class Difference:
    """`then` was recorded, `now` would be; `at` names the fields that differ. `seq`: the report
    or action, or the event after which it would come."""

    seq: int
    time: datetime.datetime
    key: Key
    what: str
    then: str
    now: str
    at: tuple[tuple[str, str, str], ...] = ()


ActionKey: TypeAlias = tuple[Key, str, Key]
WRITING = ApplyObject | DeleteObject | PatchObject | CreateClaim | EvictCache
RECORDED = WRITING | InspectImage | ReadLog
"""Actions that are published and compared."""
"""For which object, what, on which object."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """`value` is compared; `whole` is shown. `instead` is what would have been reported at that
    moment."""

    seq: int
    time: datetime.datetime
    value: Any
    whole: Any = None
    instead: Any = None


@dataclass
class _ReportHistory:
    """The reports on one object: replayed values since the last recorded one. `open` is not
    recorded yet (rule 2), `unmatched` is not replayed yet (rule 1)."""

    entries: list[_Entry] = field(default_factory=list)
    open: _Entry | None = None
    unmatched: _Entry | None = None


@dataclass
class _PlannedAction:
    """An action as planned: bodies since it was last done (and the one that was), and since when
    it would change something."""

    bodies: list[Any]
    current: bool = True
    done: bool = False
    open: _Entry | None = None


class Comparator:
    """Takes the steps of a replay in order; `take` and `end` give the differences that they make
    certain."""

    def __init__(self) -> None:
        self._histories: dict[Key, _ReportHistory] = {}
        self._planned: dict[ActionKey, _PlannedAction] = {}
        self._of: dict[Key, tuple[set[Key], set[ActionKey]]] = {}
        self._applied: dict[Key, tuple[str, Any]] = {}
        self._failing: dict[Key, str] = {}

    def take(self, step: Step) -> Iterator[Difference]:
        match step:
            case Reconciliation():
                yield from self._take_reconciliation(step)
            case OwnEvent(event=event, wrote=wrote):
                match event.message:
                    case StatusReported() as report:
                        yield from self._record_report(
                            Key(report.kind, report.namespace, report.name), event, report
                        )
                    case ActionTaken() as action:
                        yield from self._record_action(event, action, wrote)

    def news(self, step: Step) -> list[str]:
        """The new actions and reports of a step, as text; call it before `take`."""
        if isinstance(step, OwnEvent):
            message = step.event.message
            if isinstance(message, StatusReported):
                return [f"reported on {message.kind} {message.name}: {summarize(message)}"]
            assert isinstance(message, ActionTaken)
            ended = f"{message.outcome} {message.detail}".rstrip()
            return [f"{message.verb} {message.kind} {message.name}: {ended}"]
        new_reports = [
            f"would report on {report.key}: {summarize(whole)}"
            for report in step.plan.reports
            if not _is_reported(
                self._histories.get(report.key),
                without_unknowable(whole := report.message(step.service)),
                _last_reported(step, report.key),
            )
        ]
        new_actions = [
            f"would {action_key[1]} {action_key[2]}"
            for action in step.plan.actions
            if isinstance(action, RECORDED | WriteStatus)
            and (
                (planned := self._planned.get(action_key := _action_key(step.key, action))) is None
                or planned.open is None
            )
            and self._changes_something(step, action)
        ]
        return [
            *([f"the planner fails: {step.failed}"] if step.failed else []),
            *new_reports,
            *new_actions,
        ]

    def end(self, now: datetime.datetime) -> Iterator[Difference]:
        for key, history in self._histories.items():
            yield from _differences_of_unmatched(key, history)
            yield from self._settle(key, history, now)
        for action_key, planned in self._planned.items():
            yield from _undone(action_key, planned, now)

    def _take_reconciliation(self, reconciliation: Reconciliation) -> Iterator[Difference]:
        if reconciliation.failed and self._failing.get(reconciliation.key) != reconciliation.failed:
            yield Difference(
                reconciliation.seq,
                reconciliation.time,
                reconciliation.key,
                "the planner fails",
                "",
                reconciliation.failed,
            )
        self._failing[reconciliation.key] = reconciliation.failed
        reported, action_keys = self._of.get(reconciliation.key, (set(), set()))
        values: dict[Key, Any] = {
            report.key: report.message(reconciliation.service)
            for report in reconciliation.plan.reports
        }
        values |= {
            action.key: action.status
            for action in reconciliation.plan.actions
            if isinstance(action, WriteStatus)
        }
        for key, value in values.items():
            yield from self._plan_report(key, reconciliation, value)
        for key in reported - values.keys():
            yield from self._settle(key, self._histories[key], reconciliation.time)
        recorded = (
            action for action in reconciliation.plan.actions if isinstance(action, RECORDED)
        )
        actions = {_action_key(reconciliation.key, action): action for action in recorded}
        for action_key, action in actions.items():
            self._plan_action(action_key, reconciliation, action)
        for action_key in action_keys - actions.keys():
            planned = self._planned[action_key]
            planned.current = False
            planned.bodies = [] if planned.done else planned.bodies
            planned.done = False
            yield from _undone(action_key, planned, reconciliation.time)
        self._of[reconciliation.key] = (set(values), set(actions))

    def _plan_report(
        self, key: Key, reconciliation: Reconciliation, whole: Any
    ) -> Iterator[Difference]:
        history = self._histories.setdefault(key, _ReportHistory())
        value = without_unknowable(whole)
        entry = _Entry(reconciliation.seq, reconciliation.time, value, whole)
        if not history.entries or not alike(history.entries[-1].value, value):
            history.entries = [*history.entries[-MAX_ENTRIES:], entry]
        if history.unmatched is not None:
            if (reconciliation.time - history.unmatched.time).total_seconds() > GRACE_S:
                yield from _differences_of_unmatched(key, history)
            elif alike(history.unmatched.value, value):
                history.unmatched = None
        last = _last_reported(reconciliation, key)
        if last is not None and alike(last, value):
            yield from self._settle(key, history, reconciliation.time)
        elif history.open is None or not alike(history.open.value, value):
            yield from self._settle(key, history, reconciliation.time)
            history.open = entry

    def _record_report(self, key: Key, event: Event, whole: Any) -> Iterator[Difference]:
        history = self._histories.setdefault(key, _ReportHistory())
        value = without_unknowable(whole)
        instead = history.entries[-1].whole if history.entries else None
        entry = _Entry(event.seq, event.time, value, whole, instead)
        yield from _differences_of_unmatched(key, history)
        if history.open is not None and alike(history.open.value, value):
            history.open = None
        match = next(
            (
                number
                for number, earlier in enumerate(history.entries)
                if alike(earlier.value, value)
            ),
            None,
        )
        if match is None:
            history.unmatched = entry
        else:
            history.entries = history.entries[match:]

    def _settle(
        self, key: Key, history: _ReportHistory, now: datetime.datetime
    ) -> Iterator[Difference]:
        """Rule 2: what was open is not any more."""
        if (entry := history.open) is not None and (now - entry.time).total_seconds() > SETTLES_S:
            yield Difference(
                entry.seq,
                entry.time,
                key,
                "would be reported now, was not then",
                "",
                summarize(entry.whole),
            )
        history.open = None

    def _plan_action(
        self, action_key: ActionKey, reconciliation: Reconciliation, action: Action
    ) -> None:
        body = action.body if isinstance(action, ApplyObject) else None
        planned = self._planned.get(action_key)
        if planned is None:
            planned = self._planned[action_key] = _PlannedAction([])
        planned.current = True
        if body not in planned.bodies:
            planned.bodies = [*planned.bodies[-MAX_BODIES:], body]
        if not self._changes_something(reconciliation, action):
            planned.open = None
        elif planned.open is None:
            planned.open = _Entry(reconciliation.seq, reconciliation.time, action)

    def _changes_something(self, reconciliation: Reconciliation, action: Action) -> bool:
        """As aimcontroller.applier decides it. What was there before the record began is taken
        to be as the service applied it."""
        if not isinstance(action, ApplyObject):
            return True
        existing = reconciliation.state.get(action.key)
        if existing is None:
            return True
        if existing.deleting or action.key.kind in CREATE_ONLY_KINDS:
            return False
        would_be = (digest(action.body), managed_fields_of(action.body, existing.body))
        return self._applied.setdefault(action.key, would_be) != would_be

    def _record_action(
        self, event: Event, action: ActionTaken, wrote: ObjectChanged | None
    ) -> Iterator[Difference]:
        target = Key(action.kind, action.namespace, action.name)
        if action.verb == WriteStatus.verb:
            if wrote is not None:
                yield from self._record_report(target, event, wrote.object.get("status") or {})
            return
        action_key = (action.about, action.verb, target)
        planned = self._planned.get(action_key)
        if planned is None or not planned.bodies:
            yield Difference(
                event.seq,
                event.time,
                action.about,
                "was done then, would not be now",
                f"{action.verb} {target}",
                "",
            )
            return
        body = planned.bodies[-1]
        if wrote is not None and body is not None:
            yield from _applied_otherwise(event, action_key, planned, wrote)
            self._applied[target] = (digest(body), managed_fields_of(body, wrote.object))
        planned.bodies = [body] if planned.current else []
        planned.done = planned.current
        planned.open = None


def _action_key(about: Key, action: Action) -> ActionKey:
    """As aimcontroller.controller records it: what is neither applied nor deleted is on the
    object it is for."""
    return (
        about,
        action.verb,
        action.target if isinstance(action, WRITING) else about,
    )


def _last_reported(reconciliation: Reconciliation, key: Key) -> Any:
    """The last report of the service on an object; for the statuswriter, its status."""
    report = reconciliation.state.report(key, reconciliation.service)
    return None if report is None else without_unknowable(report)


def _is_reported(history: _ReportHistory | None, value: Any, last: Any) -> bool:
    """Whether it was reported then, or would have been at the last reconcile."""
    return (last is not None and alike(last, value)) or (
        history is not None and history.open is not None and alike(history.open.value, value)
    )


def _differences_of_unmatched(key: Key, history: _ReportHistory) -> Iterator[Difference]:
    """Rule 1: no replayed report matches the recorded one."""
    entry, history.unmatched = history.unmatched, None
    if entry is not None:
        at = () if entry.instead is None else tuple(differing(entry.whole, entry.instead))
        yield Difference(
            entry.seq,
            entry.time,
            key,
            "was reported then, would not be now",
            summarize(entry.whole),
            summarize(entry.instead),
            at,
        )


def _undone(
    action_key: ActionKey, offered: _PlannedAction, now: datetime.datetime
) -> Iterator[Difference]:
    """Rule 4: what was planned is not any more."""
    planned, offered.open = offered.open, None
    if planned is not None and (now - planned.time).total_seconds() > SETTLES_S:
        about, verb, target = action_key
        yield Difference(
            planned.seq,
            planned.time,
            about,
            "would be done now, was not then",
            "",
            f"{verb} {target}",
        )


def _applied_otherwise(
    event: Event, action_key: ActionKey, planned: _PlannedAction, wrote: ObjectChanged
) -> Iterator[Difference]:
    """Rule 3: none of the bodies that were planned is what was applied."""
    if not any(applied_alike(wrote, body) for body in planned.bodies):
        about, verb, target = action_key
        at = tuple(
            differing(wrote.object, as_shown(wrote.object, planned.bodies[-1]), applied=True)
        )
        yield Difference(
            event.seq,
            event.time,
            about,
            "would be applied otherwise now",
            f"{verb} {target}",
            f"{verb} {target}",
            at,
        )
