"""Decide the next step for one AIMService. Pure and total; `now` is aware UTC.

1. What runs is never taken away because something it was made from is gone: then nothing is applied, and it is said.
2. Whether caches are mounted is decided at the first render and kept on the InferenceService (annotation `cached`); nothing is
   rolled out onto a cache that is not warm.
3. RuntimeReady is True when and only when the InferenceService's Ready is.
"""

import datetime
from functools import partial

from aim_deployer.gpus import GpuTable
from aim_deployer.projection import predictor_pods
from aim_deployer.render import CONTAINER, inference_service, mount_path
from aim_deployer.resolve import Parts, Source, Unresolved, resolve
from aimschema import labels, reasons
from aimschema.messages import ReportedCondition, parse_timestamp, timestamp
from aimschema.names import cache_claim
from aimschema.resources import INFERENCE_SERVICE, SERVICE, Key
from aimservice.plan import NOTHING, ApplyObject, Plan, act, condition, report, warn_of_contest, with_contest
from aimservice.projection import REFUSED, Projection, Refusal, Seen
from aimservice.workloads import ended, problem

LAST_USED_EVERY_S = 3600.0
_TRUTH = {"True": True, "False": False}
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
        return report(service, _foreign(service, there))
    parts = resolve(seen, service, gpus)
    if isinstance(parts, Parts) and parts.config is None and there is not None and _made_with_config(there):
        gone = f"AIMNamespaceConfig {parts.spec.config_ref} is gone: create it again; what runs is left as it is until then"
        parts = Unresolved(reasons.RUNTIME_CONFIG_MISSING, gone)
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
    said = warn_of_contest(seen, wanted.key, said)
    return act(wanted) | said | (_last_used(seen, parts, now) if cached and parts.spec.replicas else NOTHING)


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
    failed = next((s.cache for s in unready if s.cache is not None and s.cache.status.get("status") == reasons.FAILED_STATE), None)
    if failed is not None:
        ready = failed.condition(reasons.READY) or {}
        reason = reasons.CACHE_LOST if ready.get("reason") == reasons.PVC_LOST else reasons.CACHE_FAILED
        return cache_ready(False, reason, f"ModelCache {failed.key.name} failed: {ready.get('message', '')}"), False
    mounted = {} if there is None else _mounts(there)
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


def _runtime(seen: Projection, service: Seen, there: Seen | None) -> ReportedCondition:
    return with_contest(seen, Key(INFERENCE_SERVICE.kind, service.key.namespace, service.key.name), _fares(seen, service, there))


def _fares(seen: Projection, service: Seen, there: Seen | None) -> ReportedCondition:
    """First match wins: refused, ready, failed, still being made."""
    refusal: Refusal | None = seen.learned(service.key, REFUSED)
    if refusal is not None:
        words = f"{refusal.target.kind} {refusal.target.name} is refused: {refusal.message}"
        return runtime_ready(False, refusal.reason(reasons.RUNTIME_FAILED), words)
    if there is None:
        return runtime_ready(False, reasons.CREATING_RUNTIME, f"InferenceService {service.key.name} is being created")
    pods = [pod for pod in predictor_pods(seen, service.key) if not pod.deleting]
    if service.spec.get("replicas", 1) == 0:
        return runtime_ready(True, reasons.STOPPED, "stopped: replicas is 0")
    if there.holds(reasons.READY):
        return runtime_ready(True, reasons.RUNTIME_READY, f"{_ready(pods)} of {service.spec.get('replicas', 1)} replicas answer")
    log = f"see why: kubectl logs -n {service.key.namespace}"
    model_status = there.status.get("modelStatus") or {}
    if model_status.get("transitionStatus") in _FAILED_LOADS:
        info = model_status.get("lastFailureInfo") or {}
        why = f"{model_status['transitionStatus']}: {info.get('message', info.get('reason', ''))}"
        pods_log = f"{log} -l {labels.KSERVE_ISVC_LABEL}={there.key.name}"
        return runtime_ready(False, reasons.RUNTIME_FAILED, f"InferenceService {there.key.name}: {why}; {pods_log}")
    trouble = next((found_.message for pod in pods if (found_ := problem(pod, CONTAINER)) is not None), None)
    if trouble is not None:
        return runtime_ready(False, reasons.RUNTIME_FAILED, trouble)
    crashed = next(((pod, end) for pod in pods if (end := ended(pod, CONTAINER)) is not None), None)
    if crashed is not None:
        pod, end = crashed
        return runtime_ready(False, reasons.RUNTIME_FAILED, f"pod {pod.key.name} ended with exit code {end.exit_code}; {log} {pod.key.name}")
    restarted = next((pod for pod in pods if _restarts(pod)), None)
    if restarted is not None:
        words = f"pod {restarted.key.name} ended and was started again {_restarts(restarted)} times; {log} {restarted.key.name} --previous"
        return runtime_ready(False, reasons.RUNTIME_FAILED, words)
    found = there.condition(reasons.READY)
    if found is None and not pods:
        waits = f"waiting for KServe to take up InferenceService {there.key.name}; if this stays, see whether its controller runs"
        return runtime_ready(False, reasons.CREATING_RUNTIME, waits)
    why = (found or {}).get("message", "")
    return runtime_ready(False, reasons.CREATING_RUNTIME, f"InferenceService {there.key.name} is starting{': ' + str(why) if why else ''}")


def _kept(seen: Projection, service: Seen, there: Seen | None) -> list[ReportedCondition]:
    """What is said of a running service while something it was made from is gone."""
    if there is None:
        return []
    said = service.condition(reasons.CACHE_READY)
    caches = (
        [] if said is None else [condition(reasons.CACHE_READY, _TRUTH.get(said.get("status", "")), said.get("reason", ""), said.get("message", ""))]
    )
    return [*caches, _runtime(seen, service, there)]


def _fields(seen: Projection, service: Seen, parts: Parts | None) -> dict[str, object]:
    resolved_template = parts.spec.template_ref if parts is not None else service.status.get("resolvedTemplate")
    return {"resolvedTemplate": resolved_template, "readyReplicas": _ready(predictor_pods(seen, service.key))}


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


def _ready(pods: list[Seen]) -> int:
    return sum(1 for pod in pods if pod.holds(reasons.READY) and not pod.deleting)


def _restarts(pod: Seen) -> int:
    return max((int(status.get("restartCount", 0)) for status in pod.status.get("containerStatuses") or ()), default=0)
