"""A cache waits for a quota, makes room for another, or is unused for too long."""

import datetime
from typing import Any

import pytest

from aim_cacher.actions import CreateClaim, EvictCache
from aimcontroller.action import PatchObject
from aimcontroller.plan import Plan
from aimcontroller.testing import (
    NAMESPACE,
    NOW,
    Body,
    action_summaries,
    ago,
    condition_summary,
    config_map,
    message,
    obj,
    pod,
    projection,
    status_condition,
    storage_class,
)
from aimschema import labels, reasons
from aimschema.messages import timestamp
from aimschema.quantities import GI
from aimschema.resources import CACHE, CLAIM, Key

MADE = {labels.MANAGED_BY: labels.MANAGED_BY_AIM}
DAY_S = 86400.0


def filled(name: str, size: str = "10Gi", *, used_s: float = DAY_S, **fields: Any) -> list[Body]:
    """A cache that the control plane created, and its claim. It was last used `used_s` ago."""
    status = {
        "status": "Available",
        "lastUsed": ago(used_s),
        "conditions": [status_condition(reasons.FILLED, True), status_condition("Ready", True)],
    }
    spec = {"sourceUri": f"hf://org/{name}", "size": size}
    cache = obj(
        CACHE.kind, name, **{"spec": spec, "status": status, "labels": MADE, "age_s": 1e6, **fields}
    )
    return [cache, claim_of(name, size)]


def claim_of(name: str, size: str, **fields: Any) -> Body:
    body = obj(
        CLAIM.kind,
        f"{name}-cache",
        owner=(CACHE.kind, name),
        spec={"resources": {"requests": {"storage": size}}, "storageClassName": "fast"},
        status={"phase": "Bound", "capacity": {"storage": size}},
        **fields,
    )
    body["metadata"]["annotations"] = {labels.ANNOTATION_FILLED: "r"}
    return body


def marked(name: str, since_s: float, **fields: Any) -> list[Body]:
    return filled(name, annotations={labels.ANNOTATION_EVICTING: ago(since_s)}, **fields)


def planned(world: Any, name: str, *bodies: Body, quota: str | None = "20Gi", **more: Any) -> Plan:
    """The plan of a cache in a namespace with these objects and this quota."""
    caching = {**({} if quota is None else {"quota": quota}), **more.pop("caching", {})}
    config = world.config(caching=caching)
    state = projection(storage_class(), config, *bodies)
    result: Plan = world.plan(state, name, **more)
    return result


def marks(plan: Plan) -> dict[str, object]:
    """The marks that a plan writes, by cache."""
    return {
        action.key.name: action.patch["metadata"]["annotations"][labels.ANNOTATION_EVICTING]
        for action in plan.actions
        if isinstance(action, PatchObject)
    }


def test_without_a_quota_a_claim_is_applied_as_before(world: Any) -> None:
    plan = planned(world, "c", world.cache(), *filled("old", "900Ti"), quota=None)
    assert action_summaries(plan) == ["apply PersistentVolumeClaim c-cache"]


def test_a_claim_that_fits_is_created_under_both_quotas(world: Any) -> None:
    plan = planned(world, "c", world.cache("10Gi"), *filled("old"), quota_bytes=30 * GI)
    (create,) = plan.actions
    assert isinstance(create, CreateClaim)
    assert (create.namespace_bytes, create.cluster_bytes, create.namespaces) == (
        20 * GI,
        30 * GI,
        (NAMESPACE,),
    )
    assert condition_summary(plan, reasons.FILLED) == "False WaitingForPVC"


def test_the_least_recently_used_cache_makes_room(world: Any) -> None:
    old = [*filled("older", used_s=2 * DAY_S), *filled("newer")]
    plan = planned(world, "c", world.cache("10Gi"), *old)
    assert marks(plan) == {"older": timestamp(NOW)}
    assert condition_summary(plan, reasons.FILLED) == "False WaitingForPVC"
    assert "ModelCache older is not used and is being evicted" in message(plan, reasons.FILLED)
    assert plan.requeue_after_s is not None


def test_a_mark_is_of_one_version_of_the_cache(world: Any) -> None:
    plan = planned(world, "c", world.cache("20Gi"), *filled("old"))
    (mark,) = [action for action in plan.actions if isinstance(action, PatchObject)]
    assert mark.patch["metadata"]["resourceVersion"] == "1"
    assert mark.uid == "modelcache-old"


USERS: dict[str, list[Body]] = {
    "a-user": [],
    "a-service": [],
    "a-warm-template": [],
    "an-inference-service": [
        obj(
            "InferenceService",
            "i",
            owner=("AIMService", "gone"),
            spec={
                "predictor": {
                    "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "old-cache"}}]
                }
            },
        )
    ],
    "a-pod": [
        pod(
            "p",
            ("Job", "j"),
            "x",
            spec={"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "old-cache"}}]},
        )
    ],
    "an-annotation": [],
}


def requested(world: Any, *, by: str) -> list[Body]:
    """The template of the source of `old`, and a service or the template that requests it."""
    data = {
        "result.json": '{"models": [{"name": "m", "source": "hf://org/old", "size_gb": 1}]}',
        "image": "i",
    }
    found = [
        world.template(warm=by == "a-warm-template"),
        config_map("t-discovery", ("AIMServiceTemplate", "t"), data),
    ]
    if by == "a-service":
        found.append(world.service())
    if by == "resolved":
        service = world.service(templateRef="other", cacheModel=False)
        found.append({**service, "status": {"resolvedTemplate": "t"}})
    return found


@pytest.mark.parametrize(
    ("by", "why"),
    [
        ("a-user", "created by a user"),
        ("a-service", "used by AIMService s"),
        ("resolved", "used by AIMService s"),
        ("a-warm-template", "used by AIMServiceTemplate t"),
        ("an-inference-service", "used by InferenceService i"),
        ("a-pod", "used by Pod p"),
        ("an-annotation", "annotation aim.silogen.ai/evict is never"),
    ],
)
def test_what_is_used_makes_no_room(world: Any, by: str, why: str) -> None:
    changes: dict[str, Body] = {
        "a-user": {"labels": {}},
        "an-annotation": {"annotations": {labels.ANNOTATION_EVICT: "never"}},
    }
    users = USERS.get(by, []) + (requested(world, by=by) if by in REQUESTERS else [])
    plan = planned(world, "c", world.cache("20Gi"), *filled("old", **changes.get(by, {})), *users)
    assert marks(plan) == {}
    assert condition_summary(plan, reasons.FILLED) == "False QuotaExceeded"
    assert message(plan, reasons.FILLED) == (
        "spec.caching.quota of AIMNamespaceConfig default is 20Gi, 10Gi are used and 20Gi are asked"
        f" for; held by old (10Gi, {why}); raise the quota, delete services that are not needed, or"
        " delete caches"
    )


REQUESTERS = ("a-service", "a-warm-template", "resolved")


def test_more_than_the_whole_quota_delays_no_other(world: Any) -> None:
    huge = world.cache("21Gi", age_s=7200)
    plan = planned(world, "c", huge)
    assert message(plan, reasons.FILLED).endswith("more than the whole quota; raise the quota")
    small = world.cache("10Gi", "d", spec={"sourceUri": "hf://org/d", "size": "10Gi"})
    assert isinstance(planned(world, "d", huge, small).actions[0], CreateClaim)


def test_a_younger_cache_waits_behind_an_older_one(world: Any) -> None:
    unevictable = filled("old", labels={})
    older = world.cache("15Gi", age_s=7200)
    younger = world.cache(name="d", spec={"sourceUri": "hf://org/d", "size": "1Gi"})
    plan = planned(world, "d", older, younger, *unevictable)
    assert plan.actions == ()
    assert "the older ModelCache c waits first" in message(plan, reasons.FILLED)


def test_a_claim_that_is_being_deleted_counts(world: Any) -> None:
    leaving = claim_of("gone", "15Gi", deleting=True)
    plan = planned(world, "c", world.cache("10Gi"), leaving)
    assert plan.actions == ()
    assert condition_summary(plan, reasons.FILLED) == "False WaitingForPVC"
    assert "storage of deleted caches is being freed" in message(plan, reasons.FILLED)


def test_a_claim_whose_deletion_is_blocked_makes_no_room(world: Any) -> None:
    """Another cache has to go, or the quota is reported."""
    leaving = claim_of("gone", "15Gi", deleting=True)
    leaving["metadata"]["deletionTimestamp"] = ago(301)
    plan = planned(world, "c", world.cache("10Gi"), leaving)
    assert condition_summary(plan, reasons.FILLED) == "False QuotaExceeded"
    assert "gone (15Gi, being deleted)" in message(plan, reasons.FILLED)
    plan = planned(world, "c", world.cache("5Gi"), leaving, *filled("old", "5Gi"))
    assert marks(plan) == {"old": timestamp(NOW)}


def test_an_expanded_claim_counts_as_it_is(world: Any) -> None:
    cache, claim = filled("old", "10Gi", labels={})
    claim["status"]["capacity"]["storage"] = "18Gi"
    plan = planned(world, "c", world.cache("10Gi"), cache, claim)
    assert "18Gi are used" in message(plan, reasons.FILLED)


def test_the_quota_of_the_cluster_names_no_cache_of_others(world: Any) -> None:
    secret = filled("secret", "15Gi")
    for body in secret:
        body["metadata"]["namespace"] = "other"
    plan = planned(world, "c", world.cache("10Gi"), *secret, quota=None, quota_bytes=20 * GI)
    assert marks(plan) == {}
    assert message(plan, reasons.FILLED) == (
        "setting AIM_CACHE_QUOTA of aim-cacher is 20Gi, 15Gi are used and 10Gi are asked for; held"
        " by other namespaces (15Gi); raise the quota, delete services that are not needed, or"
        " delete caches"
    )


def test_a_marked_cache_is_reported_and_left_alone(world: Any) -> None:
    plan = planned(world, "old", world.cache("20Gi"), *marked("old", 20))
    assert action_summaries(plan) == []
    assert plan.requeue_after_s == 40
    assert condition_summary(plan, reasons.STORAGE_READY) == "False Evicting"
    assert condition_summary(plan, reasons.FILLED).startswith("True")
    due = timestamp(NOW + datetime.timedelta(seconds=40))
    assert f"it is deleted at {due} unless a service requests it" in message(
        plan, reasons.STORAGE_READY
    )


@pytest.mark.parametrize("since_s", [60, 61, 1e6])
def test_after_a_minute_it_is_evicted(world: Any, since_s: float) -> None:
    plan = planned(world, "old", world.cache("20Gi"), *marked("old", since_s))
    (evict,) = plan.actions
    assert isinstance(evict, EvictCache)
    assert (evict.key, evict.uid, evict.mark, evict.source) == (
        Key(CACHE.kind, NAMESPACE, "old"),
        "modelcache-old",
        ago(since_s),
        "hf://org/old",
    )


@pytest.mark.parametrize("by", REQUESTERS)
def test_a_cache_that_is_used_again_loses_its_mark(world: Any, by: str) -> None:
    plan = planned(world, "old", world.cache("20Gi"), *marked("old", 90), *requested(world, by=by))
    assert marks(plan) == {"old": None}


def test_a_mark_goes_if_its_storage_is_not_needed(world: Any) -> None:
    assert marks(planned(world, "old", *marked("old", 90))) == {"old": None}


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00"])
def test_a_mark_that_is_no_time_is_replaced(world: Any, text: str) -> None:
    cache, claim = filled("old", annotations={labels.ANNOTATION_EVICTING: text})
    assert marks(planned(world, "old", world.cache("20Gi"), cache, claim)) == {
        "old": timestamp(NOW)
    }


def test_a_mark_of_the_far_future_is_replaced(world: Any) -> None:
    plan = planned(world, "old", world.cache("20Gi"), *marked("old", -3600))
    assert marks(plan) == {"old": timestamp(NOW)}


def test_a_lowered_quota_evicts_what_is_not_used(world: Any) -> None:
    plan = planned(world, "old", *filled("old"), quota="5Gi")
    assert marks(plan) == {"old": timestamp(NOW)}


@pytest.mark.parametrize(
    ("used_s", "after", "expected"),
    [
        (DAY_S, "24h", {"old": timestamp(NOW)}),
        (DAY_S - 1, "24h", {}),
        (90, "1m30s", {"old": timestamp(NOW)}),
        (1, "999ms", {"old": timestamp(NOW)}),
    ],
)
def test_a_cache_may_be_unused_for_so_long(
    world: Any, used_s: float, after: str, expected: Body
) -> None:
    plan = planned(
        world, "old", *filled("old", used_s=used_s), quota=None, caching={"evictAfter": after}
    )
    assert marks(plan) == expected
    if not expected:
        assert plan.requeue_after_s == 1


def test_a_cache_that_was_never_used_counts_from_its_filling(world: Any) -> None:
    cache, claim = filled("old")
    del cache["status"]["lastUsed"]
    cache["status"]["conditions"][0]["lastTransitionTime"] = ago(3600)
    plan = planned(world, "old", cache, claim, quota=None, caching={"evictAfter": "1h"})
    assert marks(plan) == {"old": timestamp(NOW)}


def test_only_the_default_config_has_a_quota(world: Any) -> None:
    other = world.config("other", caching={"quota": "1Gi", "evictAfter": "1h"})
    state = projection(storage_class(), other, world.cache("20Gi"))
    assert action_summaries(world.plan(state)) == ["apply PersistentVolumeClaim c-cache"]
    (report,) = world.plan(state, "other", "AIMNamespaceConfig").reports
    (warning,) = report.warnings
    assert (warning.reason, warning.message) == (
        "QuotaIgnored",
        "spec.caching.quota and spec.caching.evictAfter count only in AIMNamespaceConfig default;"
        " set them there",
    )
