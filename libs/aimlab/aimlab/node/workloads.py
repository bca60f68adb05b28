"""The pods of Deployments and StatefulSets, as kube-controller-manager would make them but without ReplicaSets between. Pure.

A change of the pod template replaces pods one by one: of a Deployment as in `rollout`, of a StatefulSet from the highest ordinal down,
each once those above it are ready (Kubernetes, "StatefulSets", rolling updates). A StatefulSet's claims stay when its pods go.
"""

import hashlib
from datetime import datetime

import msgspec

from aimlab.control import Create, Step, Write, delete_of, patch_of
from aimlab.kinds import DEPLOYMENT, STATEFUL_SET, Body, condition, is_going, is_over, is_owned, is_true, owner_reference, uid_of
from aimlab.mirror import Objects
from aimlab.rollout import Replica, decide
from aimschema.resources import CLAIM, POD, Resource

REVISION_LABEL = "pod-template-hash"
NUMBER_LABEL = "lab.aim/number"
POD_NAME_LABEL, POD_INDEX_LABEL = "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"


def plan(seen: Objects, now: datetime) -> Step:
    """One pass over all of them."""
    writes: list[Write] = []
    for kind in (DEPLOYMENT, STATEFUL_SET):
        for body in seen.all(kind):
            if not is_going(body):
                pods = [pod for pod in seen.all(POD, body["metadata"]["namespace"]) if is_owned(pod, uid_of(body))]
                writes += _deployment(body, pods) if kind is DEPLOYMENT else _stateful_set(body, pods, seen)
                writes += _report(kind, body, pods, now)
    return Step(writes)


def revision_of(body: Body) -> str:
    """Ten hex digits that change when the pods must."""
    return hashlib.sha256(msgspec.json.encode(body["spec"]["template"], order="deterministic")).hexdigest()[:10]


def replica_of(pod: Body) -> Replica:
    labels = pod["metadata"].get("labels") or {}
    number = labels.get(NUMBER_LABEL) or labels.get(POD_INDEX_LABEL) or "0"
    ready = is_true(pod, "Ready")
    return Replica(pod["metadata"]["name"], labels.get(REVISION_LABEL, ""), int(number), ready=ready, going=is_going(pod), over=is_over(pod))


def _deployment(body: Body, pods: list[Body]) -> list[Write]:
    revision = revision_of(body)
    rollout = decide(revision, body["spec"].get("replicas", 1), [replica_of(pod) for pod in pods])
    made = [_pod(body, f"{body['metadata']['name']}-{revision}-{number}", {NUMBER_LABEL: str(number)}) for number in rollout.create]
    return [*(Create(POD, pod) for pod in made), *(delete_of(POD, pod) for pod in pods if pod["metadata"]["name"] in rollout.delete)]


def _stateful_set(body: Body, pods: list[Body], seen: Objects) -> list[Write]:
    """The first step that is due: a pod too many goes, a pod that lacks is made, an old one goes."""
    name, wanted, revision = body["metadata"]["name"], body["spec"].get("replicas", 1), revision_of(body)
    there = {replica_of(pod).number: pod for pod in pods}
    over = [pod for number, pod in there.items() if (number >= wanted or is_over(pod)) and not is_going(pod)]
    if over:
        return [delete_of(POD, pod) for pod in over]
    at_once = body["spec"].get("podManagementPolicy") == "Parallel"
    for number in range(wanted):
        if number not in there:
            return _ordinal(body, f"{name}-{number}", number, seen)
        if not at_once and not is_true(there[number], "Ready"):
            break
    for number in sorted(there, reverse=True):
        if is_going(there[number]):
            return []
        if replica_of(there[number]).revision != revision:
            return [delete_of(POD, there[number])]
        if not is_true(there[number], "Ready"):
            return []
    return []


def _ordinal(body: Body, name: str, number: int, seen: Objects) -> list[Write]:
    """A pod with its own claims, which are made where they are not there."""
    pod = _pod(body, name, {POD_NAME_LABEL: name, POD_INDEX_LABEL: str(number)})
    pod["spec"]["hostname"] = name
    writes: list[Write] = []
    for template in body["spec"].get("volumeClaimTemplates") or []:
        volume, claim = template["metadata"]["name"], f"{template['metadata']['name']}-{name}"
        pod["spec"].setdefault("volumes", []).append({"name": volume, "persistentVolumeClaim": {"claimName": claim}})
        if seen.find(CLAIM, body["metadata"]["namespace"], claim) is None:
            labels = body["spec"]["selector"].get("matchLabels") or {}
            metadata = {"name": claim, "namespace": body["metadata"]["namespace"], "labels": labels}
            writes.append(Create(CLAIM, {"apiVersion": "v1", "kind": CLAIM.kind, "metadata": metadata, "spec": template["spec"]}))
    return [*writes, Create(POD, pod)]


def _pod(body: Body, name: str, labels: dict[str, str]) -> Body:
    template = msgspec.json.decode(msgspec.json.encode(body["spec"]["template"]))
    told = template.get("metadata") or {}
    metadata: Body = {
        "name": name,
        "namespace": body["metadata"]["namespace"],
        "labels": (told.get("labels") or {}) | labels | {REVISION_LABEL: revision_of(body)},
        "annotations": told.get("annotations") or {},
        "ownerReferences": [owner_reference(body)],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def _report(kind: Resource, body: Body, pods: list[Body], now: datetime) -> list[Write]:
    """What `kubectl rollout status` reads."""
    replicas = [replica for pod in pods if not (replica := replica_of(pod)).going and not replica.over]
    wanted, revision = body["spec"].get("replicas", 1), revision_of(body)
    ready, updated = sum(replica.ready for replica in replicas), sum(replica.revision == revision for replica in replicas)
    status: Body = {
        "observedGeneration": body["metadata"].get("generation", 1),
        "replicas": len(replicas),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "updatedReplicas": updated,
    }
    if kind is STATEFUL_SET:
        status["updateRevision"] = f"{body['metadata']['name']}-{revision}"
        if updated == wanted:
            status["currentRevision"] = status["updateRevision"]
    else:
        enough = ready >= wanted
        reason = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
        status["conditions"] = [condition(body, "Available", "True" if enough else "False", now, reason=reason)]
    said = body.get("status") or {}
    same = all(said.get(field) == value for field, value in status.items())
    return [] if same else [patch_of(kind, body, {"status": status}, "status")]
