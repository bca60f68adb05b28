"""Changes of owned objects by people and other controllers are repaired, accepted, or reported.

The tests of this file share one laptop cluster. The quickstart runs before each of them.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import aimbus
from aim_testing import quickstart
from aimctl.local.ports import free_ports
from aimctl.local.processes import until_answers
from aimctl.local.services import start_service
from aimkube import Cluster, Modified, NotFound, Snapshot
from aimlab.cli.environment import Stack, control_plane_on_laptop, kubectl
from aimlab.cli.quickstart import NAMESPACE, SERVICE, SOURCE, TEMPLATE
from aimlab.testing import eventually
from aimschema import subjects
from aimschema.labels import COMPONENT, KSERVE_ISVC_LABEL, KSERVE_STOP, MANAGED_BY
from aimschema.messages import ActionTaken
from aimschema.names import cache_claim, cache_download_job, discovery_config_map
from aimschema.reasons import (
    CACHER,
    DEPLOYER,
    DISCOVERY,
    NAME_CONFLICT,
    READY,
    RESOLVED,
    ROUTER,
    ROUTING_READY,
    RUNTIME_READY,
    STOPPED,
    STORAGE_READY,
    TEMPLATE_NOT_FOUND,
)
from aimschema.resources import (
    BUDGET,
    CACHE,
    CLAIM,
    CONFIG_MAP,
    EVENT,
    INFERENCE_SERVICE,
    JOB,
    POD,
    ROUTE,
    Resource,
)
from aimschema.resources import SERVICE as SERVICE_KIND
from aimschema.resources import TEMPLATE as TEMPLATE_KIND

Body = dict[str, Any]
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
ANSWER = discovery_config_map(TEMPLATE)
BULLY = "bully"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with control_plane_on_laptop(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def quickstart_runs(stack: Stack) -> None:
    await quickstart.running(stack)


async def get(stack: Stack, resource: Resource, name: str) -> Body:
    return await stack.lab.cluster.get(resource, NAMESPACE, name)


async def cache_name(stack: Stack) -> str:
    caches = (await stack.lab.cluster.list(CACHE, NAMESPACE)).items
    (name,) = (body["metadata"]["name"] for body in caches if body["spec"]["sourceUri"] == SOURCE)
    return str(name)


def condition_of(body: Body, type_: str) -> Body:
    conditions = (body.get("status") or {}).get("conditions") or ()
    return next(
        (each for each in conditions if each["type"] == type_),
        {"status": "", "reason": "", "message": ""},
    )


async def until(stack: Stack, resource: Resource, name: str, holds: Callable[[Body], bool]) -> Body:
    """Waits until the object is there and fulfils a condition."""
    latest: Body = {}

    async def check() -> bool:
        try:
            latest.update(found=await get(stack, resource, name))
        except NotFound:
            return False
        return holds(latest["found"])

    try:
        await eventually(check, f"{resource.kind} {name}")
    except AssertionError:
        raise AssertionError(
            f"{resource.kind} {name} is still {json.dumps(latest.get('found'))}"
        ) from None
    body: Body = latest["found"]
    return body


async def until_another(stack: Stack, resource: Resource, old: Body) -> Body:
    """Waits for the successor of an object that was deleted."""
    return await until(
        stack,
        resource,
        old["metadata"]["name"],
        lambda body: bool(body["metadata"]["uid"] != old["metadata"]["uid"]),
    )


async def until_running(stack: Stack) -> None:
    await until(
        stack, SERVICE_KIND, SERVICE, lambda body: condition_of(body, READY)["status"] == "True"
    )


async def applied(stack: Stack) -> list[tuple[str, str]]:
    """(kind, name) of every apply that any service has published so far."""
    bus = await aimbus.connect(stack.nats_url, name="test")
    try:
        async with aclosing(aimbus.read_log(bus, [f"{subjects.ACTION}.>"])) as events:
            taken = [event.message async for event in events if isinstance(event, aimbus.Event)]
    finally:
        await bus.close()
    return [
        (action.kind, action.name)
        for action in taken
        if isinstance(action, ActionTaken) and action.verb == "apply"
    ]


async def restart(stack: Stack, *makers: str) -> None:
    """Stop these services, then start them one after another."""
    await asyncio.gather(*(stack.services.stop(name) for name in makers))
    for maker in makers:
        url = await start_service(
            stack.services,
            maker,
            nats_url=stack.nats_url,
            kubeconfig=stack.lab.accounts[f"aim-{maker}"],
            port=free_ports(1)[0],
        )
        await until_answers(stack.services.running[maker], f"{url}/readyz", maker)


async def test_restarted_services_repair_only_what_was_edited(stack: Stack) -> None:
    makers = (DISCOVERY, CACHER, DEPLOYER, ROUTER)
    before = await applied(stack)
    name = await cache_name(stack)
    owned = (
        (CLAIM, cache_claim(name), "cache"),
        (INFERENCE_SERVICE, SERVICE, "inference"),
        (CONFIG_MAP, ANSWER, "discovery"),
        (ROUTE, SERVICE, "routing"),
    )
    await restart(stack, *makers)
    for resource, of, _ in owned:
        await stack.lab.cluster.merge_patch(
            resource, NAMESPACE, of, {"metadata": {"labels": {COMPONENT: "edited"}}}
        )
    for resource, of, component in owned:
        await until(
            stack,
            resource,
            of,
            lambda body, component=component: (  # type: ignore[misc]
                body["metadata"]["labels"][COMPONENT] == component
            ),
        )
    assert sorted((await applied(stack))[len(before) :]) == sorted(
        (resource.kind, of) for resource, of, _ in owned
    )


@pytest.mark.parametrize(
    ("resource", "edit", "as_it_was"),
    [
        pytest.param(
            INFERENCE_SERVICE,
            {"spec": {"predictor": {"minReplicas": 3, "maxReplicas": 3}}},
            lambda body: (
                body["spec"]["predictor"]["minReplicas"]
                == body["spec"]["predictor"]["maxReplicas"]
                == 1
            ),
            id="replicas",
        ),
        pytest.param(
            INFERENCE_SERVICE,
            {"metadata": {"annotations": {KSERVE_STOP: "true"}}},
            lambda body: KSERVE_STOP not in body["metadata"]["annotations"],
            id="stopped",
        ),
        pytest.param(
            INFERENCE_SERVICE,
            {"spec": {"transformer": {}}},
            lambda body: "transformer" not in body["spec"],
            id="transformer",
        ),
        pytest.param(
            ROUTE,
            {"spec": {"hostnames": ["other.example"]}},
            lambda body: "hostnames" not in body["spec"],
            id="host-names",
        ),
        pytest.param(
            ROUTE,
            {"spec": {"rules": []}},
            lambda body: len(body["spec"]["rules"]) == 1,
            id="rules-of-the-route",
        ),
    ],
)
async def test_what_a_person_edits_is_put_right(
    stack: Stack, resource: Resource, edit: Body, as_it_was: Callable[[Body], bool]
) -> None:
    edited = await stack.lab.cluster.merge_patch(resource, NAMESPACE, SERVICE, edit)
    assert not as_it_was(edited)
    await until(stack, resource, SERVICE, as_it_was)
    await until_running(stack)


async def test_an_edited_answer_is_discovered_again_without_restart(stack: Stack) -> None:
    before = await get(stack, CONFIG_MAP, ANSWER)
    runs = await get(stack, INFERENCE_SERVICE, SERVICE)
    await stack.lab.cluster.merge_patch(
        CONFIG_MAP, NAMESPACE, ANSWER, {"data": {"image": "registry.lab.local/other:1"}}
    )
    await until(stack, CONFIG_MAP, ANSWER, lambda body: body.get("data") == before["data"])
    await until_running(stack)
    assert (await get(stack, INFERENCE_SERVICE, SERVICE))["spec"] == runs["spec"]


async def test_an_answer_deleted_twice_is_discovered_again(
    stack: Stack,
) -> None:
    before = await get(stack, CONFIG_MAP, ANSWER)
    await kubectl(stack.lab, "delete", "configmap", ANSWER, "-n", NAMESPACE)
    job: Body = {}

    async def begun() -> bool:
        jobs = (
            await stack.lab.cluster.list(JOB, NAMESPACE, label_selector=f"{COMPONENT}=discovery")
        ).items
        job.update(jobs[0] if jobs else {})
        return bool(jobs)

    await eventually(begun, "a discovery Job")
    await stack.lab.cluster.delete(JOB, NAMESPACE, job["metadata"]["name"])
    again = await until(stack, CONFIG_MAP, ANSWER, lambda body: body.get("data") == before["data"])
    assert again["metadata"]["uid"] != before["metadata"]["uid"]
    await until_running(stack)


async def test_a_deleted_route_is_recreated(stack: Stack) -> None:
    old = await get(stack, ROUTE, SERVICE)
    await kubectl(stack.lab, "delete", "httproute", SERVICE, "-n", NAMESPACE)
    await until_another(stack, ROUTE, old)


async def test_a_deleted_volume_and_its_users_are_recreated(stack: Stack) -> None:
    """The volume stays while a pod uses it, and the message names the user. Then it is filled
    again, also if the Job is deleted during its run."""
    name = await cache_name(stack)
    claim = await get(stack, CLAIM, cache_claim(name))
    runs = await get(stack, INFERENCE_SERVICE, SERVICE)
    await kubectl(stack.lab, "delete", "pvc", cache_claim(name), "-n", NAMESPACE, "--wait=false")
    await until(
        stack,
        CACHE,
        name,
        lambda body: (
            "is being deleted, held by pod" in condition_of(body, STORAGE_READY)["message"]
        ),
    )
    assert (await get(stack, INFERENCE_SERVICE, SERVICE))["metadata"]["uid"] == runs["metadata"][
        "uid"
    ]
    await kubectl(stack.lab, "delete", "isvc", SERVICE, "-n", NAMESPACE)
    await until_another(stack, CLAIM, claim)
    job = await until(stack, JOB, cache_download_job(name), lambda _: True)
    await stack.lab.cluster.delete(
        JOB, NAMESPACE, job["metadata"]["name"], uid=job["metadata"]["uid"]
    )
    await until_another(stack, JOB, job)
    await until_another(stack, INFERENCE_SERVICE, runs)
    await until_running(stack)


class Controller:
    """Keeps setting one field of an InferenceService to another value, as a webhook or KServe's
    controller might do."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._generations: set[int] = set()

    @property
    def rewrites(self) -> int:
        """How often it changed the spec; a second event of one generation is not counted."""
        return len(self._generations)

    async def run(self) -> None:
        cluster = await Cluster.connect(str(self.kubeconfig), user_agent=BULLY)
        try:
            async with aclosing(cluster.list_and_watch(INFERENCE_SERVICE, NAMESPACE)) as events:
                async for event in events:
                    bodies = event.items if isinstance(event, Snapshot) else ()
                    if isinstance(event, Modified):
                        bodies = (event.body,)
                    if any(strategy(body) != ROLLS for body in bodies):
                        rewritten = await cluster.merge_patch(
                            INFERENCE_SERVICE,
                            NAMESPACE,
                            SERVICE,
                            {"spec": {"predictor": {"deploymentStrategy": {"type": ROLLS}}}},
                        )
                        self._generations.add(rewritten["metadata"]["generation"])
        finally:
            await cluster.close()


ROLLS, RECREATES = "RollingUpdate", "Recreate"


def strategy(body: Body) -> object:
    return body["spec"]["predictor"]["deploymentStrategy"]["type"]


@asynccontextmanager
async def at_work(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_controller_that_insists_is_not_fought_with_but_named(stack: Stack) -> None:
    """A new process has repaired nothing yet, so the next repair is at most 10 s away."""
    await restart(stack, DEPLOYER)
    controller = Controller(stack.lab.kubeconfig)
    async with at_work(controller.run):
        fought = await until(
            stack,
            SERVICE_KIND,
            SERVICE,
            lambda body: "keeps being changed" in condition_of(body, RUNTIME_READY)["message"],
        )
        message = condition_of(fought, RUNTIME_READY)["message"]
        assert (
            f"deploymentStrategy.type of InferenceService {SERVICE} keeps being changed by"
            f" {BULLY}" in message
        )
        assert condition_of(fought, READY)["status"] == "True"
        assert 1 <= controller.rewrites <= 5
    await until(stack, INFERENCE_SERVICE, SERVICE, lambda body: strategy(body) == RECREATES)


async def test_a_service_without_template_can_stop_and_start(stack: Stack) -> None:
    cluster = stack.lab.cluster
    template = await get(stack, TEMPLATE_KIND, TEMPLATE)
    await cluster.delete(TEMPLATE_KIND, NAMESPACE, TEMPLATE)
    await until(
        stack,
        SERVICE_KIND,
        SERVICE,
        lambda body: condition_of(body, RESOLVED)["reason"] == TEMPLATE_NOT_FOUND,
    )
    await cluster.merge_patch(SERVICE_KIND, NAMESPACE, SERVICE, {"spec": {"replicas": 0}})
    await until(
        stack,
        SERVICE_KIND,
        SERVICE,
        lambda body: condition_of(body, RUNTIME_READY)["reason"] == STOPPED,
    )
    assert not (
        await cluster.list(POD, NAMESPACE, label_selector=f"{KSERVE_ISVC_LABEL}={SERVICE}")
    ).items
    await cluster.merge_patch(SERVICE_KIND, NAMESPACE, SERVICE, {"spec": {"replicas": 1}})
    await until(
        stack,
        SERVICE_KIND,
        SERVICE,
        lambda body: condition_of(body, RUNTIME_READY)["message"].endswith("1 of 1 replicas ready"),
    )
    await cluster.create(foreign(TEMPLATE_KIND, TEMPLATE, spec=template["spec"]))
    await until_running(stack)
    assert (
        KSERVE_STOP not in (await get(stack, INFERENCE_SERVICE, SERVICE))["metadata"]["annotations"]
    )


async def test_two_replicas_have_a_disruption_budget_that_comes_back(stack: Stack) -> None:
    cluster = stack.lab.cluster
    await cluster.merge_patch(SERVICE_KIND, NAMESPACE, SERVICE, {"spec": {"replicas": 2}})
    budget = await until(stack, BUDGET, SERVICE, lambda body: body["spec"]["maxUnavailable"] == 1)
    await until(
        stack,
        SERVICE_KIND,
        SERVICE,
        lambda body: condition_of(body, RUNTIME_READY)["message"].endswith("2 of 2 replicas ready"),
    )
    await cluster.merge_patch(BUDGET, NAMESPACE, SERVICE, {"spec": {"maxUnavailable": 2}})
    await until(stack, BUDGET, SERVICE, lambda body: body["spec"]["maxUnavailable"] == 1)
    await cluster.delete(BUDGET, NAMESPACE, SERVICE)
    await until_another(stack, BUDGET, budget)
    await cluster.merge_patch(SERVICE_KIND, NAMESPACE, SERVICE, {"spec": {"replicas": 1}})
    await eventually(lambda: is_deleted(stack, BUDGET, SERVICE), "no disruption budget")
    await until_running(stack)


async def is_deleted(stack: Stack, resource: Resource, name: str) -> bool:
    try:
        await get(stack, resource, name)
    except NotFound:
        return True
    return False


TAKEN = "taken"


def foreign(resource: Resource, name: str, **fields: Any) -> Body:
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        **fields,
    }


POD_SPEC = {
    "restartPolicy": "Never",
    "containers": [{"name": "c", "image": "none.lab.local/none:1"}],
}
FOREIGN = [
    foreign(INFERENCE_SERVICE, TAKEN, spec={"predictor": {}}),
    foreign(ROUTE, TAKEN, spec={"rules": []}),
    foreign(CONFIG_MAP, discovery_config_map(TAKEN), data={"theirs": "yes"}),
    foreign(
        CLAIM,
        cache_claim(TAKEN),
        spec={"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    ),
    foreign(
        JOB, cache_download_job("other"), spec={"suspend": True, "template": {"spec": POD_SPEC}}
    ),
]


@pytest_asyncio.fixture(loop_scope="module")
async def foreign_objects(stack: Stack) -> AsyncIterator[None]:
    """What the test creates is deleted after it, the owners first."""
    for body in FOREIGN:
        await stack.lab.cluster.create(body)
    yield
    own = (f"aimservice/{TAKEN}", f"aimservicetemplate/{TAKEN}", f"modelcache/{TAKEN}")
    others = (f"{body['kind']}/{body['metadata']['name']}" for body in FOREIGN)
    await kubectl(stack.lab, "delete", "-n", NAMESPACE, *own, "modelcache/other", *others)


@pytest.mark.usefixtures("foreign_objects")
async def test_an_object_of_another_owner_is_reported_not_changed(stack: Stack) -> None:
    cluster = stack.lab.cluster
    service = await get(stack, SERVICE_KIND, SERVICE)
    template = await get(stack, TEMPLATE_KIND, TEMPLATE)
    await cluster.create(
        foreign(
            SERVICE_KIND, TAKEN, spec={"model": service["spec"]["model"], "templateRef": TEMPLATE}
        )
    )
    await cluster.create(
        foreign(TEMPLATE_KIND, TAKEN, spec=template["spec"] | {"warmCache": False})
    )
    for name in (TAKEN, "other"):
        await cluster.create(
            foreign(CACHE, name, spec={"sourceUri": f"s3://none/{name}", "size": "1Gi"})
        )
    taken = await until(
        stack,
        SERVICE_KIND,
        TAKEN,
        lambda body: condition_of(body, RUNTIME_READY)["reason"] == NAME_CONFLICT,
    )
    await until(
        stack,
        SERVICE_KIND,
        TAKEN,
        lambda body: condition_of(body, ROUTING_READY)["reason"] == NAME_CONFLICT,
    )
    for resource, name in (
        (TEMPLATE_KIND, TAKEN),
        (CACHE, TAKEN),
        (CACHE, "other"),
        (SERVICE_KIND, TAKEN),
    ):
        body = await until(
            stack, resource, name, lambda body: condition_of(body, READY)["reason"] == NAME_CONFLICT
        )
        assert "rename or delete" in condition_of(body, READY)["message"]
    assert taken["status"]["status"] == "Degraded"

    async def have_events() -> bool:
        events = (await cluster.list(EVENT, NAMESPACE)).items
        return {
            (e["regarding"]["kind"], e["regarding"]["name"], e["type"])
            for e in events
            if e["reason"] == NAME_CONFLICT
        } == {
            (SERVICE_KIND.kind, TAKEN, "Warning"),
            (TEMPLATE_KIND.kind, TAKEN, "Warning"),
            (CACHE.kind, TAKEN, "Warning"),
            (CACHE.kind, "other", "Warning"),
        }

    await eventually(have_events, "an Event on each object whose name is taken")
    for body in FOREIGN:
        obj = await get(
            stack,
            {r.kind: r for r in (INFERENCE_SERVICE, ROUTE, CONFIG_MAP, CLAIM, JOB)}[body["kind"]],
            body["metadata"]["name"],
        )
        assert MANAGED_BY not in (obj["metadata"].get("labels") or {})
        assert not [
            entry
            for entry in obj["metadata"]["managedFields"]
            if entry["manager"].startswith("aim-")
        ]


async def test_a_namespace_goes_without_a_complaint(stack: Stack) -> None:
    await kubectl(stack.lab, "delete", "namespace", NAMESPACE, "--timeout=30s")
    for name in stack.services.running:
        log = stack.services.log_of(name).read_text()
        assert "NamespaceTerminating" not in log
        assert '"unexpected"' not in log
