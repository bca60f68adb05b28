"""A simulated cluster with the real control plane: API server double, fast node, proxy, NATS server
and the six services as processes.

`bring_up` applies the fleet during a fault and waits until the end state is that of the undisturbed
run.
"""

import asyncio
import contextlib
import random
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aim_testing.chaos.chance import branch, chance
from aim_testing.chaos.fastnode import FastNode
from aim_testing.chaos.fleet import Fleet, edits, manifests
from aim_testing.chaos.observer import Observer
from aim_testing.chaos.outcome import COMPARED, State, all_running, differences, plain, wrong_runs
from aim_testing.chaos.proxy import Proxy
from aim_testing.chaos.relay import Relay, relaying
from aimbus import NatsServer
from aimctl.component_registry import SERVICES
from aimctl.local.ports import free_ports
from aimctl.local.processes import Children, until_answers
from aimctl.manifests import crds, rbac
from aimkube import Cluster, NotFound
from aimlab.accounts import write_kubeconfig
from aimlab.apiserver import ApiServer
from aimlab.crds import bundled_crds
from aimlab.gateway.traefik import Api
from aimlab.lab import install
from aimschema.names import SYSTEM_NAMESPACE
from aimschema.reasons import WATCHER
from aimschema.resources import (
    LEASE,
    MODEL,
    NAMESPACE,
    SERVICE,
    Resource,
)

Body = dict[str, Any]
QUIET_S = 0.7
POLL_S = 0.1
READY_WITHIN_S = 60.0
CLEARED_WITHIN_S = 60.0
SETTLED_WITHIN_S = 180.0
_ENDED = (
    "unexpected",
    "exited-unexpectedly",
    "failed-while-stopping",
    "watch-failed",
    "undecodable",
)


@dataclass
class World:
    """Everything that faults need to get at."""

    api: ApiServer
    cluster: Cluster
    node: FastNode
    proxy: Proxy
    nats: NatsServer
    services: Children
    observer: Observer
    behind: NatsServer
    relay: Relay | None
    accounts: dict[str, Path]
    ports: dict[str, int]
    kills: int = 0

    async def start(self, service: str, **settings: str) -> None:
        """Start one of the services, with more settings, without waiting for it."""
        nats_url = self.nats.url if self.relay is None or service == WATCHER else self.behind.url
        env = {
            "AIM_NATS_URL": nats_url,
            "AIM_HTTP_PORT": str(self.ports[service]),
            "KUBECONFIG": str(self.accounts[f"aim-{service}"]),
        }
        await self.services.start(
            service, [str(Path(sys.executable).with_name(f"aim-{service}"))], env=env | settings
        )

    async def kill(self, service: str, *, free_lease: bool = True) -> None:
        """kill -9. `free_lease`: its lease goes too, as the process is surely dead, so that the
        next need not wait for it to run out."""
        self.kills += 1
        await self.services.kill(service)
        if free_lease:
            with contextlib.suppress(NotFound):
                await self.cluster.delete(LEASE, SYSTEM_NAMESPACE, f"aim-{service}")

    async def ready(self) -> None:
        """Waits until all services say that they are."""
        async with asyncio.TaskGroup() as waiting:
            for service in SERVICES:
                waiting.create_task(self.ready_one(service))

    async def ready_one(self, service: str) -> None:
        what = f"aim-{service}; its log is {self.services.log_of(service)}"
        await until_answers(
            self.services.running[service],
            f"http://127.0.0.1:{self.ports[service]}/readyz",
            what,
            READY_WITHIN_S,
        )

    async def wipe_nats(self, *streams: str) -> None:
        await wipe(self.nats, *streams)

    async def apply(self, fleet: Fleet, rng: random.Random, over_s: float) -> None:
        """Create everything, spread over a time, and change some of it, straight into the
        double: the user's kubectl has no fault."""
        bodies = manifests(fleet)
        pause_s = 2 * over_s / max(1, len(bodies))
        for body in bodies:
            await self.cluster.create(body)
            await asyncio.sleep(rng.uniform(0.0, pause_s))
        for namespace, name, spec in edits(fleet):
            await self.cluster.merge_patch(SERVICE, namespace, name, {"spec": spec})
            await asyncio.sleep(rng.uniform(0.0, pause_s))

    def errors_logged(self) -> list[str]:
        """What a service wrote into its log that should never happen, and what the fast node
        stumbled over."""
        found = list(self.node.truth.errors)
        for service in SERVICES:
            found += errors_in(f"aim-{service}", self.services.log_of(service))
        return found

    def ended_services(self) -> list[str]:
        return [
            f"aim-{name} ended with {process.returncode}"
            for name, process in self.services.running.items()
            if process.returncode is not None
        ]


async def wipe(nats: NatsServer, *streams: str) -> None:
    """Crash, lose the streams named (none named: everything), come back."""
    await nats.kill()
    store = nats.store_dir / "jetstream"
    folders = [folder for name in streams for folder in store.rglob(name)] if streams else [store]
    assert folders, f"no folder of {streams} under {store}"
    for folder in folders:
        await asyncio.to_thread(shutil.rmtree, folder)
    await nats.start()


def errors_in(program: str, log: Path) -> list[str]:
    """What a service wrote into its log that should never happen."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return [
        f"{program} logged: {line[:1500]}"
        for line in lines
        if any(f'"event": "{event}"' in line for event in _ENDED) or "Traceback (most" in line
    ]


@asynccontextmanager
async def world(
    folder: Path, seed: int, *, flaky: bool = False, unruly: bool = False
) -> AsyncIterator[World]:
    """Runs it for as long as the block lasts; all services are ready. `unruly`: all but the
    watcher are on a second bus that mangles what it says."""
    rng = chance(seed)
    async with contextlib.AsyncExitStack() as stack:
        api = await stack.enter_async_context(ApiServer())
        cluster = await _connect(folder / "direct", api.url)
        stack.push_async_callback(cluster.close)
        node_rng, proxy_rng = branch(rng), branch(rng)
        proxy = await stack.enter_async_context(Proxy(api.url, proxy_rng))
        accounts = await install(
            cluster, Api(proxy.url), [*bundled_crds(), *crds(), *rbac()], folder
        )
        node = await stack.enter_async_context(FastNode(api, cluster, node_rng, flaky=flaky))
        observer = Observer(api, node.truth)
        nats = await _nats(stack, folder / "nats")
        behind = await _nats(stack, folder / "behind") if unruly else nats
        relay = (
            await stack.enter_async_context(relaying(nats.url, behind.url, branch(rng)))
            if unruly
            else None
        )
        services = await stack.enter_async_context(Children(folder / "log"))
        ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        made = World(
            api, cluster, node, proxy, nats, services, observer, behind, relay, accounts, ports
        )
        for service in SERVICES:
            await made.start(service)
        await made.ready()
        yield made


async def _nats(stack: contextlib.AsyncExitStack, folder: Path) -> NatsServer:
    server = NatsServer(folder)
    await server.start()
    stack.push_async_callback(server.stop)
    return server


async def _connect(path: Path, url: str) -> Cluster:
    write_kubeconfig(path, url)
    return await Cluster.connect(str(path), user_agent="aim_testing.chaos")


def end_state(world: World) -> State:
    collections = world.api.cluster.store.collections
    return plain(
        entry.obj
        for resource in COMPARED
        for entry in collections[resource.group, resource.plural].entries(None)
    )


async def settle(world: World, expected: State | None, within_s: float) -> State:
    """Waits until the end state is the expected one (None: until nothing happens any more) and
    stays so; gives what it is at last."""
    give_up_s = time.monotonic() + within_s
    quiet_s = QUIET_S if expected is not None else 3 * QUIET_S
    writes = -1
    since_s = time.monotonic()
    state = {}
    while time.monotonic() < give_up_s:
        if world.observer.writes != writes:
            writes, since_s = world.observer.writes, time.monotonic()
            state = end_state(world)
        if time.monotonic() - since_s >= quiet_s and (
            state == expected if expected is not None else all_running(state)
        ):
            break
        await asyncio.sleep(POLL_S)
    return end_state(world)


async def clear(world: World) -> None:
    """Delete the whole fleet, by its namespaces and models, and wait until it is deleted."""
    for resource in (NAMESPACE, MODEL):
        for body in _brought_up(world, resource):
            await world.cluster.delete(resource, None, body["metadata"]["name"])
    async with asyncio.timeout(CLEARED_WITHIN_S):
        while end_state(world) or _brought_up(world, NAMESPACE):  # noqa: ASYNC110 (controllers make it so)
            await asyncio.sleep(POLL_S)


def _brought_up(world: World, resource: Resource) -> list[Body]:
    entries = world.api.cluster.store.collections[resource.group, resource.plural].entries(None)
    return [
        entry.obj
        for entry in entries
        if resource is not NAMESPACE or entry.obj["metadata"]["name"].startswith("ns")
    ]


Strike = Callable[[World, random.Random], Coroutine[None, None, None]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`problems` is empty where everything held."""

    problems: tuple[str, ...]
    seconds: float
    runs: int
    kills: int
    faulty: int
    versions: int


async def bring_up(
    world: World,
    fleet: Fleet,
    expected: State | None,
    strike: Strike | None,
    seed: int,
    *,
    over_s: float = 2.0,
) -> tuple[State, Outcome]:
    """Apply the fleet while something strikes, wait for the end, and say what did not hold.
    `expected` None: this is the undisturbed run."""
    rng, started_s = chance(seed), time.monotonic()
    before = _tally(world)
    logged = len(world.errors_logged())
    async with asyncio.TaskGroup() as work:
        work.create_task(world.apply(fleet, branch(rng), over_s))
        if strike is not None:
            work.create_task(strike(world, branch(rng)))
    state = await settle(world, expected, SETTLED_WITHIN_S)
    judged, runs, kills, faulty, versions = (
        after - earlier for after, earlier in zip(_tally(world), before, strict=True)
    )
    problems = [
        *([] if all_running(state) else ["not every service is Running"]),
        *world.ended_services(),
        *world.observer.violations[len(world.observer.violations) - judged :],
        *wrong_runs(world.node.truth.runs),
        *world.errors_logged()[logged:],
        *([] if expected is None else differences(expected, state)),
    ]
    return state, Outcome(
        tuple(problems), time.monotonic() - started_s, runs, kills, faulty, versions
    )


def _tally(world: World) -> tuple[int, int, int, int, int]:
    observer = world.observer
    return (
        len(observer.violations),
        len(world.node.truth.runs),
        world.kills,
        world.proxy.faulty,
        observer.versions,
    )
