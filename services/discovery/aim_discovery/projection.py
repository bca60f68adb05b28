"""What discovery sees, and which models and templates an object touches."""

import heapq
from collections.abc import Callable, Iterable
from functools import partial

from aimschema.credentials import DEFAULT_CONFIG
from aimschema.names import discovery_config_map, discovery_job
from aimschema.reasons import AWAITING_DISCOVERY, DISCOVERED, DISCOVERY, IMAGE_INSPECTED
from aimschema.resources import CONFIG, CONFIG_MAP, JOB, MODEL, POD, TEMPLATE, Key
from aimservice.lookups import models_named
from aimservice.projection import Projection, Seen, fold

__all__ = ["FOLLOWS", "KEEPS", "PLANS_FOR", "READS", "affected", "fold"]

PLANS_FOR = (MODEL, TEMPLATE)
FOLLOWS = (MODEL, TEMPLATE, CONFIG, CONFIG_MAP, JOB, POD)
KEEPS = (CONFIG_MAP,)
READS = {MODEL.kind: frozenset({IMAGE_INSPECTED}), TEMPLATE.kind: frozenset({DISCOVERED, "modelSources", "attempts"})}
"""By kind, the conditions and status fields that it reads on the objects."""

WOKEN_AT_ONCE = 10


def affected(seen: Projection, key: Key, *, namespace: str) -> Iterable[Key]:
    """Keys to look at again when the object at `key` changes or goes. A Job that ends also wakes those that wait for a turn.

    `namespace`: the control plane's own, whose config has the pull secrets for registries.
    """
    present = seen.get(key)
    match key.kind:
        case "AIMClusterModel":
            yield key
            yield from _of_same_name(seen, present)
        case "AIMServiceTemplate":
            yield key
        case "AIMNamespaceConfig":
            yield from (template.key for template in seen.all(TEMPLATE.kind, key.namespace))
            if (key.namespace, key.name) == (namespace, DEFAULT_CONFIG):
                yield from (model.key for model in seen.all(MODEL.kind, None))
        case "ConfigMap":
            yield from _template_of(present)
            yield from _in_need_of(seen, key, discovery_config_map)
            owner = None if present is None else present.owner(MODEL.kind)
            if owner is not None:
                model = Key(MODEL.kind, None, owner.name)
                yield model
                yield from _of_same_name(seen, seen.get(model))
        case "Job":
            yield from _template_of(present)
            yield from _in_need_of(seen, key, partial(discovery_job, inputs_hash=key.name.rpartition("-")[2]))
            yield from _waiting(seen)
        case "Pod":
            job = None if present is None else present.owner(JOB.kind)
            yield from _template_of(None if job is None else seen.get(job))


def _of_same_name(seen: Projection, model: Seen | None) -> Iterable[Key]:
    """The catalogue entries of a model's name, and its templates."""
    if model is not None:
        name = model.spec.get("name")
        yield from (other.key for other in models_named(seen, str(name)))
        yield from (template.key for template in seen.everywhere(TEMPLATE.kind) if template.spec.get("model") == name)


def _waiting(seen: Projection) -> list[Key]:
    """The oldest templates that wait for their turn."""

    def waits(template: Seen) -> bool:
        said = seen.report(template.key, DISCOVERY)
        return said is not None and any(c.type == DISCOVERED and c.status == "False" and c.reason == AWAITING_DISCOVERY for c in said.conditions)

    waiting = (template for template in seen.everywhere(TEMPLATE.kind) if waits(template))
    return [template.key for template in heapq.nsmallest(WOKEN_AT_ONCE, waiting, key=lambda each: (each.created, each.key))]


def _in_need_of(seen: Projection, key: Key, name_for: Callable[[str], str]) -> list[Key]:
    """The templates that need this name, also where the object is not theirs."""
    return [template.key for template in seen.all(TEMPLATE.kind, key.namespace) if name_for(template.key.name) == key.name]


def _template_of(present: Seen | None) -> list[Key]:
    owner = None if present is None else present.owner(TEMPLATE.kind)
    return [] if owner is None else [owner]
