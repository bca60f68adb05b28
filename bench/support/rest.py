"""Many quiet objects: how long services take to catch up with them, what they hold in memory, and
what they do at rest."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from aimctl.local.ports import free_ports
from aimctl.local.processes import Children, Process, until_answers
from aimctl.local.services import start_service
from aimschema.resources import INFERENCE_SERVICE, ROUTE, SERVICE
from support.calls import CallCounter, Calls
from support.load import Rendered, in_lanes, owned_copy, service_status, warm_up
from support.processes import cpu_s, memory_mib
from support.world import POLL_S, READY_WITHIN_S, Space, World

OBJECTS_PER_SERVICE = 4
"""AIMService, InferenceService, HTTPRoute, Pod."""
REST_S = 20.0


@dataclass
class Start:
    """A process that starts while everything is there: until /readyz, with its CPU time."""

    seconds: float
    cpu_s: float
    mib: float


@dataclass
class Rest:
    """`cpu_percent` is of one core, by process, of the first of each; `second` of all seconds of
    each; `requests_per_s` to the API server, of all."""

    objects: int
    first_ready_s: float
    starts: dict[str, Start]
    mib: dict[str, float]
    cpu_percent: dict[str, float] = field(default_factory=dict)
    second_percent: float = 0.0
    requests_per_s: float | None = None
    calls: Calls = field(default_factory=Counter)


async def quiet_objects(world: World, objects: int, counter: CallCounter | None) -> Rest:
    """Fill, start everything, start each service again, start the seconds, rest."""
    async with world.control_plane():
        await world.until_quiet()
        rendered = await warm_up(world)
    await fill(world, rendered, objects // OBJECTS_PER_SERVICE)
    started_s = time.perf_counter()
    async with world.control_plane() as pids:
        ready_s = time.perf_counter() - started_s
        await world.until_quiet(3.0)
    async with Children(world.folder / "log-rest") as group:
        starts = {}
        for service in pids:
            starts[service] = await start(world, group, service)
        await world.until_quiet(3.0)
        first = {name: process.pid for name, process in group.running.items()}
        mib = {name: memory_mib(pid) for name, pid in first.items()}
        rest = Rest(objects, ready_s, starts, mib)
        async with world.control_plane() as second:
            await world.until_quiet(3.0)
            await at_rest(rest, first, second, counter)
    return rest


async def start(world: World, group: Children, service: str) -> Start:
    """One service; the bus has everything, unless it is the watcher's turn to list."""
    port = free_ports(1)[0]
    started_s = time.perf_counter()
    account = world.accounts[f"aim-{service}"]
    await start_service(group, service, nats_url=world.nats.url, kubeconfig=account, port=port)
    process: Process = group.running[service]
    what = f"aim-{service}; its log is {group.log_of(service)}"
    await until_answers(process, f"http://127.0.0.1:{port}/readyz", what, READY_WITHIN_S)
    return Start(time.perf_counter() - started_s, cpu_s(process.pid), memory_mib(process.pid))


async def at_rest(
    rest: Rest, first: dict[str, int], second: dict[str, int], counter: CallCounter | None
) -> None:
    before = {pid: cpu_s(pid) for pid in (*first.values(), *second.values())}
    calls = None if counter is None else await counter.read()
    await asyncio.sleep(REST_S)
    spent = {pid: cpu_s(pid) - was for pid, was in before.items()}
    rest.cpu_percent = {name: spent[pid] / REST_S * 100 for name, pid in first.items()}
    rest.second_percent = sum(spent[pid] for pid in second.values()) / REST_S * 100
    if counter is not None and calls is not None:
        rest.calls = await counter.read() - calls
        rest.requests_per_s = sum(rest.calls.values()) / REST_S


async def fill(world: World, rendered: Rendered, services: int) -> None:
    """Running services, written as the control plane would; the stand-ins add the rest."""
    work = [partial(_quiet_service, world.space, rendered, f"quiet-{n}") for n in range(services)]
    await in_lanes(work)
    await _until_idle(world.children.running["standins"].pid)


async def _quiet_service(space: Space, rendered: Rendered, name: str) -> None:
    service = await space.create_service(name)
    for resource, body in ((INFERENCE_SERVICE, rendered.runtime), (ROUTE, rendered.route)):
        made = owned_copy(body, service)
        await space.api.apply(space.path(resource, name), made, rendered.managers[resource.kind])
    status = service_status(rendered, service)
    path = space.path(SERVICE, name, "status")
    await space.api.apply(path, status, rendered.managers[SERVICE.kind])


async def _until_idle(pid: int, for_s: float = 1.0) -> None:
    last, since_s = cpu_s(pid), time.monotonic()
    while time.monotonic() - since_s < for_s:
        await asyncio.sleep(POLL_S)
        if (now := cpu_s(pid)) != last:
            last, since_s = now, time.monotonic()
