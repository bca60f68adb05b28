"""Decide the next step for one AIMService. Pure and total; `now` is aware UTC.

1. What runs is never taken away because something it was made from is gone: then nothing is applied, and it is said.
2. Whether caches are mounted is decided at the first render and kept on the InferenceService (annotation `cached`); nothing is
   rolled out onto a cache that is not warm.
3. How the runtime fares is in aim_deployer/runtime.py.
"""

import datetime
from functools import partial

from aim_deployer.gpus import GpuTable
from aim_deployer.projection import predictor_pods
from aim_deployer.render import inference_service, mount_path
from aim_deployer.resolve import Parts, Source, Unresolved, resolve
from aim_deployer.runtime import Runtime, ready_count, runtime, runtime_ready
from aimschema import labels, reasons
from aimschema.messages import ReportedCondition, parse_timestamp, timestamp
from aimschema.names import cache_claim
from aimschema.resources import INFERENCE_SERVICE, SERVICE, Key
from aimservice.lookups import has_failed
from aimservice.plan import NOTHING, ApplyObject, Plan, act, condition, repeated, report, warn_of_contest
from aimservice.projection import Projection, Seen

LAST_USED_EVERY_S = 3600.0

resolved = partial(condition, reasons.RESOLVED)
cache_ready = partial(condition, reasons.CACHE_READY)


def plan(seen: Projection, key: Key, now: datetime.datetime, *, gpus: GpuTable) -> Plan:
    service = seen.get(key)
    if service is None or service.deleting:
        return NOTHING
    there = seen.get(Key(INFERENCE_SERVICE.kind, key.namespace, key.name))
    if there is not None and service.uid not in there.owners:
        return report(service, _foreign(service, there))
    fares = runtime(seen, service, there, now)
    parts = resolve(seen, service, gpus)
    if isinstance(parts, Parts) and parts.config is None and there is not None and _made_with_config(there):
        gone = f"AIMNamespaceConfig {parts.spec.config_ref} is gone: create it again; what runs is left as it is until then"
        parts = Unresolved(reasons.RUNTIME_CONFIG_MISSING, gone)
    if isinstance(parts, Unresolved):
        kept = _kept(service, there, fares)
        return report(service, resolved(False, parts.reason, parts.message), *kept, **_fields(seen, service, None)) | fares.follow_up
    found = resolved(True, reasons.RESOLVED, f"template {parts.spec.template_ref}, model {parts.spec.model}, config {parts.spec.config_ref}")
    cached = _mounts_caches(parts, there)
    caches, may_apply = _caches(parts, there, cached=cached)
    if not may_apply:
        said = report(service, found, caches, *([fares.condition] if there is not None else []), **_fields(seen, service, None))
        return said | fares.follow_up
    if not seen.installed(INFERENCE_SERVICE.kind):
        absent = runtime_ready(
            False, reasons.RUNTIME_FAILED, "the cluster has no InferenceService kind (inferenceservices.serving.kserve.io): install KServe"
        )
        return report(service, found, caches, absent, **_fields(seen, service, None))
    wanted = ApplyObject(inference_service(parts, cached=cached))
    said = report(service, found, caches, fares.condition, **_fields(seen, service, parts))
    said = warn_of_contest(seen, wanted.key, said)
    return act(wanted) | said | fares.follow_up | (_last_used(seen, parts, now) if cached and parts.spec.replicas else NOTHING)


def _foreign(service: Seen, there: Seen) -> ReportedCondition:
    """An InferenceService of our name is not ours; what a former service of this name left goes by itself."""
    if there.owner(SERVICE.kind) == service.key:
        return runtime_ready(False, reasons.CREATING_RUNTIME, "the InferenceService of the former service of this name is being removed")
    foreign = f"InferenceService {there.key.name} exists and was not made for this service; rename or delete one of them"
    return runtime_ready(False, reasons.NAME_CONFLICT, foreign)


def _made_with_config(there: Seen) -> bool:
    """Whether what runs has pull secrets or credentials from a config, which a render without one would take away."""
    predictor = there.spec.get("predictor") or {}
    env = [variable for container in predictor.get("containers") or () for variable in container.get("env") or ()]
    return bool(predictor.get("imagePullSecrets")) or any("valueFrom" in variable for variable in env)


def _mounts_caches(parts: Parts, there: Seen | None) -> bool:
    if there is not None:
        return there.annotations.get(labels.ANNOTATION_CACHED) == "true"
    return parts.spec.cache_model or all(source.warm for source in parts.sources)


def _caches(parts: Parts, there: Seen | None, *, cached: bool) -> tuple[ReportedCondition, bool]:
    """CacheReady, and whether the InferenceService may be applied. First match wins: not wanted, warm, failed, lost, not yet there, warming."""
    if not cached:
        return cache_ready(True, reasons.CACHE_NOT_REQUESTED, "the runtime loads the model itself"), True
    unready = [source for source in parts.sources if not source.warm]
    if not unready:
        return cache_ready(True, reasons.CACHE_WARM_REASON, f"{len(parts.sources)} of {len(parts.sources)} model sources are cached"), True
    mounted = {} if there is None else _mounts(there)
    failed = next(((s, s.cache) for s in unready if s.cache is not None and has_failed(s.cache)), None)
    if failed is not None:
        source, cache = failed
        ready = cache.condition(reasons.READY) or {}
        held = ready.get("reason") == reasons.PVC_TERMINATING and _was_mounted(source, mounted)
        reason = reasons.CACHE_LOST if held or ready.get("reason") == reasons.PVC_LOST else reasons.CACHE_FAILED
        return cache_ready(False, reason, f"ModelCache {cache.key.name} failed: {ready.get('message', '')}"), False
    lost = next((source for source in unready if _was_mounted(source, mounted)), None)
    if lost is not None:
        runs = f"InferenceService {parts.service.key.name}"
        words = (
            f"the cache of {lost.uri} is gone or being filled anew; {runs} is left as it is until it is warm; delete it to let go of the old volume"
        )
        return cache_ready(False, reasons.CACHE_LOST, words), False
    missing = next((source for source in unready if source.cache is None), None)
    if missing is not None:
        return _no_cache(parts, missing), False
    waiting = [s.cache for s in unready if s.cache is not None and s.cache.status.get("status") == reasons.PENDING]
    why = f"; ModelCache {waiting[0].key.name}: {(waiting[0].condition(reasons.READY) or {}).get('message', '')}" if waiting else ""
    return cache_ready(False, reasons.CACHE_WARMING, f"{_percent(parts.sources)} % of the model is cached{why}"), False


def _no_cache(parts: Parts, missing: Source) -> ReportedCondition:
    """Waiting for the cacher to make one; if it cannot, the template says why."""
    warmth = parts.template.condition(reasons.CACHE_WARM) or {}
    match warmth.get("reason"):
        case reasons.NAME_CONFLICT:
            return cache_ready(False, reasons.NAME_CONFLICT, str(warmth.get("message", "")))
        case reasons.WARM_FAILED:
            return cache_ready(False, reasons.CACHE_FAILED, str(warmth.get("message", "")))
    return cache_ready(False, reasons.WAITING_FOR_CACHE, f"waiting for a ModelCache of {missing.uri} to be made")


def _mounts(there: Seen) -> dict[str, str]:
    """Mount path -> claim of what runs."""
    predictor = there.spec.get("predictor") or {}
    claims = {v.get("name"): str((v.get("persistentVolumeClaim") or {}).get("claimName", "")) for v in predictor.get("volumes") or ()}
    mounts = [mount for container in predictor.get("containers") or () for mount in container.get("volumeMounts") or ()]
    return {str(mount.get("mountPath")): claims[mount["name"]] for mount in mounts if claims.get(mount.get("name"))}


def _was_mounted(source: Source, mounted: dict[str, str]) -> bool:
    """Whether what runs was started on this source's cache; of a cache that is gone only the path is known."""
    claim = mounted.get(mount_path(source))
    return claim is not None and (source.cache is None or claim == cache_claim(source.cache.key.name))


def _percent(sources: tuple[Source, ...]) -> int:
    """By bytes over all sources where their sizes are known, else by sources."""
    sizes = [int(source.cache.status.get("sizeBytes", 0)) if source.cache is not None else 0 for source in sources]
    weights = sizes if all(sizes) else [1] * len(sources)
    there = [weight * _progress(source) for weight, source in zip(weights, sources, strict=True)]
    return int(sum(there) / sum(weights))


def _progress(source: Source) -> int:
    """In per cent; 0 where nothing is said."""
    said = "" if source.cache is None else str(source.cache.status.get("progress", ""))
    number = said.removesuffix("%")
    return 100 if source.warm else int(number) if number.isdecimal() else 0


def _kept(service: Seen, there: Seen | None, fares: Runtime) -> list[ReportedCondition]:
    """What is reported of a service while something it was made from is gone."""
    if there is None:
        return []
    caches = repeated(service, reasons.CACHE_READY)
    return [fares.condition] if caches is None else [caches, fares.condition]


def _fields(seen: Projection, service: Seen, parts: Parts | None) -> dict[str, object]:
    resolved_template = parts.spec.template_ref if parts is not None else service.status.get("resolvedTemplate")
    return {"resolvedTemplate": resolved_template, "readyReplicas": ready_count(predictor_pods(seen, service.key))}


def _last_used(seen: Projection, parts: Parts, now: datetime.datetime) -> Plan:
    """When the service starts on its caches, then at most hourly."""
    stale = []
    for source in parts.sources:
        if source.cache is not None:
            told = seen.report(source.cache.key, reasons.DEPLOYER)
            fields = told.fields if told is not None and told.uid == source.cache.uid else source.cache.status
            last = fields.get("lastUsed")
            if last is None or (now - parse_timestamp(last)).total_seconds() >= LAST_USED_EVERY_S:
                stale.append(report(source.cache, lastUsed=timestamp(now)))
    return Plan(reports=tuple(each for plan_ in stale for each in plan_.reports), requeue_after_s=LAST_USED_EVERY_S)
