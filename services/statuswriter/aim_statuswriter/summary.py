"""Derives Ready, Progressing, Failure and `status.status` from reports: one pure function a kind.

1. At most one of the three is True. Ready: the object is as desired. Failure: something is wrong,
   and the message has the remedy.
2. Progressing: the control plane, or a workload that it started, is working, is queued, or waits
   for a time that it names. Waiting for a user is not progress: then none of the three is True, or
   Failure is.
3. Reconciling is True exactly while Progressing is, Stalled exactly while the state is Failed, so
   that kstatus reads them. They are absent otherwise.
4. The summary repeats the reason and message of the condition that decides.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aimcontroller.plan import condition
from aimschema import reasons
from aimschema.messages import ReportedCondition
from aimschema.resources import CACHE, MODEL, SERVICE, TEMPLATE
from aimschema.states import ServiceState, TemplateState

Conditions = Mapping[str, ReportedCondition]
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Summary:
    """`state` is status.status; None for kinds that have none. `working` and `failed`: whether
    Progressing and Failure are True."""

    state: str | None
    ready: bool
    working: bool
    failed: bool
    reason: str
    message: str

    @property
    def stalled(self) -> bool:
        """Whether it fails until a user acts."""
        if self.state is None:
            return self.failed and self.reason in _FINAL_FOR_A_MODEL
        return self.state == reasons.FAILED_STATE

    @property
    def conditions(self) -> tuple[ReportedCondition, ...]:
        cause = (self.reason, self.message)
        failure = cause if self.failed else (reasons.NO_FAILURE, "no failure")
        kstatus = {reasons.RECONCILING: self.working, reasons.STALLED: self.stalled}
        return (
            condition(reasons.READY, self.ready, *cause),
            condition(reasons.PROGRESSING, self.working, *cause),
            condition(reasons.FAILURE, self.failed, *failure),
            *(condition(type_, True, *cause) for type_, is_true in kstatus.items() if is_true),
        )


_FINAL_FOR_A_MODEL = frozenset(
    {
        reasons.IMAGE_NOT_FOUND,
        reasons.AUTH_ERROR,
        reasons.METADATA_MISSING,
        reasons.DUPLICATE_NAME,
    }
)
"""Of the failures of an image's inspection, those that do not pass by themselves."""


def _ready_summary(state: str | None, by: ReportedCondition) -> Summary:
    return Summary(
        state, ready=True, working=False, failed=False, reason=by.reason, message=by.message
    )


def _working(state: str | None, by: ReportedCondition) -> Summary:
    return Summary(
        state, ready=False, working=True, failed=False, reason=by.reason, message=by.message
    )


def _waiting(state: str | None, by: ReportedCondition) -> Summary:
    """No failure, but a user has to act first."""
    return Summary(
        state, ready=False, working=False, failed=False, reason=by.reason, message=by.message
    )


def _failed_summary(state: str | None, by: ReportedCondition) -> Summary:
    return Summary(
        state, ready=False, working=False, failed=True, reason=by.reason, message=by.message
    )


def _waiting_for_report(state: str | None, reason: str, *services: str) -> Summary:
    """The summary while the first report of some services is missing."""
    who = " and ".join(f"aim-{service}" for service in services)
    message = f"waiting for the first report from {who}; if this persists, check that it is running"
    return Summary(state, ready=False, working=True, failed=False, reason=reason, message=message)


def summarize_model(conditions: Conditions, _fields: Fields, _spec: Fields) -> Summary:
    """By the image's inspection alone, which is tried again until it succeeds; a name that is
    taken stays so."""
    inspected = conditions.get(reasons.IMAGE_INSPECTED)
    if inspected is None:
        return _waiting_for_report(None, reasons.PENDING, reasons.DISCOVERY)
    match inspected.status:
        case "True":
            return _ready_summary(None, inspected)
        case "False":
            return _failed_summary(None, inspected)
        case _:
            return _working(None, inspected)


GIVES_UP_AFTER = 5


def summarize_template(conditions: Conditions, fields: Fields, spec: Fields) -> Summary:
    """Pending until a Job runs (Discovered is Unknown while it does), then by discovery and, if
    requested, by the caches."""
    is_final = int(fields.get("attempts", 0)) >= GIVES_UP_AFTER
    match conditions.get(reasons.DISCOVERED):
        case None:
            return _waiting_for_report(TemplateState.PENDING, reasons.PENDING, reasons.DISCOVERY)
        case ReportedCondition(status="True") if spec.get("warmCache"):
            return _summarize_caches(conditions.get(reasons.CACHE_WARM))
        case ReportedCondition(status="True") as found:
            return _ready_summary(TemplateState.AVAILABLE, found)
        case ReportedCondition(status="Unknown") as found:
            return _working(TemplateState.PROGRESSING, found)
        case ReportedCondition(reason=reasons.DISCOVERY_FAILED) as found if is_final:
            return _failed_summary(TemplateState.FAILED, found)
        case ReportedCondition(reason=reasons.DISCOVERY_FAILED) as found:
            return _working(TemplateState.PROGRESSING, found)
        case ReportedCondition(reason=reasons.MODEL_NOT_FOUND) as found:
            return _waiting(TemplateState.PENDING, found)
        case ReportedCondition(reason=reasons.NAME_CONFLICT) as found:
            return _failed_summary(TemplateState.FAILED, found)
        case found:
            return _working(TemplateState.PENDING, found)


def _summarize_caches(warm: ReportedCondition | None) -> Summary:
    """A discovered template that requests caches."""
    match warm:
        case None:
            return _waiting_for_report(TemplateState.PROGRESSING, reasons.PENDING, reasons.CACHER)
        case ReportedCondition(status="True"):
            return _ready_summary(TemplateState.AVAILABLE, warm)
        case ReportedCondition(reason=reasons.WARM_FAILED | reasons.NAME_CONFLICT):
            return _failed_summary(TemplateState.FAILED, warm)
        case _:
            return _working(TemplateState.PROGRESSING, warm)


_CACHE_FAILED = frozenset(
    {
        reasons.DOWNLOAD_FAILED,
        reasons.AUTH_ERROR,
        reasons.SOURCE_NOT_FOUND,
        reasons.INSUFFICIENT_CAPACITY,
        reasons.CHECKSUM_MISMATCH,
        reasons.PVC_LOST,
        reasons.RUNTIME_CONFIG_MISSING,
        reasons.DUPLICATE_SOURCE,
        reasons.NAME_CONFLICT,
    }
)
_NO_VOLUME = frozenset(
    {
        reasons.PVC_LOST,
        reasons.PVC_TERMINATING,
        reasons.NAME_CONFLICT,
        reasons.STORAGE_CLASS_MISSING,
    }
)


def summarize_cache(conditions: Conditions, _fields: Fields, _spec: Fields) -> Summary:
    """Filled decides. If no volume is possible, StorageReady decides first."""
    storage = conditions.get(reasons.STORAGE_READY)
    if storage is not None and storage.reason in _NO_VOLUME:
        return _failed_summary(TemplateState.FAILED, storage)
    if storage is not None and storage.reason == reasons.EVICTING:
        return _working(TemplateState.PROGRESSING, storage)
    match conditions.get(reasons.FILLED):
        case None:
            return _waiting_for_report(TemplateState.PENDING, reasons.PENDING, reasons.CACHER)
        case ReportedCondition(status="True") as filled:
            return _ready_summary(TemplateState.AVAILABLE, filled)
        case ReportedCondition(reason=reason) as filled if reason in _CACHE_FAILED:
            return _failed_summary(TemplateState.FAILED, filled)
        case ReportedCondition(reason=reasons.QUOTA_EXCEEDED) as filled:
            return _failed_summary(TemplateState.PENDING, filled)
        case ReportedCondition(reason=reasons.WAITING_FOR_PVC) as filled:
            return _working(TemplateState.PENDING, filled)
        case filled:
            return _working(TemplateState.PROGRESSING, filled)


SERVICE_STATES = {
    reasons.VALIDATION_FAILED: ServiceState.FAILED,
    reasons.TEMPLATE_FAILED: ServiceState.FAILED,
    reasons.TEMPLATE_NOT_FOUND: ServiceState.DEGRADED,
    reasons.MODEL_NOT_FOUND: ServiceState.DEGRADED,
    reasons.RUNTIME_CONFIG_MISSING: ServiceState.DEGRADED,
    reasons.UNKNOWN_GPU: ServiceState.DEGRADED,
    reasons.TEMPLATE_NOT_READY: ServiceState.PENDING,
    reasons.WAITING_FOR_CACHE: ServiceState.STARTING,
    reasons.CACHE_WARMING: ServiceState.STARTING,
    reasons.CACHE_FAILED: ServiceState.DEGRADED,
    reasons.CACHE_LOST: ServiceState.DEGRADED,
    reasons.CREATING_RUNTIME: ServiceState.STARTING,
    reasons.RUNTIME_FAILED: ServiceState.DEGRADED,
    reasons.NAME_CONFLICT: ServiceState.DEGRADED,
    reasons.CONFIGURING_ROUTE: ServiceState.STARTING,
    reasons.ROUTE_FAILED: ServiceState.DEGRADED,
}
_IN_ORDER = {
    reasons.RESOLVED: reasons.DEPLOYER,
    reasons.CACHE_READY: reasons.DEPLOYER,
    reasons.RUNTIME_READY: reasons.DEPLOYER,
    reasons.ROUTING_READY: reasons.ROUTER,
}
"""The conditions of a service in the order of a start, and the services that report them."""
_WORST_FIRST = (
    ServiceState.FAILED,
    ServiceState.DEGRADED,
    ServiceState.PENDING,
    ServiceState.STARTING,
)


def summarize_service(conditions: Conditions, _fields: Fields, _spec: Fields) -> Summary:
    """Running if all four conditions are True. Otherwise the worst of the others decides, and of
    equally bad ones the first in order."""
    reported = [conditions[type_] for type_ in _IN_ORDER if type_ in conditions]
    unmet = [condition for condition in reported if condition.status != "True"]
    unreported = [type_ for type_ in _IN_ORDER if type_ not in conditions]
    if unmet:
        return _summarize_worst(unmet)
    if unreported:
        services = dict.fromkeys(_IN_ORDER[type_] for type_ in unreported)
        is_started = reasons.RESOLVED in conditions
        state = ServiceState.STARTING if is_started else ServiceState.PENDING
        reason = reasons.STARTING if is_started else reasons.PENDING
        return _waiting_for_report(state, reason, *services)
    return _summarize_running(conditions)


def _summarize_worst(unmet: list[ReportedCondition]) -> Summary:
    states = [(SERVICE_STATES.get(each.reason, ServiceState.STARTING), each) for each in unmet]
    state, by = min(states, key=lambda pair: _WORST_FIRST.index(pair[0]))
    if state in {ServiceState.FAILED, ServiceState.DEGRADED}:
        return _failed_summary(state, by)
    return _working(state, by)


def _summarize_running(conditions: Conditions) -> Summary:
    """The message is where the service answers, or that it is stopped."""
    runtime = conditions[reasons.RUNTIME_READY]
    is_stopped = runtime.reason == reasons.STOPPED
    by = runtime if is_stopped else conditions[reasons.ROUTING_READY]
    return Summary(
        ServiceState.RUNNING,
        ready=True,
        working=False,
        failed=False,
        reason=reasons.RUNNING,
        message=by.message or runtime.message,
    )


SUMMARIES: dict[str, Callable[[Conditions, Fields, Fields], Summary]] = {
    MODEL.kind: summarize_model,
    TEMPLATE.kind: summarize_template,
    CACHE.kind: summarize_cache,
    SERVICE.kind: summarize_service,
}
