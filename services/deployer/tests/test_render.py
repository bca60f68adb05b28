"""The objects, as they are sent. AIM_WRITE_GOLDEN=1 rewrites the files in golden/, but those of
version 1 never change."""

from typing import Any

import pytest

from aimcontroller.testing import Body, applied, golden, projection
from aimschema.resources import BUDGET, INFERENCE_SERVICE

SECOND = "s3://models/org/adapter"
CREDENTIALS = {"huggingFaceToken": {"name": "hf", "key": "token"}, "s3": [{"region": "eu-north-1"}]}
ROLLS = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
RECREATES = {"type": "Recreate"}


def cases(world: Any) -> dict[str, list[Body]]:
    return {
        "cached": world.parts(replicas=2),
        "uncached": [
            *world.parts("ModelCache", cacheModel=False),
            world.config(credentials=CREDENTIALS, images={"imagePullSecrets": ["registry"]}),
        ],
        "stopped": [
            *world.parts("AIMServiceTemplate", replicas=0),
            world.template({"gpuModel": "H100", "precision": "bf16", "metric": "throughput"}),
        ],
        "two-sources": [
            *world.parts("ConfigMap"),
            world.result(world.uri, SECOND),
            world.cache(name="d", uri=SECOND),
        ],
        "plain-profile": [*world.parts("ConfigMap"), world.result(profile={})],
    }


CASES = ["cached", "two-sources", "uncached", "stopped", "plain-profile"]


@pytest.mark.parametrize("name", CASES)
def test_version_1_is_as_recorded(world: Any, name: str) -> None:
    """All but the strategy, which is no part of the pod template and so not of a version."""
    body = world.rendered(*cases(world)[name], version=1)
    body["spec"]["predictor"]["deploymentStrategy"] = ROLLS
    golden(__file__, f"inference-service.{name}", body)


@pytest.mark.parametrize("name", [*CASES, "device-added-later"])
def test_version_2_is_as_recorded(world: Any, name: str) -> None:
    setup = cases(world) | {
        "device-added-later": [
            *world.parts("AIMServiceTemplate"),
            world.template({"gpuModel": "MI308X"}),
        ]
    }
    golden(
        __file__,
        f"inference-service.version-2-{name}",
        applied(world.plan(projection(*setup[name])), INFERENCE_SERVICE.kind),
    )


def test_the_budget_is_as_recorded(world: Any) -> None:
    golden(
        __file__,
        "disruption-budget",
        applied(world.plan(projection(*world.parts(replicas=2))), BUDGET.kind),
    )


@pytest.mark.parametrize(
    ("replicas", "strategy"), [(0, ROLLS), (1, RECREATES), (2, ROLLS), (8, ROLLS)]
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_single_replica_is_recreated(
    world: Any, replicas: int, strategy: Body, version: int
) -> None:
    body = world.rendered(*world.parts(replicas=replicas), version=version)
    assert body["spec"]["predictor"]["deploymentStrategy"] == strategy


def test_the_same_input_renders_the_same_object(world: Any) -> None:
    first = applied(world.plan(projection(*world.parts())), "InferenceService")
    assert (
        applied(world.plan(projection(*world.parts(), world.runtime(False))), "InferenceService")
        == first
    )
