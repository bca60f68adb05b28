"""Caches that are not filled: unrequested, duplicate, without a name or a config. Pure."""

from aim_cacher.holders import find_holders
from aim_cacher.reporting import filled_condition, repeat_report, report_cache, storage_not_ready
from aim_cacher.view import CacheView
from aimcontroller.action import DeleteObject
from aimcontroller.plan import EMPTY_PLAN, Plan, actions, condition, report
from aimcontroller.projection import KubeObject
from aimcontroller.removal import is_of_former, of_another, of_former
from aimschema import reasons
from aimschema.resources import CLAIM, JOB


def delete_objects(*objects: KubeObject | None) -> Plan:
    """Delete those that exist and are not being deleted yet."""
    return actions(
        *(DeleteObject(obj.key, obj.uid) for obj in objects if obj is not None and not obj.deleting)
    )


def delete_unrequested(view: CacheView) -> Plan:
    repeated = EMPTY_PLAN if view.rejection is None else repeat_report(view)
    return actions(DeleteObject(view.cache.key, view.cache.uid)) | repeated


def report_duplicate(view: CacheView, original: KubeObject) -> Plan:
    """Only the oldest cache of a source is filled; the Jobs of the others are deleted."""
    cache = view.cache
    message = (
        f"ModelCache {original.key.name} is older and has the same source, so this one is not"
        " filled; delete one of them"
    )
    duplicate = condition(reasons.FILLED, False, reasons.DUPLICATE_SOURCE, message)
    jobs = view.state.owned(cache.uid, JOB.kind, cache.key.namespace)
    return delete_objects(*jobs) | report(cache, duplicate)


def report_name_conflict(view: CacheView, other: KubeObject) -> Plan:
    """Another object has a name the cache needs. What a former cache of this name left disappears
    by itself (garbage collection)."""
    follow_up = EMPTY_PLAN
    if not is_of_former(view.cache, other):
        message = of_another(view.cache, other)
        reason = reasons.NAME_CONFLICT
    elif other.deleting and other.key.kind == CLAIM.kind:
        holders = find_holders(view.state, other, view.now)
        message = (
            f"PVC {other.key.name} of the former ModelCache {view.cache.key.name} is being"
            f" deleted, {holders.message}"
        )
        reason = reasons.PVC_TERMINATING if holders.is_blocked else reasons.PVC_PENDING
        follow_up = holders.follow_up
    else:
        message = of_former(view.cache, other)
        reason = reasons.PVC_PENDING
    files = filled_condition(False, reasons.WAITING_FOR_PVC, message)
    return report(view.cache, storage_not_ready(reason, message), files) | follow_up


def report_missing_config(view: CacheView, message: str) -> Plan:
    return report_cache(
        view,
        storage_not_ready(reasons.PVC_PENDING, message),
        filled_condition(False, reasons.RUNTIME_CONFIG_MISSING, message),
    )
