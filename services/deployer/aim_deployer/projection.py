"""The kinds that the deployer watches, and the mapping from a changed object to services."""

from collections.abc import Iterable, Iterator

from aimcontroller.failures import FailureConditions
from aimcontroller.indexes import (
    INFERENCE_SERVICES_BY_CLAIM,
    PODS_BY_INFERENCE_SERVICE,
    SERVICES_BY_CONFIG,
    SERVICES_BY_MODEL,
    SERVICES_BY_TEMPLATE,
    Index,
)
from aimcontroller.projection import KubeObject, Projection
from aimcontroller.queries import templates_of
from aimschema.labels import KSERVE_COMPONENT_LABEL, KSERVE_ISVC_LABEL
from aimschema.names import cache_claim
from aimschema.reasons import CACHE_READY, CACHE_WARM, DISCOVERED, READY, RUNTIME_READY
from aimschema.resources import (
    BUDGET,
    CACHE,
    CONFIG,
    CONFIG_MAP,
    INFERENCE_SERVICE,
    MODEL,
    POD,
    SERVICE,
    TEMPLATE,
    Key,
)

PREDICTOR = "predictor"
CONTAINER = "kserve-container"
"""The container of predictor pods that serves the model."""
RECONCILES = (SERVICE,)
WATCHES = (SERVICE, TEMPLATE, MODEL, CONFIG, CONFIG_MAP, CACHE, INFERENCE_SERVICE, POD, BUDGET)
OWNS = (INFERENCE_SERVICE, BUDGET)
READS_STATUS_OF = {
    SERVICE.kind: frozenset({CACHE_READY, RUNTIME_READY, "resolvedTemplate"}),
    TEMPLATE.kind: frozenset({DISCOVERED, CACHE_WARM, READY, "status"}),
    CACHE.kind: frozenset({READY, "status", "progress", "sizeBytes"}),
}
"""The conditions and status fields that the deployer reads, by kind."""
FAILURES = {SERVICE.kind: FailureConditions(conflicts={INFERENCE_SERVICE.kind: RUNTIME_READY})}
"""runtime.py shows rejections itself: it falls back to another mode after some, and shows none
then."""


def map_to_keys(state: Projection, key: Key, *, namespace: str = "") -> Iterable[Key]:
    """Services to reconcile when the object at `key` changes or is deleted. `namespace` is the
    control plane's own, which has the images of models."""
    obj = state.get(key)
    match key.kind:
        case "AIMService":
            yield key
        case "InferenceService" | "PodDisruptionBudget":
            yield Key(SERVICE.kind, key.namespace, key.name)
        case "Pod":
            if obj is not None and KSERVE_ISVC_LABEL in obj.labels:
                yield Key(SERVICE.kind, key.namespace, obj.labels[KSERVE_ISVC_LABEL])
        case "AIMServiceTemplate":
            yield from _with(state, SERVICES_BY_TEMPLATE, key)
        case "ConfigMap":
            owner = None if obj is None else obj.owner(TEMPLATE.kind)
            if owner is not None:
                yield from _with(state, SERVICES_BY_TEMPLATE, owner)
            model = None if obj is None or key.namespace != namespace else obj.owner(MODEL.kind)
            if model is not None:
                yield from _of_model(state, Key(MODEL.kind, None, model.name))
        case "AIMNamespaceConfig":
            yield from _with(state, SERVICES_BY_CONFIG, key)
        case "ModelCache":
            yield from _of_cache(state, key, obj)
        case "AIMClusterModel":
            yield from _of_model(state, key)


def predictor_pods(state: Projection, service: Key) -> list[KubeObject]:
    """The predictor pods of the InferenceService with this name, without pods of a transformer."""
    pods = state.find(PODS_BY_INFERENCE_SERVICE, service.name, service.namespace)
    return [pod for pod in pods if pod.labels.get(KSERVE_COMPONENT_LABEL, PREDICTOR) == PREDICTOR]


def _of_cache(state: Projection, key: Key, cache: KubeObject | None) -> Iterator[Key]:
    """Services that need a cache of this source, and those that mount its claim."""
    if cache is not None:
        for template in templates_of(state, key.namespace, str(cache.spec.get("sourceUri"))):
            yield from _with(state, SERVICES_BY_TEMPLATE, template.key)
    for existing in state.find(INFERENCE_SERVICES_BY_CLAIM, cache_claim(key.name), key.namespace):
        yield Key(SERVICE.kind, key.namespace, existing.key.name)


def _of_model(state: Projection, key: Key) -> list[Key]:
    model = state.get(key)
    return (
        []
        if model is None
        else [service.key for service in state.find(SERVICES_BY_MODEL, str(model.spec.get("name")))]
    )


def _with(state: Projection, index: Index, named: Key) -> Iterator[Key]:
    return (service.key for service in state.find(index, named.name, named.namespace))
