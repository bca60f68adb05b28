"""The objects of a discovery, as they are sent. AIM_WRITE_GOLDEN=1 rewrites the files in golden/."""

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from aimservice import testing
from aimservice.testing import Body, applied, golden, plain, projection

GOLDEN = Path(__file__).parent / "golden"


def recorded(name: str, body: Body) -> None:
    golden(GOLDEN / f"{name}.yaml", yaml.safe_dump(plain(body), sort_keys=False, allow_unicode=True, width=150))


def test_the_objects_are_as_recorded(world: Any) -> None:
    config = testing.cr("AIMNamespaceConfig", "default", {"images": {"imagePullSecrets": ["registry"]}})
    recorded("job", world.wanted("Job", world.template(), world.model(), config))
    bodies = [world.template(), world.model(), world.note(), world.job("succeeded"), world.pod("Succeeded", 0)]
    answered = world.plan(projection(*bodies, learned=[world.log(json.dumps([world.answer]))]))
    recorded("configmap", applied(answered, "ConfigMap"))


@pytest.mark.parametrize("name", ["job", "configmap"])
def test_kubernetes_takes_them(name: str) -> None:
    kubernetes_validate.validate(yaml.safe_load((GOLDEN / f"{name}.yaml").read_text()), "1.32", strict=True)
