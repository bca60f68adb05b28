"""Ready, Progressing, Failure and `status.status`, derived from what the services report: one pure function a kind.

1. Failure is True only where Ready is not.
2. Progressing is True only while something goes on by itself towards Ready.
3. The summary repeats the reason and message of the condition that decided it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aimschema import reasons
from aimschema.kinds import ServiceState, TemplateState
from aimschema.messages import ReportedCondition
from aimschema.resources import CACHE, MODEL, SERVICE, TEMPLATE
from aimservice.plan import condition

Conditions = Mapping[str, ReportedCondition]
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Summary:
    """`state` is status.status; None for kinds that have none. `working`: goes on by itself. `failed`: something is wrong."""

    state: str | None
    ready: bool
    working: bool
    failed: bool
    reason: str
    message: str

    @property
    def conditions(self) -> tuple[ReportedCondition, ...]:
        failure = (self.reason, self.message) if self.failed else (reasons.NO_FAILURE, "nothing is wrong")
        return (
            condition(reasons.READY, self.ready, self.reason, self.message),
            condition(reasons.PROGRESSING, self.working, self.reason, self.message),
            condition(reasons.FAILURE, self.failed, *failure),
        )


def _done(state: str | None, by: ReportedCondition) -> Summary:
    return Summary(state, ready=True, working=False, failed=False, reason=by.reason, message=by.message)


def _working(state: str | None, by: ReportedCondition) -> Summary:
    return Summary(state, ready=False, working=True, failed=False, reason=by.reason, message=by.message)


def _failed(state: str | None, by: ReportedCondition, *, goes_on: bool = False) -> Summary:
    return Summary(state, ready=False, working=goes_on, failed=True, reason=by.reason, message=by.message)


def _nothing_yet(state: str | None) -> Summary:
    return Summary(state, ready=False, working=True, failed=False, reason=reasons.PENDING, message="nothing has been done yet")


def of_model(conditions: Conditions, _fields: Fields, _spec: Fields) -> Summary:
    """By the image's inspection alone, which is tried again until it succeeds; a name that is taken stays so."""
    inspected = conditions.get(reasons.IMAGE_INSPECTED)
    if inspected is None:
        return _nothing_yet(None)
    match inspected.status:
        case "True":
            return _done(None, inspected)
        case "False":
            return _failed(None, inspected, goes_on=inspected.reason != reasons.DUPLICATE_NAME)
        case _:
            return _working(None, inspected)


GIVES_UP_AFTER = 5


def of_template(conditions: Conditions, fields: Fields, spec: Fields) -> Summary:
    """Pending until a Job runs (Discovered is Unknown while it does), then by discovery and, where asked for, by the caches."""
    found, warm = conditions.get(reasons.DISCOVERED), conditions.get(reasons.CACHE_WARM)
    if found is None:
        return _nothing_yet(TemplateState.PENDING)
    match found.status, found.reason:
        case "Unknown", _:
            return _working(TemplateState.PROGRESSING, found)
        case "False", reasons.DISCOVERY_FAILED:
            given_up = int(fields.get("attempts", 0)) >= GIVES_UP_AFTER
            return _failed(TemplateState.FAILED, found) if given_up else _working(TemplateState.PROGRESSING, found)
        case "False", reasons.NAME_CONFLICT:
            return _failed(TemplateState.FAILED, found)
        case "False", _:
            return _working(TemplateState.PENDING, found)
    if not spec.get("warmCache"):
        return _done(TemplateState.AVAILABLE, found)
    if warm is None:
        return _working(TemplateState.PROGRESSING, found)
    if warm.status == "True":
        return _done(TemplateState.AVAILABLE, warm)
    if warm.reason in {reasons.WARM_FAILED, reasons.NAME_CONFLICT}:
        return _failed(TemplateState.FAILED, warm)
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


def of_cache(conditions: Conditions, _fields: Fields, _spec: Fields) -> Summary:
    """Filled decides; a lost volume or a name that is taken decides before it."""
    filled, storage = conditions.get(reasons.FILLED), conditions.get(reasons.STORAGE_READY)
    if storage is not None and storage.reason in {reasons.PVC_LOST, reasons.NAME_CONFLICT}:
        return _failed(TemplateState.FAILED, storage)
    if filled is None:
        return _nothing_yet(TemplateState.PENDING)
    if filled.status == "True":
        return _done(TemplateState.AVAILABLE, filled)
    if filled.reason in _CACHE_FAILED:
        return _failed(TemplateState.FAILED, filled)
    return _working(TemplateState.PENDING if filled.reason == reasons.WAITING_FOR_PVC else TemplateState.PROGRESSING, filled)


_SERVICE_STATES = {
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
_IN_ORDER = (reasons.RESOLVED, reasons.CACHE_READY, reasons.RUNTIME_READY, reasons.ROUTING_READY)


def of_service(conditions: Conditions, _fields: Fields, _spec: Fields) -> Summary:
    """Running when all four hold; otherwise the worst of those that do not decides, of equally bad ones the earliest on the way."""
    missing = [reported for type_ in _IN_ORDER if (reported := conditions.get(type_)) is not None and reported.status != "True"]
    if not missing and len([type_ for type_ in _IN_ORDER if type_ in conditions]) < len(_IN_ORDER):
        known = [conditions[type_] for type_ in _IN_ORDER if type_ in conditions]
        return _working(ServiceState.STARTING, known[-1]) if known else _nothing_yet(ServiceState.PENDING)
    if not missing:
        runtime = conditions[reasons.RUNTIME_READY]
        words = runtime.message if runtime.reason == reasons.STOPPED else conditions[reasons.ROUTING_READY].message
        return Summary(ServiceState.RUNNING, ready=True, working=False, failed=False, reason=reasons.RUNNING, message=words or runtime.message)
    worst = {ServiceState.FAILED: 0, ServiceState.DEGRADED: 1, ServiceState.PENDING: 2, ServiceState.STARTING: 3}
    states = [(_SERVICE_STATES.get(reported.reason, ServiceState.STARTING), reported) for reported in missing]
    state, by = min(states, key=lambda pair: worst[pair[0]])
    if state in {ServiceState.FAILED, ServiceState.DEGRADED}:
        return _failed(state, by, goes_on=state is ServiceState.DEGRADED)
    return _working(state, by)


SUMMARIES: dict[str, Callable[[Conditions, Fields, Fields], Summary]] = {
    MODEL.kind: of_model,
    TEMPLATE.kind: of_template,
    CACHE.kind: of_cache,
    SERVICE.kind: of_service,
}
