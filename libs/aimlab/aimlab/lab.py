"""The laptop cluster as one thing: API server, node, KServe stand-in, S3 server, hub and gateway, with everything they need to know of each other.

Every server is on a loopback port that was free and ends with the block. All but the hub, which is filled from here, are processes of their own and
log into their own files. Nothing of the control plane runs here: it finds this cluster by its kubeconfig like any other.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import yaml

from aimkube import AlreadyExists, Cluster
from aimlab.apiserver.access import ADMIN_TOKEN
from aimlab.crds import bundled
from aimlab.gateway.traefik import Api, Gateway, traefik
from aimlab.kinds import RBAC_KINDS, SERVICE_ACCOUNT, Body
from aimlab.node.images import ImageCommand, write_images
from aimlab.ports import free_ports
from aimlab.processes import Children
from aimlab.sources.hub import Hub, hub
from aimlab.sources.seaweed import Keys, S3Server, seaweed

SYSTEM_NAMESPACE = "aim-system"
S3_KEYS = Keys("aimlab", "aimlab-secret")
HUB_TOKEN = "hf_aimlab"  # noqa: S105 (of the lab's own hub)
INSTALLED = {resource.kind: resource for resource in (SERVICE_ACCOUNT, *RBAC_KINDS)}
TOKEN_S = 30 * 86_400
READY_WITHIN_S = 30.0
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Lab:
    """A running laptop cluster. `kubeconfig` is the administrator's, `accounts` those of the ServiceAccounts, by name."""

    state_dir: Path
    kubeconfig: Path
    accounts: Mapping[str, Path]
    cluster: Cluster
    children: Children
    s3: S3Server
    hub: Hub
    gateway: Gateway

    def set_images(self, images: Mapping[str, ImageCommand]) -> None:
        """Which local command each container image stands for, from now on."""
        write_images(self.state_dir / "images.json", dict(images))


@asynccontextmanager
async def laptop(state_dir: Path, manifests: Iterable[Body]) -> AsyncIterator[Lab]:
    """Runs a laptop cluster that has `manifests` (CRDs, ServiceAccounts and their roles) for as long as the block lasts.

    Raises RuntimeError naming the part that does not come up, and its log.
    """
    await asyncio.to_thread(_lay_out, state_dir)
    async with AsyncExitStack() as stack:
        models = await stack.enter_async_context(hub())
        models.tokens.add(HUB_TOKEN)
        children = await stack.enter_async_context(Children(state_dir / "log"))
        async with asyncio.TaskGroup() as starting:
            s3 = starting.create_task(stack.enter_async_context(seaweed(state_dir / "s3", S3_KEYS)))
            gateway = starting.create_task(_start_cluster(stack, children, state_dir, manifests))
        cluster, accounts, served = gateway.result()
        yield Lab(state_dir, state_dir / "kubeconfig", accounts, cluster, children, s3.result(), models, served)


def _lay_out(state_dir: Path) -> None:
    state_dir.mkdir(parents=True, exist_ok=True)
    write_images(state_dir / "images.json", {})


async def _start_cluster(
    stack: AsyncExitStack, children: Children, state_dir: Path, manifests: Iterable[Body]
) -> tuple[Cluster, dict[str, Path], Gateway]:
    """API server, then the node and the KServe stand-in, then the gateway."""
    url = await _start_api_server(children)
    kubeconfig = state_dir / "kubeconfig"
    write_kubeconfig(kubeconfig, url)
    cluster = await Cluster.connect(str(kubeconfig), user_agent="aimlab")
    stack.push_async_callback(cluster.close)
    accounts = await install(cluster, url, [*bundled(), *manifests], state_dir)
    where = ["--kubeconfig", str(kubeconfig)]
    node = ["--state", str(state_dir / "node"), "--images", str(state_dir / "images.json")]
    await children.start("node", [sys.executable, "-m", "aimlab.node", *where, *node])
    await children.start("kserve", [sys.executable, "-m", "aimlab.kserve", *where])
    served = await stack.enter_async_context(traefik(cluster, Api(url), namespace=SYSTEM_NAMESPACE, folder=state_dir / "log"))
    return cluster, accounts, served


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


async def install(cluster: Cluster, url: str, manifests: Iterable[Body], folder: Path) -> dict[str, Path]:
    """Make the control plane's namespace and the manifests in it; gives a kubeconfig for each ServiceAccount among them, by its name."""
    await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}})
    bodies = list(manifests)
    for body in bodies:
        with contextlib.suppress(AlreadyExists):
            await cluster.create(body, resource=INSTALLED.get(body["kind"]))
    accounts = [body["metadata"] for body in bodies if body["kind"] == SERVICE_ACCOUNT.kind]
    return {account["name"]: await _account_kubeconfig(cluster, url, account, folder) for account in accounts}


async def _account_kubeconfig(cluster: Cluster, url: str, account: Body, folder: Path) -> Path:
    """With a token from the TokenRequest API, which is where a pod has its own from."""
    tokens = replace(SERVICE_ACCOUNT, plural=f"{SERVICE_ACCOUNT.plural}/{account['name']}/token")
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {"namespace": account["namespace"]}}
    answer = await cluster.create({**request, "spec": {"expirationSeconds": TOKEN_S}}, resource=tokens)
    path = folder / f"{account['name']}.kubeconfig"
    write_kubeconfig(path, url, token=answer["status"]["token"])
    return path


def write_kubeconfig(path: Path, url: str, *, token: str = ADMIN_TOKEN) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": url}}],
        "users": [{"name": "lab", "user": {"token": token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
    }
    path.write_text(yaml.safe_dump(config))
