"""What the benchmarks of services run on: an API server, NATS, stand-ins for KServe and gateway, a
template whose cache is warm, and the six services as processes."""

import asyncio
import os
import platform
import secrets
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import msgspec

import aimbus
from aim_discovery.render import inputs_of
from aimbus import Bus, NatsServer
from aimbus.jetstream import stream_info
from aimctl.local.ports import free_ports
from aimctl.local.processes import Children, until_answers
from aimctl.local.services import start_services
from aimctl.manifests import crds, rbac
from aimkube import Cluster
from aimlab.accounts import api_of, write_kubeconfig
from aimlab.crds import bundled_crds
from aimlab.lab import define, install, start_double
from aimlab.sources.registry import Registry
from aimschema import labels, names
from aimschema.discovery_result import IMAGE_KEY, RESULT_KEY, digest
from aimschema.kinds import TemplateSpec
from aimschema.resources import (
    CACHE,
    CLAIM,
    CONFIG,
    CONFIG_MAP,
    EVENT,
    GATEWAY,
    INFERENCE_SERVICE,
    MODEL,
    NAMESPACE,
    POD,
    ROUTE,
    SERVICE,
    SERVICE_ACCOUNT,
    TEMPLATE,
    Resource,
)
from support.processes import cpu_s
from support.profiles import Profiler
from support.raw import Body, RawApi

BENCH = Path(__file__).parents[1]
SOURCE = "hf://bench/model"
TEMPLATE_NAME = "warm"
GATEWAY_NAME = "gateway"
REPOSITORY, TAG = "bench/model", "1.0"
SIZE = "1Gi"
_REMOVED = (
    SERVICE,
    TEMPLATE,
    CACHE,
    CONFIG,
    INFERENCE_SERVICE,
    ROUTE,
    POD,
    CLAIM,
    CONFIG_MAP,
    GATEWAY,
    EVENT,
)
QUIET_S = 1.0
ALL_IN_ONE = "aim-control-plane"
CPU_METRIC = "process_cpu_seconds_total "
READY_WITHIN_S = 300.0
POLL_S = 0.1
_RESULT: Body = {
    "filename": "profile.yaml",
    "profile": {
        "model": REPOSITORY,
        "metadata": {
            "engine": "vllm",
            "gpu": "MI300X",
            "precision": "fp16",
            "gpu_count": 1,
            "metric": "latency",
        },
        "engine_args": {"tensor-parallel-size": 1},
        "env_vars": {"VLLM_USE_V1": "1"},
    },
    "models": [{"name": REPOSITORY, "source": SOURCE, "size_gb": 0.5}],
}


@dataclass(frozen=True, slots=True)
class Space:
    """A namespace of its own for each world, since an API server that was given stays."""

    api: RawApi
    name: str

    @property
    def model(self) -> str:
        """`spec.name` of its model."""
        return f"{self.name}/model"

    def path(
        self, resource: Resource, name: str | None = None, subresource: str | None = None
    ) -> str:
        return resource.path(self.name, name, subresource)

    async def create(
        self, resource: Resource, name: str, content: Body, metadata: Body | None = None
    ) -> Body:
        """Gives the object as stored."""
        namespace = {"namespace": self.name} if resource.namespaced else {}
        body = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": name} | namespace | (metadata or {}),
            **content,
        }
        return await self.api.post(self.path(resource), body)

    async def get(self, resource: Resource, name: str) -> Body:
        return await self.api.get(self.path(resource, name))

    async def create_service(self, name: str, template: str = TEMPLATE_NAME) -> Body:
        return await self.create(
            SERVICE, name, {"spec": {"model": self.model, "templateRef": template}}
        )

    async def clear(self) -> None:
        """A namespace that is deleted without a controller for that would stay as it is."""
        for resource in _REMOVED:
            await self.api.delete(f"{self.path(resource)}?gracePeriodSeconds=0")
        await self.api.delete(MODEL.path(None, self.name))


@dataclass
class World:
    """Everything but the control plane runs."""

    folder: Path
    kubeconfig: Path
    accounts: Mapping[str, Path]
    space: Space
    children: Children
    nats: NatsServer
    bus: Bus
    profiler: Profiler | None = None
    planes: int = 0
    """Control planes that were started so far."""

    @asynccontextmanager
    async def control_plane(
        self, *, all_in_one: bool = False, **settings: str
    ) -> AsyncIterator[dict[str, int]]:
        """The services are ready; gives their process ids."""
        self.planes += 1
        async with Children(self.logs, env=settings) as group:
            if all_in_one:
                await self._start_all_in_one(group)
            else:
                await start_services(
                    group, nats_url=self.nats.url, accounts=self.accounts, within_s=READY_WITHIN_S
                )
            yield {name: process.pid for name, process in group.running.items()}

    async def _start_all_in_one(self, group: Children) -> None:
        port = free_ports(1)[0]
        env = {
            "AIM_NATS_URL": self.nats.url,
            "AIM_HTTP_PORT": str(port),
            "KUBECONFIG": str(self.folder / "aim-{component}.kubeconfig"),
        }
        argv = [sys.executable, "-m", "aim_control_plane"]
        process = await group.start(ALL_IN_ONE, argv, env=env)
        url = f"http://127.0.0.1:{port}/readyz"
        what = f"{ALL_IN_ONE}; its log is {group.log_of(ALL_IN_ONE)}"
        await until_answers(process, url, what, READY_WITHIN_S)

    @asynccontextmanager
    async def watch_and_patch(self) -> AsyncIterator[None]:
        """The bare client that reacts, in place of the control plane."""
        await start_module(self.children, "watch_and_patch", str(self.kubeconfig), self.space.name)
        yield
        await self.children.stop("watch_and_patch")

    @property
    def logs(self) -> Path:
        """Of the services that were started last."""
        return self.folder / f"services-{self.planes}"

    async def servers_cpu_s(self) -> dict[str, float]:
        """CPU time of API server and NATS. A real API server reports its own."""
        found = {"NATS": cpu_s(self.nats.pid or 0)}
        double = self.children.running.get("apiserver")
        if double is not None:
            return found | {"API server double": cpu_s(double.pid)}
        metrics = (await self.space.api.text("/metrics")).splitlines()
        reported = [line.split()[1] for line in metrics if line.startswith(CPU_METRIC)]
        return found | {"API server": float(reported[0])} if reported else found

    async def until_quiet(self, for_s: float = QUIET_S) -> None:
        """Returns when nothing was published for so long."""
        loop = asyncio.get_running_loop()
        last, since_s = -1, loop.time()
        while loop.time() - since_s < for_s:
            seq = await self.last_seq()
            if seq != last:
                last, since_s = seq, loop.time()
            await asyncio.sleep(POLL_S)

    async def last_seq(self) -> int:
        info = await stream_info(await self.bus.session(), "AIM_LOG")
        return 0 if info is None else int(info["state"]["last_seq"])

    def profiled(self, pids: Mapping[str, int]) -> AbstractContextManager[None]:
        return nullcontext() if self.profiler is None else self.profiler.record(pids)


@asynccontextmanager
async def world(
    folder: Path, external: Path | None, profiler: Profiler | None = None
) -> AsyncIterator[World]:
    """`external`: the kubeconfig of an API server; None: a double is started."""
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(Registry())
        registry.put_image(REPOSITORY, TAG, {"com.amd.aim.model.source": SOURCE})
        children = await stack.enter_async_context(
            Children(folder / "log", env={"PYTHONPATH": str(BENCH)})
        )
        kubeconfig = external or folder / "kubeconfig"
        if external is None:
            write_kubeconfig(kubeconfig, await start_double(children))
        api = await stack.enter_async_context(RawApi.open(kubeconfig))
        space = Space(api, f"bench-{secrets.token_hex(3)}")
        accounts = await _install(kubeconfig, folder)
        nats = NatsServer(folder / "nats")
        await nats.start()
        stack.push_async_callback(nats.stop)
        bus = await aimbus.connect(nats.url, name="bench")
        stack.push_async_callback(bus.close)
        await _fill(space, f"{registry.host}/{REPOSITORY}:{TAG}")
        await start_module(children, "standins", str(kubeconfig))
        yield World(folder, kubeconfig, accounts, space, children, nats, bus, profiler)
        if external is not None:
            await space.clear()


async def start_module(children: Children, name: str, *arguments: str) -> None:
    """Start a module of this package as a process that prints when it is ready."""
    argv = [sys.executable, "-m", f"support.{name}", *arguments]
    process = await children.start(name, argv)
    output = children.log_of(name)
    while b"ready" not in await asyncio.to_thread(output.read_bytes):
        if process.returncode is not None:
            raise RuntimeError(f"{name} ended; its log is {output}")
        await asyncio.sleep(POLL_S)


async def _install(kubeconfig: Path, folder: Path) -> dict[str, Path]:
    cluster = await Cluster.connect(str(kubeconfig), user_agent="bench")
    try:
        await define(cluster, list(bundled_crds()))
        return await install(cluster, api_of(kubeconfig), [*crds(), *rbac()], folder)
    finally:
        await cluster.close()


async def _fill(space: Space, image: str) -> None:
    """A template whose image was asked and whose source is cached, as a cluster has them that is in
    use."""
    await space.create(NAMESPACE, space.name, {})
    await space.create(SERVICE_ACCOUNT, "default", {})
    reference = {"name": GATEWAY_NAME, "namespace": space.name}
    await space.create(CONFIG, "default", {"spec": {"routing": {"gateway": reference}}})
    await space.create(MODEL, space.name, {"spec": {"name": space.model, "image": image}})
    await _fill_gateway(space)
    await _fill_cache(space)
    spec = {
        "model": space.model,
        "metric": "latency",
        "gpuModel": "MI300X",
        "gpusPerReplica": 1,
        "tensorParallelism": 1,
        "warmCache": True,
    }
    template = await space.create(TEMPLATE, TEMPLATE_NAME, {"spec": spec})
    data = {RESULT_KEY: msgspec.json.encode(_RESULT).decode(), IMAGE_KEY: image}
    inputs = inputs_of(image, TemplateSpec.model_validate(template["spec"]))
    annotations = {labels.ANNOTATION_DIGEST: digest(data), labels.ANNOTATION_INPUTS: inputs}
    owned = {"annotations": annotations, "ownerReferences": [owner(template)]}
    await space.create(
        CONFIG_MAP,
        names.discovery_config_map(TEMPLATE_NAME),
        {"data": data},
        owned | {"labels": {labels.MANAGED_BY: labels.MANAGED_BY_AIM}},
    )


async def _fill_gateway(space: Space) -> None:
    listener = {
        "name": "web",
        "port": 80,
        "protocol": "HTTP",
        "allowedRoutes": {"namespaces": {"from": "All"}},
    }
    spec = {"gatewayClassName": "bench", "listeners": [listener]}
    await space.create(GATEWAY, GATEWAY_NAME, {"spec": spec})
    status = {"addresses": [{"type": "IPAddress", "value": "192.0.2.1"}]}
    await space.api.merge(space.path(GATEWAY, GATEWAY_NAME, "status"), {"status": status})


async def _fill_cache(space: Space) -> None:
    name = names.cache_for(SOURCE)
    cache = await space.create(CACHE, name, {"spec": {"sourceUri": SOURCE, "size": SIZE}})
    claim = names.cache_claim(name)
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": SIZE}}}
    metadata = {
        "annotations": {labels.ANNOTATION_FILLED: "1"},
        "ownerReferences": [owner(cache)],
        "labels": {labels.MANAGED_BY: labels.MANAGED_BY_AIM},
    }
    await space.create(CLAIM, claim, {"spec": spec | {"volumeName": "bench"}}, metadata)
    status = {"phase": "Bound", "capacity": {"storage": SIZE}, "accessModes": ["ReadWriteMany"]}
    await space.api.merge(space.path(CLAIM, claim, "status"), {"status": status})


def owner(body: Body) -> Body:
    return {
        "apiVersion": body["apiVersion"],
        "kind": body["kind"],
        "name": body["metadata"]["name"],
        "uid": body["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


async def versions(api: RawApi) -> str:
    """Of what is measured on."""
    server = (await api.get("/version"))["gitVersion"]
    nats = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("nats-server")), "--version", stdout=PIPE
    )
    output, _ = await nats.communicate()
    return (
        f"Python {platform.python_version()}, {output.decode().strip()}, API server {server},"
        f" {platform.system()} {platform.machine()}"
    )


def machine() -> str:
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end"
