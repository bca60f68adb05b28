"""Reading Jobs and Pods: pure functions over objects as the API serves them (batch/v1 JobStatus, core/v1 PodStatus)."""

import datetime
from dataclasses import dataclass
from typing import Literal

from aimschema.messages import parse_timestamp
from aimschema.resources import POD
from aimservice.projection import Projection, Seen

JobState = Literal["active", "succeeded", "failed"]
_WAYS_OUT = {
    "ErrImagePull": "check the image's name and images.imagePullSecrets of the AIMNamespaceConfig",
    "ImagePullBackOff": "check the image's name and images.imagePullSecrets of the AIMNamespaceConfig",
    "InvalidImageName": "correct the image's name in the AIMClusterModel",
    "CreateContainerConfigError": "create the Secret or key that it names, or take the reference out",
}
"""By the kubelet's reason for a container that waits; CrashLoopBackOff is told with the command for the log."""
JOB_WITHOUT_POD_S = 30.0
"""After this long without a pod a Job is said to be held up: its controller makes one at once where nothing forbids it."""
_STARTING = frozenset({"", "ContainerCreating", "PodInitializing"})


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container ended: exit code and termination message (may be empty)."""

    exit_code: int
    message: str


def job_state(job: Seen) -> JobState:
    for condition in job.status.get("conditions") or ():
        if condition.get("status") == "True" and condition.get("type") in {"Complete", "Failed"}:
            return "succeeded" if condition["type"] == "Complete" else "failed"
    return "active"


def job_finished_at(job: Seen) -> datetime.datetime | None:
    """When the Job came to its end, aware UTC."""
    for condition in job.status.get("conditions") or ():
        if condition.get("type") in {"Complete", "Failed"} and condition.get("lastTransitionTime"):
            return parse_timestamp(condition["lastTransitionTime"])
    return None


def job_failure(job: Seen) -> str:
    """Why the Job failed, as its controller says."""
    for condition in job.status.get("conditions") or ():
        if condition.get("type") == "Failed":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}"
    return ""


def pods_of(seen: Projection, job: Seen) -> list[Seen]:
    """Pods of a Job by ownerReference uid, oldest first."""
    return seen.owned(job.uid, POD.kind)


def ended(pod: Seen, container: str) -> Ended | None:
    """How a container of the pod ended; None while it has not."""
    for status in pod.status.get("containerStatuses") or ():
        terminated = (status.get("state") or {}).get("terminated")
        if status.get("name") == container and terminated is not None:
            return Ended(int(terminated.get("exitCode", -1)), str(terminated.get("message") or ""))
    return None


def problem(pod: Seen) -> str | None:
    """Why a pod does not start, in the words of scheduler or kubelet; None where nothing is wrong."""
    for condition in pod.status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            why = condition.get("message", condition.get("reason", ""))
            return f"pod {pod.key.name} cannot be scheduled: {why}; free such a node, or add one"
    for status in pod.status.get("containerStatuses") or ():
        waiting = (status.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason not in _STARTING:
            log = f"see why: kubectl logs -n {pod.key.namespace} {pod.key.name} --previous" if reason == "CrashLoopBackOff" else ""
            way_out = f"; {way}" if (way := log or _WAYS_OUT.get(reason, "")) else ""
            return f"pod {pod.key.name}: {reason}: {waiting.get('message', '')}{way_out}"
    return None


def held_up(seen: Projection, job: Seen, now: datetime.datetime) -> str | None:
    """What stands in the way of a Job that is at work; None where nothing does. That quota or admission refuses its pod only its Events say."""
    pods = pods_of(seen, job)
    if not pods and job.created and (now - parse_timestamp(job.created)).total_seconds() >= JOB_WITHOUT_POD_S:
        look = f"kubectl describe job -n {job.key.namespace} {job.key.name}"
        return f"Job {job.key.name} has no pod yet: look at its Events ({look}) for a quota, pod security rule or webhook"
    return next((text for pod in pods if (text := problem(pod)) is not None), None)


def running(pod: Seen) -> bool:
    return bool(pod.status.get("phase") == "Running")


def unstarted(pod: Seen) -> bool:
    """Nothing of it has run yet."""
    return pod.status.get("phase") in {None, "", "Pending"}
