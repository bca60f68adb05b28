"""KServe's part of the laptop cluster: plans the pods, Service, endpoints and status of every InferenceService. Pure."""

from datetime import datetime

from aimlab.control import Create, Patch, Step, Write, delete_of, patch_of
from aimlab.kinds import ENDPOINT_SLICE, SERVICE, Body, condition, is_going, is_owned, uid_of
from aimlab.kserve import render
from aimlab.kserve.status import status_of
from aimlab.mirror import Objects
from aimlab.rollout import decide
from aimschema.resources import INFERENCE_SERVICE, POD, Resource

WATCHED = (INFERENCE_SERVICE, POD, SERVICE, ENDPOINT_SLICE)


def plan(seen: Objects, now: datetime) -> Step:
    """One pass over all InferenceServices."""
    writes: list[Write] = []
    for isvc in seen.all(INFERENCE_SERVICE):
        if not is_going(isvc):
            writes += plan_one(isvc, seen, now)
    return Step(writes)


def plan_one(isvc: Body, seen: Objects, now: datetime) -> list[Write]:
    """Endpoints before pods are deleted, so that the gateway learns first; the status last."""
    if not isvc["spec"].get("predictor", {}).get("containers"):
        return _report(isvc, invalid(isvc, "the predictor has no container; only custom predictors are served here", now))
    pods = [pod for pod in seen.all(POD, isvc["metadata"]["namespace"]) if is_owned(pod, uid_of(isvc))]
    replicas = [render.replica_of(pod) for pod in pods]
    rollout = decide(render.revision_of(isvc), render.replicas_of(isvc), replicas)
    writes: list[Write] = []
    for resource, body in ((SERVICE, render.service_for(isvc)), (ENDPOINT_SLICE, render.endpoints_for(isvc, pods))):
        writes += keep(resource, body, seen)
    writes += [Create(POD, render.pod_for(isvc, number)) for number in rollout.create]
    writes += [delete_of(POD, pod) for pod in pods if pod["metadata"]["name"] in rollout.delete]
    return writes + _report(isvc, status_of(isvc, pods, replicas, now))


def keep(resource: Resource, body: Body, seen: Objects) -> list[Write]:
    """Makes the object, or puts right what differs from it."""
    metadata = body["metadata"]
    there = seen.find(resource, metadata["namespace"], metadata["name"])
    if there is None:
        return [Create(resource, body)]
    wrong = {field: value for field, value in body.items() if field != "metadata" and not _contains(there.get(field), value)}
    return [Patch(resource, metadata["namespace"], metadata["name"], wrong)] if wrong and not is_going(there) else []


def _contains(there: object, wanted: object) -> bool:
    """Everything wanted is there; the API server may have added to it."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(_contains(there.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(there, list) and len(there) == len(wanted) and all(map(_contains, there, wanted))
    return there == wanted


def invalid(isvc: Body, message: str, now: datetime) -> Body:
    model = {"transitionStatus": "InvalidSpec", "lastFailureInfo": {"reason": "InvalidPredictorSpec", "message": message}}
    return {"conditions": [condition(isvc, "Ready", "False", now, reason="InvalidPredictorSpec", message=message)], "modelStatus": model}


def _report(isvc: Body, status: Body) -> list[Write]:
    said = isvc.get("status", {})
    gone = {field: None for field in ("url", "address", "components") if field in said and field not in status}
    same = all(said.get(field) == value for field, value in status.items()) and not gone
    return [] if same else [patch_of(INFERENCE_SERVICE, isvc, {"status": status | gone}, "status")]
