"""The cluster suite itself, on doubles that are processes of their own and known to it by a
kubeconfig alone."""

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aimctl.local.processes import Children
from aimkube import Cluster
from aimlab import forkserver
from aimlab.accounts import write_kubeconfig
from aimlab.lab import start_double
from aimschema.resources import NODE

SUITE = Path(__file__).with_name("run.py")
pytestmark = pytest.mark.timeout(240)


async def run(*args: str, **env: str) -> tuple[int, str]:
    """The suite's exit code and what it printed."""
    outside = {
        name: value
        for name, value in os.environ.items()
        if name not in {"KUBECONFIG", "KUBEBUILDER_ASSETS"}
    }
    argv = [sys.executable, str(SUITE), *args]
    return await forkserver.run(argv, outside | env)


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[Path]:
    """The kubeconfig of a double without controllers, as a kube-apiserver alone is."""
    async with Children(tmp_path / "log") as children:
        write_kubeconfig(tmp_path / "kubeconfig", await start_double(children, bare=True))
        yield tmp_path / "kubeconfig"


async def test_it_prints_one_line_if_nothing_was_tested() -> None:
    code, output = await run()
    assert code == 0
    assert output.startswith("nothing was tested: set KUBEBUILDER_ASSETS")
    assert len(output.splitlines()) == 1


async def test_it_names_what_is_missing_from_the_assets(tmp_path: Path) -> None:
    assert await run(KUBEBUILDER_ASSETS=str(tmp_path)) == (
        1,
        f"error: not in {tmp_path}: etcd, kube-apiserver\n",
    )


async def test_it_keeps_away_from_a_cluster_with_nodes(bare: Path) -> None:
    cluster = await Cluster.connect(str(bare))
    await cluster.create(
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-1"}}, resource=NODE
    )
    await cluster.close()
    code, output = await run(KUBECONFIG=str(bare))
    assert code == 1
    assert "nodes of its own (worker-1)" in output


async def test_the_scenarios_hold_on_an_api_server_alone(bare: Path) -> None:
    code, output = await run(
        "-k",
        "five_manifests or by_hand or deleting_the_service or log_of_the_model",
        KUBECONFIG=str(bare),
    )
    assert code == 0, output
    assert "deletes what lost its owner: aimlab's" in output
    assert "gateway: none" in output
    assert "4 passed" in output
