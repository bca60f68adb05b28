"""The InferenceService, as it is sent. AIM_WRITE_GOLDEN=1 rewrites the files in golden/."""

from typing import Any

import pytest

from aimservice.testing import Body, applied, golden, projection

SECOND = "s3://models/org/adapter"
CREDENTIALS = {"huggingFaceToken": {"name": "hf", "key": "token"}, "s3": [{"region": "eu-north-1"}]}


def cases(world: Any) -> dict[str, list[Body]]:
    return {
        "cached": world.parts(replicas=2),
        "uncached": [*world.parts("ModelCache", cacheModel=False), world.config(credentials=CREDENTIALS, images={"imagePullSecrets": ["registry"]})],
        "stopped": [
            *world.parts("AIMServiceTemplate", replicas=0),
            world.template({"gpuModel": "H100", "precision": "bf16", "metric": "throughput"}),
        ],
        "two-sources": [*world.parts("ConfigMap"), world.result(world.uri, SECOND), world.cache(name="d", uri=SECOND)],
        "plain-profile": [*world.parts("ConfigMap"), world.result(profile={})],
    }


@pytest.mark.parametrize("name", ["cached", "two-sources", "uncached", "stopped", "plain-profile"])
def test_the_object_is_as_recorded(world: Any, name: str) -> None:
    golden(__file__, f"inference-service.{name}", applied(world.plan(projection(*cases(world)[name])), "InferenceService"))


def test_the_same_input_renders_the_same_object_whatever_runs(world: Any) -> None:
    first = applied(world.plan(projection(*world.parts())), "InferenceService")
    assert applied(world.plan(projection(*world.parts(), world.runtime(False))), "InferenceService") == first
