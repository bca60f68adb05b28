"""Where a replay differs from what was said and done then. Pure; the rule is docs/adr/0020.

For each object, what the service reports (the statuswriter: the status it writes):

1. Said then and not now. Every recorded report must be among the replayed ones, in the same order
   and no later than `GRACE_S` after it. More in between is fine: the live service looks at a key
   once for several events.
2. Not said then and said now. A replayed report that stays what the service would say for longer
   than `SETTLES_S` must be the last one recorded, before another takes its place or the record
   ends.

For each action (for which object, what, on which):

3. Done then and not now. A recorded action must have been planned since the last of its kind; an
   object that was applied must have, in every field that the service sets, the value it would set.
4. Not done then and done now. A planned action that would change something and stays planned for
   longer than `SETTLES_S` must be recorded.

Times of the same second, give or take `CLOCK_S`, are the same: the live service looked a moment
after the event.
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aim_discovery.actions import InspectImage, ReadLog
from aim_statuswriter.actions import WriteStatus
from aimbus import Event
from aimcontroller.action import Action, ApplyObject, DeleteObject, PatchObject
from aimcontroller.applier import CREATE_ONLY_KINDS
from aimcontroller.drift import digest, managed_fields_of
from aimctl.analysis.diff import alike, applied_alike, as_shown, differing, words
from aimctl.replay.engine import Look, Own, Step
from aimctl.replay.inferred_observations import known
from aimschema.messages import ActionTaken, ObjectChanged, StatusReported
from aimschema.resources import Key

GRACE_S = 1.0
SETTLES_S = 5.0
MOST_BODIES = 8
MOST_SAID = 64


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


Deed: TypeAlias = tuple[Key, str, Key]
RECORDED = ApplyObject | DeleteObject | PatchObject | InspectImage | ReadLog
"""Actions that the bus tells of and that are compared."""
"""For which object, what, on which object."""


@dataclass(frozen=True, slots=True)
class _Said:
    """`value` is compared; `whole` is what people are shown. `instead`: what would have been
    said at that moment."""

    seq: int
    time: datetime.datetime
    value: Any
    whole: Any = None
    instead: Any = None


@dataclass
class _Speech:
    """What is said of one object: replayed values since the last recorded; `open`: not said yet
    (rule 2); `unmatched`: not replayed yet (rule 1)."""

    history: list[_Said] = field(default_factory=list)
    open: _Said | None = None
    unmatched: _Said | None = None


@dataclass
class _Offer:
    """An action as planned: bodies since it was last done (and the one that was), and since when
    it would change something."""

    bodies: list[Any]
    current: bool = True
    done: bool = False
    open: _Said | None = None


class Judge:
    """Takes the steps of a replay in order; `take` and `end` give the differences that they make
    certain."""

    def __init__(self) -> None:
        self._speeches: dict[Key, _Speech] = {}
        self._offers: dict[Deed, _Offer] = {}
        self._of: dict[Key, tuple[set[Key], set[Deed]]] = {}
        self._applied: dict[Key, tuple[str, Any]] = {}
        self._failing: dict[Key, str] = {}

    def take(self, step: Step) -> Iterator[Difference]:
        match step:
            case Look():
                yield from self._looked(step)
            case Own(event=event, wrote=wrote):
                match event.message:
                    case StatusReported() as report:
                        yield from self._said(
                            Key(report.kind, report.namespace, report.name), event, report
                        )
                    case ActionTaken() as action:
                        yield from self._did(event, action, wrote)

    def news(self, step: Step) -> list[str]:
        """What a step would do and say that it has not before, in words; to be asked before
        `take`."""
        if isinstance(step, Own):
            message = step.event.message
            if isinstance(message, StatusReported):
                return [f"said on {message.kind} {message.name}: {words(message)}"]
            assert isinstance(message, ActionTaken)
            ended = f"{message.outcome} {message.detail}".rstrip()
            return [f"{message.verb} {message.kind} {message.name}: {ended}"]
        would_say = [
            f"would say on {report.key}: {words(whole)}"
            for report in step.plan.reports
            if not _is_said(
                self._speeches.get(report.key),
                known(whole := report.message(step.service)),
                _last_said(step, report.key),
            )
        ]
        would_do = [
            f"would {deed[1]} {deed[2]}"
            for action in step.plan.actions
            if isinstance(action, RECORDED | WriteStatus)
            and (
                (offer := self._offers.get(deed := _deed(step.key, action))) is None
                or offer.open is None
            )
            and self._changes_something(step, action)
        ]
        return [
            *([f"the planner fails: {step.failed}"] if step.failed else []),
            *would_say,
            *would_do,
        ]

    def end(self, now: datetime.datetime) -> Iterator[Difference]:
        for key, speech in self._speeches.items():
            yield from _unmatched(key, speech)
            yield from self._settle(key, speech, now)
        for deed, offer in self._offers.items():
            yield from _undone(deed, offer, now)

    def _looked(self, look: Look) -> Iterator[Difference]:
        if look.failed and self._failing.get(look.key) != look.failed:
            yield Difference(look.seq, look.time, look.key, "the planner fails", "", look.failed)
        self._failing[look.key] = look.failed
        spoken, deeds = self._of.get(look.key, (set(), set()))
        values: dict[Key, Any] = {
            report.key: report.message(look.service) for report in look.plan.reports
        }
        values |= {
            action.key: action.status
            for action in look.plan.actions
            if isinstance(action, WriteStatus)
        }
        for key, value in values.items():
            yield from self._would_say(key, look, value)
        for key in spoken - values.keys():
            yield from self._settle(key, self._speeches[key], look.time)
        recorded = (action for action in look.plan.actions if isinstance(action, RECORDED))
        actions = {_deed(look.key, action): action for action in recorded}
        for deed, action in actions.items():
            self._would_do(deed, look, action)
        for deed in deeds - actions.keys():
            offer = self._offers[deed]
            offer.current, offer.bodies, offer.done = (
                False,
                [] if offer.done else offer.bodies,
                False,
            )
            yield from _undone(deed, offer, look.time)
        self._of[look.key] = (set(values), set(actions))

    def _would_say(self, key: Key, look: Look, whole: Any) -> Iterator[Difference]:
        speech, value = self._speeches.setdefault(key, _Speech()), known(whole)
        said = _Said(look.seq, look.time, value, whole)
        if not speech.history or not alike(speech.history[-1].value, value):
            speech.history = [*speech.history[-MOST_SAID:], said]
        if speech.unmatched is not None:
            if (look.time - speech.unmatched.time).total_seconds() > GRACE_S:
                yield from _unmatched(key, speech)
            elif alike(speech.unmatched.value, value):
                speech.unmatched = None
        last = _last_said(look, key)
        if last is not None and alike(last, value):
            yield from self._settle(key, speech, look.time)
        elif speech.open is None or not alike(speech.open.value, value):
            yield from self._settle(key, speech, look.time)
            speech.open = said

    def _said(self, key: Key, event: Event, whole: Any) -> Iterator[Difference]:
        speech, value = self._speeches.setdefault(key, _Speech()), known(whole)
        instead = speech.history[-1].whole if speech.history else None
        said = _Said(event.seq, event.time, value, whole, instead)
        yield from _unmatched(key, speech)
        if speech.open is not None and alike(speech.open.value, value):
            speech.open = None
        match = next(
            (
                number
                for number, earlier in enumerate(speech.history)
                if alike(earlier.value, value)
            ),
            None,
        )
        if match is None:
            speech.unmatched = said
        else:
            speech.history = speech.history[match:]

    def _settle(self, key: Key, speech: _Speech, now: datetime.datetime) -> Iterator[Difference]:
        """Rule 2: what was open is not any more."""
        if (said := speech.open) is not None and (now - said.time).total_seconds() > SETTLES_S:
            yield Difference(
                said.seq, said.time, key, "would be said now, was not then", "", words(said.whole)
            )
        speech.open = None

    def _would_do(self, deed: Deed, look: Look, action: Action) -> None:
        body = action.body if isinstance(action, ApplyObject) else None
        offer = self._offers.get(deed)
        if offer is None:
            offer = self._offers[deed] = _Offer([])
        offer.current = True
        if body not in offer.bodies:
            offer.bodies = [*offer.bodies[-MOST_BODIES:], body]
        if not self._changes_something(look, action):
            offer.open = None
        elif offer.open is None:
            offer.open = _Said(look.seq, look.time, action)

    def _changes_something(self, look: Look, action: Action) -> bool:
        """As aimcontroller.applier decides it. What was there before the record began is taken
        to be as the service applied it."""
        if not isinstance(action, ApplyObject):
            return True
        present = look.seen.get(action.key)
        if present is None:
            return True
        if present.deleting or action.key.kind in CREATE_ONLY_KINDS:
            return False
        would_be = (digest(action.body), managed_fields_of(action.body, present.body))
        return self._applied.setdefault(action.key, would_be) != would_be

    def _did(
        self, event: Event, action: ActionTaken, wrote: ObjectChanged | None
    ) -> Iterator[Difference]:
        target = Key(action.kind, action.namespace, action.name)
        if action.verb == WriteStatus.verb:
            if wrote is not None:
                yield from self._said(target, event, wrote.object.get("status") or {})
            return
        deed = (action.about, action.verb, target)
        offer = self._offers.get(deed)
        if offer is None or not offer.bodies:
            yield Difference(
                event.seq,
                event.time,
                action.about,
                "was done then, would not be now",
                f"{action.verb} {target}",
                "",
            )
            return
        body = offer.bodies[-1]
        if wrote is not None and body is not None:
            yield from _applied_otherwise(event, deed, offer, wrote)
            self._applied[target] = (digest(body), managed_fields_of(body, wrote.object))
        offer.bodies, offer.done, offer.open = (
            ([body] if offer.current else []),
            offer.current,
            None,
        )


def _deed(about: Key, action: Action) -> Deed:
    """As aimcontroller.controller records it: what is neither applied nor deleted is on the
    object it is for."""
    return (
        about,
        action.verb,
        action.key if isinstance(action, ApplyObject | DeleteObject | PatchObject) else about,
    )


def _last_said(look: Look, key: Key) -> Any:
    """What the service had said last of an object; the statuswriter says what stands on it."""
    report = look.seen.report(key, look.service)
    return None if report is None else known(report)


def _is_said(speech: _Speech | None, value: Any, last: Any) -> bool:
    """Whether it was said then, or was what would be said at the last look."""
    return (last is not None and alike(last, value)) or (
        speech is not None and speech.open is not None and alike(speech.open.value, value)
    )


def _unmatched(key: Key, speech: _Speech) -> Iterator[Difference]:
    """Rule 1: nothing that was replayed up to now is what was said."""
    said, speech.unmatched = speech.unmatched, None
    if said is not None:
        at = () if said.instead is None else tuple(differing(said.whole, said.instead))
        yield Difference(
            said.seq,
            said.time,
            key,
            "was said then, would not be now",
            words(said.whole),
            words(said.instead),
            at,
        )


def _undone(deed: Deed, offer: _Offer, now: datetime.datetime) -> Iterator[Difference]:
    """Rule 4: what was planned is not any more."""
    planned, offer.open = offer.open, None
    if planned is not None and (now - planned.time).total_seconds() > SETTLES_S:
        about, verb, target = deed
        yield Difference(
            planned.seq,
            planned.time,
            about,
            "would be done now, was not then",
            "",
            f"{verb} {target}",
        )


def _applied_otherwise(
    event: Event, deed: Deed, offer: _Offer, wrote: ObjectChanged
) -> Iterator[Difference]:
    """Rule 3: none of the bodies that were planned is what was applied."""
    if not any(applied_alike(wrote, body) for body in offer.bodies):
        about, verb, target = deed
        at = tuple(differing(wrote.object, as_shown(wrote.object, offer.bodies[-1]), applied=True))
        yield Difference(
            event.seq,
            event.time,
            about,
            "would be applied otherwise now",
            f"{verb} {target}",
            f"{verb} {target}",
            at,
        )
