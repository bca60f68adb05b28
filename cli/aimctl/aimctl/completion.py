"""What the shell proposes at TAB: kinds, names and namespaces from the cluster, within a second
or not at all, and without a word of trouble. Only names need the client of the cluster."""

import typer

from aimctl.parsing import ROOTS, resource_of
from aimschema.resources import AIM_KINDS, NAMESPACE, Resource

WITHIN_S = 1.0


def complete_kind(incomplete: str) -> list[str]:
    names = [kind.short_names[0] for kind in AIM_KINDS]
    return [name for name in names if name.startswith(incomplete)]


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
    from aimctl.cluster import list_names

    return list_names(resource, namespace if resource.namespaced else None, WITHIN_S)
