"""The reports of a service. Pure.

1. Every report carries Resolved, CacheReady once it is known, and all fields: what a report leaves
   out disappears from the status.
2. `resolvedTemplate` is the template of the last apply.
"""

from functools import partial

from aim_deployer.resolve import ResolutionError, ResolvedService
from aim_deployer.runtime import ready_count, runtime_ready
from aim_deployer.view import ServiceView
from aimcontroller.plan import Plan, condition, report
from aimcontroller.projection import KubeObject
from aimcontroller.removal import is_of_former, of_another, of_former
from aimschema import reasons
from aimschema.messages import ReportedCondition

_resolved = partial(condition, reasons.RESOLVED)


def report_name_conflict(view: ServiceView, other: KubeObject) -> Plan:
    """An InferenceService with this name has another owner. One of a former service with this name
    is garbage collected."""
    if is_of_former(view.service, other):
        message = of_former(view.service, other)
        return report(view.service, runtime_ready(False, reasons.CREATING_RUNTIME, message))
    message = of_another(view.service, other)
    return report(view.service, runtime_ready(False, reasons.NAME_CONFLICT, message))


def report_unapplied(view: ServiceView) -> Plan:
    """RuntimeReady is only reported for an InferenceService that exists or must not."""
    has_runtime = view.existing is not None or view.replicas == 0
    runtimes = [view.runtime.condition] if has_runtime else []
    return _report(view, *runtimes) | view.runtime.follow_up


def report_missing_kserve(view: ServiceView) -> Plan:
    message = (
        "the cluster has no InferenceService kind (inferenceservices.serving.kserve.io):"
        " install KServe"
    )
    return _report(view, runtime_ready(False, reasons.RUNTIME_FAILED, message))


def report_applied(view: ServiceView, parts: ResolvedService) -> Plan:
    template = parts.spec.template_ref
    reported = _report(view, view.runtime.condition, resolved_template=template)
    return reported | view.runtime.follow_up


def _report(
    view: ServiceView, *runtimes: ReportedCondition, resolved_template: str | None = None
) -> Plan:
    return report(
        view.service,
        _resolved_condition(view.resolution),
        *([] if view.caches is None else [view.caches]),
        *runtimes,
        resolvedTemplate=resolved_template or view.service.status.get("resolvedTemplate"),
        readyReplicas=ready_count(view.pods),
    )


def _resolved_condition(resolution: ResolvedService | ResolutionError) -> ReportedCondition:
    match resolution:
        case ResolutionError(reason=reason, message=message):
            return _resolved(False, reason, message)
        case ResolvedService(spec=spec):
            message = f"template {spec.template_ref}, model {spec.model}, config {spec.config_ref}"
            return _resolved(True, reasons.RESOLVED, message)
