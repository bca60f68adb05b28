"""Binds Pods to the node, as the Kubernetes scheduler would with one node in the cluster.

It checks in this order: whether the node is cordoned, its taints, the pod's volume claims, node
affinity and selector, and the resources that the bound pods leave free. A pod that does not fit
gets PodScheduled=False/Unschedulable with the scheduler's message, and is reconciled again at every
change.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from aimkube.selectors import expression_holds
from aimlab.apiserver.quantity import parse
from aimlab.controller_loop import Create, ReconcileResult, Write, patch_of
from aimlab.informer import Objects
from aimlab.kinds import Body, condition, condition_of, is_deleting, is_finished, phase_of
from aimschema.resources import CLAIM, NODE, POD, STORAGE_CLASS, Resource

SCHEDULER = "default-scheduler"
SELECTED_NODE = "volume.kubernetes.io/selected-node"

Amounts = Counter[str]


@dataclass(frozen=True, slots=True)
class Fits:
    """The pod can run; these claims must first get a node (WaitForFirstConsumer)."""

    claims_to_place: tuple[Body, ...] = ()


@dataclass(frozen=True, slots=True)
class DoesNotFit:
    message: str


def plan(state: Objects, now: datetime) -> ReconcileResult:
    """One pass over all pods, the oldest first."""
    node = next(iter(state.all(NODE)), None)
    if node is None:
        return ReconcileResult()
    pods = state.all(POD)
    free = free_of(node, pods)
    writes: list[Write] = []
    for pod in pods:
        if not waits_for_scheduling(pod):
            continue
        match decide(pod, node, free, state):
            case Fits(claims_to_place=()):
                free.subtract(requests_of(pod))
                writes.append(bind(pod, node))
            case Fits(claims_to_place=claims):
                free.subtract(requests_of(pod))
                name = node["metadata"]["name"]
                writes += [
                    patch_of(CLAIM, claim, {"metadata": {"annotations": {SELECTED_NODE: name}}})
                    for claim in claims
                    if not is_placed(claim)
                ]
            case DoesNotFit(message=message):
                writes += mark_unschedulable(pod, message, now)
    return ReconcileResult(writes)


def waits_for_scheduling(pod: Body) -> bool:
    spec = pod["spec"]
    ours = spec.get("schedulerName", SCHEDULER) == SCHEDULER and not spec.get("schedulingGates")
    return ours and not spec.get("nodeName") and not is_deleting(pod) and not is_finished(pod)


def decide(pod: Body, node: Body, free: Amounts, state: Objects) -> Fits | DoesNotFit:
    """First match wins: a node that is cordoned, a taint, a claim in the way, the wrong node,
    not enough free, fits."""
    if node.get("spec", {}).get("unschedulable"):
        return _no_node("1 node(s) were unschedulable")
    if not tolerates(pod, node):
        return _no_node("1 node(s) had untolerated taint(s)")
    to_place: list[Body] = []
    for name in claims_of(pod):
        claim = state.find(CLAIM, pod["metadata"]["namespace"], name)
        if claim is None:
            return _no_node(f'persistentvolumeclaim "{name}" not found')
        if is_deleting(claim):
            return _no_node(f'persistentvolumeclaim "{name}" is being deleted')
        if phase_of(claim) != "Bound":
            if not waits_for_consumer(claim, state):
                return _no_node("pod has unbound immediate PersistentVolumeClaims")
            to_place.append(claim)
    if not matches_node(pod, node):
        return _no_node("1 node(s) didn't match Pod's node affinity/selector")
    short = [
        resource for resource, amount in sorted(requests_of(pod).items()) if amount > free[resource]
    ]
    if short:
        lacking = ", ".join(f"1 Insufficient {resource}" for resource in short)
        return _no_node(lacking, "No preemption victims found for incoming pod")
    return Fits(tuple(to_place))


def _no_node(
    why: str, no_preemption: str = "Preemption is not helpful for scheduling"
) -> DoesNotFit:
    """With the message of the scheduler."""
    none_available = "0/1 nodes are available"
    return DoesNotFit(f"{none_available}: {why}. preemption: {none_available}: 1 {no_preemption}.")


def tolerates(pod: Body, node: Body) -> bool:
    """Every taint that keeps pods off is tolerated (Kubernetes, "Taints and Tolerations")."""
    taints = (node.get("spec") or {}).get("taints") or []
    keep_off = [taint for taint in taints if taint.get("effect") in {"NoSchedule", "NoExecute"}]
    tolerations = pod["spec"].get("tolerations") or []
    return all(any(_is_tolerated(taint, one) for one in tolerations) for taint in keep_off)


def _is_tolerated(taint: Body, toleration: Body) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("key") not in (None, "", taint["key"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def claims_of(pod: Body) -> list[str]:
    volumes = pod["spec"].get("volumes") or []
    return [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in volumes
        if "persistentVolumeClaim" in volume
    ]


def waits_for_consumer(claim: Body, state: Objects) -> bool:
    storage_class = state.find(STORAGE_CLASS, None, claim["spec"].get("storageClassName") or "")
    return (
        storage_class is not None
        and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"
    )


def is_placed(claim: Body) -> bool:
    return SELECTED_NODE in claim["metadata"].get("annotations", {})


def matches_node(pod: Body, node: Body) -> bool:
    """nodeSelector, and required node affinity: any term whose expressions all hold."""
    labels: dict[str, str] = node["metadata"].get("labels", {})
    spec = pod["spec"]
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    terms: list[Body] = required.get("nodeSelectorTerms") or []
    return any(_holds(term.get("matchExpressions") or [], labels) for term in terms)


def _holds(expressions: list[Body], labels: dict[str, str]) -> bool:
    return bool(expressions) and all(
        expression_holds(expression, labels) for expression in expressions
    )


def free_of(node: Body, pods: Iterable[Body]) -> Amounts:
    """What is allocatable less what the node's live pods have asked for; pods that are going
    still hold theirs."""
    free: Amounts = Counter()
    free.update(_amounts(node.get("status", {}).get("allocatable") or {}))
    for pod in pods:
        if pod["spec"].get("nodeName") == node["metadata"]["name"] and not is_finished(pod):
            free.subtract(requests_of(pod))
    return free


def requests_of(pod: Body) -> Amounts:
    """What the pod's containers ask for together; a limit without a request counts as one, and
    the pod itself as one of `pods`."""
    total: Amounts = Counter()
    total.update(_amounts({"pods": 1}))
    for container in pod["spec"]["containers"]:
        resources = container.get("resources") or {}
        total.update(_amounts((resources.get("limits") or {}) | (resources.get("requests") or {})))
    return total


def _amounts(quantities: dict[str, str | int]) -> dict[str, int]:
    """In thousandths, so that they stay whole numbers."""
    return {
        resource: int(parse(str(text)) * Decimal(1000)) for resource, text in quantities.items()
    }


def bind(pod: Body, node: Body) -> Create:
    """The pod's `binding` subresource, which is created and never read."""
    metadata = {key: pod["metadata"][key] for key in ("name", "namespace", "uid")}
    target = {"apiVersion": "v1", "kind": "Node", "name": node["metadata"]["name"]}
    subresource = Resource("Binding", "", "v1", f"pods/{metadata['name']}/binding")
    return Create(
        subresource, {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
    )


def mark_unschedulable(pod: Body, message: str, now: datetime) -> list[Write]:
    existing = condition_of(pod, "PodScheduled")
    if existing is not None and existing.get("message") == message:
        return []
    unschedulable = condition(
        pod, "PodScheduled", "False", now, reason="Unschedulable", message=message
    )
    return [
        patch_of(
            POD, pod, {"status": {"phase": "Pending", "conditions": [unschedulable]}}, "status"
        )
    ]
