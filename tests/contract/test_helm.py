"""helm itself, and kubectl with the kustomize folders, on the API server double: installed, upgraded, taken away."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import yaml

from aimctl.quickstart import crds
from aimctl.services import SERVICES
from aimlab.accounts import write_kubeconfig
from aimlab.apiserver import ApiServer
from aimlab.testing.charts import NAMESPACE, OVERLAYS, Body

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


def applied(folder: Path, *bodies: Body) -> tuple[str, ...]:
    """The arguments with which kubectl applies these objects."""
    (folder / "bodies.yaml").write_text(yaml.safe_dump_all(bodies))
    return "kubectl", "apply", "-f", str(folder / "bodies.yaml")


def in_system(api: str, kind: str, name: str, labels: dict[str, str], **fields: object) -> Body:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels}, **fields}


async def test_what_stays_after_a_release_goes_by_the_commands_of_the_page(run: Run, tmp_path: Path) -> None:
    """In the order of the table; before the last one, nothing but the namespace is left."""
    await run("helm", "install", "aim", str(CHART), "--namespace", NAMESPACE, "--create-namespace")
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}
    left = [
        in_system("v1", "PersistentVolumeClaim", "data-aim-nats-0", {"app.kubernetes.io/name": "aim-nats"}, spec=claim),
        *(in_system("coordination.k8s.io/v1", "Lease", f"aim-{service}", {}) for service in SERVICES),
    ]
    await run(*applied(tmp_path, *left))
    await run("aimctl", "nats", "init", "--apply", "-n", NAMESPACE)
    await run("helm", "uninstall", "aim", "--namespace", NAMESPACE)
    page = (ROOT / "docs" / "install.md").read_text().partition("## Uninstall")[2].partition("\n## ")[0]
    commands = re.findall(r"\| `(kubectl delete [^`]+)` \|", page)
    stays = ("kubectl", "get", "crd,pvc,secrets,leases,configmaps,serviceaccounts", "-n", NAMESPACE, "-o", "name")
    before = set((await run(*stays)).split())
    assert {name.partition("/")[0].partition(".")[0] for name in before} == {"customresourcedefinition", "persistentvolumeclaim", "secret", "lease"}
    for command in commands[:-1]:
        await run(*command.split())
        after = set((await run(*stays)).split())
        assert after < before, command
        before = after
    assert before == set()
    assert commands[-1] == f"kubectl delete namespace {NAMESPACE}"


@pytest.mark.parametrize(("port", "is_named"), [(443, False), (6443, False), (8443, True), (16443, True)])
async def test_the_notes_name_the_policy_that_keeps_services_from_the_api_server(run: Run, tmp_path: Path, port: int, *, is_named: bool) -> None:
    api_server = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "kubernetes", "namespace": "default"}}
    where = {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"name": "https", "port": port}]}
    await run(*applied(tmp_path, api_server | where))
    told = await run("helm", "install", "aim", str(CHART), "--namespace", NAMESPACE, "--create-namespace")
    assert ("NetworkPolicy aim-services" in told) is is_named
    assert (f"networkPolicy.apiServer.ports={{443,6443,{port}}}" in told) is is_named
    told = await run("helm", "upgrade", "aim", str(CHART), "--namespace", NAMESPACE, "--set", f"networkPolicy.apiServer.ports={{443,{port}}}")
    assert "NetworkPolicy aim-services" not in told


@pytest.mark.parametrize("overlay", OVERLAYS)
async def test_kubectl_applies_an_overlay_twice(run: Run, overlay: str) -> None:
    """In one go, the Namespace first, and the second time without changing anything."""
    kustomize = ROOT / "deploy" / "kustomize"
    await run("kubectl", "apply", "--server-side", "-k", str(kustomize / "crds"))
    apply = ("kubectl", "apply", "--server-side", "-k", str(kustomize / "overlays" / overlay))
    first = (await run(*apply)).splitlines()
    assert {line.rpartition(" ")[2] for line in first} == {"serverside-applied"}
    versions = ("kubectl", "get", "crd,deployments,statefulsets", "-A", "-o", "jsonpath={.items[*].metadata.resourceVersion}")
    before = await run(*versions)
    await run(*apply)
    assert await run(*versions) == before
