"""helm itself, and kubectl with the kustomize folders, on the API server double: installed, upgraded, taken away."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from aimctl.quickstart import crds
from aimlab.accounts import write_kubeconfig
from aimlab.apiserver import ApiServer
from aimlab.testing.charts import NAMESPACE, OVERLAYS

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "charts" / "aim"
Run = Callable[..., Awaitable[str]]
KINDS = sorted(f"customresourcedefinition.apiextensions.k8s.io/{body['metadata']['name']}" for body in crds())


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Run]:
    """Runs a program of this environment against a new API server; gives what it prints."""
    async with ApiServer() as server:
        write_kubeconfig(tmp_path / "kubeconfig", server.url)
        env = os.environ | {"KUBECONFIG": str(tmp_path / "kubeconfig"), "HOME": str(tmp_path)}

        async def command(program: str, *args: str) -> str:
            path = str(Path(sys.executable).with_name(program))
            process = await asyncio.create_subprocess_exec(path, *args, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
            output, errors = await process.communicate()
            assert process.returncode == 0, errors.decode()
            return output.decode()

        yield command


async def test_a_release_is_installed_upgraded_and_uninstalled_and_the_kinds_stay(run: Run) -> None:
    release = ("aim", str(CHART), "--namespace", NAMESPACE)
    told = await run("helm", "install", *release, "--create-namespace")
    assert f"kubectl rollout status deployment -n {NAMESPACE}" in told
    assert "aimctl nats init" not in told
    told = await run("helm", "upgrade", *release, "--values", str(CHART / "values-production.yaml"))
    assert f"aimctl nats init --apply -n {NAMESPACE}" in told
    workloads = ("statefulset/aim-nats", "deployment/aim-watcher", "-n", NAMESPACE)
    replicas = await run("kubectl", "get", *workloads, "-o", "jsonpath={.items[*].spec.replicas}")
    assert replicas == "3 2"
    await run("helm", "uninstall", "aim", "--namespace", NAMESPACE)
    assert (await run("kubectl", "get", "crd", "-o", "name")).split() == KINDS
    assert await run("kubectl", "get", "deployments,statefulsets,clusterroles,serviceaccounts,networkpolicies", "-A", "-o", "name") == ""
    assert "STATUS: deployed" in await run("helm", "install", *release)


@pytest.mark.parametrize("overlay", OVERLAYS)
async def test_kubectl_applies_an_overlay_twice(run: Run, overlay: str) -> None:
    """In one go, the Namespace first, and the second time without changing anything."""
    apply = ("kubectl", "apply", "--server-side", "-k", str(ROOT / "deploy" / "kustomize" / "overlays" / overlay))
    first = (await run(*apply)).splitlines()
    assert {line.rpartition(" ")[2] for line in first} == {"serverside-applied"}
    versions = ("kubectl", "get", "crd,deployments,statefulsets", "-A", "-o", "jsonpath={.items[*].metadata.resourceVersion}")
    before = await run(*versions)
    await run(*apply)
    assert await run(*versions) == before
