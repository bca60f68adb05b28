"""The pods of Deployments (see `deployments`) and StatefulSets. Pure.

A change of the pod template replaces a StatefulSet's pods from the highest ordinal down, each once
those above it are ready (Kubernetes, "StatefulSets", rolling updates). Its claims stay when its
pods go.
"""

from datetime import datetime

from aimlab.controller_loop import Create, ReconcileResult, Write, delete_of, patch_of
from aimlab.informer import Objects
from aimlab.kinds import STATEFUL_SET, Body, is_deleting, is_finished, is_owned, is_true, uid_of
from aimlab.node import deployments
from aimlab.node.deployments import REVISION_LABEL, pod_of_template, revision_of
from aimlab.node.events import failed_create
from aimschema.resources import CLAIM, DEPLOYMENT, POD

POD_NAME_LABEL = "statefulset.kubernetes.io/pod-name"
POD_INDEX_LABEL = "apps.kubernetes.io/pod-index"


def plan(state: Objects, now: datetime) -> ReconcileResult:
    """One pass over all of them."""
    step = ReconcileResult()
    for kind in (DEPLOYMENT, STATEFUL_SET):
        for body in state.all(kind):
            if is_deleting(body):
                continue
            pods = [
                pod
                for pod in state.all(POD, body["metadata"]["namespace"])
                if is_owned(pod, uid_of(body))
            ]
            if kind is DEPLOYMENT:
                step += deployments.plan_one(body, pods, now)
            else:
                step += ReconcileResult(_stateful_set(body, pods, state, now) + _report(body, pods))
    return step


def _number_of(pod: Body) -> int:
    return int((pod["metadata"].get("labels") or {}).get(POD_INDEX_LABEL) or 0)


def _is_of(pod: Body, revision: str) -> bool:
    return (pod["metadata"].get("labels") or {}).get(REVISION_LABEL) == revision


def _stateful_set(body: Body, pods: list[Body], state: Objects, now: datetime) -> list[Write]:
    """The first due step: delete a surplus pod, create a missing one, delete an old one."""
    replicas, revision = body["spec"].get("replicas", 1), revision_of(body)
    by_number = {_number_of(pod): pod for pod in pods}
    over = [
        pod
        for number, pod in by_number.items()
        if (number >= replicas or is_finished(pod)) and not is_deleting(pod)
    ]
    if over:
        return [delete_of(POD, pod) for pod in over]
    at_once = body["spec"].get("podManagementPolicy") == "Parallel"
    for number in range(replicas):
        if number not in by_number:
            return _ordinal(body, number, state, now)
        if not at_once and not is_true(by_number[number], "Ready"):
            break
    for number in sorted(by_number, reverse=True):
        if is_deleting(by_number[number]):
            return []
        if not _is_of(by_number[number], revision):
            return [delete_of(POD, by_number[number])]
        if not is_true(by_number[number], "Ready"):
            return []
    return []


def _ordinal(body: Body, number: int, state: Objects, now: datetime) -> list[Write]:
    """A pod with its own claims, which are made where they are not there."""
    name = f"{body['metadata']['name']}-{number}"
    pod = pod_of_template(
        body,
        name,
        {POD_NAME_LABEL: name, POD_INDEX_LABEL: str(number), REVISION_LABEL: revision_of(body)},
    )
    pod["spec"]["hostname"] = name
    writes: list[Write] = []
    for template in body["spec"].get("volumeClaimTemplates") or []:
        volume, claim = template["metadata"]["name"], f"{template['metadata']['name']}-{name}"
        pod["spec"].setdefault("volumes", []).append(
            {"name": volume, "persistentVolumeClaim": {"claimName": claim}}
        )
        if state.find(CLAIM, body["metadata"]["namespace"], claim) is None:
            labels = body["spec"]["selector"].get("matchLabels") or {}
            metadata = {"name": claim, "namespace": body["metadata"]["namespace"], "labels": labels}
            writes.append(
                Create(
                    CLAIM,
                    {
                        "apiVersion": "v1",
                        "kind": CLAIM.kind,
                        "metadata": metadata,
                        "spec": template["spec"],
                    },
                )
            )
    return [*writes, Create(POD, pod, lambda why: failed_create(body, why, now))]


def _report(body: Body, pods: list[Body]) -> list[Write]:
    """What `kubectl rollout status` reads."""
    live = [pod for pod in pods if not is_deleting(pod) and not is_finished(pod)]
    replicas, revision = body["spec"].get("replicas", 1), revision_of(body)
    ready = sum(is_true(pod, "Ready") for pod in live)
    updated = sum(_is_of(pod, revision) for pod in live)
    status: Body = {
        "observedGeneration": body["metadata"].get("generation", 1),
        "replicas": len(live),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "updatedReplicas": updated,
        "updateRevision": f"{body['metadata']['name']}-{revision}",
    }
    if updated == replicas:
        status["currentRevision"] = status["updateRevision"]
    existing = body.get("status") or {}
    same = all(existing.get(field) == value for field, value in status.items())
    return [] if same else [patch_of(STATEFUL_SET, body, {"status": status}, "status")]
