"""An InferenceService's status from its Deployment and pods, in the form and by the rules of KServe
0.16 in Standard mode. Pure.

Ready repeats the Deployment, not the pods. A later line wins: the Deployment is Available, it is
not progressing (False), has progressed (True) or still does (Unknown), it is not Available (False),
a pod is rejected (False). `observedGeneration` is the Deployment's. The model's state is carried on
from the status before, so that a model that was loaded once stays an active one.
"""

from datetime import datetime

from aimlab.kinds import Body, condition_of, is_true, phase_of, stamp
from aimlab.kserve.render import (
    DOMAIN,
    MAIN_CONTAINER,
    VISIBILITY_LABEL,
    is_stopped,
    predictor_name,
)

Verdict = tuple[str, str, str]
"""Status, reason and message."""
TRUE: Verdict = ("True", "", "")
STOPPED: Verdict = ("False", "Stopped", "")
HAS_PROGRESSED = "NewReplicaSetAvailable"


def status_of(
    isvc: Body, mode: str, deployment: Body | None, pods: list[Body], now: datetime
) -> Body:
    """The whole status."""
    before = isvc.get("status") or {}
    stopped = is_stopped(isvc)
    ready = STOPPED if stopped else verdict_of(deployment)
    status: Body = {
        "address": {"url": f"http://{_internal_host(isvc)}"},
        "conditions": [
            _condition(isvc, "IngressReady", TRUE, now),
            _condition(isvc, "PredictorReady", ready, now),
            _condition(isvc, "Ready", ready, now),
            _condition(isvc, "Stopped", ("True" if stopped else "False", "", ""), now),
        ],
        "deploymentMode": mode,
        "url": f"http://{_host(isvc, isvc['metadata']['name'])}",
    }
    if stopped:
        return status | {"modelStatus": {"transitionStatus": ""}}
    observed = ((deployment or {}).get("status") or {}).get("observedGeneration")
    return (
        status
        | ({"observedGeneration": observed} if observed else {})
        | {"components": {"predictor": _component(isvc, before, ready)}}
        | {"modelStatus": model_status(before.get("modelStatus") or {}, ready, pods)}
    )


def verdict_of(deployment: Body | None) -> Verdict:
    """The verdict of PredictorReady; before the Deployment has a status it is False without a
    reason."""
    conditions = ((deployment or {}).get("status") or {}).get("conditions") or []
    found = {one["type"]: one for one in conditions}
    available, progressing = found.get("Available", {}), found.get("Progressing", {})
    failed, verdict = found.get("ReplicaFailure", {}), ("False", "", "")
    if available.get("status") == "True":
        verdict = TRUE
    if progressing.get("status") == "False" and progressing.get("message"):
        verdict = _verdict("False", progressing)
    if progressing.get("status") == "True":
        progressed = progressing.get("reason") == HAS_PROGRESSED
        verdict = TRUE if progressed else _verdict("Unknown", progressing)
    if available.get("status") == "False":
        verdict = _verdict("False", available)
    if failed.get("status") == "True":
        verdict = _verdict("False", failed)
    return verdict


def _verdict(status: str, condition: Body) -> Verdict:
    return status, condition.get("reason", ""), condition.get("message", "")


def _component(isvc: Body, before: Body, ready: Verdict) -> Body:
    """The predictor's URL appears when it is first ready, and stays."""
    known: Body = ((before.get("components") or {}).get("predictor")) or {}
    url = {"url": f"http://{_host(isvc, predictor_name(isvc))}"}
    return known | url if ready[0] == "True" else known


def _internal_host(isvc: Body) -> str:
    return f"{predictor_name(isvc)}.{isvc['metadata']['namespace']}.svc.cluster.local"


def _host(isvc: Body, name: str) -> str:
    """Where the world finds it, or only the cluster."""
    visibility = (isvc["metadata"].get("labels") or {}).get(VISIBILITY_LABEL)
    if visibility == "cluster-local":
        return _internal_host(isvc)
    return f"{name}-{isvc['metadata']['namespace']}.{DOMAIN}"


def _condition(isvc: Body, kind: str, verdict: Verdict, now: datetime) -> Body:
    """Its time moves with any change of it, of the reason too."""
    status, reason, message = verdict
    made: Body = {"type": kind, "status": status}
    made |= {"severity": "Info"} if kind == "Stopped" else {}
    made |= ({"reason": reason} if reason else {}) | ({"message": message} if message else {})
    before = condition_of(isvc, kind) or {}
    same = {**before, "lastTransitionTime": ""} == made | {"lastTransitionTime": ""}
    return made | {"lastTransitionTime": before["lastTransitionTime"] if same else stamp(now)}


def model_status(before: Body, ready: Verdict, pods: list[Body]) -> Body:
    """The state of the newest pod's model; `before` if it is unknown."""
    copies = sum(phase_of(pod) == "Running" and is_true(pod, "Ready") for pod in pods)
    counted = before | {"copies": {"failedCopies": 0} | ({"totalCopies": copies} if copies else {})}
    if not pods:
        return _move_model(counted, "Pending")
    if ready[0] == "True":
        return _move_model(counted, "Loaded")
    newest = max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))
    for status in newest.get("status", {}).get("containerStatuses") or []:
        if status["name"] == MAIN_CONTAINER:
            failure = _failure_of(status)
            if failure is None:
                return _move_model(counted, "Pending")
            return _move_model(counted, "FailedToLoad") | {"lastFailureInfo": failure}
    return {"transitionStatus": ""} | counted


TRANSITIONS = {
    "Pending": "InProgress",
    "Loaded": "UpToDate",
    "FailedToLoad": "BlockedByFailedLoad",
}


def _move_model(model: Body, target: str) -> Body:
    active = (model.get("states") or {}).get("activeModelState", "")
    active = "Loaded" if target == "Loaded" else active
    states = {"activeModelState": active, "targetModelState": target}
    return model | {"states": states, "transitionStatus": TRANSITIONS[target]}


def _failure_of(status: Body) -> Body | None:
    """How the model's container ended, while it is not running again."""
    state = status.get("state") or {}
    ended = state.get("terminated") or {}
    if ended.get("reason") != "Error":
        looping = (state.get("waiting") or {}).get("reason") == "CrashLoopBackOff"
        ended = ((status.get("lastState") or {}).get("terminated") or {}) if looping else {}
    if not ended:
        return None
    message = {"message": ended["message"]} if ended.get("message") else {}
    return {"reason": "ModelLoadFailed", "exitCode": ended.get("exitCode", 0)} | message


def not_served(mode: str) -> Body:
    """Another part of KServe, which is not here, handles any other mode."""
    return {"deploymentMode": mode}


def invalid(isvc: Body, message: str, now: datetime) -> Body:
    failure = {"reason": "InvalidPredictorSpec", "message": message}
    ready = _condition(isvc, "Ready", ("False", "InvalidPredictorSpec", message), now)
    model = {"transitionStatus": "InvalidSpec", "lastFailureInfo": failure}
    return {"conditions": [ready], "modelStatus": model}
