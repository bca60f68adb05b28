"""A forged object event causes no write: each service reads the object from the API server before
it writes for it, or sends a write that the API server rejects for another object."""

import asyncio
import contextlib
import copy
import datetime
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from aim_statuswriter.action_handlers import Writer
from aimbus import Bus, NatsServer, connect, ensure_streams
from aimcontroller import testing
from aimcontroller.action import Action
from aimcontroller.controller import Controller
from aimcontroller.handler import ActionContext, ActionResult, Handler
from aimcontroller.health import Health
from aimcontroller.plan import Plan
from aimcontroller.projection import Projection
from aimcontroller.testing import NAMESPACE, Body, changed, cr
from aimctl.component_registry import planner
from aimkube import Cluster, Conflict, NotFound
from aimschema.messages import KindSynced, ReportedCondition, ReportedWarning, StatusReported
from aimschema.reasons import CACHER, DEPLOYER, DISCOVERY, FILLED, ROUTER, STATUSWRITER
from aimschema.resources import (
    CACHE,
    CONFIG,
    GATEWAY,
    MODEL,
    RESOURCES,
    SERVICE,
    TEMPLATE,
    Key,
    Resource,
    key_of,
)

VICTIM = "kube-system"
SPEC = {
    "model": "m:1",
    "metric": "latency",
    "precision": "auto",
    "gpusPerReplica": 1,
    "gpuModel": "MI300X",
    "tensorParallelism": 1,
}
STEALS = {
    "sourceUri": "hf://org/model",
    "env": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "any", "key": "key"}}}],
}
ANSWER = {
    "result.json": json.dumps(
        {"models": [{"name": "model", "source": "hf://org/model", "size_gb": 1}]}
    ),
    "image": "example.org/m:1",
}


@dataclass
class FakeCluster:
    """Has the objects it is given, and writes down the namespace of each write. A write of a status
    is answered as by an API server: 404 without the object, 409 for another version."""

    objects: dict[Key, Body]
    written: list[str | None] = field(default_factory=list)

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Body:
        key = Key(resource.kind, namespace, name)
        if key not in self.objects:
            raise NotFound(f"{key} not found", status=404, reason="NotFound")
        return self.objects[key]

    async def apply(self, body: Body, *, manager: str, dry_run: bool = False) -> Body:
        if dry_run:
            raise Conflict("the object has been modified", status=409, reason="Conflict")
        return self._write(body, manager)

    async def apply_status(self, body: Body, *, manager: str) -> Body:
        existing = self.objects.get(key_of(body))
        if existing is None or existing["apiVersion"] != body["apiVersion"]:
            raise NotFound(f"{key_of(body)} not found", status=404, reason="NotFound")
        if existing["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise Conflict("the object has been modified", status=409, reason="Conflict")
        return self._write({**body, "metadata": existing["metadata"]}, manager)

    async def create(self, body: Body) -> Body:
        return self._write(body, "")

    def _write(self, body: Body, _manager: str) -> Body:
        self.written.append(body["metadata"].get("namespace"))
        return {**body, "metadata": {"uid": "made", "resourceVersion": "99", **body["metadata"]}}


async def no_handler(_action: Action, _ctx: ActionContext, /) -> ActionResult:
    """The labels of images are not read here."""
    return ActionResult()


def report(kind: str, service: str, **fields: Any) -> StatusReported:
    key = Key(kind, VICTIM, "o")
    return StatusReported(
        kind=kind,
        namespace=VICTIM,
        name="o",
        uid=testing.uid_of(*key[::2]),
        service=service,
        observed_generation=1,
        **fields,
    )


@dataclass
class Case:
    """The object `o` for which a service writes, and what else is there."""

    service: str
    cause: Body
    others: list[Body] = field(default_factory=list)
    reports: list[StatusReported] = field(default_factory=list)
    handler: Handler = no_handler


def body_of(kind: str, name: str, spec: Body) -> Body:
    return (
        cr(kind, name, spec, namespace=VICTIM)
        if RESOURCES[kind].namespaced
        else cr(kind, name, spec)
    )


def cases() -> dict[str, Case]:
    service = body_of(
        SERVICE.kind,
        "o",
        {"model": "m:1", "templateRef": "t", "configRef": "default", "cacheModel": False},
    )
    model = body_of(MODEL.kind, "m", {"name": "m:1", "image": "example.org/m:1"})
    template = body_of(TEMPLATE.kind, "t", SPEC)
    answer = testing.config_map("t-discovery", (TEMPLATE.kind, "t"), ANSWER)
    answer["metadata"]["namespace"] = VICTIM
    config = body_of(
        CONFIG.kind, "default", {"routing": {"autoCreateRoute": True, "gateway": {"name": "gw"}}}
    )
    gateway = testing.obj(
        GATEWAY.kind,
        "gw",
        namespace=VICTIM,
        spec={"listeners": [{"name": "web", "port": 80, "protocol": "HTTP"}]},
    )
    filled = report(
        CACHE.kind,
        CACHER,
        conditions=(
            ReportedCondition(type=FILLED, status="False", reason="Downloading", message="1 %"),
        ),
    )
    advice = report(
        CONFIG.kind,
        ROUTER,
        warnings=(
            ReportedWarning(
                reason="RouteFailed", message="no gateway", since="2030-01-01T00:00:00Z"
            ),
        ),
    )
    return {
        "discovery-of-a-template": Case(DISCOVERY, body_of(TEMPLATE.kind, "o", SPEC), [model]),
        "cacher-of-a-cache": Case(CACHER, body_of(CACHE.kind, "o", STEALS)),
        "deployer-of-a-service": Case(DEPLOYER, service, [model, template, answer]),
        "router-of-a-service": Case(ROUTER, service, [config, gateway, template]),
        "statuswriter-of-a-cache": Case(
            STATUSWRITER, body_of(CACHE.kind, "o", STEALS), reports=[filled], handler=Writer()
        ),
        "statuswriter-of-a-config": Case(
            STATUSWRITER, body_of(CONFIG.kind, "o", {}), reports=[advice], handler=Writer()
        ),
    }


Forge = Callable[[Body], Body | None]
"""What the cluster has in place of the object that the event describes."""


def with_metadata(**metadata: str) -> Forge:
    return lambda body: {**body, "metadata": {**body["metadata"], **metadata}}


FORGED: dict[str, Forge] = {
    "absent": lambda _: None,
    "another-uid": with_metadata(uid="another", resourceVersion="7"),
    "another-api-version": lambda body: {**body, "apiVersion": "aim.silogen.ai/v1"},
    "another-namespace": with_metadata(namespace=NAMESPACE),
}


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    server = NatsServer(tmp_path / "nats")
    await server.start()
    bus = await connect(server.url, name="aim-watcher")
    await ensure_streams(bus)
    yield bus
    await bus.close()
    await server.kill()


@dataclass
class Running:
    loop: Controller
    cluster: FakeCluster
    planned: set[Key]

    def has_forgotten(self, key: Key) -> bool:
        return key in self.planned and self.loop.queue.idle and self.loop.state.get(key) is None


@contextlib.asynccontextmanager
async def running(
    bus: Bus, case: Case, published: Body, real: Body | None
) -> AsyncIterator[Running]:
    """The service of a case, to which all of it was published; the cluster has `real` in place
    of `published_part`."""
    objects = [*case.others, *([] if real is None else [real])]
    cluster = FakeCluster({key_of(body): copy.deepcopy(body) for body in objects})
    service, planned = planner(case.service), set[Key]()

    def plan(state: Projection, key: Key, now: datetime.datetime) -> Plan:
        planned.add(key)
        return service.planner(state, key, now)

    loop = Controller(
        replace(service, planner=plan), bus, cast(Cluster, cluster), Health(), case.handler
    )
    for body in (*case.others, published):
        await bus.publisher.publish(changed(body))
    for report_ in case.reports:
        await bus.publisher.publish(report_)
    for resource in service.watches:
        await bus.publisher.publish(KindSynced(kind=resource.kind, resource_version="1", objects=1))
    task = asyncio.ensure_future(loop.run())
    yield Running(loop, cluster, planned)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def until(holds: Callable[[], bool]) -> None:
    """Waits for an effect of a server or of other tasks for which there is no event."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 (see above)
            await asyncio.sleep(0.005)


each_case = pytest.mark.parametrize("name", cases())


@each_case
async def test_for_an_object_of_the_cluster_a_service_writes(bus: Bus, name: str) -> None:
    case = cases()[name]
    async with running(bus, case, case.cause, case.cause) as made:
        await until(lambda: VICTIM in made.cluster.written)


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
@each_case
async def test_for_what_only_the_bus_has_no_service_writes(
    bus: Bus, name: str, forge: Forge
) -> None:
    case = cases()[name]
    async with running(bus, case, case.cause, forge(case.cause)) as made:
        await until(lambda: made.has_forgotten(key_of(case.cause)))
        assert VICTIM not in made.cluster.written


@each_case
async def test_an_object_of_a_made_up_group_gets_nothing(bus: Bus, name: str) -> None:
    """Kubernetes would not collect what such an owner has."""
    case = cases()[name]
    async with running(
        bus, case, {**case.cause, "apiVersion": "unserved.example/v1"}, case.cause
    ) as made:
        await until(lambda: made.has_forgotten(key_of(case.cause)))
        assert VICTIM not in made.cluster.written
