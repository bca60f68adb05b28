"""What the router sees, and which services an object touches."""

from collections.abc import Iterable

from aimcontroller.indexes import SERVICES_BY_CONFIG, SERVICES_BY_WORKLOAD_ID
from aimcontroller.projection import Projection, Seen
from aimschema.labels import WORKLOAD_ID
from aimschema.resources import CONFIG, GATEWAY, ROUTE, SERVICE, Key

PLANS_FOR = (SERVICE, CONFIG)
FOLLOWS = (SERVICE, CONFIG, ROUTE, GATEWAY)
OWNS = (ROUTE,)
READS = {SERVICE.kind: frozenset({"path"})}
"""By kind, the conditions and status fields that it reads on the objects."""


def affected(state: Projection, key: Key) -> Iterable[Key]:
    """Services and configs to look at again when the object at `key` changes or goes."""
    match key.kind:
        case "AIMService":
            yield key
        case "HTTPRoute":
            yield Key(SERVICE.kind, key.namespace, key.name)
        case "AIMNamespaceConfig":
            yield key
            yield from (
                service.key for service in state.find(SERVICES_BY_CONFIG, key.name, key.namespace)
            )
        case "Gateway":
            yield from (
                config.key for config in state.everywhere(CONFIG.kind) if config.spec.get("routing")
            )
            yield from (
                service.key
                for service in state.everywhere(SERVICE.kind)
                if service.status.get("path") is not None
            )


def workload_id(service: Seen) -> str:
    """The label, else the uid."""
    return service.labels.get(WORKLOAD_ID) or service.uid


def first_with_workload_id(state: Projection, service: Seen) -> Seen:
    """Of the services of the namespace with the same workload id, the one that counts."""
    return next(
        other
        for other in _with_workload_id(state, service)
        if not other.deleting or other.key == service.key
    )


def _with_workload_id(state: Projection, service: Seen) -> list[Seen]:
    return state.find(SERVICES_BY_WORKLOAD_ID, workload_id(service), service.key.namespace)


def neighbours(before: Projection, after: Projection, key: Key) -> Iterable[Key]:
    """Services whose route depends on which one counts for a workload id, where that is another
    one than before."""
    if key.kind != SERVICE.kind:
        return
    obj_states = [
        (state, service) for state in (before, after) if (service := state.get(key)) is not None
    ]
    for state, service in obj_states:
        first = [_first(each, service) for each in (before, after)]
        if first[0] != first[1]:
            yield from (other.key for other in _with_workload_id(state, service))


def _first(state: Projection, service: Seen) -> Key | None:
    return next(
        (other.key for other in _with_workload_id(state, service) if not other.deleting), None
    )
