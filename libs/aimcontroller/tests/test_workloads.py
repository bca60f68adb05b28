"""Why pods and Jobs do not do their work: one row a situation that people report of their
clusters."""

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimcontroller.action import ReadEvents
from aimcontroller.projection import LATEST_WARNING, LatestWarning, Observation
from aimcontroller.testing import NAMESPACE, NOW, Body, ago, job, obj, projection
from aimcontroller.workloads import (
    Diagnosis,
    diagnose_job,
    diagnose_pods,
    ended_at,
    failure,
    last_end,
    outcome,
    pod_start_failure,
    pods_of,
)
from aimschema.messages import timestamp
from aimschema.resources import JOB, POD, Key

MAIN = "main"
JOB_A = ("Job", "a")
RUNNING = {"running": {"startedAt": ago(600)}}


def container(state: Body, name: str = MAIN, **fields: Any) -> Body:
    return {"name": name, "state": state, "ready": False, "restartCount": 0, **fields}


def waiting(reason: str, message: str = "") -> Body:
    return {"waiting": {"reason": reason, "message": message}}


def end(code: int, reason: str = "Error", message: str = "") -> Body:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def pod(
    name: str = "p",
    spec: Body | None = None,
    age_s: int = 10,
    labels: Body | None = None,
    **status: Any,
) -> Body:
    limits = {"resources": {"limits": {"memory": "48Gi"}}}
    base = {"containers": [{"name": MAIN, **limits}], "nodeName": "n1"}
    fields = {"age_s": age_s, "labels": labels or {}, "status": {"phase": "Pending", **status}}
    return obj(POD.kind, name, owner=JOB_A, spec=base | (spec or {}), **fields)


def condition(type_: str, status: str, reason: str = "", message: str = "", at: str = "") -> Body:
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": at,
    }


def not_scheduled(reason: str, message: str = "") -> Body:
    return {"conditions": [condition("PodScheduled", "False", reason, message)]}


GATED = {"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]}
ONCE = {"restartPolicy": "Never"}
CRASHED = end(1)
PULL = container(waiting("ImagePullBackOff", "no such image"))
SITUATIONS = [
    pytest.param(pod(phase="Running", containerStatuses=[container(RUNNING)]), None, id="runs"),
    pytest.param(
        pod(containerStatuses=[container(waiting("ContainerCreating"))]),
        None,
        id="is-being-created",
    ),
    pytest.param(
        pod(
            phase="Failed", reason="UnexpectedAdmissionError", message="no healthy devices present"
        ),
        "pod p: UnexpectedAdmissionError: no healthy devices present",
        id="rejected-by-the-kubelet",
    ),
    pytest.param(
        pod(phase="Failed", reason="Evicted", message="low on memory"),
        "pod p: Evicted: low on memory",
        id="evicted",
    ),
    pytest.param(pod(phase="Running", reason="NodeLost"), "pod p: NodeLost", id="node-lost"),
    pytest.param(
        pod(
            phase="Failed",
            conditions=[
                condition("DisruptionTarget", "True", "DeletionByPodGC", "node no longer exists")
            ],
        ),
        "pod p: DeletionByPodGC: node no longer exists",
        id="ended-for-a-disruption",
    ),
    pytest.param(
        pod(
            phase="Running",
            containerStatuses=[container(RUNNING)],
            conditions=[condition("DisruptionTarget", "True", "EvictionByEvictionAPI")],
        ),
        None,
        id="disruption-to-come",
    ),
    pytest.param(
        pod(
            phase="Failed",
            reason="Evicted",
            containerStatuses=[container(end(137, "ContainerStatusUnknown"))],
        ),
        "pod p: Evicted",
        id="the-pod's-own-reason-comes-first",
    ),
    pytest.param(
        pod(
            **not_scheduled("Unschedulable", "0/3 nodes are available: 3 Insufficient amd.com/gpu.")
        ),
        "cannot be scheduled: 0/3 nodes are available: 3 Insufficient amd.com/gpu.",
        id="unschedulable",
    ),
    pytest.param(
        pod(
            phase="Pending",
            initContainerStatuses=[container(waiting("ErrImagePull", "denied"), "init")],
        ),
        "pod p: ErrImagePull: denied; check the image's name",
        id="init-container-cannot-be-pulled",
    ),
    pytest.param(
        pod(
            initContainerStatuses=[container(waiting("CrashLoopBackOff"), "init", lastState=end(3))]
        ),
        "container init ended with exit code 3; see kubectl logs -n team p -c init --previous",
        id="init-container-crashes",
    ),
    pytest.param(
        pod(
            initContainerStatuses=[container(end(0, "Completed"), "init")], containerStatuses=[PULL]
        ),
        "pod p: ImagePullBackOff: no such image",
        id="init-container-is-done",
    ),
    pytest.param(
        pod(containerStatuses=[container(waiting("CreateContainerConfigError", "no s"))]),
        "no s; create the Secret",
        id="no-secret",
    ),
    pytest.param(
        pod(containerStatuses=[container(waiting("RunContainerError", "bad device"))]),
        "RunContainerError: bad device",
        id="no-run",
    ),
    pytest.param(
        pod(
            phase="Running",
            containerStatuses=[
                container(waiting("CrashLoopBackOff"), lastState=end(137, "OOMKilled"))
            ],
        ),
        "container main ended with exit code 137 (OOMKilled): it needs more memory than its limit,"
        " 48Gi",
        id="oom-killed",
    ),
    pytest.param(
        pod(
            spec={"containers": [{"name": MAIN}]},
            phase="Running",
            containerStatuses=[container(end(137, "OOMKilled"))],
        ),
        "(OOMKilled): it needs more memory than its node could give; it has no memory limit",
        id="oom-killed-without-a-limit",
    ),
    pytest.param(
        pod(
            spec={
                "containers": [{"name": MAIN, "resources": None}],
                "resources": {"limits": {"memory": "2Gi"}},
            },
            phase="Running",
            containerStatuses=[container(end(137, "OOMKilled"))],
        ),
        "(OOMKilled): it needs more memory than its limit, 2Gi",
        id="oom-killed-at-the-limit-of-the-pod",
    ),
    pytest.param(
        pod(
            spec={"initContainers": [{"name": "init", "resources": {"limits": {"memory": "1Gi"}}}]},
            initContainerStatuses=[container(end(137, "OOMKilled"), "init")],
        ),
        "container init ended with exit code 137 (OOMKilled): it needs more memory than its"
        " limit, 1Gi",
        id="init-container-oom-killed",
    ),
    pytest.param(
        pod(
            spec=ONCE,
            phase="Failed",
            containerStatuses=[container(end(128, "StartError", 'exec: "serve": not found'))],
        ),
        'ended with exit code 128 (StartError): exec: "serve": not found; see kubectl logs -n team'
        " p -c main",
        id="cannot-be-executed",
    ),
    pytest.param(
        pod(
            spec=ONCE,
            phase="Running",
            containerStatuses=[container(RUNNING), container(CRASHED, "proxy")],
        ),
        None,
        id="sidecar-of-a-job",
    ),
    *(
        pytest.param(
            pod(
                spec=ONCE,
                phase="Running",
                containerStatuses=[container(main)],
                initContainerStatuses=[proxy],
            ),
            None,
            id=f"native-sidecar-{id_}",
        )
        for id_, main, proxy in [
            (
                "crashes",
                RUNNING,
                container(waiting("CrashLoopBackOff"), "proxy", lastState=CRASHED, restartCount=2),
            ),
            (
                "was-started-again",
                RUNNING,
                container(RUNNING, "proxy", lastState=CRASHED, restartCount=1),
            ),
            ("is-ended-after-the-job", end(0, "Completed"), container(end(143), "proxy")),
        ]
    ),
    pytest.param(
        pod(
            initContainerStatuses=[
                container(waiting("CrashLoopBackOff"), "proxy", lastState=CRASHED)
            ],
            containerStatuses=[container(waiting("PodInitializing"))],
            spec=ONCE,
        ),
        "container proxy ended with exit code 1",
        id="native-sidecar-that-keeps-a-job-from-starting",
    ),
    pytest.param(
        pod(
            phase="Running",
            initContainerStatuses=[container(RUNNING, "proxy")],
            containerStatuses=[container(RUNNING, ready=True)],
            conditions=[condition("Ready", "False", "ContainersNotReady", at=ago(30))],
        ),
        None,
        id="native-sidecar-not-ready-yet",
    ),
    pytest.param(
        pod(
            phase="Running",
            containerStatuses=[
                container(RUNNING, ready=True),
                container(waiting("ImagePullBackOff"), "proxy"),
            ],
        ),
        "pod p: ImagePullBackOff",
        id="sidecar-of-a-server",
    ),
    pytest.param(
        pod(
            phase="Running",
            containerStatuses=[container(RUNNING, ready=True)],
            conditions=[condition("Ready", "False", at=ago(30))],
        ),
        "pod p is not Ready though its containers are: node n1 may not respond",
        id="node-does-not-respond",
    ),
    pytest.param(
        pod(
            phase="Running",
            containerStatuses=[container(RUNNING, ready=True)],
            conditions=[condition("Ready", "False", "ReadinessGatesNotReady", at=ago(30))],
        ),
        None,
        id="readiness-gate",
    ),
    pytest.param(
        pod(
            phase="Running",
            containerStatuses=[container(RUNNING, started=True)],
            conditions=[condition("Ready", "False", at=ago(30))],
        ),
        "pod p was Ready and no longer answers its readiness probe (container main)",
        id="hangs-after-it-was-ready",
    ),
    pytest.param(
        pod(
            phase="Running",
            containerStatuses=[container(RUNNING, started=True)],
            conditions=[condition("Ready", "False", at=ago(900))],
        ),
        None,
        id="not-ready-for-the-first-time-yet",
    ),
]


@pytest.mark.parametrize(("body", "message"), SITUATIONS)
def test_what_a_pod_reports(body: Body, message: str | None) -> None:
    (pod_,) = pods_of(projection(job("a", ("ModelCache", "c")), body), job_object(body))
    found = pod_start_failure(pod_, MAIN)
    if message is None:
        assert found is None
    else:
        assert found is not None
        assert message in found.message
        assert not found.waits


def job_object(*bodies: Body) -> Any:
    return projection(job("a", ("ModelCache", "c")), *bodies).get(Key(JOB.kind, NAMESPACE, "a"))


def diagnose(
    *bodies: Body, events: LatestWarning | None = None, about: Key | None = None, **fields: Any
) -> Diagnosis:
    """Of Job `a` with these pods."""
    observations = (
        []
        if events is None
        else [Observation(about or Key(POD.kind, NAMESPACE, "p"), LATEST_WARNING, events)]
    )
    state = projection(job("a", ("ModelCache", "c"), **fields), *bodies, observations=observations)
    found = state.get(Key(JOB.kind, NAMESPACE, "a"))
    assert found is not None
    return diagnose_job(state, found, NOW, MAIN)


@pytest.mark.parametrize(
    ("bodies", "fields", "message"),
    [
        pytest.param(
            [pod(spec=GATED, **not_scheduled("SchedulingGated"))],
            {},
            "waits for scheduling gate kueue.x-k8s.io/admission",
            id="gated",
        ),
        pytest.param(
            [
                pod(
                    spec=GATED,
                    labels={"kueue.x-k8s.io/queue-name": "gpus"},
                    **not_scheduled("SchedulingGated"),
                )
            ],
            {},
            "queue gpus has not admitted it yet",
            id="gated-by-a-named-queue",
        ),
        pytest.param([], {"spec": {"suspend": True}}, "Job a is suspended", id="suspended"),
        pytest.param(
            [],
            {"status": {"conditions": [condition("Suspended", "True")]}},
            "Job a is suspended",
            id="suspended-by-condition",
        ),
        pytest.param([pod(age_s=120)], {}, "pod p has not started yet", id="pulls-a-large-image"),
        pytest.param(
            [pod(age_s=120, spec={"nodeName": ""})],
            {},
            "waits for scheduler default-scheduler",
            id="no-scheduler-runs",
        ),
        pytest.param(
            [pod(age_s=120, spec={"nodeName": "", "schedulerName": "volcano"})],
            {},
            "waits for scheduler volcano, which has",
            id="its-own-scheduler",
        ),
    ],
)
def test_what_waits_on_purpose_is_no_failure(
    bodies: list[Body], fields: Body, message: str
) -> None:
    trouble = diagnose(*bodies, **fields).trouble
    assert trouble is not None
    assert trouble.waits
    assert message in trouble.message


FAILED_MOUNT = LatestWarning(NOW, "FailedMount", "mount failed: exit status 32")


def test_after_a_minute_the_pod_s_newest_warning_is_quoted() -> None:
    early, late = diagnose(pod(age_s=20)), diagnose(pod(age_s=61))
    assert early.trouble is None
    assert early.follow_up.requeue_after_s == 40
    assert late.follow_up.actions == (ReadEvents(Key(POD.kind, NAMESPACE, "p"), "pod-p"),)
    reported = diagnose(pod(age_s=61), events=FAILED_MOUNT)
    assert reported.message is not None
    assert reported.message.startswith(
        "pod p has not started: FailedMount: mount failed: exit status 32; see kubectl describe pod"
    )
    assert reported.trouble is not None
    assert not reported.trouble.waits
    assert reported.follow_up.actions == ()


def test_events_are_read_again_while_the_trouble_lasts() -> None:
    old = LatestWarning(NOW - datetime.timedelta(seconds=60), "FailedMount", "mount failed")
    assert diagnose(pod(age_s=300), events=old).follow_up.actions != ()


def test_a_job_without_a_pod_quotes_the_rejection_of_its_pod() -> None:
    quota = LatestWarning(NOW, "FailedCreate", "exceeded quota: compute")
    new, old = diagnose(age_s=29), diagnose(age_s=30)
    assert (new.trouble, new.follow_up.requeue_after_s) == (None, 1)
    assert old.follow_up.actions == (ReadEvents(Key(JOB.kind, NAMESPACE, "a"), "job-a"),)
    reported = diagnose(age_s=30, events=quota, about=Key(JOB.kind, NAMESPACE, "a"))
    assert reported.message is not None
    assert reported.message.startswith("Job a has no pod: FailedCreate: exceeded quota: compute")


CRASH_STATES = [
    container(CRASHED),
    container(
        waiting("CrashLoopBackOff", "back-off 10s restarting"), restartCount=1, lastState=CRASHED
    ),
    container({"running": {"startedAt": ago(1)}}, restartCount=1, lastState=CRASHED),
    container(
        waiting("CrashLoopBackOff", "back-off 5m0s restarting"), restartCount=9, lastState=CRASHED
    ),
]


def test_a_crash_reads_the_same_in_each_of_its_states() -> None:
    found = [
        pod_start_failure(pods_of(projection(body), job_object())[0], MAIN)
        for body in (pod(phase="Running", containerStatuses=[s]) for s in CRASH_STATES)
    ]
    assert {None if trouble is None else trouble.message for trouble in found} == {
        "pod p: container main ended with exit code 1; see kubectl logs -n team p -c main"
        " --previous"
    }


def speaks(*bodies: Body) -> str | None:
    state = projection(*bodies)
    return diagnose_pods(state, state.in_namespace(POD.kind, NAMESPACE), NOW, MAIN).message


EVICTED = pod("old", age_s=900, phase="Failed", reason="Evicted")


def test_a_pod_that_has_ended_is_silent_beside_a_younger_one() -> None:
    assert speaks(EVICTED) == "pod old: Evicted"
    assert (
        speaks(EVICTED, pod("new", containerStatuses=[container(waiting("ContainerCreating"))]))
        is None
    )
    assert speaks(EVICTED, pod("new", containerStatuses=[PULL])) is not None


def test_a_failure_comes_before_what_only_waits() -> None:
    gated = pod("young", spec=GATED, age_s=1, **not_scheduled("SchedulingGated"))
    reported = speaks(gated, pod("old", age_s=50, containerStatuses=[PULL]))
    assert reported is not None
    assert reported.startswith("pod old: ImagePullBackOff")


def deleted(body: Body) -> Body:
    return body | {"metadata": body["metadata"] | {"deletionTimestamp": ago(1)}}


OPEN = container(RUNNING, "proxy", ready=True)


@pytest.mark.parametrize(
    ("state", "bodies", "expected"),
    [
        pytest.param(
            "active",
            [pod(phase="Running", containerStatuses=[container(end(0)), OPEN])],
            "succeeded",
            id="sidecar-open-after-success",
        ),
        pytest.param(
            "active",
            [pod(phase="Running", containerStatuses=[container(end(11)), OPEN])],
            "failed",
            id="sidecar-open-after-failure",
        ),
        pytest.param(
            "failed",
            [
                pod(
                    phase="Failed",
                    containerStatuses=[container(end(0)), container(end(1), "proxy")],
                )
            ],
            "succeeded",
            id="sidecar-failed",
        ),
        pytest.param(
            "failed",
            [pod(phase="Running", containerStatuses=[container(RUNNING)])],
            "failed",
            id="deadline",
        ),
        pytest.param(
            "failed",
            [deleted(pod(phase="Running", containerStatuses=[container(end(0)), OPEN]))],
            "succeeded",
            id="deadline-after-success-takes-the-pod",
        ),
        pytest.param(
            "active",
            [deleted(pod(phase="Failed", containerStatuses=[container(end(143))]))],
            "active",
            id="preempted",
        ),
        pytest.param("succeeded", [], "succeeded", id="pod-is-deleted"),
        pytest.param(
            "active",
            [pod(phase="Running", containerStatuses=[container(RUNNING), OPEN])],
            "active",
            id="runs",
        ),
        pytest.param(
            "active",
            [
                pod("old", age_s=90, phase="Failed", containerStatuses=[container(end(1))]),
                pod("young", containerStatuses=[container(RUNNING)]),
            ],
            "active",
            id="a-younger-pod-is-at-it",
        ),
    ],
)
def test_our_container_s_own_end_decides(state: str, bodies: list[Body], expected: str) -> None:
    obj = projection(job("a", ("ModelCache", "c"), state), *bodies)
    found = obj.get(Key(JOB.kind, NAMESPACE, "a"))
    assert found is not None
    assert outcome(obj, found, MAIN) == expected


def test_the_end_that_counts_is_a_good_one_then_the_youngest() -> None:
    old = pod("old", age_s=90, containerStatuses=[container(end(0))])
    young = pod("young", containerStatuses=[container(end(20))])
    going = deleted(pod("going", age_s=1, containerStatuses=[container(end(143))]))
    for bodies, name in (
        ([old, young, going], "old"),
        ([young, going], "young"),
        ([going], "going"),
    ):
        state = projection(job("a", ("ModelCache", "c"), "failed"), *bodies)
        found = last_end(state, job_object(), MAIN)
        assert found is not None
        assert found[0].key.name == name


@pytest.mark.parametrize(
    ("finished_at", "expected"),
    [(ago(5), ago(5)), ("", ago(60)), ("soon", ago(60)), ("2030-01-01", ago(60))],
    ids=["a-time", "empty", "no-time", "no-zone"],
)
def test_a_try_ends_when_our_container_ends(finished_at: str, expected: str) -> None:
    state = {"terminated": {"exitCode": 1, "finishedAt": finished_at}}
    obj = projection(
        job("a", ("ModelCache", "c"), "failed"),
        pod(phase="Running", containerStatuses=[container(state), OPEN]),
    )
    at = ended_at(obj, failed_job_object(), MAIN)
    assert at is not None
    assert timestamp(at) == expected


def test_an_init_container_that_failed_a_job_is_named() -> None:
    body = pod(
        spec={
            **ONCE,
            "initContainers": [{"name": "init", "resources": {"limits": {"memory": "1Gi"}}}],
        },
        phase="Failed",
        initContainerStatuses=[container(end(137, "OOMKilled"), "init")],
        containerStatuses=[container(waiting("PodInitializing"))],
    )
    obj = projection(job("a", ("ModelCache", "c"), "failed"), body)
    message = failure(obj, failed_job_object(), MAIN, "the downloader")
    assert message.startswith(
        "pod p: container init ended with exit code 137 (OOMKilled): it needs more memory than its"
        " limit, 1Gi;"
    )
    assert message.endswith("BackoffLimitExceeded")


def failed_job_object() -> Any:
    return projection(job("a", ("ModelCache", "c"), "failed")).get(Key(JOB.kind, NAMESPACE, "a"))


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
STATES = st.dictionaries(
    st.sampled_from(["running", "waiting", "terminated"]),
    JUNK | st.dictionaries(st.sampled_from(["reason", "exitCode"]), JUNK),
)
STATUSES = (
    st.lists(
        st.fixed_dictionaries(
            {}, optional={"name": JUNK, "state": STATES | JUNK, "lastState": JUNK}
        )
        | JUNK,
        max_size=3,
    )
    | JUNK
)


@given(STATUSES, STATUSES, JUNK, JUNK)
def test_whatever_a_status_holds_the_reader_ends(
    containers: Any, inits: Any, reason: Any, conditions: Any
) -> None:
    body = pod(
        containerStatuses=containers,
        initContainerStatuses=inits,
        reason=reason,
        conditions=conditions,
    )
    found = diagnose(body).trouble
    assert found is None or found.message
