"""Eviction of a cache in two steps: a mark, and after a minute the deletion. Pure.

1. The mark is an annotation with the time, written only onto the version of the cache that the
   decision was made for. The deployer mounts no marked cache: a service that needs it removes the
   mark.
2. After `NOTICE_S` the API server is asked for services, InferenceServices and pods. Only if none
   uses the cache it is deleted, in the version that was read before.
3. A mark without a reason is removed: the cache is used again, or its storage is not needed.
"""

import datetime
from dataclasses import dataclass

from aim_cacher.actions import EvictCache
from aim_cacher.cache_use import caching_of, marked_at, seconds, unused_until, why_kept
from aim_cacher.reporting import filled_condition, last_filled, report_cache, storage_not_ready
from aim_cacher.storage_quota import Storage
from aim_cacher.view import CacheView
from aimcontroller.action import PatchObject
from aimcontroller.plan import Plan, actions, requeue_after
from aimcontroller.projection import KubeObject
from aimcontroller.queries import templates_of
from aimschema import labels, reasons
from aimschema.messages import timestamp

NOTICE_S = 60.0


@dataclass(frozen=True, slots=True)
class EvictionView:
    """`cause`: why the cache has to go, as the end of a sentence; None if it may stay. `wait_s`:
    seconds until it has been unused for too long."""

    cause: str | None
    marked_at: datetime.datetime | None
    has_mark: bool
    wait_s: float | None

    @classmethod
    def build(cls, view: CacheView) -> "EvictionView":
        cache = view.cache
        has_mark = labels.ANNOTATION_EVICTING in cache.annotations
        caching = caching_of(view.state, cache.key.namespace)
        is_limited = caching.quota is not None or view.options.quota_bytes is not None
        until = unused_until(cache, seconds(caching.evict_after))
        if not has_mark and not is_limited and until is None:
            return cls(None, None, False, None)
        wait_s = None if until is None else (until - view.now).total_seconds()
        cause = None
        if why_kept(view.state, cache) is None:
            if wait_s is not None and wait_s <= 0:
                cause = f"not used for {caching.evict_after}"
            elif is_limited and Storage(view.state, view.now, view.options).is_victim(cache):
                cause = "not used, and another cache needs its storage"
        return cls(cause, marked_at(cache), has_mark, wait_s)


def with_eviction(view: CacheView, planned: Plan) -> Plan:
    """`planned` for a cache that has a claim, or its eviction."""
    if view.claim is not None and view.claim.deleting:
        return planned
    found = EvictionView.build(view)
    match found:
        case EvictionView(cause=str() as cause, marked_at=datetime.datetime() as since) if (
            since - view.now
        ).total_seconds() <= NOTICE_S:
            return _evict(view, cause, since)
        case EvictionView(cause=str()):
            mark_action = mark(view.cache, view.now, again=True)
            return planned if mark_action is None else planned | actions(mark_action)
        case EvictionView(has_mark=True):
            return planned | actions(unmark(view.cache))
        case EvictionView(wait_s=float() as wait_s) if wait_s > 0:
            return planned | requeue_after(wait_s)
        case _:
            return planned


def mark(cache: KubeObject, now: datetime.datetime, *, again: bool = False) -> PatchObject | None:
    """`again`: replace a mark that is no time."""
    if labels.ANNOTATION_EVICTING in cache.annotations and not again:
        return None
    return _annotate(cache, timestamp(now))


def unmark(cache: KubeObject) -> PatchObject:
    return _annotate(cache, None)


def _annotate(cache: KubeObject, value: str | None) -> PatchObject:
    metadata = {
        "resourceVersion": str(cache.body["metadata"].get("resourceVersion")),
        "annotations": {labels.ANNOTATION_EVICTING: value},
    }
    return PatchObject(cache.key, cache.uid, {"metadata": metadata})


def _evict(view: CacheView, cause: str, since: datetime.datetime) -> Plan:
    """No Job is started for a cache that goes."""
    due = since + datetime.timedelta(seconds=NOTICE_S)
    message = (
        f"{cause}; it is deleted at {timestamp(due)} unless a service requests it until then; to"
        f" keep it, set annotation {labels.ANNOTATION_EVICT}: never"
    )
    files = last_filled(view) or filled_condition(False, reasons.WAITING_FOR_PVC, message)
    reported = report_cache(view, storage_not_ready(reasons.EVICTING, message), files)
    left_s = (due - view.now).total_seconds()
    if left_s > 0:
        return reported | requeue_after(left_s)
    source = str(view.cache.spec.get("sourceUri"))
    templates = templates_of(view.state, view.cache.key.namespace, source)
    names = frozenset(template.key.name for template in templates)
    mark_text = view.cache.annotations[labels.ANNOTATION_EVICTING]
    evict = EvictCache(view.cache.key, view.cache.uid, mark_text, source, names, cause)
    return reported | actions(evict) | requeue_after(NOTICE_S)
