"""The demo's way on the rendered chart itself: the node runs its Deployments and NATS, each as its
ServiceAccount, and nothing else.

What containers are given otherwise than on a node with containers: `aimlab.node` (paths,
own_network, addresses).
"""

import asyncio
import base64
import contextlib
import json
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

import aimbus
from aim_watcher.nats_secrets import AUTHORITY, CA, OPERATOR, SEED, names, of_user
from aimbus import NatsCredentials
from aimctl.component_registry import SERVICES
from aimctl.nats.users import CONSOLE
from aimctl.output.console import PlainConsole
from aimlab.apiserver.access import ACCOUNT_PREFIX, Call
from aimlab.cli.demo import Checks, the_way
from aimlab.cli.environment import Stack, kubectl, kubectl_env
from aimlab.cli.quickstart import NAMESPACE, SERVICE, prepare
from aimlab.kinds import is_deleting, is_true
from aimlab.lab import Lab, laptop
from aimlab.node.images import ImageCommand
from aimlab.node.service_proxy import pipe
from aimlab.testing import commands, eventually
from aimlab.testing.bus_contract import flaws_of_log
from aimlab.testing.calls import recorded_calls
from aimlab.testing.charts import render
from aimschema.names import SYSTEM_NAMESPACE
from aimschema.reasons import WATCHER
from aimschema.resources import (
    AIM_KINDS,
    CACHE,
    CLAIM,
    CONFIG_MAP,
    EVENT,
    GATEWAY,
    INFERENCE_SERVICE,
    JOB,
    MODEL,
    POD,
    ROUTE,
    SECRET,
    STORAGE_CLASS,
    Resource,
)

CHART = Path(__file__).parents[2] / "deploy" / "charts" / "aim"
BIN = Path(sys.executable).parent
INIT = "aim-nats-init"
NATS_PORT = 4222
MONITOR_PORT = 8222
HTTP_PORT = 8080
NO_POD = "127.250.0.1"
"""A loopback address that the node gives to no pod."""
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]


def images_of(bodies: list[dict[str, Any]]) -> dict[str, ImageCommand]:
    """Which process each image of the control plane is on this machine."""
    workloads = [body for body in bodies if body["kind"] in {"Deployment", "StatefulSet"}]
    named = {
        container["image"]
        for body in workloads
        for container in body["spec"]["template"]["spec"]["containers"]
    }
    # a file that the server reads names others by their paths in the container
    here = 'sed -i "s#\\"/etc/#\\"$PWD/etc/#" etc/aim/nats-server/tls.conf'
    nats = (
        "/bin/sh",
        "-c",
        f'{here}; exec {BIN / "nats-server"} --addr "$AIMLAB_POD_IP" "$@"',
        "nats-server",
    )
    services = {
        image: match[1] for image in named if (match := re.search(r"/(aim-[a-z]+):[^/]+$", image))
    }
    own = {
        image: ImageCommand(
            (sys.executable, "-m", "aimlab.node.network_namespace_shim", str(BIN / script))
        )
        for image, script in services.items()
    }
    return own | {image: ImageCommand(nats) for image in named - own.keys()}


def downloader_of(bodies: list[dict[str, Any]]) -> str:
    (cacher,) = (
        body
        for body in bodies
        if body["kind"] == "Deployment" and body["metadata"]["name"] == "aim-cacher"
    )
    env = cacher["spec"]["template"]["spec"]["containers"][0]["env"]
    return str(
        next(variable["value"] for variable in env if variable["name"] == "AIM_DOWNLOADER_IMAGE")
    )


async def install(lab: Lab, bodies: list[dict[str, Any]]) -> None:
    """Until every pod is of the newest kind and ready."""
    manifests = lab.state_dir / "rendered.yaml"
    manifests.write_text("\n---\n".join(map(json.dumps, bodies)))  # JSON is YAML
    await kubectl(lab, "apply", "-f", str(manifests))
    for kind in ("statefulset/aim-nats", *(f"deployment/aim-{service}" for service in SERVICES)):
        await kubectl(lab, "rollout", "status", kind, "-n", SYSTEM_NAMESPACE, "--timeout=60s")


def is_free(port: int) -> bool:
    """Whether a pod could listen on it: who listens on all addresses of the machine listens on
    theirs too."""
    with socket.socket() as tried:
        tried.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do; what is left of former connections does not count
        try:
            tried.bind((NO_POD, port))
        except OSError:
            return False
    return True


@asynccontextmanager
async def forwarded(place: tuple[str, int]) -> AsyncIterator[int]:
    """As `kubectl port-forward` does: on a port of 127.0.0.1, which the certificate is for too."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await pipe(reader, writer, place)
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def access_of(lab: Lab, folder: Path) -> NatsCredentials:
    """The console's, out of its Secret, as docs/how-to/nats.md says."""
    data = (await lab.cluster.get(SECRET, SYSTEM_NAMESPACE, of_user(CONSOLE)))["data"]
    await asyncio.to_thread(folder.mkdir)
    for key, value in data.items():
        await asyncio.to_thread((folder / key).write_bytes, base64.b64decode(value))
    return NatsCredentials(str(folder / SEED), str(folder / CA))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The chart, rendered and applied by kubectl on a laptop cluster that has nothing else of
    ours."""
    for port in (NATS_PORT, MONITOR_PORT, HTTP_PORT):
        assert is_free(port), (
            f"something on this machine listens on port {port} of all addresses, which the pods"
            " need on theirs: stop it"
        )
    folder = tmp_path_factory.mktemp("chart")
    bodies = render(CHART)
    async with laptop(folder, []) as lab:
        quickstart = await prepare(lab, downloader_of(bodies), images_of(bodies))
        await install(lab, bodies)
        pods = {
            pod["metadata"]["labels"]["app.kubernetes.io/name"]: pod
            for pod in (await lab.cluster.list(POD, SYSTEM_NAMESPACE)).items
        }
        health = {
            service: f"http://{pods[f'aim-{service}']['status']['podIP']}:{HTTP_PORT}"
            for service in SERVICES
        }
        async with forwarded((pods["aim-nats"]["status"]["podIP"], NATS_PORT)) as port:
            yield Stack(
                lab,
                None,
                f"tls://127.0.0.1:{port}",
                lab.children,
                health,
                quickstart,
                await access_of(lab, folder / "console"),
            )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def demo(stack: Stack) -> Checks:
    """What the demo has checked. Its service runs from then on."""
    checks = Checks(PlainConsole(sys.stdout, 160), [])
    bus = await aimbus.connect(stack.nats_url, name="aimctl", access=stack.access)
    try:
        await the_way(stack, bus, checks)
    finally:
        await bus.close()
    return checks


async def test_the_way_of_the_demo_is_true_on_the_rendered_deployments(demo: Checks) -> None:
    assert demo.failed == []


async def calls_of(lab: Lab) -> list[Call]:
    """What the accounts of the control plane asked the API server for."""
    calls = await recorded_calls(lab.kubeconfig)
    return [call for call in calls if call.user.startswith(f"{ACCOUNT_PREFIX}:{SYSTEM_NAMESPACE}:")]


@pytest.mark.usefixtures("demo")
async def test_each_service_has_its_own_account_and_no_denials(stack: Stack) -> None:
    own = await calls_of(stack.lab)
    assert {call.user.rpartition(":")[2] for call in own} == {
        *(f"aim-{service}" for service in SERVICES),
        INIT,
    }
    assert [call for call in own if not call.granted] == []


@pytest.mark.usefixtures("demo")
async def test_each_pod_has_its_own_account_and_keeps_its_contract(
    stack: Stack,
) -> None:
    accounts = {
        pod["spec"]["serviceAccountName"]
        for pod in (await stack.lab.cluster.list(POD, SYSTEM_NAMESPACE)).items
    }
    assert accounts == {*(f"aim-{name}" for name in (*SERVICES, "nats")), INIT}
    count, flaws = await flaws_of_log(stack.nats_url, stack.access)
    assert count > 100
    assert flaws == []


async def secrets_of(lab: Lab) -> dict[str, str]:
    """By name, the version of each Secret of NATS."""
    found = (await lab.cluster.list(SECRET, SYSTEM_NAMESPACE)).items
    return {
        body["metadata"]["name"]: body["metadata"]["resourceVersion"]
        for body in found
        if body["metadata"]["name"] in names()
    }


async def test_the_job_made_the_keys_and_they_are_required(stack: Stack) -> None:
    assert (await secrets_of(stack.lab)).keys() == set(names()) - {of_user(OPERATOR), AUTHORITY}
    problems: list[str] = []
    async with asyncio.TaskGroup() as tasks:
        stranger = NatsCredentials(None, stack.access.ca)
        waiting = tasks.create_task(
            aimbus.connect(
                stack.nats_url, name="aimctl", access=stranger, on_status=problems.append
            )
        )

        async def is_kept_out() -> bool:
            return any("the server requires an NKey" in problem for problem in problems)

        await eventually(is_kept_out, "a client without a key gets an error")
        waiting.cancel()


async def test_a_second_apply_changes_no_key_and_runs_no_job(stack: Stack) -> None:
    before, jobs = await secrets_of(stack.lab), await jobs_of(stack.lab)
    await install(stack.lab, render(CHART))
    assert (await secrets_of(stack.lab), await jobs_of(stack.lab)) == (before, jobs)


async def jobs_of(lab: Lab) -> dict[str, str]:
    return {
        job["metadata"]["name"]: job["metadata"]["uid"]
        for job in (await lab.cluster.list(JOB, SYSTEM_NAMESPACE)).items
    }


async def test_the_events_are_on_the_volume_of_the_claim(stack: Stack) -> None:
    assert list((stack.lab.state_dir / "node" / "volumes").glob("*/jetstream")) != []


async def made(lab: Lab, *kinds: Resource) -> dict[str, str]:
    """By kind and name, the version of what the control plane makes and reports on."""
    lists = {
        kind.kind: (await lab.cluster.list(kind)).items
        for kind in kinds or (*AIM_KINDS, INFERENCE_SERVICE, ROUTE, JOB, CLAIM)
    }
    return {
        f"{kind} {body['metadata']['name']}": body["metadata"]["resourceVersion"]
        for kind, items in lists.items()
        for body in items
    }


async def roles(stack: Stack) -> dict[str, list[str]]:
    """The role that the ready pods of each service report."""
    answers: dict[str, list[str]] = {service: [] for service in SERVICES}
    async with aiohttp.ClientSession(trust_env=False) as client:
        for pod in (await stack.lab.cluster.list(POD, SYSTEM_NAMESPACE)).items:
            name = pod["metadata"]["labels"]["app.kubernetes.io/name"].removeprefix("aim-")
            if name in answers and is_true(pod, "Ready") and not is_deleting(pod):
                async with client.get(
                    f"http://{pod['status']['podIP']}:{HTTP_PORT}/readyz"
                ) as answer:
                    answers[name].append((await answer.text()).split()[-1])
    return {name: sorted(found) for name, found in answers.items()}


@pytest.mark.usefixtures("demo")
async def test_an_upgrade_to_two_replicas_gives_leader_and_standby(
    stack: Stack,
) -> None:
    """Every pod is replaced, and nothing that was made is written again."""
    before, keys = await made(stack.lab), await secrets_of(stack.lab)
    await install(stack.lab, render(CHART, "--set=replicas=2,log.level=DEBUG"))

    async def one_of_each_works() -> bool:
        return await roles(stack) == {service: ["leader", "standby"] for service in SERVICES}

    await eventually(one_of_each_works, "one of each service works and one stands by")
    assert await made(stack.lab) == before
    assert await secrets_of(stack.lab) == keys


async def test_a_release_without_keys_becomes_one_with_keys(tmp_path: Path) -> None:
    """After an installation of 0.2: its messages are published again, and its objects stay
    unchanged."""
    without = render(CHART, "--set=nats.auth.enabled=false")
    async with laptop(tmp_path, []) as lab:
        quickstart = await prepare(lab, downloader_of(without), images_of(without))
        await install(lab, without)
        assert await secrets_of(lab) == {}
        await kubectl(lab, "apply", "-f", str(quickstart.manifests))
        ready = (
            "wait",
            f"aimsvc/{SERVICE}",
            "-n",
            NAMESPACE,
            "--for=condition=Ready",
            "--timeout=60s",
        )
        await kubectl(lab, *ready)
        before = await made(lab, INFERENCE_SERVICE, ROUTE, CLAIM)
        await install(lab, render(CHART))
        assert of_user(WATCHER) in await secrets_of(lab)
        await kubectl(lab, *ready)
        assert await made(lab, INFERENCE_SERVICE, ROUTE, CLAIM) == before
        await kubectl(lab, "delete", f"aimsvc/{SERVICE}", "-n", NAMESPACE)
        await kubectl(
            lab, "wait", f"httproute/{SERVICE}", "-n", NAMESPACE, "--for=delete", "--timeout=20s"
        )


async def test_two_of_three_namespaces_are_served(tmp_path: Path) -> None:
    """The third is untouched and nothing is denied, until all namespaces are served."""
    served, third = (NAMESPACE, "second"), "third"
    bodies = render(CHART, f"--set=namespaces={{{','.join(served)}}}")

    async def is_ready(namespace: str) -> None:
        wait = ("wait", f"aimsvc/{SERVICE}", "--for=condition=Ready", "--timeout=90s")
        await kubectl(lab, *wait, "-n", namespace)

    async with laptop(tmp_path, []) as lab:
        quickstart = await prepare(lab, downloader_of(bodies), images_of(bodies))
        for namespace in (*served, third):
            await kubectl(lab, "create", "namespace", namespace)
        await install(lab, bodies)
        files = sorted(quickstart.manifests.glob("*.yaml"))
        manifests = "\n---\n".join(file.read_text() for file in files)
        for namespace in (third, *served):
            text = re.sub(
                rf"(name|namespace): {NAMESPACE}$", rf"\1: {namespace}", manifests, flags=re.M
            )
            (tmp_path / "in-namespace.yaml").write_text(text)
            await kubectl(lab, "apply", "-f", str(tmp_path / "in-namespace.yaml"))
        for namespace in served:
            await is_ready(namespace)
        kinds = (CACHE, JOB, CLAIM, POD, CONFIG_MAP, INFERENCE_SERVICE, ROUTE, EVENT)
        assert [kind.kind for kind in kinds if (await lab.cluster.list(kind, third)).items] == []
        for kind in AIM_KINDS:
            if kind.namespaced:
                items = (await lab.cluster.list(kind, third)).items
                assert [body["metadata"]["name"] for body in items if "status" in body] == []
        calls = await calls_of(lab)
        assert [call for call in calls if not call.granted or call.namespace == third] == []
        # The discovery of kinds has a path instead of a resource.
        resources = [call for call in calls if not call.resource.startswith("/")]
        everywhere = {call.resource.partition("/")[0] for call in resources if not call.namespace}
        assert everywhere == {MODEL.plural, STORAGE_CLASS.plural, GATEWAY.plural}
        output = await commands.command(kubectl_env(lab), "aimctl", "doctor", "-o", "json")
        permissions = [each for each in json.loads(output) if each["area"] == "permissions"]
        assert {each["level"] for each in permissions} == {"ok"}, permissions
        await install(lab, render(CHART))
        await is_ready(third)
