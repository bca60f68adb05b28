"""What an object waits for: since when, how far it is, and what a person has to do. Pure.

The diagnosis follows the conditions. Each names the object that decides next: service → template →
model, cache → volume → Job → pod, route → gateway. The last object of the chain is the root cause.
"""

import datetime
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from aimcontroller.projection import KubeObject, Projection
from aimcontroller.queries import caches_of, discovery_result_of, models_named
from aimcontroller.workloads import (
    UNSCHEDULABLE,
    job_failure,
    job_state,
    pod_start_failure,
    pods_of,
)
from aimschema import labels, names, reasons
from aimschema.messages import Progress, parse_timestamp, timestamp
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

State = Literal["ready", "working", "waiting", "failed", "missing"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One object of the chain. `percent` and `seconds_left`: how far it is, or without `percent`
    how long until the next attempt; `remedy`: for a person, empty where it goes on by itself."""

    key: Key
    state: State
    summary: str
    reason: str = ""
    since: datetime.datetime | None = None
    percent: int | None = None
    seconds_left: float | None = None
    remedy: str = ""
    causes: tuple["Diagnosis", ...] = ()


RETRY = "then try at once: aimctl retry"
REMEDIES: Mapping[str, str] = {
    reasons.TEMPLATE_NOT_FOUND: "create the template, or change spec.templateRef",
    reasons.MODEL_NOT_FOUND: "create an AIMClusterModel with that spec.name, or change spec.model",
    reasons.RUNTIME_CONFIG_MISSING: "create the AIMNamespaceConfig, or name another",
    reasons.UNKNOWN_GPU: (
        "add the GPU model to the deployer's table (AIM_GPU_TABLE), or use another template"
    ),
    reasons.VALIDATION_FAILED: "change the service or its template as the message says",
    reasons.STORAGE_CLASS_MISSING: (
        "create the storage class, or name another in spec.storageClassName or the config's"
        " cacheStorageClassName"
    ),
    reasons.PVC_LOST: "delete the cache to start over",
    reasons.PVC_TERMINATING: "stop or delete what holds the PVC, as the message says",
    reasons.AUTH_ERROR: f"correct the credentials or accept the model's terms, {RETRY}",
    reasons.SOURCE_NOT_FOUND: (f"put the files at the source, or correct the source; {RETRY}"),
    reasons.INSUFFICIENT_CAPACITY: (
        "expand the PVC, or re-create the cache with a larger spec.size"
    ),
    reasons.CHECKSUM_MISMATCH: (
        f"find out why the files differ from the source's checksums, {RETRY}"
    ),
    reasons.DOWNLOAD_FAILED: f"correct what the message names, {RETRY}",
    reasons.DUPLICATE_SOURCE: "use the older cache, or delete it",
    reasons.DUPLICATE_NAME: "rename or delete one of the two",
    reasons.NAME_CONFLICT: "rename or delete one of the two",
    reasons.ROUTE_FAILED: (
        "change the config's gateway, the service's annotations or the gateway, as the message says"
    ),
    reasons.IMAGE_NOT_FOUND: "push the image, or correct spec.image",
    reasons.METADATA_MISSING: "build the image with labels",
}
"""What a person has to do, by reason; a reason that is not here goes on by itself."""
DISCOVERY_REMEDY = f"correct the image, the spec or the config as the message says, {RETRY}"


FILLING = frozenset({reasons.DOWNLOADING, reasons.VERIFYING})
GARBAGE_COLLECTION = frozenset({"foregroundDeletion", "orphan"})
"""Finalizers that the cluster sets and removes itself."""


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


def because_of(condition: Mapping[str, Any]) -> str:
    """The reason and the message of a condition, after a colon; empty where it has neither."""
    return "".join(
        f": {text}" for text in (condition.get("reason"), condition.get("message")) if text
    )


@dataclass(frozen=True)
class _Chain:
    state: Projection
    now: datetime.datetime
    live: Mapping[Key, Progress]

    def of(self, key: Key) -> Diagnosis:
        obj = self.state.get(key)
        if obj is None:
            return Diagnosis(key, "missing", "does not exist", remedy=self.missing(key))
        if obj.deleting:
            return self.going(obj)
        match key.kind:
            case SERVICE.kind:
                return self.ours(obj, self.service(obj))
            case TEMPLATE.kind:
                return self.ours(obj, self.template(obj))
            case CACHE.kind:
                return self.cache(obj)
            case MODEL.kind:
                return self.ours(obj, ())
            case JOB.kind:
                return self.job(obj)
            case POD.kind:
                return self.pod(obj)
            case CLAIM.kind:
                return self.claim(obj)
            case GATEWAY.kind:
                return self.gateway(obj)
            case _:
                return self.other(obj)

    def missing(self, key: Key) -> str:
        elsewhere = sorted(
            str(each.key.namespace)
            for each in self.state.in_all_namespaces(key.kind)
            if each.key.name == key.name
        )
        where = "" if key.namespace is None else f" in namespace {key.namespace}"
        known = (
            f"there is one in {', '.join(elsewhere)}"
            if elsewhere
            else f"no {key.kind} of this name is known"
        )
        return f"create it{where}, or correct the name: {known}"

    def going(self, obj: KubeObject) -> Diagnosis:
        """Being deleted: who set a finalizer ends that."""
        finalizers = [str(each) for each in obj.body["metadata"].get("finalizers") or ()]
        summary = (
            f"is being deleted, held by finalizer {', '.join(finalizers)}"
            if finalizers
            else "is being deleted"
        )
        others = [
            each
            for each in finalizers
            if not each.startswith("kubernetes.io/") and each not in GARBAGE_COLLECTION
        ]
        remedy = (
            f"if this persists, check that the controller that set {', '.join(others)} is running"
            if others
            else ""
        )
        return Diagnosis(
            obj.key,
            "working",
            summary,
            since=_time(obj.body["metadata"].get("deletionTimestamp")),
            remedy=remedy,
        )

    def ours(self, obj: KubeObject, causes: Iterable[Diagnosis]) -> Diagnosis:
        """An object with the three summary conditions: Ready has the reason and the message of
        what decides. `seconds_left` is the time to the next attempt."""
        ready = obj.condition(reasons.READY)
        if ready is None:
            return Diagnosis(
                obj.key,
                "waiting",
                "no service has reported yet: check that the services are running",
                since=_time(obj.creation_timestamp),
            )
        reason = str(ready.get("reason", ""))
        message = str(ready.get("message", ""))
        since = _time(ready.get("lastTransitionTime"))
        if ready.get("status") == "True":
            return Diagnosis(obj.key, "ready", f"is ready: {message or reason}", reason, since)
        failed = obj.is_condition_true(reasons.FAILURE)
        due = self.seconds_to(obj.status.get("nextAttemptTime"))
        remedy = (
            DISCOVERY_REMEDY
            if failed and reason == reasons.DISCOVERY_FAILED
            else REMEDIES.get(reason, "")
        )
        what = "has failed" if failed else "waits"
        if not failed and reason in FILLING:
            what = "is being filled"
        return Diagnosis(
            obj.key,
            "failed" if failed else "waiting",
            f"{what}: {message or reason}",
            reason,
            since,
            seconds_left=due,
            remedy=remedy,
            causes=tuple(causes),
        )

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
                self.job(job)
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
        diagnosis = self.ours(cache, self.filling(cache))
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
                yield self.job(job)
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
        gateway = ((config.spec if config is not None else {}).get("routing") or {}).get(
            "gateway"
        ) or {}
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
            route.key, "waiting", summary, since=_time(route.creation_timestamp), causes=behind
        )

    def job(self, job: KubeObject) -> Diagnosis:
        state, since = job_state(job), _time(job.creation_timestamp)
        if state == "failed":
            return Diagnosis(job.key, "failed", f"has failed: {job_failure(job)}", since=since)
        if state == "succeeded":
            return Diagnosis(job.key, "ready", "has succeeded", since=since)
        pods = pods_of(self.state, job)
        if not pods:
            way = (
                "if this persists, look for a quota or pod security rule in its events: kubectl"
                f" describe job -n {job.key.namespace} {job.key.name}"
            )
            return Diagnosis(
                job.key,
                "waiting",
                "has no pod yet",
                since=since,
                remedy=way if self.age_s(job) > 30 else "",
            )
        pod = self.pod(pods[-1])
        return Diagnosis(job.key, "working", "is running", since=since, causes=(pod,))

    def pod(self, pod: KubeObject) -> Diagnosis:
        trouble = pod_start_failure(pod)
        since = _time(pod.status.get("startTime") or pod.creation_timestamp)
        if trouble is not None:
            if trouble.waits:
                return Diagnosis(pod.key, "waiting", trouble.text, since=since)
            remedy = "free or add nodes that fit it" if trouble.reason == UNSCHEDULABLE else ""
            return Diagnosis(pod.key, "failed", trouble.text, since=since, remedy=remedy)
        if pod.is_condition_true(reasons.READY) and pod.owner(JOB.kind) is None:
            return Diagnosis(pod.key, "ready", "is ready", since=since)
        if pod.status.get("phase") != "Running":
            return Diagnosis(pod.key, "working", "is being started", since=since)
        return Diagnosis(
            pod.key,
            "working",
            "runs" if pod.owner(JOB.kind) is not None else "runs, but is not ready yet",
            since=since,
        )

    def claim(self, claim: KubeObject) -> Diagnosis:
        phase, class_ = claim.status.get("phase"), claim.spec.get("storageClassName")
        if phase == "Bound":
            return Diagnosis(claim.key, "ready", "is bound", since=_time(claim.creation_timestamp))
        if phase == "Lost":
            return Diagnosis(
                claim.key, "failed", "lost its volume", remedy=REMEDIES[reasons.PVC_LOST]
            )
        way = (
            f"if this persists, see its events: kubectl describe pvc {claim.key.name} -n"
            f" {claim.key.namespace}"
            if self.age_s(claim) > 60
            else ""
        )
        return Diagnosis(
            claim.key,
            "waiting",
            f"waits for a volume of class {class_ or '(default)'}",
            since=_time(claim.creation_timestamp),
            remedy=way,
        )

    def gateway(self, gateway: KubeObject) -> Diagnosis:
        bad = [
            c
            for c in gateway.status.get("conditions") or ()
            if c.get("type") in {"Accepted", "Programmed"} and c.get("status") != "True"
        ]
        if bad:
            summary = f"is not working: {bad[0].get('reason')}: {bad[0].get('message', '')}"
            return Diagnosis(
                gateway.key, "failed", summary, remedy="ask the operator of the gateway"
            )
        if not gateway.status.get("addresses"):
            return Diagnosis(
                gateway.key,
                "waiting",
                "has no address yet",
                remedy="if this persists, ask the operator of the gateway",
            )
        return Diagnosis(
            gateway.key, "ready", f"has address {gateway.status['addresses'][0].get('value')}"
        )

    def other(self, obj: KubeObject) -> Diagnosis:
        ready = obj.condition(reasons.READY)
        if ready is None:
            return Diagnosis(
                obj.key,
                "ready" if obj.key.kind == CONFIG.kind else "waiting",
                "exists",
                since=_time(obj.creation_timestamp),
            )
        word: State = "ready" if ready.get("status") == "True" else "waiting"
        summary = ("is ready" if word == "ready" else "is not ready yet") + because_of(ready)
        return Diagnosis(
            obj.key,
            word,
            summary,
            str(ready.get("reason", "")),
            _time(ready.get("lastTransitionTime")),
        )

    def seconds_to(self, due: Any) -> float | None:
        at = _time(due)
        return None if at is None or at <= self.now else (at - self.now).total_seconds()

    def age_s(self, obj: KubeObject) -> float:
        created = _time(obj.creation_timestamp)
        return 0.0 if created is None else (self.now - created).total_seconds()


def _time(text: Any) -> datetime.datetime | None:
    try:
        return parse_timestamp(str(text)) if text else None
    except ValueError:
        return None


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
