"""The NATS servers of the chart, with the configuration as rendered and the keys of `aimctl nats
init`.

On one machine they differ by port instead of by name; the certificate is for loopback too.
"""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import aimbus
from aim_watcher.nats_secrets import CA, SEED, SERVER, Secrets, desired_secrets, of_user
from aimbus.accounts import FOLDER
from aimbus.credentials import NatsCredentials
from aimctl.local.ports import free_ports
from aimctl.local.processes import Children, until_answers
from aimlab.testing import eventually
from aimlab.testing.charts import OVERLAYS, render
from aimschema.names import SYSTEM_NAMESPACE
from aimschema.reasons import WATCHER

CHART = Path(__file__).parents[2] / "deploy" / "charts" / "aim"
PROGRAM = str(Path(sys.executable).with_name("nats-server"))
NAMES = [f"aim-nats-{number}" for number in range(3)]
KEYS: tuple[str, ...] = ()
NO_KEYS = ("--set=nats.auth.enabled=false",)
PRODUCTION = (f"--values={CHART / OVERLAYS['production'][0]}",)
pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]


@dataclass(frozen=True)
class Installed:
    """The servers of a set of values: their files under `root`, the ports that stand for their
    names."""

    root: Path
    values: tuple[str, ...]
    clients: tuple[int, ...]
    routes: tuple[int, ...]
    monitors: tuple[int, ...]

    @property
    def url(self) -> str:
        return ",".join(
            f"{'nats' if self.values == NO_KEYS else 'tls'}://127.0.0.1:{port}"
            for port in self.clients
        )

    @property
    def access(self) -> NatsCredentials:
        return (
            NatsCredentials(None, None)
            if self.values == NO_KEYS
            else NatsCredentials(str(self.root / SEED), str(self.root / CA))
        )

    @property
    def config(self) -> Path:
        return self.root / "etc" / "nats" / "nats.conf"

    def lay_out(self, secrets: Secrets) -> None:
        """Write the files as they are mounted."""
        (nats,) = [body for body in render(CHART, *self.values) if body["kind"] == "StatefulSet"]
        text = nats["spec"]["template"]["metadata"]["annotations"]["aim.silogen.ai/nats.conf"]
        for name, port in zip(NAMES, self.routes, strict=False):
            text = text.replace(
                f"{name}.aim-nats-headless.{SYSTEM_NAMESPACE}.svc:6222", f"127.0.0.1:{port}"
            )
        own, server = secrets[of_user(WATCHER)], self.root / FOLDER.lstrip("/")
        files = {self.config: text.encode(), self.root / SEED: own[SEED], self.root / CA: own[CA]}
        files |= {
            server / key: value.replace(FOLDER.encode(), str(server).encode())
            for key, value in secrets[SERVER].items()
        }
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def installed(root: Path, values: tuple[str, ...], servers: int) -> Installed:
    clients, routes, monitors = (tuple(free_ports(servers)) for _ in range(3))
    return Installed(root, values, clients, routes, monitors)


def secrets(existing: Secrets | None = None, *rotate: str) -> Secrets:
    return desired_secrets(existing or {}, SYSTEM_NAMESPACE, rotate, datetime.now(UTC))


@asynccontextmanager
async def running(installation: Installed) -> AsyncIterator[Children]:
    """All servers, ready as their readiness probe asks."""
    names = NAMES[: len(installation.clients)]
    async with Children(installation.root / "log") as servers:
        for name, client, route, monitor in zip(
            names, installation.clients, installation.routes, installation.monitors, strict=True
        ):
            ports = ["--port", str(client), "--http_port", str(monitor)]
            peers = ["--cluster", f"nats://127.0.0.1:{route}"] if len(names) > 1 else []
            where = ["--addr", "127.0.0.1", "--store_dir", str(installation.root / name)]
            await servers.start(
                name,
                [PROGRAM, "--config", str(installation.config), *ports, *peers, *where],
                env={"SERVER_NAME": name},
            )
        for name, monitor in zip(names, installation.monitors, strict=True):
            url = f"http://127.0.0.1:{monitor}/healthz?js-server-only=true"
            await until_answers(
                servers.running[name], url, f"{name}; its log is {servers.log_of(name)}"
            )
        yield servers


async def streams(installation: Installed, replicas: int) -> aimbus.Streams:
    bus = await aimbus.connect(installation.url, name=WATCHER, access=installation.access)
    try:
        async with asyncio.timeout(60):
            return await aimbus.ensure_streams(bus, replicas=replicas)
    finally:
        await bus.close()


async def test_three_servers_keep_three_copies_and_go_on_without_one(tmp_path: Path) -> None:
    installation = installed(tmp_path, PRODUCTION, 3)
    installation.lay_out(secrets())
    async with running(installation) as servers:
        made = await streams(installation, 3)
        assert (made.log_made, made.state_made) == (True, True)
        await servers.kill(NAMES[0])
        again = await streams(installation, 3)
        assert (again.log_made, again.state_made) == (False, False)


async def test_keys_and_servers_come_and_go_on_the_same_volumes(tmp_path: Path) -> None:
    """No keys, the defaults, production and back: each comes up on what the other left, and the
    streams are there or made again."""
    keys = secrets()
    for values, servers in (
        (NO_KEYS, 1),
        (KEYS, 1),
        (PRODUCTION, 3),
        (KEYS, 1),
        (NO_KEYS, 1),
        (PRODUCTION, 3),
    ):
        installation = installed(tmp_path, values, servers)
        installation.lay_out(keys)
        async with running(installation):
            await streams(installation, servers)
            assert await streams(installation, servers) == aimbus.Streams(
                log_made=False, state_made=False
            )


async def reload(servers: Children) -> None:
    """As `kubectl exec` does it in each pod, where the server is process 1."""
    for process in servers.running.values():
        signal_process = await asyncio.create_subprocess_exec(
            PROGRAM, "--signal", f"reload={process.pid}"
        )
        assert await signal_process.wait() == 0


async def test_a_reload_lets_a_new_key_in_and_the_old_one_no_more(tmp_path: Path) -> None:
    installation = installed(tmp_path, KEYS, 1)
    first = secrets()
    installation.lay_out(first)
    async with running(installation) as servers:
        await streams(installation, 1)
        installation.lay_out(secrets(first, WATCHER))
        await reload(servers)

        async def is_let_in() -> bool:
            bus = await aimbus.connect(installation.url, name=WATCHER, access=installation.access)
            await bus.close()
            return True

        await eventually(is_let_in, "the new key is let in")
        old = replace(installation, root=tmp_path / "old")
        old.lay_out(first)
        problems: list[str] = []
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(
                aimbus.connect(
                    installation.url, name=WATCHER, access=old.access, on_status=problems.append
                )
            )

            async def is_kept_out() -> bool:
                return any("the server does not know the key" in problem for problem in problems)

            await eventually(is_kept_out, "the old key is let in no more")
            waiting.cancel()


@pytest.mark.parametrize("rotated", ["server", "ca"])
async def test_a_reload_serves_the_new_certificate(tmp_path: Path, rotated: str) -> None:
    installation = installed(tmp_path, KEYS, 1)
    first = secrets()
    installation.lay_out(first)
    async with running(installation) as servers:
        second = secrets(first, rotated)
        installation.lay_out(second)
        await reload(servers)

        async def is_served() -> bool:
            return await certificate(installation.clients[0]) == ssl.PEM_cert_to_DER_cert(
                second[SERVER]["tls.crt"].decode()
            )

        await eventually(is_served, "the new certificate is served")
        await streams(installation, 1)


async def certificate(port: int) -> bytes:
    """What a server shows, in DER: NATS speaks first in plain text, then over TLS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await reader.readline()
        unverified = ssl.create_default_context()
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
        await writer.start_tls(unverified)
        shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return shown
    finally:
        writer.close()
