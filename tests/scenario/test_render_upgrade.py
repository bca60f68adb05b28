"""An upgrade from release 0.2 with a model server running: its pod stays, its Deployment gets
the new strategy."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from aim_deployer.render import LATEST
from aimctl.local.ports import free_ports
from aimctl.local.processes import until_answers
from aimctl.local.services import start_service
from aimlab.cli.environment import Stack, control_plane_on_laptop, kubectl
from aimlab.cli.quickstart import NAMESPACE, SERVICE
from aimlab.testing import eventually
from aimschema.labels import ANNOTATION_RENDER, KSERVE_ISVC_LABEL
from aimschema.reasons import DEPLOYER
from aimschema.resources import DEPLOYMENT, INFERENCE_SERVICE, POD
from aimschema.resources import SERVICE as SERVICE_KIND

Body = dict[str, Any]
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
ADDED = ("tolerations", "automountServiceAccountToken", "enableServiceLinks")
"""What version 2 adds to a pod."""
ROLLS = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}


@pytest_asyncio.fixture(loop_scope="module")
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with control_plane_on_laptop(tmp_path) as running:
        await kubectl(running.lab, "apply", "-f", str(running.quickstart.manifests))
        await until_running(running)
        yield running


async def until_running(stack: Stack) -> None:
    await kubectl(
        stack.lab,
        "wait",
        f"aimsvc/{SERVICE}",
        "-n",
        NAMESPACE,
        "--for=condition=Ready",
        "--timeout=60s",
    )


def as_release_0_2_sent_it(existing: Body) -> Body:
    """The golden files of version 1 hold that it is this."""
    metadata = {
        name: existing["metadata"][name]
        for name in ("name", "namespace", "labels", "ownerReferences")
    }
    annotations = {
        name: value
        for name, value in existing["metadata"]["annotations"].items()
        if name != ANNOTATION_RENDER
    }
    predictor = {
        field: value for field, value in existing["spec"]["predictor"].items() if field not in ADDED
    }
    head = {
        "apiVersion": existing["apiVersion"],
        "kind": existing["kind"],
        "metadata": metadata | {"annotations": annotations},
    }
    return head | {"spec": {"predictor": predictor | {"deploymentStrategy": ROLLS}}}


async def pods(stack: Stack) -> list[str]:
    found = (
        await stack.lab.cluster.list(
            POD, NAMESPACE, label_selector=f"{KSERVE_ISVC_LABEL}={SERVICE}"
        )
    ).items
    return sorted(
        pod["metadata"]["uid"] for pod in found if "deletionTimestamp" not in pod["metadata"]
    )


async def deployment(stack: Stack) -> Body:
    return await stack.lab.cluster.get(DEPLOYMENT, NAMESPACE, f"{SERVICE}-predictor")


async def upgrade(stack: Stack) -> tuple[list[str], Body]:
    """The pods and the pod template of release 0.2, after the deployer has replaced its one."""
    cluster = stack.lab.cluster
    await stack.services.stop(DEPLOYER)
    newest = await cluster.get(INFERENCE_SERVICE, NAMESPACE, SERVICE)
    assert newest["metadata"]["annotations"][ANNOTATION_RENDER] == str(LATEST)
    await cluster.apply(as_release_0_2_sent_it(newest), manager=f"aim-{DEPLOYER}")

    async def is_released() -> bool:
        """The pod of the former rendering, ready, and the roll-out to it complete."""
        body = await deployment(stack)
        status = body.get("status", {})
        first = (
            body["spec"]["strategy"] == ROLLS
            and "tolerations" not in body["spec"]["template"]["spec"]
        )
        rolled_out = (
            status.get("observedGeneration") == body["metadata"]["generation"]
            and status.get("updatedReplicas") == 1
        )
        return (
            first
            and rolled_out
            and status.get("readyReplicas") == 1
            and len(await pods(stack)) == 1
        )

    await eventually(is_released, "a Deployment as release 0.2 makes it")
    before, template = await pods(stack), (await deployment(stack))["spec"]["template"]
    kubeconfig, port = stack.lab.accounts[f"aim-{DEPLOYER}"], free_ports(1)[0]
    url = await start_service(
        stack.services, DEPLOYER, nats_url=stack.nats_url, kubeconfig=kubeconfig, port=port
    )
    await until_answers(stack.services.running[DEPLOYER], f"{url}/readyz", DEPLOYER)

    async def has_the_new_strategy() -> bool:
        return bool((await deployment(stack))["spec"]["strategy"] == {"type": "Recreate"})

    await eventually(has_the_new_strategy, "the strategy Recreate")
    await until_running(stack)
    return before, template


async def test_an_upgrade_changes_no_pod_template(stack: Stack) -> None:
    before, template = await upgrade(stack)
    cluster = stack.lab.cluster
    assert (await deployment(stack))["spec"]["template"] == template
    assert await pods(stack) == before
    assert (
        ANNOTATION_RENDER
        not in (await cluster.get(INFERENCE_SERVICE, NAMESPACE, SERVICE))["metadata"]["annotations"]
    )


async def test_a_user_moves_a_service_to_the_newest_version(stack: Stack) -> None:
    before, _ = await upgrade(stack)
    await stack.lab.cluster.merge_patch(
        SERVICE_KIND,
        NAMESPACE,
        SERVICE,
        {"metadata": {"annotations": {ANNOTATION_RENDER: "latest"}}},
    )

    async def has_moved() -> bool:
        return "tolerations" in (await deployment(stack))["spec"]["template"]["spec"] and not set(
            before
        ) & set(await pods(stack))

    await eventually(has_moved, "another pod, of version 2")
    await until_running(stack)
