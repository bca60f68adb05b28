"""An upgrade restarts nothing: an object stays at its render version until its pods change
anyway."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from aim_deployer.versions import pod_part
from aimcontroller.testing import Body, applied, projection
from aimschema.resources import INFERENCE_SERVICE, SERVICE

Setup = Callable[[Any], list[Body]]
RENDER = "aim.silogen.ai/render"
ENV = {"VLLM_USE_V1": True, "THREADS": 8}


def sent(world: Any, *setup: Body) -> Body:
    return applied(world.plan(projection(*setup)), INFERENCE_SERVICE.kind)


def as_kserve_stores_it(existing: Body) -> Body:
    """With what its webhook and the kind's schema add, and without empty values."""
    stored = copy.deepcopy(existing)
    predictor = stored["spec"]["predictor"]
    container = predictor["containers"][0]
    container["imagePullPolicy"] = "IfNotPresent"
    container["env"] = [
        {name: value for name, value in each.items() if value != ""} for each in container["env"]
    ]
    container["readinessProbe"]["timeoutSeconds"] = 1
    predictor["tolerations"] = [{"key": "theirs", "operator": "Exists"}]
    stored["metadata"]["labels"]["theirs"] = "stays"
    return stored


def as_published(existing: Body) -> Body:
    """Without literal environment."""
    expected = copy.deepcopy(existing)
    for container in expected["spec"]["predictor"]["containers"]:
        container["env"] = [
            {name: value for name, value in each.items() if name != "value"}
            for each in container["env"]
        ]
    return expected


@pytest.mark.parametrize("changed", [copy.deepcopy, as_kserve_stores_it, as_published])
def test_an_existing_object_stays_at_its_version(
    world: Any, changed: Callable[[Body], Body]
) -> None:
    existing = world.first_runtime()
    body = sent(world, *world.parts(), changed(existing), world.ready_pod())
    assert RENDER not in body["metadata"]["annotations"]
    assert pod_part(body) == pod_part(existing)


@pytest.mark.parametrize(
    ("memory", "version"),
    [("1Ti", None), ("1024Gi", None), (1 << 40, None), ("1025Gi", "2"), (None, "2"), ("much", "2")],
)
def test_quantities_are_compared_by_value(world: Any, memory: Any, version: str | None) -> None:
    parts = [*world.parts("AIMServiceTemplate"), world.template({"gpusPerReplica": 32})]
    existing = world.first_runtime(*parts)
    existing["spec"]["predictor"]["containers"][0]["resources"]["requests"]["memory"] = memory
    assert sent(world, *parts, existing)["metadata"]["annotations"].get(RENDER) == version


@pytest.mark.parametrize(
    "setup",
    [
        pytest.param(lambda w: w.parts(replicas=2), id="more-replicas"),
        pytest.param(lambda w: w.parts(replicas=0), id="stopped"),
        pytest.param(
            lambda w: [*w.parts(SERVICE.kind), w.service(annotations={RENDER: "2"})],
            id="unknown-value",
        ),
    ],
)
def test_a_change_without_pods_leaves_the_version(world: Any, setup: Setup) -> None:
    body = sent(world, *setup(world), world.first_runtime())
    assert pod_part(body) == pod_part(world.first_runtime())


@pytest.mark.parametrize(
    "setup",
    [
        pytest.param(
            lambda w: [
                *w.parts("ConfigMap"),
                w.record("example.org/m:2"),
                w.result(image="example.org/m:2"),
            ],
            id="image",
        ),
        pytest.param(
            lambda w: [*w.parts("AIMServiceTemplate"), w.template({"gpusPerReplica": 4})], id="gpus"
        ),
        pytest.param(
            lambda w: [*w.parts(), w.config(images={"imagePullSecrets": ["registry"]})],
            id="pull-secret",
        ),
        pytest.param(
            lambda w: [*w.parts("ConfigMap"), w.result(profile={**w.profile, "env_vars": ENV})],
            id="environment",
        ),
        pytest.param(
            lambda w: [
                *w.parts("ConfigMap"),
                w.result(profile={**w.profile, "engine_args": {"a": 1}}),
            ],
            id="engine-arguments",
        ),
        pytest.param(
            lambda w: [*w.parts(SERVICE.kind), w.service(annotations={RENDER: "latest"})],
            id="requested",
        ),
    ],
)
def test_what_changes_pods_anyway_moves_to_the_newest(world: Any, setup: Setup) -> None:
    body = sent(world, *setup(world), world.first_runtime(), world.ready_pod())
    assert body["metadata"]["annotations"][RENDER] == "2"
    assert body["spec"]["predictor"]["tolerations"] == [
        {"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]


@pytest.mark.parametrize("annotation", ["2", "3", "latest", "", "-1", "0"])
def test_a_current_or_unknown_version_is_the_newest(world: Any, annotation: str) -> None:
    existing = world.first_runtime()
    existing["metadata"]["annotations"][RENDER] = annotation
    assert sent(world, *world.parts(), existing)["metadata"]["annotations"][RENDER] == "2"


def test_a_new_object_is_of_the_newest_version(world: Any) -> None:
    assert sent(world, *world.parts())["metadata"]["annotations"][RENDER] == "2"


def test_a_device_that_was_added_counts_from_its_version_on(world: Any) -> None:
    parts = [*world.parts("AIMServiceTemplate"), world.template({"gpuModel": "MI308X"})]
    assert "74bc" not in str(world.rendered(*parts, version=1))
    assert "74bc" in str(world.rendered(*parts, version=2))
    assert "74bc" not in str(sent(world, *parts, world.first_runtime(*parts)))
