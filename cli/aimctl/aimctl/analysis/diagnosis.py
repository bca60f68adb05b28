"""What an object is waiting for, in plain words: since when, how far that is, and what a person has
to do. Pure.

It follows the conditions: each says which object decides next (service → template → model, cache →
volume → Job → pod, route → gateway), and the last of the chain is what there really is to wait for
or to do.
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
class Told:
    """One object of the chain. `percent` and `seconds_left`: how far it is, or without `percent`
    how long until the next attempt; `to_do`: for a person, empty where it goes on by itself."""

    key: Key
    state: State
    words: str
    reason: str = ""
    since: datetime.datetime | None = None
    percent: int | None = None
    seconds_left: float | None = None
    to_do: str = ""
    because: tuple["Told", ...] = ()


RETRY = "then try at once: aimctl retry"
TO_DO: Mapping[str, str] = {
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
    reasons.PVC_TERMINATING: "stop or delete what holds the volume claim, as the message says",
    reasons.AUTH_ERROR: f"put the credentials right or accept the model's terms, {RETRY}",
    reasons.SOURCE_NOT_FOUND: (
        f"put the files where the source says, or correct the source; {RETRY}"
    ),
    reasons.INSUFFICIENT_CAPACITY: (
        "expand the volume claim, or delete the cache and make it anew with a larger spec.size"
    ),
    reasons.CHECKSUM_MISMATCH: (
        f"find out why the files differ from what the source says of them, {RETRY}"
    ),
    reasons.DOWNLOAD_FAILED: f"put right what the message names, {RETRY}",
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
GIVEN_UP = f"correct the image, the spec or the config as the message says, {RETRY}"


FILLING = frozenset({reasons.DOWNLOADING, reasons.VERIFYING})
GARBAGE_COLLECTION = frozenset({"foregroundDeletion", "orphan"})
"""Finalizers that the cluster sets and removes itself."""


def diagnose(
    seen: Projection, key: Key, now: datetime.datetime, live: Mapping[Key, Progress]
) -> Told:
    """The chain that begins with `key`. `live`: the latest progress of downloads, where any was
    heard."""
    return _Chain(seen, now, live).of(key)


def last_cause(told: Told) -> Told:
    """The end of the first chain of what is not ready: what there really is to wait for."""
    unready = next((each for each in told.because if each.state != "ready"), None)
    return told if unready is None else last_cause(unready)


def because_of(condition: Mapping[str, Any]) -> str:
    """The reason and the message of a condition, after a colon; empty where it has neither."""
    return "".join(
        f": {text}" for text in (condition.get("reason"), condition.get("message")) if text
    )


@dataclass(frozen=True)
class _Chain:
    seen: Projection
    now: datetime.datetime
    live: Mapping[Key, Progress]

    def of(self, key: Key) -> Told:
        present = self.seen.get(key)
        if present is None:
            return Told(key, "missing", "does not exist", to_do=self.missing(key))
        if present.deleting:
            return self.going(present)
        match key.kind:
            case SERVICE.kind:
                return self.ours(present, self.service(present))
            case TEMPLATE.kind:
                return self.ours(present, self.template(present))
            case CACHE.kind:
                return self.cache(present)
            case MODEL.kind:
                return self.ours(present, ())
            case JOB.kind:
                return self.job(present)
            case POD.kind:
                return self.pod(present)
            case CLAIM.kind:
                return self.claim(present)
            case GATEWAY.kind:
                return self.gateway(present)
            case _:
                return self.other(present)

    def missing(self, key: Key) -> str:
        elsewhere = sorted(
            str(each.key.namespace)
            for each in self.seen.everywhere(key.kind)
            if each.key.name == key.name
        )
        where = "" if key.namespace is None else f" in namespace {key.namespace}"
        known = (
            f"there is one in {', '.join(elsewhere)}"
            if elsewhere
            else f"no {key.kind} of this name is known"
        )
        return f"create it{where}, if it was not a slip: {known}"

    def going(self, present: KubeObject) -> Told:
        """Being deleted: who set a finalizer ends that."""
        finalizers = [str(each) for each in present.body["metadata"].get("finalizers") or ()]
        words = (
            f"is being deleted, held by finalizer {', '.join(finalizers)}"
            if finalizers
            else "is being deleted"
        )
        others = [
            each
            for each in finalizers
            if not each.startswith("kubernetes.io/") and each not in GARBAGE_COLLECTION
        ]
        to_do = (
            f"if that lasts, see whether the controller that set {', '.join(others)} runs"
            if others
            else ""
        )
        return Told(
            present.key,
            "working",
            words,
            since=_time(present.body["metadata"].get("deletionTimestamp")),
            to_do=to_do,
        )

    def ours(self, present: KubeObject, because: Iterable[Told]) -> Told:
        """An object with the three summary conditions: Ready has the reason and the message of
        what decides. `seconds_left` is the time to the next attempt."""
        ready = present.condition(reasons.READY)
        if ready is None:
            return Told(
                present.key,
                "waiting",
                "nothing has been done yet: are the services running?",
                since=_time(present.created),
            )
        reason, message, since = (
            str(ready.get("reason", "")),
            str(ready.get("message", "")),
            _time(ready.get("lastTransitionTime")),
        )
        if ready.get("status") == "True":
            return Told(present.key, "ready", f"is ready: {message or reason}", reason, since)
        failed = present.holds(reasons.FAILURE)
        due = self.seconds_to(present.status.get("nextAttemptTime"))
        to_do = GIVEN_UP if failed and reason == reasons.DISCOVERY_FAILED else TO_DO.get(reason, "")
        what = "has failed" if failed else "waits"
        if not failed and reason in FILLING:
            what = "is being filled"
        return Told(
            present.key,
            "failed" if failed else "waiting",
            f"{what}: {message or reason}",
            reason,
            since,
            seconds_left=due,
            to_do=to_do,
            because=tuple(because),
        )

    def service(self, service: KubeObject) -> Iterator[Told]:
        """First match wins, as for its status: resolved, cached, running, routed."""
        resolved, cached = (
            service.condition(reasons.RESOLVED),
            service.condition(reasons.CACHE_READY),
        )
        if resolved is not None and resolved.get("status") != "True":
            yield from self.unresolved(service, str(resolved.get("reason")))
        elif cached is not None and cached.get("status") != "True":
            template = self.seen.get(
                Key(TEMPLATE.kind, service.key.namespace, str(service.spec.get("templateRef")))
            )
            yield from self.caches(template)
        elif not service.holds(reasons.RUNTIME_READY):
            yield from self.runtime(service)
        elif not service.holds(reasons.ROUTING_READY):
            yield from self.route(service)

    def unresolved(self, service: KubeObject, reason: str) -> Iterator[Told]:
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

    def model(self, name: str) -> Told:
        found = models_named(self.seen, name)
        if found:
            return self.of(found[0].key)
        return Told(
            Key(MODEL.kind, None, name),
            "missing",
            f"no AIMClusterModel has spec.name {name}",
            to_do=TO_DO[reasons.MODEL_NOT_FOUND],
        )

    def template(self, template: KubeObject) -> Iterator[Told]:
        found = template.condition(reasons.DISCOVERED) or {}
        if found.get("reason") == reasons.MODEL_NOT_FOUND:
            yield self.model(str(template.spec.get("model")))
        elif found.get("status") == "True":
            yield from self.caches(template)
        else:
            yield from (
                self.job(job)
                for job in self.seen.owned(template.uid, JOB.kind, template.key.namespace)[-1:]
            )

    def caches(self, template: KubeObject | None) -> Iterator[Told]:
        found = None if template is None else discovery_result_of(self.seen, template)
        if template is None or found is None:
            return
        for source in found.sources:
            cache = next(iter(caches_of(self.seen, template.key.namespace, source)), None)
            if cache is None:
                missing = Key(CACHE.kind, template.key.namespace, names.cache_for(source))
                yield Told(missing, "waiting", f"is about to be made for {source}")
            elif cache.status.get("status") != reasons.AVAILABLE_STATE:
                yield self.cache(cache)

    def cache(self, cache: KubeObject) -> Told:
        told = self.ours(cache, self.filling(cache))
        if told.state in {"ready", "failed"}:
            return told
        progress = self.live.get(cache.key)
        left, percent = told.seconds_left, _percent(cache.status.get("progress"))
        if progress is not None and progress.total:
            percent, left = 100 * progress.bytes // progress.total, progress.seconds_left
        working = told.reason in FILLING
        return Told(
            cache.key,
            "working" if working else "waiting",
            told.words,
            told.reason,
            told.since,
            percent,
            left,
            told.to_do,
            told.because,
        )

    def filling(self, cache: KubeObject) -> Iterator[Told]:
        namespace, name = cache.key.namespace, cache.key.name
        claim = self.seen.get(Key(CLAIM.kind, namespace, names.cache_claim(name)))
        jobs = [
            self.seen.get(Key(JOB.kind, namespace, job))
            for job in (names.cache_download_job(name), names.cache_size_job(name))
        ]
        for job in jobs:
            if job is not None and job_state(job) != "succeeded":
                yield self.job(job)
        if claim is not None and not cache.holds(reasons.STORAGE_READY):
            yield self.of(claim.key)

    def runtime(self, service: KubeObject) -> Iterator[Told]:
        pods = [
            pod
            for pod in self.seen.all(POD.kind, service.key.namespace)
            if pod.labels.get(labels.KSERVE_ISVC_LABEL) == service.key.name
        ]
        unready = [pod for pod in pods if not pod.holds(reasons.READY)]
        there = self.seen.get(Key(INFERENCE_SERVICE.kind, service.key.namespace, service.key.name))
        if unready:
            yield from (self.of(pod.key) for pod in sorted(unready, key=lambda pod: pod.key.name))
        elif there is not None:
            yield self.of(there.key)

    def route(self, service: KubeObject) -> Iterator[Told]:
        route = self.seen.get(Key(ROUTE.kind, service.key.namespace, service.key.name))
        config = self.seen.get(
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
        said = [
            c
            for parent in route.status.get("parents") or ()
            for c in parent.get("conditions") or ()
            if c.get("status") != "True"
        ]
        words = f"is not taken{because_of(said[0])}" if said else "waits for the gateway"
        yield Told(route.key, "waiting", words, since=_time(route.created), because=behind)

    def job(self, job: KubeObject) -> Told:
        state, since = job_state(job), _time(job.created)
        if state == "failed":
            return Told(job.key, "failed", f"has failed: {job_failure(job)}", since=since)
        if state == "succeeded":
            return Told(job.key, "ready", "has ended well", since=since)
        pods = pods_of(self.seen, job)
        if not pods:
            way = (
                f"if that lasts, kubectl describe job -n {job.key.namespace} {job.key.name} shows a"
                " quota or pod security rule in its events"
            )
            return Told(
                job.key,
                "waiting",
                "has no pod yet",
                since=since,
                to_do=way if self.age_s(job) > 30 else "",
            )
        pod = self.pod(pods[-1])
        return Told(job.key, "working", "is at work", since=since, because=(pod,))

    def pod(self, pod: KubeObject) -> Told:
        trouble, since = pod_start_failure(pod), _time(pod.status.get("startTime") or pod.created)
        if trouble is not None:
            if trouble.waits:
                return Told(pod.key, "waiting", trouble.text, since=since)
            to_do = "free or add nodes that fit it" if trouble.reason == UNSCHEDULABLE else ""
            return Told(pod.key, "failed", trouble.text, since=since, to_do=to_do)
        if pod.holds(reasons.READY) and pod.owner(JOB.kind) is None:
            return Told(pod.key, "ready", "is ready", since=since)
        if pod.status.get("phase") != "Running":
            return Told(pod.key, "working", "is being started", since=since)
        return Told(
            pod.key,
            "working",
            "runs" if pod.owner(JOB.kind) is not None else "runs, but is not ready yet",
            since=since,
        )

    def claim(self, claim: KubeObject) -> Told:
        phase, class_ = claim.status.get("phase"), claim.spec.get("storageClassName")
        if phase == "Bound":
            return Told(claim.key, "ready", "has its volume", since=_time(claim.created))
        if phase == "Lost":
            return Told(claim.key, "failed", "has lost its volume", to_do=TO_DO[reasons.PVC_LOST])
        way = (
            f"if that lasts, look at its events: kubectl describe pvc {claim.key.name} -n"
            f" {claim.key.namespace}"
            if self.age_s(claim) > 60
            else ""
        )
        return Told(
            claim.key,
            "waiting",
            f"waits for a volume of class {class_ or '(default)'}",
            since=_time(claim.created),
            to_do=way,
        )

    def gateway(self, gateway: KubeObject) -> Told:
        bad = [
            c
            for c in gateway.status.get("conditions") or ()
            if c.get("type") in {"Accepted", "Programmed"} and c.get("status") != "True"
        ]
        if bad:
            words = f"is not working: {bad[0].get('reason')}: {bad[0].get('message', '')}"
            return Told(gateway.key, "failed", words, to_do="ask whoever runs the gateway")
        if not gateway.status.get("addresses"):
            return Told(
                gateway.key,
                "waiting",
                "has no address yet",
                to_do="ask whoever runs the gateway, if that lasts",
            )
        return Told(
            gateway.key, "ready", f"is there, at {gateway.status['addresses'][0].get('value')}"
        )

    def other(self, present: KubeObject) -> Told:
        ready = present.condition(reasons.READY)
        if ready is None:
            return Told(
                present.key,
                "ready" if present.key.kind == CONFIG.kind else "waiting",
                "is there",
                since=_time(present.created),
            )
        word: State = "ready" if ready.get("status") == "True" else "waiting"
        words = ("is ready" if word == "ready" else "is not ready yet") + because_of(ready)
        return Told(
            present.key,
            word,
            words,
            str(ready.get("reason", "")),
            _time(ready.get("lastTransitionTime")),
        )

    def seconds_to(self, due: Any) -> float | None:
        at = _time(due)
        return None if at is None or at <= self.now else (at - self.now).total_seconds()

    def age_s(self, present: KubeObject) -> float:
        created = _time(present.created)
        return 0.0 if created is None else (self.now - created).total_seconds()


def _time(text: Any) -> datetime.datetime | None:
    try:
        return parse_timestamp(str(text)) if text else None
    except ValueError:
        return None


def _percent(text: Any) -> int | None:
    number = str(text or "").removesuffix("%")
    return int(number) if number.isdecimal() else None


def told_data(told: Told) -> dict[str, Any]:
    return {
        "object": str(told.key),
        "state": told.state,
        "reason": told.reason,
        "words": told.words,
        "since": None if told.since is None else timestamp(told.since),
        "percent": told.percent,
        "seconds_left": told.seconds_left,
        "to_do": told.to_do,
        "because": [told_data(behind) for behind in told.because],
    }
