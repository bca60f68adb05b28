"""A KServe that only knows RawDeployment (up to 0.15, OpenShift AI), and its upgrade."""

import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

import aimbus
from aim_testing import quickstart
from aimkube import Forbidden, Unavailable
from aimlab.cli.environment import Stack, control_plane_on_laptop
from aimlab.cli.quickstart import NAMESPACE, SERVICE
from aimlab.testing import eventually
from aimschema import subjects
from aimschema.labels import KSERVE_DEPLOYMENT_MODE
from aimschema.messages import StatusReported
from aimschema.reasons import DEPLOYER, RUNTIME_FAILED, RUNTIME_READY
from aimschema.resources import INFERENCE_SERVICE
from aimschema.resources import SERVICE as SERVICE_KIND

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with control_plane_on_laptop(tmp_path_factory.mktemp("stack")) as running:
        await start_kserve(running, "0.15")
        await quickstart.running(running)
        yield running


async def start_kserve(stack: Stack, version: str) -> None:
    """In place of the one that serves."""
    await stack.lab.children.stop("kserve")
    command = [
        sys.executable,
        "-m",
        "aimlab.kserve",
        "--kubeconfig",
        str(stack.lab.kubeconfig),
        "--webhook",
        "--version",
        version,
    ]
    await stack.lab.children.start("kserve", command)


async def rejects(stack: Stack, mode: str) -> bool:
    """Whether its webhook is up and rejects a strategy in this mode."""
    predictor = {
        "deploymentStrategy": {"type": "Recreate"},
        "containers": [{"name": "kserve-container", "image": "probe:1"}],
    }
    metadata = {
        "name": "probe",
        "namespace": NAMESPACE,
        "annotations": {KSERVE_DEPLOYMENT_MODE: mode},
    }
    probe = {
        "apiVersion": INFERENCE_SERVICE.api_version,
        "kind": INFERENCE_SERVICE.kind,
        "metadata": metadata,
        "spec": {"predictor": predictor},
    }
    try:
        await stack.lab.cluster.create(probe)
    except Forbidden:
        return True
    except Unavailable:
        return False
    await stack.lab.cluster.delete(INFERENCE_SERVICE, NAMESPACE, "probe")
    return False


async def reported(stack: Stack) -> list[str]:
    """Every reason that RuntimeReady has had."""
    bus = await aimbus.connect(stack.nats_url, name="test")
    try:
        events = aimbus.read_log(bus, [subjects.reports(SERVICE_KIND.kind, DEPLOYER)])
        messages = [event.message async for event in events if isinstance(event, aimbus.Event)]
    finally:
        await bus.close()
    reports = [message for message in messages if isinstance(message, StatusReported)]
    return [
        condition.reason
        for report in reports
        for condition in report.conditions
        if condition.type == RUNTIME_READY
    ]


async def test_it_runs_as_raw_deployment_without_a_failure_on_the_way(stack: Stack) -> None:
    made = await stack.lab.cluster.get(INFERENCE_SERVICE, NAMESPACE, SERVICE)
    assert made["metadata"]["annotations"][KSERVE_DEPLOYMENT_MODE] == "RawDeployment"
    assert made["status"]["deploymentMode"] == "RawDeployment"
    assert RUNTIME_FAILED not in await reported(stack)


async def test_the_word_stays_when_kserve_is_upgraded(stack: Stack) -> None:
    await start_kserve(stack, "0.16")
    await eventually(lambda: rejects(stack, "RawDeployment"), "the webhook of 0.16")
    await stack.lab.cluster.merge_patch(SERVICE_KIND, NAMESPACE, SERVICE, {"spec": {"replicas": 2}})

    async def has_two() -> bool:
        body = await stack.lab.cluster.get(INFERENCE_SERVICE, NAMESPACE, SERVICE)
        return (
            body["spec"]["predictor"]["minReplicas"] == 2
            and "deploymentStrategy" not in body["spec"]["predictor"]
        )

    await eventually(
        has_two, "two replicas, without a strategy, which 0.16 rejects beside RawDeployment"
    )
    made = await stack.lab.cluster.get(INFERENCE_SERVICE, NAMESPACE, SERVICE)
    assert made["metadata"]["annotations"][KSERVE_DEPLOYMENT_MODE] == "RawDeployment"
