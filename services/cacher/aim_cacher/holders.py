"""Pods that hold a claim which is being deleted, and what frees it. Pure.

Kubernetes removes a claim once every pod that mounts it has ended (finalizer
kubernetes.io/pvc-protection). The state has only pods with the control plane's labels: those of
models and of Jobs.
"""

import datetime
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from aimcontroller.indexes import PODS_BY_CLAIM
from aimcontroller.plan import EMPTY_PLAN, Plan, requeue_after
from aimcontroller.projection import KubeObject, Projection
from aimcontroller.workloads import is_pod_finished
from aimschema import labels
from aimschema.messages import parse_timestamp
from aimschema.resources import JOB, SERVICE, Key

HELD_AFTER_S = 60.0
"""A claim without a known holder disappears within seconds; after this time an unknown one holds
it."""
MOST_NAMED = 3
PROTECTION = "kubernetes.io/pvc-protection"
"""The finalizer that stays while pods use a claim; any other belongs to another controller."""


@dataclass(frozen=True, slots=True)
class Holders:
    """`message`: the holders and what frees the claim. `is_blocked`: a person must act.

    `follow_up`: requeue when time alone may change that; empty where it cannot.
    """

    message: str
    is_blocked: bool
    follow_up: Plan


@dataclass(frozen=True, slots=True)
class _Holder:
    """A pod, and what removes it; `remedy` is empty for one that is being removed."""

    description: str
    remedy: str


def find_holders(
    state: Projection,
    claim: KubeObject,
    now: datetime.datetime,
    deleted_jobs: Iterable[KubeObject] = (),
) -> Holders:
    """`deleted_jobs`: Jobs that this reconcile deletes."""
    holders = [
        _holder(state, pod, {job.uid for job in deleted_jobs})
        for pod in sorted(_mounting(state, claim), key=lambda pod: pod.key.name)
    ]
    age_s = (now - parse_timestamp(claim.body["metadata"]["deletionTimestamp"])).total_seconds()
    named = ", ".join(holder.description for holder in holders[:MOST_NAMED])
    more = f" and {len(holders) - MOST_NAMED} more" if len(holders) > MOST_NAMED else ""
    remedies = list(dict.fromkeys(holder.remedy for holder in holders if holder.remedy))
    describe = f"kubectl describe pvc -n {claim.key.namespace} {claim.key.name}"
    late = age_s >= HELD_AFTER_S
    if not holders:
        finalizers = [str(name) for name in claim.body["metadata"].get("finalizers") or ()]
        others = ", ".join(name for name in finalizers if name != PROTECTION)
        remedy = (
            f"check that the controller that set {others} is running"
            if others
            else f"{describe} names the pods that use it: delete them"
        )
        message = f"held by {', '.join(finalizers) or 'nothing'}" + (f"; {remedy}" if late else "")
    elif remedies:
        message = f"held by {named}{more}; to free it, {', and '.join(remedies[:MOST_NAMED])}"
    else:
        message = f"held by {named}{more}, which is being deleted" + (
            f"; if its node is lost, delete the pod with --force; see {describe}" if late else ""
        )
    is_blocked = bool(remedies) or late
    return Holders(
        message, is_blocked, EMPTY_PLAN if is_blocked else requeue_after(HELD_AFTER_S - age_s)
    )


def _mounting(state: Projection, claim: KubeObject) -> Iterator[KubeObject]:
    return (
        pod
        for pod in state.find(PODS_BY_CLAIM, claim.key.name, claim.key.namespace)
        if not is_pod_finished(pod)
    )


def _holder(state: Projection, pod: KubeObject, deleted_uids: set[str]) -> _Holder:
    name = f"pod {pod.key.name}"
    namespace = pod.key.namespace
    inference = pod.labels.get(labels.KSERVE_ISVC_LABEL)
    job_key = pod.owner(JOB.kind)
    if inference is not None and state.get(Key(SERVICE.kind, namespace, inference)) is not None:
        description = f"{name} of AIMService {inference}"
        remedy = f"set spec.replicas of AIMService {inference} to 0 or delete it"
    elif inference is not None:
        description = f"{name} of InferenceService {inference}"
        remedy = f"delete InferenceService {inference}"
    elif job_key is not None:
        description = f"{name} of Job {job_key.name}"
        remedy = f"delete Job {job_key.name}"
    else:
        description = name
        remedy = f"delete {name}"
    job = None if job_key is None else state.get(job_key)
    is_leaving = (
        pod.deleting or bool(pod.owners & deleted_uids) or (job is not None and job.deleting)
    )
    return _Holder(description, "" if is_leaving else remedy)
