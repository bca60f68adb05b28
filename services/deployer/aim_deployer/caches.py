"""CacheReady of one service: whether its model sources are on caches that it can mount. Pure and
total.

1. The first render decides whether caches are mounted, and the annotation `cached` records it.
2. Nothing is rolled out onto a cache that is not warm.
3. While an input is missing, CacheReady is read off the mounts of the InferenceService.
"""

import datetime
from dataclasses import dataclass
from functools import partial

from aim_deployer.existing import is_running, lost_claims, mounts
from aim_deployer.render import mount_path
from aim_deployer.resolve import ResolvedService, Source
from aimcontroller.action import PatchObject
from aimcontroller.plan import EMPTY_PLAN, Plan, actions, condition, existing_condition, report
from aimcontroller.projection import KubeObject, Projection
from aimcontroller.queries import has_failed
from aimcontroller.removal import removal
from aimschema import labels, reasons
from aimschema.messages import ReportedCondition, parse_timestamp, timestamp
from aimschema.names import cache_claim, cache_for
from aimschema.resources import CACHE, Key

LAST_USED_EVERY_S = 3600.0
CACHE_FAILURES = frozenset({reasons.NAME_CONFLICT, reasons.WARM_FAILED})
"""Reasons with which CacheWarm of a template reports that a cache cannot be created."""

cache_ready = partial(condition, reasons.CACHE_READY)
_not_ready = partial(cache_ready, False)


@dataclass(frozen=True, slots=True)
class CachesView:
    """The model sources of one service. `unready`: those without a warm cache; `mounted`: the
    claims of running pods by mount path."""

    state: Projection
    parts: ResolvedService
    cached: bool
    unready: tuple[Source, ...]
    mounted: dict[str, str]

    @classmethod
    def build(
        cls,
        state: Projection,
        parts: ResolvedService,
        existing: KubeObject | None,
        pods: tuple[KubeObject, ...],
    ) -> "CachesView":
        mounted = mounts(existing) if existing is not None and is_running(pods) else {}
        unready = tuple(source for source in parts.sources if not source.warm)
        return cls(state, parts, mounts_caches(parts, existing), unready, mounted)

    @property
    def failed(self) -> Source | None:
        return next(
            (each for each in self.unready if each.cache is not None and has_failed(each.cache)),
            None,
        )

    @property
    def lost(self) -> Source | None:
        """A source that running pods mount, and whose cache is deleted or is being refilled."""
        return next((each for each in self.unready if self.is_mounted(each)), None)

    @property
    def missing(self) -> Source | None:
        return next((each for each in self.unready if each.cache is None), None)

    @property
    def pending(self) -> KubeObject | None:
        """The first cache that waits for its volume."""
        caches = [each.cache for each in self.unready if each.cache is not None]
        return next((c for c in caches if c.status.get("status") == reasons.PENDING), None)

    def is_mounted(self, source: Source) -> bool:
        """Whether the running pods mount this source's cache. Of a deleted cache only the path is
        known."""
        claim = self.mounted.get(mount_path(source))
        return claim is not None and (
            source.cache is None or claim == cache_claim(source.cache.key.name)
        )


def mounts_caches(parts: ResolvedService, existing: KubeObject | None) -> bool:
    if existing is not None:
        return existing.annotations.get(labels.ANNOTATION_CACHED) == "true"
    return parts.spec.cache_model or all(source.warm for source in parts.sources)


def cache_condition(view: CachesView) -> ReportedCondition:
    """True if the InferenceService may be applied; first match wins."""
    match view:
        case CachesView(cached=False):
            return cache_ready(
                True, reasons.CACHE_NOT_REQUESTED, "the runtime loads the model itself"
            )
        case CachesView(unready=()):
            return _all_cached(len(view.parts.sources))
        case CachesView(failed=Source(cache=KubeObject() as cache) as source):
            return _failed_condition(view, source, cache)
        case CachesView(lost=Source() as source):
            return _lost_condition(view, source)
        case CachesView(missing=Source() as source):
            return _missing(view, source)
        case CachesView(pending=KubeObject() as cache):
            ready = cache.condition(reasons.READY) or {}
            return _warming(view, f"; ModelCache {cache.key.name}: {ready.get('message', '')}")
        case _:
            return _warming(view)


def mounted_condition(
    state: Projection, service: KubeObject, existing: KubeObject
) -> ReportedCondition | None:
    """CacheReady from the mounts of the InferenceService, while another object is missing. Without
    mounts the previous condition stays."""
    mounted = mounts(existing)
    if not mounted:
        return existing_condition(service, reasons.CACHE_READY)
    lost = lost_claims(state, existing)
    if not lost:
        return _all_cached(len(mounted))
    message = (
        f"InferenceService {existing.key.name} mounts PersistentVolumeClaim {', '.join(lost)},"
        " whose ModelCache was deleted or is being filled again; to release the volume, set"
        f" spec.replicas of AIMService {service.key.name} to 0"
    )
    return _not_ready(reasons.CACHE_LOST, message)


def keep_caches(parts: ResolvedService, existing: KubeObject | None) -> Plan:
    """Remove the marks for eviction from the caches that the service mounts or waits for."""
    if not mounts_caches(parts, existing):
        return EMPTY_PLAN
    marked = (source.cache for source in parts.sources if source.is_evicting)
    return actions(*(_unmark(cache) for cache in marked if cache is not None))


def _unmark(cache: KubeObject) -> PatchObject:
    """Of this version of the cache only: it may be deleted meanwhile."""
    metadata = {
        "resourceVersion": str(cache.body["metadata"].get("resourceVersion")),
        "annotations": {labels.ANNOTATION_EVICTING: None},
    }
    return PatchObject(cache.key, cache.uid, {"metadata": metadata})


def report_last_used(state: Projection, parts: ResolvedService, now: datetime.datetime) -> Plan:
    """Report lastUsed when the service starts on its caches, then at most hourly."""
    plan = Plan(requeue_after_s=LAST_USED_EVERY_S)
    for source in parts.sources:
        if source.cache is not None:
            plan |= _report_cache_used(state, source.cache, now)
    return plan


def _report_cache_used(state: Projection, cache: KubeObject, now: datetime.datetime) -> Plan:
    previous = state.report(cache.key, reasons.DEPLOYER)
    is_current = previous is not None and previous.uid == cache.uid
    fields = previous.fields if previous is not None and is_current else cache.status
    last = fields.get("lastUsed")
    if last is None or (now - parse_timestamp(last)).total_seconds() >= LAST_USED_EVERY_S:
        return report(cache, lastUsed=timestamp(now))
    return EMPTY_PLAN


def _all_cached(count: int) -> ReportedCondition:
    message = f"{count} of {count} model sources are cached"
    return cache_ready(True, reasons.CACHE_WARM_REASON, message)


def _failed_condition(view: CachesView, source: Source, cache: KubeObject) -> ReportedCondition:
    ready = cache.condition(reasons.READY) or {}
    is_held = ready.get("reason") == reasons.PVC_TERMINATING and view.is_mounted(source)
    is_lost = is_held or ready.get("reason") == reasons.PVC_LOST
    return _not_ready(
        reasons.CACHE_LOST if is_lost else reasons.CACHE_FAILED,
        f"ModelCache {cache.key.name} failed: {ready.get('message', '')}",
    )


def _lost_condition(view: CachesView, source: Source) -> ReportedCondition:
    name = view.parts.service.key.name
    message = (
        f"the cache of {source.uri} was deleted or is being filled again; InferenceService"
        f" {name} keeps the old volume until the cache is warm; to release the volume, set"
        f" spec.replicas of AIMService {name} to 0 until then"
    )
    return _not_ready(reasons.CACHE_LOST, message)


def _missing(view: CachesView, source: Source) -> ReportedCondition:
    """Wait until the cacher creates a cache. If it cannot, the template has the reason."""
    namespace = view.parts.service.key.namespace
    former = view.state.get(Key(CACHE.kind, namespace, cache_for(source.uri)))
    if former is not None and former.deleting:
        message = f"{removal(former)}; it is re-created once it is deleted"
        return _not_ready(reasons.WAITING_FOR_CACHE, message)
    warmth = view.parts.template.condition(reasons.CACHE_WARM) or {}
    match warmth.get("reason"):
        case reasons.NAME_CONFLICT:
            return _not_ready(reasons.NAME_CONFLICT, str(warmth.get("message", "")))
        case reasons.WARM_FAILED:
            return _not_ready(reasons.CACHE_FAILED, str(warmth.get("message", "")))
    message = f"waiting for a ModelCache of {source.uri} to be created"
    return _not_ready(reasons.WAITING_FOR_CACHE, message)


def _warming(view: CachesView, cause: str = "") -> ReportedCondition:
    message = f"{_percent(view.parts.sources)} % of the model is cached{cause}"
    return _not_ready(reasons.CACHE_WARMING, message)


def _percent(sources: tuple[Source, ...]) -> int:
    """Per cent by bytes over all sources if all sizes are known, else by sources."""
    sizes = [
        int(source.cache.status.get("sizeBytes", 0)) if source.cache is not None else 0
        for source in sources
    ]
    weights = sizes if all(sizes) else [1] * len(sources)
    done = [weight * _progress(source) for weight, source in zip(weights, sources, strict=True)]
    return int(sum(done) / sum(weights))


def _progress(source: Source) -> int:
    """In per cent; 0 if the cache reports none."""
    if source.warm:
        return 100
    progress = "" if source.cache is None else str(source.cache.status.get("progress", ""))
    number = progress.removesuffix("%")
    return int(number) if number.isdecimal() else 0
