"""A cache that is marked for eviction: nothing mounts it, and who needs it removes the mark."""

from typing import Any

import pytest

from aimcontroller.action import PatchObject
from aimcontroller.plan import Plan
from aimcontroller.testing import (
    Body,
    action_summaries,
    condition_summary,
    message,
    projection,
    status_condition,
)
from aimschema import labels, reasons
from aimschema.resources import CACHE, SERVICE

MARK = "2026-01-01T00:00:00Z"


def marked(world: Any, state: str = "Available") -> Body:
    cache: Body = world.cache(state)
    cache["metadata"]["annotations"] = {labels.ANNOTATION_EVICTING: MARK}
    return cache


def unmarked(plan: Plan) -> list[str]:
    """The caches whose marks a plan removes."""
    return [
        action.key.name
        for action in plan.actions
        if isinstance(action, PatchObject)
        and action.patch["metadata"]["annotations"] == {labels.ANNOTATION_EVICTING: None}
    ]


@pytest.mark.parametrize("state", ["Available", "Progressing"])
def test_a_new_service_removes_the_mark_and_waits(world: Any, state: str) -> None:
    plan = world.plan(projection(*world.parts(CACHE.kind), marked(world, state)))
    assert unmarked(plan) == ["c"]
    assert "apply InferenceService s" not in action_summaries(plan)
    assert condition_summary(plan, reasons.CACHE_READY) == "False CacheWarming"


def test_the_mark_is_removed_from_the_version_that_has_it(world: Any) -> None:
    plan = world.plan(projection(*world.parts(CACHE.kind), marked(world)))
    (patch,) = [action for action in plan.actions if isinstance(action, PatchObject)]
    assert (patch.uid, patch.patch["metadata"]["resourceVersion"]) == ("modelcache-c", "1")


def test_a_running_service_removes_the_mark_and_keeps_running(world: Any) -> None:
    plan = world.plan(projection(*world.parts(CACHE.kind), marked(world), *world.runs()))
    assert unmarked(plan) == ["c"]
    assert "apply InferenceService s" not in action_summaries(plan)


def test_a_stopped_service_removes_the_mark(world: Any) -> None:
    state = projection(*world.parts(CACHE.kind, replicas=0), marked(world))
    assert unmarked(world.plan(state)) == ["c"]


@pytest.mark.parametrize("cached", [True, False])
def test_who_needs_no_cache_leaves_the_mark(world: Any, cached: bool) -> None:
    """A service that loads its model itself, unless it mounts the cache since its first render."""
    service = world.service(cacheModel=False)
    parts = [*world.parts(CACHE.kind, SERVICE.kind), service, marked(world)]
    plan = world.plan(projection(*parts, *([world.runtime()] if cached else [])))
    assert unmarked(plan) == (["c"] if cached else [])


def test_a_cache_without_a_mark_is_mounted_at_once(world: Any) -> None:
    plan = world.plan(projection(*world.parts()))
    assert unmarked(plan) == []
    assert "apply InferenceService s" in action_summaries(plan)


def test_a_cache_that_gets_no_storage_has_failed(world: Any) -> None:
    ready = status_condition("Ready", False, reasons.QUOTA_EXCEEDED, "the quota is 1Gi")
    waiting = world.cache("Pending", conditions=[ready])
    plan = world.plan(projection(*world.parts(CACHE.kind), waiting))
    assert condition_summary(plan, reasons.CACHE_READY) == "False CacheFailed"
    assert message(plan, reasons.CACHE_READY) == "ModelCache c failed: the quota is 1Gi"
