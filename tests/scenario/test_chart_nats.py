"""The three NATS servers of the production values, with the configuration as rendered and the keys of `aimctl nats init`.

On one machine they differ by port instead of by name; the certificate is for loopback too.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

import aimbus
from aimbus.access import Access
from aimbus.accounts import FOLDER
from aimctl.nats_secrets import CA, SEED, SERVER, of_user, wanted
from aimlab.lab import SYSTEM_NAMESPACE, until_answers
from aimlab.ports import free_ports
from aimlab.processes import Children
from aimlab.testing.charts import OVERLAYS, render
from aimschema.reasons import WATCHER

CHART = Path(__file__).parents[2] / "deploy" / "charts" / "aim"
NAMES = [f"aim-nats-{number}" for number in range(3)]
pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]


def lay_out(root: Path, routes: list[int]) -> Access:
    """The files as they are mounted; gives what the watcher needs to be let in."""
    (config,) = [body["data"]["nats.conf"] for body in render(CHART, files=OVERLAYS["production"]) if body["kind"] == "ConfigMap"]
    for name, port in zip(NAMES, routes, strict=True):
        config = config.replace(f"{name}.aim-nats-headless.{SYSTEM_NAMESPACE}.svc:6222", f"127.0.0.1:{port}")
    secrets = wanted({}, SYSTEM_NAMESPACE, (), datetime.now(UTC))
    own = secrets[of_user(WATCHER)]
    server = root / FOLDER.lstrip("/")
    files = {root / "etc" / "nats" / "nats.conf": config.encode(), root / SEED: own[SEED], root / CA: own[CA]}
    files |= {server / key: value.replace(FOLDER.encode(), str(server).encode()) for key, value in secrets[SERVER].items()}
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Access(str(root / SEED), str(root / CA))


@asynccontextmanager
async def three_servers(root: Path) -> AsyncIterator[tuple[Children, str, Access]]:
    """Running and ready: the servers, the URL of all three, and the watcher's access."""
    clients, routes, monitors = (free_ports(3) for _ in range(3))
    access = lay_out(root, routes)
    program = [str(Path(sys.executable).with_name("nats-server")), "--config", str(root / "etc" / "nats" / "nats.conf")]
    async with Children(root / "log") as servers:
        for name, client, route, monitor in zip(NAMES, clients, routes, monitors, strict=True):
            ports = ["--port", str(client), "--cluster", f"nats://127.0.0.1:{route}", "--http_port", str(monitor)]
            where = ["--addr", "127.0.0.1", "--store_dir", str(root / name)]
            await servers.start(name, [*program, *ports, *where], env={"SERVER_NAME": name})
        for name, monitor in zip(NAMES, monitors, strict=True):
            await until_answers(servers.running[name], f"http://127.0.0.1:{monitor}/healthz", f"{name}; its log is {servers.log_of(name)}")
        yield servers, ",".join(f"tls://127.0.0.1:{port}" for port in clients), access


async def test_three_servers_keep_three_copies_and_go_on_without_one(tmp_path: Path) -> None:
    async with three_servers(tmp_path) as (servers, url, access), asyncio.timeout(60):
        bus = await aimbus.connect(url, name=WATCHER, access=access)
        try:
            made = await aimbus.ensure_streams(bus, replicas=3)
            assert (made.log_made, made.state_made) == (True, True)
            await servers.kill(NAMES[0])
            again = await aimbus.ensure_streams(bus, replicas=3)
            assert (again.log_made, again.state_made) == (False, False)
        finally:
            await bus.close()
