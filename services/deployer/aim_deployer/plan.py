"""Decide the next step for one AIMService. Pure and total; `now` is aware UTC.

1. What runs is never taken away because something it was made from is gone: then nothing is applied, and it is said.
2. Whether caches are mounted is decided at the first render and kept on the InferenceService (annotation `cached`).
3. RuntimeReady is True when and only when the InferenceService's Ready is.
"""

import datetime
from functools import partial

from aim_deployer.gpus import GpuTable
from aim_deployer.projection import predictor_pods
from aim_deployer.render import inference_service
from aim_deployer.resolve import Parts, Source, Unresolved, resolve
from aimschema import labels, reasons
from aimschema.messages import ReportedCondition, parse_timestamp, timestamp
from aimschema.resources import INFERENCE_SERVICE, Key
from aimservice.plan import NOTHING, ApplyObject, Plan, act, condition, report
from aimservice.projection import REFUSED, Projection, Refusal, Seen
from aimservice.workloads import problem

LAST_USED_EVERY_S = 3600.0
_FAILED_LOADS = frozenset({"BlockedByFailedLoad", "InvalidSpec"})

resolved = partial(condition, reasons.RESOLVED)
cache_ready = partial(condition, reasons.CACHE_READY)
runtime_ready = partial(condition, reasons.RUNTIME_READY)


def plan(seen: Projection, key: Key, now: datetime.datetime, *, gpus: GpuTable) -> Plan:
    service = seen.get(key)
    if service is None or service.deleting:
        return NOTHING
    there = seen.get(Key(INFERENCE_SERVICE.kind, key.namespace, key.name))
    if there is not None and service.uid not in there.owners:
        foreign = f"InferenceService {key.name} exists and was not made for this service; rename or delete one of them"
        return report(service, runtime_ready(False, reasons.NAME_CONFLICT, foreign))
    parts = resolve(seen, service, gpus)
    if isinstance(parts, Unresolved):
        kept = _kept(seen, service, there)
        return report(service, resolved(False, parts.reason, parts.message), *kept, **_fields(seen, service, None))
    found = resolved(True, reasons.RESOLVED, f"template {parts.spec.template_ref}, model {parts.spec.model}, config {parts.spec.config_ref}")
    cached = _mounts_caches(parts, there)
    caches, may_apply = _caches(parts, there, cached=cached)
    if not may_apply:
        return report(service, found, caches, *([_runtime(seen, service, there)] if there is not None else []), **_fields(seen, service, None))
    if not seen.installed(INFERENCE_SERVICE.kind):
        absent = runtime_ready(
            False, reasons.RUNTIME_FAILED, "the cluster has no InferenceService kind (inferenceservices.serving.kserve.io): install KServe"
        )
        return report(service, found, caches, absent, **_fields(seen, service, None))
    wanted = ApplyObject(inference_service(parts, cached=cached))
    said = report(service, found, caches, _runtime(seen, service, there), **_fields(seen, service, parts))
    return act(wanted) | said | (_last_used(parts, now) if cached else NOTHING)


def _mounts_caches(parts: Parts, there: Seen | None) -> bool:
    if there is not None:
        return there.annotations.get(labels.ANNOTATION_CACHED) == "true"
    return parts.spec.cache_model or all(source.warm for source in parts.sources)


def _caches(parts: Parts, there: Seen | None, *, cached: bool) -> tuple[ReportedCondition, bool]:
    """CacheReady, and whether the InferenceService may be applied."""
    if not cached:
        return cache_ready(True, reasons.CACHE_NOT_REQUESTED, "the runtime loads the model itself"), True
    missing = [source for source in parts.sources if source.cache is None]
    if there is not None and missing:
        lost = f"the cache of {missing[0].uri} is gone; what runs is left as it is, and a new cache is used when the service is made anew"
        return cache_ready(False, reasons.CACHE_LOST, lost), False
    failed = next((s.cache for s in parts.sources if s.cache is not None and s.cache.status.get("status") == reasons.FAILED_STATE), None)
    if failed is not None:
        why = (failed.condition(reasons.READY) or {}).get("message", "")
        lost_volume = (failed.condition(reasons.READY) or {}).get("reason") == reasons.PVC_LOST
        reason = reasons.CACHE_LOST if lost_volume else reasons.CACHE_FAILED
        return cache_ready(False, reason, f"cache {failed.key.name} failed: {why}"), there is not None
    if all(source.warm for source in parts.sources):
        return cache_ready(True, reasons.CACHE_WARM_REASON, f"{len(parts.sources)} of {len(parts.sources)} model sources are cached"), True
    if missing:
        return cache_ready(False, reasons.WAITING_FOR_CACHE, f"waiting for a cache of {missing[0].uri}"), False
    return cache_ready(False, reasons.CACHE_WARMING, f"{_percent(parts.sources)} % of the model is cached"), there is not None


def _percent(sources: tuple[Source, ...]) -> int:
    """By bytes over all sources where their sizes are known, else by sources."""
    sizes = [int(source.cache.status.get("sizeBytes", 0)) if source.cache is not None else 0 for source in sources]
    weights = sizes if all(sizes) else [1] * len(sources)
    there = [weight * _progress(source) for weight, source in zip(weights, sources, strict=True)]
    return int(sum(there) / sum(weights))


def _progress(source: Source) -> int:
    text = "0%" if source.cache is None else str(source.cache.status.get("progress", "0%"))
    return 100 if source.warm else int(text.removesuffix("%") or 0)


def _runtime(seen: Projection, service: Seen, there: Seen | None) -> ReportedCondition:
    """First match wins: refused, ready, failed, still being made."""
    refusal: Refusal | None = seen.learned(service.key, REFUSED)
    if refusal is not None:
        return runtime_ready(False, reasons.RUNTIME_FAILED, f"{refusal.target.kind} {refusal.target.name} is refused: {refusal.message}")
    if there is None:
        return runtime_ready(False, reasons.CREATING_RUNTIME, "the InferenceService is being created")
    pods = predictor_pods(seen, service.key)
    if service.spec.get("replicas", 1) == 0:
        return runtime_ready(True, reasons.STOPPED, "stopped: replicas is 0")
    if there.holds(reasons.READY):
        return runtime_ready(True, reasons.RUNTIME_READY, f"{_ready(pods)} of {service.spec.get('replicas', 1)} replicas answer")
    model_status = there.status.get("modelStatus") or {}
    if model_status.get("transitionStatus") in _FAILED_LOADS:
        info = model_status.get("lastFailureInfo") or {}
        return runtime_ready(False, reasons.RUNTIME_FAILED, f"{model_status['transitionStatus']}: {info.get('message', info.get('reason', ''))}")
    trouble = next((text for pod in pods if (text := problem(pod)) is not None), None)
    if trouble is not None:
        return runtime_ready(False, reasons.RUNTIME_FAILED, trouble)
    restarted = next((pod for pod in pods if _restarts(pod)), None)
    if restarted is not None:
        return runtime_ready(
            False, reasons.RUNTIME_FAILED, f"pod {restarted.key.name} ended and was started again {_restarts(restarted)} times; see its log"
        )
    waiting = (there.condition(reasons.READY) or {}).get("message", "")
    return runtime_ready(False, reasons.CREATING_RUNTIME, f"the model server is starting{': ' + waiting if waiting else ''}")


def _kept(seen: Projection, service: Seen, there: Seen | None) -> list[ReportedCondition]:
    """What is said of a running service while something it was made from is gone."""
    if there is None:
        return []
    said = service.condition(reasons.CACHE_READY)
    caches = [] if said is None else [ReportedCondition(type=said["type"], status=said["status"], reason=said["reason"], message=said["message"])]
    return [*caches, _runtime(seen, service, there)]


def _fields(seen: Projection, service: Seen, parts: Parts | None) -> dict[str, object]:
    resolved_template = parts.spec.template_ref if parts is not None else service.status.get("resolvedTemplate")
    return {"resolvedTemplate": resolved_template, "readyReplicas": _ready(predictor_pods(seen, service.key))}


def _last_used(parts: Parts, now: datetime.datetime) -> Plan:
    """When the service starts on its caches, then at most hourly."""
    stale = []
    for source in parts.sources:
        if source.cache is not None:
            last = source.cache.status.get("lastUsed")
            if last is None or (now - parse_timestamp(last)).total_seconds() >= LAST_USED_EVERY_S:
                stale.append(report(source.cache, lastUsed=timestamp(now)))
    return Plan(reports=tuple(each for plan_ in stale for each in plan_.reports), requeue_after_s=LAST_USED_EVERY_S)


def _ready(pods: list[Seen]) -> int:
    return sum(1 for pod in pods if pod.holds(reasons.READY) and not pod.deleting)


def _restarts(pod: Seen) -> int:
    return max((int(status.get("restartCount", 0)) for status in pod.status.get("containerStatuses") or ()), default=0)
