"""The laptop cluster as one thing: API server, node, KServe stand-in, S3 server, registry and gateway, with all they need to know of each other.

Every server but the registry is a process of its own, logging into its own file; all are on loopback ports that were free, and end with the block.
Nothing of the control plane runs here: it finds this cluster by its kubeconfig like any other.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml

from aimkube import AlreadyExists, Cluster
from aimlab.crds import bundled
from aimlab.gateway.traefik import Api, Gateway, traefik
from aimlab.kinds import Body
from aimlab.node.images import ImageCommand, write_images
from aimlab.ports import free_ports
from aimlab.processes import Children
from aimlab.sources.registry import Registry
from aimlab.sources.seaweed import Keys, S3Server, seaweed

SYSTEM_NAMESPACE = "aim-system"
S3_KEYS = Keys("aimlab", "aimlab-secret")
READY_WITHIN_S = 30.0
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Lab:
    """A running laptop cluster."""

    state_dir: Path
    kubeconfig: Path
    cluster: Cluster
    children: Children
    s3: S3Server
    registry: Registry
    gateway: Gateway

    def set_images(self, images: Mapping[str, ImageCommand]) -> None:
        """Which local command each container image stands for, from now on."""
        write_images(self.state_dir / "images.json", dict(images))


@asynccontextmanager
async def laptop(state_dir: Path, crds: Iterable[Body]) -> AsyncIterator[Lab]:
    """Runs a laptop cluster that has `crds` for as long as the block lasts.

    Raises RuntimeError naming the part that does not come up, and its log.
    """
    await asyncio.to_thread(_lay_out, state_dir)
    async with AsyncExitStack() as stack:
        children = await stack.enter_async_context(Children(state_dir / "log"))
        async with asyncio.TaskGroup() as starting:
            s3 = starting.create_task(stack.enter_async_context(seaweed(state_dir / "s3", S3_KEYS)))
            gateway = starting.create_task(_start_cluster(stack, children, state_dir, crds))
        cluster, served = gateway.result()
        registry = await stack.enter_async_context(Registry())
        yield Lab(state_dir, state_dir / "kubeconfig", cluster, children, s3.result(), registry, served)


def _lay_out(state_dir: Path) -> None:
    state_dir.mkdir(parents=True, exist_ok=True)
    write_images(state_dir / "images.json", {})


async def _start_cluster(stack: AsyncExitStack, children: Children, state_dir: Path, crds: Iterable[Body]) -> tuple[Cluster, Gateway]:
    """API server, then the node and the KServe stand-in, then the gateway."""
    url = await _start_api_server(children)
    kubeconfig = state_dir / "kubeconfig"
    write_kubeconfig(kubeconfig, url)
    cluster = await Cluster.connect(str(kubeconfig), user_agent="aimlab")
    stack.push_async_callback(cluster.close)
    await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}})
    for crd in (*bundled(), *crds):
        with contextlib.suppress(AlreadyExists):
            await cluster.create(crd)
    where = ["--kubeconfig", str(kubeconfig)]
    node = ["--state", str(state_dir / "node"), "--images", str(state_dir / "images.json")]
    await children.start("node", [sys.executable, "-m", "aimlab.node", *where, *node])
    await children.start("kserve", [sys.executable, "-m", "aimlab.kserve", *where])
    served = await stack.enter_async_context(traefik(cluster, Api(url), namespace=SYSTEM_NAMESPACE, folder=state_dir / "log"))
    return cluster, served


async def _start_api_server(children: Children) -> str:
    port = free_ports(1)[0]
    url = f"http://127.0.0.1:{port}"
    process = await children.start("apiserver", [sys.executable, "-m", "aimlab.apiserver", "--port", str(port)])
    await until_answers(process, f"{url}/readyz", f"the API server; its log is {children.log_of('apiserver')}")
    return url


async def until_answers(process: asyncio.subprocess.Process, url: str, what: str, within_s: float | None = READY_WITHIN_S) -> None:
    """Waits until `url` answers 200 (`within_s` None: for ever). Raises RuntimeError where the process ends or the time is over."""
    give_up = float("inf") if within_s is None else time.monotonic() + within_s
    async with aiohttp.ClientSession(trust_env=False) as client:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with client.get(url) as answer:
                    if answer.ok:
                        return
            if process.returncode is not None or time.monotonic() > give_up:
                raise RuntimeError(f"did not come up: {what}")
            await asyncio.sleep(POLL_S)


def write_kubeconfig(path: Path, url: str) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": url}}],
        "users": [{"name": "lab", "user": {"token": "lab"}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
    }
    path.write_text(yaml.safe_dump(config))
