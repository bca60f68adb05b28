"""Wires the node together: its object, its controllers, its kubelet and its log server."""

import asyncio
import logging
from collections.abc import Collection, Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path

import aiohttp
from aiohttp import web

from aimkube import AlreadyExists, Cluster, KubeError
from aimlab.accounts import api_of
from aimlab.certificates import Certificate, make_certificate
from aimlab.controller_loop import control
from aimlab.informer import Informer
from aimlab.kinds import SERVICE, STATEFUL_SET, VOLUME
from aimlab.node import (
    garbage_collector,
    jobs,
    node_object,
    pv_binder,
    scheduler,
    service_proxy,
    workloads,
)
from aimlab.node.kubelet import Kubelet
from aimlab.node.logs import make_app
from aimlab.node.worker import Node
from aimschema.resources import CLAIM, DEPLOYMENT, JOB, NODE, POD, STORAGE_CLASS

_LOG = logging.getLogger(__name__)
RETRY_S = 1.0
JOBS, OWNERS, WORKLOADS, SCHEDULER = CONTROLLERS = ("jobs", "owners", "workloads", "scheduler")
ALONE = (JOBS, WORKLOADS, SCHEDULER)
"""What is needed beside the API server double."""
HEARTBEAT_S = 10.0
"""As a kubelet's: where there is a node controller, it takes one that is silent for 50 s for
dead."""


@dataclass(frozen=True, slots=True)
class Options:
    """`controllers`: those of CONTROLLERS that the cluster does not have. Pods have their
    addresses in `pod_network`."""

    state_dir: Path
    images: Path
    controllers: Collection[str]
    pod_network: IPv4Network


async def run(kubeconfig: str, options: Options) -> None:
    """Runs the node until cancelled; then every process of its pods has ended."""
    cluster = await Cluster.connect(kubeconfig, user_agent="aimlab-node")
    try:
        async with aiohttp.ClientSession(trust_env=False) as client:
            mirror = Informer(
                cluster,
                (NODE, POD, JOB, CLAIM, VOLUME, STORAGE_CLASS, SERVICE, DEPLOYMENT, STATEFUL_SET),
            )
            node = Node(
                cluster,
                mirror.objects,
                options.state_dir,
                options.images,
                client,
                api_of(Path(kubeconfig)),
                options.pod_network,
            )
            kubelet = Kubelet(node, mirror)
            server = web.AppRunner(make_app(kubelet), handle_signals=False, shutdown_timeout=1.0)
            await server.setup()
            try:
                port = await _listen(server, make_certificate(options.state_dir, "kubelet"))
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(_register(cluster, port))
                    tasks.create_task(mirror.run())
                    for controller in _controllers(cluster, mirror, options):
                        tasks.create_task(controller)
                    tasks.create_task(kubelet.run())
            finally:
                await server.cleanup()
    finally:
        await cluster.close()


def _controllers(
    cluster: Cluster, mirror: Informer, options: Options
) -> Iterator[Coroutine[None, None, None]]:
    """Those that the cluster does not have, and those of the node itself."""
    if SCHEDULER in options.controllers:
        yield control(cluster, mirror, scheduler.plan)
    volumes_dir = options.state_dir / "volumes"
    yield control(cluster, mirror, partial(pv_binder.plan, volumes_dir=volumes_dir))
    if JOBS in options.controllers:
        yield control(cluster, mirror, jobs.plan)
    if WORKLOADS in options.controllers:
        yield control(cluster, mirror, workloads.plan)
    yield service_proxy.serve(mirror)
    if OWNERS in options.controllers:
        owned = Informer(cluster, garbage_collector.KINDS)
        yield owned.run()
        yield garbage_collector.collect(cluster, owned)


async def _listen(server: web.AppRunner, certificate: Certificate) -> int:
    """Serves on a free port, which is given back."""
    site = web.TCPSite(server, node_object.ADDRESS, 0, ssl_context=certificate.context())
    await site.start()
    address: tuple[str, int] = server.addresses[0]
    return address[1]


async def _register(cluster: Cluster, kubelet_port: int) -> None:
    """Makes the Node and the StorageClasses, and keeps the Node's status fresh."""
    while True:
        try:
            for resource, body in [
                (NODE, node_object.node_object()),
                *((STORAGE_CLASS, one) for one in pv_binder.STORAGE_CLASSES),
            ]:
                try:
                    await cluster.create(body, resource=resource)
                except AlreadyExists:
                    continue
            status = {"status": node_object.node_status(kubelet_port, datetime.now(UTC))}
            await cluster.merge_patch(NODE, None, node_object.NAME, status, subresource="status")
        except KubeError as error:
            _LOG.info("the API server does not take the node yet: %s", error)
            await asyncio.sleep(RETRY_S)
        else:
            await asyncio.sleep(HEARTBEAT_S)
