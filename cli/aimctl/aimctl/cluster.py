"""Connections to the cluster of a kubeconfig. A RuntimeError has the reason why there is none."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from aimkube import Cluster, KubeError, NotConfigured
from aimschema.resources import Resource


def kubeconfig_of(path: Path | None) -> str | None:
    """As kubectl finds it: what is given, KUBECONFIG, ~/.kube/config; None: the pod's service
    account."""
    home = Path.home() / ".kube" / "config"
    return (
        str(path)
        if path
        else os.environ.get("KUBECONFIG") or (str(home) if home.is_file() else None)
    )


@asynccontextmanager
async def cluster_at(kubeconfig: Path | None) -> AsyncIterator[Cluster]:
    """Raises RuntimeError if no kubeconfig and no ServiceAccount names a cluster."""
    try:
        cluster = await Cluster.connect(kubeconfig_of(kubeconfig), user_agent="aimctl")
    except NotConfigured as error:
        raise RuntimeError(str(error)) from error
    try:
        yield cluster
    finally:
        await cluster.close()


def list_names(resource: Resource, namespace: str | None, within_s: float) -> list[str]:
    """The names of all objects of a kind, sorted; none where the cluster does not answer in time.
    Logs nothing: the shell reads the output."""
    logging.disable()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        return asyncio.run(_list_names(resource, namespace, within_s))
    except (TimeoutError, RuntimeError, KubeError, OSError):
        return []


async def _list_names(resource: Resource, namespace: str | None, within_s: float) -> list[str]:
    async with asyncio.timeout(within_s), cluster_at(None) as cluster:
        return sorted(
            {body["metadata"]["name"] for body in (await cluster.list(resource, namespace)).items}
        )
