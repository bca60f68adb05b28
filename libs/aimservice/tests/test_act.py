"""Applying: no write where nothing would change, none over what is somebody else's."""

import copy
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from aimkube import Cluster, Conflict, NotFound
from aimschema.resources import Key, Resource
from aimservice.act import Applier, NameConflict, ours, same_owner
from aimservice.plan import ApplyObject, DeleteObject
from aimservice.projection import Projection, fold, written

Body = dict[str, Any]
JOB = Key("Job", "ml", "j")
MAP = Key("ConfigMap", "ml", "m")


@dataclass
class FakeCluster:
    """Applies by laying what is sent over what is there, and defaults one field, as servers do."""

    objects: dict[Key, Body] = field(default_factory=dict)
    applied: list[Body] = field(default_factory=list)
    deleted: list[tuple[Key, str | None]] = field(default_factory=list)
    got: list[Key] = field(default_factory=list)

    async def apply(self, body: Body, *, manager: str) -> Body:
        self.applied.append(body)
        key = Key(body["kind"], body["metadata"]["namespace"], body["metadata"]["name"])
        there = self.objects.get(key, {"metadata": {"uid": f"uid-of-{key.name}", "resourceVersion": "0"}})
        metadata = {**there["metadata"], **body["metadata"], "managedFields": [{"manager": manager}]}
        metadata["resourceVersion"] = str(int(there["metadata"]["resourceVersion"]) + 1)
        merged = {**there, **copy.deepcopy(body), "metadata": metadata}
        merged["spec"] = {"defaulted": True, **merged.get("spec", {})}
        self.objects[key] = merged
        return copy.deepcopy(merged)

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Body:
        key = Key(resource.kind, namespace, name)
        self.got.append(key)
        if key not in self.objects:
            raise NotFound(f"{key} not found")
        return copy.deepcopy(self.objects[key])

    async def delete(self, resource: Resource, namespace: str | None, name: str, *, uid: str | None = None, propagation: str = "") -> None:
        key = Key(resource.kind, namespace, name)
        if key not in self.objects:
            raise NotFound(f"{key} not found")
        if uid not in {None, self.objects[key]["metadata"]["uid"]}:
            raise Conflict("uid differs")
        self.deleted.append((key, propagation))
        del self.objects[key]


def wanted(key: Key = JOB, owner: str | None = "owner", **spec: Any) -> ApplyObject:
    references = [] if owner is None else [{"kind": "AIMService", "name": "s", "uid": owner}]
    metadata = {"name": key.name, "namespace": key.namespace, "ownerReferences": references}
    return ApplyObject({"apiVersion": "batch/v1", "kind": key.kind, "metadata": metadata, "spec": {"parallelism": 1, **spec}})


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def applier(cluster: FakeCluster) -> Applier:
    return Applier(cast(Cluster, cluster), "aim-test")


def seen_in(cluster: FakeCluster) -> Projection:
    seen = Projection()
    for body in cluster.objects.values():
        seen = fold(seen, written(copy.deepcopy(body)))
    return seen


async def test_what_is_not_there_is_made(cluster: FakeCluster, applier: Applier) -> None:
    answer = await applier.apply(Projection(), wanted())
    assert answer is not None
    assert answer["spec"] == {"parallelism": 1, "defaulted": True}
    assert "managedFields" not in answer["metadata"]
    assert "uid" not in cluster.applied[0]["metadata"]


async def test_what_is_as_we_left_it_is_not_written_again(cluster: FakeCluster, applier: Applier) -> None:
    await applier.apply(Projection(), wanted())
    assert await applier.apply(seen_in(cluster), wanted()) is None
    assert len(cluster.applied) == 1


async def test_what_others_changed_beside_our_fields_is_theirs(cluster: FakeCluster, applier: Applier) -> None:
    await applier.apply(Projection(), wanted())
    cluster.objects[JOB]["spec"]["suspend"] = True
    cluster.objects[JOB]["status"] = {"active": 1}
    assert await applier.apply(seen_in(cluster), wanted()) is None


async def test_what_others_changed_in_our_fields_is_put_back(cluster: FakeCluster, applier: Applier) -> None:
    await applier.apply(Projection(), wanted())
    cluster.objects[JOB]["spec"]["parallelism"] = 7
    answer = await applier.apply(seen_in(cluster), wanted())
    assert answer is not None
    assert answer["spec"]["parallelism"] == 1


async def test_what_the_server_rewrites_is_no_drift(cluster: FakeCluster, applier: Applier) -> None:
    """Our `cpu: 1000m` comes back as `1`: compared with what was sent it would be applied for ever."""

    async def rewriting(body: Body, *, manager: str) -> Body:
        answer = await FakeCluster.apply(cluster, body, manager=manager)
        answer["spec"]["cpu"] = cluster.objects[JOB]["spec"]["cpu"] = "1"
        return answer

    cluster.apply = rewriting  # type: ignore[method-assign]
    await applier.apply(Projection(), wanted(cpu="1000m"))
    assert await applier.apply(seen_in(cluster), wanted(cpu="1000m")) is None


async def test_another_wish_is_applied_and_names_the_uid(cluster: FakeCluster, applier: Applier) -> None:
    await applier.apply(Projection(), wanted())
    await applier.apply(seen_in(cluster), wanted(parallelism=2))
    assert cluster.applied[-1]["metadata"]["uid"] == "uid-of-j"
    assert cluster.applied[-1]["spec"]["parallelism"] == 2


async def test_after_a_restart_everything_is_applied_once(cluster: FakeCluster, applier: Applier) -> None:
    await applier.apply(Projection(), wanted())
    restarted = Applier(cast(Cluster, cluster), "aim-test")
    assert await restarted.apply(seen_in(cluster), wanted()) is not None
    assert await restarted.apply(seen_in(cluster), wanted()) is None


async def test_what_is_being_deleted_is_left_alone(cluster: FakeCluster, applier: Applier) -> None:
    await applier.apply(Projection(), wanted())
    cluster.objects[JOB]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert await applier.apply(seen_in(cluster), wanted(parallelism=2)) is None


async def test_what_was_deleted_by_hand_is_made_again(cluster: FakeCluster, applier: Applier) -> None:
    await applier.apply(Projection(), wanted())
    del cluster.objects[JOB]
    assert await applier.apply(seen_in(cluster), wanted()) is not None


async def test_a_foreign_config_map_is_not_overwritten(cluster: FakeCluster, applier: Applier) -> None:
    cluster.objects[MAP] = {"kind": "ConfigMap", "metadata": {"name": "m", "namespace": "ml", "uid": "theirs", "resourceVersion": "1"}}
    with pytest.raises(NameConflict, match="ConfigMap/ml/m exists and is not owned"):
        await applier.apply(Projection(), wanted(MAP))
    assert cluster.applied == []


async def test_our_own_config_map_that_is_not_yet_seen_is_applied(cluster: FakeCluster, applier: Applier) -> None:
    await applier.apply(Projection(), wanted(MAP))
    assert await applier.apply(Projection(), wanted(MAP, parallelism=2)) is not None


async def test_only_kinds_that_are_watched_by_label_are_asked_for(cluster: FakeCluster, applier: Applier) -> None:
    await applier.apply(Projection(), wanted(JOB))
    await applier.apply(Projection(), wanted(MAP))
    assert cluster.got == [MAP]


async def test_deleting_takes_the_dependents_along(cluster: FakeCluster, applier: Applier) -> None:
    await applier.apply(Projection(), wanted())
    assert await applier.delete(DeleteObject(JOB, "uid-of-j"))
    assert cluster.deleted == [(JOB, "Background")]


@pytest.mark.parametrize("uid", ["uid-of-j", "another"], ids=["gone", "a-successor"])
async def test_deleting_what_is_gone_or_another_does_nothing(cluster: FakeCluster, applier: Applier, uid: str) -> None:
    if uid == "another":
        await applier.apply(Projection(), wanted())
    assert not await applier.delete(DeleteObject(JOB, uid))
    assert cluster.deleted == []


@pytest.mark.parametrize("forgets", ["delete", "forget"])
async def test_after_a_deletion_nothing_is_remembered(cluster: FakeCluster, applier: Applier, forgets: str) -> None:
    await applier.apply(Projection(), wanted())
    before = seen_in(cluster)
    if forgets == "delete":
        await applier.delete(DeleteObject(JOB, "uid-of-j"))
    else:
        applier.forget(JOB)
    assert await applier.apply(before, wanted()) is not None


@pytest.mark.parametrize(
    ("sent", "there", "part"),
    [
        pytest.param({"a": 1}, {"a": 1, "b": 2}, {"a": 1}, id="fields-not-sent-are-not-ours"),
        pytest.param({"a": 1}, {}, {"a": None}, id="a-field-that-is-gone"),
        pytest.param({"a": {"b": 1}}, {"a": None}, {"a": None}, id="a-part-that-is-gone"),
        pytest.param({}, {"a": 1}, {}, id="an-empty-part"),
        pytest.param(
            [{"name": "x", "v": 1}],
            [{"name": "sidecar"}, {"name": "x", "v": 2, "w": 3}],
            [{"name": "x", "v": 2}],
            id="lists-of-named-things-by-name",
        ),
        pytest.param([{"name": "x"}], [{"name": "y"}], [None], id="a-named-thing-that-is-gone"),
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
def test_our_part_of_an_object(sent: Any, there: Any, part: Any) -> None:
    assert ours(sent, there) == part


OURS = {"labels": {"app.kubernetes.io/managed-by": "aim"}}
OWNED = {"ownerReferences": [{"uid": "u"}]}


@pytest.mark.parametrize(
    ("wish", "there", "same"),
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
def test_whose_an_object_is(wish: Body, there: Body, same: bool) -> None:
    assert same_owner({"metadata": wish}, {"metadata": there}) is same
