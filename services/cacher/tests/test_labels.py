"""Labels that a cache passes on to what is created for it."""

from typing import Any

import pytest

from aim_cacher.job_options import JobOptions
from aim_cacher.plan import plan
from aimcontroller.action import ApplyObject
from aimcontroller.testing import NOW, Body, projection, storage_class
from aimschema.labels import KUEUE_QUEUE

OWN = {"team": "vision", KUEUE_QUEUE: "downloads", "app.kubernetes.io/part-of": "chart"}
MATCH = {"labelPropagation": {"match": ["*"]}}
SIZED = "20Gi"


def bodies(world: Any, size: str | None, own: Body, *objects: Body) -> dict[str, Body]:
    """What the plan applies, by kind."""
    state = projection(world.cache(size, labels=own), storage_class(), *objects)
    planned = plan(state, world.key, NOW, options=JobOptions("example.org/d:1", ca="PEM"))
    applied = (getattr(each, "claim", None) or each for each in planned.actions)
    found = [each.body if isinstance(each, ApplyObject) else each for each in applied]
    return {str(body["kind"]): body for body in found if isinstance(body, dict)}


def labels_of(body: Body) -> Body:
    found: Body = body["metadata"]["labels"]
    return {name: text for name, text in found.items() if name in OWN}


CASES = [
    pytest.param(SIZED, False, {"PersistentVolumeClaim"}, id="claim"),
    pytest.param(None, False, {"ConfigMap", "Job"}, id="size-job"),
    pytest.param(SIZED, True, {"PersistentVolumeClaim", "ConfigMap", "Job"}, id="download-job"),
]


@pytest.mark.parametrize(("size", "has_claim", "kinds"), CASES)
def test_matching_labels_reach_all_objects(
    world: Any, size: str | None, has_claim: bool, kinds: set[str]
) -> None:
    claims = [world.claim()] if has_claim else []
    found = bodies(world, size, OWN, *claims, world.config(**MATCH))
    assert found.keys() == kinds
    for body in found.values():
        assert labels_of(body) == {"team": "vision", KUEUE_QUEUE: "downloads"}
    if job := found.get("Job"):
        assert labels_of(job["spec"]["template"]) == {"team": "vision"}


@pytest.mark.parametrize(("size", "has_claim", "kinds"), CASES)
def test_without_a_match_only_the_queue_is_passed_on(
    world: Any, size: str | None, has_claim: bool, kinds: set[str]
) -> None:
    claims = [world.claim()] if has_claim else []
    found = bodies(world, size, OWN, *claims, world.config())
    assert found.keys() == kinds
    assert all(labels_of(body) == {KUEUE_QUEUE: "downloads"} for body in found.values())
