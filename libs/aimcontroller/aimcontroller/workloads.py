"""Diagnoses Jobs and Pods that do not do their work, for predictors, discovery and downloads alike.
Pure.

The rules follow batch/v1 JobStatus and core/v1 PodStatus:

1. The parts of a pod are read in this order, first match wins: the pod's own `status.reason`;
   scheduling; init containers; a waiting container; the last end of a container; a lost Ready
   condition; a start that takes too long.
2. A pod that has ended does not count while a younger one exists. A pod that is being deleted never
   counts.
3. Waiting for a queue or a scheduling gate is no failure.
4. Only Events explain a slow start, or a pod that is not created: the diagnosis requests them
   (`ReadEvents`).
5. The outcome of a Job is that of our own container: a sidecar may run on for ever, and with it the
   pod and the Job.
6. The message stays the same while the cause is the same: it has no elapsed times and no growing
   counts.
"""

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aimcontroller.action import ReadEvents
from aimcontroller.plan import EMPTY_PLAN, Plan, actions, requeue_after
from aimcontroller.projection import LATEST_WARNING, KubeObject, LatestWarning, Projection
from aimschema.labels import ANNOTATION_ATTEMPT, KUEUE_QUEUE
from aimschema.messages import parse_timestamp
from aimschema.resources import POD

JobState = Literal["active", "succeeded", "failed"]
Body = dict[str, Any]
JOB_WITHOUT_POD_S = 30.0
"""A Job's controller creates the pod at once unless quota, admission or a webhook forbids it."""
POD_NOT_STARTED_S = 60.0
"""A pod whose containers are still being created after this long is stuck: its Events say on
what."""
EVENTS_AGE_S = 60.0
"""Events are read again after this long, while the trouble lasts."""
DEADLINE_MARGIN_S = 30.0
RESTARTS = "CrashLoopBackOff"
OOM_KILLED = "OOMKilled"
SUSPENDED = "Suspended"
GATED = "SchedulingGated"
HELD_BACK = frozenset({SUSPENDED, GATED})
"""Reasons of troubles that are the doing of a queue or a person."""
_BACKOFF_LIMIT = "BackoffLimitExceeded"
"""Of a Job with one attempt: its pod failed. The pod has the cause."""
UNSCHEDULABLE = "Unschedulable"
FAILED_CREATE = "FailedCreate"
"""The API server rejects the pods of a workload."""
NOT_RESPONDING = "NodeNotResponding"
_STARTING = frozenset({"", "ContainerCreating", "PodInitializing"})
_OVER = frozenset({"Succeeded", "Failed"})
_IMAGE = "check the image's name and images.imagePullSecrets of the AIMNamespaceConfig"
_REMEDIES = {
    "ErrImagePull": _IMAGE,
    "ImagePullBackOff": _IMAGE,
    "ErrImageNeverPull": _IMAGE,
    "ImageInspectError": _IMAGE,
    "RegistryUnavailable": _IMAGE,
    "SignatureValidationFailed": "sign the image, or change the node's image policy",
    "InvalidImageName": "correct the image's name in the AIMClusterModel",
    "CreateContainerConfigError": (
        "create the Secret or key that it names, or remove the reference"
    ),
}
"""By the kubelet's reason for a container that waits."""
_PROGRAM_ENDS = frozenset({"", "Error", "Completed", OOM_KILLED})
"""Reasons of an end whose termination message is the program's own, not the runtime's."""


@dataclass(frozen=True, slots=True)
class Termination:
    """How a container ended. `message`: its termination message; `memory_limit`: a quantity,
    empty without one."""

    exit_code: int
    message: str
    reason: str = ""
    memory_limit: str = ""
    finished_at: str = ""

    def __str__(self) -> str:
        if self.reason == OOM_KILLED:
            most = (
                f"its limit, {self.memory_limit}"
                if self.memory_limit
                else "its node could give; it has no memory limit"
            )
            return f"exit code {self.exit_code} (OOMKilled): it needs more memory than {most}"
        why = "" if self.reason in {"", "Error", "Completed"} else f" ({self.reason})"
        runtime = (
            "" if self.reason in _PROGRAM_ENDS or not self.message else f": {_short(self.message)}"
        )
        return f"exit code {self.exit_code}{why}{runtime}"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the pod, Job or other workload `subject` does not do its work, and what to do (`text`).
    `reason`: the kubelet's or scheduler's, CamelCase, may be empty.

    `waits`: a queue or gate holds it back on purpose, so it is no failure.
    """

    subject: str
    text: str
    reason: str = ""
    waits: bool = False

    @property
    def message(self) -> str:
        return f"{self.subject} {self.text}"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The trouble, if any. `follow_up`: Events to read for it, and when to reconcile without an
    event."""

    trouble: Trouble | None = None
    follow_up: Plan = EMPTY_PLAN

    @property
    def message(self) -> str | None:
        return None if self.trouble is None else self.trouble.message


def diagnose_job(
    state: Projection, job: KubeObject, now: datetime.datetime, container: str
) -> Diagnosis:
    """What keeps the pods of an unfinished Job from doing their work."""
    if is_suspended(job):
        return Diagnosis(
            Trouble(f"Job {job.key.name}", f"is suspended{_queue(job)}", SUSPENDED, waits=True)
        )
    pods = pods_of(state, job)
    if pods:
        return diagnose_pods(state, pods, now, container)
    found = diagnose_without_pods(state, job, now, JOB_WITHOUT_POD_S)
    if found.trouble is not None or _age_s(job, now) < JOB_WITHOUT_POD_S:
        return found
    describe = f"kubectl describe job -n {job.key.namespace} {job.key.name}"
    text = f"has no pod; quota, pod security or a webhook may forbid it; see {describe}"
    return Diagnosis(Trouble(f"Job {job.key.name}", text, FAILED_CREATE), found.follow_up)


def diagnose_without_pods(
    state: Projection,
    workload: KubeObject,
    now: datetime.datetime,
    after_s: float = POD_NOT_STARTED_S,
) -> Diagnosis:
    """The newest Warning Event on a workload (a Job, an InferenceService) without pods, from
    `after_s` after its creation on."""
    left_s = after_s - _age_s(workload, now)
    if left_s > 0:
        return Diagnosis(follow_up=requeue_after(left_s))
    follow_up = _read_events(state, workload, now)
    latest = _latest(state, workload)
    if latest is None:
        return Diagnosis(follow_up=follow_up)
    kind = workload.key.kind
    name = workload.key.name
    describe = f"kubectl describe {kind.lower()} -n {workload.key.namespace} {name}"
    text = f"has no pod: {latest.reason}: {_short(latest.note)}; see {describe}"
    return Diagnosis(Trouble(f"{kind} {name}", text, latest.reason), follow_up)


def diagnose_pods(
    state: Projection, pods: Iterable[KubeObject], now: datetime.datetime, container: str
) -> Diagnosis:
    """What keeps these pods, of one Job or predictor, from doing their work: a failure before
    what only waits, the youngest first."""
    unready = [
        pod
        for pod in _relevant_pods(pods)
        if is_pod_finished(pod) or not pod.is_condition_true("Ready")
    ]
    found = [diagnose_pod(state, pod, now, container) for pod in unready]
    follow_up = EMPTY_PLAN
    for diagnosis in found:
        follow_up = follow_up | diagnosis.follow_up
    troubles = [diagnosis.trouble for diagnosis in found if diagnosis.trouble is not None]
    return Diagnosis(
        next((t for t in troubles if not t.waits), next(iter(troubles), None)), follow_up
    )


def diagnose_pod(
    state: Projection, pod: KubeObject, now: datetime.datetime, container: str
) -> Diagnosis:
    """The trouble of one pod. `container` is ours: while it runs, or after a successful end, other
    containers do not matter."""
    trouble = pod_start_failure(pod, container)
    if trouble is not None or not has_no_start(pod):
        return Diagnosis(trouble)
    left_s = POD_NOT_STARTED_S - _age_s(pod, now)
    if left_s > 0:
        return Diagnosis(follow_up=requeue_after(left_s))
    latest = _latest(state, pod)
    subject = f"pod {pod.key.name}"
    describe = f"kubectl describe pod -n {pod.key.namespace} {pod.key.name}"
    follow_up = _read_events(state, pod, now)
    if latest is None and not pod.spec.get("nodeName") and pod.condition("PodScheduled") is None:
        scheduler = pod.spec.get("schedulerName") or "default-scheduler"
        text = (
            f"waits for scheduler {scheduler}, which has not considered it yet; check that"
            " it is running"
        )
        return Diagnosis(Trouble(subject, text, "NotScheduled", waits=True), follow_up)
    if latest is None:
        text = f"has not started yet: pulling a large image takes time; see {describe}"
        return Diagnosis(Trouble(subject, text, "NotStarted", waits=True), follow_up)
    text = f"has not started: {latest.reason}: {_short(latest.note)}; see {describe}"
    return Diagnosis(Trouble(subject, text, latest.reason), follow_up)


def pod_start_failure(pod: KubeObject, container: str = "") -> Trouble | None:
    """The failure that the pod's own status shows; None if it shows none."""
    for rule in (_pod_reason, _scheduling, _init_containers, _containers, _lost_readiness):
        found = rule(pod, container)
        if found is not None:
            return found
    return None


def job_state(job: KubeObject) -> JobState:
    """The Job's own outcome; see `outcome` for what counts."""
    for condition in job.conditions:
        if condition.get("status") == "True" and condition.get("type") in {"Complete", "Failed"}:
            return "succeeded" if condition["type"] == "Complete" else "failed"
    return "active"


def outcome(state: Projection, job: KubeObject, container: str) -> JobState:
    """How our container of the Job ended; the condition of the Job counts only without such a pod.

    A successful end counts, whatever happens to Job and pod afterwards. The end of a pod that is
    being deleted is no failure of the Job.
    """
    found = last_end(state, job, container)
    if found is not None and found[1].exit_code == 0:
        return "succeeded"
    own = job_state(job)
    pods = [pod for pod in pods_of(state, job) if not pod.deleting]
    if own == "active" and pods and container_termination(pods[-1], container) is not None:
        return "failed"
    return own


def last_end(
    state: Projection, job: KubeObject, container: str
) -> tuple[KubeObject, Termination] | None:
    """The end of our container that counts, with its pod. A successful end comes before others, a
    younger pod before an older one, a pod being deleted last."""
    ends = [
        (pod, end)
        for pod in pods_of(state, job)
        if (end := container_termination(pod, container)) is not None
    ]
    return max(
        reversed(ends),
        key=lambda pair: (pair[1].exit_code == 0, not pair[0].deleting),
        default=None,
    )


def ended_at(state: Projection, job: KubeObject, container: str) -> datetime.datetime | None:
    """When our container ended, aware UTC; without such a pod the end of the Job."""
    found = last_end(state, job, container)
    return (None if found is None else _time(found[1].finished_at)) or job_finished_at(job)


def failure(
    state: Projection, job: KubeObject, container: str, program: str, own_message: str = ""
) -> str:
    """The cause of a failed Job: the reason of its pod, then the end of our container; without
    one the condition of the Job and the init containers.

    `program`: the name of what ended, for the message. `own_message`: the termination message of
    the program. It is better than an exit code, unless another process ended the program.
    """
    pods = pods_of(state, job)
    found = last_end(state, job, container)
    reasons = [
        trouble.message for pod in pods if (trouble := _pod_reason(pod, container)) is not None
    ][-1:]
    if found is not None:
        by_itself = found[1].reason in _PROGRAM_ENDS - {OOM_KILLED}
        ending = own_message if own_message and by_itself else f"{program} ended with {found[1]}"
        own = "" if _failed_condition(job).get("reason") == _BACKOFF_LIMIT else job_failure(job)
        return "; ".join(filter(None, [*reasons, own, ending]))
    own = job_failure(job) or f"Job {job.key.name} failed"
    reasons += [
        trouble.message for pod in pods if (trouble := _init_containers(pod, container)) is not None
    ][-1:]
    pod_missing = (
        "" if pods else "; its pod no longer exists: evicted, deleted, or lost with its node"
    )
    return "; ".join([*reasons, own]) + pod_missing


def was_oom_killed(state: Projection, job: KubeObject, container: str) -> bool:
    found = last_end(state, job, container)
    return found is not None and found[1].reason == OOM_KILLED


def is_suspended(job: KubeObject) -> bool:
    """A queue or a user holds it back."""
    return job.spec.get("suspend") is True or job.is_condition_true("Suspended")


def gated_left_s(state: Projection, job: KubeObject, now: datetime.datetime) -> float | None:
    """Seconds until the deadline ends a Job whose pods a gate holds back, less
    `DEADLINE_MARGIN_S`; None if no pod is held back.

    The deadline counts from the Job's start, also while a gate holds its pods; that of a suspended
    Job does not.
    """
    pods = [pod for pod in pods_of(state, job) if not pod.deleting]
    deadline_s = job.spec.get("activeDeadlineSeconds")
    started = started_at(job)
    gated = [
        pod
        for pod in pods
        if (trouble := _scheduling(pod, "")) is not None and trouble.reason == GATED
    ]
    if not gated or started is None or not isinstance(deadline_s, int):
        return None
    return deadline_s - DEADLINE_MARGIN_S - (now - started).total_seconds()


def started_at(job: KubeObject) -> datetime.datetime | None:
    """When its controller started the Job, or started it again after a pause; aware UTC."""
    return _time(job.status.get("startTime"))


def has_not_started(state: Projection, job: KubeObject, now: datetime.datetime) -> bool:
    """Nothing of the Job runs or has run. The event on a pod may be late, so a young Job without
    one may have started."""
    pods = pods_of(state, job)
    if not pods:
        return is_suspended(job) or _age_s(job, now) >= JOB_WITHOUT_POD_S
    return all(is_pending(pod) for pod in pods)


def job_finished_at(job: KubeObject) -> datetime.datetime | None:
    """When the Job came to its end, aware UTC."""
    for condition in job.conditions:
        if condition.get("type") in {"Complete", "Failed"} and condition.get("lastTransitionTime"):
            return _time(condition["lastTransitionTime"])
    return None


def job_failure(job: KubeObject) -> str:
    """Why the Job failed, from its controller."""
    failed = _failed_condition(job)
    return ": ".join(filter(None, (failed.get("reason"), failed.get("message"))))


def _failed_condition(job: KubeObject) -> Body:
    """The condition Failed of the Job; empty without one."""
    return job.condition("Failed") or {}


def pods_of(state: Projection, job: KubeObject) -> list[KubeObject]:
    """Pods of a Job by ownerReference uid, oldest first."""
    return state.owned(job.uid, POD.kind, job.key.namespace)


def container_termination(pod: KubeObject, container: str) -> Termination | None:
    """How a container of the pod ended; None while it has not."""
    for status in _statuses(pod, "containerStatuses"):
        terminated = _state(status, "state", "terminated")
        if status.get("name") == container and terminated is not None:
            return _end(pod, container, terminated)
    return None


def is_over(state: Projection, job: KubeObject, container: str) -> bool:
    """Whether a pod of the Job has ended: by our container, or as a whole."""
    ended_pods = (
        is_pod_finished(pod) and _pod_reason(pod, container) is not None
        for pod in pods_of(state, job)
    )
    return last_end(state, job, container) is not None or any(ended_pods)


def has_succeeded(pod: KubeObject, container: str) -> bool:
    """Whether the log of our container is whole and can be read: it ended well, and the pod is
    not being deleted."""
    end = container_termination(pod, container)
    return not pod.deleting and (
        pod.status.get("phase") == "Succeeded" if end is None else end.exit_code == 0
    )


def attempt_of(job: KubeObject) -> int:
    """The number of the attempt that the Job is, from 1."""
    text = job.annotations.get(ANNOTATION_ATTEMPT, "")
    return int(text) if text.isascii() and text.isdigit() else 1


def is_running(pod: KubeObject) -> bool:
    return bool(pod.status.get("phase") == "Running")


def is_pending(pod: KubeObject) -> bool:
    """Nothing of it has run yet."""
    return pod.status.get("phase") in {None, "", "Pending"}


def is_pod_finished(pod: KubeObject) -> bool:
    """It has ended, successfully or not."""
    return pod.status.get("phase") in _OVER


def _relevant_pods(pods: Iterable[KubeObject]) -> list[KubeObject]:
    """Youngest first. A pod that has ended counts only if no younger one exists."""
    youngest_first = sorted(
        pods, key=lambda pod: (pod.creation_timestamp, pod.key.name), reverse=True
    )
    existing = [pod for pod in youngest_first if not pod.deleting]
    return [pod for place, pod in enumerate(existing) if place == 0 or not is_pod_finished(pod)]


def _pod_reason(pod: KubeObject, _container: str) -> Trouble | None:
    """The pod as a whole: evicted, preempted, rejected by the kubelet, on a lost node."""
    disruption = pod.condition("DisruptionTarget") or {}
    disrupted = disruption.get("status") == "True" and (
        pod.status.get("phase") == "Failed" or pod.deleting
    )
    source = disruption if disrupted and not pod.status.get("reason") else pod.status
    reason = str(source.get("reason") or "")
    message = str(source.get("message") or "")
    if not reason or pod.status.get("phase") == "Succeeded":
        return None
    text = f"{reason}{': ' if message else ''}{_short(message)}"
    return Trouble(f"pod {pod.key.name}:", text, reason)


def _scheduling(pod: KubeObject, _container: str) -> Trouble | None:
    scheduled = pod.condition("PodScheduled") or {}
    if scheduled.get("status") != "False":
        return None
    reason = str(scheduled.get("reason") or "")
    message = str(scheduled.get("message") or "")
    if reason == GATED or pod.spec.get("schedulingGates"):
        named = ", ".join(str(gate.get("name")) for gate in _dicts(pod.spec.get("schedulingGates")))
        held = f"waits for scheduling gate {named}" if named else "is held by a scheduling gate"
        return Trouble(f"pod {pod.key.name}", f"{held}{_queue(pod)}", GATED, waits=True)
    text = f"cannot be scheduled: {_short(message or reason)}; free capacity or add a matching node"
    return Trouble(f"pod {pod.key.name}", text, UNSCHEDULABLE)


def _init_containers(pod: KubeObject, container: str) -> Trouble | None:
    """They run before our container, one after the other; one that ended successfully is done.
    Native sidecars run on beside our container."""
    if _runs_once(pod) and _has_begun(pod, container):
        return None
    statuses = [
        s
        for s in _statuses(pod, "initContainerStatuses")
        if not s.get("ready") and not _has_succeeded(s)
    ]
    return _waiting(pod, statuses) or _last_end(pod, statuses)


def _containers(pod: KubeObject, container: str) -> Trouble | None:
    """Our container comes before the others. In a pod that runs once, the others only count until
    our container starts."""
    statuses = [s for s in _statuses(pod, "containerStatuses") if not s.get("ready")]
    if _runs_once(pod) and _has_begun(pod, container):
        statuses = [s for s in statuses if s.get("name") == container and not _has_succeeded(s)]
    ordered = sorted(statuses, key=lambda s: s.get("name") != container)
    return _waiting(pod, ordered) or _last_end(pod, ordered)


def _waiting(pod: KubeObject, statuses: Sequence[Body]) -> Trouble | None:
    for status in statuses:
        waiting = _state(status, "state", "waiting") or {}
        reason = str(waiting.get("reason") or "")
        if reason in _STARTING or reason == RESTARTS:
            continue
        remedy = f"; {_REMEDIES[reason]}" if reason in _REMEDIES else ""
        message = _short(str(waiting.get("message") or ""))
        text = f"{reason}{': ' if message else ''}{message}{remedy}"
        return Trouble(f"pod {pod.key.name}:", text, reason)
    return None


def _last_end(pod: KubeObject, statuses: Sequence[Body]) -> Trouble | None:
    """One message for a container that crashes, whether it has just ended, waits to be started
    again, or runs again."""
    for status in statuses:
        now = _state(status, "state", "terminated")
        last = now if now is not None else _state(status, "lastState", "terminated")
        waits = (_state(status, "state", "waiting") or {}).get("reason") == RESTARTS
        if last is None or (now is not None and now.get("exitCode") == 0 and is_pod_finished(pod)):
            if waits or (last is None and status.get("restartCount")):
                text = f"container {status.get('name')} keeps ending{_log(pod, status)}"
                return Trouble(f"pod {pod.key.name}:", text, RESTARTS)
            continue
        name = str(status.get("name"))
        text = f"container {name} ended with {_end(pod, name, last)}{_log(pod, status)}"
        return Trouble(f"pod {pod.key.name}:", text, str(last.get("reason") or "Error"))
    return None


def _lost_readiness(pod: KubeObject, _container: str) -> Trouble | None:
    """It was Ready and is no longer, though its containers run."""
    ready = pod.condition("Ready") or {}
    statuses = _statuses(pod, "containerStatuses")
    if ready.get("status") == "True" or not statuses or pod.status.get("phase") != "Running":
        return None
    if any(_state(status, "state", "running") is None for status in statuses):
        return None
    if all(status.get("ready") for status in statuses):
        return _node_silent(pod, ready)
    return None if _runs_once(pod) else _probe_failed(pod, ready, statuses)


def _node_silent(pod: KubeObject, ready: Body) -> Trouble | None:
    """The node does not answer. A reason of Ready comes from the kubelet: a readiness gate, or a
    native sidecar."""
    if ready.get("reason") or not ready:
        return None
    node = pod.spec.get("nodeName", "")
    text = (
        f"is not Ready though its containers are: node {node} may not respond; see kubectl"
        f" describe node {node}"
    )
    return Trouble(f"pod {pod.key.name}", text, NOT_RESPONDING)


def _probe_failed(pod: KubeObject, ready: Body, statuses: Sequence[Body]) -> Trouble | None:
    """A readiness probe fails that succeeded after the last start of a container."""
    lost_at = str(ready.get("lastTransitionTime") or "")
    running = [_state(status, "state", "running") or {} for status in statuses]
    started_at = max(str(each.get("startedAt") or "") for each in running)
    if not started_at or not lost_at or lost_at <= started_at:
        return None
    if not all(status.get("started", True) for status in statuses):
        return None
    failing = ", ".join(str(status.get("name")) for status in statuses if not status.get("ready"))
    text = (
        f"was Ready and no longer answers its readiness probe (container {failing}); see kubectl"
        f" logs -n {pod.key.namespace} {pod.key.name}"
    )
    return Trouble(f"pod {pod.key.name}", text, "ReadinessLost")


def _runs_once(pod: KubeObject) -> bool:
    """A Job's pod: what has ended is not started again."""
    return bool(pod.spec.get("restartPolicy") == "Never")


def _has_begun(pod: KubeObject, container: str) -> bool:
    """Whether our container runs or has ended."""
    own = [
        status for status in _statuses(pod, "containerStatuses") if status.get("name") == container
    ]
    return any(
        _state(status, "state", kind) is not None
        for status in own
        for kind in ("running", "terminated")
    )


def _has_succeeded(status: Body) -> bool:
    end = _state(status, "state", "terminated")
    return end is not None and end.get("exitCode") == 0


def has_no_start(pod: KubeObject) -> bool:
    """No container of it has started, init containers included."""
    return is_pending(pod) and not any(
        _state(status, "state", kind) is not None
        for part in ("initContainerStatuses", "containerStatuses")
        for status in _statuses(pod, part)
        for kind in ("running", "terminated")
    )


def _read_events(state: Projection, about: KubeObject, now: datetime.datetime) -> Plan:
    known: LatestWarning | None = state.observation(about.key, LATEST_WARNING)
    left_s = 0.0 if known is None else EVENTS_AGE_S - (now - known.read_at).total_seconds()
    if left_s > 0:
        return requeue_after(left_s)
    return actions(ReadEvents(about.key, about.uid)) | requeue_after(EVENTS_AGE_S)


def _latest(state: Projection, about: KubeObject) -> LatestWarning | None:
    known: LatestWarning | None = state.observation(about.key, LATEST_WARNING)
    return known if known is not None and known.reason else None


def _queue(about: KubeObject) -> str:
    queue = about.labels.get(KUEUE_QUEUE)
    return f": queue {queue} has not admitted it yet" if queue else ""


def _log(pod: KubeObject, status: Body) -> str:
    previous = "" if _runs_once(pod) else " --previous"
    return (
        f"; see kubectl logs -n {pod.key.namespace} {pod.key.name} -c"
        f" {status.get('name')}{previous}"
    )


def _end(pod: KubeObject, container: str, terminated: Body) -> Termination:
    code = terminated.get("exitCode")
    return Termination(
        exit_code=code if isinstance(code, int) else -1,
        message=str(terminated.get("message") or ""),
        reason=str(terminated.get("reason") or ""),
        memory_limit=_memory_limit(pod, container),
        finished_at=str(terminated.get("finishedAt") or ""),
    )


def _memory_limit(pod: KubeObject, container: str) -> str:
    for part in ("containers", "initContainers"):
        for each in _dicts(pod.spec.get(part)):
            if each.get("name") == container and (limit := _limit_of(each)):
                return limit
    return _limit_of(pod.spec)


def _limit_of(holder: Body) -> str:
    """The memory limit of a container, or of a pod as a whole (its containers share it)."""
    resources = holder.get("resources")
    limits = resources.get("limits") if isinstance(resources, dict) else None
    return str(limits.get("memory") or "") if isinstance(limits, dict) else ""


def _statuses(pod: KubeObject, part: str) -> list[Body]:
    return _dicts(pod.status.get(part))


def _dicts(value: object) -> list[Body]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _state(status: Body, which: str, kind: str) -> Body | None:
    """`state` or `lastState` of a container where it is of this kind: running, waiting or
    terminated."""
    holder = status.get(which)
    found = holder.get(kind) if isinstance(holder, dict) else None
    return found if isinstance(found, dict) else None


def _age_s(about: KubeObject, now: datetime.datetime) -> float:
    return (
        (now - parse_timestamp(about.creation_timestamp)).total_seconds()
        if about.creation_timestamp
        else 0.0
    )


def _time(text: object) -> datetime.datetime | None:
    """A time as the API serves it, None where it is none."""
    try:
        found = parse_timestamp(str(text))
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _short(text: str) -> str:
    """Foreign text, so that what follows it still fits into a condition."""
    return text if len(text) <= 500 else f"{text[:499]}…"
