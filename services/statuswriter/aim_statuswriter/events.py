"""The Kubernetes Events of an object. Pure.

The name of each requested Event contains the time of its first request. So the API server rejects a
second one after a restart or a repeated report. Events expire (kube-apiserver --event-ttl, default
one hour): after that, the first change after a restart sends the Event of a fault that still
exists. On a kind without status the restart itself does.
"""

from aim_statuswriter.actions import SendEvent
from aim_statuswriter.status import Status, reported_condition
from aimcontroller.projection import KubeObject
from aimschema import reasons
from aimschema.messages import ReportedCondition, StatusReported
from aimschema.resources import SERVICE

STARTS_WITHOUT_EVENTS = frozenset({SERVICE.kind})
"""Kinds whose steps on the way to Ready take seconds: conditions show them, and one Event the
end."""
RETRYABLE_REASONS = frozenset({reasons.DISCOVERY_FAILED, reasons.RETRY_BACKOFF})
"""Reasons that do not make the object fail, since the service retries; they still get a Warning
Event."""

UNDATED = "-"
"""For `since` of an Event that a release before 0.3 requests."""

TOO_LARGE = (
    "spec is too large or too deeply nested; the object is not reconciled until its spec has"
    " less than 900 kB of JSON"
)


def spec_too_large(obj: KubeObject) -> SendEvent:
    """Sent once for each generation."""
    return _warning(obj, reasons.SPEC_TOO_LARGE, TOO_LARGE, str(obj.generation))


def for_transition(obj: KubeObject, status: Status) -> list[SendEvent]:
    """The Event for a change of the state or of its reason that a person would want to see."""
    existing = obj.condition(reasons.READY)
    desired = next(each for each in status["conditions"] if each["type"] == reasons.READY)
    if existing is not None and (existing["reason"], obj.status.get("status")) == (
        desired["reason"],
        status.get("status"),
    ):
        return []
    true = {each["type"] for each in status["conditions"] if each["status"] == "True"}
    has_failed = desired["reason"] in RETRYABLE_REASONS or reasons.FAILURE in true
    is_step = reasons.PROGRESSING in true and obj.key.kind in STARTS_WITHOUT_EVENTS
    if is_step and not has_failed:
        return []
    type_ = "Warning" if has_failed else "Normal"
    message = desired["message"] or desired["reason"]
    return [SendEvent(obj.key, obj.uid, type_, desired["reason"], message)]


def requested_events(obj: KubeObject, reports: dict[str, StatusReported]) -> list[SendEvent]:
    """The Events that services request, with the write of a condition of the same report."""
    existing = [_fields(condition) for condition in map(reported_condition, obj.conditions)]
    return [
        _warning(obj, each.reason, each.message, each.since or UNDATED)
        for report in reports.values()
        if any(_fields(condition) not in existing for condition in report.conditions)
        for each in report.warnings
    ]


def requested_without_status(
    obj: KubeObject, reports: dict[str, StatusReported]
) -> list[SendEvent]:
    """The Events that services request on an object without status."""
    return [
        _warning(obj, each.reason, each.message, each.since)
        for report in reports.values()
        for each in report.warnings
    ]


def _warning(obj: KubeObject, reason: str, message: str, since: str) -> SendEvent:
    return SendEvent(obj.key, obj.uid, "Warning", reason, message, since)


def _fields(condition: ReportedCondition) -> tuple[str, str, str, str]:
    """Those that are on the object too."""
    return condition.type, condition.status, condition.reason, condition.message
