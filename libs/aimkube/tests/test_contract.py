"""Every verb and error against an API server with state: the lab's, which is held to recorded
answers of a real one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import yaml

from aimkube import (
    AlreadyExists,
    Cluster,
    Conflict,
    Deleted,
    Invalid,
    KindNotServed,
    Modified,
    NotFound,
    Snapshot,
    Timing,
)
from aimlab.apiserver import ApiServer
from aimschema.resources import CACHE, CONFIG_MAP, CRD

CRDS = Path(__file__).parents[3] / "deploy" / "crds"
FAST = Timing(retry_s=0.01, absent_s=0.05, short_s=0.0, deleted_s=0.1, new_s=0.0)


def cache(name: str = "c", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": CACHE.api_version,
        "kind": CACHE.kind,
        "metadata": {"name": name, "namespace": "lab"},
        "spec": {"sourceUri": "hf://org/model", "size": "1Gi", **spec},
    }


def config_map(name: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "lab", "labels": labels},
        "data": {"a": "1"},
    }


def definition(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CRDS / f"{name}.aim.silogen.ai.yaml").read_text())
    return loaded


@pytest.fixture
async def bare(kit: Any) -> AsyncIterator[Cluster]:
    """A cluster with a namespace and none of our kinds."""
    server = ApiServer()
    cluster: Cluster = await kit.connect(await server.start())
    await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab"}})
    yield cluster
    await server.stop()


@pytest.fixture
async def cluster(bare: Cluster) -> Cluster:
    await bare.create(definition("modelcaches"))
    await _until_served(bare)
    return bare


async def _until_served(cluster: Cluster) -> None:
    async with asyncio.timeout(5), aclosing(cluster.list_and_watch(CACHE, timing=FAST)) as stream:
        async for item in stream:
            if isinstance(item, Snapshot):
                return


async def test_what_was_created_is_got_and_listed(cluster: Cluster) -> None:
    created = await cluster.create(cache())
    assert await cluster.get(CACHE, "lab", "c") == created
    listing = await cluster.list(CACHE)
    assert [item["metadata"]["uid"] for item in listing.items] == [created["metadata"]["uid"]]
    assert int(listing.resource_version) >= int(created["metadata"]["resourceVersion"])


async def test_rejections_have_their_classes(cluster: Cluster) -> None:
    await cluster.create(cache())
    with pytest.raises(AlreadyExists):
        await cluster.create(cache())
    with pytest.raises(NotFound):
        await cluster.get(CACHE, "lab", "missing")
    with pytest.raises(Invalid) as invalid:
        await cluster.create(cache("d", size="ten"))
    assert [cause.field for cause in invalid.value.causes] == ["spec.size"]


async def test_a_kind_that_is_not_there_is_not_found(bare: Cluster) -> None:
    with pytest.raises(NotFound, match="404 page not found"):
        await bare.list(CACHE)


async def test_apply_creates_and_then_owns_its_fields(cluster: Cluster) -> None:
    await cluster.apply(config_map("m", one="1", two="2"), manager="aim-test")
    applied = await cluster.apply(config_map("m", one="1"), manager="aim-test")
    assert applied["metadata"]["labels"] == {"one": "1"}


async def test_apply_with_the_uid_of_a_predecessor_is_a_conflict(cluster: Cluster) -> None:
    await cluster.apply(config_map("m"), manager="aim-test")
    stale = config_map("m")
    stale["metadata"]["uid"] = "11111111-1111-1111-1111-111111111111"
    with pytest.raises(Conflict):
        await cluster.apply(stale, manager="aim-test")


async def test_a_status_write_is_guarded_by_its_version(cluster: Cluster) -> None:
    created = await cluster.create(cache())
    metadata = {key: created["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
    status = {
        "apiVersion": CACHE.api_version,
        "kind": CACHE.kind,
        "metadata": metadata,
        "status": {"status": "Pending"},
    }
    written = await cluster.apply_status(status, manager="aim-test")
    assert written["status"]["status"] == "Pending"
    with pytest.raises(Conflict):
        await cluster.apply_status(status | {"status": {"status": "Failed"}}, manager="aim-test")


async def test_merge_patch_removes_with_null(cluster: Cluster) -> None:
    await cluster.create(config_map("m", one="1", two="2"))
    patched = await cluster.merge_patch(
        CONFIG_MAP, "lab", "m", {"metadata": {"labels": {"one": None}}}
    )
    assert patched["metadata"]["labels"] == {"two": "2"}


async def test_delete_takes_only_the_uid_that_is_meant(cluster: Cluster) -> None:
    created = await cluster.create(config_map("m"))
    with pytest.raises(Conflict):
        await cluster.delete(CONFIG_MAP, "lab", "m", uid="11111111-1111-1111-1111-111111111111")
    await cluster.delete(CONFIG_MAP, "lab", "m", uid=created["metadata"]["uid"])
    with pytest.raises(NotFound):
        await cluster.delete(CONFIG_MAP, "lab", "m")


async def test_a_watch_brings_the_snapshot_and_then_what_happens(cluster: Cluster) -> None:
    await cluster.create(config_map("m", ours="yes"))
    await cluster.create(config_map("n"))
    async with (
        asyncio.timeout(5),
        aclosing(
            cluster.list_and_watch(CONFIG_MAP, label_selector="ours=yes", timing=FAST)
        ) as stream,
    ):
        listed = await anext(stream)
        assert isinstance(listed, Snapshot)
        assert [item["metadata"]["name"] for item in listed.items] == ["m"]
        await cluster.merge_patch(CONFIG_MAP, "lab", "n", {"metadata": {"labels": {"ours": "yes"}}})
        entered = await anext(stream)
        assert isinstance(entered, Modified)
        assert entered.body["metadata"]["name"] == "n"
        await cluster.merge_patch(CONFIG_MAP, "lab", "m", {"metadata": {"labels": {"ours": "no"}}})
        left = await anext(stream)
        assert isinstance(left, Deleted)
        assert left.body["metadata"]["labels"] == {"ours": "yes"}
        await cluster.delete(CONFIG_MAP, "lab", "n")
        deleted = await anext(stream)
        assert isinstance(deleted, Deleted)
        assert int(deleted.body["metadata"]["resourceVersion"]) > int(
            entered.body["metadata"]["resourceVersion"]
        )


async def test_a_kind_is_not_served_before_and_after_its_crd(bare: Cluster) -> None:
    async with asyncio.timeout(10), aclosing(bare.list_and_watch(CACHE, timing=FAST)) as stream:
        assert await anext(stream) == KindNotServed()
        crd = await bare.create(definition("modelcaches"))
        listed = await anext(stream)
        assert isinstance(listed, Snapshot)
        assert listed.items == ()
        created = await bare.create(cache())
        del created["metadata"]["managedFields"]
        assert await anext(stream) == Modified(created)
        await bare.delete(CRD, None, crd["metadata"]["name"])
        heard = [item async for item in _until_absent(stream)]
        assert heard[-1] == KindNotServed()
        assert Snapshot not in {type(item) for item in heard}


async def _until_absent(stream: Any) -> AsyncIterator[Any]:
    async for item in stream:
        yield item
        if isinstance(item, KindNotServed):
            return
