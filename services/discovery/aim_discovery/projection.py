"""What discovery sees, and which models and templates an object touches."""

import heapq
from collections.abc import Iterable

from aimschema.reasons import AWAITING_DISCOVERY, DISCOVERED, DISCOVERY
from aimschema.resources import CONFIG, CONFIG_MAP, JOB, MODEL, POD, TEMPLATE, Key
from aimservice.lookups import models_named
from aimservice.projection import Projection, Seen, fold

__all__ = ["FOLLOWS", "KEEPS", "PLANS_FOR", "affected", "fold"]

PLANS_FOR = (MODEL, TEMPLATE)
FOLLOWS = (MODEL, TEMPLATE, CONFIG, CONFIG_MAP, JOB, POD)
KEEPS = (CONFIG_MAP,)
WOKEN_AT_ONCE = 10


def affected(seen: Projection, key: Key) -> Iterable[Key]:
    """Keys to look at again when the object at `key` changes or goes. A Job that ends also wakes those that wait for a turn."""
    present = seen.get(key)
    match key.kind:
        case "AIMClusterModel":
            yield key
            if present is not None:
                name = present.spec.get("name")
                yield from (other.key for other in models_named(seen, str(name)))
                yield from (template.key for template in seen.everywhere(TEMPLATE.kind) if template.spec.get("model") == name)
        case "AIMServiceTemplate":
            yield key
        case "AIMNamespaceConfig":
            yield from (template.key for template in seen.all(TEMPLATE.kind, key.namespace))
        case "ConfigMap":
            yield from _template_of(present)
        case "Job":
            yield from _template_of(present)
            yield from _waiting(seen)
        case "Pod":
            job = None if present is None else present.owner(JOB.kind)
            yield from _template_of(None if job is None else seen.get(job))


def _waiting(seen: Projection) -> list[Key]:
    """The oldest templates that wait for their turn."""

    def waits(template: Seen) -> bool:
        said = seen.report(template.key, DISCOVERY)
        return said is not None and any(c.type == DISCOVERED and c.status == "False" and c.reason == AWAITING_DISCOVERY for c in said.conditions)

    waiting = (template for template in seen.everywhere(TEMPLATE.kind) if waits(template))
    return [template.key for template in heapq.nsmallest(WOKEN_AT_ONCE, waiting, key=lambda each: (each.created, each.key))]


def _template_of(present: Seen | None) -> list[Key]:
    owner = None if present is None else present.owner(TEMPLATE.kind)
    return [] if owner is None else [owner]
