"""The fast node is as level-triggered as the controllers it stands for: however its delays fall,
what it writes last is right for the object as it is then.
"""

import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest_asyncio

from aim_testing.chaos.fastnode import SLOWEST_S, FastNode
from aim_testing.chaos.fleet import GATEWAY, GATEWAY_NAMESPACE, an_object
from aimkube import Cluster
from aimlab.accounts import write_kubeconfig
from aimlab.apiserver import ApiServer
from aimlab.crds import bundled_crds
from aimlab.kinds import Body
from aimlab.lab import define
from aimschema import labels
from aimschema.resources import INFERENCE_SERVICE, NAMESPACE, POD, ROUTE

SPACE = "ns0"


class Delays(random.Random):
    """A slow first step, all others at once."""

    def __init__(self) -> None:
        super().__init__(0)
        self._first: Iterator[float] = iter([SLOWEST_S])

    def uniform(self, a: float, b: float) -> float:
        return min(b, next(self._first, a))


@dataclass(frozen=True, slots=True)
class Lab:
    """A cluster with a fast node that is slow at its first step."""

    cluster: Cluster
    node: FastNode

    async def serve(self, spec: Body) -> None:
        """Create an InferenceService of one replica, and change it before the node gets to it."""
        predictor = {"minReplicas": 1, "containers": [{"name": "kserve-container", "image": "a"}]}
        body = an_object(INFERENCE_SERVICE, SPACE, "s0", {"predictor": predictor})
        body["metadata"]["labels"] = {}
        await self.cluster.create(body)
        await self.cluster.merge_patch(INFERENCE_SERVICE, SPACE, "s0", spec)
        await self.node.idle()

    async def pods(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in (await self.cluster.list(POD, SPACE)).items]

    async def ready(self) -> str:
        isvc = await self.cluster.get(INFERENCE_SERVICE, SPACE, "s0")
        return str(isvc["status"]["conditions"][0]["status"])


@pytest_asyncio.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with ApiServer() as api:
        write_kubeconfig(tmp_path / "kubeconfig", api.url)
        cluster = await Cluster.connect(str(tmp_path / "kubeconfig"), user_agent="test")
        try:
            await define(cluster, bundled_crds())
            for space in (SPACE, GATEWAY_NAMESPACE):
                await cluster.create(an_object(NAMESPACE, None, space, {}))
            async with FastNode(api, cluster, Delays()) as node:
                yield Lab(cluster, node)
                assert node.truth.errors == []
        finally:
            await cluster.close()


async def test_scaling_up_outlives_a_late_step_of_before(lab: Lab) -> None:
    await lab.serve({"spec": {"predictor": {"minReplicas": 2}}})
    assert await lab.pods() == ["s0-predictor-0", "s0-predictor-1"]
    assert await lab.ready() == "True"


async def test_scaling_to_zero_outlives_a_late_step_of_before(lab: Lab) -> None:
    stop = {"metadata": {"annotations": {labels.KSERVE_STOP: "true"}}}
    await lab.serve({**stop, "spec": {"predictor": {"minReplicas": 0}}})
    assert await lab.pods() == []
    assert await lab.ready() == "False"


async def test_a_route_is_accepted_as_it_is_now(lab: Lab) -> None:
    parents = {"parentRefs": [{"name": GATEWAY, "namespace": GATEWAY_NAMESPACE}]}
    await lab.cluster.create(an_object(ROUTE, SPACE, "s0", {**parents, "hostnames": ["a.test"]}))
    patch = {"spec": {"hostnames": ["b.test"]}}
    changed = await lab.cluster.merge_patch(ROUTE, SPACE, "s0", patch)
    await lab.node.idle()
    route = await lab.cluster.get(ROUTE, SPACE, "s0")
    conditions = route["status"]["parents"][0]["conditions"]
    generation = changed["metadata"]["generation"]
    assert [each["observedGeneration"] for each in conditions] == [generation, generation]
