"""Show rejections and field conflicts in the reports of a plan. Pure.

1. The controller calls `with_failures` once, after the planner. A planner does not repeat it; it
   reads the observation itself only where it decides otherwise after a rejection.
2. A rejection by the API server is appended to one condition, field conflicts are put in front of
   one. `FailureConditions` names them, by kind of the reconciled object.
3. A condition that shows a failure already stays as it is.
4. A planner that repeats its last report removes what was added to it (plan.without_notes).
5. A conflict is not shown for an object that is being deleted: nothing of it is applied any more.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from msgspec import structs

from aimcontroller.action import ApplyObject, DeleteObject
from aimcontroller.plan import Plan, Report, warning_event, with_note
from aimcontroller.projection import (
    FIELD_CONFLICT,
    REJECTED,
    ApplyRejected,
    FieldConflict,
    Projection,
)
from aimschema import reasons
from aimschema.messages import ReportedCondition
from aimschema.resources import Key


@dataclass(frozen=True, slots=True)
class FailureConditions:
    """The types of the conditions of one kind that show failures of the API.

    `rejection`: what the API server rejects; empty where the planner reports that itself.
    `conflicts`: by kind of an owned object, other field managers that keep changing it.
    """

    rejection: str = ""
    conflicts: Mapping[str, str] = field(default_factory=dict)


def with_failures(
    plan: Plan, state: Projection, key: Key, conditions: Mapping[str, FailureConditions]
) -> Plan:
    """`plan` for the object at `key`; its report on it also shows what prevents its actions."""
    shown = conditions.get(key.kind)
    if shown is None or not any(report.key == key for report in plan.reports):
        return plan
    rejection: ApplyRejected | None = state.observation(key, REJECTED)
    conflicts = _conflicts(plan, state, key, shown.conflicts)
    if rejection is None and not conflicts:
        return plan

    def decorate(report: Report) -> Report:
        shows_rejection = _in(report, shown.rejection, partial(with_api_error, rejection=rejection))
        return _with_conflicts(shows_rejection, conflicts)

    return replace(
        plan,
        reports=tuple(decorate(report) if report.key == key else report for report in plan.reports),
    )


def with_api_error(
    condition: ReportedCondition, rejection: ApplyRejected | None
) -> ReportedCondition:
    """The condition, with what the API server rejects."""
    if rejection is None:
        return condition
    noted = with_note(condition, rejection.message, "{message}; rejected by the API server: {note}")
    return structs.replace(noted, rejection=rejection.fact)


def _conflicts(
    plan: Plan, state: Projection, key: Key, types: Mapping[str, str]
) -> list[tuple[str, FieldConflict]]:
    """The conflicts of owned and applied objects, each with the type of the condition that shows
    it. An object that is being deleted has none."""
    if not types:
        return []
    obj = state.get(key)
    uid = "" if obj is None else obj.uid
    owned = (found.key for kind in types for found in state.owned(uid, kind, key.namespace))
    applied = (action.key for action in plan.actions if isinstance(action, ApplyObject))
    found = {
        target: conflict
        for target in (*owned, *applied)
        if target.kind in types
        and (conflict := state.observation(target, FIELD_CONFLICT)) is not None
    }
    deleted = {action.key for action in plan.actions if isinstance(action, DeleteObject)}
    return [
        (types[target.kind], conflict)
        for target, conflict in found.items()
        if target not in deleted
        and not ((existing := state.get(target)) is not None and existing.deleting)
    ]


def _with_conflicts(report: Report, conflicts: list[tuple[str, FieldConflict]]) -> Report:
    """A Warning Event for each conflict that a condition shows."""
    for type_, conflict in conflicts:
        if any(condition.type == type_ for condition in report.conditions):
            shows = _in(report, type_, partial(_with_conflict, conflict=conflict))
            event = warning_event(reasons.CONTESTED, conflict.message)
            report = replace(shows, warnings=(*shows.warnings, event))
    return report


def _with_conflict(condition: ReportedCondition, conflict: FieldConflict) -> ReportedCondition:
    noted = with_note(condition, conflict.message, "{note}; {message}")
    return structs.replace(noted, conflict=conflict.fact)


def _in(
    report: Report, type_: str, change: Callable[[ReportedCondition], ReportedCondition]
) -> Report:
    """The report with its condition of this type changed."""
    conditions = tuple(
        change(condition) if condition.type == type_ else condition
        for condition in report.conditions
    )
    return replace(report, conditions=conditions)
