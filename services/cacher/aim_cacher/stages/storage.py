"""The volume claim of a cache: create it, wait until a pod can mount it, replace it. Pure.

1. A claim keeps its size and class. The class is immutable, and not every class can expand a
   claim, so other values need a new claim.
2. A claim that is being deleted waits for no Job of the cache that has not started or has ended.
   The message names every other holder.
"""

from aim_cacher.holders import find_holders
from aim_cacher.passed_labels import with_passed_labels
from aim_cacher.render import CONTAINER, claim_for, requested_size
from aim_cacher.reporting import filled_condition, report_cache, storage_not_ready
from aim_cacher.stages.eligibility import delete_objects
from aim_cacher.view import CacheView
from aimcontroller.action import ApplyObject
from aimcontroller.plan import Plan, condition
from aimcontroller.projection import KubeObject
from aimcontroller.workloads import has_not_started, outcome
from aimschema import labels, names, quantities, reasons
from aimschema.messages import ReportedCondition
from aimschema.resources import CLAIM

_MARKS = (labels.ANNOTATION_FILLED, labels.ANNOTATION_TRIED)


def apply_claim(view: CacheView, claim: KubeObject, **marks: str) -> ApplyObject:
    """Apply the existing claim with its annotations of the cacher and `marks`, by name."""
    existing = {name: value for name, value in claim.annotations.items() if name in _MARKS}
    rendered = claim_for(view.cache, claim, view.claim_size or 0, None, {**existing, **marks})
    return ApplyObject(with_passed_labels(rendered, view.passed_labels))


def await_volume(view: CacheView) -> Plan:
    """No pod can mount the claim yet."""
    storage = storage_condition(view)
    return report_cache(
        view, storage, filled_condition(False, reasons.WAITING_FOR_PVC, storage.message)
    )


def replace_claim(view: CacheView, claim: KubeObject) -> Plan:
    """Delete a claim whose class is wrong; the next one is created once it has disappeared."""
    storage = storage_condition(view)
    waiting = filled_condition(False, reasons.WAITING_FOR_PVC, storage.message)
    return delete_objects(claim) | report_cache(view, storage, waiting, progress=None)


def await_removal(view: CacheView, claim: KubeObject) -> Plan:
    """The claim is being deleted: its own Job gives way, and other holders are named."""
    job = view.download_job
    gives_way = job is not None and (
        outcome(view.state, job, CONTAINER) != "active"
        or has_not_started(view.state, job, view.now)
    )
    deleted_jobs = [job] if job is not None and gives_way else []
    holders = find_holders(view.state, claim, view.now, deleted_jobs)
    storage = storage_not_ready(
        reasons.PVC_TERMINATING if holders.is_blocked else reasons.PVC_PENDING,
        f"PVC {claim.key.name} is being deleted, {holders.message}",
    )
    waiting = filled_condition(False, reasons.WAITING_FOR_PVC, storage.message)
    reported = report_cache(view, storage, waiting, progress=None)
    return delete_objects(*deleted_jobs) | reported | holders.follow_up


def storage_condition(view: CacheView) -> ReportedCondition:
    """StorageReady of a claim that is not being deleted."""
    name = names.cache_claim(view.cache.key.name)
    return _claim_rejected(view, name) or _class_missing(view) or _claim_phase(view, name)


def _claim_rejected(view: CacheView, name: str) -> ReportedCondition | None:
    rejection = view.rejection
    if rejection is None or rejection.target.kind != CLAIM.kind:
        return None
    if view.claim is not None and rejection.passes:
        return None
    return storage_not_ready(
        rejection.reason(reasons.PVC_PENDING),
        f"PVC {name} is rejected by the API server: {rejection.message}; it is retried",
    )


def _class_missing(view: CacheView) -> ReportedCondition | None:
    is_bound = view.claim is not None and view.claim.status.get("phase") == "Bound"
    if is_bound or view.storage_class is not None:
        return None
    storage_class = (
        view.desired_class if view.claim is None else view.claim.spec.get("storageClassName")
    )
    missing = (
        f"storage class {storage_class} does not exist"
        if storage_class
        else "no storage class is set and the cluster has no default"
    )
    return storage_not_ready(
        reasons.STORAGE_CLASS_MISSING,
        f"{missing}; create it, or set another in spec.storageClassName or the config's"
        " cacheStorageClassName",
    )


def _claim_phase(view: CacheView, name: str) -> ReportedCondition:
    claim = view.claim
    if claim is None:
        return storage_not_ready(reasons.PVC_PENDING, f"PVC {name} is being created")
    match claim.status.get("phase"):
        case "Lost":
            return storage_not_ready(
                reasons.PVC_LOST,
                f"PVC {name} lost its volume; delete ModelCache {view.cache.key.name} to start"
                " over",
            )
        case "Bound":
            return _bound(view, claim)
        case _:
            return storage_not_ready(
                reasons.PVC_PROVISIONING,
                f"PVC {name} is waiting for its volume; see kubectl describe pvc {name}",
            )


def _bound(view: CacheView, claim: KubeObject) -> ReportedCondition:
    name = claim.key.name
    size = view.spec.size
    requested = requested_size(claim)
    is_too_small = (
        size is not None
        and requested is not None
        and quantities.parse(size) > quantities.parse(requested)
    )
    if is_too_small:
        return storage_not_ready(
            reasons.INSUFFICIENT_CAPACITY,
            f"spec.size is {size} but PVC {name} requests {requested}; expand the PVC, or delete"
            " and re-create the cache",
        )
    return condition(
        reasons.STORAGE_READY,
        True,
        reasons.PVC_BOUND,
        f"PVC {name} ({requested or view.claim_size or 0}) is bound",
    )
