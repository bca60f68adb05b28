"""The laptop cluster's gateway: the real Traefik from its wheel, reading the Gateway API objects of
the same API server.

It listens on one loopback port for routes and on one for its own health; its version check is off.
Traefik accepts a listener only if its port is that of one of its entry points, so the Gateway is
created for the free port.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from aimctl.local.ports import free_ports
from aimctl.local.processes import Process, Program, start, stop
from aimkube import AlreadyExists, Cluster, NotFound
from aimlab.kinds import Body
from aimschema.resources import GATEWAY, GATEWAY_CLASS

HOST = "127.0.0.1"
CLASS_NAME = "traefik"
GATEWAY_NAME = "aim-gateway"
CONTROLLER = "traefik.io/gateway-controller"
READY_WITHIN_S = 30.0
POLL_S = 0.05
STOP_GRACE_S = 1.0  # it keeps no state, and would wait for idle connections


@dataclass(frozen=True, slots=True)
class Api:
    """Where the API server is. `token` is a bearer token or the path of a file with one;
    `ca_file` is needed for https. The double wants neither."""

    url: str
    token: str = ""
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway: routes are answered at `url`."""

    url: str
    port: int


def gateway_class() -> Body:
    head = {
        "apiVersion": GATEWAY_CLASS.api_version,
        "kind": "GatewayClass",
        "metadata": {"name": CLASS_NAME},
    }
    return head | {"spec": {"controllerName": CONTROLLER}}


def gateway_object(namespace: str, port: int) -> Body:
    """One http listener that takes routes from all namespaces."""
    listener = {
        "name": "http",
        "protocol": "HTTP",
        "port": port,
        "allowedRoutes": {"namespaces": {"from": "All"}},
    }
    head = {
        "apiVersion": GATEWAY.api_version,
        "kind": "Gateway",
        "metadata": {"name": GATEWAY_NAME, "namespace": namespace},
    }
    return head | {"spec": {"gatewayClassName": CLASS_NAME, "listeners": [listener]}}


def command(api: Api, port: int, health_port: int, token_file: Path | None) -> list[str]:
    provider = "--providers.kubernetesgateway"
    flags = [
        provider,
        f"{provider}.endpoint={api.url}",
        f"{provider}.statusaddress.ip={HOST}",
        f"--entrypoints.web.address={HOST}:{port}",
        "--entrypoints.web.http.aliasheadersstrategy=delete",
        "--entrypoints.web.transport.lifecycle.gracetimeout=1s",
        f"--entrypoints.health.address={HOST}:{health_port}",
        "--entrypoints.health.http.aliasheadersstrategy=delete",
        "--entrypoints.health.transport.lifecycle.gracetimeout=1s",
        "--ping",
        "--ping.entrypoint=health",
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
        "--log.level=INFO",
        "--log.nocolor",
    ]
    if token_file is not None:
        flags.append(f"{provider}.token={token_file}")
    if api.ca_file is not None:
        flags.append(f"{provider}.certauthfilepath={api.ca_file}")
    return [str(Path(sys.executable).with_name("traefik")), *flags]


async def install(cluster: Cluster, namespace: str, port: int) -> None:
    """Makes the GatewayClass and the Gateway, or points the Gateway that is there at `port`.
    Raises KubeError."""
    with suppress(AlreadyExists):
        await cluster.create(gateway_class(), resource=GATEWAY_CLASS)
    desired = gateway_object(namespace, port)
    try:
        await cluster.merge_patch(GATEWAY, namespace, GATEWAY_NAME, {"spec": desired["spec"]})
    except NotFound:
        await cluster.create(desired, resource=GATEWAY)


def _token_file(api: Api, folder: Path) -> Path | None:
    """The path of a file with the token. Traefik reads its `token` flag as a file wherever one of
    that name exists, in the working directory too, so that the token itself is never passed."""
    if not api.token or Path(api.token).is_file():
        return Path(api.token) if api.token else None
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "traefik.token"
    file.touch(mode=0o600)
    file.write_text(api.token)
    return file.resolve()


@asynccontextmanager
async def traefik(
    cluster: Cluster, api: Api, *, namespace: str, folder: Path
) -> AsyncIterator[Gateway]:
    """Runs the gateway for as long as the block lasts; the Gateway object is in `namespace`.
    Raises RuntimeError where it does not come up."""
    port, health_port = free_ports(2)
    await install(cluster, namespace, port)
    log = folder / "traefik.log"
    elsewhere = {
        name: value for name, value in os.environ.items() if name != "KUBECONFIG"
    }  # it would win over the flags
    flags = command(api, port, health_port, await asyncio.to_thread(_token_file, api, folder))
    process = await start(Program(flags, log, elsewhere))
    try:
        await _until_up(process, f"http://{HOST}:{health_port}/ping", log)
        yield Gateway(f"http://{HOST}:{port}", port)
    finally:
        await stop(process, grace_s=STOP_GRACE_S)


async def _until_up(process: Process, url: str, log: Path) -> None:
    give_up = time.monotonic() + READY_WITHIN_S
    async with aiohttp.ClientSession(trust_env=False) as client:
        while True:
            try:
                async with client.get(url) as answer:
                    if answer.ok:
                        return
            except aiohttp.ClientError:
                pass
            if process.returncode is not None or time.monotonic() > give_up:
                raise RuntimeError(f"Traefik did not come up; its log is {log}")
            await asyncio.sleep(POLL_S)
