"""HTTP startup and readiness probes of a container (Kubernetes, "Configure Liveness, Readiness and
Startup Probes").

Until the first success a probe is made at least every quarter of a second, and startup is given up
after failureThreshold × periodSeconds: a laptop should not wait out periods that are meant for
servers. Probes of other kinds count as passed; liveness is ignored.
"""

import asyncio
import time
from collections.abc import Callable

import aiohttp

from aimlab.kinds import Body

EAGER_S = 0.25


class StartupFailedError(Exception):
    """The startup probe used up its tries: the container must be ended."""


async def watch_probes(
    container: Body,
    pod_ip: str,
    client: aiohttp.ClientSession,
    on_change: Callable[[bool, bool], None],
) -> None:
    """Calls `on_change` with (started, ready) at each change, for as long as the container runs.
    Raises StartupFailedError."""
    on_change(False, False)
    startup = container.get("startupProbe")
    if startup is not None:
        await _sleep_at_first(startup)
        await _pass_startup(startup, container, pod_ip, client)
    readiness = container.get("readinessProbe")
    if readiness is None:
        on_change(True, True)
        return
    on_change(True, False)
    await _sleep_at_first(readiness)
    await _follow_readiness(readiness, container, pod_ip, client, on_change)


async def _sleep_at_first(probe: Body) -> None:
    await asyncio.sleep(probe.get("initialDelaySeconds") or 0)


async def _pass_startup(
    probe: Body, container: Body, pod_ip: str, client: aiohttp.ClientSession
) -> None:
    allowed_s = probe.get("failureThreshold", 3) * probe.get("periodSeconds", 10)
    give_up = time.monotonic() + allowed_s
    while not await passes(probe, container, pod_ip, client):
        if time.monotonic() >= give_up:
            raise StartupFailedError(f"startup probe failed for {allowed_s} s")
        await asyncio.sleep(min(EAGER_S, allowed_s))


async def _follow_readiness(
    probe: Body,
    container: Body,
    pod_ip: str,
    client: aiohttp.ClientSession,
    on_change: Callable[[bool, bool], None],
) -> None:
    failures, ready = 0, False
    while True:
        if await passes(probe, container, pod_ip, client):
            failures, ready = 0, True
            on_change(True, True)
        else:
            failures += 1
            if ready and failures >= probe.get("failureThreshold", 3):
                ready = False
                on_change(True, False)
        period_s = float(probe.get("periodSeconds", 10))
        await asyncio.sleep(period_s if ready else min(EAGER_S, period_s))


async def passes(probe: Body, container: Body, pod_ip: str, client: aiohttp.ClientSession) -> bool:
    """One try: a status from 200 to 399 within timeoutSeconds."""
    get = probe.get("httpGet")
    if get is None:
        return True
    host, path = get.get("host") or pod_ip, get.get("path") or "/"
    url = f"http://{host}:{port_number(get['port'], container)}{path}"
    try:
        async with client.get(
            url,
            timeout=aiohttp.ClientTimeout(total=probe.get("timeoutSeconds", 1)),
            allow_redirects=False,
        ) as response:
            return 200 <= response.status < 400
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


def port_number(port: int | str, container: Body) -> int:
    """The number of a port given by number or by a name that the container declares; 0 for an
    unknown name."""
    if isinstance(port, int):
        return port
    named = {
        declared.get("name"): declared["containerPort"] for declared in container.get("ports") or []
    }
    return int(named.get(port, 0))
