"""How long N services take from the first create to Running, and a bare client for the same
calls."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

import msgspec

from aimschema.resources import EVENT, INFERENCE_SERVICE, ROUTE, SERVICE, TEMPLATE
from support.calls import CallCounter, Calls
from support.processes import cpu_s, memory_mib, peak_mib
from support.raw import Body
from support.world import TEMPLATE_NAME, Space, World

LANES = 8
"""Requests in flight: of the client that creates the services, and of the bare client."""
RUNNING = "Running"
FIRST = "the-first-service"
"""A name that occurs in nothing else, so that it can be replaced."""
RUNNING_WITHIN_S = 1800.0
BARE_CALLS = (
    "create of the service, GET and apply of InferenceService and of HTTPRoute, two status writes,"
    " one Event"
)


class _Meta(msgspec.Struct, frozen=True):
    name: str


class _Status(msgspec.Struct, frozen=True):
    status: str = ""


class _Service(msgspec.Struct, frozen=True):
    metadata: _Meta
    status: _Status = _Status()


class _Changed(msgspec.Struct, frozen=True):
    type: str
    object: _Service


_decode_body = msgspec.json.Decoder(Body).decode
decode_change = msgspec.json.Decoder(_Changed).decode


@dataclass
class Run:
    """N services on the control plane. `cpu_s` and the memory are by process."""

    services: int
    seconds: float
    cpu_s: dict[str, float]
    idle_mib: dict[str, float]
    peak_mib: dict[str, float]
    calls: Calls | None = None

    @property
    def control_plane_s(self) -> float:
        return sum(self.cpu_s[name] for name in self.peak_mib)

    @property
    def ms_per_service(self) -> float:
        return self.control_plane_s / self.services * 1000


@dataclass
class BareRun:
    services: int
    seconds: float
    cpu_s: float


@dataclass
class Rendered:
    """What the control plane made of one service, to copy: InferenceService, HTTPRoute and status,
    as JSON with the name and uid of that service."""

    name: str
    uid: str
    runtime: bytes
    route: bytes
    status: bytes
    managers: dict[str, str]

    def copy(self, part: bytes, service: Body) -> Body:
        """With the name and uid of another service in place of those, wherever they are."""
        metadata = service["metadata"]
        text = part.replace(self.uid.encode(), metadata["uid"].encode())
        return _decode_body(text.replace(self.name.encode(), metadata["name"].encode()))


async def in_lanes(work: Sequence[Callable[[], Awaitable[object]]], lanes: int = LANES) -> None:
    """All of it, so many at a time, in order."""
    waiting = iter(work)

    async def lane() -> None:
        for each in waiting:
            await each()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(lanes):
            tasks.create_task(lane())


async def until_running(space: Space, version: str, names: set[str]) -> None:
    """Returns when all of these services are Running. Raises TimeoutError."""
    missing = set(names)
    async with (
        asyncio.timeout(RUNNING_WITHIN_S),
        aclosing(space.api.watch(space.path(SERVICE), version)) as lines,
    ):
        async for line in lines:
            change = decode_change(line)
            if change.object.status.status == RUNNING:
                missing.discard(change.object.metadata.name)
                if not missing:
                    return


async def run_services(
    world: World, pids: dict[str, int], amount: int, prefix: str, counter: CallCounter | None
) -> Run:
    space = world.space
    idle = {name: memory_mib(pid) for name, pid in pids.items()}
    before = await _cpu_s(world, pids)
    calls_before = None if counter is None else await counter.read()
    names = [f"{prefix}-{number}" for number in range(amount)]
    version = await space.api.version_of(space.path(SERVICE))
    with world.profiled(pids):
        watching = asyncio.create_task(until_running(space, version, set(names)))
        started_s = time.perf_counter()
        await in_lanes([partial(space.create_service, name) for name in names])
        await watching
        seconds = time.perf_counter() - started_s
        await world.until_quiet()
    return Run(
        amount,
        seconds,
        {name: now - before[name] for name, now in (await _cpu_s(world, pids)).items()},
        idle,
        {name: peak_mib(pid) for name, pid in pids.items()},
        None if counter is None or calls_before is None else await counter.read() - calls_before,
    )


async def _cpu_s(world: World, pids: dict[str, int]) -> dict[str, float]:
    return {name: cpu_s(pid) for name, pid in pids.items()} | await world.servers_cpu_s()


async def warm_up(world: World) -> Rendered:
    """One service to Running; gives what was made of it."""
    space, name = world.space, FIRST
    version = await space.api.version_of(space.path(SERVICE))
    await space.create_service(name)
    try:
        async with asyncio.timeout(60):
            await until_running(space, version, {name})
    except TimeoutError:
        found = await space.get(SERVICE, name)
        template = await space.get(TEMPLATE, TEMPLATE_NAME)
        raise RuntimeError(
            f"the first service is not Running: {found.get('status')}; {template.get('status')}"
        ) from None
    await world.until_quiet()
    runtime, route, service = [
        await space.get(resource, name) for resource in (INFERENCE_SERVICE, ROUTE, SERVICE)
    ]
    metadata = {"name": name, "namespace": space.name}
    return Rendered(
        name,
        service["metadata"]["uid"],
        msgspec.json.encode(_stripped(runtime)),
        msgspec.json.encode(_stripped(route)),
        msgspec.json.encode(_stripped(service) | {"metadata": metadata}),
        {body["kind"]: _manager_of(body) for body in (runtime, route, service)},
    )


def _manager_of(body: Body) -> str:
    """Who applied the spec, for a service the status."""
    subresource = "status" if body["kind"] == SERVICE.kind else None
    return next(
        str(entry["manager"])
        for entry in body["metadata"]["managedFields"]
        if entry["operation"] == "Apply" and entry.get("subresource") == subresource
    )


def _stripped(body: Body) -> Body:
    """What an apply sends: of a service the status, of others the spec."""
    metadata = {
        name: body["metadata"][name]
        for name in ("name", "namespace", "labels", "annotations", "ownerReferences")
        if name in body["metadata"]
    }
    part = "status" if body["kind"] == SERVICE.kind else "spec"
    return {
        "apiVersion": body["apiVersion"],
        "kind": body["kind"],
        "metadata": metadata,
        part: body[part],
    }


async def run_bare(world: World, rendered: Rendered, amount: int, prefix: str) -> BareRun:
    """The same objects, by the same calls, with the same number in flight."""
    started_s, before_s = time.perf_counter(), time.process_time()
    await in_lanes(
        [
            partial(bare_service, world.space, rendered, f"{prefix}-{number}")
            for number in range(amount)
        ]
    )
    return BareRun(amount, time.perf_counter() - started_s, time.process_time() - before_s)


async def bare_service(space: Space, rendered: Rendered, name: str) -> None:
    api = space.api
    service = await space.create_service(name)
    for resource, body in ((INFERENCE_SERVICE, rendered.runtime), (ROUTE, rendered.route)):
        await space.get(SERVICE, name)
        made = rendered.copy(body, service)
        await api.apply(space.path(resource, name), made, rendered.managers[resource.kind])
    path = space.path(SERVICE, name, "status")
    manager = rendered.managers[SERVICE.kind]
    status = rendered.copy(rendered.status, service)
    await api.apply(path, status | {"status": status["status"] | {"status": "Starting"}}, manager)
    await api.post(space.path(EVENT), event_of(service))
    await api.apply(path, status, manager)


_numbers = itertools.count()


def event_of(service: Body) -> Body:
    metadata = service["metadata"]
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {
            "name": f"{metadata['name']}.{next(_numbers)}",
            "namespace": metadata["namespace"],
        },
        "regarding": {
            "apiVersion": SERVICE.api_version,
            "kind": SERVICE.kind,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "eventTime": "2030-01-01T00:00:00.000000Z",
        "reportingController": "bench",
        "reportingInstance": "bench",
        "action": "Reconcile",
        "type": "Normal",
        "reason": "RuntimeReady",
        "note": "1 of 1 replicas ready",
    }
