"""What a planner returns: data for the shell to carry out, nothing done yet."""

import datetime
from dataclasses import dataclass, field, replace
from typing import Any

from msgspec import structs

from aimcontroller.action import Action
from aimcontroller.projection import KubeObject, Projection
from aimschema.messages import ReportedCondition, ReportedWarning, StatusReported, timestamp
from aimschema.resources import Key
from aimschema.sanitize import printable


@dataclass(frozen=True, slots=True)
class Report:
    """All that the planning service reports on one object. `fields`: top-level status fields;
    `warnings`: worth a Kubernetes Event."""

    key: Key
    uid: str
    generation: int
    conditions: tuple[ReportedCondition, ...] = ()
    fields: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[ReportedWarning, ...] = ()

    def message(self, service: str) -> StatusReported:
        return StatusReported(
            kind=self.key.kind,
            namespace=self.key.namespace,
            name=self.key.name,
            uid=self.uid,
            service=service,
            observed_generation=self.generation,
            conditions=self.conditions,
            fields=self.fields,
            warnings=self.warnings,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions in order, reports, and when to reconcile again without an event (None: never).
    `hold_s`: how long the actions may wait for a better plan."""

    actions: tuple[Action, ...] = ()
    reports: tuple[Report, ...] = ()
    requeue_after_s: float | None = None
    hold_s: float = 0.0

    def __or__(self, other: "Plan") -> "Plan":
        """Both; the earlier of the two times. The actions of both wait for nothing."""
        times = [
            time_s for time_s in (self.requeue_after_s, other.requeue_after_s) if time_s is not None
        ]
        return Plan(
            self.actions + other.actions, self.reports + other.reports, min(times, default=None)
        )


EMPTY_PLAN = Plan()


def actions(*actions: Action) -> Plan:
    return Plan(actions=actions)


def report(obj: KubeObject, *conditions: ReportedCondition, **fields: Any) -> Plan:
    """Report `conditions` and status `fields` of an object; fields that are None are left out."""
    set_fields = {name: value for name, value in fields.items() if value is not None}
    return Plan(reports=(Report(obj.key, obj.uid, obj.generation, conditions, set_fields),))


WARNING_LENGTH = 512


def with_warning_event(plan: Plan, reason: str, message: str) -> Plan:
    """`plan` with a Warning Event on top. A condition has to have the message too: the Event goes
    out after the write of a condition."""
    event = warning_event(reason, message)
    return replace(
        plan,
        reports=tuple(replace(each, warnings=(*each.warnings, event)) for each in plan.reports),
    )


def warning_event(reason: str, message: str) -> ReportedWarning:
    return ReportedWarning(reason=reason, message=sanitize(message)[:WARNING_LENGTH])


def report_warnings(
    state: Projection,
    about: KubeObject,
    service: str,
    *found: tuple[str, str],
) -> Plan:
    """Warning Events, as (reason, message), on an object without status."""
    if not found and state.report(about.key, service) is None:
        return EMPTY_PLAN
    warnings = tuple(warning_event(reason, message) for reason, message in found)
    return Plan(reports=(Report(about.key, about.uid, about.generation, warnings=warnings),))


def with_start_times(
    report: StatusReported, last: StatusReported | None, now: datetime.datetime
) -> StatusReported:
    """The report with `since` in its warnings: what the last report has for the same warning, else
    now."""
    known = last.warnings if last is not None and last.uid == report.uid else ()
    since = {(each.reason, each.message): each.since for each in known if each.since}
    return structs.replace(
        report,
        warnings=tuple(
            structs.replace(each, since=since.get((each.reason, each.message), timestamp(now)))
            for each in report.warnings
        ),
    )


def requeue_after(after_s: float) -> Plan:
    return Plan(requeue_after_s=max(0.0, after_s))


MESSAGE_LENGTH = 1024


def condition(type_: str, status: bool | None, reason: str, message: str = "") -> ReportedCondition:
    """A condition; `status` None is Unknown. Control characters go, the message is cut to 1,024
    characters."""
    return ReportedCondition(
        type=type_,
        status={True: "True", False: "False", None: "Unknown"}[status],
        reason=reason,
        message=sanitize(message),
    )


def with_note(condition: ReportedCondition, note: str, template: str) -> ReportedCondition:
    """The condition with a note in its message; `own_message` keeps the message without notes.
    `template` has `{message}` and `{note}`.

    A message that has the note is left as it is: the planner wrote it about the same fault, or
    repeats a condition that it read from the object, where only the text is left.
    """
    if sanitize(note) in condition.message:
        return condition
    return structs.replace(
        condition,
        message=sanitize(template.format(message=condition.message, note=note)),
        own_message=condition.own_message or condition.message,
    )


def without_notes(condition: ReportedCondition) -> ReportedCondition:
    """A condition as its planner reported it, to be repeated: the notes of the last report may no
    longer be true."""
    return structs.replace(
        condition,
        message=condition.own_message or condition.message,
        own_message="",
        rejection=None,
        conflict=None,
    )


def sanitize(message: str) -> str:
    text = printable(message[: MESSAGE_LENGTH + 1])
    return text if len(text) <= MESSAGE_LENGTH else text[: MESSAGE_LENGTH - 1] + "…"


def existing_condition(obj: KubeObject, type_: str) -> ReportedCondition | None:
    """The current condition of the object, to be reported again."""
    condition = obj.condition(type_)
    if condition is None:
        return None
    return ReportedCondition(
        type=type_,
        status=condition.get("status", "Unknown"),
        reason=condition.get("reason", ""),
        message=condition.get("message", ""),
    )
