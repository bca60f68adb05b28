"""What the router sees, and which services an object touches."""

from collections.abc import Iterable

from aimschema.labels import WORKLOAD_ID
from aimschema.resources import CONFIG, GATEWAY, ROUTE, SERVICE, Key
from aimservice.lookups import oldest_first
from aimservice.projection import Projection, Seen, fold

__all__ = ["FOLLOWS", "KEEPS", "PLANS_FOR", "READS", "affected", "fold"]

PLANS_FOR = (SERVICE,)
FOLLOWS = (SERVICE, CONFIG, ROUTE, GATEWAY)
KEEPS = (ROUTE,)
READS = {SERVICE.kind: frozenset({"path"})}
"""By kind, the conditions and status fields that it reads on the objects."""


def affected(seen: Projection, key: Key) -> Iterable[Key]:
    """Services to look at again when the object at `key` changes or goes."""
    match key.kind:
        case "AIMService":
            yield key
            present = seen.get(key)
            if present is not None:
                yield from (other.key for other in with_workload_id(seen, present))
        case "HTTPRoute":
            yield Key(SERVICE.kind, key.namespace, key.name)
        case "AIMNamespaceConfig":
            yield from (service.key for service in seen.all(SERVICE.kind, key.namespace) if service.spec.get("configRef") == key.name)
        case "Gateway":
            yield from (service.key for service in seen.everywhere(SERVICE.kind) if service.status.get("path") is not None)


def workload_id(service: Seen) -> str:
    """The label, else the uid."""
    return service.labels.get(WORKLOAD_ID) or service.uid


def with_workload_id(seen: Projection, service: Seen) -> list[Seen]:
    """Services of the namespace with the same workload id; the first is the one that counts."""
    wanted = workload_id(service)
    return oldest_first(other for other in seen.all(SERVICE.kind, service.key.namespace) if workload_id(other) == wanted)
