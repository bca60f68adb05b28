"""RuntimeReady of one service: how its InferenceService and predictor pods fare. Pure and total.

1. It is True only while the InferenceService is Ready and at least one predictor pod is: KServe
   repeats what the Deployment says, and a Deployment of one replica of which one may be unavailable
   is Available with no ready pod.
2. The pods' own trouble is reported before KServe's summary of it.
3. The message is the same while the cause is: no names or counts that change while a pod crashes
   and starts.
"""

import datetime
from dataclasses import dataclass
from functools import partial
from typing import Any

from aim_deployer.modes import MODES, falls_back
from aim_deployer.projection import predictor_pods
from aim_deployer.render import CONTAINER, STARTUP_PERIOD_S, STARTUP_TRIES
from aimcontroller.plan import EMPTY_PLAN, Plan, condition, with_api_error, with_field_conflict
from aimcontroller.projection import REJECTED, ApplyRejected, KubeObject, Projection
from aimcontroller.removal import removal
from aimcontroller.workloads import (
    FAILED_CREATE,
    Diagnosis,
    Trouble,
    diagnose_pods,
    diagnose_without_pods,
    is_pod_finished,
)
from aimschema import labels, reasons
from aimschema.messages import ReportedCondition
from aimschema.resources import INFERENCE_SERVICE, Key

DEADLINE = "ProgressDeadlineExceeded"
_FAILED_LOADS = ("BlockedByFailedLoad", "InvalidSpec")
_UNREMARKABLE = frozenset({"", "MinimumReplicasUnavailable", DEADLINE, reasons.STOPPED})
"""Reasons of Ready=False that only mean that no pod is ready yet."""
_NOT_PODS = frozenset({"InferenceServiceNotReady", "UpdateFailed"})
"""Warning Events of KServe without the cause of missing pods."""

runtime_ready = partial(condition, reasons.RUNTIME_READY)
_failed = partial(runtime_ready, False, reasons.RUNTIME_FAILED)
_creating = partial(runtime_ready, False, reasons.CREATING_RUNTIME)


@dataclass(frozen=True, slots=True)
class Runtime:
    """The condition of the runtime, and the reads that its diagnosis needs."""

    condition: ReportedCondition
    follow_up: Plan = EMPTY_PLAN


@dataclass(frozen=True, slots=True)
class View:
    """The inputs of RuntimeReady. `existing`: the InferenceService; `pods`: its predictors, with
    terminating ones."""

    service: KubeObject
    existing: KubeObject | None
    pods: tuple[KubeObject, ...]
    rejection: ApplyRejected | None
    diagnosis: Diagnosis

    @property
    def replicas(self) -> int:
        return int(self.service.spec.get("replicas", 1))

    @property
    def ready(self) -> int:
        return ready_count(self.pods)

    @property
    def is_empty(self) -> bool:
        """Whether no pod runs. A terminated pod, for example an evicted one, may exist for long."""
        return all(map(is_pod_finished, self.pods))

    @property
    def counts(self) -> str:
        return f"{self.ready} of {self.replicas} replicas ready"


def runtime(
    state: Projection,
    service: KubeObject,
    existing: KubeObject | None,
    now: datetime.datetime,
    mode: str,
) -> Runtime:
    """The status of the runtime. `mode` is the setting AIM_KSERVE_MODE."""
    rejection: ApplyRejected | None = state.learned(service.key, REJECTED)
    if falls_back(existing, rejection, mode):
        rejection = None
    pods = tuple(predictor_pods(state, service.key))
    diagnosis = _diagnose(state, existing, pods, now)
    view = View(service, existing, pods, rejection, diagnosis)
    found = with_api_error(_condition(view), rejection)
    contested = with_field_conflict(
        state, Key(INFERENCE_SERVICE.kind, service.key.namespace, service.key.name), found
    )
    return Runtime(contested, EMPTY_PLAN if found.status == "True" else diagnosis.follow_up)


def ready_count(pods: tuple[KubeObject, ...] | list[KubeObject]) -> int:
    return sum(
        1
        for pod in pods
        if pod.holds(reasons.READY) and not pod.deleting and not is_pod_finished(pod)
    )


def _diagnose(
    state: Projection,
    existing: KubeObject | None,
    pods: tuple[KubeObject, ...],
    now: datetime.datetime,
) -> Diagnosis:
    if existing is None or existing.annotations.get(labels.KSERVE_STOP) == "true":
        return Diagnosis()
    if pods or existing.holds(reasons.READY):
        return diagnose_pods(state, pods, now, CONTAINER)
    found = diagnose_without_pods(state, existing, now)
    noise = found.trouble is not None and found.trouble.reason in _NOT_PODS
    return Diagnosis(None, found.follow_up) if noise else found


def _condition(view: View) -> ReportedCondition:
    """First match wins."""
    match view:
        case View(replicas=0, is_empty=True):
            return runtime_ready(True, reasons.STOPPED, "stopped: replicas is 0")
        case View(replicas=0, existing=KubeObject(deleting=True) as existing):
            return _creating(f"stopping: {removal(existing)}")
        case View(replicas=0):
            return _creating(
                "stopping: replicas is 0, and there are predictor pods left; waiting for KServe to"
                " remove them"
            )
        case View(rejection=ApplyRejected() as rejection) if _decides(rejection):
            return _rejected(rejection)
        case View(existing=None, rejection=ApplyRejected(passes=False) as rejection):
            return _rejected(rejection)
        case View(existing=None):
            return _creating(f"InferenceService {view.service.key.name} is being created")
        case View(existing=KubeObject() as existing):
            return _of_existing(view, existing)
    raise AssertionError(view)  # pragma: no cover (all cases are above)


def _decides(rejection: ApplyRejected) -> bool:
    """Whether the rejection decides the condition. A rejected disruption budget does not stop pods,
    so it only decides if another owner has its name."""
    return rejection.name_taken or (
        not rejection.transient and rejection.target.kind == INFERENCE_SERVICE.kind
    )


def _rejected(rejection: ApplyRejected) -> ReportedCondition:
    message = (
        f"{rejection.target.kind} {rejection.target.name} is rejected by the API server:"
        f" {rejection.message}"
    )
    return runtime_ready(False, rejection.reason(reasons.RUNTIME_FAILED), message)


def _of_existing(view: View, existing: KubeObject) -> ReportedCondition:
    """First match wins: unsupported mode, ready, being deleted, pods rejected, pods failing, load
    failed, stopped, starting."""
    name, ready = f"InferenceService {existing.key.name}", existing.condition(reasons.READY) or {}
    mode, trouble = existing.status.get("deploymentMode"), view.diagnosis.trouble
    if mode and mode not in MODES:
        return _failed(
            f"{name}: status.deploymentMode is {mode}, but only Standard and RawDeployment are"
            " supported; set AIM_KSERVE_MODE of aim-deployer to RawDeployment, then delete this"
            " InferenceService"
        )
    if ready.get("status") == "True" and view.ready:
        return runtime_ready(True, reasons.RUNTIME_READY, view.counts)
    if existing.deleting:
        return _creating(f"{removal(existing)}; it is created again once it is gone")
    pods_rejected = _pods_rejected(view, existing)
    if pods_rejected is not None:
        return pods_rejected
    if trouble is not None and not trouble.waits:
        return _failed(trouble.message)
    load = _failed_load(existing)
    if load is not None:
        return _failed(load)
    return _creating(_why_not_ready(view, name, ready, trouble))


def _why_not_ready(view: View, name: str, ready: dict[str, Any], trouble: Trouble | None) -> str:
    """The message for an InferenceService that is not ready."""
    if trouble is not None:
        return trouble.message
    if view.existing is not None and view.existing.annotations.get(labels.KSERVE_STOP) == "true":
        return (
            f"{name} is stopped: its pods mount the volume of a cache that is gone, and did not"
            " run; it starts once the cache is warm"
        )
    if not ready and not view.pods:
        return (
            f"waiting for KServe to take up {name}; if this stays, see whether its controller runs"
        )
    reason, message = str(ready.get("reason") or ""), str(ready.get("message") or "")
    if reason == DEADLINE:
        minutes = STARTUP_PERIOD_S * STARTUP_TRIES // 60
        return f"{name} is starting: {view.counts}; loading may take {minutes} minutes"
    why = (
        f"; {message}"
        if ready.get("status") == "False" and message and reason not in _UNREMARKABLE
        else ""
    )
    return f"{name} is starting: {view.counts}{why}"


def _pods_rejected(view: View, existing: KubeObject) -> ReportedCondition | None:
    """The failure if the API server rejects the pods: quota, pod security, a webhook. After the
    deadline KServe only reports a time-out."""
    conditions = [each for each in existing.conditions if each.get("status") == "False"]
    failed_create = next((each for each in conditions if each.get("reason") == FAILED_CREATE), None)
    if failed_create is not None:
        namespace = existing.key.namespace
        message = (
            f"pods of InferenceService {existing.key.name} are rejected:"
            f" {failed_create.get('message') or 'KServe gives no message'}"
        )
        return _failed(
            f"{message}; change what forbids them in namespace {namespace} (quota, pod security,"
            " webhook)"
        )
    timed_out = any(each.get("reason") == DEADLINE for each in conditions)
    if not timed_out or view.pods or view.diagnosis.trouble is not None:
        return None
    before = view.service.condition(reasons.RUNTIME_READY) or {}
    if before.get("reason") == reasons.RUNTIME_FAILED:
        return _failed(str(before.get("message") or ""))
    describe = (
        f"kubectl describe replicaset -n {existing.key.namespace} -l"
        f" {labels.KSERVE_ISVC_LABEL}={existing.key.name}"
    )
    return _failed(
        f"InferenceService {existing.key.name} has no pods: quota, pod security or a webhook may"
        f" forbid them; see {describe}"
    )


def _failed_load(existing: KubeObject) -> str | None:
    status = _map(existing.status.get("modelStatus"))
    transition = status.get("transitionStatus")
    if transition not in _FAILED_LOADS:
        return None
    info = _map(status.get("lastFailureInfo"))
    exit_code = f" (exit code {info['exitCode']})" if info.get("exitCode") else ""
    log = (
        f"see kubectl logs -n {existing.key.namespace} -l"
        f" {labels.KSERVE_ISVC_LABEL}={existing.key.name}"
    )
    return (
        f"InferenceService {existing.key.name}: {transition}:"
        f" {info.get('message') or info.get('reason') or ''}{exit_code}; {log}"
    )


def _map(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
