"""Writes of recorded specs on the API server double: guarded, repeatable, and not mixed with those
of another user."""

import datetime
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from aimctl.analysis.history import Version
from aimctl.analysis.rollback import MANAGER, Write, plan_rollback
from aimctl.put_back import Interfered, write_one
from aimkube import Cluster, Invalid
from aimlab.apiserver import ApiServer
from aimschema.resources import CACHE, Key

CRDS = Path(__file__).parents[3] / "deploy" / "crds"
KEY = Key(CACHE.kind, "ml", "weights")
NOW = datetime.datetime(2030, 1, 2, tzinfo=datetime.UTC)
Body = dict[str, Any]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """With the kind ModelCache and a namespace."""
    api = ApiServer()
    named: Body = {
        "clusters": [{"name": "x", "cluster": {"server": await api.start()}}],
        "users": [{"name": "x", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "current-context": "x",
    }
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(named))
    connected = await Cluster.connect(str(kubeconfig))
    await connected.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}})
    definition = yaml.safe_load((CRDS / "modelcaches.aim.silogen.ai.yaml").read_text())
    await connected.create(definition)
    yield connected
    await connected.close()
    await api.stop()


def cache(size: str) -> Body:
    return {
        "apiVersion": CACHE.api_version,
        "kind": CACHE.kind,
        "metadata": {"name": KEY.name, "namespace": "ml"},
        "spec": {"sourceUri": "hf://a/b", "size": size},
    }


async def read(cluster: Cluster) -> Body:
    return await cluster.get(CACHE, "ml", KEY.name)


async def planned(cluster: Cluster, size: str = "1Gi", *, exists: bool = True) -> Write:
    """What brings the cache back to a size."""
    version = Version(KEY, 7, "u", 1, NOW, cache(size)["spec"], {}, {})
    live = {KEY: await read(cluster)} if exists else {}
    (write,) = plan_rollback({KEY: version}, live).writes
    return write


async def test_a_write_has_the_manager_and_only_its_fields(cluster: Cluster) -> None:
    await cluster.apply(cache("2Gi"), manager="kubectl-edit")
    await write_one(cluster, await planned(cluster))
    live = await read(cluster)
    assert live["spec"] == {"sourceUri": "hf://a/b", "size": "1Gi"}
    assert {
        entry["manager"]: sorted(entry["fieldsV1"]["f:spec"])
        for entry in live["metadata"]["managedFields"]
    } == {MANAGER: ["f:size"], "kubectl-edit": ["f:sourceUri"]}


async def test_a_change_of_status_or_labels_is_no_interference(cluster: Cluster) -> None:
    await cluster.apply(cache("2Gi"), manager="kubectl-edit")
    write = await planned(cluster)
    await cluster.merge_patch(CACHE, "ml", KEY.name, {"metadata": {"labels": {"team": "x"}}})
    await cluster.merge_patch(
        CACHE, "ml", KEY.name, {"status": {"progress": "4%"}}, subresource="status"
    )
    await write_one(cluster, write)
    live = await read(cluster)
    assert (live["spec"]["size"], live["metadata"]["labels"]) == ("1Gi", {"team": "x"})


async def test_a_change_of_the_spec_names_its_manager(cluster: Cluster) -> None:
    await cluster.apply(cache("2Gi"), manager="kubectl-edit")
    write = await planned(cluster)
    await cluster.apply(cache("3Gi"), manager="dashboard")
    with pytest.raises(Interfered, match="ModelCache/ml/weights was changed by dashboard "):
        await write_one(cluster, write)
    assert (await read(cluster))["spec"]["size"] == "3Gi"


async def test_two_users_do_not_mix(cluster: Cluster) -> None:
    """Both planned from one state. The second one gets an error; a new plan shows the first."""
    await cluster.apply(cache("2Gi"), manager="kubectl-edit")
    first, second = await planned(cluster, "1Gi"), await planned(cluster, "9Gi")
    await write_one(cluster, first)
    with pytest.raises(Interfered, match=f"changed by {MANAGER}"):
        await write_one(cluster, second)
    assert (await read(cluster))["spec"]["size"] == "1Gi"
    await write_one(cluster, first)


@pytest.mark.parametrize("again", [False, True], ids=["deleted", "created-again"])
async def test_a_deleted_object_is_not_written(cluster: Cluster, again: bool) -> None:
    await cluster.apply(cache("2Gi"), manager="kubectl-edit")
    write = await planned(cluster)
    await cluster.delete(CACHE, "ml", KEY.name)
    if again:
        await cluster.apply(cache("2Gi"), manager="kubectl-edit")
    with pytest.raises(Interfered, match="was deleted"):
        await write_one(cluster, write)


async def test_a_creation_is_repeatable(cluster: Cluster) -> None:
    write = await planned(cluster, exists=False)
    await write_one(cluster, write)
    await write_one(cluster, write)
    live = await read(cluster)
    assert live["spec"] == {"sourceUri": "hf://a/b", "size": "1Gi"}
    assert live["metadata"]["managedFields"][0]["manager"] == MANAGER
    await cluster.apply(cache("5Gi"), manager="dashboard")
    with pytest.raises(Interfered, match="changed by dashboard"):
        await write_one(cluster, write)


async def test_a_rejection_is_no_interference(cluster: Cluster) -> None:
    await cluster.apply(cache("2Gi"), manager="kubectl-edit")
    with pytest.raises(Invalid, match="size"):
        await write_one(cluster, await planned(cluster, "none"))
