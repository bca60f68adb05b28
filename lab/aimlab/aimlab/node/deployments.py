"""The pods and the status of Deployments, as kube-controller-manager makes them but for the
ReplicaSets between: a pod belongs to its Deployment, and a revision has a ReplicaSet's name. Pure.

The conditions are what others judge by (KServe, `kubectl rollout status`), so they keep the rules:

- Available: at least `replicas - maxUnavailable` pods are ready. With one replica of which one may
  be unavailable that is always so.
- Progressing: NewReplicaSetCreated, ReplicaSetUpdated with each step forward,
  NewReplicaSetAvailable once all pods are new and ready, ProgressDeadlineExceeded (False) where
  nothing moved for `progressDeadlineSeconds`. Once it was NewReplicaSetAvailable it stays so for
  that revision, whatever the pods do.
- ReplicaFailure: the API server rejects a pod; it goes once all pods are there.
"""

import hashlib
from datetime import datetime, timedelta

import msgspec

from aimlab.controller_loop import Create, ReconcileResult, Write, delete_of, patch_of
from aimlab.kinds import (
    Body,
    condition_of,
    is_deleting,
    is_finished,
    is_true,
    owner_reference,
    stamp,
    time_of,
    uid_of,
)
from aimlab.node.events import failed_create
from aimlab.rollout import Replica, decide, strategy_of
from aimschema.resources import DEPLOYMENT, POD

REVISION_LABEL = "pod-template-hash"
NUMBER_LABEL = "lab.aim/number"
COMPLETE = "NewReplicaSetAvailable"
CREATED = "NewReplicaSetCreated"
UPDATED = "ReplicaSetUpdated"
LONGEST_BACK_OFF_S = 30
LATE, FAILED_CREATE = "ProgressDeadlineExceeded", "FailedCreate"


def plan_one(body: Body, pods: list[Body], now: datetime) -> ReconcileResult:
    """The next step for one Deployment; the status first, since what is rejected adds to it."""
    revision = revision_of(body)
    replicas = [replica_of(pod) for pod in pods]
    desired = body["spec"].get("replicas", 1)
    rollout = decide(revision, strategy_of(body["spec"]), desired, replicas)
    status = status_of(body, replicas, now)
    writes: list[Write] = _report(body, status)
    deletions = (pod for pod in pods if pod["metadata"]["name"] in rollout.delete)
    writes += [delete_of(POD, pod) for pod in deletions]
    wait_s = _back_off_s(pods, now)
    for number in () if wait_s else rollout.create:
        pod = pod_for(body, number)
        writes.append(Create(POD, pod, lambda why: _report_rejection(body, status, why, now)))
    step = ReconcileResult(writes, _deadline_s(body, status, now))
    return step + ReconcileResult(requeue_after_s=wait_s) if wait_s and rollout.create else step


def _back_off_s(pods: list[Body], now: datetime) -> float:
    """How long after pods that ended at once the next one waits, in seconds; longer each time."""
    ended = [pod for pod in pods if is_finished(pod)]
    made = [time_of(pod["metadata"].get("creationTimestamp")) for pod in ended]
    newest = max((time for time in made if time is not None), default=None)
    if newest is None:
        return 0.0
    wait = timedelta(seconds=min(2 ** len(ended), LONGEST_BACK_OFF_S))
    return max(0.0, (newest + wait - now).total_seconds())


def revision_of(body: Body) -> str:
    """Ten hex digits that change when the pods must."""
    template = msgspec.json.encode(body["spec"]["template"], order="deterministic")
    return hashlib.sha256(template).hexdigest()[:10]


def replica_of(pod: Body) -> Replica:
    labels = pod["metadata"].get("labels") or {}
    return Replica(
        name=pod["metadata"]["name"],
        revision=labels.get(REVISION_LABEL, ""),
        number=int(labels.get(NUMBER_LABEL) or 0),
        ready=is_true(pod, "Ready"),
        going=is_deleting(pod),
        over=is_finished(pod),
    )


def pod_for(body: Body, number: int) -> Body:
    """A pod's name follows from its number, so that the same one is never made twice."""
    revision = revision_of(body)
    suffix = hashlib.sha256(f"{uid_of(body)}:{number}".encode()).hexdigest()[:5]
    name = f"{body['metadata']['name']}-{revision}-{suffix}"
    return pod_of_template(body, name, {NUMBER_LABEL: str(number), REVISION_LABEL: revision})


def pod_of_template(body: Body, name: str, labels: dict[str, str]) -> Body:
    template = msgspec.json.decode(msgspec.json.encode(body["spec"]["template"]))
    template_metadata = template.get("metadata") or {}
    metadata: Body = {
        "name": name,
        "namespace": body["metadata"]["namespace"],
        "labels": (template_metadata.get("labels") or {}) | labels,
        "annotations": template_metadata.get("annotations") or {},
        "ownerReferences": [owner_reference(body)],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def status_of(body: Body, replicas: list[Replica], now: datetime) -> Body:
    """The whole status; counts of none are left out, as the API server leaves them out."""
    live = [replica for replica in replicas if not replica.going and not replica.over]
    desired, ready = body["spec"].get("replicas", 1), sum(replica.ready for replica in live)
    counts = {
        "replicas": len(live),
        "updatedReplicas": sum(replica.revision == revision_of(body) for replica in live),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": max(0, desired - ready),
    }
    found = [_available(body, desired, ready, now), _progressing(body, counts, now)]
    if len(live) < desired:
        found.append(condition_of(body, "ReplicaFailure"))
    return {
        "observedGeneration": body["metadata"].get("generation", 1),
        **{name: count for name, count in counts.items() if count},
        "terminatingReplicas": sum(replica.going for replica in replicas),
        "conditions": [one for one in found if one is not None],
    }


def _available(body: Body, desired: int, ready: int, now: datetime) -> Body:
    if ready >= desired - strategy_of(body["spec"]).unavailable:
        good = "Deployment has minimum availability."
        return _condition(body, "Available", ("True", "MinimumReplicasAvailable", good), now)
    bad = "Deployment does not have minimum availability."
    return _condition(body, "Available", ("False", "MinimumReplicasUnavailable", bad), now)


def _progressing(body: Body, counts: dict[str, int], now: datetime) -> Body | None:
    """First match wins: no deadline, another revision, complete, was complete, a step, late."""
    deadline_s = body["spec"].get("progressDeadlineSeconds")
    if deadline_s is None:
        return None
    name = f'"{body["metadata"]["name"]}-{revision_of(body)}"'
    verdicts = {
        CREATED: ("True", CREATED, f"Created new replica set {name}"),
        UPDATED: ("True", UPDATED, f"ReplicaSet {name} is progressing."),
        COMPLETE: ("True", COMPLETE, f"ReplicaSet {name} has successfully progressed."),
        LATE: ("False", LATE, f"ReplicaSet {name} has timed out progressing."),
    }
    before = condition_of(body, "Progressing")
    if before is None or before.get("message") not in {text for _, _, text in verdicts.values()}:
        made = _condition(body, "Progressing", verdicts[CREATED], now)
        return made | {"message": verdicts[CREATED][2], "lastUpdateTime": stamp(now)}
    desired = body["spec"].get("replicas", 1)
    all_new = counts["replicas"] == counts["updatedReplicas"]
    if all_new and counts["replicas"] == counts["availableReplicas"] == desired:
        return _condition(body, "Progressing", verdicts[COMPLETE], now)
    if before["reason"] == COMPLETE and all_new:
        return before
    if _moved_on(body.get("status") or {}, counts):
        made = _condition(body, "Progressing", verdicts[UPDATED], now)
        return made | {"lastUpdateTime": stamp(now)}
    since = time_of(before.get("lastUpdateTime"))
    if since is not None and now >= since + timedelta(seconds=deadline_s):
        return _condition(body, "Progressing", verdicts[LATE], now)
    return before


def _moved_on(before: Body, counts: dict[str, int]) -> bool:
    """More new, ready or available pods, or fewer old ones, than the status has."""
    grown = ("updatedReplicas", "readyReplicas", "availableReplicas")
    old_before = before.get("replicas", 0) - before.get("updatedReplicas", 0)
    fewer_old = counts["replicas"] - counts["updatedReplicas"] < old_before
    return fewer_old or any(counts[name] > before.get(name, 0) for name in grown)


def _condition(body: Body, kind: str, verdict: tuple[str, str, str], now: datetime) -> Body:
    """What the status has already, where status and reason are the same."""
    before, (status, reason, message) = condition_of(body, kind), verdict
    if before is not None and (before.get("status"), before.get("reason")) == (status, reason):
        return before
    same_status = before is not None and before.get("status") == status
    since = before["lastTransitionTime"] if before is not None and same_status else stamp(now)
    times = {"lastUpdateTime": stamp(now), "lastTransitionTime": since}
    return {"type": kind, "status": status, "reason": reason, "message": message} | times


def _deadline_s(body: Body, status: Body, now: datetime) -> float | None:
    """When what has not progressed is late; None where nothing is awaited."""
    found = next((one for one in status["conditions"] if one["type"] == "Progressing"), None)
    since = time_of(found.get("lastUpdateTime")) if found is not None else None
    if found is None or since is None or found["reason"] not in {CREATED, UPDATED}:
        return None
    due = since + timedelta(seconds=body["spec"]["progressDeadlineSeconds"])
    return max(0.0, (due - now).total_seconds())


def _report_rejection(body: Body, status: Body, why: str, now: datetime) -> list[Write]:
    """ReplicaFailure, with the message of the first rejection, and an Event."""
    failed = _condition(body, "ReplicaFailure", ("True", FAILED_CREATE, why), now)
    others = [one for one in status["conditions"] if one["type"] != "ReplicaFailure"]
    written = _report(body, status | {"conditions": [*others, failed]})
    return [*written, *failed_create(body, why, now)]


def _report(body: Body, status: Body) -> list[Write]:
    before = body.get("status") or {}
    if before == status:
        return []
    removed = {field: None for field in before if field not in status}
    return [patch_of(DEPLOYMENT, body, {"status": status | removed}, "status")]
