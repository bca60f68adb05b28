"""The API calls that one AIMService costs from its creation until it is Running."""

import asyncio
import time
from collections import Counter
from contextlib import aclosing
from pathlib import Path

import aimbus
from aim_testing.chaos.fleet import GATEWAY, GATEWAY_NAMESPACE, UNCACHED, an_object, image_of
from aim_testing.chaos.proxy import Trap
from aim_testing.chaos.world import World, world
from aimbus import Bus, Event
from aimlab.testing import eventually
from aimschema import subjects
from aimschema.messages import StatusReported
from aimschema.reasons import DEPLOYER, PROFILES_DISCOVERED, ROUTER, RUNNING, STATUSWRITER
from aimschema.resources import CONFIG, EVENT, MODEL, SERVICE, TEMPLATE

CALLERS = frozenset({DEPLOYER, ROUTER, STATUSWRITER})
SPACE = "ns0"
SPEC = {"model": "m", "templateRef": "t", "cacheModel": False}
PER_SERVICE = {
    ("deployer", "get", "aimservices"): 1,
    ("deployer", "patch", "inferenceservices"): 1,
    ("router", "get", "aimservices"): 1,
    ("router", "patch", "httproutes"): 1,
    ("statuswriter", "patch", "aimservices/status"): 2,
    ("statuswriter", "create", "events"): 1,
}


def calls(running: World) -> Counter[tuple[str, str, str]]:
    """In the namespace of the service, by who called, verb and resource."""
    found: Counter[tuple[str, str, str]] = Counter()
    for call, count in running.api.access.calls.items():
        caller = call.user.rpartition(":aim-")[2]
        if caller in CALLERS and call.namespace == SPACE:
            found[caller, call.verb, call.resource] += count
    return found


async def prepare(running: World) -> None:
    """A template that is Available, and a gateway."""
    cluster = running.cluster
    await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
    gateway = {"gateway": {"name": GATEWAY, "namespace": GATEWAY_NAMESPACE}}
    await cluster.create(an_object(CONFIG, SPACE, "default", {"routing": gateway}))
    model = {"name": "m", "image": image_of(UNCACHED)}
    await cluster.create(an_object(MODEL, None, "m", model))
    template = {
        "model": "m",
        "metric": "latency",
        "precision": "auto",
        "gpusPerReplica": 1,
        "gpuModel": "MI300X",
        "tensorParallelism": 1,
    }
    await cluster.create(an_object(TEMPLATE, SPACE, "t", template))

    async def is_available() -> bool:
        """Its last Event is sent after the write of its status."""
        events = (await cluster.list(EVENT, SPACE)).items
        return any(event["reason"] == PROFILES_DISCOVERED for event in events)

    await eventually(is_available, "the template Available")


async def until_ready_is_reported(bus: Bus, name: str) -> None:
    """Deployer and router have reported that all of the service is ready."""
    unready = {"RuntimeReady", "RoutingReady"}
    async with (
        asyncio.timeout(30),
        aclosing(aimbus.read_log(bus, [subjects.reports(SERVICE.kind)], follow=True)) as events,
    ):
        async for event in events:
            report = event.message if isinstance(event, Event) else None
            if isinstance(report, StatusReported) and report.name == name:
                ready = {each.type for each in report.conditions if each.status == "True"}
                unready -= ready
                if not unready:
                    return


async def start_service(running: World, bus: Bus, name: str) -> None:
    """The answer to the first status write is held back until all is ready: how fast the machine
    is makes no difference."""
    trap = Trap(f"aim-{STATUSWRITER}", 1, f"/{SERVICE.plural}/{name}/status", answers=True)
    running.proxy.traps.append(trap)
    await running.cluster.create(an_object(SERVICE, SPACE, name, SPEC))
    await until_ready_is_reported(bus, name)
    trap.opened.set()

    async def is_running() -> bool:
        """Its Event is the last call."""
        events = (await running.cluster.list(EVENT, SPACE)).items
        return any(
            (event["reason"], event["regarding"]["name"]) == (RUNNING, name) for event in events
        )

    await eventually(is_running, "the service Running")


async def test_a_service_costs_seven_calls(tmp_path: Path) -> None:
    """The objects of the first service are used to test the API server."""
    async with world(tmp_path, 1) as running:
        bus = await aimbus.connect(running.nats.url, name="test")
        await prepare(running)
        await start_service(running, bus, "first")
        # Creation times have whole seconds: an object of the second in which a process begins may
        # be older than the process.
        await asyncio.sleep(1 - time.time() % 1)
        before = calls(running)
        await start_service(running, bus, "second")
        assert dict(calls(running) - before) == PER_SERVICE
        await bus.close()
