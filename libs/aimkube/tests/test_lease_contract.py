"""Leadership against an API server with state, and the fence of a cluster."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from aimkube import Cluster, Conflict, LeadershipState, Lease, NotFound
from aimkube.lease import TIMING
from aimlab.accounts import write_kubeconfig
from aimlab.apiserver import ApiServer
from aimschema.resources import CONFIG_MAP, LEASE

NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab"}}
CONFIG = {
    "apiVersion": "v1",
    "kind": CONFIG_MAP.kind,
    "metadata": {"name": "a", "namespace": "lab"},
    "data": {"a": "1"},
}


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with ApiServer() as api:
        yield api


@pytest.fixture
async def cluster(server: ApiServer, kit: Any) -> Cluster:
    connected: Cluster = await kit.connect(server.url)
    return connected


async def test_replace_is_compare_and_swap(cluster: Cluster) -> None:
    await cluster.create(NAMESPACE)
    first = await cluster.create(CONFIG)
    second = await cluster.replace(first | {"data": {"b": "2"}})
    assert second["data"] == {"b": "2"}
    with pytest.raises(Conflict):
        await cluster.replace(first | {"data": {"c": "3"}})
    with pytest.raises(NotFound):
        await cluster.replace(second | {"metadata": second["metadata"] | {"name": "other"}})


async def test_a_lease_is_made_taken_and_given_back(cluster: Cluster) -> None:
    states: asyncio.Queue[LeadershipState] = asyncio.Queue()
    working = asyncio.Event()

    async def work() -> None:
        working.set()
        await asyncio.Event().wait()

    lease = Lease(cluster, "lab", "aim-test", on_change=states.put_nowait)
    leading = asyncio.create_task(lease.run_while_leading(work))
    async with asyncio.timeout(5):
        assert (await states.get()).problem.startswith("namespace lab does not exist")
        await cluster.create(NAMESPACE)
        await working.wait()
        assert (await cluster.get(LEASE, "lab", "aim-test"))["spec"].items() >= {
            "holderIdentity": lease.identity,
            "leaseDurationSeconds": TIMING.duration_s,
            "leaseTransitions": 0,
        }.items()
        leading.cancel()
        await asyncio.wait({leading})
        assert (await cluster.get(LEASE, "lab", "aim-test"))["spec"]["holderIdentity"] == ""
        working.clear()
        again = asyncio.create_task(lease.run_while_leading(work))
        await working.wait()
        assert lease.epoch == 1
        again.cancel()
        await asyncio.wait({again})


async def test_a_standby_takes_a_released_lease_at_once(cluster: Cluster) -> None:
    working: asyncio.Queue[str] = asyncio.Queue()

    def work(name: str) -> Callable[[], Coroutine[Any, Any, None]]:
        async def lead() -> None:
            working.put_nowait(name)
            await asyncio.Event().wait()

        return lead

    standing: asyncio.Queue[LeadershipState] = asyncio.Queue()
    await cluster.create(NAMESPACE)
    leader = Lease(cluster, "lab", "aim-test")
    leading = asyncio.create_task(leader.run_while_leading(work("leader")))
    async with asyncio.timeout(10):
        assert await working.get() == "leader"
        standby = Lease(cluster, "lab", "aim-test", on_change=standing.put_nowait)
        standing_by = asyncio.create_task(standby.run_while_leading(work("standby")))
        assert (await standing.get()).holder == leader.identity
        leading.cancel()
        assert await working.get() == "standby"
        assert (await standing.get()).leading
    standing_by.cancel()
    await asyncio.wait({leading, standing_by})


@pytest.mark.parametrize("change", ["changed", "deleted"])
async def test_a_watch_of_one_object_has_its_changes(cluster: Cluster, change: str) -> None:
    await cluster.create(NAMESPACE)
    first = await cluster.create(CONFIG)
    await cluster.create(CONFIG | {"metadata": {"name": "other", "namespace": "lab"}})
    version = first["metadata"]["resourceVersion"]
    async with (
        asyncio.timeout(5),
        aclosing(cluster.watch_object(CONFIG_MAP, "lab", "a", version)) as states,
    ):
        if change == "changed":
            second = await cluster.replace(first | {"data": {"b": "2"}})
            state = await anext(states)
            assert state is not None
            assert (state["metadata"]["resourceVersion"], state["data"]) == (
                second["metadata"]["resourceVersion"],
                {"b": "2"},
            )
        else:
            await cluster.delete(CONFIG_MAP, "lab", "a")
            assert await anext(states) is None


async def test_while_the_fence_is_closed_reads_pass_and_writes_wait(
    server: ApiServer, cluster: Cluster, tmp_path: Path
) -> None:
    await cluster.create(NAMESPACE)
    await cluster.create(CONFIG)
    opened = asyncio.Event()

    async def fence() -> None:
        await opened.wait()

    write_kubeconfig(tmp_path / "fenced", server.url)
    fenced = await Cluster.connect(str(tmp_path / "fenced"), fence=fence)
    writes = [
        asyncio.create_task(fenced.merge_patch(CONFIG_MAP, "lab", "a", {"data": {"a": "2"}})),
        asyncio.create_task(fenced.apply(CONFIG | {"data": {"c": "1"}}, manager="m")),
        asyncio.create_task(
            fenced.create(CONFIG | {"metadata": {"name": "b", "namespace": "lab"}})
        ),
    ]
    assert (await fenced.get(CONFIG_MAP, "lab", "a"))["data"] == {"a": "1"}
    assert len((await fenced.list(CONFIG_MAP, "lab")).items) == 1
    assert not any(write.done() for write in writes)
    opened.set()
    await asyncio.gather(*writes)
    assert (await fenced.get(CONFIG_MAP, "lab", "a"))["data"] == {"a": "2", "c": "1"}
    await fenced.close()
