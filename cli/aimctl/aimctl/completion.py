"""What the shell proposes at TAB: kinds, names and namespaces from the cluster, within a second
or not at all, and without a word of trouble."""

import asyncio
import logging

import structlog
import typer

from aimctl.analysis.dependencies import ROOTS
from aimctl.connect import cluster_at
from aimctl.parsing import resource_of
from aimkube import KubeError
from aimschema.kinds import KINDS
from aimschema.resources import NAMESPACE, Resource

WITHIN_S = 1.0


def complete_kind(incomplete: str) -> list[str]:
    return [kind.short_names[0] for kind in KINDS if kind.short_names[0].startswith(incomplete)]


def complete_root(incomplete: str) -> list[str]:
    return [kind for kind in complete_kind(incomplete) if resource_of(kind) in ROOTS]


def complete_name(context: typer.Context, incomplete: str) -> list[str]:
    """`KIND/`, then `KIND/NAME` of the namespace of -n, where that was given before; else of
    all."""
    kind, slash, begun = incomplete.partition("/")
    if not slash:
        return [f"{name}/" for name in complete_kind(incomplete)]
    resource = resource_of(kind)
    names = [] if resource is None else _names(resource, context.params.get("namespace"))
    return [f"{kind}/{name}" for name in names if name.startswith(begun)]


def complete_namespace(incomplete: str) -> list[str]:
    return [name for name in _names(NAMESPACE, None) if name.startswith(incomplete)]


def _names(resource: Resource, namespace: str | None) -> list[str]:
    logging.disable()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        return asyncio.run(_list_names(resource, namespace if resource.namespaced else None))
    except (TimeoutError, RuntimeError, KubeError, OSError):
        return []


async def _list_names(resource: Resource, namespace: str | None) -> list[str]:
    async with asyncio.timeout(WITHIN_S), cluster_at(None) as cluster:
        return sorted(
            {body["metadata"]["name"] for body in (await cluster.list(resource, namespace)).items}
        )
