"""`aimctl doctor` as people run it: on a whole laptop cluster, before anything is installed,
without NATS, and with a permission taken away.

The tests of this file share one laptop cluster.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from aimctl.local.ports import free_ports
from aimctl.local.processes import Children
from aimlab.accounts import write_kubeconfig
from aimlab.cli.environment import Stack, control_plane_on_laptop, kubectl_env
from aimlab.cli.quickstart import NAMESPACE, SERVICE
from aimlab.lab import start_double
from aimlab.testing import commands

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
Findings = list[dict[str, Any]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """With the quickstart running."""
    async with control_plane_on_laptop(tmp_path_factory.mktemp("stack")) as running:
        env = kubectl_env(running.lab)
        await commands.command(env, "kubectl", "apply", "-f", str(running.quickstart.manifests))
        await commands.command(
            env,
            "kubectl",
            "wait",
            f"aimsvc/{SERVICE}",
            "-n",
            NAMESPACE,
            "--for=condition=Ready",
            "--timeout=60s",
        )
        yield running


async def doctor(stack: Stack, *args: str, code: int = 0, **env: str) -> Findings:
    output = await commands.command(
        kubectl_env(stack.lab) | {"AIM_NATS_URL": stack.nats_url} | env,
        "aimctl",
        "doctor",
        "-o",
        "json",
        *args,
        code=code,
    )
    found: Findings = json.loads(output)
    return found


def areas(findings: Findings, level: str) -> list[str]:
    return sorted({finding["area"] for finding in findings if finding["level"] == level})


async def test_a_whole_cluster_is_well_in_every_area(stack: Stack) -> None:
    findings = await doctor(stack)
    everywhere = [
        "gateway",
        "gateway api",
        "gpu",
        "kinds",
        "kserve",
        "kubernetes",
        "nats",
        "permissions",
        "registry",
        "services",
        "storage",
    ]
    assert (areas(findings, "ok"), areas(findings, "warning"), areas(findings, "error")) == (
        everywhere,
        [],
        [],
    )
    output = await commands.command(
        kubectl_env(stack.lab) | {"AIM_NATS_URL": stack.nats_url}, "aimctl", "doctor"
    )
    assert output.endswith(" ok, 0 warnings, 0 errors\n")


async def test_a_revoked_permission_is_named_with_its_account(stack: Stack) -> None:
    env, binding = kubectl_env(stack.lab), "clusterrolebinding/aim-router"
    manifest = await commands.command(env, "kubectl", "get", binding, "-o", "json")
    await commands.command(env, "kubectl", "delete", binding)
    lost = [finding for finding in await doctor(stack, code=1) if finding["level"] == "error"]
    assert {(each["area"], each["fix"]) for each in lost} == {
        ("permissions", "kubectl apply -f deploy/rbac")
    }
    assert [each["what"] for each in lost] == [
        "aim-router may not get aimservices.aim.silogen.ai in every namespace",
        (
            "aim-router may not get, create, patch, delete httproutes.gateway.networking.k8s.io in"
            " every namespace"
        ),
    ]
    file = stack.lab.state_dir / "binding.json"
    file.write_text(manifest)
    await commands.command(env, "kubectl", "create", "-f", str(file))
    assert areas(await doctor(stack), "error") == []


async def test_without_impersonation_own_permissions_are_checked(
    stack: Stack,
) -> None:
    findings = await doctor(stack, "--kubeconfig", str(stack.lab.accounts["aim-router"]))
    what_found = [finding["what"] for finding in findings if finding["area"] == "permissions"]
    assert any(
        "the permissions of the services are unknown" in text and "subjectaccessreviews" in text
        for text in what_found
    )
    jobs = "jobs.batch in every namespace"
    assert any(text.startswith("you may not ") and jobs in text for text in what_found)


async def test_an_unreachable_nats_server_hides_no_other_finding(
    stack: Stack,
) -> None:
    nowhere = f"nats://127.0.0.1:{free_ports(1)[0]}"
    findings = await doctor(stack, code=1, AIM_NATS_URL=nowhere)
    assert (areas(findings, "error"), "storage" in areas(findings, "ok")) == (["nats"], True)
    assert f"no NATS server answers at {nowhere}" in next(
        finding["what"] for finding in findings if finding["area"] == "nats"
    )


async def test_an_unreachable_api_server_hides_no_other_finding(
    stack: Stack, tmp_path: Path
) -> None:
    write_kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{free_ports(1)[0]}")
    findings = await doctor(stack, "--kubeconfig", str(tmp_path / "kubeconfig"), code=1)
    assert (areas(findings, "error"), areas(findings, "ok")) == (["kubernetes"], ["nats"])


async def test_each_missing_part_is_named_with_its_install_command(
    tmp_path: Path,
) -> None:
    async with Children(tmp_path / "log") as children:
        write_kubeconfig(tmp_path / "kubeconfig", await start_double(children, bare=True))
        env = {"PATH": "", "HOME": str(tmp_path)}
        output = await asyncio.wait_for(
            commands.command(
                env,
                "aimctl",
                "doctor",
                "--kubeconfig",
                str(tmp_path / "kubeconfig"),
                "-o",
                "json",
                code=1,
            ),
            timeout=30,
        )
    findings: Findings = json.loads(output)
    assert areas(findings, "error") == ["gateway api", "kinds", "kserve", "kubernetes"]
    assert areas(findings, "warning") == [
        "gateway",
        "gpu",
        "nats",
        "permissions",
        "services",
        "storage",
    ]
    fixes = " ".join(finding["fix"] for finding in findings)
    assert all(
        fix in fixes
        for fix in (
            "deploy/crds",
            "deploy/rbac",
            "create namespace aim-system",
            "KServe",
            "standard-install.yaml",
            "aimctl up",
        )
    )
