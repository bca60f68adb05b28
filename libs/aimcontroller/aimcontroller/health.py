"""Health and metrics over HTTP: /livez (the loop turns), /readyz (caught up, or what is
missing), /metrics (Prometheus)."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from aimschema.sanitize import printable

STALLED_AFTER_S = 60.0


class Health:
    """The health of the process. `missing` is empty when it is ready; each entry names something it
    waits for.

    Ready means active, or able to take over: `role` distinguishes the two. A process with several
    components is ready when all of them are.
    """

    def __init__(self) -> None:
        self.not_ready: dict[str, str] = {"start": "starting"}
        self.role: Literal["", "leader", "standby"] = ""  # "": not one of several, or not known yet
        self._components: dict[str, Health] = {}
        self._heartbeat_s = time.monotonic()

    def component(self, name: str) -> "Health":
        """The health of one of the components of this process."""
        return self._components.setdefault(name, Health())

    def problems(self) -> dict[str, str]:
        """`not_ready`, with that of the components under their names."""
        return self.not_ready | {
            f"{name}: {what}": why
            for name, health in self._components.items()
            for what, why in health.not_ready.items()
        }

    def roles(self) -> list[str]:
        """`role`, or a line for each component."""
        roles = [f"{name}: {health.role}" for name, health in self._components.items()]
        return roles or [self.role] * bool(self.role)

    def heartbeat(self) -> None:
        """The main loop turned."""
        self._heartbeat_s = time.monotonic()

    def set_not_ready(self, what: str, why: str) -> None:
        self.not_ready[what] = why

    def set_ready(self, *what: str) -> None:
        """These are there now."""
        for name in what:
            self.not_ready.pop(name, None)

    def stalled_s(self) -> float:
        return time.monotonic() - self._heartbeat_s


def application(health: Health) -> web.Application:
    async def livez(_: web.Request) -> web.Response:
        stalled_s = health.stalled_s()
        return (
            web.Response(text="ok\n")
            if stalled_s < STALLED_AFTER_S
            else web.Response(
                status=503, text=f"the event loop has not run for {stalled_s:.0f} s\n"
            )
        )

    async def readyz(_: web.Request) -> web.Response:
        problems = [f"{what}: {why}" for what, why in sorted(health.problems().items())]
        lines = [printable(line) for line in problems] or ["ok", *health.roles()]
        text = "".join(f"{line}\n" for line in lines)
        return web.Response(status=503 if problems else 200, text=text)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)]
    )
    return app


@asynccontextmanager
async def serve_http(health: Health, port: int) -> AsyncIterator[None]:
    """Serve on every address for as long as the context lasts; port 0 serves nothing."""
    if port == 0:
        yield
        return
    runner = web.AppRunner(application(health), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, None, port).start()
        yield
    finally:
        await runner.cleanup()
