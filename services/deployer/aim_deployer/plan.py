"""Decide the next step for one AIMService. Pure and total; `now` is aware UTC.

1. A running service (at least one ready pod) is never stopped because an input was deleted. Then
   nothing is applied, and Resolved reports it.
2. A service that does not run blocks nothing: pods that mount the volume of a deleted cache are
   stopped, so that the volume can be deleted.
3. Stopping and starting only need the InferenceService: if it cannot be rendered, it is patched.
4. The first render decides whether caches are mounted, and the annotation `cached` records it.
   Nothing is rolled out onto a cache that is not warm. The InferenceService also records its
   deployment mode (modes.py) and its render version (versions.py).
5. runtime.py has the status of the runtime.
"""

import datetime
from dataclasses import dataclass
from functools import partial

from aim_deployer.gpus import GpuTable
from aim_deployer.modes import AUTO, mode_of
from aim_deployer.projection import predictor_pods
from aim_deployer.render import CONTAINER, Body, disruption_budget, mount_path
from aim_deployer.resolve import ResolutionError, ResolvedService, Source, resolve
from aim_deployer.runtime import ready_count, runtime, runtime_ready
from aim_deployer.versions import rendered
from aimcontroller.plan import (
    EMPTY_PLAN,
    ApplyObject,
    DeleteObject,
    PatchObject,
    Plan,
    actions,
    condition,
    existing_condition,
    report,
    warn_of_field_conflict,
)
from aimcontroller.projection import REJECTED, ApplyRejected, KubeObject, Projection
from aimcontroller.queries import has_failed
from aimcontroller.removal import is_of_former, of_another, of_former, removal
from aimschema import labels, reasons
from aimschema.messages import ReportedCondition, parse_timestamp, timestamp
from aimschema.names import cache_claim, cache_for
from aimschema.resources import BUDGET, CACHE, INFERENCE_SERVICE, Key

LAST_USED_EVERY_S = 3600.0

resolved = partial(condition, reasons.RESOLVED)
cache_ready = partial(condition, reasons.CACHE_READY)


@dataclass(frozen=True, slots=True)
class View:
    """The state of one service. `existing`: its InferenceService; `rejection`: the last error of
    the API server."""

    state: Projection
    service: KubeObject
    existing: KubeObject | None
    pods: tuple[KubeObject, ...]
    rejection: ApplyRejected | None

    @classmethod
    def build(cls, state: Projection, service: KubeObject) -> "View":
        existing = state.get(Key(INFERENCE_SERVICE.kind, service.key.namespace, service.key.name))
        return cls(
            state,
            service,
            existing,
            tuple(predictor_pods(state, service.key)),
            state.learned(service.key, REJECTED),
        )

    @property
    def replicas(self) -> int:
        return int(self.service.spec.get("replicas", 1))

    @property
    def runs(self) -> bool:
        """Whether a pod is Ready, or has started before: a running pod may hold data that cannot be
        loaded a second time."""
        return any(
            not pod.deleting and (pod.holds(reasons.READY) or _has_started(pod))
            for pod in self.pods
        )


def plan(
    state: Projection,
    key: Key,
    now: datetime.datetime,
    *,
    gpus: GpuTable,
    mode: str = AUTO,
    namespace: str = "",
) -> Plan:
    """The next step for the service at `key`. `namespace` is the control plane's own."""
    service = state.get(key)
    if service is None or service.deleting or not service.has_spec:
        return EMPTY_PLAN
    view = View.build(state, service)
    if view.existing is not None and service.uid not in view.existing.owners:
        return report(service, _name_conflict(service, view.existing))
    runtime_status = runtime(state, service, view.existing, now, mode)
    runtimes = [runtime_status.condition] if view.existing is not None or view.replicas == 0 else []
    parts = _parts(view, gpus, namespace)
    if isinstance(parts, ResolutionError):
        mounted = [] if view.existing is None else _mounted_caches(view, view.existing)
        reported = report(
            service,
            resolved(False, parts.reason, parts.message),
            *mounted,
            *runtimes,
            **_fields(view, None),
        )
        return _switch(view) | _budget(view) | reported | runtime_status.follow_up
    found = resolved(
        True,
        reasons.RESOLVED,
        f"template {parts.spec.template_ref}, model {parts.spec.model}, config"
        f" {parts.spec.config_ref}",
    )
    cached = _mounts_caches(parts, view.existing)
    caches, may_apply = _caches(parts, view, cached=cached)
    if not may_apply:
        return (
            _switch(view)
            | _budget(view)
            | report(service, found, caches, *runtimes, **_fields(view, None))
            | runtime_status.follow_up
        )
    if not state.installed(INFERENCE_SERVICE.kind):
        absent = runtime_ready(
            False,
            reasons.RUNTIME_FAILED,
            "the cluster has no InferenceService kind (inferenceservices.serving.kserve.io):"
            " install KServe",
        )
        return report(service, found, caches, absent, **_fields(view, None))
    desired = ApplyObject(
        rendered(parts, view.existing, mode_of(view.existing, view.rejection, mode), cached=cached)
    )
    reported = warn_of_field_conflict(
        state,
        desired.key,
        report(service, found, caches, runtime_status.condition, **_fields(view, parts)),
    )
    used = _last_used(state, parts, now) if cached and parts.spec.replicas else EMPTY_PLAN
    return (
        _stop_first(view)
        | actions(desired)
        | _budget(view, made=True)
        | reported
        | runtime_status.follow_up
        | used
    )


def _parts(view: View, gpus: GpuTable, namespace: str) -> ResolvedService | ResolutionError:
    parts, existing = resolve(view.state, view.service, gpus, namespace), view.existing
    if (
        isinstance(parts, ResolvedService)
        and parts.config is None
        and existing is not None
        and view.runs
        and _made_with_config(existing)
    ):
        message = (
            f"AIMNamespaceConfig {parts.spec.config_ref} is gone: create it again; what runs is"
            " left as it is until then"
        )
        return ResolutionError(reasons.RUNTIME_CONFIG_MISSING, message)
    return parts


def _switch(view: View) -> Plan:
    """Stop or start an existing InferenceService that cannot be rendered."""
    existing = view.existing
    if existing is None or existing.deleting:
        return EMPTY_PLAN
    stop = view.replicas == 0 or (not view.runs and _holds_a_lost_claim(view.state, existing))
    if stop == _is_stopped(existing):
        return EMPTY_PLAN
    replicas = 0 if stop else view.replicas
    patch = {
        "metadata": {"annotations": {labels.KSERVE_STOP: "true" if stop else None}},
        "spec": {"predictor": {"minReplicas": replicas, "maxReplicas": replicas}},
    }
    return actions(PatchObject(existing.key, existing.uid, patch))


def _stop_first(view: View) -> Plan:
    """Stop a service whose spec the API server rejects."""
    rejected = view.rejection is not None and view.replicas == 0
    return _switch(view) if rejected else EMPTY_PLAN


def _is_stopped(existing: KubeObject) -> bool:
    return existing.annotations.get(labels.KSERVE_STOP) == "true"


def _holds_a_lost_claim(state: Projection, existing: KubeObject) -> bool:
    """Whether its pods mount the claim of a cache that is deleted or being refilled."""
    return bool(_lost_claims(state, existing))


def _lost_claims(state: Projection, existing: KubeObject) -> list[str]:
    warm = {
        cache_claim(cache.key.name)
        for cache in state.all(CACHE.kind, existing.key.namespace)
        if not cache.deleting and cache.status.get("status") == reasons.AVAILABLE_STATE
    }
    return sorted(set(_mounts(existing).values()) - warm)


def _has_started(pod: KubeObject) -> bool:
    statuses = _items(pod.status, "containerStatuses")
    return any(
        each.get("name") == CONTAINER
        and each.get("started") is True
        and "running" in (each.get("state") or {})
        for each in statuses
    )


def _budget(view: View, *, made: bool = False) -> Plan:
    """A PodDisruptionBudget for two or more replicas. `made`: the same plan applies the
    InferenceService."""
    budget = view.state.get(Key(BUDGET.kind, view.service.key.namespace, view.service.key.name))
    if view.replicas >= 2:
        return (
            actions(ApplyObject(disruption_budget(view.service)))
            if made or view.existing is not None
            else EMPTY_PLAN
        )
    if budget is None or budget.deleting or view.service.uid not in budget.owners:
        return EMPTY_PLAN
    return actions(DeleteObject(budget.key, budget.uid))


def _name_conflict(service: KubeObject, existing: KubeObject) -> ReportedCondition:
    """An InferenceService with this name has another owner. One of a former service with this name
    is garbage collected."""
    if is_of_former(service, existing):
        return runtime_ready(False, reasons.CREATING_RUNTIME, of_former(service, existing))
    return runtime_ready(False, reasons.NAME_CONFLICT, of_another(service, existing))


def _made_with_config(existing: KubeObject) -> bool:
    """Whether the existing object has pull secrets or credentials of a config: a render without the
    config would remove them."""
    predictor = existing.spec.get("predictor") or {}
    env = [
        variable
        for container in _items(predictor, "containers")
        for variable in _items(container, "env")
    ]
    return bool(predictor.get("imagePullSecrets")) or any(
        "valueFrom" in variable for variable in env
    )


def _mounts_caches(parts: ResolvedService, existing: KubeObject | None) -> bool:
    if existing is not None:
        return existing.annotations.get(labels.ANNOTATION_CACHED) == "true"
    return parts.spec.cache_model or all(source.warm for source in parts.sources)


def _caches(parts: ResolvedService, view: View, *, cached: bool) -> tuple[ReportedCondition, bool]:
    """CacheReady, and whether the InferenceService may be applied. First match wins: no cache
    requested, warm, failed, lost, missing, warming."""
    if not cached:
        return (
            cache_ready(True, reasons.CACHE_NOT_REQUESTED, "the runtime loads the model itself"),
            True,
        )
    unready = [source for source in parts.sources if not source.warm]
    if not unready:
        return (
            cache_ready(
                True,
                reasons.CACHE_WARM_REASON,
                f"{len(parts.sources)} of {len(parts.sources)} model sources are cached",
            ),
            True,
        )
    mounted = {} if view.existing is None or not view.runs else _mounts(view.existing)
    failed = next(
        ((s, s.cache) for s in unready if s.cache is not None and has_failed(s.cache)), None
    )
    if failed is not None:
        source, cache = failed
        ready = cache.condition(reasons.READY) or {}
        held = ready.get("reason") == reasons.PVC_TERMINATING and _was_mounted(source, mounted)
        reason = (
            reasons.CACHE_LOST
            if held or ready.get("reason") == reasons.PVC_LOST
            else reasons.CACHE_FAILED
        )
        return (
            cache_ready(
                False, reason, f"ModelCache {cache.key.name} failed: {ready.get('message', '')}"
            ),
            False,
        )
    lost = next((source for source in unready if _was_mounted(source, mounted)), None)
    if lost is not None:
        name = parts.service.key.name
        message = (
            f"the cache of {lost.uri} is gone or being filled again; InferenceService {name} runs"
            " on the old volume and is left as it is until the cache is warm; to release the"
            f" volume, set spec.replicas of AIMService {name} to 0 until then"
        )
        return cache_ready(False, reasons.CACHE_LOST, message), False
    missing = next((source for source in unready if source.cache is None), None)
    if missing is not None:
        return _no_cache(parts, view.state, missing), False
    waiting = [
        s.cache
        for s in unready
        if s.cache is not None and s.cache.status.get("status") == reasons.PENDING
    ]
    why = (
        f"; ModelCache {waiting[0].key.name}:"
        f" {(waiting[0].condition(reasons.READY) or {}).get('message', '')}"
        if waiting
        else ""
    )
    return (
        cache_ready(
            False, reasons.CACHE_WARMING, f"{_percent(parts.sources)} % of the model is cached{why}"
        ),
        False,
    )


def _no_cache(parts: ResolvedService, state: Projection, missing: Source) -> ReportedCondition:
    """Wait until the cacher creates a cache. If it cannot, the template has the reason."""
    former = state.get(Key(CACHE.kind, parts.service.key.namespace, cache_for(missing.uri)))
    if former is not None and former.deleting:
        return cache_ready(
            False,
            reasons.WAITING_FOR_CACHE,
            f"{removal(former)}; it is created again once it is gone",
        )
    warmth = parts.template.condition(reasons.CACHE_WARM) or {}
    match warmth.get("reason"):
        case reasons.NAME_CONFLICT:
            return cache_ready(False, reasons.NAME_CONFLICT, str(warmth.get("message", "")))
        case reasons.WARM_FAILED:
            return cache_ready(False, reasons.CACHE_FAILED, str(warmth.get("message", "")))
    return cache_ready(
        False, reasons.WAITING_FOR_CACHE, f"waiting for a ModelCache of {missing.uri} to be made"
    )


def _mounts(existing: KubeObject) -> dict[str, str]:
    """The claims of the existing InferenceService by mount path."""
    predictor = existing.spec.get("predictor") or {}
    claims = {
        str(v.get("name")): str((v.get("persistentVolumeClaim") or {}).get("claimName", ""))
        for v in _items(predictor, "volumes")
    }
    mounts = [
        mount
        for container in _items(predictor, "containers")
        for mount in _items(container, "volumeMounts")
    ]
    return {
        str(mount.get("mountPath")): claims[str(mount.get("name"))]
        for mount in mounts
        if claims.get(str(mount.get("name")))
    }


def _items(holder: Body, field: str) -> list[Body]:
    """The objects in a list. Other items are dropped; any other value counts as an empty list."""
    value = holder.get(field)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _was_mounted(source: Source, mounted: dict[str, str]) -> bool:
    """Whether the running pods mount this source's cache. Of a deleted cache only the path is
    known."""
    claim = mounted.get(mount_path(source))
    return claim is not None and (
        source.cache is None or claim == cache_claim(source.cache.key.name)
    )


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
    progress = "" if source.cache is None else str(source.cache.status.get("progress", ""))
    number = progress.removesuffix("%")
    if source.warm:
        return 100
    return int(number) if number.isdecimal() else 0


def _mounted_caches(view: View, existing: KubeObject) -> list[ReportedCondition]:
    """CacheReady from the mounts of the InferenceService, while another object is missing. Without
    mounts the previous condition stays."""
    mounted = _mounts(existing)
    if not mounted:
        previous = existing_condition(view.service, reasons.CACHE_READY)
        return [] if previous is None else [previous]
    lost = _lost_claims(view.state, existing)
    if not lost:
        return [
            cache_ready(
                True,
                reasons.CACHE_WARM_REASON,
                f"{len(mounted)} of {len(mounted)} model sources are cached",
            )
        ]
    message = (
        f"InferenceService {existing.key.name} mounts PersistentVolumeClaim {', '.join(lost)},"
        " whose ModelCache is gone or being filled again; to release the volume, set spec.replicas"
        f" of AIMService {view.service.key.name} to 0"
    )
    return [cache_ready(False, reasons.CACHE_LOST, message)]


def _fields(view: View, parts: ResolvedService | None) -> dict[str, object]:
    resolved_template = (
        parts.spec.template_ref
        if parts is not None
        else view.service.status.get("resolvedTemplate")
    )
    return {"resolvedTemplate": resolved_template, "readyReplicas": ready_count(view.pods)}


def _last_used(state: Projection, parts: ResolvedService, now: datetime.datetime) -> Plan:
    """Report lastUsed when the service starts on its caches, then at most hourly."""
    stale = []
    for source in parts.sources:
        if source.cache is not None:
            previous_report = state.report(source.cache.key, reasons.DEPLOYER)
            fields = (
                previous_report.fields
                if previous_report is not None and previous_report.uid == source.cache.uid
                else source.cache.status
            )
            last = fields.get("lastUsed")
            if last is None or (now - parse_timestamp(last)).total_seconds() >= LAST_USED_EVERY_S:
                stale.append(report(source.cache, lastUsed=timestamp(now)))
    return Plan(
        reports=tuple(each for plan_ in stale for each in plan_.reports),
        requeue_after_s=LAST_USED_EVERY_S,
    )
