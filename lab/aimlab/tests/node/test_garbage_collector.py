"""What has lost its owners goes, what has one stays: where there is no garbage collector."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from aimkube import Cluster, NotFound
from aimlab.accounts import write_kubeconfig
from aimlab.apiserver import ApiServer
from aimlab.capabilities import Capabilities, probe
from aimlab.informer import Informer, Objects
from aimlab.kinds import owner_reference
from aimlab.node import garbage_collector
from aimlab.testing import eventually
from aimschema.resources import CONFIG_MAP, JOB

Body = dict[str, Any]


def config_map(name: str, *owned_by: str, uid: str = "", going: bool = False) -> Body:
    references = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": f"uid-of-{owner}"}
        for owner in owned_by
    ]
    metadata: Body = {
        "name": name,
        "namespace": "default",
        "uid": uid or f"uid-of-{name}",
        "ownerReferences": references,
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata | ({"deletionTimestamp": "2026-01-01T00:00:00Z"} if going else {}),
    }


@pytest.mark.parametrize(
    ("bodies", "alone"),
    [
        pytest.param([config_map("a"), config_map("b", "a")], [], id="owner-is-there"),
        pytest.param([config_map("b", "a")], ["b"], id="owner-is-deleted"),
        pytest.param(
            [config_map("a", uid="another"), config_map("b", "a")], ["b"], id="owner-was-re-created"
        ),
        pytest.param(
            [config_map("a"), config_map("b", "a", "gone")], [], id="one-of-two-owners-is-there"
        ),
        pytest.param([config_map("b", "a", going=True)], [], id="going-already"),
        pytest.param([config_map("b")], [], id="never-had-one"),
    ],
)
def test_orphans(bodies: list[Body], alone: list[str]) -> None:
    assert [
        body["metadata"]["name"] for _, body in garbage_collector.orphans(Objects(bodies))
    ] == alone


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with ApiServer(bare=True) as server:
        write_kubeconfig(tmp_path / "kubeconfig", server.url)
        cluster = await Cluster.connect(str(tmp_path / "kubeconfig"))
        yield cluster
        await cluster.close()


async def is_deleted(cluster: Cluster, name: str) -> bool:
    try:
        await cluster.get(CONFIG_MAP, "default", name)
    except NotFound:
        return True
    return False


async def test_children_go_with_their_owner_unless_its_kind_is_unknown(bare: Cluster) -> None:
    owner = await bare.create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "owner", "namespace": "default"},
        }
    )
    child = config_map("child") | {
        "metadata": {
            "name": "child",
            "namespace": "default",
            "ownerReferences": [owner_reference(owner)],
        }
    }
    grandchild = {
        "name": "grandchild",
        "namespace": "default",
        "ownerReferences": [owner_reference(await bare.create(child))],
    }
    await bare.create(config_map("grandchild") | {"metadata": grandchild})
    strange = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "u"}
    await bare.create(
        config_map("strange")
        | {"metadata": {"name": "strange", "namespace": "default", "ownerReferences": [strange]}}
    )
    mirror = Informer(bare, garbage_collector.KINDS)
    tasks = [
        asyncio.create_task(mirror.run()),
        asyncio.create_task(garbage_collector.collect(bare, mirror)),
    ]
    try:
        await bare.delete(CONFIG_MAP, "default", "owner")
        await eventually(lambda: is_deleted(bare, "grandchild"), "the grandchild goes")
        assert await is_deleted(bare, "child")
        assert not await is_deleted(bare, "strange")
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_what_a_bare_server_lacks_is_found_out(bare: Cluster) -> None:
    assert await probe(bare, "default") == Capabilities(
        collects=False, runs_jobs=False, loopback_endpoints=False
    )
    assert not (await bare.list(JOB)).items


async def test_what_the_double_can_do_is_found_out(tmp_path: Path) -> None:
    async with ApiServer() as server:
        write_kubeconfig(tmp_path / "kubeconfig", server.url)
        cluster = await Cluster.connect(str(tmp_path / "kubeconfig"))
        assert await probe(cluster, "default") == Capabilities(
            collects=True, runs_jobs=False, loopback_endpoints=True
        )
        await cluster.close()
