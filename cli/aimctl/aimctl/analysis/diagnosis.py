"""What an object waits for: since when, how far it is, and what a person has to do. Pure.

The diagnosis follows the conditions. Each names the object that decides next: service → template →
model, cache → volume → Job → pod, route → gateway. The last object of the chain is the root cause.
"""

import datetime
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aimcontroller.indexes import value_at
from aimcontroller.projection import KubeObject, Projection
from aimcontroller.queries import caches_of, discovery_result_of, models_named
from aimcontroller.workloads import job_state
from aimctl.analysis.object_diagnosis import (
    FILLING,
    REMEDIES,
    Diagnosis,
    because_of,
    diagnose_aim_object,
    diagnose_claim,
    diagnose_deleting,
    diagnose_gateway,
    diagnose_job,
    diagnose_other,
    diagnose_pod,
    missing_remedy,
    parse_time,
)
from aimschema import labels, names, reasons
from aimschema.messages import Progress, timestamp
from aimschema.resources import (
    CACHE,
    CLAIM,
    CONFIG,
    GATEWAY,
    INFERENCE_SERVICE,
    JOB,
    MODEL,
    POD,
    ROUTE,
    SERVICE,
    TEMPLATE,
    Key,
)


def diagnose(
    state: Projection, key: Key, now: datetime.datetime, live: Mapping[Key, Progress]
) -> Diagnosis:
    """The chain that begins with `key`. `live`: the latest progress of downloads, where any was
    heard."""
    return _Chain(state, now, live).of(key)


def root_cause(diagnosis: Diagnosis) -> Diagnosis:
    """The end of the first chain of what is not ready: what there really is to wait for."""
    unready = next((each for each in diagnosis.causes if each.state != "ready"), None)
    return diagnosis if unready is None else root_cause(unready)


def running_downloads(diagnosis: Diagnosis) -> frozenset[Key]:
    """The caches of the chain whose download reports its progress just now."""
    behind = frozenset[Key]().union(*map(running_downloads, diagnosis.causes))
    is_running = diagnosis.state not in {"ready", "failed", "missing"} and (
        diagnosis.reason in FILLING
        or any(each.key.kind == JOB.kind and each.state == "working" for each in diagnosis.causes)
    )
    return behind | {diagnosis.key} if diagnosis.key.kind == CACHE.kind and is_running else behind


@dataclass(frozen=True)
class _Chain:
    state: Projection
    now: datetime.datetime
    live: Mapping[Key, Progress]

    def of(self, key: Key) -> Diagnosis:
        obj = self.state.get(key)
        if obj is None:
            return Diagnosis(
                key, "missing", "does not exist", remedy=missing_remedy(self.state, key)
            )
        if obj.deleting:
            return diagnose_deleting(obj)
        match key.kind:
            case SERVICE.kind:
                return self.aim_object(obj, self.service(obj))
            case TEMPLATE.kind:
                return self.aim_object(obj, self.template(obj))
            case CACHE.kind:
                return self.cache(obj)
            case MODEL.kind:
                return self.aim_object(obj, ())
            case JOB.kind:
                return diagnose_job(self.state, obj, self.now)
            case POD.kind:
                return diagnose_pod(obj)
            case CLAIM.kind:
                return diagnose_claim(obj, self.now)
            case GATEWAY.kind:
                return diagnose_gateway(obj)
            case _:
                return diagnose_other(obj)

    def aim_object(self, obj: KubeObject, causes: Iterable[Diagnosis]) -> Diagnosis:
        return diagnose_aim_object(obj, causes, self.now)

    def service(self, service: KubeObject) -> Iterator[Diagnosis]:
        """First match wins, as for its status: resolved, cached, running, routed."""
        resolved = service.condition(reasons.RESOLVED)
        cached = service.condition(reasons.CACHE_READY)
        if resolved is not None and resolved.get("status") != "True":
            yield from self.cause_of_unresolved(service, str(resolved.get("reason")))
        elif cached is not None and cached.get("status") != "True":
            template = self.state.get(
                Key(TEMPLATE.kind, service.key.namespace, str(service.spec.get("templateRef")))
            )
            yield from self.caches(template)
        elif not service.is_condition_true(reasons.RUNTIME_READY):
            yield from self.runtime(service)
        elif not service.is_condition_true(reasons.ROUTING_READY):
            yield from self.route(service)

    def cause_of_unresolved(self, service: KubeObject, reason: str) -> Iterator[Diagnosis]:
        namespace, spec = service.key.namespace, service.spec
        if reason in {
            reasons.TEMPLATE_NOT_FOUND,
            reasons.TEMPLATE_NOT_READY,
            reasons.TEMPLATE_FAILED,
        }:
            yield self.of(Key(TEMPLATE.kind, namespace, str(spec.get("templateRef"))))
        elif reason == reasons.MODEL_NOT_FOUND:
            yield self.model(str(spec.get("model")))
        elif reason == reasons.RUNTIME_CONFIG_MISSING:
            yield self.of(Key(CONFIG.kind, namespace, str(spec.get("configRef", "default"))))

    def model(self, name: str) -> Diagnosis:
        found = models_named(self.state, name)
        if found:
            return self.of(found[0].key)
        return Diagnosis(
            Key(MODEL.kind, None, name),
            "missing",
            f"no AIMClusterModel has spec.name {name}",
            remedy=REMEDIES[reasons.MODEL_NOT_FOUND],
        )

    def template(self, template: KubeObject) -> Iterator[Diagnosis]:
        found = template.condition(reasons.DISCOVERED) or {}
        if found.get("reason") == reasons.MODEL_NOT_FOUND:
            yield self.model(str(template.spec.get("model")))
        elif found.get("status") == "True":
            yield from self.caches(template)
        else:
            yield from (
                diagnose_job(self.state, job, self.now)
                for job in self.state.owned(template.uid, JOB.kind, template.key.namespace)[-1:]
            )

    def caches(self, template: KubeObject | None) -> Iterator[Diagnosis]:
        found = None if template is None else discovery_result_of(self.state, template)
        if template is None or found is None:
            return
        for source in found.sources:
            cache = next(iter(caches_of(self.state, template.key.namespace, source)), None)
            if cache is None:
                missing = Key(CACHE.kind, template.key.namespace, names.cache_for(source))
                yield Diagnosis(missing, "waiting", f"is about to be created for {source}")
            elif cache.status.get("status") != reasons.AVAILABLE_STATE:
                yield self.cache(cache)

    def cache(self, cache: KubeObject) -> Diagnosis:
        diagnosis = self.aim_object(cache, self.filling(cache))
        if diagnosis.state in {"ready", "failed"}:
            return diagnosis
        progress = self.live.get(cache.key)
        left, percent = diagnosis.seconds_left, _percent(cache.status.get("progress"))
        if progress is not None and progress.total:
            percent, left = 100 * progress.bytes // progress.total, progress.seconds_left
        working = diagnosis.reason in FILLING
        return Diagnosis(
            cache.key,
            "working" if working else "waiting",
            diagnosis.summary,
            diagnosis.reason,
            diagnosis.since,
            percent,
            left,
            diagnosis.remedy,
            diagnosis.causes,
        )

    def filling(self, cache: KubeObject) -> Iterator[Diagnosis]:
        namespace, name = cache.key.namespace, cache.key.name
        claim = self.state.get(Key(CLAIM.kind, namespace, names.cache_claim(name)))
        jobs = [
            self.state.get(Key(JOB.kind, namespace, job))
            for job in (names.cache_download_job(name), names.cache_size_job(name))
        ]
        for job in jobs:
            if job is not None and job_state(job) != "succeeded":
                yield diagnose_job(self.state, job, self.now)
        if claim is not None and not cache.is_condition_true(reasons.STORAGE_READY):
            yield self.of(claim.key)

    def runtime(self, service: KubeObject) -> Iterator[Diagnosis]:
        pods = [
            pod
            for pod in self.state.in_namespace(POD.kind, service.key.namespace)
            if pod.labels.get(labels.KSERVE_ISVC_LABEL) == service.key.name
        ]
        unready = [pod for pod in pods if not pod.is_condition_true(reasons.READY)]
        isvc = self.state.get(Key(INFERENCE_SERVICE.kind, service.key.namespace, service.key.name))
        if unready:
            yield from (self.of(pod.key) for pod in sorted(unready, key=lambda pod: pod.key.name))
        elif isvc is not None:
            yield self.of(isvc.key)

    def route(self, service: KubeObject) -> Iterator[Diagnosis]:
        route = self.state.get(Key(ROUTE.kind, service.key.namespace, service.key.name))
        config = self.state.get(
            Key(CONFIG.kind, service.key.namespace, str(service.spec.get("configRef", "default")))
        )
        specs = (service.spec, {} if config is None else config.spec)
        named = (value_at(spec, "routing", "gateway") for spec in specs)
        gateway = next((each for each in named if isinstance(each, dict)), {})
        behind = (
            (
                self.of(
                    Key(
                        GATEWAY.kind,
                        gateway.get("namespace") or service.key.namespace,
                        str(gateway["name"]),
                    )
                ),
            )
            if gateway.get("name")
            else ()
        )
        if route is None:
            yield from behind
            return
        rejections = [
            c
            for parent in route.status.get("parents") or ()
            for c in parent.get("conditions") or ()
            if c.get("status") != "True"
        ]
        summary = (
            f"is not accepted{because_of(rejections[0])}" if rejections else "waits for the gateway"
        )
        yield Diagnosis(
            route.key, "waiting", summary, since=parse_time(route.creation_timestamp), causes=behind
        )


def _percent(text: Any) -> int | None:
    number = str(text or "").removesuffix("%")
    return int(number) if number.isdecimal() else None


def diagnosis_data(diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "object": str(diagnosis.key),
        "state": diagnosis.state,
        "reason": diagnosis.reason,
        "words": diagnosis.summary,
        "since": None if diagnosis.since is None else timestamp(diagnosis.since),
        "percent": diagnosis.percent,
        "seconds_left": diagnosis.seconds_left,
        "to_do": diagnosis.remedy,
        "because": [diagnosis_data(behind) for behind in diagnosis.causes],
    }
