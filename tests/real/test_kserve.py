"""KServe's own webhooks take what the deployer renders, and a KServe that knows no mode
`Standard` runs it too."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from aim_testing.real.world import Real
from aimkube import Cluster
from aimlab.cli.environment import control_plane_on_laptop
from aimlab.real.cluster import real_cluster
from aimlab.real.parts import build_old_kserve, build_parts, cache_folder
from aimschema.resources import INFERENCE_SERVICE
from aimschema.resources import NAMESPACE as NAMESPACE_KIND

Body = dict[str, Any]
pytest_plugins = ["aim_testing.real.fixtures"]
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]
GOLDEN = Path(__file__).parents[2] / "services/deployer/tests/golden"
MODE = "serving.kserve.io/deploymentMode"


def rendered(file: str) -> Body:
    """Without its owner, who is not there: it would be collected."""
    body: Body = yaml.safe_load((GOLDEN / file).read_text())
    del body["metadata"]["ownerReferences"]
    return body


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def team(real: Real) -> AsyncIterator[Cluster]:
    """The namespace of the golden files."""
    cluster = real.stack.lab.cluster
    await cluster.create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}},
        resource=NAMESPACE_KIND,
    )
    yield cluster
    await real.kubectl("delete", "namespace", "team")


@pytest.mark.parametrize(
    "file", sorted(path.name for path in GOLDEN.glob("inference-service.*.yaml"))
)
async def test_kserve_takes_what_is_rendered_and_its_update(
    real: Real, team: Cluster, file: str
) -> None:
    body = rendered(file)
    name = body["metadata"]["name"]
    await team.apply(body, manager="aim-deployer", resource=INFERENCE_SERVICE)
    await real.kubectl(
        "wait",
        f"isvc/{name}",
        "-n",
        "team",
        "--for=jsonpath={.status.deploymentMode}=Standard",
        "--timeout=30s",
    )
    body["metadata"]["annotations"]["example.org/again"] = "true"
    await team.apply(body, manager="aim-deployer", resource=INFERENCE_SERVICE)
    await real.kubectl("delete", "isvc", name, "-n", "team")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def old(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Real]:
    """A control plane on a cluster with a KServe of 0.15, whose default mode is Serverless."""
    folder, cache = tmp_path_factory.mktemp("old"), cache_folder(os.environ)
    parts, part = build_parts(cache), build_old_kserve(cache)
    async with (
        real_cluster(folder / "cluster", parts, part) as kubeconfig,
        control_plane_on_laptop(folder / "lab", kubeconfig) as stack,
    ):
        yield Real(stack, folder / "cluster")


async def test_a_kserve_of_0_15_runs_it_as_raw_deployment(old: Real) -> None:
    await old.kubectl("apply", "-f", str(old.stack.quickstart.manifests))
    await old.until_running("minilm")
    made = await old.get(INFERENCE_SERVICE, "minilm")
    assert made["metadata"]["annotations"][MODE] == "RawDeployment"
    assert old.is_answer(await old.ask("minilm"))
