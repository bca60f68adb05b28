"""The objects of a discovery, as they are sent. AIM_WRITE_GOLDEN=1 rewrites the files in golden/."""

import json
from typing import Any

from aimservice import testing
from aimservice.testing import applied, golden, projection


def test_the_objects_are_as_recorded(world: Any) -> None:
    config = testing.cr("AIMNamespaceConfig", "default", {"images": {"imagePullSecrets": ["registry"]}})
    golden(__file__, "discovery-job", world.wanted("Job", world.template(), world.model(), config))
    bodies = [world.template(), world.model(), world.note(), world.job("succeeded"), world.pod("Succeeded", 0)]
    answered = world.plan(projection(*bodies, learned=[world.log(json.dumps([world.answer]))]))
    golden(__file__, "result-config-map", applied(answered, "ConfigMap"))
