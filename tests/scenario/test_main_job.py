"""The main job on a real NATS server, a real S3 server and a real gateway: from the quickstart's
manifests to answers, and back.

The tests of this file share one laptop cluster on which the quickstart runs. `make test-cluster`
runs them on another API server.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

import aimbus
from aimctl.component_registry import SERVICES
from aimlab.apiserver.access import ACCOUNT_PREFIX
from aimlab.cli.demo import NOT_YET
from aimlab.cli.environment import Stack, control_plane_on_laptop
from aimlab.cli.environment import kubectl as run_kubectl
from aimlab.cli.quickstart import MODEL, NAMESPACE, REPOSITORY, SERVICE, TAG, TEMPLATE, WEIGHTS
from aimlab.cli.secret_scan import leaks
from aimlab.kinds import SECRET, is_deleting, is_true
from aimlab.lab import S3_KEYS
from aimlab.testing import eventually
from aimlab.testing.bus_contract import flaws_of_log
from aimlab.testing.calls import recorded_calls
from aimschema import subjects
from aimschema.messages import ActionTaken
from aimschema.names import SYSTEM_NAMESPACE
from aimschema.resources import (
    AIM_KINDS,
    CACHE,
    CLAIM,
    INFERENCE_SERVICE,
    JOB,
    POD,
    ROUTE,
    Resource,
)
from aimschema.resources import SERVICE as SERVICE_KIND

Body = dict[str, Any]
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
pytest_plugins = ["aimlab.testing.server_fixture"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    tmp_path_factory: pytest.TempPathFactory, external_server: Path | None
) -> AsyncIterator[Stack]:
    async with control_plane_on_laptop(
        tmp_path_factory.mktemp("stack"), external_server
    ) as running:
        await apply_and_wait(running)
        yield running
        if external_server is not None:
            for kinds in (
                "aimsvc,aimst",
                "mc,aimns,aimclm",
            ):  # a template that is there would have its cache made again
                await kubectl(running, "delete", kinds, "--all", "-n", NAMESPACE)
            await eventually(lambda: has_no_pods(running), "the pods go")


async def kubectl(stack: Stack, *args: str) -> str:
    return await run_kubectl(stack.lab, *args)


async def has_no_pods(stack: Stack) -> bool:
    return not (await stack.lab.cluster.list(POD, NAMESPACE)).items


async def apply_and_wait(stack: Stack) -> None:
    await kubectl(stack, "apply", "-f", str(stack.quickstart.manifests))
    await kubectl(
        stack,
        "wait",
        f"aimsvc/{SERVICE}",
        "-n",
        NAMESPACE,
        "--for=condition=Ready",
        "--timeout=60s",
    )


async def model_url(stack: Stack) -> str:
    """Where the model is to be asked: at the gateway, or where there is none, at its pod."""
    if stack.lab.gateway is not None:
        service = await stack.lab.cluster.get(SERVICE_KIND, NAMESPACE, SERVICE)
        return str(service["status"]["url"])
    pods = (
        await stack.lab.cluster.list(
            POD, NAMESPACE, label_selector=f"serving.kserve.io/inferenceservice={SERVICE}"
        )
    ).items
    ready = next(pod for pod in pods if is_true(pod, "Ready") and not is_deleting(pod))
    return f"http://{ready['status']['podIP']}:8000"


async def ask(stack: Stack) -> str:
    """The model's answer."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    url = f"{await model_url(stack)}/v1/chat/completions"
    async with aiohttp.ClientSession(trust_env=False) as client, asyncio.timeout(20):
        while True:
            async with client.post(url, json=body) as answer:
                if answer.status == 200:
                    return str((await answer.json())["choices"][0]["message"]["content"])
                assert answer.status in NOT_YET, await answer.text()
            await asyncio.sleep(0.1)


async def versions(stack: Stack, *resources: Resource) -> dict[str, str]:
    """resourceVersion of every object of these kinds."""
    listed = [(resource, await stack.lab.cluster.list(resource)) for resource in resources]
    return {
        f"{resource.kind}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
        for resource, found in listed
        for item in found.items
    }


async def processed(stack: Stack, marker: str) -> None:
    """Waits until the services have processed everything so far: a marker that was sent after it
    has arrived."""
    image = f"{stack.lab.registry.host}/{REPOSITORY}:{TAG}"
    spec = {"name": marker, "image": image}
    await stack.lab.cluster.create(
        {
            "apiVersion": AIM_KINDS[0].api_version,
            "kind": "AIMClusterModel",
            "metadata": {"name": marker},
            "spec": spec,
        }
    )
    await kubectl(stack, "wait", f"aimclm/{marker}", "--for=condition=Ready", "--timeout=20s")
    await kubectl(stack, "delete", f"aimclm/{marker}")


async def jobs_made(stack: Stack) -> list[str]:
    """Every Job that a service has created so far, from the log of events."""
    bus = await aimbus.connect(stack.nats_url, name="test")
    try:
        async with contextlib.aclosing(aimbus.read_log(bus, [f"{subjects.ACTION}.>"])) as events:
            taken = [event.message async for event in events if isinstance(event, aimbus.Event)]
    finally:
        await bus.close()
    return [
        action.name
        for action in taken
        if isinstance(action, ActionTaken) and (action.kind, action.verb) == (JOB.kind, "apply")
    ]


async def test_five_manifests_become_a_model_that_answers(
    stack: Stack,
) -> None:
    assert stack.quickstart.sums[WEIGHTS] in await ask(stack)
    service = await stack.lab.cluster.get(SERVICE_KIND, NAMESPACE, SERVICE)
    assert service["status"]["status"] == "Running"
    if stack.lab.gateway is not None:
        assert service["status"]["path"] == f"/{NAMESPACE}/{service['metadata']['uid']}"
    assert service["status"]["resolvedTemplate"] == TEMPLATE
    assert service["status"]["readyReplicas"] == 1


@pytest.mark.parametrize(
    ("what", "columns"),
    [
        pytest.param("aimclmodel", ["NAME", "NAME", "IMAGE", "READY", "AGE"], id="AIMClusterModel"),
        pytest.param("aimns", ["NAME", "GATEWAY", "AUTO ROUTE", "AGE"], id="AIMNamespaceConfig"),
        pytest.param(
            "aimst",
            ["NAME", "MODEL", "METRIC", "PRECISION", "GPUS", "GPU", "TP", "STATUS", "AGE"],
            id="AIMServiceTemplate",
        ),
        pytest.param(
            "aimsvc", ["NAME", "MODEL", "TEMPLATE", "REPLICAS", "STATUS", "AGE"], id="AIMService"
        ),
        pytest.param(
            "mc", ["NAME", "SOURCE", "SIZE", "STATUS", "PROGRESS", "PVC", "AGE"], id="ModelCache"
        ),
    ],
)
async def test_kubectl_prints_the_columns(stack: Stack, what: str, columns: list[str]) -> None:
    head, first, *_ = (await kubectl(stack, "get", what, "-n", NAMESPACE)).splitlines()
    assert [part.strip() for part in head.split("   ") if part.strip()] == columns
    if what != "aimns" or stack.lab.gateway is not None:  # else two of its columns are empty
        assert len([part for part in first.split("   ") if part.strip()]) == len(columns)


async def test_what_was_made_carries_labels_and_owners(stack: Stack) -> None:
    service = await stack.lab.cluster.get(SERVICE_KIND, NAMESPACE, SERVICE)
    cache = (await stack.lab.cluster.list(CACHE, NAMESPACE)).items[0]
    routes = [(ROUTE, service)] if stack.lab.gateway is not None else []
    for resource, owner in ((INFERENCE_SERVICE, service), *routes, (CLAIM, cache)):
        made = (await stack.lab.cluster.list(resource, NAMESPACE)).items
        assert [
            reference["uid"] for body in made for reference in body["metadata"]["ownerReferences"]
        ] == [owner["metadata"]["uid"]]
        assert {body["metadata"]["labels"]["app.kubernetes.io/managed-by"] for body in made} == {
            "aim"
        }
    assert "ownerReferences" not in cache["metadata"]


async def test_the_cache_reports_that_a_service_used_it(stack: Stack) -> None:
    await kubectl(
        stack,
        "wait",
        "mc",
        "--all",
        "-n",
        NAMESPACE,
        "--for=jsonpath={.status.lastUsed}",
        "--timeout=20s",
    )


async def test_a_second_apply_changes_nothing_and_starts_no_job(stack: Stack) -> None:
    await processed(stack, "before")
    watched = (*AIM_KINDS, SECRET, JOB, POD, CLAIM, INFERENCE_SERVICE, ROUTE)
    before, jobs = await versions(stack, *watched), await jobs_made(stack)
    output = (await kubectl(stack, "apply", "-f", str(stack.quickstart.manifests))).splitlines()
    assert [line for line in output if not line.endswith(" unchanged")] == [
        "secret/s3-credentials configured"
    ]  # kubectl says so of any stringData
    await processed(stack, "after")
    assert await versions(stack, *watched) == before
    assert await jobs_made(stack) == jobs


async def test_what_is_deleted_by_hand_comes_back(stack: Stack) -> None:
    if stack.lab.gateway is None:
        pytest.skip(
            "no gateway: this API server takes no loopback addresses in EndpointSlices; the route"
            " is what would be deleted"
        )
    route = await stack.lab.cluster.get(ROUTE, NAMESPACE, SERVICE)
    await kubectl(stack, "delete", "httproute", SERVICE, "-n", NAMESPACE)
    await kubectl(
        stack, "wait", f"httproute/{SERVICE}", "-n", NAMESPACE, "--for=create", "--timeout=20s"
    )
    assert (await stack.lab.cluster.get(ROUTE, NAMESPACE, SERVICE))["metadata"]["uid"] != route[
        "metadata"
    ]["uid"]
    assert stack.quickstart.sums[WEIGHTS] in await ask(stack)


async def test_what_is_edited_by_hand_is_put_right(stack: Stack) -> None:
    wrong = {"spec": {"predictor": {"minReplicas": 3, "maxReplicas": 3}}}
    edited = await stack.lab.cluster.merge_patch(INFERENCE_SERVICE, NAMESPACE, SERVICE, wrong)
    assert edited["spec"]["predictor"]["minReplicas"] == 3
    await kubectl(
        stack,
        "wait",
        f"isvc/{SERVICE}",
        "-n",
        NAMESPACE,
        "--for=jsonpath={.spec.predictor.minReplicas}=1",
        "--timeout=20s",
    )


async def test_deleting_the_service_keeps_the_cache_for_a_new_one(stack: Stack) -> None:
    cache, jobs = (await stack.lab.cluster.list(CACHE, NAMESPACE)).items[0], await jobs_made(stack)
    await kubectl(stack, "delete", f"aimsvc/{SERVICE}", "-n", NAMESPACE)
    for made in ("isvc", "httproute"):
        await kubectl(
            stack, "wait", f"{made}/{SERVICE}", "-n", NAMESPACE, "--for=delete", "--timeout=20s"
        )
    remaining = (await stack.lab.cluster.list(CACHE, NAMESPACE)).items[0]
    assert (remaining["metadata"]["uid"], remaining["status"]["status"]) == (
        cache["metadata"]["uid"],
        "Available",
    )
    await apply_and_wait(stack)
    assert stack.quickstart.sums[WEIGHTS] in await ask(stack)
    assert await jobs_made(stack) == jobs


async def test_describe_shows_how_the_service_came_up(stack: Stack) -> None:
    output = await kubectl(stack, "describe", "aimsvc", SERVICE, "-n", NAMESPACE)
    assert "aim.silogen.ai/statuswriter" in output
    assert "Running" in output.partition("Events:")[2]


async def test_kubectl_shows_the_log_of_the_model(stack: Stack) -> None:
    await ask(stack)
    output = await kubectl(
        stack,
        "logs",
        "-l",
        f"serving.kserve.io/inferenceservice={SERVICE}",
        "-n",
        NAMESPACE,
        "--tail=-1",
    )
    assert "POST /v1/chat/completions" in output


async def test_no_secret_value_is_in_any_event_log_or_status(stack: Stack) -> None:
    assert await leaks(stack, [S3_KEYS.secret_key]) == []


async def test_every_message_is_what_its_sender_and_its_schema_promise(stack: Stack) -> None:
    count, flaws = await flaws_of_log(stack.nats_url)
    assert count > 100
    assert flaws == []


async def test_no_service_asked_for_anything_that_its_account_may_not(
    stack: Stack, external_server: Path | None
) -> None:
    """Each ran as its own ServiceAccount all the time. What of its permissions they need:
    tests/chaos/test_permissions.py."""
    if external_server is not None:
        pytest.skip(
            "only the double remembers who asked for what; a real server would have answered 403"
        )
    calls = await recorded_calls(stack.lab.kubeconfig)
    services = {f"{ACCOUNT_PREFIX}:{SYSTEM_NAMESPACE}:aim-{service}" for service in SERVICES}
    assert {call.user for call in calls if call.user.startswith(ACCOUNT_PREFIX)} == services
    assert [call for call in calls if not call.granted] == []
