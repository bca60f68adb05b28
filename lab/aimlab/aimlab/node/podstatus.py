"""A Pod's status from the states of its containers' processes (Kubernetes, "Pod Lifecycle").
Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from aimlab.kinds import Body, condition, stamp, time_of

LONGEST_MESSAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Waiting:
    reason: str = "ContainerCreating"
    message: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Terminated:
    """`exit_code` is 128 + the signal for a process that a signal ended, as container runtimes
    have it."""

    exit_code: int
    started_at: datetime
    finished_at: datetime
    message: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Container:
    state: Waiting | Running | Terminated = Waiting()
    last: Terminated | None = None
    restarts: int = 0
    started: bool = False
    ready: bool = False


Containers = Mapping[str, Container]


def restarts_after(policy: str, exit_code: int) -> bool:
    """Whether a container that ended so is started again (`restartPolicy`)."""
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def phase(policy: str, containers: Iterable[Container]) -> str:
    """Pending until every container has run, final once none will run again."""
    ends: list[int] = []
    live = False
    for container in containers:
        match container.state:
            case Waiting() if container.last is None:
                return "Pending"
            case Terminated(exit_code=code) if not restarts_after(policy, code):
                ends.append(code)
            case _:
                live = True
    if live:
        return "Running"
    return "Failed" if any(ends) else "Succeeded"


def pod_status(pod: Body, containers: Containers, pod_ip: str, now: datetime) -> Body:
    """The whole status that the kubelet reports; the scheduler's condition stays."""
    specs: list[Body] = pod["spec"]["containers"]
    in_phase = phase(pod["spec"].get("restartPolicy", "Always"), containers.values())
    unready = [spec["name"] for spec in specs if not containers[spec["name"]].ready]
    if in_phase == "Succeeded":
        not_ready = {"reason": "PodCompleted"}
    else:
        not_ready = {
            "reason": "ContainersNotReady",
            "message": f"containers with unready status: [{' '.join(unready)}]",
        }
    ready = ("False", not_ready) if unready else ("True", {})
    conditions = [
        condition(pod, kind, "True", now)
        for kind in ("PodReadyToStartContainers", "Initialized", "PodScheduled")
    ]
    conditions += [
        condition(pod, kind, ready[0], now, **ready[1]) for kind in ("ContainersReady", "Ready")
    ]
    return {
        "phase": in_phase,
        "conditions": conditions,
        "hostIP": "127.0.0.1",
        "podIP": pod_ip,
        "podIPs": [{"ip": pod_ip}],
        "qosClass": pod.get("status", {}).get("qosClass", "Burstable"),
        "startTime": pod.get("status", {}).get("startTime") or stamp(now),
        "containerStatuses": [container_status(spec, containers[spec["name"]]) for spec in specs],
    }


def container_status(spec: Body, container: Container) -> Body:
    return {
        "name": spec["name"],
        "image": spec["image"],
        "imageID": (
            "" if isinstance(container.state, Waiting) and container.last is None else spec["image"]
        ),
        "restartCount": container.restarts,
        "ready": container.ready,
        "started": container.started,
        "state": state_body(container.state),
        "lastState": {} if container.last is None else state_body(container.last),
    }


def state_body(state: Waiting | Running | Terminated) -> Body:
    match state:
        case Waiting(reason=reason, message=message):
            return {"waiting": {"reason": reason} | ({"message": message} if message else {})}
        case Running(started_at=started):
            return {"running": {"startedAt": stamp(started)}}
        case Terminated():
            body = {
                "exitCode": state.exit_code,
                "reason": state.reason or ("Error" if state.exit_code else "Completed"),
            }
            body |= {"startedAt": stamp(state.started_at), "finishedAt": stamp(state.finished_at)}
            return {"terminated": body | ({"message": state.message} if state.message else {})}


def containers_before(pod: Body, now: datetime) -> dict[str, Container]:
    """What a new kubelet makes of the status that an earlier one left: what ran then has died
    with it."""
    statuses = {
        status["name"]: status for status in pod.get("status", {}).get("containerStatuses", [])
    }
    return {
        spec["name"]: _container_before(statuses.get(spec["name"], {}), now)
        for spec in pod["spec"]["containers"]
    }


def _container_before(status: Body, now: datetime) -> Container:
    restarts, state = status.get("restartCount", 0), status.get("state", {})
    if "terminated" in state:
        ended = state["terminated"]
        started, finished = (time_of(ended.get(key)) or now for key in ("startedAt", "finishedAt"))
        return Container(
            Terminated(
                ended["exitCode"],
                started,
                finished,
                ended.get("message", ""),
                ended.get("reason", ""),
            ),
            restarts=restarts,
        )
    if "running" in state:
        started = time_of(state["running"].get("startedAt")) or now
        lost = "The container could not be located when the pod was terminated"
        return Container(
            Terminated(137, started, now, lost, "ContainerStatusUnknown"), restarts=restarts
        )
    return Container(restarts=restarts)
