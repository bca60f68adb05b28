"""The kinds that the router watches, and the mapping from a changed object to keys."""

from collections.abc import Iterable

from aimcontroller.failures import FailureConditions
from aimcontroller.indexes import (
    SERVICES_BY_CONFIG,
    SERVICES_BY_TEMPLATE,
    SERVICES_BY_WORKLOAD_ID,
    value_at,
)
from aimcontroller.predicates import status_changed, without_status
from aimcontroller.projection import KubeObject, Projection
from aimschema.labels import WORKLOAD_ID
from aimschema.reasons import ROUTING_READY
from aimschema.resources import CONFIG, GATEWAY, ROUTE, SERVICE, TEMPLATE, Key

RECONCILES = (SERVICE, CONFIG)
WATCHES = (SERVICE, CONFIG, ROUTE, GATEWAY, TEMPLATE)
OWNS = (ROUTE,)
READS_STATUS_OF = {SERVICE.kind: frozenset({"path"})}
"""The conditions and status fields that the router reads, by kind."""
PREDICATES = {
    SERVICE.kind: status_changed("path", "url"),
    TEMPLATE.kind: status_changed(),
    GATEWAY.kind: lambda old, new: _routing_part(old) != _routing_part(new),
}
"""Each new route changes the status of its Gateway; counting routes concerns no service."""
FAILURES = {SERVICE.kind: FailureConditions(ROUTING_READY, {ROUTE.kind: ROUTING_READY})}


def map_to_keys(state: Projection, key: Key) -> Iterable[Key]:
    """Services and configs to reconcile when the object at `key` changes or is deleted."""
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
        case "AIMServiceTemplate":
            yield from (
                service.key
                for service in state.find(SERVICES_BY_TEMPLATE, key.name, key.namespace)
                if state.get(service.key._replace(kind=ROUTE.kind)) is None
            )
        case "Gateway":
            yield from (
                config.key
                for config in state.in_all_namespaces(CONFIG.kind)
                if config.spec.get("routing")
            )
            yield from (
                service.key
                for service in state.in_all_namespaces(SERVICE.kind)
                if service.status.get("path") is not None
            )


def _routing_part(gateway: KubeObject) -> object:
    """All of a Gateway but the number of routes of each listener."""
    status = gateway.body.get("status")
    listeners = status.get("listeners") if isinstance(status, dict) else None
    if not isinstance(status, dict) or not isinstance(listeners, list):
        return without_status(gateway), status
    uncounted = [
        {**each, "attachedRoutes": None} if isinstance(each, dict) else each for each in listeners
    ]
    return without_status(gateway), {**status, "listeners": uncounted}


def workload_id(service: KubeObject) -> str:
    """The label, else the uid."""
    return service.labels.get(WORKLOAD_ID) or service.uid


def first_with_workload_id(state: Projection, service: KubeObject) -> KubeObject:
    """The one service with this workload id in the namespace that gets the route."""
    return next(
        other
        for other in _with_workload_id(state, service)
        if _has_default_path(other) or other.key == service.key
    )


def _has_default_path(service: KubeObject) -> bool:
    """Whether the service may get a route at its workload id. Its config can rule that out too."""
    return (
        not service.deleting
        and value_at(service.spec, "routing", "pathTemplate") is None
        and value_at(service.spec, "routing", "enabled") is not False
    )


def _with_workload_id(state: Projection, service: KubeObject) -> list[KubeObject]:
    return state.find(SERVICES_BY_WORKLOAD_ID, workload_id(service), service.key.namespace)


def map_change_to_keys(before: Projection, after: Projection, key: Key) -> Iterable[Key]:
    """Services of a workload id, if another service than before gets the route."""
    if key.kind != SERVICE.kind:
        return
    obj_states = [
        (state, service) for state in (before, after) if (service := state.get(key)) is not None
    ]
    for state, service in obj_states:
        first = [_first(each, service) for each in (before, after)]
        if first[0] != first[1]:
            yield from (other.key for other in _with_workload_id(state, service))


def _first(state: Projection, service: KubeObject) -> Key | None:
    return next(
        (other.key for other in _with_workload_id(state, service) if _has_default_path(other)),
        None,
    )
