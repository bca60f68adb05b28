"""What discovery sees, and which models and templates an object touches."""

from collections.abc import Iterable

from aim_discovery.turns import is_ours, next_turns
from aimcontroller.failures import FailureConditions
from aimcontroller.indexes import (
    TEMPLATES_BY_CONFIG_MAP,
    TEMPLATES_BY_JOB,
    TEMPLATES_BY_MODEL,
    Index,
)
from aimcontroller.projection import KubeObject, Projection
from aimcontroller.queries import models_named
from aimschema.names import DEFAULT_CONFIG
from aimschema.reasons import DISCOVERED, IMAGE_INSPECTED
from aimschema.resources import CONFIG, CONFIG_MAP, JOB, MODEL, POD, TEMPLATE, Key

RECONCILES = (MODEL, TEMPLATE)
WATCHES = (MODEL, TEMPLATE, CONFIG, CONFIG_MAP, JOB, POD)
OWNS = (CONFIG_MAP,)
READS_STATUS_OF = {
    MODEL.kind: frozenset({IMAGE_INSPECTED}),
    TEMPLATE.kind: frozenset({DISCOVERED, "modelSources", "attempts"}),
}
"""By kind, the conditions and status fields that it reads on the objects."""
FAILURES = {TEMPLATE.kind: FailureConditions(DISCOVERED)}
"""A field conflict is one of the warnings that reporting.py appends to the result."""


def map_to_keys(state: Projection, key: Key, *, namespace: str) -> Iterable[Key]:
    """Keys to reconcile when the object at `key` changes or is deleted. A Job that ends also
    enqueues templates that wait for a turn.

    `namespace`: the control plane's own, whose config has the pull secrets for registries.
    """
    obj = state.get(key)
    match key.kind:
        case "AIMClusterModel":
            yield key
            yield from _of_same_name(state, obj)
        case "AIMServiceTemplate":
            yield key
        case "AIMNamespaceConfig":
            yield from (
                template.key for template in state.in_namespace(TEMPLATE.kind, key.namespace)
            )
            if (key.namespace, key.name) == (namespace, DEFAULT_CONFIG):
                yield from (model.key for model in state.in_namespace(MODEL.kind, None))
        case "ConfigMap":
            yield from _template_of(obj)
            yield from _find_keys(state, TEMPLATES_BY_CONFIG_MAP, key.name, key.namespace)
            if key.namespace == namespace:
                yield from _recorded_model(state, obj)
        case "Job":
            yield from _template_of(obj)
            prefix = key.name.rpartition("-")[0] + "-"
            yield from _find_keys(state, TEMPLATES_BY_JOB, prefix, key.namespace)
            if obj is not None and is_ours(state, obj):
                yield from next_turns(state)
        case "Pod":
            job = None if obj is None else obj.owner(JOB.kind)
            yield from _template_of(None if job is None else state.get(job))


def _find_keys(
    state: Projection, index: Index, value: str, namespace: str | None = None
) -> Iterable[Key]:
    return (obj.key for obj in state.find(index, value, namespace))


def _recorded_model(state: Projection, record: KubeObject | None) -> Iterable[Key]:
    """The catalogue entry of a record of images, with the keys of its model's name."""
    owner = None if record is None else record.owner(MODEL.kind)
    if owner is not None:
        model = Key(MODEL.kind, None, owner.name)
        yield model
        yield from _of_same_name(state, state.get(model))


def _of_same_name(state: Projection, model: KubeObject | None) -> Iterable[Key]:
    """The catalogue entries of a model's name, and its templates."""
    if model is not None:
        name = model.spec.get("name")
        yield from (other.key for other in models_named(state, str(name)))
        yield from (template.key for template in state.find(TEMPLATES_BY_MODEL, str(name)))


def _template_of(obj: KubeObject | None) -> list[Key]:
    owner = None if obj is None else obj.owner(TEMPLATE.kind)
    return [] if owner is None else [owner]


def map_change_to_keys(before: Projection, after: Projection, key: Key) -> Iterable[Key]:
    """Templates that wait for a turn, after the deletion of one whose Job counted."""
    deleted = before.get(key) if key.kind == TEMPLATE.kind and after.get(key) is None else None
    return (
        next_turns(after)
        if deleted is not None and before.owned(deleted.uid, JOB.kind, key.namespace)
        else []
    )
