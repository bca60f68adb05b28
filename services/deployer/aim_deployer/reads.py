"""Which updates of an object the deployer reconciles: those of a part that its planner reads. Pure.

1. Two versions of an object with an equal part give the same plan, at any time and in any state.
   The timers of an earlier plan stay.
2. A part has everything that the applier compares, so that each drift is repaired.
3. An object with a malformed status is always reconciled.
"""

from collections.abc import Callable

from aim_deployer.caches import CACHE_FAILURES
from aim_deployer.existing import has_started
from aim_deployer.projection import CONTAINER
from aim_deployer.runtime import DEADLINE, FAILED_LOADS
from aimcontroller.plan import existing_condition
from aimcontroller.predicates import Predicate, status_changed, without_status
from aimcontroller.projection import KubeObject
from aimcontroller.workloads import FAILED_CREATE, has_no_start, is_pod_finished, pod_start_failure
from aimschema import reasons
from aimschema.resources import CACHE, INFERENCE_SERVICE, MODEL, POD, SERVICE, TEMPLATE

Part = Callable[[KubeObject], object]


def part_changed(part: Part) -> Predicate:
    def is_changed(old: KubeObject, new: KubeObject) -> bool:
        is_readable = all(isinstance(each.body.get("status", {}), dict) for each in (old, new))
        return not is_readable or part(old) != part(new)

    return is_changed


def service_part(service: KubeObject) -> object:
    """Of its own report in the status: CacheReady, the last failure of the runtime, and the
    template."""
    runtime = service.condition(reasons.RUNTIME_READY) or {}
    has_failed = runtime.get("reason") == reasons.RUNTIME_FAILED
    return (
        without_status(service),
        existing_condition(service, reasons.CACHE_READY),
        runtime.get("message") if has_failed else None,
        service.status.get("resolvedTemplate"),
    )


def runtime_part(runtime: KubeObject) -> object:
    """Of the conditions: Ready, and the reasons of those that are False."""
    model = runtime.status.get("modelStatus")
    has_failed = isinstance(model, dict) and model.get("transitionStatus") in FAILED_LOADS
    unmet = [each for each in runtime.conditions if each.get("status") == "False"]
    rejected = next((each for each in unmet if each.get("reason") == FAILED_CREATE), {})
    return (
        without_status(runtime),
        existing_condition(runtime, reasons.READY),
        rejected.get("message") if rejected else None,
        any(each.get("reason") == DEADLINE for each in unmet),
        model if has_failed else None,
        runtime.status.get("deploymentMode"),
    )


def pod_part(pod: KubeObject) -> object:
    return (
        pod.uid,
        pod.labels,
        pod.deleting,
        pod.creation_timestamp,
        is_pod_finished(pod),
        pod.is_condition_true(reasons.READY),
        has_started(pod),
        pod_start_failure(pod, CONTAINER),
        has_no_start(pod),
        bool(pod.spec.get("nodeName")) or pod.condition("PodScheduled") is not None,
        pod.spec.get("schedulerName"),
    )


def template_part(template: KubeObject) -> object:
    """Of the conditions: Discovered, why caches fail, and whether only they do."""
    warmth = template.condition(reasons.CACHE_WARM) or {}
    ready = template.condition(reasons.READY) or {}
    return (
        without_status(template),
        existing_condition(template, reasons.DISCOVERED),
        warmth.get("message") if warmth.get("reason") in CACHE_FAILURES else None,
        warmth.get("reason") if warmth.get("reason") in CACHE_FAILURES else None,
        template.status.get("status") == reasons.FAILED_STATE,
        ready.get("reason") == reasons.WARM_FAILED,
    )


def cache_part(cache: KubeObject) -> object:
    """Ready explains a cache that failed or waits for its volume. The own report is read for
    `lastUsed`."""
    status = cache.status.get("status")
    is_explained = status in {reasons.FAILED_STATE, reasons.PENDING}
    return (
        without_status(cache),
        existing_condition(cache, reasons.READY) if is_explained else None,
        *(cache.status.get(field) for field in ("status", "progress", "sizeBytes")),
    )


PREDICATES = {
    SERVICE.kind: part_changed(service_part),
    INFERENCE_SERVICE.kind: part_changed(runtime_part),
    POD.kind: part_changed(pod_part),
    MODEL.kind: status_changed(),
    TEMPLATE.kind: part_changed(template_part),
    CACHE.kind: part_changed(cache_part),
}
