"""Composes the status of an object from its existing status and the reports of services. Pure and
total.

1. A report on an older generation than the status has is ignored.
2. lastTransitionTime moves only when `status` does; observedGeneration never goes back.
3. A condition or field is removed only if the service that owns it reports without it.
"""

import datetime
from collections.abc import Iterable
from typing import Any

from aim_statuswriter.summary import SUMMARIES
from aimcontroller.projection import KubeObject
from aimschema import reasons
from aimschema.messages import ReportedCondition, StatusReported, timestamp
from aimschema.reasons import STATUS_OWNERSHIP

Condition = dict[str, Any]
Status = dict[str, Any]


def compose(obj: KubeObject, reports: dict[str, StatusReported], now: datetime.datetime) -> Status:
    """The complete desired status."""
    existing = dict(obj.status)
    conditions = conditions_by_type(existing.pop("conditions", None) or ())
    answered = int(existing.pop("observedGeneration", 0))
    existing.pop("status", None)
    conditions, fields = _with_reports(conditions, existing, obj.key.kind, reports, now)
    own = {
        type_: reported_condition(condition)
        for type_, condition in conditions.items()
        if type_ not in reasons.DERIVED
    }
    summary = SUMMARIES[obj.key.kind](own, fields, obj.spec)
    generation = _oldest_generation(obj.key.kind, conditions, reports)
    derived = [
        merge_condition(conditions.get(each.type), each, generation, now)
        for each in summary.conditions
    ]
    state = {} if summary.state is None else {"status": summary.state}
    return {
        "observedGeneration": max(answered, generation),
        **state,
        **fields,
        "conditions": [*derived, *(conditions[type_] for type_ in sorted(own))],
    }


def _with_reports(
    conditions: dict[str, Condition],
    fields: Status,
    kind: str,
    reports: dict[str, StatusReported],
    now: datetime.datetime,
) -> tuple[dict[str, Condition], Status]:
    """Conditions and fields, with those of each service replaced by its report."""
    for service, report in reports.items():
        types, names = STATUS_OWNERSHIP[kind][service]
        if report.observed_generation < _newest_generation(conditions, types):
            continue
        reported = {
            each.type: merge_condition(
                conditions.get(each.type), each, report.observed_generation, now
            )
            for each in report.conditions
            if each.type in types
        }
        others = {type_: each for type_, each in conditions.items() if type_ not in types}
        conditions = others | reported
        other_fields = {name: value for name, value in fields.items() if name not in names}
        fields = other_fields | {
            name: value for name, value in report.fields.items() if name in names
        }
    return conditions, fields


def _newest_generation(conditions: dict[str, Condition], types: Iterable[str]) -> int:
    """The newest observedGeneration of these conditions; 0 without any."""
    owned = (conditions[type_] for type_ in types if type_ in conditions)
    return max((condition.get("observedGeneration", 0) for condition in owned), default=0)


def _oldest_generation(
    kind: str, conditions: dict[str, Condition], reports: dict[str, StatusReported]
) -> int:
    """The oldest observedGeneration of the conditions of services: the summary is of that one."""
    oldest_report = min(report.observed_generation for report in reports.values())
    owned = [
        conditions[type_]
        for types, _ in STATUS_OWNERSHIP[kind].values()
        for type_ in types
        if type_ in conditions
    ]
    generations = (int(each.get("observedGeneration", oldest_report)) for each in owned)
    return min(generations, default=oldest_report)


def merge_condition(
    existing: Condition | None, reported: ReportedCondition, generation: int, now: datetime.datetime
) -> Condition:
    """The desired condition on the object."""
    is_same = existing is not None and existing["status"] == reported.status
    return {
        "type": reported.type,
        "status": reported.status,
        "observedGeneration": max(generation, int((existing or {}).get("observedGeneration", 0))),
        "lastTransitionTime": (
            existing["lastTransitionTime"] if existing is not None and is_same else timestamp(now)
        ),
        "reason": reported.reason,
        "message": reported.message,
    }


def is_equal(existing: Status, desired: Status) -> bool:
    """The order of a list-map has no meaning."""
    return _comparable(existing) == _comparable(desired)


def summary_of(status: Status) -> tuple[Any, ...]:
    """The state, and the status of each summary condition."""
    conditions = conditions_by_type(status.get("conditions") or ())
    return (
        status.get("status"),
        *((conditions.get(type_) or {}).get("status") for type_ in reasons.SUMMARY),
    )


def is_progressing(status: Status) -> bool:
    progressing = conditions_by_type(status["conditions"]).get(reasons.PROGRESSING) or {}
    return bool(progressing.get("status") == "True")


def ready_generation(conditions: Iterable[Condition]) -> Any:
    """The generation that Ready is for."""
    ready = conditions_by_type(conditions).get(reasons.READY) or {}
    return ready.get("observedGeneration")


def reported_condition(condition: Condition) -> ReportedCondition:
    return ReportedCondition(
        type=condition["type"],
        status=condition["status"],
        reason=condition["reason"],
        message=condition.get("message", ""),
    )


def conditions_by_type(conditions: Iterable[Condition]) -> dict[str, Condition]:
    return {condition["type"]: condition for condition in conditions}


def _comparable(status: Status) -> Status:
    return {**status, "conditions": conditions_by_type(status.get("conditions") or ())}
