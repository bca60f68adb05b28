"""Parses the reports of gateway controllers in `status.parents` of an HTTPRoute (Gateway API,
RouteParentStatus). Pure and total.

1. An entry belongs to the parentRef that it repeats whole: group, kind, namespace, name,
   sectionName and port, each with its default. Entries of a former parentRef are ignored:
   their controller may no longer exist.
2. Each controller has an entry of its own. One with neither Accepted nor ResolvedRefs is of a
   policy controller, not of a gateway.
3. A condition of a former generation of the route is no answer to this one. One without a
   generation is.
"""

from typing import Any

from aim_router.listeners import objects
from aimcontroller.projection import KubeObject
from aimschema.kinds import GatewayReference
from aimschema.resources import GATEWAY

Body = dict[str, Any]
ACCEPTED = "Accepted"
RESOLVED_REFS = "ResolvedRefs"
_ANSWERS = (ACCEPTED, RESOLVED_REFS)


def answers(route: KubeObject, reference: GatewayReference) -> list[dict[str, Body]]:
    """The current conditions by type, of each gateway controller's entry for this parentRef. An
    entry has none, one or both."""
    expected = _identity(reference.model_dump(by_alias=True), route.key.namespace)
    entries = [
        {str(each.get("type")): each for each in objects(entry, "conditions")}
        for entry in objects(route.status, "parents")
        if _identity(entry.get("parentRef"), route.key.namespace) == expected
    ]
    return [
        {type_: entry[type_] for type_ in _ANSWERS if _is_current(entry.get(type_), route)}
        for entry in entries
        if any(type_ in entry for type_ in _ANSWERS)
    ]


def is_complete(answer: dict[str, Body]) -> bool:
    return all(type_ in answer for type_ in _ANSWERS)


def _identity(parent: object, namespace: str | None) -> tuple[object, ...]:
    """The fields that identify a parentRef; empty equals absent."""
    fields: Body = parent if isinstance(parent, dict) else {}
    return (
        GATEWAY.group if fields.get("group") is None else fields["group"],  # "" is the core group
        fields.get("kind") or GATEWAY.kind,
        fields.get("namespace") or namespace,
        fields.get("name"),
        fields.get("sectionName") or None,
        fields.get("port") or None,
    )


def _is_current(condition: Body | None, route: KubeObject) -> bool:
    if condition is None:
        return False
    observed = condition.get("observedGeneration")
    return not isinstance(observed, int) or observed >= route.generation
