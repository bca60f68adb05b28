"""What the cacher sees, and which caches and templates an object touches."""

import re
from collections.abc import Iterable, Iterator

from aimcontroller.indexes import SERVICES_BY_TEMPLATE, claims_mounted
from aimcontroller.projection import Projection, Seen, fold
from aimcontroller.queries import caches_of, discovered, oldest_first, templates_of
from aimschema.credentials import DEFAULT_CONFIG
from aimschema.labels import ANNOTATION_CONFIG
from aimschema.names import cache_for
from aimschema.reasons import FAILED_STATE, FILLED, READY
from aimschema.resources import (
    CACHE,
    CLAIM,
    CONFIG,
    CONFIG_MAP,
    JOB,
    POD,
    SERVICE,
    STORAGE_CLASS,
    TEMPLATE,
    Key,
)

__all__ = ["FOLLOWS", "KEEPS", "PLANS_FOR", "READS", "affected", "fold", "neighbours"]

PLANS_FOR = (CACHE, TEMPLATE, CONFIG)
FOLLOWS = (CACHE, TEMPLATE, SERVICE, CONFIG, CONFIG_MAP, CLAIM, JOB, POD, STORAGE_CLASS)
KEEPS = (CLAIM,)
_MADE_NAME = re.compile(r".*-[0-9a-f]{8}")
READS = {
    CACHE.kind: frozenset(
        {READY, FILLED, "conditions", "status", "progress", "sizeBytes", "attempts"}
    ),
    TEMPLATE.kind: frozenset({"modelSources"}),
}
"""By kind, the conditions and status fields that it reads on the objects."""


def affected(seen: Projection, key: Key) -> Iterable[Key]:
    """Keys to look at again when the object at `key` changes or goes."""
    present = seen.get(key)
    match key.kind:
        case "ModelCache":
            yield key
            yield from (other.key for other in _siblings(seen, present))
            yield from _templates(seen, key, present)
        case "AIMServiceTemplate":
            yield key
        case "AIMService":
            if present is not None:
                yield Key(TEMPLATE.kind, key.namespace, str(present.spec.get("templateRef")))
        case "AIMNamespaceConfig":
            yield key
            yield from (cache.key for cache in seen.all(CACHE.kind, key.namespace))
        case "StorageClass":
            yield from (
                config.key
                for config in seen.everywhere(CONFIG.kind)
                if config.spec.get("cacheStorageClassName")
            )
            yield from (cache.key for cache in seen.everywhere(CACHE.kind))
        case "ConfigMap":
            yield from _owner(present, TEMPLATE.kind)
        case "PersistentVolumeClaim" | "Job":
            yield from _owner(present, CACHE.kind)
            yield from _waiting_for_name(seen, key)
        case "Pod":
            for cache in (
                cache
                for job in _owner(present, JOB.kind)
                for cache in _owner(seen.get(job), CACHE.kind)
            ):
                yield cache
                yield config_of(seen.get(cache), cache.namespace)
            yield from _waiting_for_claims(seen, present)


def config_of(cache: Seen | None, namespace: str | None) -> Key:
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


def askers(seen: Projection, template: Seen) -> list[Seen]:
    """Who wants the models of a template cached: the template itself where it says warmCache,
    and services; oldest first."""
    services = (
        service
        for service in seen.find(SERVICES_BY_TEMPLATE, template.key.name, template.key.namespace)
        if service.spec.get("cacheModel", True)
    )
    return oldest_first([*services, *([template] if template.spec.get("warmCache") else [])])


def askers_of(seen: Projection, namespace: str | None, source: str) -> list[Seen]:
    """Who wants a source cached, by whichever template; oldest first. While an image is asked
    again, its last answer still counts."""
    return oldest_first(
        asker
        for template in templates_of(seen, namespace, source)
        for asker in askers(seen, template)
    )


def neighbours(before: Projection, after: Projection, key: Key) -> Iterable[Key]:
    """Caches that have failed and may have lost the last one who asked for them."""
    match key.kind:
        case "AIMServiceTemplate":
            lost = _asked(before, key) - _asked(after, key)
        case "AIMService":
            templates = {_template_of(seen, key) for seen in (before, after)}
            lost = frozenset().union(
                *(
                    _asked(before, each) - _asked(after, each)
                    for each in templates
                    if each is not None
                )
            )
        case "ConfigMap":
            owners = [
                owner for seen in (before, after) for owner in _owner(seen.get(key), TEMPLATE.kind)
            ]
            lost = frozenset().union(
                *(_asked(before, each) - _asked(after, each) for each in owners)
            )
        case _:
            return
    for source in lost:
        yield from (
            cache.key
            for cache in caches_of(after, key.namespace, source)
            if cache.status.get("status") == FAILED_STATE
        )


def _template_of(seen: Projection, service: Key) -> Key | None:
    present = seen.get(service)
    return (
        None
        if present is None
        else Key(TEMPLATE.kind, service.namespace, str(present.spec.get("templateRef")))
    )


def _asked(seen: Projection, key: Key) -> frozenset[str]:
    """Sources that are wanted through a template."""
    template = seen.get(key)
    if template is None or not askers(seen, template):
        return frozenset()
    found = discovered(seen, template)
    return frozenset(
        found.sources if found is not None else template.status.get("modelSources") or ()
    )


def _siblings(seen: Projection, cache: Seen | None) -> list[Seen]:
    return (
        []
        if cache is None
        else caches_of(seen, cache.key.namespace, str(cache.spec.get("sourceUri")))
    )


def _templates(seen: Projection, key: Key, cache: Seen | None) -> list[Key]:
    """Those that ask for what it holds; where it may have the name of another source's cache,
    all."""
    source = "" if cache is None else str(cache.spec.get("sourceUri"))
    own_name = key.name == cache_for(source) or not _MADE_NAME.fullmatch(key.name)
    found = (
        templates_of(seen, key.namespace, source)
        if own_name
        else seen.all(TEMPLATE.kind, key.namespace)
    )
    return [template.key for template in found]


def _waiting_for_name(seen: Projection, key: Key) -> list[Key]:
    """The cache that needs this name, also where the object is not its own."""
    cache = Key(CACHE.kind, key.namespace, key.name.rpartition("-")[0])
    return [cache] if seen.get(cache) is not None else []


def _waiting_for_claims(seen: Projection, pod: Seen | None) -> Iterator[Key]:
    """Caches whose claim is being deleted and is mounted by the pod."""
    for name in () if pod is None else claims_mounted(pod.body):
        claim = seen.get(Key(CLAIM.kind, pod.key.namespace if pod is not None else None, name))
        if claim is not None and claim.deleting:
            yield from _owner(claim, CACHE.kind)
            yield from _waiting_for_name(seen, claim.key)


def _owner(present: Seen | None, kind: str) -> list[Key]:
    owner = None if present is None else present.owner(kind)
    return [] if owner is None else [owner]
