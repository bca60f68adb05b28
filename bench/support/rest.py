"""Many quiet objects: how long services take to catch up with them, what they hold in memory, and
what they do at rest."""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

from aimctl.component_registry import SERVICES
from aimctl.local.ports import free_ports
from aimctl.local.processes import Children, Process, until_answers
from aimctl.local.services import start_service
from aimschema.resources import INFERENCE_SERVICE, ROUTE, SERVICE
from support.calls import CallCounter, Calls
from support.load import Rendered, in_lanes, warm_up
from support.processes import cpu_s, memory_mib
from support.world import READY_WITHIN_S, Space, World

OBJECTS_PER_SERVICE = 4
"""AIMService, InferenceService, HTTPRoute, Pod."""
REST_S = 20.0
IDLE_CPU = 0.01
"""A process that uses less of a core has nothing to do."""
IDLE_WINDOW_S = 2.0
IDLE_WITHIN_S = 300.0


@dataclass
class Start:
    """A process that starts, until /readyz: it has caught up. `cpu_s` and memory are of then."""

    seconds: float
    cpu_s: float
    mib: float


@dataclass
class Rest:
    """`cpu_percent` is of one core, by process, of the first of each; `second_percent` of all
    seconds of each; `requests_per_s` to the API server, of all."""

    cpu_percent: dict[str, float]
    mib: dict[str, float]
    second_percent: float
    calls: Calls | None

    @property
    def requests_per_s(self) -> float | None:
        return None if self.calls is None else sum(self.calls.values()) / REST_S


@dataclass
class Quiet:
    objects: int
    starts: dict[str, Start]
    rest: Rest | None = None


async def quiet_objects(
    world: World, objects: int, counter: CallCounter | None, *, rests: bool
) -> Quiet:
    """Fill; start the watcher, which publishes all; start each of the others alone. With `rests`,
    start two of each and rest."""
    async with world.control_plane():
        await world.until_quiet()
        rendered = await warm_up(world)
    await fill(world, rendered, objects // OBJECTS_PER_SERVICE)
    found = Quiet(objects, {})
    async with Children(world.folder / "starts") as group:
        found.starts["watcher"] = await start(world, group, "watcher")
        for service in (each for each in SERVICES if each != "watcher"):
            found.starts[service] = await start(world, group, service)
            await group.stop(service)
    if rests:
        async with world.control_plane() as first, world.control_plane() as second:
            found.rest = await at_rest(first, second, counter)
    return found


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
    first: dict[str, int], second: dict[str, int], counter: CallCounter | None
) -> Rest:
    pids = (*first.values(), *second.values())
    await until_idle(pids)
    before = {pid: cpu_s(pid) for pid in pids}
    calls = None if counter is None else await counter.read()
    await asyncio.sleep(REST_S)
    spent = {pid: cpu_s(pid) - was for pid, was in before.items()}
    return Rest(
        {name: spent[pid] / REST_S * 100 for name, pid in first.items()},
        {name: memory_mib(pid) for name, pid in first.items()},
        sum(spent[pid] for pid in second.values()) / REST_S * 100,
        None if counter is None or calls is None else await counter.read() - calls,
    )


async def fill(world: World, rendered: Rendered, services: int) -> None:
    """Running services, written as the control plane would; the stand-ins add the rest."""
    work = [partial(_quiet_service, world.space, rendered, f"quiet-{n}") for n in range(services)]
    await in_lanes(work)
    await until_idle([world.children.running["standins"].pid])


async def _quiet_service(space: Space, rendered: Rendered, name: str) -> None:
    service = await space.create_service(name)
    for resource, body in ((INFERENCE_SERVICE, rendered.runtime), (ROUTE, rendered.route)):
        made = rendered.copy(body, service)
        await space.api.apply(space.path(resource, name), made, rendered.managers[resource.kind])
    status = rendered.copy(rendered.status, service)
    path = space.path(SERVICE, name, "status")
    await space.api.apply(path, status, rendered.managers[SERVICE.kind])


async def until_idle(pids: Collection[int]) -> None:
    """Returns when none of them works any more, at the latest after IDLE_WITHIN_S."""
    give_up_s = time.monotonic() + IDLE_WITHIN_S
    spent_s = float("inf")
    while spent_s > len(pids) * IDLE_CPU and time.monotonic() < give_up_s:
        before_s = sum(map(cpu_s, pids))
        await asyncio.sleep(IDLE_WINDOW_S)
        spent_s = (sum(map(cpu_s, pids)) - before_s) / IDLE_WINDOW_S
