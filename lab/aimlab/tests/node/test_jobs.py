"""A Job's next step from its pods."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aimlab.controller_loop import Create, Delete, Patch, ReconcileResult
from aimlab.node.jobs import plan_job, pod_for

Body = dict[str, Any]
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
STARTED = "2026-01-01T11:59:00Z"


def job(*, conditions: tuple[str, ...] = (), started: str | None = STARTED, **spec: Any) -> Body:
    status: Body = {
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T11:59:30Z"}
            for kind in conditions
        ]
    }
    status |= {"startTime": started} if started else {}
    metadata = {"name": "fill", "namespace": "demo", "uid": "u1"}
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": []}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {"template": template} | spec,
        "status": status,
    }


def pod(phase: str, *, ended_s_ago: float = 100) -> Body:
    finished = (NOW - timedelta(seconds=ended_s_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")
    ended = (
        [{"name": "main", "state": {"terminated": {"exitCode": 1, "finishedAt": finished}}}]
        if phase in {"Failed", "Succeeded"}
        else []
    )
    metadata = {"name": f"fill-{phase}", "namespace": "demo", "uid": f"p-{phase}"}
    return {
        "metadata": metadata,
        "spec": {},
        "status": {"phase": phase, "containerStatuses": ended},
    }


def status_written(step: ReconcileResult) -> Body:
    """The status that is written."""
    return next((write.body["status"] for write in step.writes if isinstance(write, Patch)), {})


def makes_a_pod(step: ReconcileResult) -> bool:
    return any(isinstance(write, Create) for write in step.writes)


@pytest.mark.parametrize(
    ("the_job", "pods", "condition"),
    [
        pytest.param(job(), [pod("Succeeded")], ("Complete", "CompletionsReached"), id="succeeded"),
        pytest.param(
            job(backoffLimit=0),
            [pod("Failed")],
            ("Failed", "BackoffLimitExceeded"),
            id="no-tries-left",
        ),
        pytest.param(
            job(backoffLimit=1),
            [pod("Failed"), pod("Succeeded")],
            ("Complete", "CompletionsReached"),
            id="second-try-succeeded",
        ),
        pytest.param(
            job(activeDeadlineSeconds=30),
            [pod("Running")],
            ("Failed", "DeadlineExceeded"),
            id="too-late",
        ),
        pytest.param(
            job(activeDeadlineSeconds=30),
            [pod("Succeeded")],
            ("Complete", "CompletionsReached"),
            id="late-but-done",
        ),
    ],
)
def test_a_job_ends(the_job: Body, pods: list[Body], condition: tuple[str, str]) -> None:
    final = status_written(plan_job(the_job, pods, NOW))["conditions"][-1]
    assert (final["type"], final["reason"], final["status"]) == (*condition, "True")


@pytest.mark.parametrize(
    ("the_job", "pods", "tries"),
    [
        pytest.param(job(started=None), [], True, id="new"),
        pytest.param(job(), [pod("Pending")], False, id="pending"),
        pytest.param(job(), [pod("Running")], False, id="running"),
        pytest.param(job(), [pod("Failed")], True, id="failed-a-while-ago"),
        pytest.param(job(), [pod("Failed", ended_s_ago=0)], False, id="failed-just-now"),
        pytest.param(job(conditions=("Complete",)), [], False, id="complete-without-pod"),
    ],
)
def test_a_pod_is_made_when_none_runs_and_the_wait_is_over(
    the_job: Body, pods: list[Body], tries: bool
) -> None:
    assert makes_a_pod(plan_job(the_job, pods, NOW)) is tries


def test_a_job_requeues_at_its_backoff_or_deadline() -> None:
    assert plan_job(job(), [pod("Failed", ended_s_ago=0)], NOW).requeue_after_s == pytest.approx(
        1.0
    )
    assert plan_job(
        job(activeDeadlineSeconds=90), [pod("Running")], NOW
    ).requeue_after_s == pytest.approx(30.0)
    assert plan_job(
        job(conditions=("Failed",), ttlSecondsAfterFinished=60), [], NOW
    ).requeue_after_s == pytest.approx(30.0)


def test_a_finished_job_goes_after_its_ttl() -> None:
    [deletion] = plan_job(job(conditions=("Complete",), ttlSecondsAfterFinished=10), [], NOW).writes
    assert isinstance(deletion, Delete)
    assert deletion.uid == "u1"


def test_a_job_past_its_deadline_deletes_and_counts_its_pod() -> None:
    step = plan_job(job(activeDeadlineSeconds=30), [pod("Running")], NOW)
    assert status_written(step)["failed"] == 1
    assert [write.name for write in step.writes if isinstance(write, Delete)] == ["fill-Running"]


def test_the_pod_of_a_try_has_a_stable_name_and_its_job_as_owner() -> None:
    first, again, second = (pod_for(job(), attempt) for attempt in (0, 0, 1))
    assert first == again
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert first["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "fill"
    assert first["metadata"]["labels"]["app"] == "x"
    assert (
        first["metadata"]["ownerReferences"][0] | {"uid": "u1", "controller": True}
        == first["metadata"]["ownerReferences"][0]
    )


def test_an_unchanged_job_is_not_written_again() -> None:
    written = status_written(plan_job(job(), [pod("Running")], NOW))
    settled = job()
    settled["status"] |= written
    assert plan_job(settled, [pod("Running")], NOW + timedelta(seconds=5)).writes == []


def suspension(step: ReconcileResult) -> tuple[str, str]:
    (found,) = [one for one in status_written(step)["conditions"] if one["type"] == "Suspended"]
    return found["status"], found["reason"]


def test_a_suspended_job_has_no_pods_and_a_condition() -> None:
    step = plan_job(job(suspend=True), [pod("Running")], NOW)
    assert suspension(step) == ("True", "JobSuspended")
    assert [type(write) for write in step.writes] == [Patch, Delete]


def test_a_suspended_job_settles() -> None:
    first = status_written(plan_job(job(started=None, suspend=True), [], NOW))
    assert plan_job(job(suspend=True) | {"status": first}, [], NOW).writes == []


def test_a_resumed_job_makes_its_pod_and_a_condition() -> None:
    step = plan_job(job(conditions=("Suspended",), started=None, suspend=False), [], NOW)
    assert suspension(step) == ("False", "JobResumed")
    assert makes_a_pod(step)


def test_a_jobs_rejected_pod_is_an_event_on_the_job() -> None:
    (made,) = [write for write in plan_job(job(), [], NOW).writes if isinstance(write, Create)]
    assert made.rejected is not None
    (event,) = made.rejected('pods "fill-x" is forbidden: exceeded quota: q')
    assert isinstance(event, Create)
    assert (event.body["involvedObject"]["kind"], event.body["reason"]) == ("Job", "FailedCreate")
    assert event.body["message"] == 'Error creating: pods "fill-x" is forbidden: exceeded quota: q'
