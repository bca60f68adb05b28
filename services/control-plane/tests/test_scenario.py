"""All services in one process, between a real nats-server and the lab's API server."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from aim_control_plane.__main__ import NAME, PROGRAMS
from aimbus import NatsServer
from aimctl.local.ports import free_ports
from aimctl.local.processes import until_answers
from aimkube import Cluster
from aimlab.accounts import write_kubeconfig
from aimlab.apiserver import ApiServer
from aimschema.names import SYSTEM_NAMESPACE
from aimschema.reasons import COMPONENTS
from aimschema.resources import LEASE

NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}
MOST_MB = 110


@dataclass
class Running:
    """The process, and what it runs against."""

    process: asyncio.subprocess.Process
    cluster: Cluster
    url: str

    async def readyz(self) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"{self.url}/readyz") as answer,
        ):
            return answer.status, await answer.text()

    def resident_mb(self) -> float:
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        (resident,) = [line for line in rollup.splitlines() if line.startswith("Rss:")]
        return int(resident.split()[1]) * 1024 / 1e6


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    (port,) = free_ports(1)
    async with ApiServer() as api:
        nats = NatsServer(tmp_path / "nats")
        await nats.start()
        write_kubeconfig(tmp_path / "kubeconfig", api.url)
        cluster = await Cluster.connect(str(tmp_path / "kubeconfig"))
        await cluster.create(NAMESPACE)
        env = {
            "AIM_NATS_URL": nats.url,
            "AIM_HTTP_PORT": str(port),
            "AIM_NATS_MAX_BYTES": str(1 << 26),
            "KUBECONFIG": str(tmp_path / "kubeconfig"),
        }
        with (tmp_path / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "aim_control_plane", env=os.environ | env, stderr=log
            )
        yield Running(process, cluster, f"http://127.0.0.1:{port}")
        if process.returncode is None:
            process.kill()
            await process.wait()
        await cluster.close()
        await nats.stop()


def test_every_component_is_in_the_process() -> None:
    assert {program.component for program in PROGRAMS} == set(COMPONENTS)
    assert NAME not in COMPONENTS


async def test_all_services_lead_in_little_memory_and_end_well(running: Running) -> None:
    await until_answers(running.process, f"{running.url}/readyz", NAME)
    roles = "".join(f"{program.component}: leader\n" for program in PROGRAMS)
    assert await running.readyz() == (200, f"ok\n{roles}")
    assert running.resident_mb() < MOST_MB
    running.process.terminate()
    async with asyncio.timeout(15):
        assert await running.process.wait() == 0
    leases = [
        await running.cluster.get(LEASE, SYSTEM_NAMESPACE, f"aim-{component}")
        for component in sorted(COMPONENTS)
    ]
    assert {lease["spec"]["holderIdentity"] for lease in leases} == {""}
