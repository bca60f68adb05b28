"""A pod's phase and conditions from its containers' processes."""

from datetime import UTC, datetime
from typing import Any

import pytest

from aimlab.node.podstatus import (
    Container,
    Running,
    Terminated,
    Waiting,
    containers_before,
    phase,
    pod_status,
)

Body = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def ended(code: int) -> Terminated:
    return Terminated(code, NOW, NOW)


RUNNING = Container(Running(NOW))
CRASHED = Container(Waiting("CrashLoopBackOff"), last=ended(1), restarts=1)


@pytest.mark.parametrize(
    ("policy", "containers", "expected"),
    [
        pytest.param("Never", [Container()], "Pending", id="not-started"),
        pytest.param("Never", [RUNNING, Container()], "Pending", id="one-not-started"),
        pytest.param("Never", [RUNNING], "Running", id="running"),
        pytest.param("Never", [Container(ended(0))], "Succeeded", id="ended-well"),
        pytest.param(
            "Never", [Container(ended(0)), Container(ended(3))], "Failed", id="one-failed"
        ),
        pytest.param("Never", [Container(ended(3)), RUNNING], "Running", id="one-still-runs"),
        pytest.param("OnFailure", [Container(ended(3))], "Running", id="will-be-tried-again"),
        pytest.param("OnFailure", [Container(ended(0))], "Succeeded", id="on-failure-ended-well"),
        pytest.param("Always", [Container(ended(0))], "Running", id="always-starts-again"),
        pytest.param("Always", [CRASHED], "Running", id="crash-loop"),
    ],
)
def test_phase(policy: str, containers: list[Container], expected: str) -> None:
    assert phase(policy, containers) == expected


def pod(status: Body | None = None) -> Body:
    spec = {"containers": [{"name": "main", "image": "x"}], "restartPolicy": "Never"}
    return {"metadata": {"name": "pod"}, "spec": spec, "status": status or {}}


@pytest.mark.parametrize(
    ("container", "ready", "reason"),
    [
        pytest.param(Container(Running(NOW), started=True, ready=True), "True", None, id="ready"),
        pytest.param(
            Container(Running(NOW), started=True), "False", "ContainersNotReady", id="probe-fails"
        ),
        pytest.param(Container(ended(0)), "False", "PodCompleted", id="completed"),
    ],
)
def test_ready_has_the_reason_why_not(container: Container, ready: str, reason: str | None) -> None:
    status = pod_status(pod(), {"main": container}, "127.20.0.1", NOW)
    condition = next(one for one in status["conditions"] if one["type"] == "Ready")
    assert (condition["status"], condition.get("reason")) == (ready, reason)


def test_a_termination_message_and_exit_code_are_reported() -> None:
    failed = Container(Terminated(11, NOW, NOW, message="no access"))
    [reported] = pod_status(pod(), {"main": failed}, "127.20.0.1", NOW)["containerStatuses"]
    assert (
        reported["state"]["terminated"]
        | {
            "exitCode": 11,
            "reason": "Error",
            "message": "no access",
        }
        == reported["state"]["terminated"]
    )


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    running = {"main": RUNNING}
    before = pod_status(pod(), running, "127.20.0.1", NOW)
    later = pod_status(pod(before), running, "127.20.0.1", NOW.replace(hour=5))
    assert later == before


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        pytest.param({}, Waiting(), id="nothing"),
        pytest.param({"waiting": {"reason": "ErrImagePull"}}, Waiting(), id="waited"),
        pytest.param(
            {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            Terminated(
                137,
                NOW,
                NOW,
                "The container could not be located when the pod was terminated",
                "ContainerStatusUnknown",
            ),
            id="ran",
        ),
        pytest.param(
            {
                "terminated": {
                    "exitCode": 3,
                    "startedAt": "2026-01-01T00:00:00Z",
                    "finishedAt": "2026-01-01T00:00:00Z",
                    "reason": "Error",
                }
            },
            Terminated(3, NOW, NOW, "", "Error"),
            id="had-ended",
        ),
    ],
)
def test_a_new_kubelet_knows_that_what_ran_has_died(
    state: Body, expected: Waiting | Terminated
) -> None:
    left = pod({"containerStatuses": [{"name": "main", "state": state, "restartCount": 2}]})
    assert containers_before(left, NOW)["main"].state == expected
