"""RuntimeReady: what the InferenceService, its pods and the API server's answers come to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aimcontroller.action import ReadEvents
from aimcontroller.projection import (
    LATEST_WARNING,
    REJECTED,
    ApplyRejected,
    LatestWarning,
    Observation,
)
from aimcontroller.testing import (
    NAMESPACE,
    NOW,
    Body,
    action_summaries,
    ago,
    condition_summary,
    message,
    projection,
    rejected,
    status_condition,
)
from aimschema.resources import INFERENCE_SERVICE, POD, SERVICE, Key

Setup = Callable[[Any], list[Body]]
ISVC = Key(INFERENCE_SERVICE.kind, NAMESPACE, "s")
CRASHED = {
    "name": "kserve-container",
    "ready": False,
    "restartCount": 4,
    "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
}
IN_BACKOFF = {
    **CRASHED,
    "state": {
        "waiting": {
            "reason": "CrashLoopBackOff",
            "message": "back-off 40s restarting failed container",
        }
    },
}
JUST_ENDED = {**CRASHED, "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}
RUNS_AGAIN = {**CRASHED, "restartCount": 5, "state": {"running": {"startedAt": ago(3)}}}
OOM = {
    "name": "kserve-container",
    "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
}
GATED = {
    "phase": "Pending",
    "conditions": [
        status_condition("PodScheduled", False, "SchedulingGated", "Scheduling is blocked")
    ],
}
QUOTA = (
    'pods "s-predictor-1" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0,'
    " limited: pods=0"
)
SECURITY = 'pods "s-predictor-1" is forbidden: violates PodSecurity "restricted:latest"'


def with_status(world: Any, container: Body, **status: Any) -> Body:
    pod: Body = world.pod(status={"phase": "Running", "containerStatuses": [container]} | status)
    return pod


def of(pod: Body, component: str) -> Body:
    return pod | {
        "metadata": (
            pod["metadata"] | {"labels": {**pod["metadata"]["labels"], "component": component}}
        )
    }


def ended(pod: Body) -> Body:
    conditions = [
        *pod["status"]["conditions"],
        status_condition("DisruptionTarget", True, "DeletionByPodGC", "node gone"),
    ]
    return pod | {"status": pod["status"] | {"phase": "Failed", "conditions": conditions}}


def rejected_pods(why: str) -> dict[str, Any]:
    return {
        "conditions": [
            status_condition(type_, False, "FailedCreate", why)
            for type_ in ("PredictorReady", "Ready")
        ]
    }


def going(body: Body) -> Body:
    """It is being deleted, and KServe has not let go of it."""
    metadata = {
        **body["metadata"],
        "deletionTimestamp": ago(60),
        "finalizers": ["inferenceservice.finalizers"],
    }
    return {**body, "metadata": metadata}


def test_a_stopped_service_names_the_blocking_finalizer(world: Any) -> None:
    plan = world.plan(
        projection(*world.parts(replicas=0), going(world.runtime()), world.ready_pod())
    )
    assert condition_summary(plan, "RuntimeReady") == "False CreatingRuntime"
    assert "is being deleted, held by finalizer inferenceservice.finalizers" in message(
        plan, "RuntimeReady"
    )


@pytest.mark.parametrize(
    ("setup", "runtime", "text"),
    [
        pytest.param(lambda w: w.runs(), "True RuntimeReady", "1 of 1 replicas ready", id="ready"),
        pytest.param(
            lambda w: [w.runtime()],
            "False CreatingRuntime",
            "0 of 1 replicas ready",
            id="ready-without-a-pod",
        ),
        pytest.param(
            lambda w: [w.runtime(), w.ready_pod(deleting=True)],
            "False CreatingRuntime",
            "0 of 1",
            id="ready-with-a-pod-that-is-being-deleted",
        ),
        pytest.param(
            lambda w: [w.runtime(), w.pod()],
            "False CreatingRuntime",
            "0 of 1",
            id="ready-with-a-pod-that-is-not",
        ),
        pytest.param(
            lambda w: [w.runtime(), of(w.ready_pod(), "transformer")],
            "False CreatingRuntime",
            "0 of 1",
            id="only-a-transformer-is-ready",
        ),
        pytest.param(
            lambda w: [w.runtime(), of(w.ready_pod(), "predictor")],
            "True RuntimeReady",
            "1 of 1",
            id="a-predictor-by-its-label",
        ),
        pytest.param(
            lambda w: [w.runtime(), ended(w.ready_pod())],
            "False RuntimeFailed",
            "DeletionByPodGC: node gone",
            id="ended-with-its-node-while-ready",
        ),
        pytest.param(
            lambda w: [w.runtime(), with_status(w, IN_BACKOFF)],
            "False RuntimeFailed",
            "exit code 1",
            id="crashes-after-ready",
        ),
        pytest.param(
            lambda w: [w.runtime(), with_status(w, OOM)],
            "False RuntimeFailed",
            "OOMKilled",
            id="out-of-memory-after-ready",
        ),
        pytest.param(
            lambda w: [w.runtime(), w.pod(state={"waiting": {"reason": "ImagePullBackOff"}})],
            "False RuntimeFailed",
            "ImagePullBackOff",
            id="replacement-cannot-be-pulled",
        ),
        pytest.param(
            lambda w: [*w.runs(), with_status(w, IN_BACKOFF)],
            "True RuntimeReady",
            "1 of 1 replicas ready",
            id="some-ready-and-one-crashes",
        ),
        pytest.param(
            lambda w: [w.runtime(False), w.ready_pod()],
            "False CreatingRuntime",
            "1 of 1 replicas",
            id="kserve-is-behind",
        ),
        pytest.param(
            lambda w: [w.runtime(None), w.ready_pod()],
            "False CreatingRuntime",
            "1 of 1 replicas",
            id="rolls-out",
        ),
        pytest.param(lambda w: [w.runtime(False)], "False CreatingRuntime", "", id="starting"),
        pytest.param(
            lambda w: [going(w.runtime(False)), w.pod()],
            "False CreatingRuntime",
            "InferenceService s is being deleted, held by finalizer inferenceservice.finalizers",
            id="being-deleted-and-held",
        ),
        pytest.param(
            lambda w: [going(w.runtime()), w.ready_pod()],
            "True RuntimeReady",
            "1 of 1",
            id="being-deleted-while-it-serves",
        ),
        pytest.param(
            lambda w: [
                w.runtime(
                    False,
                    modelStatus={
                        "transitionStatus": "BlockedByFailedLoad",
                        "lastFailureInfo": {"message": "no memory"},
                    },
                )
            ],
            "False RuntimeFailed",
            "no memory",
            id="load-failed",
        ),
        pytest.param(
            lambda w: [
                w.runtime(False, modelStatus={"transitionStatus": "BlockedByFailedLoad"}),
                with_status(w, IN_BACKOFF),
            ],
            "False RuntimeFailed",
            "container kserve-container ended with exit code 1",
            id="the-pod-comes-before-kserve",
        ),
        pytest.param(
            lambda w: [w.runtime(False, modelStatus={"transitionStatus": "InvalidSpec"})],
            "False RuntimeFailed",
            "InvalidSpec",
            id="invalid",
        ),
        pytest.param(
            lambda w: [w.runtime(False, modelStatus={"transitionStatus": "InProgress"})],
            "False CreatingRuntime",
            "",
            id="in-progress",
        ),
        pytest.param(
            lambda w: [
                w.runtime(False),
                w.pod(state={"waiting": {"reason": "ContainerCreating"}}, age_s=5),
            ],
            "False CreatingRuntime",
            "",
            id="being-created",
        ),
        pytest.param(
            lambda w: [
                w.runtime(False),
                w.pod(
                    status={
                        "conditions": [
                            status_condition("PodScheduled", False, "Unschedulable", "no GPU")
                        ]
                    }
                ),
            ],
            "False RuntimeFailed",
            "no GPU",
            id="cannot-be-scheduled",
        ),
        pytest.param(
            lambda w: [w.runtime(False), w.pod(state={"terminated": {"exitCode": 137}})],
            "False RuntimeFailed",
            "exit code 137",
            id="crashed",
        ),
        pytest.param(
            lambda w: [w.runtime(False), w.pod(restarts=2)],
            "False RuntimeFailed",
            "keeps ending",
            id="crashed-and-started-again",
        ),
        pytest.param(
            lambda w: [w.runtime(False), w.pod(restarts=2, deleting=True)],
            "False CreatingRuntime",
            "",
            id="a-pod-that-is-being-deleted-does-not-count",
        ),
        pytest.param(
            lambda w: [
                w.runtime(),
                w.pod(
                    status={
                        "phase": "Failed",
                        "reason": "UnexpectedAdmissionError",
                        "message": "no healthy devices present",
                    }
                ),
            ],
            "False RuntimeFailed",
            "UnexpectedAdmissionError: no healthy devices present",
            id="rejected-by-the-kubelet",
        ),
        pytest.param(
            lambda w: [w.runtime(False), w.pod(status=GATED)],
            "False CreatingRuntime",
            "scheduling gate",
            id="held-by-a-gate",
        ),
        pytest.param(
            lambda w: [
                w.runtime(None),
                {
                    **w.pod(status=GATED),
                    "spec": {"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]},
                },
            ],
            "False CreatingRuntime",
            "kueue.x-k8s.io/admission",
            id="held-by-kueue",
        ),
        pytest.param(
            lambda w: [w.runtime(**rejected_pods(QUOTA))],
            "False RuntimeFailed",
            "exceeded quota: q",
            id="pods-over-quota",
        ),
        pytest.param(
            lambda w: [w.runtime(**rejected_pods(SECURITY))],
            "False RuntimeFailed",
            "violates PodSecurity",
            id="pods-not-secure",
        ),
        pytest.param(
            lambda w: [w.runtime(**rejected_pods(QUOTA)), w.ready_pod()],
            "False RuntimeFailed",
            "exceeded quota",
            id="the-second-pod-over-quota",
        ),
        pytest.param(
            lambda w: [
                w.runtime(
                    conditions=[
                        status_condition("Ready", False, "ProgressDeadlineExceeded", "timed out")
                    ]
                ),
                w.pod(),
            ],
            "False CreatingRuntime",
            "loading may take 30 minutes",
            id="slower-than-the-deadline",
        ),
        pytest.param(
            lambda w: [
                w.runtime(
                    conditions=[
                        status_condition("Ready", False, "ProgressDeadlineExceeded", "timed out")
                    ]
                )
            ],
            "False RuntimeFailed",
            "has no pods",
            id="deadline-without-a-pod",
        ),
        pytest.param(
            lambda w: [w.runtime(False), with_status(w, RUNS_AGAIN)],
            "False RuntimeFailed",
            "ended with exit code 1",
            id="runs-after-a-crash",
        ),
        pytest.param(
            lambda w: [w.runtime(deploymentMode="Serverless"), w.ready_pod()],
            "False RuntimeFailed",
            "Serverless",
            id="serverless",
        ),
        pytest.param(
            lambda w: [w.runtime(deploymentMode="Knative")],
            "False RuntimeFailed",
            "Knative",
            id="knative",
        ),
        pytest.param(
            lambda w: [w.runtime(False, deploymentMode="ModelMesh")],
            "False RuntimeFailed",
            "ModelMesh",
            id="model-mesh",
        ),
        pytest.param(
            lambda w: [w.runtime(deploymentMode="RawDeployment"), w.ready_pod()],
            "True RuntimeReady",
            "",
            id="raw-deployment",
        ),
        pytest.param(
            lambda w: [w.runtime(deploymentMode=""), w.ready_pod()],
            "True RuntimeReady",
            "",
            id="mode-not-yet-known",
        ),
    ],
)
def test_the_status_of_the_runtime(world: Any, setup: Setup, runtime: str, text: str) -> None:
    plan = world.plan(projection(*world.parts(), *setup(world)))
    assert condition_summary(plan, "RuntimeReady") == runtime
    assert text in message(plan, "RuntimeReady")


def test_the_message_counts_the_replicas_that_are_ready(world: Any) -> None:
    plan = world.plan(
        projection(*world.parts(replicas=2), *world.runs(), with_status(world, IN_BACKOFF))
    )
    assert (condition_summary(plan, "RuntimeReady"), message(plan, "RuntimeReady")) == (
        "True RuntimeReady",
        "1 of 2 replicas ready",
    )


def test_the_message_of_a_crash_stays_the_same(world: Any) -> None:
    phases = [IN_BACKOFF, JUST_ENDED, RUNS_AGAIN]
    expected = {
        message(
            world.plan(projection(*world.parts(), world.runtime(), with_status(world, phase))),
            "RuntimeReady",
        )
        for phase in phases
    }
    assert len(expected) == 1


def test_rejected_pods_are_still_reported_after_the_deadline(world: Any) -> None:
    before = rejection_message(world, rejected_pods(QUOTA))
    late = world.runtime(
        conditions=[
            status_condition(
                "Ready",
                False,
                "ProgressDeadlineExceeded",
                "ReplicaSet s-1 has timed out progressing.",
            )
        ]
    )
    service = world.service(
        status={"conditions": [status_condition("RuntimeReady", False, "RuntimeFailed", before)]}
    )
    plan = world.plan(projection(*world.parts(SERVICE.kind), service, late))
    assert (condition_summary(plan, "RuntimeReady"), message(plan, "RuntimeReady")) == (
        "False RuntimeFailed",
        before,
    )


def rejection_message(world: Any, status: Body) -> str:
    return message(world.plan(projection(*world.parts(), world.runtime(**status))), "RuntimeReady")


def test_the_events_of_a_pod_that_does_not_start_are_read(world: Any) -> None:
    pod = world.pod(state={"waiting": {"reason": "ContainerCreating"}}, phase="Pending", age_s=61)
    plan = world.plan(projection(*world.parts(), world.runtime(), pod))
    assert (action_summaries(plan), condition_summary(plan, "RuntimeReady")) == (
        ["apply InferenceService s", "read Events of Pod s-predictor-x"],
        "False CreatingRuntime",
    )
    mount = Observation(
        Key(POD.kind, NAMESPACE, "s-predictor-x"),
        LATEST_WARNING,
        LatestWarning(NOW, "FailedMount", "mount.nfs: access denied"),
    )
    plan = world.plan(projection(*world.parts(), world.runtime(), pod, observations=[mount]))
    assert condition_summary(plan, "RuntimeReady") == "False RuntimeFailed"
    assert "FailedMount: mount.nfs: access denied" in message(plan, "RuntimeReady")


ATTACH = 'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) s-predictor-y'


@pytest.mark.parametrize("reason", ["FailedAttachVolume", "FailedMount"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_volume_of_another_node_is_quoted(world: Any, reason: str, replicas: int) -> None:
    """A cache with ReadWriteOnce, and a pod on a second node."""
    waiting = world.pod(
        state={"waiting": {"reason": "ContainerCreating"}}, phase="Pending", age_s=61
    )
    event = Observation(
        Key(POD.kind, NAMESPACE, "s-predictor-x"),
        LATEST_WARNING,
        LatestWarning(NOW, reason, ATTACH),
    )
    state = projection(
        *world.parts(SERVICE.kind),
        world.service(replicas=replicas),
        world.runtime(),
        waiting,
        observations=[event],
    )
    plan = world.plan(state)
    assert condition_summary(plan, "RuntimeReady") == "False RuntimeFailed"
    assert f"{reason}: {ATTACH}" in message(plan, "RuntimeReady")


@pytest.mark.parametrize(
    ("reason", "runtime"),
    [
        ("InternalError", "False RuntimeFailed"),
        ("ServerlessModeRejected", "False RuntimeFailed"),
        ("InferenceServiceNotReady", "False CreatingRuntime"),
        ("UpdateFailed", "False CreatingRuntime"),
    ],
)
def test_events_are_read_without_any_pods(world: Any, reason: str, runtime: str) -> None:
    service = world.runtime(None)
    assert (
        ReadEvents(ISVC, service["metadata"]["uid"])
        in world.plan(projection(*world.parts(), service)).actions
    )
    why = Observation(
        ISVC, LATEST_WARNING, LatestWarning(NOW, reason, "admission webhook denied the Deployment")
    )
    plan = world.plan(projection(*world.parts(), service, observations=[why]))
    assert condition_summary(plan, "RuntimeReady") == runtime
    assert ("admission webhook denied" in message(plan, "RuntimeReady")) is (
        runtime == "False RuntimeFailed"
    )


DOWN = (
    "Internal error occurred: failed calling webhook"
    ' "inferenceservice.kserve-webhook-server.defaulter": no endpoints available'
)


@pytest.mark.parametrize(
    ("setup", "runtime"),
    [
        pytest.param(lambda _: [], "False RuntimeFailed", id="created"),
        pytest.param(lambda w: [w.runtime(False)], "False CreatingRuntime", id="starting"),
        pytest.param(lambda w: w.runs(), "True RuntimeReady", id="running"),
    ],
)
def test_a_lasting_server_error_is_reported(world: Any, setup: Setup, runtime: str) -> None:
    failing = Observation(
        world.key, REJECTED, ApplyRejected(ISVC, DOWN, transient=True, by_webhook=True)
    )
    plan = world.plan(projection(*world.parts(), *setup(world), observations=[failing]))
    assert condition_summary(plan, "RuntimeReady") == runtime
    assert DOWN in message(plan, "RuntimeReady")
    assert "apply InferenceService s" in action_summaries(plan)


def test_an_overloaded_server_is_no_failure_of_the_service(world: Any) -> None:
    failing = Observation(
        world.key, REJECTED, ApplyRejected(ISVC, "Too many requests", transient=True)
    )
    plan = world.plan(projection(*world.parts(), observations=[failing]))
    assert condition_summary(plan, "RuntimeReady") == "False CreatingRuntime"
    assert "rejected by the API server: Too many requests" in message(plan, "RuntimeReady")


def test_a_rejected_spec_is_a_failure_though_pods_are_ready(world: Any) -> None:
    plan = world.plan(
        projection(
            *world.parts(),
            *world.runs(),
            observations=[rejected(world.key, ISVC, "webhook says no")],
        )
    )
    assert condition_summary(plan, "RuntimeReady") == "False RuntimeFailed"
    assert "webhook says no" in message(plan, "RuntimeReady")


TRANSCRIPTS = Path(__file__).parents[3] / "lab/aimlab/tests/kserve/transcripts"
"""What a real KServe reported, case by case."""


def last_status(case: str) -> Body:
    lines = map(json.loads, (TRANSCRIPTS / f"{case}.jsonl").read_text().splitlines())
    status: Body = [line for line in lines if line.get("kind") == "InferenceService"][-1]["status"]
    return status


@pytest.mark.parametrize(
    ("case", "pods", "runtime"),
    [
        ("one-replica-becomes-ready", lambda w: [w.ready_pod()], "True RuntimeReady"),
        ("one-replica-never-ready", lambda w: [w.pod()], "False CreatingRuntime"),
        (
            "one-replica-crashes-at-first",
            lambda w: [with_status(w, IN_BACKOFF)],
            "False RuntimeFailed",
        ),
        (
            "one-replica-crashes-after-ready",
            lambda w: [with_status(w, IN_BACKOFF)],
            "False RuntimeFailed",
        ),
        (
            "one-replica-recreate-crashes-after-ready",
            lambda w: [with_status(w, IN_BACKOFF)],
            "False RuntimeFailed",
        ),
        (
            "one-replica-pod-deleted-and-replaced",
            lambda w: [w.ready_pod("old", deleting=True), w.pod()],
            "False CreatingRuntime",
        ),
        ("one-replica-pod-deleted-and-replaced", lambda w: [w.ready_pod()], "True RuntimeReady"),
        ("two-replicas-one-crashes", lambda w: [with_status(w, IN_BACKOFF)], "False RuntimeFailed"),
        (
            "image-changes-two-replicas",
            lambda w: [w.ready_pod(), w.ready_pod("other")],
            "True RuntimeReady",
        ),
        (
            "image-cannot-be-pulled",
            lambda w: [w.pod(state={"waiting": {"reason": "ImagePullBackOff"}})],
            "False RuntimeFailed",
        ),
        ("pods-refused-by-pod-security", lambda _: [], "False RuntimeFailed"),
        ("pods-refused-by-quota", lambda _: [], "False RuntimeFailed"),
        ("stopped-and-started", lambda w: [w.ready_pod()], "True RuntimeReady"),
    ],
)
def test_what_a_real_kserve_reports(world: Any, case: str, pods: Setup, runtime: str) -> None:
    existing = world.runtime() | {"status": last_status(case)}
    assert (
        condition_summary(
            world.plan(projection(*world.parts(), existing, *pods(world))), "RuntimeReady"
        )
        == runtime
    )
