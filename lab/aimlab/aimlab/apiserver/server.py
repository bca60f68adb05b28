"""The API server double as a thing to start and stop."""

import asyncio
import contextlib

from aiohttp import ClientSession, ClientTimeout, web

from aimlab.apiserver.access import Access
from aimlab.apiserver.cluster import Cluster
from aimlab.apiserver.controllers import Controllers
from aimlab.apiserver.http import KUBELETS, application

CONTROLLERS_LAG_S = 0.04
"""How long after a change the controllers act; about what a real cluster takes."""


class ApiServer:
    """A kube-apiserver double on plain HTTP. Its state is in memory and ends with it."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        bare: bool = False,
        old_etcd: bool = False,
    ) -> None:
        """`bare`: what a kube-apiserver is alone, as in envtest: no kube-controller-manager, and
        no loopback addresses in EndpointSlices. `old_etcd`: no initial events and no bookmarks."""
        self.host = host
        self.port = port
        self.cluster = Cluster(loopback_endpoints=not bare, old_etcd=old_etcd)
        self.access = Access(self.cluster)
        self._controllers = Controllers(self.cluster, self._wake, bare=bare)
        self._sweep: asyncio.TimerHandle | None = None
        self._runner: web.AppRunner | None = None
        self._kubelets: ClientSession | None = None

    async def start(self) -> str:
        """Listen; returns the URL. Port 0 takes a free one."""
        self._kubelets = ClientSession(
            timeout=ClientTimeout(total=None, sock_connect=5), trust_env=False
        )
        app = application(self.cluster, self.access)
        app[KUBELETS] = self._kubelets
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, backlog=1024)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self.url

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def stop(self) -> None:
        """End all watches and stop listening. Harmless when not started."""
        if self._sweep:
            self._sweep.cancel()
        for collection in self.cluster.store.collections.values():
            for closer in list(collection.closers):
                closer()
        if self._runner:
            await self._runner.cleanup()
        if self._kubelets:
            await self._kubelets.close()

    def _wake(self) -> None:
        if self._sweep is None:
            with contextlib.suppress(RuntimeError):
                self._sweep = asyncio.get_running_loop().call_later(
                    CONTROLLERS_LAG_S, self._run_controllers
                )

    def _run_controllers(self) -> None:
        self._sweep = None
        self._controllers.sweep()

    async def __aenter__(self) -> "ApiServer":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
