"""An InferenceService's status from its pods, in the form in which KServe writes it in Standard mode. Pure.

`observedGeneration` is the Deployment's in KServe, not the InferenceService's; here it is always 1, so that nobody gets used to comparing it.
Ready needs at least one ready pod. KServe takes the Deployment's word, and a Deployment of one replica of which one may be unavailable calls itself
available without any.
"""

from datetime import datetime

from aimlab.kinds import Body, condition, is_going, is_true
from aimlab.kserve.render import MAIN_CONTAINER, predictor_name, replicas_of, revision_of
from aimlab.rollout import MAX_UNAVAILABLE, Replica

Failure = dict[str, str | int]


def status_of(isvc: Body, pods: list[Body], replicas: list[Replica], now: datetime) -> Body:
    """The whole status; `replicas` are the pods in the rollout's form."""
    wanted = replicas_of(isvc)
    if wanted == 0:
        return _stopped(isvc, now)
    available = sum(replica.ready and not replica.going for replica in replicas)
    revision = revision_of(isvc)
    up_to_date = sum(replica.ready and not replica.going for replica in replicas if replica.revision == revision)
    ready = available > 0 and available >= wanted - MAX_UNAVAILABLE
    predictor = ("True", "", "") if ready else ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    ingress = ("True", "", "") if ready else ("False", "Predictor ingress not created", "")
    kinds = {"IngressReady": ingress, "PredictorReady": predictor, "Ready": predictor if not ready else ingress, "Stopped": ("False", "", "")}
    host = f"{predictor_name(isvc)}.{isvc['metadata']['namespace']}.svc.cluster.local"
    failure = next((found for pod in pods if (found := failure_of(pod)) is not None), None)
    return {
        "observedGeneration": 1,
        "deploymentMode": "Standard",
        "conditions": [condition(isvc, kind, said, now, reason=reason, message=text) for kind, (said, reason, text) in kinds.items()],
        "modelStatus": model_status(up_to_date, wanted, failure),
    } | ({"url": f"http://{host}", "address": {"url": f"http://{host}"}, "components": {"predictor": {"url": f"http://{host}"}}} if ready else {})


def _stopped(isvc: Body, now: datetime) -> Body:
    kinds = {"IngressReady": "False", "PredictorReady": "False", "Ready": "False", "Stopped": "True"}
    conditions = [condition(isvc, kind, said, now, reason="Stopped") for kind, said in kinds.items()]
    states = {"activeModelState": "", "targetModelState": "Pending"}
    model = {"transitionStatus": "InProgress", "states": states, "copies": {"failedCopies": 0, "totalCopies": 0}}
    return {"observedGeneration": 1, "deploymentMode": "Standard", "conditions": conditions, "modelStatus": model}


def model_status(ready: int, wanted: int, failure: Failure | None) -> Body:
    """KServe's ModelStatus: `ready` copies of the latest revision out of `wanted`."""
    copies = {"failedCopies": 0, "totalCopies": ready}
    if failure is not None:
        states = {"activeModelState": "Loaded" if ready else "", "targetModelState": "FailedToLoad"}
        blocked = {"transitionStatus": "BlockedByFailedLoad", "states": states, "lastFailureInfo": failure}
        return blocked | {"copies": copies | {"failedCopies": 1}}
    if ready >= wanted:
        return {"transitionStatus": "UpToDate", "states": {"activeModelState": "Loaded", "targetModelState": "Loaded"}, "copies": copies}
    states = {"activeModelState": "Loaded" if ready else "", "targetModelState": "Loading"}
    return {"transitionStatus": "InProgress", "states": states, "copies": copies}


def failure_of(pod: Body) -> Failure | None:
    """How the model's container ended last, while it is not running again (KServe, `lastFailureInfo`)."""
    if is_going(pod) or is_true(pod, "Ready"):
        return None
    statuses = pod.get("status", {}).get("containerStatuses") or []
    for status in statuses:
        if status["name"] != MAIN_CONTAINER:
            continue
        state = status.get("state", {})
        crashed = status.get("lastState", {}) if state.get("waiting", {}).get("reason") == "CrashLoopBackOff" else state
        ended = crashed.get("terminated")
        if ended is not None and ended["exitCode"] != 0:
            return {
                "reason": "ModelLoadFailed",
                "message": ended.get("message", ""),
                "exitCode": ended["exitCode"],
                "location": pod["metadata"]["name"],
            }
    return None
