"""What the deployer sees, and which services an object touches."""

from collections.abc import Iterable, Iterator

from aimcontroller.indexes import (
    PODS_BY_INFERENCE_SERVICE,
    SERVICES_BY_CONFIG,
    SERVICES_BY_MODEL,
    SERVICES_BY_TEMPLATE,
    Index,
)
from aimcontroller.projection import Projection, Seen, fold
from aimschema.labels import KSERVE_COMPONENT_LABEL, KSERVE_ISVC_LABEL
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

__all__ = ["FOLLOWS", "KEEPS", "PLANS_FOR", "READS", "affected", "fold"]

PREDICTOR = "predictor"
PLANS_FOR = (SERVICE,)
FOLLOWS = (SERVICE, TEMPLATE, MODEL, CONFIG, CONFIG_MAP, CACHE, INFERENCE_SERVICE, POD, BUDGET)
KEEPS = (INFERENCE_SERVICE, BUDGET)
READS = {
    SERVICE.kind: frozenset({CACHE_READY, RUNTIME_READY, "resolvedTemplate"}),
    TEMPLATE.kind: frozenset({DISCOVERED, CACHE_WARM, READY, "status"}),
    CACHE.kind: frozenset({READY, "status", "progress", "sizeBytes"}),
}
"""By kind, the conditions and status fields that it reads on the objects."""


def affected(seen: Projection, key: Key, *, namespace: str = "") -> Iterable[Key]:
    """Services to look at again when the object at `key` changes or goes. `namespace`: the
    control plane's own, which has the images of models."""
    present = seen.get(key)
    match key.kind:
        case "AIMService":
            yield key
        case "InferenceService" | "PodDisruptionBudget":
            yield Key(SERVICE.kind, key.namespace, key.name)
        case "Pod":
            if present is not None and KSERVE_ISVC_LABEL in present.labels:
                yield Key(SERVICE.kind, key.namespace, present.labels[KSERVE_ISVC_LABEL])
        case "AIMServiceTemplate":
            yield from _with(seen, SERVICES_BY_TEMPLATE, key)
        case "ConfigMap":
            owner = None if present is None else present.owner(TEMPLATE.kind)
            if owner is not None:
                yield from _with(seen, SERVICES_BY_TEMPLATE, owner)
            model = (
                None if present is None or key.namespace != namespace else present.owner(MODEL.kind)
            )
            if model is not None:
                yield from _of_model(seen, Key(MODEL.kind, None, model.name))
        case "AIMNamespaceConfig":
            yield from _with(seen, SERVICES_BY_CONFIG, key)
        case "ModelCache":
            yield from (service.key for service in seen.all(SERVICE.kind, key.namespace))
        case "AIMClusterModel":
            yield from _of_model(seen, key)


def predictor_pods(seen: Projection, service: Key) -> list[Seen]:
    """Pods that KServe runs as predictor of the InferenceService of this name; a transformer's
    are none."""
    pods = seen.find(PODS_BY_INFERENCE_SERVICE, service.name, service.namespace)
    return [pod for pod in pods if pod.labels.get(KSERVE_COMPONENT_LABEL, PREDICTOR) == PREDICTOR]


def _of_model(seen: Projection, key: Key) -> list[Key]:
    model = seen.get(key)
    return (
        []
        if model is None
        else [service.key for service in seen.find(SERVICES_BY_MODEL, str(model.spec.get("name")))]
    )


def _with(seen: Projection, index: Index, named: Key) -> Iterator[Key]:
    return (service.key for service in seen.find(index, named.name, named.namespace))
