"""The kinds that the cacher watches, and the keys that a changed object affects. Pure."""

import re
from collections.abc import Iterable, Iterator

from aimcontroller.failures import FailureConditions
from aimcontroller.indexes import CACHES_BY_WAIT, REQUESTERS_BY_TEMPLATE, WAITS, claims_mounted
from aimcontroller.predicates import status_changed
from aimcontroller.projection import KubeObject, Projection
from aimcontroller.queries import (
    caches_of,
    discovery_result_of,
    has_failed,
    oldest_first,
    templates_of,
)
from aimschema.labels import ANNOTATION_CONFIG
from aimschema.names import DEFAULT_CONFIG, cache_for
from aimschema.reasons import CACHE_WARM, FILLED, READY, STORAGE_READY
from aimschema.resources import (
    CACHE,
    CLAIM,
    CONFIG,
    CONFIG_MAP,
    INFERENCE_SERVICE,
    JOB,
    POD,
    SERVICE,
    STORAGE_CLASS,
    TEMPLATE,
    Key,
)

RECONCILES = (CACHE, TEMPLATE, CONFIG)
WATCHES = (
    *(CACHE, TEMPLATE, SERVICE, CONFIG, CONFIG_MAP),
    *(CLAIM, JOB, POD, STORAGE_CLASS, INFERENCE_SERVICE),
)
OWNS = (CLAIM,)
PROGRESS_OF = (CACHE,)
_GENERATED_NAME = re.compile(r".*-[0-9a-f]{8}")
READS_STATUS_OF = {
    CACHE.kind: frozenset(
        {READY, FILLED, "conditions", "status", "progress", "sizeBytes", "attempts", "lastUsed"}
    ),
    TEMPLATE.kind: frozenset({"modelSources"}),
    SERVICE.kind: frozenset({"resolvedTemplate"}),
}
"""By kind, the conditions and status fields that the cacher reads."""
PREDICATES = {
    SERVICE.kind: status_changed(*READS_STATUS_OF[SERVICE.kind]),
    TEMPLATE.kind: status_changed(*READS_STATUS_OF[TEMPLATE.kind]),
    INFERENCE_SERVICE.kind: status_changed(),
}
"""A service requests caches, an InferenceService mounts them."""
_FREES = frozenset(
    {CACHE.kind, TEMPLATE.kind, SERVICE.kind, CLAIM.kind, POD.kind, INFERENCE_SERVICE.kind}
)
"""Kinds whose objects hold storage or keep a cache in use."""
FAILURES = {
    CACHE.kind: FailureConditions(FILLED, {CLAIM.kind: STORAGE_READY}),
    TEMPLATE.kind: FailureConditions(CACHE_WARM),
}


def map_to_keys(state: Projection, key: Key) -> Iterable[Key]:
    """Keys to reconcile when the object at `key` changes or is deleted."""
    obj = state.get(key)
    if key.kind in _FREES:
        yield from _waiting_for_storage(state, key, obj)
    match key.kind:
        case "ModelCache":
            yield key
            yield from (other.key for other in _siblings(state, obj))
            yield from _templates(state, key, obj)
        case "AIMServiceTemplate":
            yield key
        case "AIMService":
            if obj is not None:
                yield Key(TEMPLATE.kind, key.namespace, str(obj.spec.get("templateRef")))
        case "AIMNamespaceConfig":
            yield key
            yield from (cache.key for cache in state.in_namespace(CACHE.kind, key.namespace))
        case "StorageClass":
            yield from (
                config.key
                for config in state.in_all_namespaces(CONFIG.kind)
                if config.spec.get("cacheStorageClassName")
            )
            yield from (cache.key for cache in state.in_all_namespaces(CACHE.kind))
        case "ConfigMap":
            yield from _owner(obj, TEMPLATE.kind)
        case "PersistentVolumeClaim" | "Job":
            yield from _owner(obj, CACHE.kind)
            yield from _waiting_for_name(state, key)
        case "Pod":
            for cache in (
                cache
                for job in _owner(obj, JOB.kind)
                for cache in _owner(state.get(job), CACHE.kind)
            ):
                yield cache
                yield config_of(state.get(cache), cache.namespace)
            yield from _waiting_for_claims(state, obj)


def config_of(cache: KubeObject | None, namespace: str | None) -> Key:
    """The config that a cache is filled with."""
    return Key(
        CONFIG.kind,
        namespace,
        (
            DEFAULT_CONFIG
            if cache is None
            else cache.annotations.get(ANNOTATION_CONFIG, DEFAULT_CONFIG)
        ),
    )


def oldest_requester(state: Projection, template: KubeObject) -> KubeObject | None:
    """Of the objects that request the models of a template as caches, the oldest: services, and
    the template itself where it sets warmCache."""
    services = state.find_lazily(REQUESTERS_BY_TEMPLATE, template.key.name, template.key.namespace)
    service = next((each for each in services if not each.deleting), None)
    own = [template] if template.spec.get("warmCache") else []
    return next(iter(oldest_first([*own, *([] if service is None else [service])])), None)


def oldest_requester_of_source(
    state: Projection, namespace: str | None, source: str
) -> KubeObject | None:
    """The oldest object that requests a cache of a source, through any template. While an image is
    inspected again, its last answer still counts."""
    found = (
        oldest_requester(state, template) for template in templates_of(state, namespace, source)
    )
    return next(iter(oldest_first(each for each in found if each is not None)), None)


def map_change_to_keys(before: Projection, after: Projection, key: Key) -> Iterable[Key]:
    """Failed caches that may have lost their last requester."""
    match key.kind:
        case "AIMServiceTemplate":
            unrequested = _requested_sources(before, key) - _requested_sources(after, key)
        case "AIMService":
            templates = {_template_of(state, key) for state in (before, after)}
            unrequested = frozenset().union(
                *(
                    _requested_sources(before, each) - _requested_sources(after, each)
                    for each in templates
                    if each is not None
                )
            )
        case "ConfigMap":
            owners = [
                owner
                for state in (before, after)
                for owner in _owner(state.get(key), TEMPLATE.kind)
            ]
            unrequested = frozenset().union(
                *(
                    _requested_sources(before, each) - _requested_sources(after, each)
                    for each in owners
                )
            )
        case _:
            return
    for source in unrequested:
        yield from (
            cache.key for cache in caches_of(after, key.namespace, source) if has_failed(cache)
        )


def _template_of(state: Projection, service: Key) -> Key | None:
    obj = state.get(service)
    return (
        None
        if obj is None
        else Key(TEMPLATE.kind, service.namespace, str(obj.spec.get("templateRef")))
    )


def _requested_sources(state: Projection, key: Key) -> frozenset[str]:
    """Sources that objects request through a template."""
    template = state.get(key)
    if template is None or oldest_requester(state, template) is None:
        return frozenset()
    answer = discovery_result_of(state, template)
    return frozenset(
        answer.sources if answer is not None else template.status.get("modelSources") or ()
    )


def _siblings(state: Projection, cache: KubeObject | None) -> list[KubeObject]:
    return (
        []
        if cache is None
        else caches_of(state, cache.key.namespace, str(cache.spec.get("sourceUri")))
    )


def _templates(state: Projection, key: Key, cache: KubeObject | None) -> list[Key]:
    """Templates of the cache's source. All templates of the namespace, where the cache has the name
    that another source's cache needs. None for a cache that does not exist: the state before its
    deletion, or after its creation, has it."""
    if cache is None:
        return []
    source = str(cache.spec.get("sourceUri"))
    has_own_name = key.name == cache_for(source) or not _GENERATED_NAME.fullmatch(key.name)
    templates = (
        templates_of(state, key.namespace, source)
        if has_own_name
        else state.in_namespace(TEMPLATE.kind, key.namespace)
    )
    return [template.key for template in templates]


def _waiting_for_storage(state: Projection, key: Key, obj: KubeObject | None) -> Iterator[Key]:
    """Caches that a quota may admit now: of the namespace, and once a claim is gone of all."""
    is_freed = obj is None and key.kind == CLAIM.kind
    for cache in state.find_lazily(CACHES_BY_WAIT, WAITS):
        if is_freed or cache.key.namespace == key.namespace:
            yield cache.key


def _waiting_for_name(state: Projection, key: Key) -> list[Key]:
    """The cache that needs this name, also where the object is not its own."""
    cache = Key(CACHE.kind, key.namespace, key.name.rpartition("-")[0])
    return [cache] if state.get(cache) is not None else []


def _waiting_for_claims(state: Projection, pod: KubeObject | None) -> Iterator[Key]:
    """Caches whose claim is being deleted and is mounted by the pod."""
    for name in () if pod is None else claims_mounted(pod.body):
        claim = state.get(Key(CLAIM.kind, pod.key.namespace if pod is not None else None, name))
        if claim is not None and claim.deleting:
            yield from _owner(claim, CACHE.kind)
            yield from _waiting_for_name(state, claim.key)


def _owner(obj: KubeObject | None, kind: str) -> list[Key]:
    owner = None if obj is None else obj.owner(kind)
    return [] if owner is None else [owner]
