"""RuntimeReady of one service: the status of its InferenceService and predictor pods. Pure and
total.

1. It is True only while the InferenceService and at least one predictor pod are Ready. KServe
   copies the condition of the Deployment, and a Deployment with maxUnavailable 1 and one replica is
   Available without a ready pod.
2. A failure of the pods is reported before KServe's summary of it.
3. The message stays the same while the cause is the same: it has no names or counts that change
   while a pod crashes and restarts.
"""

import datetime
from dataclasses import dataclass
from functools import partial
from typing import Any

from aim_deployer.existing import is_stopped
from aim_deployer.modes import MODES, falls_back
from aim_deployer.projection import CONTAINER
from aim_deployer.render import STARTUP_PERIOD_S, STARTUP_TRIES
from aimcontroller.failures import with_api_error
from aimcontroller.plan import EMPTY_PLAN, Plan, condition
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
from aimschema.resources import INFERENCE_SERVICE

DEADLINE = "ProgressDeadlineExceeded"
FAILED_LOADS = ("BlockedByFailedLoad", "InvalidSpec")
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
class RuntimeView:
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

    @property
    def ready_condition(self) -> dict[str, Any]:
        """Ready of the InferenceService; empty without one."""
        return {} if self.existing is None else self.existing.condition(reasons.READY) or {}

    @property
    def is_ready(self) -> bool:
        return self.ready_condition.get("status") == "True" and self.ready > 0

    @property
    def unsupported_mode(self) -> str | None:
        """The deployment mode of the InferenceService, where it is not one of MODES."""
        mode = None if self.existing is None else self.existing.status.get("deploymentMode")
        return str(mode) if mode and mode not in MODES else None

    @property
    def failed_create(self) -> dict[str, Any] | None:
        """The condition with which KServe reports that the API server rejects the pods."""
        return next((c for c in self._unmet if c.get("reason") == FAILED_CREATE), None)

    @property
    def has_no_pods_at_deadline(self) -> bool:
        """KServe timed out, no pod exists, and nothing else explains it."""
        is_timed_out = any(each.get("reason") == DEADLINE for each in self._unmet)
        return is_timed_out and not self.pods and self.diagnosis.trouble is None

    @property
    def failed_load(self) -> dict[str, Any] | None:
        """`modelStatus`, where the load of the model failed."""
        status = {} if self.existing is None else _map(self.existing.status.get("modelStatus"))
        return status if status.get("transitionStatus") in FAILED_LOADS else None

    @property
    def _unmet(self) -> list[dict[str, Any]]:
        conditions = [] if self.existing is None else self.existing.conditions
        return [each for each in conditions if each.get("status") == "False"]


def runtime(
    state: Projection,
    service: KubeObject,
    existing: KubeObject | None,
    pods: tuple[KubeObject, ...],
    now: datetime.datetime,
    mode: str,
) -> Runtime:
    """The status of the runtime. `pods` are its predictors, `mode` is the setting
    AIM_KSERVE_MODE."""
    rejection: ApplyRejected | None = state.observation(service.key, REJECTED)
    if falls_back(existing, rejection, mode):
        rejection = None
    diagnosis = _diagnose(state, existing, pods, now)
    view = RuntimeView(service, existing, pods, rejection, diagnosis)
    found = with_api_error(_condition(view), rejection)
    return Runtime(found, EMPTY_PLAN if found.status == "True" else diagnosis.follow_up)


def ready_count(pods: tuple[KubeObject, ...] | list[KubeObject]) -> int:
    return sum(
        1
        for pod in pods
        if pod.is_condition_true(reasons.READY) and not pod.deleting and not is_pod_finished(pod)
    )


def _diagnose(
    state: Projection,
    existing: KubeObject | None,
    pods: tuple[KubeObject, ...],
    now: datetime.datetime,
) -> Diagnosis:
    if existing is None or is_stopped(existing):
        return Diagnosis()
    if pods or existing.is_condition_true(reasons.READY):
        return diagnose_pods(state, pods, now, CONTAINER)
    found = diagnose_without_pods(state, existing, now)
    noise = found.trouble is not None and found.trouble.reason in _NOT_PODS
    return Diagnosis(None, found.follow_up) if noise else found


def _condition(view: RuntimeView) -> ReportedCondition:
    """First match wins."""
    match view:
        case RuntimeView(replicas=0, is_empty=True):
            return runtime_ready(True, reasons.STOPPED, "stopped: replicas is 0")
        case RuntimeView(replicas=0, existing=KubeObject(deleting=True) as existing):
            return _creating(f"stopping: {removal(existing)}")
        case RuntimeView(replicas=0):
            return _creating(
                "stopping: replicas is 0; waiting for KServe to remove the predictor pods"
            )
        case RuntimeView(rejection=ApplyRejected() as rejection) if _decides(rejection):
            return _rejected_condition(rejection)
        case RuntimeView(existing=None, rejection=ApplyRejected(passes=False) as rejection):
            return _rejected_condition(rejection)
        case RuntimeView(existing=KubeObject() as existing):
            return _of_existing(view, existing)
        case _:
            return _creating(f"InferenceService {view.service.key.name} is being created")


def _decides(rejection: ApplyRejected) -> bool:
    """Whether the rejection decides the condition. A rejected disruption budget does not stop pods,
    so it only decides if another owner has its name."""
    return rejection.name_taken or (
        not rejection.transient and rejection.target.kind == INFERENCE_SERVICE.kind
    )


def _rejected_condition(rejection: ApplyRejected) -> ReportedCondition:
    message = (
        f"{rejection.target.kind} {rejection.target.name} is rejected by the API server:"
        f" {rejection.message}"
    )
    return runtime_ready(False, rejection.reason(reasons.RUNTIME_FAILED), message)


def _of_existing(view: RuntimeView, existing: KubeObject) -> ReportedCondition:
    """First match wins."""
    match view:
        case RuntimeView(unsupported_mode=str() as mode):
            return _mode_unsupported(existing, mode)
        case RuntimeView(is_ready=True):
            return runtime_ready(True, reasons.RUNTIME_READY, view.counts)
        case RuntimeView(existing=KubeObject(deleting=True)):
            return _creating(f"{removal(existing)}; it is re-created once it is deleted")
        case RuntimeView(failed_create=dict() as rejected):
            return _failed(_pods_rejected(existing, rejected))
        case RuntimeView(has_no_pods_at_deadline=True):
            return _failed(_pods_missing(view, existing))
        case RuntimeView(diagnosis=Diagnosis(trouble=Trouble(waits=False) as trouble)):
            return _failed(trouble.message)
        case RuntimeView(failed_load=dict() as status):
            return _failed(_load_failed(existing, status))
        case RuntimeView(diagnosis=Diagnosis(trouble=Trouble() as trouble)):
            return _creating(trouble.message)
        case _:
            return _creating(_starting(view, existing))


def _mode_unsupported(existing: KubeObject, mode: str) -> ReportedCondition:
    return _failed(
        f"InferenceService {existing.key.name}: status.deploymentMode is {mode}, but only Standard"
        " and RawDeployment are supported; set AIM_KSERVE_MODE of aim-deployer to RawDeployment,"
        " then delete this InferenceService"
    )


def _starting(view: RuntimeView, existing: KubeObject) -> str:
    """The message for an InferenceService that is not ready, without a known failure."""
    name = f"InferenceService {existing.key.name}"
    if is_stopped(existing):
        return (
            f"{name} is stopped: its pods mount the volume of a deleted cache, and did not run;"
            " it starts once the cache is warm"
        )
    ready = view.ready_condition
    if not ready and not view.pods:
        return (
            f"waiting for KServe to reconcile {name}; if this persists, check that its"
            " controller is running"
        )
    reason = str(ready.get("reason") or "")
    message = str(ready.get("message") or "")
    if reason == DEADLINE:
        minutes = STARTUP_PERIOD_S * STARTUP_TRIES // 60
        return f"{name} is starting: {view.counts}; loading may take {minutes} minutes"
    has_cause = ready.get("status") == "False" and message and reason not in _UNREMARKABLE
    cause = f"; {message}" if has_cause else ""
    return f"{name} is starting: {view.counts}{cause}"


def _pods_rejected(existing: KubeObject, condition: dict[str, Any]) -> str:
    """The API server rejects the pods: quota, pod security, a webhook."""
    return (
        f"pods of InferenceService {existing.key.name} are rejected:"
        f" {condition.get('message') or 'KServe gives no message'}; change what forbids them in"
        f" namespace {existing.key.namespace} (quota, pod security, webhook)"
    )


def _pods_missing(view: RuntimeView, existing: KubeObject) -> str:
    """After the deadline KServe only reports a time-out: the previous failure stays."""
    previous = view.service.condition(reasons.RUNTIME_READY) or {}
    if previous.get("reason") == reasons.RUNTIME_FAILED:
        return str(previous.get("message") or "")
    return (
        f"InferenceService {existing.key.name} has no pods: quota, pod security or a webhook may"
        f" forbid them; see kubectl describe replicaset -n {existing.key.namespace} -l"
        f" {labels.KSERVE_ISVC_LABEL}={existing.key.name}"
    )


def _load_failed(existing: KubeObject, status: dict[str, Any]) -> str:
    info = _map(status.get("lastFailureInfo"))
    exit_code = f" (exit code {info['exitCode']})" if info.get("exitCode") else ""
    return (
        f"InferenceService {existing.key.name}: {status.get('transitionStatus')}:"
        f" {info.get('message') or info.get('reason') or ''}{exit_code};"
        f" see kubectl logs -n {existing.key.namespace} -l"
        f" {labels.KSERVE_ISVC_LABEL}={existing.key.name}"
    )


def _map(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
