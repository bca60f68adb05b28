"""Everything that a soak runs on: a cluster, a proxy before its API, NATS, and each service
twice."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aim_cacher.settings import CacherSettings
from aim_testing.chaos.chance import chance
from aim_testing.chaos.proxy import Proxy
from aim_testing.soak import inputs
from aim_testing.soak.operations import HOLD, Operation
from aim_testing.soak.state import Body, is_deleting
from aim_testing.soak.watching import Watcher
from aimbus import NatsServer
from aimctl.component_registry import SERVICES
from aimctl.local.ports import free_ports
from aimctl.local.processes import Children, until_answers
from aimctl.manifests import crds, rbac
from aimkube import Cluster, KubeError, NotFound
from aimlab.accounts import account_kubeconfigs, api_of
from aimlab.gateway.traefik import Api
from aimlab.lab import Lab, laptop
from aimlab.node.images import ImageCommand
from aimschema.resources import NAMESPACE, OTHER_KINDS

INSTANCES = (0, 1)
SETTINGS = {"AIM_DISCOVERY_RETRY_S": "10"}
READY_WITHIN_S = 120.0
DELETED_WITHIN_S = 60.0
POLL_S = 0.1


@dataclass
class SoakCluster:
    """`watcher` has the objects as they are; `cluster` is an administrator's connection."""

    cluster: Cluster
    proxy: Proxy
    nats: NatsServer
    services: Children
    accounts: dict[str, Path]
    watcher: Watcher
    ports: dict[str, int] = field(default_factory=dict)
    kills: int = 0

    async def start(self, name: str) -> None:
        """An instance, such as `cacher-0`, without waiting for it."""
        service = name.rpartition("-")[0]
        url, port = self.nats.url, str(self.ports[name])
        env = {
            "AIM_NATS_URL": url,
            "AIM_HTTP_PORT": port,
            "KUBECONFIG": str(self.accounts[f"aim-{service}"]),
        }
        await self.services.start(
            name, [str(Path(sys.executable).with_name(f"aim-{service}"))], env=env
        )

    async def kill(self, name: str) -> None:
        """SIGKILL; its lease stays until it runs out."""
        self.kills += 1
        await self.services.kill(name)

    async def ready(self) -> None:
        async with asyncio.TaskGroup() as waiting:
            for name, port in self.ports.items():
                what = f"aim-{name}; its log is {self.services.log_of(name)}"
                url = f"http://127.0.0.1:{port}/readyz"
                waiting.create_task(
                    until_answers(self.services.running[name], url, what, READY_WITHIN_S)
                )

    async def apply(self, operation: Operation) -> str:
        """Empty, or why the API server did not take it. Raises TimeoutError where what is in the
        way does not go."""
        key, cluster = operation.key, self.cluster
        try:
            match operation.verb:
                case "create":
                    await self._create(operation)
                case "patch":
                    await cluster.merge_patch(
                        operation.resource, key.namespace, key.name, operation.body
                    )
                case "delete":
                    await cluster.delete(operation.resource, key.namespace, key.name)
        except KubeError as error:
            return f"{type(error).__name__}: {error.message[:120]}"
        return ""

    async def _create(self, operation: Operation) -> None:
        """After a namespace or object of the name that is on its way out."""
        existing = await self._get(operation)
        if existing is not None and operation.resource == NAMESPACE:
            await self._let_go(operation.key.name)
        if (
            existing is not None
            and is_deleting(existing)
            and HOLD not in (existing["metadata"].get("finalizers") or ())
        ):
            async with asyncio.timeout(DELETED_WITHIN_S):
                while uid_of(await self._get(operation)) == uid_of(existing):  # noqa: ASYNC110 (the server makes it go)
                    await asyncio.sleep(POLL_S)
        await self.cluster.create(operation.body, resource=operation.resource)

    async def _let_go(self, namespace: str) -> None:
        """A namespace goes once nothing in it is kept by a finalizer of the user's."""
        for resource in OTHER_KINDS:
            if not resource.namespaced:
                continue
            for body in (await self.cluster.list(resource, namespace)).items:
                finalizers = body["metadata"].get("finalizers") or []
                if HOLD in finalizers:
                    left = [each for each in finalizers if each != HOLD] or None
                    await self.cluster.merge_patch(
                        resource,
                        namespace,
                        body["metadata"]["name"],
                        {"metadata": {"finalizers": left}},
                    )

    async def _get(self, operation: Operation) -> Body | None:
        key = operation.key
        try:
            return await self.cluster.get(operation.resource, key.namespace, key.name)
        except NotFound:
            return None


def uid_of(body: Body | None) -> str:
    return "" if body is None else str(body["metadata"]["uid"])


def commands() -> dict[str, ImageCommand]:
    """The local command of each image; those that are `missing` have none."""
    stand_in = (sys.executable, "-I", "-S", str(Path(__file__).with_name("image.py")))
    images = {
        inputs.image(model, behaviour): ImageCommand(
            (*stand_in, behaviour, inputs.source(model, behaviour))
        )
        for model in inputs.MODELS
        for behaviour in (*inputs.GOOD, *inputs.BAD)
        if behaviour != "missing"
    }
    downloader = str(CacherSettings.model_fields["downloader_image"].default)
    return images | {downloader: ImageCommand((*stand_in, "download", ""))}


@asynccontextmanager
async def on_laptop(
    folder: Path, seed: int, kubeconfig: Path | None = None
) -> AsyncIterator[SoakCluster]:
    """Runs it all for as long as the block lasts, on an API server that is there if `kubeconfig`
    is given, else on the double."""
    manifests = [*crds(), *rbac()]
    async with laptop(folder, manifests, kubeconfig) as lab:
        lab.set_images(commands())
        async with _control_plane(folder, lab, seed) as made:
            yield made


@asynccontextmanager
async def _control_plane(folder: Path, lab: Lab, seed: int) -> AsyncIterator[SoakCluster]:
    async with AsyncExitStack() as stack:
        api = api_of(lab.kubeconfig)
        proxy = await stack.enter_async_context(Proxy(api.url, chance(seed), api.ca_file))
        accounts_folder = folder / "accounts"
        accounts_folder.mkdir()
        accounts = await account_kubeconfigs(lab.cluster, Api(proxy.url), rbac(), accounts_folder)
        nats = NatsServer(folder / "nats")
        await nats.start()
        stack.push_async_callback(nats.stop)
        services = await stack.enter_async_context(Children(folder / "log", env=SETTINGS))
        watcher = await stack.enter_async_context(Watcher(lab.cluster, nats.url))
        names = [f"{service}-{number}" for number in INSTANCES for service in SERVICES]
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        made = SoakCluster(lab.cluster, proxy, nats, services, accounts, watcher, ports)
        for name in names:
            await made.start(name)
        await made.ready()
        yield made
        with contextlib.suppress(KubeError):
            for namespace in inputs.NAMESPACES:
                await lab.cluster.delete(NAMESPACE, None, namespace)
