"""helm itself, and kubectl with the kustomize folders, on the API server double: installed,
upgraded, taken away."""

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from aimctl.component_registry import SERVICES
from aimctl.manifests import crds
from aimlab.accounts import write_kubeconfig
from aimlab.apiserver import ApiServer
from aimlab.testing.charts import NAMESPACE, OVERLAYS, Body, render

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "charts" / "aim"
Run = Callable[..., Awaitable[str]]
KINDS = sorted(
    f"customresourcedefinition.apiextensions.k8s.io/{body['metadata']['name']}" for body in crds()
)


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Run]:
    """Runs a program of this environment against a new API server; gives what it prints."""
    async with ApiServer() as server:
        write_kubeconfig(tmp_path / "kubeconfig", server.url)
        env = os.environ | {"KUBECONFIG": str(tmp_path / "kubeconfig"), "HOME": str(tmp_path)}

        async def command(program: str, *args: str) -> str:
            path = str(Path(sys.executable).with_name(program))
            process = await asyncio.create_subprocess_exec(
                path, *args, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            output, errors = await process.communicate()
            assert process.returncode == 0, errors.decode()
            return output.decode()

        yield command


async def test_the_kinds_outlive_install_upgrade_and_uninstall(run: Run) -> None:
    release = ("aim", str(CHART), "--namespace", NAMESPACE)
    output = await run("helm", "install", *release, "--create-namespace")
    assert f"kubectl rollout status deployment -n {NAMESPACE}" in output
    assert f"kubectl logs -n {NAMESPACE} -l app.kubernetes.io/name=aim-nats-init" in output
    await run("helm", "upgrade", *release, "--values", str(CHART / "values-production.yaml"))
    workloads = ("statefulset/aim-nats", "deployment/aim-watcher", "-n", NAMESPACE)
    replicas = await run("kubectl", "get", *workloads, "-o", "jsonpath={.items[*].spec.replicas}")
    assert replicas == "3 2"
    await run("helm", "uninstall", "aim", "--namespace", NAMESPACE)
    assert (await run("kubectl", "get", "crd", "-o", "name")).split() == KINDS
    assert (
        await run(
            "kubectl",
            "get",
            "deployments,statefulsets,jobs,clusterroles,roles,serviceaccounts,networkpolicies",
            "-A",
            "-o",
            "name",
        )
        == ""
    )
    assert "STATUS: deployed" in await run("helm", "install", *release)


def applied(folder: Path, *bodies: Body) -> tuple[str, ...]:
    """The arguments with which kubectl applies these objects."""
    (folder / "bodies.yaml").write_text("\n---\n".join(map(json.dumps, bodies)))
    return "kubectl", "apply", "-f", str(folder / "bodies.yaml")


def in_system(api: str, kind: str, name: str, labels: dict[str, str], **fields: object) -> Body:
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        **fields,
    }


async def test_the_commands_of_the_page_delete_what_a_release_left(
    run: Run, tmp_path: Path
) -> None:
    """In the order of the table; before the last one, nothing but the namespace is left."""
    await run("helm", "install", "aim", str(CHART), "--namespace", NAMESPACE, "--create-namespace")
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}
    left = [
        in_system(
            "v1",
            "PersistentVolumeClaim",
            "data-aim-nats-0",
            {"app.kubernetes.io/name": "aim-nats"},
            spec=claim,
        ),
        *(
            in_system("coordination.k8s.io/v1", "Lease", f"aim-{service}", {})
            for service in SERVICES
        ),
    ]
    await run(*applied(tmp_path, *left))
    await run("aimctl", "nats", "init", "--apply", "-n", NAMESPACE)
    await run("helm", "uninstall", "aim", "--namespace", NAMESPACE)
    page = (
        (ROOT / "docs" / "how-to" / "install.md")
        .read_text()
        .partition("## Uninstall")[2]
        .partition("\n## ")[0]
    )
    commands = re.findall(r"\| `(kubectl delete [^`]+)` \|", page)
    stays = (
        "kubectl",
        "get",
        "crd,pvc,secrets,leases,configmaps,serviceaccounts",
        "-n",
        NAMESPACE,
        "-o",
        "name",
    )
    before = set((await run(*stays)).split())
    assert {name.partition("/")[0].partition(".")[0] for name in before} == {
        "customresourcedefinition",
        "persistentvolumeclaim",
        "secret",
        "lease",
    }
    for command in commands[:-1]:
        await run(*command.split())
        after = set((await run(*stays)).split())
        assert after < before, command
        before = after
    assert before == set()
    assert commands[-1] == f"kubectl delete namespace {NAMESPACE}"


@pytest.mark.parametrize(
    ("port", "is_named"), [(443, False), (6443, False), (8443, True), (16443, True)]
)
async def test_the_notes_name_the_policy_that_blocks_the_api_server(
    run: Run, tmp_path: Path, port: int, *, is_named: bool
) -> None:
    api_server = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default"},
    }
    where = {
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"]}],
        "ports": [{"name": "https", "port": port}],
    }
    await run(*applied(tmp_path, api_server | where))
    output = await run(
        "helm", "install", "aim", str(CHART), "--namespace", NAMESPACE, "--create-namespace"
    )
    assert ("NetworkPolicy aim-services" in output) is is_named
    assert (f"networkPolicy.apiServer.ports={{443,6443,{port}}}" in output) is is_named
    output = await run(
        "helm",
        "upgrade",
        "aim",
        str(CHART),
        "--namespace",
        NAMESPACE,
        "--set",
        f"networkPolicy.apiServer.ports={{443,{port}}}",
    )
    assert "NetworkPolicy aim-services" not in output


@pytest.mark.parametrize(
    ("value", "missing", "whole"),
    [
        pytest.param((), "harbor, quay", "{registries,harbor,quay}", id="default"),
        pytest.param(("quay",), "registries, harbor", "{quay,registries,harbor}", id="another"),
        pytest.param(("quay", "registries", "harbor"), "", "", id="all"),
    ],
)
async def test_the_notes_name_pull_secrets_that_discovery_may_not_get(
    run: Run, tmp_path: Path, value: tuple[str, ...], missing: str, whole: str
) -> None:
    """Up to 0.2 it could read every Secret of its namespace."""
    release = ("aim", str(CHART), "--namespace", NAMESPACE)
    note = "names Secrets that aim-discovery may not get"
    assert note not in await run("helm", "install", *release, "--create-namespace")
    names = ["registries", "harbor", "quay"]
    spec = {"images": {"imagePullSecrets": names}}
    config = in_system("aim.silogen.ai/v1alpha1", "AIMNamespaceConfig", "default", {}, spec=spec)
    await run(*applied(tmp_path, config))
    values = [f"--set=services.discovery.pullSecrets={{{','.join(value)}}}"] if value else []
    output = await run("helm", "upgrade", *release, *values)
    assert (f"{note}: {missing}." in output) is bool(missing)
    assert (f"services.discovery.pullSecrets={whole}" in output) is bool(missing), output


@pytest.mark.parametrize("level", [None, "baseline"])
async def test_the_notes_name_pod_security_until_it_is_enforced(
    run: Run, level: str | None
) -> None:
    await run("kubectl", "create", "namespace", NAMESPACE)
    if level is not None:
        label = f"pod-security.kubernetes.io/enforce={level}"
        await run("kubectl", "label", "namespace", NAMESPACE, label)
    release = ("aim", str(CHART), "--namespace", NAMESPACE)
    command = re.search(r"kubectl label namespace .*", await run("helm", "install", *release))
    assert command is not None
    await run(*command[0].split())
    enforced = "jsonpath={.metadata.labels.pod-security\\.kubernetes\\.io/enforce}"
    assert await run("kubectl", "get", "namespace", NAMESPACE, "-o", enforced) == "restricted"
    assert "kubectl label namespace" not in await run("helm", "upgrade", *release)


async def test_a_second_apply_of_the_chart_changes_nothing(run: Run, tmp_path: Path) -> None:
    await run("kubectl", "create", "namespace", NAMESPACE)
    bodies = [
        body for body in render(CHART) if body["kind"] != "CustomResourceDefinition"
    ]  # (too large for an annotation: --server-side)
    apply = applied(tmp_path, *bodies)
    first = (await run(*apply)).splitlines()
    assert len([line for line in first if line.startswith("job.batch/aim-nats-init-")]) == 1
    assert {line.rpartition(" ")[2] for line in first} == {"created"}
    kinds = ",".join({body["kind"].lower() for body in bodies})
    versions = (
        "kubectl",
        "get",
        kinds,
        "-n",
        NAMESPACE,
        "-o",
        (
            "jsonpath={range .items[*]}{.kind} {.metadata.name}"
            " {.metadata.resourceVersion}{'\\n'}{end}"
        ),
    )
    before = await run(*versions)
    assert await run(*apply) != ""
    assert await run(*versions) == before


async def test_a_release_without_keys_is_upgraded_to_one_with_keys(
    run: Run, tmp_path: Path
) -> None:
    """A chart up to 0.2 had no keys unless they were asked for. `--reuse-values` brings that
    along."""
    shutil.copytree(CHART, tmp_path / "old")
    values = (CHART / "values.yaml").read_text()
    assert values.count("    enabled: null #") == 1
    (tmp_path / "old" / "values.yaml").write_text(
        values.replace("    enabled: null #", "    enabled: false #")
    )
    release = ("aim", str(CHART), "--namespace", NAMESPACE)
    jobs = ("kubectl", "get", "jobs", "-n", NAMESPACE, "-o", "name")
    urls = (
        "kubectl",
        "get",
        "deployment/aim-router",
        "-n",
        NAMESPACE,
        "-o",
        "jsonpath={.spec.template.spec.containers[0].env[0].value}",
    )
    await run(
        "helm",
        "install",
        "aim",
        str(tmp_path / "old"),
        "--namespace",
        NAMESPACE,
        "--create-namespace",
    )
    assert (await run(*jobs), await run(*urls)) == ("", f"nats://aim-nats.{NAMESPACE}.svc:4222")
    await run("helm", "upgrade", *release, "--reuse-values")
    assert await run(*jobs) == ""
    await run("helm", "upgrade", *release, "--reset-then-reuse-values")
    assert (await run(*jobs)).startswith("job.batch/aim-nats-init-")
    assert await run(*urls) == f"tls://aim-nats.{NAMESPACE}.svc:4222"
    await run("helm", "upgrade", *release, "--set", "image.tag=9.9.9")
    assert len((await run(*jobs)).split()) == 1


@pytest.mark.parametrize("overlay", OVERLAYS)
async def test_kubectl_applies_an_overlay_twice(run: Run, overlay: str) -> None:
    """In one go, the Namespace first, and the second time without changing anything."""
    kustomize = ROOT / "deploy" / "kustomize"
    await run("kubectl", "apply", "--server-side", "-k", str(kustomize / "crds"))
    apply = ("kubectl", "apply", "--server-side", "-k", str(kustomize / "overlays" / overlay))
    first = (await run(*apply)).splitlines()
    assert {line.rpartition(" ")[2] for line in first} == {"serverside-applied"}
    versions = (
        "kubectl",
        "get",
        "crd,deployments,statefulsets,jobs,roles",
        "-A",
        "-o",
        "jsonpath={.items[*].metadata.resourceVersion}",
    )
    before = await run(*versions)
    await run(*apply)
    assert await run(*versions) == before
