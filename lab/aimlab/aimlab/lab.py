"""The laptop cluster as one thing: API server, node, KServe stand-in, S3 server, hub, registry and
gateway, with all they need to know of each other.

Every server is on a loopback port that was free and ends with the block. All but hub and registry,
which are filled from here, are processes of their own and log into their own files. Nothing of the
control plane runs here: it finds this cluster by its kubeconfig like any other.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aimctl.local.ports import free_ports
from aimctl.local.processes import POLL_S, READY_WITHIN_S, Children, until_answers
from aimkube import AlreadyExists, Cluster, KubeError, NotFound
from aimlab.accounts import account_kubeconfigs, api_of, write_kubeconfig
from aimlab.capabilities import DOUBLE, Capabilities, probe
from aimlab.crds import bundled_crds
from aimlab.gateway.traefik import Api, Gateway, traefik
from aimlab.kinds import RBAC_KINDS, Body, is_true
from aimlab.node import node_object, pv_binder
from aimlab.node.images import ImageCommand, write_images
from aimlab.node.run import JOBS, OWNERS, SCHEDULER, WORKLOADS
from aimlab.real.network import POD_NETWORK, has_pod_network
from aimlab.sources.hub import Hub, hub
from aimlab.sources.registry import Registry
from aimlab.sources.seaweed import Keys, S3Server, seaweed
from aimschema.names import SYSTEM_NAMESPACE
from aimschema.resources import CRD, NODE, SERVICE_ACCOUNT, STORAGE_CLASS, Resource

S3_KEYS = Keys("aimlab", "aimlab-secret")
HUB_TOKEN = "hf_aimlab"  # noqa: S105 (of the lab's own hub)
INSTALLED = {resource.kind: resource for resource in (CRD, SERVICE_ACCOUNT, *RBAC_KINDS)}
Made = tuple[Resource, str | None, str]
"""What has been made: kind, namespace, name."""
DELETED_WITHIN_S = 20.0


@dataclass(frozen=True, slots=True)
class Lab:
    """A running laptop cluster. `kubeconfig` is the administrator's, `accounts` those of the
    ServiceAccounts, by name."""

    state_dir: Path
    kubeconfig: Path
    accounts: Mapping[str, Path]
    cluster: Cluster
    children: Children
    s3: S3Server
    hub: Hub
    registry: Registry
    gateway: Gateway | None
    """None on a real API server, which takes no endpoints on loopback, unless pods have other
    addresses."""

    def set_images(self, images: Mapping[str, ImageCommand]) -> None:
        """Which local command each container image stands for, from now on."""
        write_images(self.state_dir / "images.json", dict(images))


@asynccontextmanager
async def laptop(
    state_dir: Path, manifests: Iterable[Body], kubeconfig: Path | None = None
) -> AsyncIterator[Lab]:
    """Runs a laptop cluster with `manifests` (CRDs, ServiceAccounts and their roles) until the
    block ends.

    With `kubeconfig` it uses an existing API server, else a double. An existing server is restored,
    except for an empty namespace. Raises RuntimeError with the part that does not start
    and its log, and if the server has nodes.
    """
    await asyncio.to_thread(_lay_out, state_dir)
    async with AsyncExitStack() as stack:
        models = await stack.enter_async_context(hub())
        models.tokens.add(HUB_TOKEN)
        children = await stack.enter_async_context(Children(state_dir / "log"))
        place = await _find_place(children, state_dir, kubeconfig)
        cluster = await Cluster.connect(str(place), user_agent="aimlab")
        stack.push_async_callback(cluster.close)
        async with asyncio.TaskGroup() as starting:
            s3 = starting.create_task(stack.enter_async_context(seaweed(state_dir / "s3", S3_KEYS)))
            plan = LabConfig(state_dir, place, tuple(manifests), theirs=kubeconfig is not None)
            started = starting.create_task(_start_cluster(stack, children, cluster, plan))
        accounts, gateway = started.result()
        registry = await stack.enter_async_context(Registry())
        yield Lab(
            state_dir, place, accounts, cluster, children, s3.result(), models, registry, gateway
        )


def _lay_out(state_dir: Path) -> None:
    state_dir.mkdir(parents=True, exist_ok=True)
    write_images(state_dir / "images.json", {})


async def _find_place(children: Children, state_dir: Path, kubeconfig: Path | None) -> Path:
    """The kubeconfig to use: the one that was given, or a new one for a double that is started."""
    if kubeconfig is not None:
        return kubeconfig
    own = state_dir / "kubeconfig"
    write_kubeconfig(own, await start_double(children))
    return own


@dataclass(frozen=True, slots=True)
class LabConfig:
    """What to start. `theirs`: the API server was there before, and is to be left as it was."""

    state_dir: Path
    kubeconfig: Path
    manifests: tuple[Body, ...]
    theirs: bool


async def _start_cluster(
    stack: AsyncExitStack, children: Children, cluster: Cluster, plan: LabConfig
) -> tuple[dict[str, Path], Gateway | None]:
    """Namespace, kinds and accounts, then the node and the KServe stand-in, then the gateway
    where there can be one."""
    with contextlib.suppress(AlreadyExists):
        await cluster.create(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}
        )
    able = await probe(cluster, SYSTEM_NAMESPACE) if plan.theirs else DOUBLE
    made = await define(cluster, (*bundled_crds(), *plan.manifests))
    if plan.theirs:
        made += [
            (NODE, None, node_object.NAME),
            *((STORAGE_CLASS, None, one["metadata"]["name"]) for one in pv_binder.STORAGE_CLASSES),
        ]
        stack.push_async_callback(remove, cluster, made)
    pod_network = not able.loopback_endpoints and has_pod_network()
    where = ["--kubeconfig", str(plan.kubeconfig)]
    node = [*where, *_node_options(plan.state_dir, able, pod_network=pod_network)]
    await children.start("node", [sys.executable, "-m", "aimlab.node", *node])
    if plan.theirs:
        stack.push_async_callback(children.stop, "node")  # it would make its Node again
    if not able.serves:
        options = [] if plan.theirs else ["--webhook"]
        await children.start("kserve", [sys.executable, "-m", "aimlab.kserve", *where, *options])
    api = api_of(plan.kubeconfig)
    accounts = await account_kubeconfigs(cluster, api, plan.manifests, plan.state_dir)
    if not able.loopback_endpoints and not pod_network:
        return accounts, None
    return accounts, await stack.enter_async_context(
        traefik(cluster, api, namespace=SYSTEM_NAMESPACE, folder=plan.state_dir / "log")
    )


def _node_options(state_dir: Path, able: Capabilities, *, pod_network: bool) -> list[str]:
    """The node runs the controllers that the cluster does not have."""
    available = {
        JOBS: able.runs_jobs,
        WORKLOADS: able.runs_jobs,
        OWNERS: able.collects,
        SCHEDULER: able.schedules,
    }
    options = ["--state", str(state_dir / "node"), "--images", str(state_dir / "images.json")]
    options += ["--controllers", *(name for name, exists in available.items() if not exists)]
    return [*options, "--pod-network", str(POD_NETWORK)] if pod_network else options


async def define(cluster: Cluster, manifests: Collection[Body]) -> list[Made]:
    """Makes what is not there of the manifests, and waits until all their kinds are served;
    gives what it made."""
    made: list[Made] = []
    for body in manifests:
        resource, metadata = INSTALLED[body["kind"]], body["metadata"]
        with contextlib.suppress(AlreadyExists):
            await cluster.create(body, resource=resource)
            made.append((resource, metadata.get("namespace"), metadata["name"]))
    for body in manifests:
        if body["kind"] == CRD.kind:
            await _until_established(cluster, body["metadata"]["name"])
    return made


async def remove(cluster: Cluster, made: list[Made]) -> None:
    """Deletes these and waits until they are deleted: a definition goes after its objects. x"""
    with contextlib.suppress(KubeError, TimeoutError):
        async with asyncio.timeout(DELETED_WITHIN_S):
            for resource, namespace, name in made:
                with contextlib.suppress(NotFound):
                    await cluster.delete(resource, namespace, name)
            for resource, namespace, name in made:
                with contextlib.suppress(NotFound):
                    while await cluster.get(resource, namespace, name):  # noqa: ASYNC110 (the server makes it go)
                        await asyncio.sleep(POLL_S)


async def _until_established(cluster: Cluster, name: str) -> None:
    """A real API server takes a moment until it serves a new kind. Raises RuntimeError."""
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            while not is_true(await cluster.get(CRD, None, name), "Established"):  # noqa: ASYNC110 (the server makes it true)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise RuntimeError(
            f"the API server does not serve {name} within {READY_WITHIN_S:g} s"
        ) from None


async def start_double(children: Children, *, bare: bool = False) -> str:
    """Starts the API server double as a separate process; returns its URL. Raises RuntimeError if
    it does not start."""
    port = free_ports(1)[0]
    url = f"http://127.0.0.1:{port}"
    how = ["--bare"] if bare else []
    process = await children.start(
        "apiserver", [sys.executable, "-m", "aimlab.apiserver", "--port", str(port), *how]
    )
    await until_answers(
        process, f"{url}/readyz", f"the API server; its log is {children.log_of('apiserver')}"
    )
    return url


async def install(
    cluster: Cluster, api: Api, manifests: Collection[Body], folder: Path
) -> dict[str, Path]:
    """Make the control plane's namespace and the manifests in it; gives a kubeconfig for each
    ServiceAccount among them, by its name."""
    with contextlib.suppress(AlreadyExists):
        await cluster.create(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}
        )
    await define(cluster, manifests)
    return await account_kubeconfigs(cluster, api, manifests, folder)
