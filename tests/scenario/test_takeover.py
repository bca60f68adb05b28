"""Two processes of a service: the standby takes over, at once after SIGTERM, within 15 s after
SIGKILL."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

import aimbus
from aimbus import Bus, Event
from aimctl.local.ports import free_ports
from aimctl.local.processes import Children
from aimctl.manifests import crds, rbac
from aimctl.nats.server import embedded_nats
from aimkube import Cluster
from aimlab.testing.environments import control_plane_place
from aimschema import subjects
from aimschema.messages import StatusReported
from aimschema.reasons import ROUTER, WATCHER
from aimschema.resources import SERVICE

pytest_plugins = ["aimlab.testing.server_fixture"]
NAMESPACE = "aim-system"
TAKE_OVER_WITHIN_S = 15.0
AFTER_SIGTERM_WITHIN_S = 4.0  # a second, and the start of a watcher
POLL_S = 0.05


@dataclass
class Place:
    """An API server, a NATS server, and processes by name."""

    cluster: Cluster
    bus: Bus
    children: Children
    accounts: dict[str, Path]
    env: dict[str, str]
    session: aiohttp.ClientSession

    async def start(self, service: str, name: str) -> str:
        """Starts `aim-<service>` as `name`; gives the URL of its health."""
        port, command = free_ports(1)[0], f"aim-{service}"
        env = self.env | {"KUBECONFIG": str(self.accounts[command]), "AIM_HTTP_PORT": str(port)}
        await self.children.start(name, [str(Path(sys.executable).with_name(command))], env=env)
        return f"http://127.0.0.1:{port}"

    async def until_is(self, role: str, *urls: str, within_s: float = 30.0) -> None:
        """Until /readyz of all answers 200 and says `role`."""
        async with asyncio.timeout(within_s):
            for url in urls:
                while await self._ready(url) != role:  # noqa: ASYNC110 (other processes bring it about)
                    await asyncio.sleep(POLL_S)

    async def _ready(self, url: str) -> str:
        try:
            async with self.session.get(f"{url}/readyz") as answer:
                lines = (await answer.text()).splitlines()
                return lines[-1] if answer.status == 200 else ""
        except aiohttp.ClientError:
            return ""

    async def leader_metric(self, url: str) -> dict[str, float]:
        async with self.session.get(f"{url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return {
            line.partition(" ")[0]: float(line.partition(" ")[2])
            for line in lines
            if line.startswith("aim_leader{")
        }

    async def works(self, name: str) -> None:
        """A new AIMService gets a report of the router: the watcher has published it and the router
        has planned for it."""
        metadata = {"name": name, "namespace": NAMESPACE}
        spec = {"model": "m", "templateRef": "t"}
        await self.cluster.create(
            {
                "apiVersion": SERVICE.api_version,
                "kind": SERVICE.kind,
                "metadata": metadata,
                "spec": spec,
            }
        )
        async with (
            asyncio.timeout(10),
            aclosing(
                aimbus.read_log(self.bus, [subjects.reports(service=ROUTER)], follow=True)
            ) as events,
        ):
            async for event in events:
                if (
                    isinstance(event, Event)
                    and isinstance(event.message, StatusReported)
                    and event.message.name == name
                ):
                    return

    def signal(self, number: signal.Signals, *names: str) -> None:
        for name in names:
            self.children.running[name].send_signal(number)


@pytest.fixture
async def place(tmp_path: Path, external_server: Path | None) -> AsyncIterator[Place]:
    async with (
        embedded_nats(tmp_path / "nats") as nats,
        Children(tmp_path / "log") as children,
        control_plane_place(external_server, children, tmp_path, [*crds(), *rbac()]) as (
            cluster,
            accounts,
        ),
        aiohttp.ClientSession(trust_env=False) as session,
    ):
        bus = await aimbus.connect(nats.url, name="test")
        env = {"AIM_NATS_URL": nats.url, "AIM_NATS_MAX_BYTES": str(1 << 26)}
        yield Place(cluster, bus, children, accounts, env, session)
        await bus.close()


async def test_a_standby_takes_over_after_sigterm_and_sigkill(
    place: Place,
) -> None:
    first = [await place.start(WATCHER, "watcher-1"), await place.start(ROUTER, "router-1")]
    await place.until_is("leader", *first)
    second = [await place.start(WATCHER, "watcher-2"), await place.start(ROUTER, "router-2")]
    await place.until_is("standby", *second)
    assert await place.leader_metric(first[1]) == {'aim_leader{service="router"}': 1.0}
    assert await place.leader_metric(second[1]) == {'aim_leader{service="router"}': 0.0}
    await place.works("one")

    place.signal(signal.SIGTERM, "watcher-1", "router-1")
    await place.until_is("leader", *second, within_s=AFTER_SIGTERM_WITHIN_S)
    assert [await place.children.running[name].wait() for name in ("watcher-1", "router-1")] == [
        0,
        0,
    ]
    await place.works("two")

    third = [await place.start(WATCHER, "watcher-3"), await place.start(ROUTER, "router-3")]
    await place.until_is("standby", *third)
    place.signal(signal.SIGKILL, "watcher-2", "router-2")
    killed_s = time.monotonic()
    await place.until_is("leader", *third, within_s=TAKE_OVER_WITHIN_S)
    assert time.monotonic() - killed_s > 5, "a lease that may still be held was taken"
    await place.works("three")
