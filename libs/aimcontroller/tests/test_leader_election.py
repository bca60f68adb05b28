"""Two instances of a service with real NATS and the API server double: one active, one standby,
also when the API server hangs for one."""

import asyncio
import contextlib
import datetime
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from aim_statuswriter.actions import SendEvent
from aimbus import Bus, Event, read_log
from aimcontroller.action import Action
from aimcontroller.component import Component
from aimcontroller.controller import Controller
from aimcontroller.handler import ActionContext, ActionResult
from aimcontroller.health import Health
from aimcontroller.leader_election import leader_election
from aimcontroller.plan import Plan, actions, condition, report
from aimcontroller.projection import Projection, changed_from_response
from aimcontroller.settings import ServiceSettings
from aimkube import Cluster, LeaseTiming
from aimlab.apiserver import ApiServer
from aimschema import subjects
from aimschema.messages import KindSynced, StatusReported
from aimschema.resources import CONFIG_MAP, LEASE, Key

NAME, NAMESPACE = "leadtest", "lab"
A = Key(CONFIG_MAP.kind, NAMESPACE, "a")
FAST = LeaseTiming(duration_s=2, margin_s=0.7, renew_s=0.3, request_s=0.3, retry_s=0.05, poll_s=0.1)


class Wire:
    """A way to the API server that can be made to hang: connections stay open and nothing
    passes."""

    def __init__(self) -> None:
        self.passing = asyncio.Event()
        self.passing.set()
        self.port = 0
        self._to = 0

    @contextlib.asynccontextmanager
    async def open(self, to: int) -> AsyncIterator[None]:
        self._to = to
        server = await asyncio.start_server(self._connected, "127.0.0.1")
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self._to)
        await asyncio.gather(self._pass(reader, back_writer), self._pass(back_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                await self.passing.wait()
                writer.write(data)
        writer.close()


@dataclass
class Instance:
    """One instance whose only action, if `endless`, runs until it is cancelled; `did` has the times
    of its activity."""

    name: str
    bus: Bus
    kubeconfig: str
    did: list[tuple[float, str]]
    planned: bool = False
    endless: bool = True
    health: Health = field(default_factory=Health)

    def plan(self, state: Projection, key: Key, _now: datetime.datetime) -> Plan:
        self.planned = True
        obj = state.get(key)
        assert obj is not None
        return report(obj, condition("Done", True, self.name)) | actions(
            SendEvent(A, "a", "Normal", "Ok", "")
        )

    async def handle(self, _action: Action, _ctx: ActionContext, /) -> ActionResult:
        self.did.append((time.monotonic(), self.name))
        while self.endless:
            await asyncio.sleep(0.005)
            self.did.append((time.monotonic(), self.name))
        return ActionResult()

    async def run(self) -> None:
        settings = ServiceSettings(kubeconfig=self.kubeconfig, namespace=NAMESPACE)
        async with leader_election(NAME, settings, self.health, timing=FAST) as lease:
            service = Component(
                NAME, (CONFIG_MAP,), (CONFIG_MAP,), lambda _state, key: (key,), self.plan
            )
            cluster = await Cluster.connect(self.kubeconfig, fence=lease.wait_until_held)
            try:
                self.loop = Controller(service, self.bus, cluster, self.health, self.handle, lease)
                await self.loop.run()
            finally:
                await cluster.close()

    @property
    def standing(self) -> tuple[str, bool]:
        return self.health.role, not self.health.not_ready


@dataclass
class Pair:
    """`a` reaches the API server over `wire`, `b` directly."""

    a: Instance
    b: Instance
    wire: Wire
    cluster: Cluster
    did: list[tuple[float, str]]

    def span(self, name: str) -> tuple[float, float]:
        times = [at for at, who in self.did if who == name]
        return min(times), max(times)


def kubeconfig(folder: Path, port: int) -> str:
    path = folder / f"kubeconfig-{port}"
    named = {
        "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "x", "user": {}}],
    }
    path.write_text(
        json.dumps(
            {
                **named,
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                "current-context": "x",
            }
        )
    )
    return str(path)


@pytest.fixture
async def pair(watcher_bus: Bus, service_bus: Bus, tmp_path: Path) -> AsyncIterator[Pair]:
    wire, did = Wire(), list[tuple[float, str]]()
    async with ApiServer() as server, wire.open(server.port):
        cluster = await Cluster.connect(kubeconfig(tmp_path, server.port))
        await cluster.create(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        )
        body = {
            "apiVersion": "v1",
            "kind": A.kind,
            "metadata": {"name": A.name, "namespace": A.namespace},
        }
        await watcher_bus.publisher.publish(changed_from_response(await cluster.create(body)))
        await watcher_bus.publisher.publish(
            KindSynced(kind=A.kind, resource_version="1", objects=1)
        )
        a = Instance("a", service_bus, kubeconfig(tmp_path, wire.port), did)
        yield Pair(
            a,
            Instance("b", service_bus, kubeconfig(tmp_path, server.port), did),
            wire,
            cluster,
            did,
        )
        wire.passing.set()
        await cluster.close()


@contextlib.asynccontextmanager
async def running(instance: Instance) -> AsyncIterator[None]:
    task = asyncio.ensure_future(instance.run())
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(holds: Callable[[], bool]) -> None:
    """Waits for an effect of two servers and the instances for which there is no event."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 (see above)
            await asyncio.sleep(0.005)


async def until_stands(instance: Instance, role: str) -> None:
    await until(lambda: instance.standing == (role, True))


async def until_works(pair: Pair, name: str) -> None:
    """Once more from now on."""
    count = len(pair.did)
    await until(lambda: name in [who for _, who in pair.did[count:]])


async def test_a_standby_only_follows_until_the_lease_is_released(
    pair: Pair,
) -> None:
    async with contextlib.AsyncExitStack() as second:
        async with running(pair.a):
            await until_works(pair, "a")
            await second.enter_async_context(running(pair.b))
            await until_stands(pair.b, "standby")
            await until_works(pair, "a")
            assert pair.b.loop.state.get(A) is not None
            assert (pair.b.planned, len(pair.b.loop.queue)) == (False, 0)
        released_s = time.monotonic()
        await until_works(pair, "b")
        assert time.monotonic() - released_s < FAST.duration_s / 2
    assert (await pair.cluster.get(LEASE, NAMESPACE, f"aim-{NAME}"))["spec"]["holderIdentity"] == ""


async def test_a_hanging_leader_stops_before_the_standby_starts(
    pair: Pair,
) -> None:
    async with running(pair.a):
        await until_works(pair, "a")
        async with running(pair.b):
            await until_stands(pair.b, "standby")
            cut_s = time.monotonic()
            pair.wire.passing.clear()
            await until_works(pair, "b")
            assert pair.span("a")[1] < pair.span("b")[0]
            assert pair.span("a")[1] - cut_s <= FAST.duration_s - FAST.margin_s + 0.1
            assert pair.span("b")[0] - cut_s < FAST.duration_s + 1
            await until(lambda: "lease" in pair.a.health.not_ready)
            pair.wire.passing.set()
            await until_stands(pair.a, "standby")
        handed_s = time.monotonic()
        await until_works(pair, "a")
        assert time.monotonic() - handed_s < 1
        assert not [who for at, who in pair.did if at > handed_s and who == "b"]


async def test_a_report_that_a_predecessor_sent_late_is_set_right(
    pair: Pair, watcher_bus: Bus
) -> None:
    pair.b.endless = False
    async with running(pair.b):
        await until_stands(pair.b, "leader")
        await until(lambda: pair.b.loop.state.report(A, NAME) is not None)
        last_report = pair.b.loop.state.report(A, NAME)
        late = StatusReported(
            kind=A.kind,
            namespace=A.namespace,
            name=A.name,
            uid="a",
            service=NAME,
            observed_generation=1,
        )
        seq = await watcher_bus.publisher.publish(late)
        async for event in read_log(
            watcher_bus, [subjects.reports(service=NAME)], after_seq=seq, follow=True
        ):
            assert isinstance(event, Event)
            assert event.message == last_report
            break
