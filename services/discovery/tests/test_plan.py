"""Actions and conditions of discovery, step by step."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given as holds_for
from hypothesis import settings
from hypothesis import strategies as st

from aim_discovery.dry_run_output import LOG, ReadLogResult, digest_log
from aim_discovery.plan import plan
from aim_discovery.projection import map_to_keys
from aimcontroller import testing
from aimcontroller.projection import PENDING_CREATE, REJECTED, ApplyRejected, Observation
from aimcontroller.testing import (
    NAMESPACE,
    NOW,
    Body,
    action_summaries,
    ago,
    applied,
    condition_summary,
    field_conflict,
    fields,
    held_by_finalizers,
    job,
    message,
    projection,
    rejected,
    status_condition,
)
from aimschema import labels
from aimschema.discovery_result import digest
from aimschema.messages import ReportedCondition, StatusReported
from aimschema.resources import CONFIG_MAP, JOB, MODEL, TEMPLATE, Key

plan_key = partial(plan, namespace="aim-system")
Setup = Callable[[Any], list[Body]]
HOLD = "example.org/hold"
AWAITING = "Unknown AwaitingDiscovery"
FAILED = "False DiscoveryFailed"
FOUND = "True ProfilesDiscovered"
NOTE = Key(CONFIG_MAP.kind, NAMESPACE, "t-discovery")
READS_EVENTS = ["read Events of Job discover-t-*"]
STARTS = ["apply ConfigMap t-discovery", "apply Job discover-t-*"]
STORES = ["apply ConfigMap t-discovery"]
CLEARS = ["delete Job discover-t-*"]


def tried(attempts: int, next_s: float = 60) -> Body:
    return {
        "attempts": attempts,
        "nextAttemptTime": ago(-next_s),
        "conditions": [status_condition("Discovered", False, "DiscoveryFailed", "it broke")],
    }


FOUND_STATUS = {
    "conditions": [status_condition("Discovered", True)],
    "modelSources": ["hf://org/model"],
}


def of_another_image(world: Any) -> Body:
    """Written by another client, for the current inputs and with a digest that fits."""
    body: Body = world.note(answered=True)
    data = body["data"] | {"image": "evil.example/miner:1"}
    annotations = body["metadata"]["annotations"] | {labels.ANNOTATION_DIGEST: digest(data)}
    return body | {"data": data, "metadata": body["metadata"] | {"annotations": annotations}}


STEPS = [
    pytest.param(lambda w: [w.template()], [], "False ModelNotFound", id="no-model"),
    pytest.param(
        lambda w: [w.template(), w.model(deleting=True)],
        [],
        "False ModelNotFound",
        id="model-is-being-deleted",
    ),
    pytest.param(lambda w: [w.template(), w.model()], STARTS, AWAITING, id="model-appears"),
    pytest.param(
        lambda w: [w.template(deleting=True), w.model()],
        [],
        "nothing",
        id="template-is-being-deleted",
    ),
    pytest.param(
        lambda w: [w.template(), w.model(), w.note(), w.job()],
        READS_EVENTS,
        AWAITING,
        id="job-at-work",
    ),
    pytest.param(
        lambda w: [w.template(), w.model(), w.note(), w.job("succeeded", ended_s=1)],
        [],
        AWAITING,
        id="job-ended-before-its-pod-was-known",
    ),
    pytest.param(
        lambda w: [w.template(), w.model(), w.note(), w.job("succeeded")],
        ["read log of discover-t-*"],
        AWAITING,
        id="an-unknown-pod-is-read-from-the-server",
    ),
    pytest.param(
        lambda w: [w.template(), w.model(), w.note(), w.job("succeeded"), w.pod("Succeeded", 0)],
        ["read log of p"],
        AWAITING,
        id="log-is-read",
    ),
    pytest.param(
        lambda w: [w.template(), w.model(), w.note(answered=True), w.job("succeeded")],
        STORES,
        FOUND,
        id="answered",
    ),
    pytest.param(
        lambda w: [
            w.template(status=FOUND_STATUS),
            w.model(),
            w.note(answered=True),
            w.job("succeeded"),
        ],
        [*STORES, *CLEARS],
        FOUND,
        id="recorded-so-the-job-is-deleted",
    ),
    pytest.param(
        lambda w: [w.template(status=FOUND_STATUS), w.model(), w.note(answered=True)],
        STORES,
        FOUND,
        id="never-discovered-again",
    ),
    pytest.param(
        lambda w: [w.template(), w.model(), w.note(answered=True)],
        STORES,
        FOUND,
        id="nor-with-status-lost",
    ),
    pytest.param(
        lambda w: [w.template(status=FOUND_STATUS), w.model(), of_another_image(w)],
        STARTS,
        AWAITING,
        id="an-answer-of-another-image",
    ),
    pytest.param(
        lambda w: [w.template(status=FOUND_STATUS), w.model()],
        STARTS,
        AWAITING,
        id="answer-deleted-by-hand",
    ),
    pytest.param(
        lambda w: [w.template(), w.model(), w.note(), w.job("failed", ended_s=1)],
        [],
        AWAITING,
        id="failed-before-its-pod-was-known",
    ),
    pytest.param(
        lambda w: [w.template(), w.model(), w.note(), w.job("failed")],
        [],
        FAILED,
        id="failed-without-a-pod",
    ),
    pytest.param(
        lambda w: [w.template(), w.model(), w.note(), w.job("failed"), w.pod("Failed", 1)],
        ["read log of p"],
        AWAITING,
        id="crashed",
    ),
    pytest.param(
        lambda w: [w.template(status=tried(1)), w.model(), w.note(), w.job("failed")],
        CLEARS,
        FAILED,
        id="failure-recorded",
    ),
    pytest.param(
        lambda w: [w.template(status=tried(3)), w.model(), w.note()],
        [],
        FAILED,
        id="waits-by-status-alone",
    ),
    pytest.param(
        lambda w: [w.template(status=tried(3, -1)), w.model(), w.note()],
        STARTS,
        FAILED,
        id="its-time-has-come-and-the-failure-stays-reported",
    ),
    pytest.param(
        lambda w: [w.template(status=tried(3)), w.model(), w.note(), w.job(attempt=4)],
        READS_EVENTS,
        FAILED,
        id="at-work-again",
    ),
    pytest.param(
        lambda w: [
            w.template(status=tried(9), annotations={labels.ANNOTATION_RETRY: "1"}),
            w.model(),
            w.note(),
        ],
        STARTS,
        AWAITING,
        id="retry-requested",
    ),
    pytest.param(
        lambda w: [
            w.template(status=tried(9)),
            w.model(),
            w.note(),
            testing.cr("AIMNamespaceConfig", "default", {"images": {"imagePullSecrets": ["x"]}}),
        ],
        STARTS,
        AWAITING,
        id="config-changed",
    ),
    pytest.param(
        lambda w: [w.template(status=tried(9)), w.model("example.org/m:2"), w.note()],
        STARTS,
        AWAITING,
        id="image-changed-after-failures",
    ),
    pytest.param(
        lambda w: [
            w.template(annotations={labels.ANNOTATION_RETRY: "1"}),
            w.model(),
            w.note(),
            w.job("failed"),
        ],
        CLEARS,
        FAILED,
        id="retry-requested-while-the-failed-job-exists",
    ),
    pytest.param(
        lambda w: [
            w.template(status=FOUND_STATUS),
            w.model("example.org/m:2"),
            w.note(answered=True),
        ],
        STARTS,
        FOUND,
        id="changed-image-old-answer-in-force",
    ),
    pytest.param(
        lambda w: [w.template(), w.model("example.org/m:2"), w.note(), w.job()],
        [*CLEARS, *STARTS],
        AWAITING,
        id="a-job-for-a-former-image-is-deleted",
    ),
    pytest.param(
        lambda w: [
            w.template(status=FOUND_STATUS),
            w.model(),
            w.note(answered=True) | {"data": {}},
        ],
        STARTS,
        AWAITING,
        id="an-edited-answer-is-none",
    ),
    pytest.param(
        lambda w: [w.template(), w.model(), w.note(owner=("Job", "x"))],
        [],
        "False NameConflict",
        id="config-map-of-another-owner",
    ),
    pytest.param(
        lambda w: [w.template(), w.model(), w.job(owner=("AIMService", "x"))],
        [],
        "False NameConflict",
        id="job-of-another-owner",
    ),
    pytest.param(
        lambda w: [w.template(uid="second"), w.model(), w.note(answered=True)],
        [],
        "False AwaitingDiscovery",
        id="left-by-the-former-template-of-this-name",
    ),
]


@pytest.mark.parametrize(
    ("setup", "reported"),
    [
        pytest.param(
            lambda w: [w.template(uid="second"), held_by_finalizers(w.job(), HOLD)],
            "AwaitingDiscovery",
            id="of-a-former-template",
        ),
        pytest.param(
            lambda w: [w.template(uid="second"), held_by_finalizers(w.note(), HOLD)],
            "AwaitingDiscovery",
            id="an-answer-to-a-former-template",
        ),
        pytest.param(
            lambda w: [
                w.template(status=tried(1)),
                w.note(),
                held_by_finalizers(w.job("failed"), HOLD),
            ],
            "DiscoveryFailed",
            id="a-try-that-failed",
        ),
    ],
)
def test_the_finalizer_of_a_conflicting_object_is_named(
    world: Any, setup: Setup, reported: str
) -> None:
    plan = world.plan(projection(world.model(), *setup(world)))
    assert condition_summary(plan, "Discovered") == f"False {reported}"
    assert f"is being deleted, held by finalizer {HOLD}" in message(plan, "Discovered")


def short(actions: list[str]) -> list[str]:
    return [
        action.rpartition("-")[0] + "-*" if "discover-" in action else action for action in actions
    ]


@pytest.mark.parametrize(("setup", "actions", "discovered"), STEPS)
def test_a_template(world: Any, setup: Setup, actions: list[str], discovered: str) -> None:
    plan = world.plan(projection(*setup(world)))
    assert (short(action_summaries(plan)), condition_summary(plan, "Discovered")) == (
        actions,
        discovered,
    )


@pytest.mark.parametrize(
    ("log", "actions", "discovered", "text"),
    [
        pytest.param(
            'noise\n[{"models": [{"name": "m", "source": "hf://o/m"}]}]',
            ["apply ConfigMap t-discovery"],
            "nothing",
            "",
            id="an-answer",
        ),
        pytest.param("Traceback", [], FAILED, "Traceback", id="no-json"),
        pytest.param("[]", [], FAILED, "empty list", id="empty-list"),
    ],
)
def test_a_log_that_was_read(
    world: Any, log: str, actions: list[str], discovered: str, text: str
) -> None:
    bodies = [
        world.template(),
        world.model(),
        world.note(),
        world.job("succeeded"),
        world.pod("Succeeded", 0),
    ]
    plan = world.plan(projection(*bodies, observations=[world.log(log)]))
    assert (action_summaries(plan), condition_summary(plan, "Discovered")) == (actions, discovered)
    assert not text or text in message(plan, "Discovered")


def test_a_pod_of_another_namespace_answers_for_no_job(world: Any) -> None:
    forged = world.pod("Succeeded", 0, namespace="mallory", age_s=1)
    bodies = [
        world.template(),
        world.model(),
        world.note(),
        world.job("succeeded", ended_s=1),
        forged,
    ]
    assert action_summaries(world.plan(projection(*bodies))) == []
    assert action_summaries(world.plan(projection(*bodies, world.pod("Succeeded", 0)))) == [
        "read log of p"
    ]
    actions = world.plan(projection(*bodies, world.pod("Succeeded", 0))).actions
    assert [action.of.namespace for action in actions] == [NAMESPACE]


def test_a_log_that_could_not_be_read_is_a_failed_try(world: Any) -> None:
    bodies = [
        world.template(),
        world.model(),
        world.note(),
        world.job("succeeded"),
        world.pod("Succeeded", 0),
    ]
    plan = world.plan(
        projection(*bodies, observations=[world.log(problem="the log is longer than 4 MiB")])
    )
    assert "longer than 4 MiB" in message(plan, "Discovered")


def test_a_pod_missing_on_the_server_is_a_failed_attempt(world: Any) -> None:
    finished = world.job("succeeded")
    observation = Observation(
        Key(JOB.kind, NAMESPACE, finished["metadata"]["name"]),
        LOG,
        ReadLogResult(problem="its pod no longer exists"),
    )
    plan = world.plan(
        projection(
            world.template(), world.model(), world.note(), finished, observations=[observation]
        )
    )
    assert (
        condition_summary(plan, "Discovered"),
        "its pod no longer exists" in message(plan, "Discovered"),
    ) == (
        FAILED,
        True,
    )


def test_a_crash_is_reported_with_exit_code_and_last_lines(world: Any) -> None:
    bodies = [
        world.template(),
        world.model(),
        world.note(),
        world.job("failed"),
        world.pod("Failed", 3),
    ]
    reported = message(
        world.plan(projection(*bodies, observations=[world.log("a\nno such GPU")])), "Discovered"
    )
    assert "exit code 3" in reported
    assert "no such GPU" in reported


@pytest.mark.parametrize(
    ("attempt", "wait_s"), [(1, 60), (2, 120), (4, 480), (6, 1920), (7, 3600), (500, 3600)], ids=str
)
def test_waiting_doubles_up_to_an_hour(world: Any, attempt: int, wait_s: float) -> None:
    plan = world.plan(
        projection(
            world.template(),
            world.model(),
            world.note(),
            world.job("failed", attempt=attempt, ended_s=60),
        )
    )
    assert fields(plan) == {"attempts": attempt, "nextAttemptTime": ago(60 - wait_s)}
    assert f"try {attempt}, next at" in message(plan, "Discovered")


def test_the_first_wait_can_be_set(world: Any) -> None:
    state = projection(
        world.template(), world.model(), world.note(), world.job("failed", attempt=2, ended_s=60)
    )
    assert fields(plan_key(state, world.key, NOW, first_retry_s=5.0)) == {
        "attempts": 2,
        "nextAttemptTime": ago(60 - 10),
    }


def test_the_answer_becomes_status(world: Any) -> None:
    assert fields(
        world.plan(
            projection(world.template(status=tried(3)), world.model(), world.note(answered=True))
        )
    ) == {
        "modelSources": ["hf://org/model"],
        "profile": {
            "engine": "vllm",
            "gpu": "MI300X",
            "precision": "fp8",
            "gpu_count": 8,
            "metric": "latency",
        },
        "attempts": 0,
    }


def test_the_old_answer_stays_while_a_new_one_is_requested(world: Any) -> None:
    plan = world.plan(
        projection(world.template(), world.model("example.org/m:2"), world.note(answered=True))
    )
    note = applied(plan, CONFIG_MAP.kind)
    assert note["data"] == world.note(answered=True)["data"]
    assert (
        note["metadata"]["annotations"][labels.ANNOTATION_INPUTS]
        == world.note(answered=True)["metadata"]["annotations"][labels.ANNOTATION_INPUTS]
    )


OURS = {labels.COMPONENT: "discovery", labels.MANAGED_BY: "aim"}


def busy(count: int, *, started: bool = True, age_s: float = 300) -> list[Body]:
    """Discoveries of other templates."""
    found: list[Body] = []
    for index in range(count):
        name = f"discover-other{index}-0123abcd"
        found.append(testing.cr(TEMPLATE.kind, f"other{index}", {"model": "another"}))
        found.append(job(name, (TEMPLATE.kind, f"other{index}"), labels=OURS, age_s=age_s))
        found.append(
            testing.pod(
                f"pod-{index}",
                (JOB.kind, name),
                "discovery",
                phase="Running" if started else "Pending",
            )
        )
    return found


def creating(count: int) -> list[Observation]:
    return [
        Observation(Key(JOB.kind, "elsewhere", f"new-{index}"), PENDING_CREATE, value=True)
        for index in range(count)
    ]


def test_a_log_read_before_its_pod_was_known_is_read_once(world: Any) -> None:
    job = world.job("succeeded")
    bodies = (world.template(), world.model(), world.note(), job, world.pod("Succeeded", 0))
    of_job = Observation(
        Key(JOB.kind, NAMESPACE, job["metadata"]["name"]),
        LOG,
        digest_log(json.dumps([world.answer]).encode()),
    )
    assert action_summaries(world.plan(projection(*bodies, observations=[of_job]))) == [
        "apply ConfigMap t-discovery"
    ]
    deleted = replace(
        of_job, value=ReadLogResult(problem="the pod was deleted before its log was read")
    )
    assert action_summaries(world.plan(projection(*bodies, observations=[deleted]))) == [
        "read log of p"
    ]


@pytest.mark.parametrize(
    ("others", "under_way", "starts"),
    [
        pytest.param(busy(9), 0, True, id="nine-run"),
        pytest.param(busy(10), 0, False, id="ten-run"),
        pytest.param(busy(7), 3, False, id="seven-run-three-are-being-created"),
        pytest.param(
            busy(10, started=False),
            0,
            True,
            id="pods-that-have-not-started-for-a-minute-do-not-count",
        ),
        pytest.param(busy(10, started=False, age_s=59), 0, False, id="younger-ones-do"),
    ],
)
def test_ten_at_once(world: Any, others: list[Body], under_way: int, *, starts: bool) -> None:
    plan = world.plan(
        projection(world.template(), world.model(), *others, observations=creating(under_way))
    )
    assert (short(action_summaries(plan)), condition_summary(plan, "Discovered")) == (
        (STARTS, AWAITING) if starts else ([], "False AwaitingDiscovery")
    )
    assert starts or plan.requeue_after_s == 60


def test_a_job_that_ends_wakes_the_one_that_waits(world: Any) -> None:
    waits = StatusReported(
        kind=TEMPLATE.kind,
        namespace=NAMESPACE,
        name="t",
        uid="aimservicetemplate-t",
        service="discovery",
        observed_generation=1,
        conditions=(
            ReportedCondition(type="Discovered", status="False", reason="AwaitingDiscovery"),
        ),
    )
    state = projection(world.template(), *busy(1), reports=[waits])
    assert world.key in map_to_keys(
        state, Key(JOB.kind, NAMESPACE, "discover-other0-0123abcd"), namespace=world.own_namespace
    )


@pytest.mark.parametrize(
    "owner",
    [None, ("AIMService", "x"), (TEMPLATE.kind, "other")],
    ids=["without-an-owner", "a-services", "another-templates"],
)
@pytest.mark.parametrize(
    "make",
    [lambda w, owner: w.note(owner=owner), lambda w, owner: w.job(owner=owner)],
    ids=["config-map", "job"],
)
def test_what_is_in_the_way_wakes_the_template_when_it_goes(
    world: Any, make: Any, owner: tuple[str, str] | None
) -> None:
    existing = make(world, owner)
    key = Key(existing["kind"], NAMESPACE, existing["metadata"]["name"])
    deleted = projection(world.template(), world.template("other"), world.model())
    assert world.key in map_to_keys(deleted, key, namespace=world.own_namespace)


def test_a_rejected_job_is_reported(world: Any) -> None:
    state = projection(
        world.template(),
        world.model(),
        observations=[rejected(world.key, Key(JOB.kind, NAMESPACE, "j"), "quota used up")],
    )
    assert "quota used up" in message(world.plan(state), "Discovered")


def test_a_field_conflict_over_the_answer_is_reported(
    world: Any,
) -> None:
    plan = world.plan(
        projection(
            world.template(),
            world.model(),
            world.note(answered=True),
            observations=[field_conflict(NOTE)],
        )
    )
    assert condition_summary(plan, "Discovered") == "True ProfilesDiscovered"
    assert "keeps being changed by bully" in message(plan, "Discovered")
    assert [warning.reason for report in plan.reports for warning in report.warnings] == [
        "Contested"
    ]


def test_a_name_taken_by_an_unwatched_object_is_reported(world: Any) -> None:
    state = projection(
        world.template(),
        world.model(),
        observations=[rejected(world.key, NOTE, "exists", name_taken=True)],
    )
    assert condition_summary(world.plan(state), "Discovered") == "False NameConflict"


def test_an_edited_answer_is_not_recorded_for_the_image(world: Any) -> None:
    edited = world.note(answered=True)
    edited["data"] = {**edited["data"], "image": "example.org/other:1"}
    note = applied(world.plan(projection(world.template(), world.model(), edited)), CONFIG_MAP.kind)
    assert note["data"] == {}
    assert labels.ANNOTATION_INPUTS not in note["metadata"]["annotations"]


def test_labels_of_the_answer_are_repaired_and_its_data_stays(world: Any) -> None:
    note = world.note(answered=True)
    stored = applied(world.plan(projection(world.template(), world.model(), note)), CONFIG_MAP.kind)
    assert (stored["data"], stored["metadata"]["annotations"]) == (
        note["data"],
        note["metadata"]["annotations"],
    )
    assert stored["metadata"]["labels"][labels.MANAGED_BY] == "aim"


@pytest.mark.parametrize(
    ("state", "phase", "exit_code", "answered", "action"),
    [
        pytest.param("succeeded", "Succeeded", 0, False, "read log of p", id="reading-the-log"),
        pytest.param(
            "succeeded",
            "Succeeded",
            0,
            True,
            "apply ConfigMap t-discovery",
            id="keeping-the-answer",
        ),
        pytest.param("failed", "Failed", 1, False, "read log of p", id="reading-why-it-failed"),
    ],
)
def test_any_rejected_object_is_reported(
    world: Any, state: str, phase: str, exit_code: int, answered: bool, action: str
) -> None:
    observations = [
        rejected(world.key, world.key, "no right to do so"),
        *([world.log(json.dumps([world.answer]))] if answered else []),
    ]
    bodies = (
        world.template(),
        world.model(),
        world.note(),
        world.job(state),
        world.pod(phase, exit_code),
    )
    plan = world.plan(projection(*bodies, observations=observations))
    assert action_summaries(plan) == [action]
    assert "no right to do so" in message(plan, "Discovered")


@pytest.mark.parametrize(
    ("pods", "age_s", "text"),
    [
        pytest.param(
            [
                {
                    "containerStatuses": [
                        {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such tag"}}}
                    ]
                }
            ],
            60,
            "no such tag",
            id="pull",
        ),
        pytest.param(
            [{"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}]}],
            60,
            "0/3 nodes",
            id="unschedulable",
        ),
        pytest.param([], 31, "has no pod", id="no-pod"),
        pytest.param([], 5, "is querying the image", id="no-pod-yet"),
    ],
)
def test_what_blocks_a_job_is_reported(
    world: Any, pods: list[Body], age_s: float, text: str
) -> None:
    bodies = [world.pod("Pending", status=status) for status in pods]
    plan = world.plan(
        projection(world.template(), world.model(), world.note(), world.job(age_s=age_s), *bodies)
    )
    assert text in message(plan, "Discovered")


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("t", "discover-t-"),
        ("x" * 80, f"discover-{'x' * 45}-"),
        ("y" * 44 + ".z", f"discover-{'y' * 44}-"),
    ],
    ids=["short", "cut", "no-dot-before-the-hash"],
)
def test_job_names(world: Any, template: str, name: str) -> None:
    state = projection(world.template(template), world.model())
    name_of_job = applied(plan_key(state, Key(TEMPLATE.kind, NAMESPACE, template), NOW), JOB.kind)[
        "metadata"
    ]["name"]
    assert name_of_job.startswith(name)
    assert len(name_of_job) == len(name) + 8 <= 63


LOOSE: st.SearchStrategy[Body] = st.fixed_dictionaries(
    {},
    optional={
        "conditions": st.sampled_from(
            [None, [], [{}], [{"type": "Discovered"}], [{"type": "Complete", "status": "True"}]]
        ),
        "containerStatuses": st.sampled_from(
            [None, [], [{}], [{"name": "discovery", "state": {"terminated": {}}}]]
        ),
        "phase": st.sampled_from([None, "Succeeded", "Failed"]),
        "modelSources": st.just([]),
    },
)


@settings(max_examples=200, deadline=None)
@holds_for(
    status=LOOSE,
    job_status=LOOSE,
    data=st.sampled_from([None, {}, {"result.json": "x"}, {"result.json": "{}"}]),
)
def test_malformed_objects_raise_nothing(status: Body, job_status: Body, data: Body | None) -> None:
    template = testing.cr(
        TEMPLATE.kind,
        "t",
        {
            "model": "m",
            "metric": "latency",
            "gpusPerReplica": 1,
            "gpuModel": "g",
            "tensorParallelism": 1,
        },
    )
    template["status"] = status
    model = testing.cr(MODEL.kind, "m", {"name": "m", "image": "i"}, status=status)
    key = Key(TEMPLATE.kind, NAMESPACE, "t")
    name = applied(plan_key(projection(template, model), key, NOW), JOB.kind)["metadata"]["name"]
    note = testing.obj(CONFIG_MAP.kind, "t-discovery", owner=(TEMPLATE.kind, "t"), data=data)
    at_work = testing.obj(JOB.kind, name, owner=(TEMPLATE.kind, "t"), status=job_status)
    pod = testing.obj("Pod", "p", owner=(JOB.kind, name), status=status)
    assert plan_key(projection(template, model, note, at_work, pod), key, NOW) is not None


SIDECAR = [
    pytest.param(
        lambda w: [w.note(), w.job(), w.ended(0, sidecar=True)],
        ["read log of p"],
        AWAITING,
        id="answered",
    ),
    pytest.param(
        lambda w: [w.note(answered=True), w.job(), w.ended(0, sidecar=True)],
        STORES,
        FOUND,
        id="answer-stored",
    ),
    pytest.param(
        lambda w: [w.note(), w.job(), w.ended(3, sidecar=True)],
        ["read log of p"],
        AWAITING,
        id="crashed",
    ),
    pytest.param(
        lambda w: [w.note(), w.job("failed"), w.ended(0, sidecar=True)],
        ["read log of p"],
        AWAITING,
        id="deadline-after-an-answer",
    ),
    pytest.param(
        lambda w: [w.note(), w.job("failed"), w.ended(0, sidecar=True, deleting=True)],
        ["read log of discover-t-*"],
        AWAITING,
        id="deadline-takes-the-pod-so-the-server-is-read",
    ),
]


@pytest.mark.parametrize(("setup", "actions", "discovered"), SIDECAR)
def test_the_images_own_end_decides(
    world: Any, setup: Setup, actions: list[str], discovered: str
) -> None:
    plan = world.plan(projection(world.template(), world.model(), *setup(world)))
    assert (short(action_summaries(plan)), condition_summary(plan, "Discovered")) == (
        actions,
        discovered,
    )


def test_an_open_job_whose_failure_is_recorded_goes(world: Any) -> None:
    bodies = [
        world.template(status=tried(1)),
        world.model(),
        world.note(),
        world.job(),
        world.ended(3, sidecar=True),
    ]
    plan = world.plan(projection(*bodies, observations=[world.log("no such GPU")]))
    assert (short(action_summaries(plan)), condition_summary(plan, "Discovered")) == (
        CLEARS,
        FAILED,
    )


LIMITED = {"containers": [{"name": "discovery", "resources": {"limits": {"memory": "2Gi"}}}]}
EVICTION = {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}
LATE = {
    "conditions": [
        {
            "type": "Failed",
            "status": "True",
            "reason": "DeadlineExceeded",
            "message": "active for too long",
        }
    ]
}


@pytest.mark.parametrize(
    ("setup", "texts"),
    [
        pytest.param(
            lambda w: [w.job("failed"), w.ended(137, reason="OOMKilled", spec=LIMITED)],
            [
                "OOMKilled",
                "its limit, 2Gi",
                "raise limits.memory in setting AIM_JOB_RESOURCES of aim-discovery",
            ],
            id="out-of-memory",
        ),
        pytest.param(
            lambda w: [w.job("failed"), w.pod("Failed", status=EVICTION)],
            ["Evicted: low on memory"],
            id="evicted",
        ),
        pytest.param(
            lambda w: [w.job("failed")],
            ["BackoffLimitExceeded", "its pod no longer exists"],
            id="pod-deleted",
        ),
        pytest.param(
            lambda w: [w.job(status=LATE), w.ended(137)],
            ["DeadlineExceeded: active for too long", "exit code 137"],
            id="deadline",
        ),
    ],
)
def test_a_failed_try_names_its_cause(world: Any, setup: Setup, texts: list[str]) -> None:
    state = projection(
        world.template(),
        world.model(),
        world.note(),
        *setup(world),
        observations=[world.log("bye")],
    )
    reported = message(world.plan(state), "Discovered")
    assert [text for text in ["try 1", *texts] if text not in reported] == []


SUSPENDED = {"conditions": [{"type": "Suspended", "status": "True"}]}
GATED = {
    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}],
    "phase": "Pending",
}


@pytest.mark.parametrize(
    ("setup", "text"),
    [
        pytest.param(lambda w: [w.job(status=SUSPENDED)], "is suspended", id="suspended"),
        pytest.param(
            lambda w: [w.job(), w.pod("Pending", status=GATED)], "scheduling gate", id="gated"
        ),
    ],
)
def test_what_a_queue_holds_back_is_pending(world: Any, setup: Setup, text: str) -> None:
    plan = world.plan(projection(world.template(), world.model(), world.note(), *setup(world)))
    assert (condition_summary(plan, "Discovered"), action_summaries(plan)) == (
        "False AwaitingDiscovery",
        [],
    )
    assert text in message(plan, "Discovered")


@pytest.mark.parametrize(
    ("started_s", "actions", "requeue_after_s"),
    [(500, [], 70), (571, CLEARS, None)],
    ids=["in-time", "late"],
)
def test_no_deadline_ends_what_a_gate_holds_back(
    world: Any, started_s: float, actions: list[str], requeue_after_s: float | None
) -> None:
    held = world.job(spec={"activeDeadlineSeconds": 600}, status={"startTime": ago(started_s)})
    plan = world.plan(
        projection(
            world.template(), world.model(), world.note(), held, world.pod("Pending", status=GATED)
        )
    )
    assert (short(action_summaries(plan)), plan.requeue_after_s) == (actions, requeue_after_s)
    assert "attempts" not in fields(plan)


def test_an_answered_job_with_an_open_sidecar_takes_no_slot(world: Any) -> None:
    open_jobs: list[Body] = []
    for index in range(10):
        name = f"discover-other-{index}"
        open_jobs.append(
            job(name, (TEMPLATE.kind, f"other{index}"), labels={labels.COMPONENT: "discovery"})
        )
        open_jobs.append(
            testing.ended_pod(f"pod-{index}", (JOB.kind, name), "discovery", 0, sidecar=True)
        )
    assert (
        short(action_summaries(world.plan(projection(world.template(), world.model(), *open_jobs))))
        == STARTS
    )


OTHER = ["delete Job discover-other"]


@pytest.mark.parametrize(
    ("setup", "actions"),
    [
        pytest.param(lambda w: [w.template()], OTHER, id="model-missing"),
        pytest.param(
            lambda w: [w.template(status=FOUND_STATUS), w.model(), w.note(answered=True)],
            [*OTHER, *STORES],
            id="answered",
        ),
        pytest.param(
            lambda w: [w.template(status=tried(3)), w.model(), w.note()],
            OTHER,
            id="failed-and-waiting",
        ),
        pytest.param(
            lambda w: [w.template(), w.model(), *busy(10)], OTHER, id="waiting-for-its-turn"
        ),
        pytest.param(
            lambda w: [w.template(), w.model(), w.note(owner=("Job", "x"))], OTHER, id="name-taken"
        ),
        pytest.param(
            lambda w: [
                w.template(),
                w.model(),
                w.note(),
                w.job("succeeded"),
                w.pod("Succeeded", 0),
            ],
            [*OTHER, "read log of p"],
            id="reading",
        ),
    ],
)
@pytest.mark.parametrize("state", ["active", "failed"])
def test_a_job_for_other_inputs_goes_in_every_state(
    world: Any, setup: Setup, actions: list[str], state: str
) -> None:
    other = job("discover-other", world.owner, state, labels={labels.COMPONENT: "discovery"})
    assert action_summaries(world.plan(projection(*setup(world), other))) == actions


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"images": {"imagePullSecrets": ["x"]}}, id="pull-secrets"),
        pytest.param({"runtime": {"tolerations": [{"operator": "Exists"}]}}, id="tolerations"),
    ],
)
def test_a_pending_job_is_deleted_when_its_config_changes(world: Any, spec: Body) -> None:
    config = testing.cr("AIMNamespaceConfig", "default", spec)
    before = [world.template(), world.model(), world.note(), world.job()]
    for phase, actions in (("Pending", CLEARS), ("Running", [])):
        plan = world.plan(projection(*before, config, world.pod(phase)))
        assert (short(action_summaries(plan)), condition_summary(plan, "Discovered")) == (
            actions,
            AWAITING,
        )


@pytest.mark.parametrize(
    "setup",
    [
        pytest.param(lambda w: [w.model("example.org/m:2"), w.note()], id="image"),
        pytest.param(
            lambda w: [w.model("example.org/m:2"), w.note(), w.job("failed", attempt=9)],
            id="image-while-the-failed-job-exists",
        ),
        pytest.param(
            lambda w: [w.model("example.org/m:2"), w.note(), *busy(10)],
            id="image-while-others-have-their-turn",
        ),
    ],
)
def test_new_inputs_start_counting_in_the_same_report(world: Any, setup: Setup) -> None:
    reported = fields(world.plan(projection(world.template(status=tried(9)), *setup(world))))
    assert (reported["attempts"], "nextAttemptTime" in reported) == (0, False)


@pytest.mark.parametrize(
    "setup",
    [
        pytest.param(lambda w: [w.note()], id="next-try"),
        pytest.param(
            lambda w: [w.note(), w.job(attempt=9), w.pod("Running")], id="the-former-try-still-runs"
        ),
        pytest.param(lambda w: [w.note(), w.job("failed", attempt=9)], id="it-failed"),
    ],
)
def test_asking_again_starts_counting_in_the_same_report(world: Any, setup: Setup) -> None:
    requested_retry = world.template(status=tried(9), annotations={labels.ANNOTATION_RETRY: "1"})
    reported = fields(world.plan(projection(requested_retry, world.model(), *setup(world))))
    assert (reported["attempts"], "nextAttemptTime" in reported) == (0, False)


@pytest.mark.parametrize(
    "setup",
    [
        pytest.param(lambda w: [w.template(), job("discover-other", w.owner)], id="model-missing"),
        pytest.param(
            lambda w: [
                w.template(),
                w.model(),
                w.note(owner=("Job", "x")),
                job("discover-other", w.owner),
            ],
            id="name-taken",
        ),
        pytest.param(
            lambda w: [
                w.template(status=tried(3)),
                w.model(),
                w.note(),
                job("discover-other", w.owner),
            ],
            id="waiting",
        ),
        pytest.param(lambda w: [w.template(), w.model()], id="starting"),
        pytest.param(
            lambda w: [
                w.template(status=FOUND_STATUS),
                w.model(),
                w.note(answered=True),
                w.job("succeeded"),
            ],
            id="clearing-up",
        ),
    ],
)
@pytest.mark.parametrize("transient", [False, True], ids=["for-good", "for-now"])
def test_every_rejection_is_reported(world: Any, setup: Setup, *, transient: bool) -> None:
    rejected = Observation(
        world.key,
        REJECTED,
        ApplyRejected(Key(JOB.kind, NAMESPACE, "j"), "denied by webhook: no", transient=transient),
    )
    plan = world.plan(projection(*setup(world), observations=[rejected]))
    assert "denied by webhook: no" in message(plan, "Discovered")
    assert plan.actions
