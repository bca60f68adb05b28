"""Runs Jobs of one completion, as the Job controller does (Kubernetes, "Jobs": backoff limit,
deadline, TTL after finish).

A pod's name follows from the Job's uid and how many of its pods failed, so the same try is never
made twice.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from aimlab.controller_loop import Create, ReconcileResult, Write, delete_of, patch_of
from aimlab.informer import Objects
from aimlab.kinds import (
    Body,
    condition,
    is_deleting,
    is_finished,
    is_owned,
    is_true,
    owner_reference,
    phase_of,
    stamp,
    time_of,
    uid_of,
)
from aimlab.node.events import failed_create
from aimschema.resources import JOB, POD

RETRY_S = 1.0
LONGEST_RETRY_S = 30.0


@dataclass(frozen=True, slots=True)
class Tally:
    """A Job's pods: those running or about to, and how many ended each way."""

    active: tuple[Body, ...]
    succeeded: int
    failed: int
    last_failure: datetime | None


def plan(state: Objects, now: datetime) -> ReconcileResult:
    """One pass over all Jobs."""
    step = ReconcileResult()
    pods = state.all(POD)
    for job in state.all(JOB):
        if not is_deleting(job):
            step += plan_job(job, [pod for pod in pods if is_owned(pod, uid_of(job))], now)
    return step


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a Job ends: its final condition, the one that announces it, and why, in both."""

    final: str
    announcing: str
    reason: str
    message: str


SUCCEEDED = Verdict(
    "Complete",
    "SuccessCriteriaMet",
    "CompletionsReached",
    "Reached expected number of succeeded pods",
)
OUT_OF_TIME = Verdict(
    "Failed",
    "FailureTarget",
    "DeadlineExceeded",
    "Job was active longer than specified deadline",
)
OUT_OF_TRIES = Verdict(
    "Failed",
    "FailureTarget",
    "BackoffLimitExceeded",
    "Job has reached the specified backoff limit",
)


def plan_job(job: Body, pods: list[Body], now: datetime) -> ReconcileResult:
    """First match wins: finished, suspended, succeeded, out of time, out of tries, running,
    waiting to try again, to be tried."""
    spec, status = job["spec"], job.get("status", {})
    if is_true(job, "Complete") or is_true(job, "Failed"):
        return expire(job, now)
    tally = tally_of(job, pods)
    if spec.get("suspend"):
        return suspend(job, tally, now)
    started = time_of(status.get("startTime")) or now
    if tally.succeeded:
        return finish(job, tally, now, SUCCEEDED)
    deadline_s = spec.get("activeDeadlineSeconds")
    deadline = None if deadline_s is None else started + timedelta(seconds=deadline_s)
    if deadline is not None and now >= deadline:
        return finish(job, tally, now, OUT_OF_TIME)
    if tally.failed > spec.get("backoffLimit", 6):
        return finish(job, tally, now, OUT_OF_TRIES)
    status = running_status(tally, started)
    if is_true(job, "Suspended"):
        status["conditions"] = [suspension(job, "False", ("JobResumed", "Job resumed"), now)]
    step = ReconcileResult(report(job, status))
    if deadline is not None:
        step += ReconcileResult(requeue_after_s=(deadline - now).total_seconds())
    return step if tally.active else step + retry(job, tally, now)


def tally_of(job: Body, pods: list[Body]) -> Tally:
    failures = [pod for pod in pods if phase_of(pod) == "Failed"]
    ends = [end for pod in failures if (end := ended_at(pod)) is not None]
    return Tally(
        active=tuple(pod for pod in pods if not is_finished(pod)),
        succeeded=sum(phase_of(pod) == "Succeeded" for pod in pods),
        failed=max(len(failures), job.get("status", {}).get("failed", 0)),
        last_failure=max(ends, default=None),
    )


def ended_at(pod: Body) -> datetime | None:
    statuses = pod.get("status", {}).get("containerStatuses", [])
    ends = [
        time_of(one["state"]["terminated"].get("finishedAt"))
        for one in statuses
        if "terminated" in one.get("state", {})
    ]
    return max((end for end in ends if end is not None), default=None)


def running_status(tally: Tally, started: datetime) -> Body:
    ready = sum(is_true(pod, "Ready") for pod in tally.active)
    status: Body = {
        "startTime": stamp(started),
        "active": len(tally.active),
        "ready": ready,
        "failed": tally.failed,
        "terminating": 0,
    }
    return status | {"uncountedTerminatedPods": {}}


def suspend(job: Body, tally: Tally, now: datetime) -> ReconcileResult:
    """Pods that run go, and do not count as failed; the time starts again when it is resumed."""
    reason_and_message = ("JobSuspended", "Job suspended")
    status: Body = {"active": 0, "ready": 0, "startTime": None}
    status["conditions"] = [suspension(job, "True", reason_and_message, now)]
    deletions = [delete_of(POD, pod) for pod in tally.active if not is_deleting(pod)]
    return ReconcileResult([*report(job, status), *deletions])


def suspension(job: Body, status: str, reason_and_message: tuple[str, str], now: datetime) -> Body:
    made = condition(
        job, "Suspended", status, now, reason=reason_and_message[0], message=reason_and_message[1]
    )
    return {"lastProbeTime": made["lastTransitionTime"], **made}


def report(job: Body, status: Body) -> list[Write]:
    existing = job.get("status", {})
    return (
        []
        if all(existing.get(key) == value for key, value in status.items())
        else [patch_of(JOB, job, {"status": status}, "status")]
    )


def retry(job: Body, tally: Tally, now: datetime) -> ReconcileResult:
    """The next pod, after a wait that doubles with every failure (kube-controller-manager starts
    at 10 s; a laptop is impatient)."""
    if tally.last_failure is not None:
        wait = timedelta(seconds=min(RETRY_S * 2 ** (tally.failed - 1), LONGEST_RETRY_S))
        if now < tally.last_failure + wait:
            return ReconcileResult(
                requeue_after_s=(tally.last_failure + wait - now).total_seconds()
            )
    return ReconcileResult(
        [Create(POD, pod_for(job, tally.failed), lambda why: failed_create(job, why, now))]
    )


def pod_for(job: Body, attempt: int) -> Body:
    metadata, template = job["metadata"], job["spec"]["template"]
    suffix = hashlib.sha256(f"{metadata['uid']}:{attempt}".encode()).hexdigest()[:5]
    template_metadata = template.get("metadata") or {}
    names = dict.fromkeys(("job-name", "batch.kubernetes.io/job-name"), metadata["name"])
    uids = dict.fromkeys(("controller-uid", "batch.kubernetes.io/controller-uid"), metadata["uid"])
    own: Body = {
        "name": f"{metadata['name'][:57]}-{suffix}",
        "namespace": metadata["namespace"],
        "ownerReferences": [owner_reference(job)],
    }
    own["labels"] = (template_metadata.get("labels") or {}) | names | uids
    if template_metadata.get("annotations"):
        own["annotations"] = template_metadata["annotations"]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": own, "spec": template["spec"]}


def finish(job: Body, tally: Tally, now: datetime, verdict: Verdict) -> ReconcileResult:
    """Writes the final condition and the one that announces it (KEP-3998), and deletes the pods
    that still run, which count as failed."""
    since = {"lastProbeTime": stamp(now), "lastTransitionTime": stamp(now)}
    conditions = [
        {"type": kind, "status": "True", "reason": verdict.reason, "message": verdict.message}
        | since
        for kind in (verdict.announcing, verdict.final)
    ]
    status: Body = {
        "active": 0,
        "ready": 0,
        "terminating": 0,
        "failed": tally.failed + len(tally.active),
        "conditions": conditions,
    }
    status["startTime"] = job.get("status", {}).get("startTime") or stamp(now)
    status["uncountedTerminatedPods"] = {}
    if verdict.final == "Complete":
        status |= {"succeeded": tally.succeeded, "completionTime": stamp(now)}
    deletions: list[Write] = [delete_of(POD, pod) for pod in tally.active if not is_deleting(pod)]
    return ReconcileResult([patch_of(JOB, job, {"status": status}, "status"), *deletions])


def expire(job: Body, now: datetime) -> ReconcileResult:
    """A finished Job goes `ttlSecondsAfterFinished` after its end; without that field it stays."""
    ttl_s = job["spec"].get("ttlSecondsAfterFinished")
    ends = [
        time_of(one["lastTransitionTime"])
        for one in job["status"]["conditions"]
        if one["type"] in {"Complete", "Failed"}
    ]
    ended = max((end for end in ends if end is not None), default=None)
    if ttl_s is None or ended is None:
        return ReconcileResult()
    left_s = (ended + timedelta(seconds=ttl_s) - now).total_seconds()
    return (
        ReconcileResult(requeue_after_s=left_s)
        if left_s > 0
        else ReconcileResult([delete_of(JOB, job)])
    )
