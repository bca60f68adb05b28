"""What happens to services on real parts: the laptop cluster's stand-ins are held to the same in
other suites."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aim_testing.real.world import CRASH, HANG, Real
from aimctl.local.ports import free_ports
from aimlab.cli.quickstart import NAMESPACE
from aimlab.cli.quickstart import SERVICE as QUICKSTART
from aimlab.kinds import condition_of, is_true
from aimlab.real.kserve import HOOKS
from aimschema.resources import INFERENCE_SERVICE, ROUTE, SERVICE, Resource

Body = dict[str, Any]
pytest_plugins = ["aim_testing.real.fixtures"]
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]
AT_REST_S = 30.0
ACCOUNTS = "system:serviceaccount:aim-system:"
READS = {"get", "list", "watch"}


def is_reported(type_: str, status: str, reason: str) -> Callable[[Body], bool]:
    """Whether a service has this condition."""

    def holds(service: Body) -> bool:
        found = condition_of(service, type_) or {}
        return (found.get("status"), found.get("reason")) == (status, reason)

    return holds


def message_of(service: Body, type_: str) -> str:
    return str((condition_of(service, type_) or {}).get("message", ""))


async def test_a_service_runs_and_answers_through_the_gateway(real: Real) -> None:
    assert real.is_answer(await real.ask(QUICKSTART))


async def test_nothing_is_written_at_rest(real: Real) -> None:
    before = len(real.requests())
    await asyncio.sleep(AT_REST_S)  # what is tested is that nothing comes
    written = [
        (request["userAgent"], request["verb"], request["requestURI"])
        for request in real.requests()[before:]
        if request["verb"] not in READS and not is_of_the_machinery(request)
    ]
    assert written == []


def is_of_the_machinery(request: Body) -> bool:
    """Leases, and what aimlab's node repeats as its heartbeat."""
    agent: str = request["userAgent"]
    return request.get("objectRef", {}).get("resource") == "leases" or agent.startswith("aimlab")


async def test_a_crash_after_ready_is_degraded_until_it_ends(real: Real) -> None:
    await real.serve("crashes")
    await real.until_running("crashes")
    real.begin("crashes", CRASH)
    service = await real.until(
        SERVICE, "crashes", lambda body: body["status"]["status"] == "Degraded"
    )
    assert is_reported("RuntimeReady", "False", "RuntimeFailed")(service)
    assert "exit code 3" in message_of(service, "RuntimeReady")
    assert not is_true(service, "Ready")
    real.end("crashes", CRASH)
    await real.until_running("crashes")


async def test_a_service_that_never_gets_ready_is_never_running(real: Real) -> None:
    real.begin("hangs", HANG)
    await real.serve("hangs")
    await real.until(
        INFERENCE_SERVICE, "hangs", lambda body: "deploymentMode" in body.get("status", {})
    )
    await real.until(SERVICE, "hangs", is_reported("RuntimeReady", "False", "CreatingRuntime"))
    service = await real.get(SERVICE, "hangs")
    assert service["status"]["status"] == "Starting"
    assert not is_true(service, "Ready")
    await real.kubectl("delete", "aimsvc", "hangs", "-n", NAMESPACE)


async def test_no_replicas_stop_a_service_and_two_start_it(real: Real) -> None:
    await real.scale("crashes", 0)
    await real.until(SERVICE, "crashes", is_reported("RuntimeReady", "True", "Stopped"))
    assert await real.pods("crashes") == []
    await real.scale("crashes", 2)
    await real.until_running("crashes", replicas=2)
    assert real.is_answer(await real.ask("crashes"))
    await real.kubectl("delete", "aimsvc", "crashes", "-n", NAMESPACE)


STOP = {"metadata": {"annotations": {"serving.kserve.io/stop": "true"}}}


@pytest.mark.parametrize(
    ("resource", "edit"),
    [
        pytest.param(
            INFERENCE_SERVICE,
            {"spec": {"predictor": {"minReplicas": 3, "maxReplicas": 3}}},
            id="replicas",
        ),
        pytest.param(INFERENCE_SERVICE, STOP, id="stopped"),
        pytest.param(
            INFERENCE_SERVICE,
            {"metadata": {"labels": {"app.kubernetes.io/component": "x"}}},
            id="label",
        ),
        pytest.param(
            ROUTE,
            {"spec": {"rules": [{"matches": [{"path": {"value": "/elsewhere"}}]}]}},
            id="path",
        ),
        pytest.param(ROUTE, {"spec": {"parentRefs": [{"name": "another"}]}}, id="gateway"),
    ],
)
async def test_what_is_edited_by_hand_comes_back(
    real: Real, resource: Resource, edit: Body
) -> None:
    before = await real.get(resource, QUICKSTART)
    await real.stack.lab.cluster.merge_patch(resource, NAMESPACE, QUICKSTART, edit)

    def is_as_before(body: Body) -> bool:
        same = all(
            body["metadata"].get(field) == before["metadata"].get(field)
            for field in ("labels", "annotations")
        )
        return same and body["spec"] == before["spec"]

    await real.until(resource, QUICKSTART, is_as_before)
    await real.until_running(QUICKSTART)


@pytest.mark.parametrize(
    "resource", [INFERENCE_SERVICE, ROUTE], ids=["InferenceService", "HTTPRoute"]
)
async def test_what_is_deleted_by_hand_comes_back(real: Real, resource: Resource) -> None:
    before = await real.get(resource, QUICKSTART)
    await real.kubectl("delete", resource.plural, QUICKSTART, "-n", NAMESPACE)
    await real.until(
        resource, QUICKSTART, lambda body: body["metadata"]["uid"] != before["metadata"]["uid"]
    )
    await real.until_running(QUICKSTART)
    assert real.is_answer(await real.ask(QUICKSTART))


@asynccontextmanager
async def webhooks_down(real: Real) -> AsyncIterator[None]:
    """KServe's webhooks are called at a closed port."""
    cluster, name = real.stack.lab.cluster, "inferenceservice.serving.kserve.io"
    before = [await cluster.get(resource, None, name) for resource in HOOKS.values()]
    nowhere = f"https://127.0.0.1:{free_ports(1)[0]}"
    for body in before:
        down = json.loads(json.dumps(body["webhooks"]))
        for hook in down:
            hook["clientConfig"]["url"] = nowhere
        await cluster.merge_patch(HOOKS[body["kind"]], None, name, {"webhooks": down})
    try:
        yield
    finally:
        for body in before:
            await cluster.merge_patch(
                HOOKS[body["kind"]], None, name, {"webhooks": body["webhooks"]}
            )


async def test_a_webhook_that_is_down_is_quoted_and_waited_for(real: Real) -> None:
    async with webhooks_down(real):
        await real.scale(QUICKSTART, 2)
        await real.until(
            SERVICE,
            QUICKSTART,
            lambda body: "failed calling webhook" in message_of(body, "RuntimeReady"),
        )
    await real.until_running(QUICKSTART, replicas=2)
    await real.scale(QUICKSTART, 1)
    await real.until_running(QUICKSTART)


async def test_no_account_was_denied_anything_it_asked_for(real: Real) -> None:
    """But for the moment in which the API server has not read its roles yet."""
    requested: dict[str, set[tuple[str, str, str]]] = {"allow": set(), "forbid": set()}
    for request in real.requests():
        account = request["user"]["username"]
        decision = request.get("annotations", {}).get("authorization.k8s.io/decision")
        if account.startswith(ACCOUNTS) and decision:
            requested[decision].add(
                (account, request["verb"], request["requestURI"].partition("?")[0])
            )
    assert requested["allow"]
    assert requested["forbid"] - requested["allow"] == set()
