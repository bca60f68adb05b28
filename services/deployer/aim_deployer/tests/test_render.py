"""The InferenceService, as it is sent. AIM_WRITE_GOLDEN=1 rewrites the files in golden/."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from aimservice.testing import Body, applied, golden, plain, projection

GOLDEN = Path(__file__).parent / "golden"


def recorded(name: str, body: Body) -> None:
    golden(GOLDEN / f"{name}.yaml", yaml.safe_dump(plain(body), sort_keys=False, allow_unicode=True, width=150))


CREDENTIALS = {"huggingFaceToken": {"name": "hf", "key": "token"}, "s3": [{"region": "eu-north-1"}]}


def cases(world: Any) -> dict[str, list[Body]]:
    return {
        "cached": world.parts(replicas=2),
        "uncached": [*world.parts("ModelCache", cacheModel=False), world.config(credentials=CREDENTIALS, images={"imagePullSecrets": ["registry"]})],
        "stopped": [
            *world.parts("AIMServiceTemplate", replicas=0),
            world.template({"gpuModel": "H100", "precision": "bf16", "metric": "throughput"}),
        ],
        "plain-profile": [*world.parts("ConfigMap"), world.result(profile={})],
    }


@pytest.mark.parametrize("name", ["cached", "uncached", "stopped", "plain-profile"])
def test_the_object_is_as_recorded(world: Any, name: str) -> None:
    recorded(name, applied(world.plan(projection(*cases(world)[name])), "InferenceService"))


def test_the_same_input_renders_the_same_object_whatever_runs(world: Any) -> None:
    first = applied(world.plan(projection(*world.parts())), "InferenceService")
    assert applied(world.plan(projection(*world.parts(), world.runtime(False))), "InferenceService") == first
