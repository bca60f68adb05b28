"""Random user operations from a seed, as data for any cluster.

Each draw depends on the existing objects. They are ordered, so that a seed gives the same draws for
the same objects. The seed does not control how fast a cluster reacts.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from aim_testing.soak import inputs
from aim_testing.soak.state import Body, State
from aimschema import labels, names
from aimschema.resources import (
    BUDGET,
    CACHE,
    CLAIM,
    CONFIG,
    CONFIG_MAP,
    INFERENCE_SERVICE,
    JOB,
    MODEL,
    NAMESPACE,
    POD,
    ROUTE,
    SECRET,
    SERVICE,
    TEMPLATE,
    Key,
    Resource,
    key_of,
)

SQUATTER = {"example.org/soak": "squatter"}
"""Label of what a user makes under a name that the control plane needs."""
HOLD = "example.org/hold"
"""A finalizer that no controller removes."""
ABSENT = "absent"
"""A name that nothing has."""
MOST_REPLICAS = 3


@dataclass(frozen=True, slots=True)
class Operation:
    """`body`: the object to create, or the merge patch."""

    verb: Literal["create", "patch", "delete"]
    resource: Resource
    key: Key
    body: Body = field(default_factory=dict)

    def __str__(self) -> str:
        detail = ""
        if self.verb == "patch":
            detail = f" {json.dumps(self.body)}"
        elif self.verb == "create":
            detail = f" {json.dumps(self.body.get('spec', {}))}"
        return f"{self.verb} {self.key}{detail}"


def create(resource: Resource, body: Body) -> Operation:
    return Operation("create", resource, key_of(body), body)


def patch(resource: Resource, key: Key, body: Body) -> Operation:
    return Operation("patch", resource, key, body)


def delete(resource: Resource, key: Key) -> Operation:
    return Operation("delete", resource, key)


Draw = Callable[[random.Random, State], list[Operation]]


def draw(rng: random.Random, state: State) -> list[Operation]:
    """One thing that a user does: some operations, one right after the other; never none."""
    while True:
        chosen = rng.choices(list(OPERATIONS), list(OPERATIONS.values()))[0](rng, state)
        if chosen:
            return chosen


def service_spec(rng: random.Random, state: State) -> list[Operation]:
    key = _any(rng, state, SERVICE)
    if key is None:
        return []
    changes: list[Body] = [
        {"replicas": rng.randint(0, MOST_REPLICAS)},
        {"replicas": 0},
        {"templateRef": rng.choice(["t0", "t1", ABSENT])},
        {"model": inputs.model_name(rng.choice(inputs.MODELS))},
        {"configRef": rng.choice(["default", "other", ABSENT])},
        {"cacheModel": rng.random() < 0.5},
    ]
    weights = [8, 3, 2, 1, 2, 1]
    return [patch(SERVICE, key, {"spec": rng.choices(changes, weights)[0]})]


def stop_and_start(rng: random.Random, state: State) -> list[Operation]:
    key = _any(rng, state, SERVICE)
    if key is None:
        return []
    return [
        patch(SERVICE, key, {"spec": {"replicas": replicas}}) for replicas in (0, rng.randint(1, 2))
    ]


def remove(rng: random.Random, state: State) -> list[Operation]:
    """Something a user has written."""
    resource = rng.choice([SERVICE, SERVICE, TEMPLATE, TEMPLATE, CONFIG, MODEL, SECRET, CACHE])
    key = _any(rng, state, resource)
    return [] if key is None else [delete(resource, key)]


def re_create(rng: random.Random, state: State) -> list[Operation]:
    """Delete, and create at once."""
    resource = rng.choice([SERVICE, SERVICE, TEMPLATE, CONFIG, MODEL, CACHE])
    key = _any(rng, state, resource)
    if key is None:
        return []
    written = inputs.manifests().get(key)
    body = state.objects[key]
    again = written or inputs.an_object(resource, key.namespace, key.name, body.get("spec") or {})
    return [delete(resource, key), create(resource, again)]


def bring_back(rng: random.Random, state: State) -> list[Operation]:
    """Something that is missing of what should be there."""
    written = inputs.manifests()
    missing = [key for key in written if key not in state.objects]
    if not missing:
        return []
    key = rng.choice(missing)
    return [create(_resource(key.kind), written[key])]


def model_image(rng: random.Random, state: State) -> list[Operation]:
    key = _any_model(rng, state)
    if key is None:
        return []
    number = int(key.name[1:])
    bad = [patch(MODEL, key, {"spec": {"image": inputs.image(number, rng.choice(inputs.BAD))}})]
    good = [patch(MODEL, key, {"spec": {"image": inputs.image(number, rng.choice(inputs.GOOD))}})]
    return rng.choices([bad, good, bad + good], [4, 4, 2])[0]


def model_rename(rng: random.Random, state: State) -> list[Operation]:
    key = _any_model(rng, state)
    if key is None:
        return []
    name = rng.choice([ABSENT, inputs.model_name(int(key.name[1:]))])
    return [patch(MODEL, key, {"spec": {"name": name}})]


def twin_model(rng: random.Random, state: State) -> list[Operation]:
    """A second entry of the same name, or away with it."""
    key = Key(MODEL.kind, None, "twin")
    if key in state.objects:
        return [delete(MODEL, key)]
    number = rng.choice(inputs.MODELS)
    spec = {"name": inputs.model_name(number), "image": inputs.image(number, "better")}
    return [create(MODEL, inputs.an_object(MODEL, None, "twin", spec))]


def config_spec(rng: random.Random, state: State) -> list[Operation]:
    key = _any(rng, state, CONFIG)
    if key is None:
        return []
    absent = {"huggingFaceToken": {"name": ABSENT, "key": "token"}}
    changes: list[Body] = [
        {"credentials": absent},
        {"credentials": None},
        {"cacheStorageClassName": ABSENT},
        {"routing": None},
        {"routing": {"autoCreateRoute": False}},
        {"routing": {"gateway": {**inputs.GATEWAY, "name": ABSENT}}},
        {"cacheStorageClassName": None, "credentials": None},
        {"cacheStorageClassName": None, **inputs.config_spec(), "images": None},
    ]
    return [patch(CONFIG, key, {"spec": rng.choices(changes, [3, 1, 2, 1, 1, 2, 1, 5])[0]})]


def user_cache(rng: random.Random, state: State) -> list[Operation]:
    """A cache that a user writes for a source that services have too."""
    namespace = rng.choice(inputs.NAMESPACES)
    spec: Body = {"sourceUri": inputs.source(rng.choice(inputs.MODELS))}
    if rng.random() < 0.7:
        spec["size"] = "1Gi"
    if rng.random() < 0.2:
        spec["storageClassName"] = rng.choice([ABSENT, "lab", "lab-wait"])
    name = f"mine-{rng.randint(0, 1)}"
    return [create(CACHE, inputs.an_object(CACHE, namespace, name, spec))]


def by_hand(rng: random.Random, state: State) -> list[Operation]:
    """Something the control plane has made goes, or a pod does."""
    kinds = [CLAIM, CLAIM, JOB, JOB, INFERENCE_SERVICE, INFERENCE_SERVICE, ROUTE, CONFIG_MAP]
    resource = rng.choice([*kinds, CACHE, POD, BUDGET])
    key = _any(rng, state, resource)
    return [] if key is None else [delete(resource, key)]


def edit_runtime(rng: random.Random, state: State) -> list[Operation]:
    key = _any(rng, state, INFERENCE_SERVICE)
    if key is None:
        return []
    annotations = {labels.KSERVE_STOP: "true"}
    changes: list[Body] = [
        {"metadata": {"annotations": annotations}},
        {"metadata": {"annotations": {labels.KSERVE_STOP: None}}},
        {"metadata": {"annotations": {labels.KSERVE_AUTOSCALER: "hpa"}}},
        {"metadata": {"annotations": {"example.org/note": "mine"}}},
        {"metadata": {"labels": {labels.KSERVE_VISIBILITY: None}}},
        {"spec": {"predictor": {"minReplicas": 2, "maxReplicas": 2}}},
        {"spec": {"predictor": {"minReplicas": 0}}},
        {"spec": {"predictor": {"imagePullSecrets": [{"name": ABSENT}]}}},
        {"spec": {"predictor": {"nodeSelector": {"example.org/pool": "none"}}}},
    ]
    return [patch(INFERENCE_SERVICE, key, rng.choices(changes, [5, 2, 2, 1, 2, 2, 2, 1, 2])[0])]


def edit_route(rng: random.Random, state: State) -> list[Operation]:
    key = _any(rng, state, ROUTE)
    if key is None:
        return []
    changes: list[Body] = [
        {"spec": {"parentRefs": [{**inputs.GATEWAY, "name": ABSENT}]}},
        {"spec": {"parentRefs": []}},
        {"spec": {"hostnames": ["elsewhere.example.org"]}},
        {"metadata": {"labels": {labels.MANAGED_BY: None}}},
    ]
    return [patch(ROUTE, key, rng.choice(changes))]


def edit_budget(rng: random.Random, state: State) -> list[Operation]:
    key = _any(rng, state, BUDGET)
    return [] if key is None else [patch(BUDGET, key, {"spec": {"maxUnavailable": 0}})]


def squat(rng: random.Random, state: State) -> list[Operation]:
    """An object of a user under a name that the control plane needs."""
    namespace, number = rng.choice(inputs.NAMESPACES), rng.choice(inputs.SERVICES)
    model = number % len(inputs.MODELS)
    container = {"name": "kserve-container", "image": inputs.image(model, "good")}
    claim: Body = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    cache = names.cache_for(inputs.source(model))
    taken: list[tuple[Resource, str, Body | None]] = [
        (
            INFERENCE_SERVICE,
            f"s{number}",
            {"predictor": {"minReplicas": 1, "containers": [container]}},
        ),
        (ROUTE, f"s{number}", {"parentRefs": [inputs.GATEWAY]}),
        (CLAIM, names.cache_claim(cache), claim),
        (CONFIG_MAP, names.discovery_config_map(f"t{model}"), None),
    ]
    resource, name, spec = rng.choice(taken)
    body = inputs.an_object(resource, namespace, name, spec)
    body["metadata"]["labels"] = SQUATTER
    key = key_of(body)
    if key in state.objects and resource == CLAIM:
        return []  # what runs keeps it
    first = [delete(resource, key)] if key in state.objects else []
    return [*first, create(resource, body)]


def hold(rng: random.Random, state: State) -> list[Operation]:
    """Delete an object that has a foreign finalizer."""
    resource = rng.choice([INFERENCE_SERVICE, ROUTE, CONFIG_MAP, JOB, CLAIM, BUDGET])
    key = _any(rng, state, resource)
    if key is None:
        return []
    finalizers = state.objects[key]["metadata"].get("finalizers") or []
    return [
        patch(resource, key, {"metadata": {"finalizers": [*finalizers, HOLD]}}),
        delete(resource, key),
    ]


def retry(rng: random.Random, state: State) -> list[Operation]:
    resource = rng.choice([CACHE, CACHE, TEMPLATE, MODEL])
    key = _any(rng, state, resource)
    if key is None:
        return []
    value = {labels.ANNOTATION_RETRY: str(rng.randint(0, 1_000_000))}
    return [patch(resource, key, {"metadata": {"annotations": value}})]


def namespace_deleted(rng: random.Random, _state: State) -> list[Operation]:
    """And made again, with all that was written in it."""
    namespace = rng.choice(inputs.NAMESPACES)
    key = Key(NAMESPACE.kind, None, namespace)
    written = inputs.manifests()
    inside = [body for each, body in written.items() if each == key or each.namespace == namespace]
    return [delete(NAMESPACE, key), *(create(_resource(body["kind"]), body) for body in inside)]


OPERATIONS: dict[Draw, int] = {
    service_spec: 20,
    stop_and_start: 3,
    remove: 10,
    re_create: 8,
    bring_back: 14,
    model_image: 8,
    model_rename: 2,
    twin_model: 1,
    config_spec: 9,
    user_cache: 3,
    by_hand: 14,
    edit_runtime: 7,
    edit_route: 3,
    edit_budget: 1,
    retry: 4,
    squat: 2,
    hold: 2,
    namespace_deleted: 1,
}
"""How often each is drawn, beside the others."""


def _any(rng: random.Random, state: State, resource: Resource) -> Key | None:
    """One of a kind in our namespaces, or of the whole cluster."""
    keys = [
        key
        for key in state.objects
        if key.kind == resource.kind and key.namespace in {None, *inputs.NAMESPACES}
    ]
    ordered = sorted(keys, key=lambda key: (key.namespace or "", key.name))
    return rng.choice(ordered) if ordered else None


def _any_model(rng: random.Random, state: State) -> Key | None:
    """One of those that should be there."""
    keys = [
        key
        for key in (Key(MODEL.kind, None, f"m{n}") for n in inputs.MODELS)
        if key in state.objects
    ]
    return rng.choice(keys) if keys else None


def _resource(kind: str) -> Resource:
    return next(each for each in WRITTEN if each.kind == kind)


WRITTEN = (NAMESPACE, MODEL, SECRET, CONFIG, TEMPLATE, SERVICE, CACHE)
"""Kinds that users write."""
