"""An upgrade from 0.2 with services running: no pod template changes, and no pod is replaced.

The code of 0.2 itself brings the services up, from the repository's history; then its processes
end, and today's begin.
"""

import asyncio
import io
import os
import subprocess
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from aim_cacher.settings import CacherSettings
from aim_testing.real.world import Real
from aimctl.local.processes import Children
from aimctl.local.services import start_services
from aimctl.nats.server import embedded_nats
from aimlab.cli.environment import Stack
from aimlab.cli.quickstart import NAMESPACE, prepare
from aimlab.cli.quickstart import SERVICE as QUICKSTART
from aimlab.lab import laptop
from aimlab.real.cluster import real_cluster
from aimlab.real.parts import build_parts, cache_folder
from aimschema.resources import DEPLOYMENT, INFERENCE_SERVICE, Resource

Body = dict[str, Any]
pytest_plugins = ["aim_testing.real.fixtures"]
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(400)]
ROOT = Path(__file__).parents[2]
OLD_COMMIT = "d57fa22"
"""0.2. The whole history must be there: git fetch --unshallow."""
REPLICA_SET = Resource("ReplicaSet", "apps", "v1", "replicasets")
TWO, STOPPED = "two", "stopped"


def unpack_old(folder: Path) -> Path:
    """The tree of 0.2."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", OLD_COMMIT], cwd=ROOT, check=True, capture_output=True
    )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def old_path(tree: Path) -> str:
    """PYTHONPATH with which the services' commands run the code of `tree`."""
    return os.pathsep.join(str(file.parent) for file in tree.glob("*/*/pyproject.toml"))


def manifests(tree: Path) -> list[Body]:
    files = sorted([*(tree / "deploy/crds").glob("*.yaml"), *(tree / "deploy/rbac").glob("*.yaml")])
    return [body for file in files for body in yaml.safe_load_all(file.read_text())]


@dataclass(frozen=True)
class Running:
    """What runs, by name."""

    templates: dict[str, Body]
    replica_sets: set[str]
    pods: set[str]


async def running(real: Real) -> Running:
    cluster = real.stack.lab.cluster
    deployments = (await cluster.list(DEPLOYMENT, NAMESPACE)).items
    sets = (await cluster.list(REPLICA_SET, NAMESPACE)).items
    pods = [pod for name in (QUICKSTART, TWO) for pod in await real.pods(name)]
    return Running(
        {body["metadata"]["name"]: body["spec"]["template"] for body in deployments},
        {body["metadata"]["name"] for body in sets},
        {pod["metadata"]["uid"] for pod in pods},
    )


@dataclass(frozen=True)
class Upgraded:
    real: Real
    before: Running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def upgraded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Upgraded]:
    """A control plane of today that found three services of 0.2, and has dealt with them."""
    folder = tmp_path_factory.mktemp("upgrade")
    tree = await asyncio.to_thread(unpack_old, folder / "tree")
    parts = await asyncio.to_thread(build_parts, cache_folder(os.environ))
    async with (
        real_cluster(folder / "cluster", parts) as kubeconfig,
        laptop(folder / "lab", manifests(tree), kubeconfig) as lab,
        embedded_nats(folder / "nats") as nats,
    ):
        real = Real(
            Stack(lab, nats, nats.url, lab.children, {}, await prepare(lab)), folder / "cluster"
        )
        # The node has the downloader of today only.
        image = str(CacherSettings.model_fields["downloader_image"].default)
        env = {"PYTHONPATH": old_path(tree), "AIM_DOWNLOADER_IMAGE": image}
        async with Children(folder / "log-old", env=env) as old:
            await start_services(old, nats_url=nats.url, accounts=lab.accounts)
            await real.kubectl("apply", "-f", str(real.stack.quickstart.manifests))
            await real.serve(TWO, replicas=2)
            await real.serve(STOPPED, replicas=0)
            await real.until_running(QUICKSTART)
            await real.until_running(TWO, replicas=2)
            before = await running(real)
        for kinds in ("crds", "rbac"):
            await real.kubectl(
                "apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "deploy" / kinds)
            )
        async with Children(folder / "log-new") as new:
            await start_services(new, nats_url=nats.url, accounts=lab.accounts)
            await until_caught_up(real)
            yield Upgraded(real, before)


async def until_caught_up(real: Real) -> None:
    """What is made now has been through all services, and so has all that was there before."""
    await real.serve("marker")
    await real.until_running("marker")
    await real.kubectl("delete", "aimsvc", "marker", "-n", NAMESPACE)


async def test_the_old_code_is_the_old_code(upgraded: Upgraded) -> None:
    made = await upgraded.real.get(INFERENCE_SERVICE, QUICKSTART)
    assert "aim.silogen.ai/render" not in made["metadata"]["annotations"]
    assert set(upgraded.before.templates) == {f"{QUICKSTART}-predictor", f"{TWO}-predictor"}


async def test_no_pod_template_changes(upgraded: Upgraded) -> None:
    now = await running(upgraded.real)
    assert {
        name: now.templates[name] for name in upgraded.before.templates
    } == upgraded.before.templates
    assert upgraded.before.replica_sets <= now.replica_sets


async def test_no_pod_is_replaced(upgraded: Upgraded) -> None:
    assert (await running(upgraded.real)).pods == upgraded.before.pods
    assert upgraded.real.is_answer(await upgraded.real.ask(QUICKSTART))


async def test_more_replicas_are_of_the_same_template(upgraded: Upgraded) -> None:
    await upgraded.real.scale(TWO, 3)
    await upgraded.real.until_running(TWO, replicas=3)
    now = await running(upgraded.real)
    assert now.pods > upgraded.before.pods
    assert now.templates[f"{TWO}-predictor"] == upgraded.before.templates[f"{TWO}-predictor"]
