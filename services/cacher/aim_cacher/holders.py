"""Who holds a claim that is being deleted, and what frees it. Pure.

Kubernetes removes a claim once no pod that has not ended mounts it (finalizer
kubernetes.io/pvc-protection). Only pods that carry our labels are known here, those of models and
of Jobs.
"""

import datetime
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from aimcontroller.indexes import PODS_BY_CLAIM
from aimcontroller.plan import NOTHING, Plan, look_again
from aimcontroller.projection import Projection, Seen
from aimcontroller.workloads import over
from aimschema import labels
from aimschema.messages import parse_timestamp
from aimschema.resources import JOB, SERVICE, Key

HELD_AFTER_S = 60.0
"""A claim that nobody visibly holds goes within seconds; after this long somebody else holds it."""
MOST_NAMED = 3
PROTECTION = "kubernetes.io/pvc-protection"
"""The finalizer that stays while pods use a claim; any other is somebody's own."""


@dataclass(frozen=True, slots=True)
class Held:
    """`words`: who holds the claim and what frees it. `lasts`: it does not go by itself.

    `follow_up`: when time alone may change that; nothing where it cannot.
    """

    words: str
    lasts: bool
    follow_up: Plan


@dataclass(frozen=True, slots=True)
class _Holder:
    """A pod in words, and what makes it go; `remedy` is empty for one that is going."""

    words: str
    remedy: str


def who_holds(
    seen: Projection, claim: Seen, now: datetime.datetime, going: Iterable[Seen] = ()
) -> Held:
    """`going`: Jobs that are about to be deleted."""
    holders = [
        _holder(seen, pod, {job.uid for job in going})
        for pod in sorted(_mounting(seen, claim), key=lambda pod: pod.key.name)
    ]
    age_s = (now - parse_timestamp(claim.body["metadata"]["deletionTimestamp"])).total_seconds()
    named = ", ".join(holder.words for holder in holders[:MOST_NAMED])
    more = f" and {len(holders) - MOST_NAMED} more" if len(holders) > MOST_NAMED else ""
    remedies = list(dict.fromkeys(holder.remedy for holder in holders if holder.remedy))
    describe = f"kubectl describe pvc -n {claim.key.namespace} {claim.key.name}"
    late = age_s >= HELD_AFTER_S
    if not holders:
        finalizers = [str(each) for each in claim.body["metadata"].get("finalizers") or ()]
        others = ", ".join(each for each in finalizers if each != PROTECTION)
        remedy = (
            f"see whether the controller that set {others} runs"
            if others
            else f"{describe} names the pods that use it: delete them"
        )
        words = f"held by {', '.join(finalizers) or 'nothing'}" + (f"; {remedy}" if late else "")
    elif remedies:
        words = f"held by {named}{more}; to free it, {', and '.join(remedies[:MOST_NAMED])}"
    else:
        words = f"held by {named}{more}, which is going" + (
            f"; if its node is lost, delete the pod with --force; see {describe}" if late else ""
        )
    lasts = bool(remedies) or late
    return Held(words, lasts, NOTHING if lasts else look_again(HELD_AFTER_S - age_s))


def _mounting(seen: Projection, claim: Seen) -> Iterator[Seen]:
    return (
        pod
        for pod in seen.find(PODS_BY_CLAIM, claim.key.name, claim.key.namespace)
        if not over(pod)
    )


def _holder(seen: Projection, pod: Seen, going: set[str]) -> _Holder:
    name, namespace = f"pod {pod.key.name}", pod.key.namespace
    inference, job = pod.labels.get(labels.KSERVE_ISVC_LABEL), pod.owner(JOB.kind)
    if inference is not None and seen.get(Key(SERVICE.kind, namespace, inference)) is not None:
        words, remedy = (
            f"{name} of AIMService {inference}",
            f"set spec.replicas of AIMService {inference} to 0 or delete it",
        )
    elif inference is not None:
        words, remedy = (
            f"{name} of InferenceService {inference}",
            f"delete InferenceService {inference}",
        )
    elif job is not None:
        words, remedy = f"{name} of Job {job.name}", f"delete Job {job.name}"
    else:
        words, remedy = name, f"delete {name}"
    made_by = None if job is None else seen.get(job)
    leaves = pod.deleting or bool(pod.owners & going) or (made_by is not None and made_by.deleting)
    return _Holder(words, "" if leaves else remedy)
