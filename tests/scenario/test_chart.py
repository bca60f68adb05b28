"""The demo's way on the rendered chart itself: the node runs its Deployments and NATS, each as its ServiceAccount, and nothing else.

What containers are given otherwise than on a node with containers: `aimlab.node` (paths, own_network, addresses).
"""

import re
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

import aimbus
from aimctl.console import PlainConsole
from aimctl.contracts import flaws_of_log
from aimctl.demo import Checks, the_way
from aimctl.quickstart import prepare
from aimctl.services import SERVICES
from aimctl.stack import Stack, kubectl
from aimlab.accounts import api_of
from aimlab.apiserver.access import ACCOUNT_PREFIX, Call
from aimlab.apiserver.http import CALLS_PATH
from aimlab.kinds import is_going, is_true
from aimlab.lab import SYSTEM_NAMESPACE, Lab, laptop
from aimlab.node.images import ImageCommand
from aimlab.testing import eventually
from aimlab.testing.charts import render
from aimschema.resources import AIM_KINDS, CLAIM, INFERENCE_SERVICE, JOB, POD, ROUTE

CHART = Path(__file__).parents[2] / "deploy" / "charts" / "aim"
BIN = Path(sys.executable).parent
NATS_PORT = 4222
MONITOR_PORT = 8222
HTTP_PORT = 8080
NO_POD = "127.250.0.1"
"""A loopback address that the node gives to no pod."""
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]


def images_of(bodies: list[dict[str, Any]]) -> dict[str, ImageCommand]:
    """Which process each image of the control plane is on this machine."""
    workloads = [body for body in bodies if body["kind"] in {"Deployment", "StatefulSet"}]
    named = {container["image"] for body in workloads for container in body["spec"]["template"]["spec"]["containers"]}
    nats = ("/bin/sh", "-c", f'exec {BIN / "nats-server"} --addr "$AIMLAB_POD_IP" "$@"', "nats-server")
    services = {image: match[1] for image in named if (match := re.search(r"/(aim-[a-z]+):[^/]+$", image))}
    own = {image: ImageCommand((sys.executable, "-m", "aimlab.node.own_network", str(BIN / script))) for image, script in services.items()}
    return own | {image: ImageCommand(nats) for image in named - own.keys()}


def downloader_of(bodies: list[dict[str, Any]]) -> str:
    (cacher,) = (body for body in bodies if body["kind"] == "Deployment" and body["metadata"]["name"] == "aim-cacher")
    env = cacher["spec"]["template"]["spec"]["containers"][0]["env"]
    return str(next(variable["value"] for variable in env if variable["name"] == "AIM_DOWNLOADER_IMAGE"))


async def install(lab: Lab, bodies: list[dict[str, Any]]) -> None:
    """Until every pod is of the newest kind and ready."""
    manifests = lab.state_dir / "rendered.yaml"
    manifests.write_text(yaml.safe_dump_all(bodies))
    await kubectl(lab, "apply", "-f", str(manifests))
    for kind in ("statefulset/aim-nats", *(f"deployment/aim-{service}" for service in SERVICES)):
        await kubectl(lab, "rollout", "status", kind, "-n", SYSTEM_NAMESPACE, "--timeout=60s")


def is_free(port: int) -> bool:
    """Whether a pod could listen on it: who listens on all addresses of the machine listens on theirs too."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do; what is left of former connections does not count
        try:
            tried.bind((NO_POD, port))
        except OSError:
            return False
    return True


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The chart, rendered and applied by kubectl on a laptop cluster that has nothing else of ours."""
    for port in (NATS_PORT, MONITOR_PORT, HTTP_PORT):
        assert is_free(port), f"something on this machine listens on port {port} of all addresses, which the pods need on theirs: stop it"
    folder = tmp_path_factory.mktemp("chart")
    bodies = render(CHART)
    async with laptop(folder, []) as lab:
        quickstart = await prepare(lab, downloader_of(bodies), images_of(bodies))
        await install(lab, bodies)
        pods = {pod["metadata"]["labels"]["app.kubernetes.io/name"]: pod for pod in (await lab.cluster.list(POD, SYSTEM_NAMESPACE)).items}
        health = {service: f"http://{pods[f'aim-{service}']['status']['podIP']}:{HTTP_PORT}" for service in SERVICES}
        nats_url = f"nats://{pods['aim-nats']['status']['podIP']}:{NATS_PORT}"
        yield Stack(lab, None, nats_url, lab.children, health, quickstart)


async def test_the_way_of_the_demo_is_true_on_the_rendered_deployments(stack: Stack) -> None:
    checks = Checks(PlainConsole(sys.stdout, 160), [])
    bus = await aimbus.connect(stack.nats_url, name="test")
    try:
        await the_way(stack, bus, checks)
    finally:
        await bus.close()
    assert checks.failed == []


async def test_each_service_ran_as_its_own_account_and_was_refused_nothing(stack: Stack) -> None:
    async with aiohttp.ClientSession(trust_env=False) as client, client.get(f"{api_of(stack.lab.kubeconfig).url}{CALLS_PATH}") as answer:
        calls = [Call(**call) for call in await answer.json()]
    own = [call for call in calls if call.user.startswith(f"{ACCOUNT_PREFIX}:{SYSTEM_NAMESPACE}:")]
    assert {call.user.rpartition(":")[2] for call in own} == {f"aim-{service}" for service in SERVICES}
    assert [call for call in own if not call.granted] == []


async def test_each_pod_has_its_own_account_and_each_service_kept_to_its_contract(stack: Stack) -> None:
    accounts = {pod["spec"]["serviceAccountName"] for pod in (await stack.lab.cluster.list(POD, SYSTEM_NAMESPACE)).items}
    assert accounts == {f"aim-{name}" for name in (*SERVICES, "nats")}
    count, flaws = await flaws_of_log(stack.nats_url)
    assert count > 100
    assert flaws == []


async def test_the_events_are_on_the_volume_of_the_claim(stack: Stack) -> None:
    assert list((stack.lab.state_dir / "node" / "volumes").glob("*/jetstream")) != []


async def made(stack: Stack) -> dict[str, str]:
    """By kind and name, the version of what the control plane makes and reports on."""
    kinds = (*AIM_KINDS, INFERENCE_SERVICE, ROUTE, JOB, CLAIM)
    lists = {kind.kind: (await stack.lab.cluster.list(kind)).items for kind in kinds}
    return {f"{kind} {body['metadata']['name']}": body["metadata"]["resourceVersion"] for kind, items in lists.items() for body in items}


async def roles(stack: Stack) -> dict[str, list[str]]:
    """What the ready pods of each service say that they are."""
    said: dict[str, list[str]] = {service: [] for service in SERVICES}
    async with aiohttp.ClientSession(trust_env=False) as client:
        for pod in (await stack.lab.cluster.list(POD, SYSTEM_NAMESPACE)).items:
            name = pod["metadata"]["labels"]["app.kubernetes.io/name"].removeprefix("aim-")
            if name in said and is_true(pod, "Ready") and not is_going(pod):
                async with client.get(f"http://{pod['status']['podIP']}:{HTTP_PORT}/readyz") as answer:
                    said[name].append((await answer.text()).split()[-1])
    return {name: sorted(found) for name, found in said.items()}


async def test_an_upgrade_to_two_of_each_leaves_one_at_work_and_one_ready_to_take_over(stack: Stack) -> None:
    """Every pod is replaced, and nothing that was made is written again."""
    before = await made(stack)
    await install(stack.lab, render(CHART, "--set=replicas=2,log.level=DEBUG"))

    async def one_of_each_works() -> bool:
        return await roles(stack) == {service: ["leader", "standby"] for service in SERVICES}

    await eventually(one_of_each_works, "one of each service works and one stands by")
    assert await made(stack) == before
