"""Stopping and starting with any input missing, and releasing the volumes of deleted caches."""

from collections.abc import Callable
from typing import Any

import pytest

from aimcontroller.action import PatchObject
from aimcontroller.additions import merge
from aimcontroller.plan import Plan
from aimcontroller.testing import (
    NAMESPACE,
    Body,
    action_summaries,
    condition_summary,
    message,
    obj,
    projection,
    rejected,
    status_condition,
)
from aimschema.resources import BUDGET, INFERENCE_SERVICE, SERVICE, Key

Setup = Callable[[Any], list[Body]]
STOP = "serving.kserve.io/stop"
APPLY = "apply InferenceService s"
PATCH = "patch InferenceService s"
ISVC = Key(INFERENCE_SERVICE.kind, NAMESPACE, "s")
CACHES_FAILED = status_condition("Ready", False, "WarmFailed")
CACHE_TAKEN = status_condition("Ready", False, "NameConflict")
MISSING = [
    pytest.param(lambda w, **spec: w.parts("AIMServiceTemplate", **spec), id="template"),
    pytest.param(lambda w, **spec: w.parts("AIMClusterModel", **spec), id="model"),
    pytest.param(lambda w, **spec: w.parts("ConfigMap", **spec), id="answer"),
    pytest.param(lambda w, **spec: w.parts("ModelCache", **spec), id="cache"),
    pytest.param(lambda w, **spec: w.parts(configRef="gone", **spec), id="named-config"),
    pytest.param(
        lambda w, **spec: [*w.parts("ModelCache", **spec), w.cache("Failed")], id="cache-that-works"
    ),
]


def patched(plan: Plan) -> Body:
    [patch] = [action.patch for action in plan.actions if isinstance(action, PatchObject)]
    return patch


def stopped(world: Any, **setup: Any) -> Body:
    """The InferenceService as stopping leaves it."""
    patch = {
        "metadata": {"annotations": {STOP: "true"}},
        "spec": {"predictor": {"minReplicas": 0, "maxReplicas": 0}},
    }
    return merge(world.runtime(False, **setup), patch)  # type: ignore[no-any-return]


@pytest.mark.parametrize("setup", MISSING)
def test_a_service_stops_although_objects_are_missing(
    world: Any, setup: Callable[..., list[Body]]
) -> None:
    plan = world.plan(projection(*setup(world, replicas=0), *world.runs()))
    assert (action_summaries(plan), condition_summary(plan, "RuntimeReady")) == (
        [PATCH],
        "False CreatingRuntime",
    )
    assert patched(plan) == {
        "metadata": {"annotations": {STOP: "true"}},
        "spec": {"predictor": {"minReplicas": 0, "maxReplicas": 0}},
    }
    after = world.plan(projection(*setup(world, replicas=0), stopped(world)))
    assert (action_summaries(after), condition_summary(after, "RuntimeReady")) == (
        [],
        "True Stopped",
    )


@pytest.mark.parametrize("setup", MISSING[:3])
def test_a_service_starts_although_objects_are_missing(
    world: Any, setup: Callable[..., list[Body]]
) -> None:
    plan = world.plan(projection(*setup(world, replicas=3), world.cache(), stopped(world)))
    assert PATCH in action_summaries(plan)
    assert patched(plan) == {
        "metadata": {"annotations": {STOP: None}},
        "spec": {"predictor": {"minReplicas": 3, "maxReplicas": 3}},
    }


@pytest.mark.parametrize(
    ("pods", "runtime"),
    [
        pytest.param(lambda _: [], "True Stopped", id="none"),
        pytest.param(lambda w: [w.ready_pod()], "False CreatingRuntime", id="ready"),
        pytest.param(lambda w: [w.pod()], "False CreatingRuntime", id="not-ready"),
        pytest.param(lambda w: [w.ready_pod(deleting=True)], "False CreatingRuntime", id="going"),
        pytest.param(
            lambda w: [w.pod(status={"phase": "Failed", "reason": "Evicted"})],
            "True Stopped",
            id="evicted",
        ),
        pytest.param(
            lambda w: [w.pod(status={"phase": "Failed", "reason": "Evicted"}), w.pod("other")],
            "False CreatingRuntime",
            id="one-evicted",
        ),
    ],
)
def test_stopped_is_reported_when_no_pod_is_left(world: Any, pods: Setup, runtime: str) -> None:
    """A KServe that does not know the annotation does not remove the pods, and the service is
    never Stopped."""
    plan = world.plan(projection(*world.parts(replicas=0), stopped(world), *pods(world)))
    assert condition_summary(plan, "RuntimeReady") == runtime
    assert ("stopping" in message(plan, "RuntimeReady")) is (runtime == "False CreatingRuntime")


def test_a_service_without_a_runtime_is_stopped(world: Any) -> None:
    assert (
        condition_summary(
            world.plan(projection(*world.parts("AIMServiceTemplate", replicas=0))), "RuntimeReady"
        )
        == "True Stopped"
    )


def test_a_service_with_a_rejected_spec_can_be_stopped(world: Any) -> None:
    state = projection(
        *world.parts(replicas=0),
        *world.runs(),
        observations=[rejected(world.key, ISVC, "webhook says no")],
    )
    assert action_summaries(world.plan(state))[:2] == [PATCH, APPLY]
    after = projection(
        *world.parts(replicas=0),
        stopped(world),
        observations=[rejected(world.key, ISVC, "webhook says no")],
    )
    assert condition_summary(world.plan(after), "RuntimeReady") == "True Stopped"
    assert "webhook says no" in message(world.plan(after), "RuntimeReady")


def never_ready(world: Any) -> Body:
    container = {
        "name": "kserve-container",
        "ready": False,
        "started": False,
        "state": {"running": {}},
    }
    pod: Body = world.pod(status={"phase": "Running", "containerStatuses": [container]})
    return pod


def ready_before(world: Any) -> Body:
    container = {
        "name": "kserve-container",
        "ready": False,
        "started": True,
        "state": {"running": {}},
    }
    pod: Body = world.pod(status={"phase": "Running", "containerStatuses": [container]})
    return pod


LOST = [
    pytest.param(lambda w: w.parts("ModelCache"), id="cache-deleted"),
    pytest.param(
        lambda w: [*w.parts("ModelCache"), w.cache("Pending")], id="cache-that-waits-for-the-volume"
    ),
    pytest.param(
        lambda w: [*w.parts("ModelCache"), w.cache("Failed")], id="cache-that-failed-for-it"
    ),
    pytest.param(lambda w: w.parts("ModelCache", "AIMServiceTemplate"), id="template-too"),
    pytest.param(
        lambda w: [
            *w.parts("ModelCache", "ConfigMap"),
            w.record("example.org/m:2"),
            w.result(image="example.org/m:2"),
        ],
        id="image-put-right",
    ),
]


@pytest.mark.parametrize("setup", LOST)
def test_pods_that_do_not_run_release_a_lost_volume(world: Any, setup: Setup) -> None:
    plan = world.plan(projection(*setup(world), world.runtime(False), never_ready(world)))
    assert action_summaries(plan) == [PATCH]
    assert patched(plan)["metadata"]["annotations"] == {STOP: "true"}
    after = world.plan(projection(*setup(world), stopped(world)))
    assert (action_summaries(after), condition_summary(after, "RuntimeReady")) == (
        [],
        "False CreatingRuntime",
    )
    assert "starts once the cache is warm" in message(after, "RuntimeReady")


@pytest.mark.parametrize("setup", LOST)
@pytest.mark.parametrize(
    "pod", [lambda w: w.ready_pod(), ready_before], ids=["ready", "not-ready-for-a-moment"]
)
def test_running_pods_hold_their_volume(
    world: Any, setup: Setup, pod: Callable[[Any], Body]
) -> None:
    assert (
        action_summaries(world.plan(projection(*setup(world), world.runtime(), pod(world)))) == []
    )


def test_it_starts_again_when_the_cache_is_warm(world: Any) -> None:
    plan = world.plan(projection(*world.parts(), stopped(world)))
    assert action_summaries(plan) == [APPLY]
    assert condition_summary(plan, "CacheReady") == "True CacheWarm"


def test_the_holder_of_a_volume_gets_a_remedy(world: Any) -> None:
    plan = world.plan(projection(*world.parts("ModelCache"), *world.runs()))
    assert condition_summary(plan, "CacheReady") == "False CacheLost"
    assert "set spec.replicas of AIMService s to 0" in message(plan, "CacheReady")


def test_a_stopped_service_follows_a_deleted_config(world: Any) -> None:
    assert (
        action_summaries(
            world.plan(projection(*world.parts(), world.runtime(False, config=True), world.pod()))
        )[0]
        == APPLY
    )


@pytest.mark.parametrize(
    ("conditions", "resolved"),
    [
        pytest.param(
            [status_condition("Discovered", False, "DiscoveryFailed", "no JSON")],
            "False TemplateFailed",
            id="discovery-failed",
        ),
        pytest.param(
            [status_condition("Discovered", False, "NameConflict", "taken")],
            "False TemplateFailed",
            id="name-taken",
        ),
        pytest.param(
            [status_condition("Discovered", True, "ProfilesDiscovered"), CACHES_FAILED],
            "False TemplateNotReady",
            id="warm-failed",
        ),
        pytest.param(
            [status_condition("Discovered", None, "AwaitingDiscovery"), CACHES_FAILED],
            "False TemplateNotReady",
            id="asked-again",
        ),
        pytest.param(
            [status_condition("Discovered", True, "ProfilesDiscovered"), CACHE_TAKEN],
            "False TemplateNotReady",
            id="cache-name",
        ),
    ],
)
def test_only_a_failed_discovery_fails_a_service(
    world: Any, conditions: list[Body], resolved: str
) -> None:
    template = world.template(status={"status": "Failed", "conditions": conditions})
    assert (
        condition_summary(
            world.plan(projection(*world.parts("ConfigMap", "AIMServiceTemplate"), template)),
            "Resolved",
        )
        == resolved
    )


def budget(**fields: Any) -> Body:
    return obj(
        BUDGET.kind, "s", **{"owner": (SERVICE.kind, "s"), "spec": {"maxUnavailable": 1}, **fields}
    )


BUDGETED = "apply PodDisruptionBudget s"


@pytest.mark.parametrize(
    ("replicas", "setup", "expected"),
    [
        pytest.param(2, lambda _: [], [APPLY, BUDGETED], id="two"),
        pytest.param(2, lambda w: w.runs(), [APPLY, BUDGETED], id="two-that-run"),
        pytest.param(1, lambda _: [], [APPLY], id="one"),
        pytest.param(
            1, lambda _: [budget()], [APPLY, "delete PodDisruptionBudget s"], id="from-two-to-one"
        ),
        pytest.param(
            0,
            lambda w: [stopped(w), budget()],
            [APPLY, "delete PodDisruptionBudget s"],
            id="stopped",
        ),
        pytest.param(1, lambda _: [budget(deleting=True)], [APPLY], id="going"),
        pytest.param(
            1, lambda _: [budget(owner=(SERVICE.kind, "other"))], [APPLY], id="of-another-owner"
        ),
    ],
)
def test_two_replicas_have_a_disruption_budget(
    world: Any, replicas: int, setup: Setup, expected: list[str]
) -> None:
    assert (
        action_summaries(world.plan(projection(*world.parts(replicas=replicas), *setup(world))))
        == expected
    )


def test_a_budget_needs_nothing_but_the_service(world: Any) -> None:
    lacks = world.parts("AIMServiceTemplate", replicas=2)
    assert action_summaries(world.plan(projection(*lacks, *world.runs()))) == [BUDGETED]
    assert action_summaries(world.plan(projection(*lacks))) == []


def test_a_budget_of_another_owner_is_a_name_conflict(world: Any) -> None:
    taken = rejected(world.key, Key(BUDGET.kind, NAMESPACE, "s"), "exists", name_taken=True)
    plan = world.plan(projection(*world.parts(replicas=2), *world.runs(), observations=[taken]))
    assert condition_summary(plan, "RuntimeReady") == "False NameConflict"
    assert "PodDisruptionBudget s" in message(plan, "RuntimeReady")


def test_a_rejected_budget_stops_no_running_service(world: Any) -> None:
    quota = rejected(world.key, Key(BUDGET.kind, NAMESPACE, "s"), "exceeded quota: budgets")
    plan = world.plan(projection(*world.parts(replicas=2), *world.runs(), observations=[quota]))
    assert condition_summary(plan, "RuntimeReady") == "True RuntimeReady"
    assert "exceeded quota: budgets" in message(plan, "RuntimeReady")
