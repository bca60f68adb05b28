"""Applying: no write without a change, none over foreign objects."""

import copy
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from msgspec import structs

from aimcontroller.action import ApplyObject, DeleteObject, PatchObject
from aimcontroller.additions import merge
from aimcontroller.applier import Applier, NameConflict
from aimcontroller.drift import (
    IMMEDIATE_REPAIRS,
    comparable,
    diff_paths,
    digest,
    field_managers_at,
    managed_fields_of,
    same_owner,
)
from aimcontroller.projection import FieldConflict, Projection, changed_from_response, fold
from aimkube import Cluster, Conflict, Forbidden, NotFound, Rejected, Unavailable
from aimschema.labels import MANAGED_BY, MANAGED_BY_AIM
from aimschema.messages import Mark
from aimschema.published import HASHES, published_part
from aimschema.resources import Key, Resource

Body = dict[str, Any]
CLAIM = Key("PersistentVolumeClaim", "ml", "j")
JOB = Key("Job", "ml", "j")
MAP = Key("ConfigMap", "ml", "m")


@dataclass
class FakeCluster:
    """Applies by laying what is sent over what is there, takes out what was sent before and is
    not now, and defaults one field, as servers do. A version that is sent has to be that of the
    object, but does not count for a missing one; `ignores` and `requires` it are faults."""

    objects: dict[Key, Body] = field(default_factory=dict)
    applied: list[Body] = field(default_factory=list)
    patched: list[Body] = field(default_factory=list)
    deleted: list[tuple[Key, str | None]] = field(default_factory=list)
    got: list[Key] = field(default_factory=list)
    dry_runs: list[Key] = field(default_factory=list)
    owned: dict[Key, set[str]] = field(default_factory=dict)
    ignores: bool = False
    requires: bool = False

    async def apply(self, body: Body, *, manager: str, dry_run: bool = False) -> Body:
        key = Key(body["kind"], body["metadata"]["namespace"], body["metadata"]["name"])
        if dry_run:
            self.dry_runs.append(key)
        self._check_version(key, body["metadata"].get("resourceVersion"))
        if dry_run:
            return body
        self.applied.append(body)
        stored = self.objects.get(
            key, {"metadata": {"uid": f"uid-of-{key.name}", "resourceVersion": "1"}}
        )
        metadata = {
            **stored["metadata"],
            **body["metadata"],
            "managedFields": [{"manager": manager}],
        }
        metadata["resourceVersion"] = str(int(stored["metadata"]["resourceVersion"]) + 1)
        merged = {**stored, **copy.deepcopy(body), "metadata": metadata}
        merged["spec"] = {"defaulted": True, **stored.get("spec", {}), **merged.get("spec", {})}
        for left_out in self.owned.get(key, set()) - set(body.get("spec", {})):
            del merged["spec"][left_out]
        self.owned[key] = set(body.get("spec", {}))
        self.objects[key] = merged
        return copy.deepcopy(merged)

    def _check_version(self, key: Key, version: str | None) -> None:
        existing = self.objects.get(key)
        if version is None or self.ignores or (existing is None and not self.requires):
            return
        if existing is None or existing["metadata"]["resourceVersion"] != version:
            raise Conflict("the object has been modified", status=409)

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Body:
        key = Key(resource.kind, namespace, name)
        self.got.append(key)
        if key not in self.objects:
            raise NotFound(f"{key} not found")
        return copy.deepcopy(self.objects[key])

    async def merge_patch(
        self, resource: Resource, namespace: str | None, name: str, patch: Body
    ) -> Body:
        key = Key(resource.kind, namespace, name)
        if key not in self.objects:
            raise NotFound(f"{key} not found")
        metadata = self.objects[key]["metadata"]
        if any(
            patch["metadata"].get(guard, metadata[guard]) != metadata[guard]
            for guard in ("uid", "resourceVersion")
        ):
            raise Conflict("written since")
        self.patched.append(patch)
        self.objects[key] = merge(self.objects[key], patch)
        self.objects[key]["metadata"]["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        return copy.deepcopy(self.objects[key])

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        propagation: str = "",
    ) -> None:
        key = Key(resource.kind, namespace, name)
        if key not in self.objects:
            raise NotFound(f"{key} not found")
        if uid not in {None, self.objects[key]["metadata"]["uid"]}:
            raise Conflict("uid differs")
        self.deleted.append((key, propagation))
        del self.objects[key]


def desired(key: Key = CLAIM, owner: str | None = "owner", **spec: Any) -> ApplyObject:
    references = [] if owner is None else [{"kind": "AIMService", "name": "s", "uid": owner}]
    metadata = {"name": key.name, "namespace": key.namespace, "ownerReferences": references}
    return ApplyObject(
        {
            "apiVersion": "v1",
            "kind": key.kind,
            "metadata": metadata,
            "spec": {"parallelism": 1, **spec},
        }
    )


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def applier(cluster: FakeCluster) -> Applier:
    return Applier(cast(Cluster, cluster), "aim-test")


def state_of(cluster: FakeCluster) -> Projection:
    state = Projection()
    for body in cluster.objects.values():
        state = fold(state, changed_from_response(copy.deepcopy(body)))
    return state


async def test_a_missing_object_is_created(cluster: FakeCluster, applier: Applier) -> None:
    answer = await applier.apply(Projection(), desired())
    assert answer is not None
    assert answer["spec"] == {"parallelism": 1, "defaulted": True}
    assert "managedFields" not in answer["metadata"]
    assert "uid" not in cluster.applied[0]["metadata"]


async def test_what_is_as_we_left_it_is_not_written_again(
    cluster: FakeCluster, applier: Applier
) -> None:
    await applier.apply(Projection(), desired())
    assert await applier.apply(state_of(cluster), desired()) is None
    assert len(cluster.applied) == 1


async def test_what_others_changed_beside_our_fields_is_theirs(
    cluster: FakeCluster, applier: Applier
) -> None:
    await applier.apply(Projection(), desired())
    cluster.objects[CLAIM]["spec"]["suspend"] = True
    cluster.objects[CLAIM]["status"] = {"active": 1}
    assert await applier.apply(state_of(cluster), desired()) is None


async def test_what_others_changed_in_our_fields_is_put_back(
    cluster: FakeCluster, applier: Applier
) -> None:
    await applier.apply(Projection(), desired())
    cluster.objects[CLAIM]["spec"]["parallelism"] = 7
    answer = await applier.apply(state_of(cluster), desired())
    assert answer is not None
    assert answer["spec"]["parallelism"] == 1


async def test_what_the_server_rewrites_is_no_drift(cluster: FakeCluster, applier: Applier) -> None:
    """Our `cpu: 1000m` comes back as `1`: compared with what was sent it would be applied for
    ever."""

    async def rewriting(body: Body, *, manager: str, dry_run: bool = False) -> Body:
        answer = await FakeCluster.apply(cluster, body, manager=manager, dry_run=dry_run)
        answer["spec"]["cpu"] = cluster.objects[CLAIM]["spec"]["cpu"] = "1"
        return answer

    cluster.apply = rewriting  # type: ignore[method-assign]
    await applier.apply(Projection(), desired(cpu="1000m"))
    assert await applier.apply(state_of(cluster), desired(cpu="1000m")) is None


async def test_another_wish_is_applied_and_names_the_uid(
    cluster: FakeCluster, applier: Applier
) -> None:
    await applier.apply(Projection(), desired())
    await applier.apply(state_of(cluster), desired(parallelism=2))
    assert cluster.applied[-1]["metadata"]["uid"] == "uid-of-j"
    assert cluster.applied[-1]["spec"]["parallelism"] == 2


def restarted(cluster: FakeCluster, *, mark: Mark | None, key: Key = CLAIM) -> Applier:
    """Another process, which has the last records of its predecessor."""
    another = Applier(cast(Cluster, cluster), "aim-test")
    another.restore_mark(key, mark)
    return another


async def test_after_a_restart_nothing_is_written(cluster: FakeCluster, applier: Applier) -> None:
    await applier.apply(Projection(), desired())
    after = restarted(cluster, mark=applier.mark(CLAIM))
    cluster.objects[CLAIM] |= {"status": {"phase": "Bound"}}
    cluster.objects[CLAIM]["metadata"] |= {
        "finalizers": ["kubernetes.io/pvc-protection"],
        "resourceVersion": "9",
    }
    assert await after.apply(state_of(cluster), desired()) is None
    cluster.objects[CLAIM]["metadata"]["annotations"] = {"theirs": "later"}
    assert await after.apply(state_of(cluster), desired()) is None
    assert len(cluster.applied) == 1


async def test_a_restart_without_memory_applies_everything_once(
    cluster: FakeCluster, applier: Applier
) -> None:
    await applier.apply(Projection(), desired())
    after = restarted(cluster, mark=None)
    assert await after.apply(state_of(cluster), desired()) is not None
    assert await after.apply(state_of(cluster), desired()) is None


async def test_after_a_restart_an_edit_of_the_meantime_is_put_back(
    cluster: FakeCluster, applier: Applier
) -> None:
    await applier.apply(Projection(), desired())
    after = restarted(cluster, mark=applier.mark(CLAIM))
    cluster.objects[CLAIM]["spec"]["parallelism"] = 7
    assert await after.apply(state_of(cluster), desired()) is not None
    assert cluster.objects[CLAIM]["spec"]["parallelism"] == 1


async def test_what_was_applied_but_unreported_is_recovered(
    cluster: FakeCluster, applier: Applier
) -> None:
    """One more field was applied, then the process was killed and the wish was taken back: our
    fields are as they should be, but one is too many."""
    await applier.apply(Projection(), desired())
    mark = applier.mark(CLAIM)
    await applier.apply(state_of(cluster), desired(extra=1))
    after = restarted(cluster, mark=mark)
    assert await after.apply(state_of(cluster), desired()) is not None
    assert await after.apply(state_of(cluster), desired()) is None


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def rewritten(cluster: FakeCluster) -> Projection:
    """A controller has put its own value into our field."""
    stored = cluster.objects[CLAIM]
    stored["spec"]["parallelism"] = 7
    stored["metadata"]["managedFields"] = [
        {"manager": "bully", "fieldsV1": {"f:spec": {"f:parallelism": {}}}}
    ]
    return state_of(cluster)


async def test_a_fight_over_a_field_is_backed_off(cluster: FakeCluster) -> None:
    """Three times at once, then ever more rarely: 9 writes in the first ten minutes, one every
    five minutes after that."""
    clock = Clock()
    applier = Applier(cast(Cluster, cluster), "aim-test", clock)
    await applier.apply(Projection(), desired())
    conflicts, written_at = set(), []
    while clock.now_s < 3600:
        if await applier.apply(rewritten(cluster), desired()) is not None:
            written_at.append(clock.now_s)
        delayed = applier.delayed_repair(CLAIM)
        conflicts.add(None if delayed is None else delayed.conflict)
        clock.now_s += 0.5
    assert written_at[:8] == [0, 0.5, 1, 6, 16, 36, 76, 156]
    assert len(written_at) < 22
    conflict = FieldConflict(CLAIM, "spec.parallelism", ("bully",))
    assert conflicts == {None, conflict}
    assert conflict.message == (
        "spec.parallelism of PersistentVolumeClaim j keeps being changed by bully; AIM restores it"
        " with backoff: leave the field to AIM"
    )
    assert len(cluster.got) == 2, "who it is was asked for once"


async def deleted_and_made(cluster: FakeCluster, applier: Applier, owner: str = "owner") -> bool:
    """Whether a deleted object is re-created at once."""
    cluster.objects.pop(CLAIM, None)
    applier.on_deleted(CLAIM)
    return await applier.apply(Projection(), desired(owner=owner)) is not None


async def test_recreation_backs_off_when_deletions_repeat(
    cluster: FakeCluster,
) -> None:
    clock = Clock()
    applier = Applier(cast(Cluster, cluster), "aim-test", clock)
    await applier.apply(Projection(), desired())
    assert [await deleted_and_made(cluster, applier) for _ in range(4)] == [
        True,
        True,
        False,
        False,
    ]
    delayed = applier.delayed_repair(CLAIM)
    assert delayed is not None
    assert delayed.conflict == FieldConflict(CLAIM)
    assert delayed.conflict.message.startswith("PersistentVolumeClaim j keeps being deleted")
    clock.now_s += delayed.after_s
    assert await deleted_and_made(cluster, applier)


async def test_what_went_with_its_owner_is_made_at_once_for_the_next(cluster: FakeCluster) -> None:
    applier = Applier(cast(Cluster, cluster), "aim-test", Clock())
    await applier.apply(Projection(), desired(owner="0"))
    assert all(
        [await deleted_and_made(cluster, applier, owner=str(number)) for number in range(1, 9)]
    )


async def test_what_we_deleted_ourselves_is_made_at_once(
    cluster: FakeCluster, applier: Applier
) -> None:
    for _ in range(9):
        assert await applier.apply(Projection(), desired()) is not None
        await applier.delete(DeleteObject(CLAIM, "uid-of-j"))
        applier.on_deleted(CLAIM)


async def test_a_person_sees_an_edit_undone_at_once_and_again(cluster: FakeCluster) -> None:
    clock = Clock()
    applier = Applier(cast(Cluster, cluster), "aim-test", clock)
    await applier.apply(Projection(), desired())
    for _ in range(10):
        assert await applier.apply(rewritten(cluster), desired()) is not None
        clock.now_s += 1000
    assert applier.delayed_repair(CLAIM) is None


async def test_a_fight_that_is_over_is_over(cluster: FakeCluster) -> None:
    clock = Clock()
    applier = Applier(cast(Cluster, cluster), "aim-test", clock)
    await applier.apply(Projection(), desired())
    for _ in range(4):
        await applier.apply(rewritten(cluster), desired())
    delayed = applier.delayed_repair(CLAIM)
    assert delayed is not None
    clock.now_s += delayed.after_s
    assert await applier.apply(rewritten(cluster), desired()) is not None
    delayed = applier.delayed_repair(CLAIM)
    assert delayed is not None, "whether it holds is not known yet"
    clock.now_s += delayed.after_s
    assert await applier.apply(state_of(cluster), desired()) is None
    assert applier.delayed_repair(CLAIM) is None


async def test_what_is_being_deleted_is_left_alone(cluster: FakeCluster, applier: Applier) -> None:
    await applier.apply(Projection(), desired())
    cluster.objects[CLAIM]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert await applier.apply(state_of(cluster), desired(parallelism=2)) is None


async def test_what_was_deleted_by_hand_is_made_again(
    cluster: FakeCluster, applier: Applier
) -> None:
    await applier.apply(Projection(), desired())
    del cluster.objects[CLAIM]
    assert await applier.apply(state_of(cluster), desired()) is not None


async def test_a_foreign_config_map_is_not_overwritten(
    cluster: FakeCluster, applier: Applier
) -> None:
    cluster.objects[MAP] = {
        "kind": "ConfigMap",
        "metadata": {"name": "m", "namespace": "ml", "uid": "theirs", "resourceVersion": "1"},
    }
    with pytest.raises(NameConflict, match="ConfigMap/ml/m exists and was not made for this"):
        await applier.apply(Projection(), desired(MAP))
    assert cluster.applied == []


async def test_our_own_config_map_not_in_the_state_is_applied(
    cluster: FakeCluster, applier: Applier
) -> None:
    await applier.apply(Projection(), desired(MAP))
    assert await applier.apply(Projection(), desired(MAP, parallelism=2)) is not None


async def test_only_unknown_objects_are_read_from_the_server(
    cluster: FakeCluster, applier: Applier
) -> None:
    """News of it may be late, and of some kinds only what has our label is watched."""
    await applier.apply(Projection(), desired(CLAIM))
    await applier.apply(state_of(cluster), desired(CLAIM, parallelism=2))
    assert cluster.got == [CLAIM]


async def test_an_incomplete_object_is_read(cluster: FakeCluster, applier: Applier) -> None:
    """The watcher leaves out the largest part of what is too large for the bus; that is no
    drift."""
    await applier.apply(Projection(), desired(MAP))
    cluster.got.clear()
    event = structs.replace(
        changed_from_response({**cluster.objects[MAP], "spec": {}}), truncated=("spec",)
    )
    assert await applier.apply(fold(Projection(), event), desired(MAP)) is None
    assert (cluster.got, len(cluster.applied)) == ([MAP], 1)


@pytest.mark.parametrize("known_before", [True, False], ids=["in-the-state", "unknown"])
async def test_what_was_made_for_another_is_not_overwritten(
    cluster: FakeCluster, applier: Applier, *, known_before: bool
) -> None:
    await applier.apply(Projection(), desired(owner="another"))
    with pytest.raises(NameConflict, match="PersistentVolumeClaim/ml/j exists"):
        await applier.apply(state_of(cluster) if known_before else Projection(), desired())
    assert len(cluster.applied) == 1


async def test_an_existing_job_is_never_written_again(
    cluster: FakeCluster, applier: Applier
) -> None:
    """Its pod template cannot be changed: the API server would reject that again and again."""
    await applier.apply(Projection(), desired(JOB))
    assert await applier.apply(state_of(cluster), desired(JOB, parallelism=2)) is None
    assert await applier.apply(Projection(), desired(JOB, parallelism=2)) is None
    assert len(cluster.applied) == 1


async def test_deleting_takes_the_dependents_along(cluster: FakeCluster, applier: Applier) -> None:
    await applier.apply(Projection(), desired())
    assert await applier.delete(DeleteObject(CLAIM, "uid-of-j"))
    assert cluster.deleted == [(CLAIM, "Background")]


@pytest.mark.parametrize("uid", ["uid-of-j", "another"], ids=["deleted-meanwhile", "a-successor"])
async def test_deleting_a_missing_or_other_object_does_nothing(
    cluster: FakeCluster, applier: Applier, uid: str
) -> None:
    if uid == "another":
        await applier.apply(Projection(), desired())
    assert not await applier.delete(DeleteObject(CLAIM, uid))
    assert cluster.deleted == []


@pytest.mark.parametrize("forgets", ["delete", "forget"])
async def test_after_a_deletion_nothing_is_remembered(
    cluster: FakeCluster, applier: Applier, forgets: str
) -> None:
    await applier.apply(Projection(), desired())
    before = state_of(cluster)
    if forgets == "delete":
        await applier.delete(DeleteObject(CLAIM, "uid-of-j"))
    else:
        applier.forget(CLAIM)
    assert await applier.apply(before, desired()) is not None


@pytest.mark.parametrize(
    ("sent", "existing", "part"),
    [
        pytest.param({"a": 1}, {"a": 1, "b": 2}, {"a": 1}, id="fields-not-sent-are-not-ours"),
        pytest.param({"a": 1}, {}, {"a": None}, id="a-removed-field"),
        pytest.param({"a": {"b": 1}}, {"a": None}, {"a": None}, id="a-removed-part"),
        pytest.param({}, {"a": 1}, {}, id="an-empty-part"),
        pytest.param(
            [{"name": "x", "v": 1}],
            [{"name": "sidecar"}, {"name": "x", "v": 2, "w": 3}],
            [{"name": "x", "v": 2}],
            id="lists-of-named-things-by-name",
        ),
        pytest.param([{"name": "x"}], [{"name": "y"}], [None], id="a-removed-list-item"),
        pytest.param([{"k": 1}], [{"k": 2, "d": 3}], [{"k": 2}], id="other-lists-by-place"),
        pytest.param(["a"], ["a", "b"], ["a", "b"], id="a-longer-list-of-plain-values"),
        pytest.param([], ["a"], ["a"], id="an-empty-list-is-a-wish"),
        pytest.param(
            [{"name": "v", "at": "/a"}, {"name": "v", "at": "/b"}],
            [{"name": "v", "at": "/x"}, {"name": "v", "at": "/b"}],
            [{"name": "v", "at": "/x"}, {"name": "v", "at": "/b"}],
            id="names-that-come-twice-by-place",
        ),
        pytest.param("1000m", "1", "1", id="plain-values"),
    ],
)
def test_our_part_of_an_object(sent: Any, existing: Any, part: Any) -> None:
    assert managed_fields_of(sent, existing) == part


OURS = {"labels": {"app.kubernetes.io/managed-by": "aim"}}
OWNED = {"ownerReferences": [{"uid": "u"}]}


@pytest.mark.parametrize(
    ("wish", "existing", "same"),
    [
        (OWNED, OWNED, True),
        (OWNED, {"ownerReferences": [{"uid": "other"}, {"uid": "u"}]}, True),
        (OWNED, {"ownerReferences": [{"uid": "other"}]}, False),
        (OWNED, {"ownerReferences": None}, False),
        (OWNED, OURS, False),
        (OURS, OURS, True),
        (OURS, {}, False),
        (OURS, {"labels": None}, False),
    ],
)
def test_whose_an_object_is(wish: Body, existing: Body, same: bool) -> None:
    assert same_owner({"metadata": wish}, {"metadata": existing}) is same


@pytest.mark.parametrize(
    ("before", "now", "paths"),
    [
        pytest.param({"a": 1}, {"a": 1}, [], id="the-same"),
        pytest.param(
            {"a": {"b": 1, "c": 1}},
            {"a": {"b": 2, "c": 2}},
            [("a", "b"), ("a", "c")],
            id="two-fields",
        ),
        pytest.param({"a": {"b": 1}}, {"a": None}, [("a",)], id="a-removed-part"),
        pytest.param(
            {"a": [{"name": "x", "v": 1}]},
            {"a": [{"name": "x", "v": 2}]},
            [("a",)],
            id="a-list-is-one-place",
        ),
    ],
)
def test_where_objects_differ(before: Any, now: Any, paths: list[tuple[str, ...]]) -> None:
    assert list(diff_paths(before, now)) == paths


def test_who_holds_a_field() -> None:
    fields: list[tuple[str, Body]] = [
        ("us", {"f:spec": {"f:a": {}}}),
        ("kubectl-edit", {"f:spec": {"f:a": {}}}),
        ("kserve", {"f:spec": {"f:b": {}}}),
    ]
    body = {
        "metadata": {
            "managedFields": [{"manager": manager, "fieldsV1": held} for manager, held in fields]
        }
    }
    assert field_managers_at(body, ("spec", "a"), "us") == ["kubectl-edit"]
    assert field_managers_at(body, ("spec", "c"), "us") == []


ISVC = Key("InferenceService", "ml", "s")
STOP = "serving.kserve.io/stop"


def stopped_by_hand(cluster: FakeCluster) -> None:
    metadata = cluster.objects[ISVC]["metadata"]
    metadata["annotations"] = {**metadata.get("annotations", {}), STOP: "true", "theirs": "stays"}
    metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)


async def test_what_must_be_absent_is_removed_and_nothing_else(
    cluster: FakeCluster, applier: Applier
) -> None:
    await applier.apply(Projection(), desired(ISVC))
    stopped_by_hand(cluster)
    answer = await applier.apply(state_of(cluster), desired(ISVC))
    assert answer is not None
    assert answer["metadata"]["annotations"] == {"theirs": "stays"}
    assert len(cluster.applied) == 1
    assert await applier.apply(state_of(cluster), desired(ISVC)) is None


async def test_what_must_be_absent_goes_after_a_restart_too(
    cluster: FakeCluster, applier: Applier
) -> None:
    await applier.apply(Projection(), desired(ISVC))
    stopped_by_hand(cluster)
    for mark in (applier.mark(ISVC), None):
        after = Applier(cast(Cluster, cluster), "aim-test")
        after.restore_mark(ISVC, mark)
        answer = await after.apply(state_of(cluster), desired(ISVC))
        assert answer is not None
        assert STOP not in answer["metadata"]["annotations"]
        stopped_by_hand(cluster)


async def test_what_is_sent_is_not_removed(cluster: FakeCluster, applier: Applier) -> None:
    stop = desired(ISVC)
    stop.body["metadata"]["annotations"] = {STOP: "true"}
    await applier.apply(Projection(), stop)
    assert await applier.apply(state_of(cluster), stop) is None
    assert not cluster.patched


async def test_an_addition_that_comes_back_is_removed_ever_more_rarely(
    cluster: FakeCluster,
) -> None:
    now_s = 100.0
    applier = Applier(cast(Cluster, cluster), "aim-test", lambda: now_s)
    await applier.apply(Projection(), desired(ISVC))
    for _ in range(IMMEDIATE_REPAIRS):
        stopped_by_hand(cluster)
        assert await applier.apply(state_of(cluster), desired(ISVC)) is not None
    stopped_by_hand(cluster)
    assert await applier.apply(state_of(cluster), desired(ISVC)) is None
    delayed = applier.delayed_repair(ISVC)
    assert delayed is not None
    assert (delayed.conflict.target, delayed.conflict.field) == (
        ISVC,
        f"metadata.annotations.{STOP}",
    )
    now_s += delayed.after_s
    assert await applier.apply(state_of(cluster), desired(ISVC)) is not None


async def test_after_a_patch_the_next_apply_is_sent(cluster: FakeCluster, applier: Applier) -> None:
    await applier.apply(Projection(), desired(ISVC))
    patch = PatchObject(
        ISVC, "uid-of-s", {"metadata": {"annotations": {STOP: "true"}}, "spec": {"parallelism": 0}}
    )
    answer = await applier.patch(patch)
    assert answer is not None
    assert (answer["metadata"]["annotations"], answer["spec"]["parallelism"]) == ({STOP: "true"}, 0)
    assert await applier.apply(state_of(cluster), desired(ISVC)) is not None


async def test_a_patch_of_a_missing_object_does_nothing(
    cluster: FakeCluster, applier: Applier
) -> None:
    assert await applier.patch(PatchObject(ISVC, "uid-of-s", {})) is None
    await applier.apply(Projection(), desired(ISVC))
    with pytest.raises(Conflict):
        await applier.patch(PatchObject(ISVC, "another", {}))


def runtime(*env: tuple[str, str]) -> ApplyObject:
    named = [{"name": name, "value": value} for name, value in env]
    body = desired(Key("InferenceService", "ml", "j")).body
    return ApplyObject(
        {**body, "spec": {"predictor": {"containers": [{"name": "c", "env": named}]}}}
    )


def on_the_bus(cluster: FakeCluster) -> Projection:
    """As the watcher publishes it: hashes instead of literals."""
    bodies = [published_part(copy.deepcopy(body)) for body in cluster.objects.values()]
    state = Projection()
    for seq, body in enumerate(bodies, start=1):
        state = fold(
            state,
            structs.replace(
                changed_from_response(body), truncated=(HASHES,) if HASHES in body else ()
            ),
            seq,
        )
    return state


async def test_news_without_literals_is_no_drift_and_no_reason_to_ask(
    cluster: FakeCluster, applier: Applier
) -> None:
    await applier.apply(Projection(), runtime(("A", "1")))
    requests_before = len(cluster.got)
    assert await applier.apply(on_the_bus(cluster), runtime(("A", "1"))) is None
    after = restarted(
        cluster,
        mark=applier.mark(Key("InferenceService", "ml", "j")),
        key=Key("InferenceService", "ml", "j"),
    )
    assert await after.apply(on_the_bus(cluster), runtime(("A", "1"))) is None
    assert len(cluster.got) == requests_before


async def test_an_edited_literal_is_repaired_from_its_hash(
    cluster: FakeCluster, applier: Applier
) -> None:
    await applier.apply(Projection(), runtime(("A", "1")))
    (stored,) = cluster.objects.values()
    stored["spec"]["predictor"]["containers"][0]["env"][0]["value"] = "2"
    assert await applier.apply(on_the_bus(cluster), runtime(("A", "1"))) is not None


async def test_a_removal_never_writes_placeholders_of_literals(
    cluster: FakeCluster, applier: Applier
) -> None:
    await applier.apply(Projection(), runtime(("A", "1")))
    (stored,) = cluster.objects.values()
    stored["spec"]["predictor"]["containers"].append({"name": "guest", "args": ["x"]})
    await applier.apply(on_the_bus(cluster), runtime(("A", "1")))
    (stored,) = cluster.objects.values()
    assert stored["spec"]["predictor"]["containers"] == [
        {"name": "c", "env": [{"name": "A", "value": "1"}]}
    ]


async def test_a_mark_of_an_older_release_needs_no_write(
    cluster: FakeCluster, applier: Applier
) -> None:
    """It was made from all of the object, literals and foreign annotations included."""
    action = runtime(("A", "1"))
    await applier.apply(Projection(), action)
    (stored,) = cluster.objects.values()
    stored["metadata"]["annotations"] = {"theirs": "before"}
    older = Mark(
        sent=digest(action.body),
        ours=digest(managed_fields_of(action.body, stored)),
        whole=digest(comparable(stored)),
    )
    after = restarted(cluster, mark=older, key=action.key)
    assert await after.apply(on_the_bus(cluster), action) is None
    assert await after.apply(on_the_bus(cluster), action) is None
    assert len(cluster.applied) == 1
    stored["spec"]["predictor"]["containers"][0]["env"][0]["value"] = "2"
    assert await after.apply(on_the_bus(cluster), action) is not None


async def test_an_edit_since_a_mark_of_an_older_release_is_put_back(
    cluster: FakeCluster, applier: Applier
) -> None:
    action = runtime(("A", "1"))
    await applier.apply(Projection(), action)
    (stored,) = cluster.objects.values()
    older = Mark(
        sent=digest(action.body),
        ours=digest(managed_fields_of(action.body, stored)),
        whole=digest(comparable(stored)),
    )
    stored["spec"]["predictor"]["containers"][0]["env"][0]["value"] = "2"
    assert (
        await restarted(cluster, mark=older, key=action.key).apply(on_the_bus(cluster), action)
        is not None
    )


FOREIGN_CLAIM: Body = {
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "j", "namespace": "ml", "uid": "theirs", "resourceVersion": "7"},
    "spec": {"parallelism": 9},
}
OTHER_CLAIM = Key("PersistentVolumeClaim", "ml", "other")


async def probed(cluster: FakeCluster) -> Applier:
    """At the start of a term; one claim of ours is there already."""
    labels = {MANAGED_BY: MANAGED_BY_AIM}
    cluster.objects[OTHER_CLAIM] = {
        **FOREIGN_CLAIM,
        "metadata": {**FOREIGN_CLAIM["metadata"], "name": "other", "labels": labels},
    }
    applier = Applier(cast(Cluster, cluster), "aim-test")
    await applier.probe(state_of(cluster), ["PersistentVolumeClaim"])
    assert cluster.applied == [], "a dry run"
    return applier


async def test_a_missing_object_is_created_without_a_read(cluster: FakeCluster) -> None:
    applier = await probed(cluster)
    answer = await applier.apply(Projection(), desired())
    assert answer is not None
    assert answer["spec"] == {"parallelism": 1, "defaulted": True}
    assert cluster.got == []
    assert await applier.apply(state_of(cluster), desired()) is None


@pytest.mark.parametrize("ignores", [False, True], ids=["honours", "ignores"])
@pytest.mark.parametrize("requires", [False, True], ids=["creates", "requires"])
async def test_an_unknown_foreign_object_is_never_overwritten(
    cluster: FakeCluster, ignores: bool, requires: bool
) -> None:
    cluster.ignores, cluster.requires = ignores, requires
    cluster.objects[CLAIM] = copy.deepcopy(FOREIGN_CLAIM)
    applier = await probed(cluster)
    with pytest.raises(NameConflict):
        await applier.apply(Projection(), desired())
    assert cluster.objects[CLAIM] == FOREIGN_CLAIM


@pytest.mark.parametrize("ignores", [False, True], ids=["honours", "ignores"])
@pytest.mark.parametrize("requires", [False, True], ids=["creates", "requires"])
async def test_every_server_gets_a_missing_object(
    cluster: FakeCluster, ignores: bool, requires: bool
) -> None:
    cluster.ignores, cluster.requires = ignores, requires
    applier = await probed(cluster)
    for name in ("j", "k"):
        key = Key("PersistentVolumeClaim", "ml", name)
        answer = await applier.apply(Projection(), desired(key))
        assert answer is not None
        assert answer["metadata"]["resourceVersion"] == "2"


async def test_the_first_created_object_is_probed_if_none_is_known(
    cluster: FakeCluster,
) -> None:
    """An object of another may be one that this service must not write."""
    cluster.objects[OTHER_CLAIM] = FOREIGN_CLAIM
    applier = Applier(cast(Cluster, cluster), "aim-test")
    await applier.probe(state_of(cluster), ["PersistentVolumeClaim"])
    assert cluster.dry_runs == []
    await applier.apply(Projection(), desired())
    assert (cluster.got, cluster.dry_runs) == ([CLAIM], [CLAIM])
    await applier.apply(Projection(), desired(Key("PersistentVolumeClaim", "ml", "k")))
    assert (cluster.got, cluster.dry_runs) == ([CLAIM], [CLAIM])


async def test_a_server_that_requires_the_version_is_tried_once(cluster: FakeCluster) -> None:
    cluster.requires = True
    applier = await probed(cluster)
    await applier.apply(Projection(), desired())
    assert cluster.got == [CLAIM]
    assert "resourceVersion" not in cluster.applied[0]["metadata"]
    another = Key("PersistentVolumeClaim", "ml", "k")
    sent: list[Body] = []
    apply = cluster.apply

    async def counting(body: Body, *, manager: str, dry_run: bool = False) -> Body:
        sent.append(body)
        return await apply(body, manager=manager, dry_run=dry_run)

    cluster.apply = counting  # type: ignore[method-assign]
    await applier.apply(Projection(), desired(another))
    assert len(sent) == 1


async def test_our_own_unknown_object_is_updated_by_its_uid(cluster: FakeCluster) -> None:
    applier = await probed(cluster)
    await applier.apply(Projection(), desired())
    after = Applier(cast(Cluster, cluster), "aim-test")
    await after.probe(state_of(cluster), ["PersistentVolumeClaim"])
    assert await after.apply(Projection(), desired(parallelism=2)) is not None
    assert cluster.applied[-1]["metadata"]["uid"] == "uid-of-j"
    assert cluster.got == [CLAIM]


async def test_an_unknown_object_that_is_being_deleted_is_left(cluster: FakeCluster) -> None:
    applier = await probed(cluster)
    ending = {**FOREIGN_CLAIM["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
    cluster.objects[CLAIM] = {**FOREIGN_CLAIM, "metadata": ending}
    assert await applier.apply(Projection(), desired()) is None
    assert cluster.applied == []


async def test_what_we_applied_is_read_before_it_is_sent_again(cluster: FakeCluster) -> None:
    """Its event is late: an apply as of a missing object would only be rejected."""
    applier = await probed(cluster)
    await applier.apply(Projection(), desired())
    assert await applier.apply(Projection(), desired()) is None
    assert (cluster.got, len(cluster.applied)) == ([CLAIM], 1)


@pytest.mark.parametrize("error", [Unavailable("away"), Forbidden("no"), Rejected("a webhook")])
async def test_after_a_probe_that_fails_objects_are_read_first(
    cluster: FakeCluster, error: Exception
) -> None:
    apply = cluster.apply

    async def fails(body: Body, *, manager: str, dry_run: bool = False) -> Body:
        if dry_run:
            raise error
        return await apply(body, manager=manager)

    cluster.apply = fails  # type: ignore[method-assign]
    applier = await probed(cluster)
    await applier.apply(Projection(), desired())
    assert cluster.got == [CLAIM]
