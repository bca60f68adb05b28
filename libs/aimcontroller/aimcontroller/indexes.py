"""Indexes of a projection, to find objects without a scan of a whole kind. Each is declared here
once; `fold` maintains them.

1. The values of an object are texts and depend only on the object. They are computed for any
   content, also for invalid content.
2. An index returns the same objects as a scan of all objects of the kind.
3. An object with more than `MOST_VALUES` values is stored with hashes of them, since any user may
   write an object with thousands.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aimschema import labels
from aimschema.discovery_result import from_config_map
from aimschema.names import discovery_config_map, discovery_job
from aimschema.reasons import FILLED, QUOTA_EXCEEDED, WAITING_FOR_PVC
from aimschema.resources import (
    CACHE,
    CONFIG_MAP,
    INFERENCE_SERVICE,
    JOB,
    MODEL,
    POD,
    ROUTE,
    SERVICE,
    TEMPLATE,
)

Body = dict[str, Any]
MOST_VALUES: Final = 64
UNMOUNTABLE: Final = "CreateContainerConfigError"
"""The kubelet's reason for a container that waits: a Secret, a ConfigMap or a key is missing."""


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """Objects of `kind` (empty: of any) by each of `values`, in one namespace or, with
    `everywhere`, in all of them together."""

    name: str
    kind: str
    values: Callable[[Body], Iterable[str]]
    everywhere: bool = False


def value_at(body: Any, *path: str) -> Any:
    """The value at a path of a body; None where there is none."""
    for name in path:
        body = body.get(name) if isinstance(body, dict) else None
    return body


def _text(*path: str) -> Callable[[Body], list[str]]:
    """The text at a path, where there is one."""

    def values(body: Body) -> list[str]:
        found = value_at(body, *path)
        return [found] if isinstance(found, str) else []

    return values


def _items(body: Body, *path: str) -> list[Any]:
    found = value_at(body, *path)
    return found if isinstance(found, list) else []


def _owners(body: Body) -> list[str]:
    return [
        str(uid)
        for reference in _items(body, "metadata", "ownerReferences")
        if (uid := value_at(reference, "uid")) is not None
    ]


def _workload_id(body: Body) -> list[str]:
    return [
        str(
            value_at(body, "metadata", "labels", labels.WORKLOAD_ID)
            or value_at(body, "metadata", "uid")
        )
    ]


def _sources(body: Body) -> list[str]:
    return [source for source in _items(body, "status", "modelSources") if isinstance(source, str)]


def _answered_sources(body: Body) -> list[str]:
    """Of what a template's image answered."""
    if all(
        value_at(reference, "kind") != TEMPLATE.kind
        for reference in _items(body, "metadata", "ownerReferences")
    ):
        return []
    found = from_config_map(body)
    return [] if found is None else found.sources


def _requested_template(body: Body) -> list[str]:
    """Of a service that has its models cached."""
    spec = value_at(body, "spec")
    is_requested = isinstance(spec, dict) and spec.get("cacheModel", True)
    return _text("spec", "templateRef")(body) if is_requested else []


def claims_mounted(body: Body) -> list[str]:
    """Names of the claims that a pod mounts."""
    names = (
        value_at(volume, "persistentVolumeClaim", "claimName")
        for volume in _items(body, "spec", "volumes")
    )
    return [name for name in names if isinstance(name, str)]


def _unmountable(body: Body) -> list[str]:
    """The reason with which a container waits for a Secret or a key that is missing."""
    states = (
        value_at(status, "state", "waiting", "reason")
        for kind in ("initContainerStatuses", "containerStatuses")
        for status in _items(body, "status", kind)
    )
    return [UNMOUNTABLE] if UNMOUNTABLE in states else []


def _claims_of_predictor(body: Body) -> list[str]:
    predictor = value_at(body, "spec", "predictor")
    return claims_mounted({"spec": predictor})


def route_path(body: Body) -> str | None:
    """The path of the first match of an HTTPRoute; ours have one."""
    for rule in _items(body, "spec", "rules"):
        for match in _items(rule, "matches"):
            found = value_at(match, "path", "value")
            return found if isinstance(found, str) else None
    return None


def paths_above(path: str) -> list[str]:
    """`/`, `/a` and `/a/b` for `/a/b/c`; none for `/`."""
    segments = [each for each in path.split("/") if each]
    return ["/" + "/".join(segments[:count]) for count in range(len(segments))]


def _route_path(body: Body) -> list[str]:
    path = route_path(body)
    return [] if path is None else [path]


def _paths_above(body: Body) -> list[str]:
    path = route_path(body)
    return [] if path is None else paths_above(path)


WAITS: Final = "waits"


def _waits_for_storage(body: Body) -> list[str]:
    """Of a cache without a claim."""
    conditions = _items(body, "status", "conditions")
    waits = any(
        value_at(each, "type") == FILLED
        and value_at(each, "reason") in {QUOTA_EXCEEDED, WAITING_FOR_PVC}
        for each in conditions
    )
    return [WAITS] if waits and value_at(body, "status", "persistentVolumeClaim") is None else []


OWNED = Index("owned", "", _owners)
MODELS_BY_NAME = Index("models-by-name", MODEL.kind, _text("spec", "name"))
TEMPLATES_BY_MODEL = Index(
    "templates-by-model", TEMPLATE.kind, _text("spec", "model"), everywhere=True
)
TEMPLATES_BY_JOB = Index(
    "templates-by-job",
    TEMPLATE.kind,
    lambda body: [discovery_job(str(value_at(body, "metadata", "name")), "")],
)
"""By the name of a discovery's Job without the hash at its end."""
TEMPLATES_BY_CONFIG_MAP = Index(
    "templates-by-config-map",
    TEMPLATE.kind,
    lambda body: [discovery_config_map(str(value_at(body, "metadata", "name")))],
)
TEMPLATES_BY_SOURCE = Index("templates-by-source", TEMPLATE.kind, _sources)
"""By the sources in the status."""
ANSWERS_BY_SOURCE = Index("answers-by-source", CONFIG_MAP.kind, _answered_sources)
SERVICES_BY_TEMPLATE = Index("services-by-template", SERVICE.kind, _text("spec", "templateRef"))
REQUESTERS_BY_TEMPLATE = Index("requesters-by-template", SERVICE.kind, _requested_template)
"""Services that request the caches of a template."""
SERVICES_BY_CONFIG = Index("services-by-config", SERVICE.kind, _text("spec", "configRef"))
SERVICES_BY_MODEL = Index(
    "services-by-model", SERVICE.kind, _text("spec", "model"), everywhere=True
)
SERVICES_BY_WORKLOAD_ID = Index("services-by-workload-id", SERVICE.kind, _workload_id)
"""By the label, else the uid."""
CACHES_BY_SOURCE = Index("caches-by-source", CACHE.kind, _text("spec", "sourceUri"))
CACHES_BY_WAIT = Index("caches-by-wait", CACHE.kind, _waits_for_storage, everywhere=True)
"""Caches whose status has that they wait for storage, under the value WAITS."""
JOBS_BY_COMPONENT = Index(
    "jobs-by-component", JOB.kind, _text("metadata", "labels", labels.COMPONENT), everywhere=True
)
PODS_BY_INFERENCE_SERVICE = Index(
    "pods-by-inference-service", POD.kind, _text("metadata", "labels", labels.KSERVE_ISVC_LABEL)
)
UNMOUNTABLE_PODS = Index("unmountable-pods", POD.kind, _unmountable)
PODS_BY_CLAIM = Index("pods-by-claim", POD.kind, claims_mounted)
INFERENCE_SERVICES_BY_CLAIM = Index(
    "inference-services-by-claim", INFERENCE_SERVICE.kind, _claims_of_predictor
)
ROUTES_BY_PATH = Index("routes-by-path", ROUTE.kind, _route_path, everywhere=True)
ROUTES_BELOW = Index("routes-below", ROUTE.kind, _paths_above, everywhere=True)
"""By each path above theirs."""

INDEXES: Final = (
    OWNED,
    MODELS_BY_NAME,
    TEMPLATES_BY_MODEL,
    TEMPLATES_BY_JOB,
    TEMPLATES_BY_CONFIG_MAP,
    TEMPLATES_BY_SOURCE,
    ANSWERS_BY_SOURCE,
    SERVICES_BY_TEMPLATE,
    REQUESTERS_BY_TEMPLATE,
    SERVICES_BY_CONFIG,
    SERVICES_BY_MODEL,
    SERVICES_BY_WORKLOAD_ID,
    CACHES_BY_SOURCE,
    CACHES_BY_WAIT,
    JOBS_BY_COMPONENT,
    PODS_BY_INFERENCE_SERVICE,
    UNMOUNTABLE_PODS,
    PODS_BY_CLAIM,
    INFERENCE_SERVICES_BY_CLAIM,
    ROUTES_BY_PATH,
    ROUTES_BELOW,
)
_OF_KIND: Mapping[str, tuple[Index, ...]] = {
    kind: tuple(index for index in INDEXES if index.kind in {"", kind})
    for kind in {index.kind for index in INDEXES}
}


def of_kind(kind: str) -> tuple[Index, ...]:
    """The indexes that objects of a kind are in."""
    return _OF_KIND.get(kind, _OF_KIND[""])


def hashes(values: Iterable[str]) -> "array[int]":
    """What is kept of many values."""
    return array("q", sorted(map(hash, values)))


def holds(stored: "array[int]", value: str) -> bool:
    place = bisect_left(stored, hash(value))
    return place < len(stored) and stored[place] == hash(value)
