"""Compose the status of an object from the status it has and what the services report. Pure and
total.

1. A status without changes is not written.
2. A report on a former object of the same name (another uid), or on an older generation than the
   status has, is ignored.
3. lastTransitionTime moves only when `status` does; observedGeneration never goes back.
4. A condition or field goes only when the service it belongs to reports without it.
5. A kind without status only has Events. The name of each requested Event contains the time of
   its first request, so the API server rejects a second one after a restart or a repeated report.
   Events expire (kube-apiserver --event-ttl, default one hour): after that, the first change after
   a restart (on a kind without status the restart itself) sends the Event of a fault that still
   exists.
6. An object with a spec too large for the bus only gets an Event about that.
"""

import datetime
from collections.abc import Iterable
from typing import Any

from aim_statuswriter.actions import SendEvent, WriteStatus
from aim_statuswriter.literals import literal_secrets
from aim_statuswriter.summary import SUMMARIES
from aimcontroller.plan import EMPTY_PLAN, Plan, actions
from aimcontroller.projection import KubeObject, Projection
from aimschema import reasons
from aimschema.messages import ReportedCondition, StatusReported, timestamp
from aimschema.reasons import STATUS_OWNERSHIP, WARNING_REPORTERS
from aimschema.resources import CONFIG, Key

Condition = dict[str, Any]
RETRYABLE_REASONS = frozenset({reasons.DISCOVERY_FAILED, reasons.RETRY_BACKOFF})
"""Reasons that do not make the object fail, since the service retries; they still get a Warning
Event."""

UNDATED = "-"
"""For `since` of an Event that a release before 0.3 requests."""

TOO_LARGE = (
    "spec is too large to be read, or nested too deeply, and nothing is done for this object until"
    " it is less than 900 kB of JSON"
)


def plan(state: Projection, key: Key, now: datetime.datetime) -> Plan:
    obj = state.get(key)
    if obj is None or obj.deleting:
        return EMPTY_PLAN
    if not obj.has_spec:
        return actions(
            SendEvent(
                key,
                obj.uid,
                "Warning",
                reasons.SPEC_TOO_LARGE,
                TOO_LARGE,
                since=str(obj.generation),
            )
        )
    if key.kind == CONFIG.kind:
        return advice(state, obj)
    found = {service: state.report(key, service) for service in STATUS_OWNERSHIP[key.kind]}
    reports = {
        service: report
        for service, report in found.items()
        if report is not None and report.uid == obj.uid
    }
    if not reports:
        return EMPTY_PLAN
    status = compose(obj, reports, now)
    if _by_type(status) == _by_type(obj.status):
        return EMPTY_PLAN
    write = WriteStatus(key, obj.uid, str(obj.version), status)
    event = event_for_transition(obj, status)
    literals = (
        [] if _answered(obj.conditions) == _answered(status["conditions"]) else literal_secrets(obj)
    )
    return actions(write, *([] if event is None else [event]), *warnings(obj, reports), *literals)


def advice(state: Projection, obj: KubeObject) -> Plan:
    """The Events for an object without status."""
    reports = [
        report
        for service in WARNING_REPORTERS
        if (report := state.report(obj.key, service)) is not None and report.uid == obj.uid
    ]
    requested = [warning for report in reports for warning in report.warnings]
    found = [
        SendEvent(obj.key, obj.uid, "Warning", each.reason, each.message, each.since)
        for each in requested
    ]
    return actions(*found, *literal_secrets(obj, since=str(obj.generation)))


def compose(
    obj: KubeObject, reports: dict[str, StatusReported], now: datetime.datetime
) -> dict[str, Any]:
    """The complete desired status."""
    status = dict(obj.status)
    conditions: dict[str, Condition] = {
        condition["type"]: condition for condition in status.pop("conditions", None) or ()
    }
    answered = int(status.pop("observedGeneration", 0))
    status.pop("status", None)
    for service, report in reports.items():
        types, fields = STATUS_OWNERSHIP[obj.key.kind][service]
        if report.observed_generation < _newest_generation(conditions, types):
            continue
        reported = [condition for condition in report.conditions if condition.type in types]
        conditions = {
            type_: condition for type_, condition in conditions.items() if type_ not in types
        } | {
            each.type: merged(conditions.get(each.type), each, report.observed_generation, now)
            for each in reported
        }
        status = {name: value for name, value in status.items() if name not in fields} | {
            name: value for name, value in report.fields.items() if name in fields
        }
    own = {
        type_: _reported(condition)
        for type_, condition in conditions.items()
        if type_ not in reasons.SUMMARY
    }
    summary = SUMMARIES[obj.key.kind](own, status, obj.spec)
    lowest = min(report.observed_generation for report in reports.values())
    contributed = [
        conditions[type_]
        for types, _ in STATUS_OWNERSHIP[obj.key.kind].values()
        for type_ in types
        if type_ in conditions
    ]
    generation = min(
        (int(condition.get("observedGeneration", lowest)) for condition in contributed),
        default=lowest,
    )
    for derived in summary.conditions:
        conditions[derived.type] = merged(conditions.get(derived.type), derived, generation, now)
    ordered = [conditions[type_] for type_ in reasons.SUMMARY] + [
        conditions[type_] for type_ in sorted(own)
    ]
    state = {} if summary.state is None else {"status": summary.state}
    return {
        "observedGeneration": max(answered, generation),
        **state,
        **status,
        "conditions": ordered,
    }


def _newest_generation(conditions: dict[str, Condition], types: Iterable[str]) -> int:
    """The newest observedGeneration of these conditions; 0 without any."""
    owned = (conditions[type_] for type_ in types if type_ in conditions)
    return max((condition.get("observedGeneration", 0) for condition in owned), default=0)


def merged(
    before: Condition | None, reported: ReportedCondition, generation: int, now: datetime.datetime
) -> Condition:
    """The desired condition on the object."""
    same = before is not None and before["status"] == reported.status
    return {
        "type": reported.type,
        "status": reported.status,
        "observedGeneration": max(generation, int((before or {}).get("observedGeneration", 0))),
        "lastTransitionTime": (
            before["lastTransitionTime"] if before is not None and same else timestamp(now)
        ),
        "reason": reported.reason,
        "message": reported.message,
    }


def event_for_transition(obj: KubeObject, status: dict[str, Any]) -> SendEvent | None:
    """The Kubernetes Event for a change of the state or of its reason."""
    before, after = (
        obj.condition(reasons.READY),
        next(c for c in status["conditions"] if c["type"] == reasons.READY),
    )
    if before is not None and (before["reason"], obj.status.get("status")) == (
        after["reason"],
        status.get("status"),
    ):
        return None
    failed = after["reason"] in RETRYABLE_REASONS or any(
        c["type"] == reasons.FAILURE and c["status"] == "True" for c in status["conditions"]
    )
    return SendEvent(
        obj.key,
        obj.uid,
        "Warning" if failed else "Normal",
        after["reason"],
        after["message"] or after["reason"],
    )


def warnings(obj: KubeObject, reports: dict[str, StatusReported]) -> list[SendEvent]:
    """The Events that services request, with the write of a condition of the same report."""
    existing = [_fields(condition) for condition in map(_reported, obj.conditions)]
    return [
        SendEvent(obj.key, obj.uid, "Warning", each.reason, each.message, each.since or UNDATED)
        for report in reports.values()
        if any(_fields(condition) not in existing for condition in report.conditions)
        for each in report.warnings
    ]


def _fields(condition: ReportedCondition) -> tuple[str, str, str, str]:
    """Those that are on the object too."""
    return condition.type, condition.status, condition.reason, condition.message


def _answered(conditions: list[Condition]) -> Any:
    """The generation that Ready is for."""
    return next(
        (
            condition.get("observedGeneration")
            for condition in conditions
            if condition.get("type") == reasons.READY
        ),
        None,
    )


def _by_type(status: dict[str, Any]) -> dict[str, Any]:
    """The status for a comparison: the order of a list-map has no meaning."""
    return {
        **status,
        "conditions": {
            condition["type"]: condition for condition in status.get("conditions") or ()
        },
    }


def _reported(condition: Condition) -> ReportedCondition:
    return ReportedCondition(
        type=condition["type"],
        status=condition["status"],
        reason=condition["reason"],
        message=condition.get("message", ""),
    )
