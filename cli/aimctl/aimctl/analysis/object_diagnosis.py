"""One object of a chain: whether it is ready, what it waits for, and what a person has to do. Pure.

`aimctl.analysis.diagnosis` follows the chain from one object to the next.
"""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from aimcontroller.projection import KubeObject, Projection
from aimcontroller.workloads import (
    UNSCHEDULABLE,
    job_failure,
    job_state,
    pod_start_failure,
    pods_of,
)
from aimschema import reasons
from aimschema.messages import parse_timestamp
from aimschema.resources import CONFIG, JOB, Key

State = Literal["ready", "working", "waiting", "failed", "missing"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One object of the chain. `percent` and `seconds_left`: how far it is, or without `percent`
    how long until the next attempt; `remedy`: for a person; empty if none is needed."""

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
    reasons.QUOTA_EXCEEDED: (
        "raise the quota, delete services that are not needed, or delete caches; aimctl cache evict"
        " --plan lists those that are not used"
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
"""What a person has to do, by reason; the others need no action."""
DISCOVERY_REMEDY = f"correct the image, the spec or the config as the message says, {RETRY}"
FILLING = frozenset({reasons.DOWNLOADING, reasons.VERIFYING})
GARBAGE_COLLECTION = frozenset({"foregroundDeletion", "orphan"})
"""Finalizers that the cluster sets and removes itself."""


def because_of(condition: Mapping[str, Any]) -> str:
    """The reason and the message of a condition, after a colon; empty where it has neither."""
    return "".join(
        f": {text}" for text in (condition.get("reason"), condition.get("message")) if text
    )


def missing_remedy(state: Projection, key: Key) -> str:
    elsewhere = sorted(
        str(each.key.namespace)
        for each in state.in_all_namespaces(key.kind)
        if each.key.name == key.name
    )
    where = "" if key.namespace is None else f" in namespace {key.namespace}"
    known = (
        f"there is one in {', '.join(elsewhere)}"
        if elsewhere
        else f"no {key.kind} of this name is known"
    )
    return f"create it{where}, or correct the name: {known}"


def diagnose_deleting(obj: KubeObject) -> Diagnosis:
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
        since=parse_time(obj.body["metadata"].get("deletionTimestamp")),
        remedy=remedy,
    )


def diagnose_aim_object(
    obj: KubeObject, causes: Iterable[Diagnosis], now: datetime.datetime
) -> Diagnosis:
    """An object with the three summary conditions: Ready has the reason and the message of what
    decides. `seconds_left` is the time to the next attempt."""
    ready = obj.condition(reasons.READY)
    if ready is None:
        return Diagnosis(
            obj.key,
            "waiting",
            "no service has reported yet: check that the services are running",
            since=parse_time(obj.creation_timestamp),
        )
    reason = str(ready.get("reason", ""))
    message = str(ready.get("message", ""))
    since = parse_time(ready.get("lastTransitionTime"))
    if ready.get("status") == "True":
        return Diagnosis(obj.key, "ready", f"is ready: {message or reason}", reason, since)
    failed = obj.is_condition_true(reasons.FAILURE)
    due = _seconds_to(now, obj.status.get("nextAttemptTime"))
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


def diagnose_job(state: Projection, job: KubeObject, now: datetime.datetime) -> Diagnosis:
    since = parse_time(job.creation_timestamp)
    if job_state(job) == "failed":
        return Diagnosis(job.key, "failed", f"has failed: {job_failure(job)}", since=since)
    if job_state(job) == "succeeded":
        return Diagnosis(job.key, "ready", "has succeeded", since=since)
    pods = pods_of(state, job)
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
            remedy=way if _age_s(job, now) > 30 else "",
        )
    pod = diagnose_pod(pods[-1])
    return Diagnosis(job.key, "working", "is running", since=since, causes=(pod,))


def diagnose_pod(pod: KubeObject) -> Diagnosis:
    trouble = pod_start_failure(pod)
    since = parse_time(pod.status.get("startTime") or pod.creation_timestamp)
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


def diagnose_claim(claim: KubeObject, now: datetime.datetime) -> Diagnosis:
    phase, class_ = claim.status.get("phase"), claim.spec.get("storageClassName")
    if phase == "Bound":
        return Diagnosis(claim.key, "ready", "is bound", since=parse_time(claim.creation_timestamp))
    if phase == "Lost":
        return Diagnosis(claim.key, "failed", "lost its volume", remedy=REMEDIES[reasons.PVC_LOST])
    way = (
        f"if this persists, see its events: kubectl describe pvc {claim.key.name} -n"
        f" {claim.key.namespace}"
        if _age_s(claim, now) > 60
        else ""
    )
    return Diagnosis(
        claim.key,
        "waiting",
        f"waits for a volume of class {class_ or '(default)'}",
        since=parse_time(claim.creation_timestamp),
        remedy=way,
    )


def diagnose_gateway(gateway: KubeObject) -> Diagnosis:
    bad = [
        c
        for c in gateway.status.get("conditions") or ()
        if c.get("type") in {"Accepted", "Programmed"} and c.get("status") != "True"
    ]
    if bad:
        summary = f"is not working: {bad[0].get('reason')}: {bad[0].get('message', '')}"
        return Diagnosis(gateway.key, "failed", summary, remedy="ask the operator of the gateway")
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


def diagnose_other(obj: KubeObject) -> Diagnosis:
    ready = obj.condition(reasons.READY)
    if ready is None:
        return Diagnosis(
            obj.key,
            "ready" if obj.key.kind == CONFIG.kind else "waiting",
            "exists",
            since=parse_time(obj.creation_timestamp),
        )
    word: State = "ready" if ready.get("status") == "True" else "waiting"
    summary = ("is ready" if word == "ready" else "is not ready yet") + because_of(ready)
    return Diagnosis(
        obj.key,
        word,
        summary,
        str(ready.get("reason", "")),
        parse_time(ready.get("lastTransitionTime")),
    )


def parse_time(text: Any) -> datetime.datetime | None:
    """None for what is no time."""
    try:
        return parse_timestamp(str(text)) if text else None
    except ValueError:
        return None


def _seconds_to(now: datetime.datetime, due: Any) -> float | None:
    at = parse_time(due)
    return None if at is None or at <= now else (at - now).total_seconds()


def _age_s(obj: KubeObject, now: datetime.datetime) -> float:
    created = parse_time(obj.creation_timestamp)
    return 0.0 if created is None else (now - created).total_seconds()
