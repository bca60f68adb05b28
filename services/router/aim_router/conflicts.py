"""Routes that would take each other's requests. Pure and total.

Two routes overlap if they attach to the same listener of a gateway, one host name reaches both, and
their paths are equal or one is above the other. The gateway would serve the longer path. So
the older route wins here, and the younger one is not applied. In one namespace a route
below another is a choice of its owners; only equal paths conflict.
"""

from collections.abc import Iterator

from aim_router.desired import DesiredRoute
from aim_router.listeners import hosts_overlap, objects
from aimcontroller.indexes import ROUTES_BELOW, ROUTES_BY_PATH, paths_above, route_path
from aimcontroller.projection import KubeObject, Projection
from aimschema.resources import GATEWAY, ROUTE, Key


def older_route(
    state: Projection, service: KubeObject, desired: DesiredRoute, path: str
) -> KubeObject | None:
    """The route that has the requests of this one already."""
    key = Key(ROUTE.kind, service.key.namespace, service.key.name)
    own = state.get(key)
    return next(
        (
            other
            for other in _candidates(state, path)
            if other.key != key
            and not other.deleting
            and (other.key.namespace != key.namespace or route_path(other.body) == path)
            and _is_older(other, own)
            and _same_listener(other, desired, str(key.namespace))
            and _same_host(host_names(other), desired.hostnames)
        ),
        None,
    )


def _candidates(state: Projection, path: str) -> Iterator[KubeObject]:
    """Equal, below, above."""
    yield from state.find_lazily(ROUTES_BY_PATH, path)
    yield from state.find_lazily(ROUTES_BELOW, path)
    for above in paths_above(path):
        yield from state.find_lazily(ROUTES_BY_PATH, above)


def host_names(route: KubeObject) -> list[str]:
    value = route.spec.get("hostnames")
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _is_older(other: KubeObject, own: KubeObject | None) -> bool:
    """A route that does not exist yet is the youngest."""
    if own is None:
        return True
    return (other.creation_timestamp, other.uid) < (own.creation_timestamp, own.uid)


def _same_listener(other: KubeObject, desired: DesiredRoute, namespace: str) -> bool:
    reference = desired.gateway
    if reference is None:
        return False
    own = (reference.group, reference.kind, reference.namespace or namespace, reference.name)
    for parent in objects(other.spec, "parentRefs"):
        theirs = (
            GATEWAY.group if parent.get("group") is None else parent["group"],
            parent.get("kind") or GATEWAY.kind,
            parent.get("namespace") or other.key.namespace,
            parent.get("name"),
        )
        if (
            theirs == own
            and _may_equal(parent.get("sectionName"), reference.section_name)
            and _may_equal(parent.get("port"), reference.port)
        ):
            return True
    return False


def _may_equal(one: object, other: object) -> bool:
    """None stands for every listener."""
    return one is None or other is None or one == other


def _same_host(theirs: list[str], own: tuple[str, ...]) -> bool:
    """None stands for every host."""
    if not theirs or not own:
        return True
    return any(hosts_overlap(one, other) for one in theirs for other in own)
