"""Whether a cache may be evicted, and if not, why. Pure and total.

A cache is in use if a service or template requests it, an InferenceService has its claim among its
volumes, or a pod mounts it. Only caches that the control plane created are evicted.
"""

import datetime
import re

from aim_cacher.projection import oldest_requester_of_source
from aimcontroller.indexes import INFERENCE_SERVICES_BY_CLAIM, PODS_BY_CLAIM
from aimcontroller.projection import KubeObject, Projection
from aimcontroller.queries import templates_of
from aimcontroller.workloads import is_pod_finished
from aimschema import labels, names, reasons
from aimschema.kinds import Caching, ConfigSpec
from aimschema.messages import parse_timestamp
from aimschema.names import DEFAULT_CONFIG
from aimschema.resources import CONFIG, SERVICE, Key

NEVER = "never"
_PART = re.compile(r"([0-9]+)(ms|h|m|s)")
_UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def user_of(state: Projection, cache: KubeObject) -> KubeObject | None:
    """An object that uses the cache; None if none does."""
    namespace = cache.key.namespace
    claim = names.cache_claim(cache.key.name)
    source = str(cache.spec.get("sourceUri"))
    requester = oldest_requester_of_source(state, namespace, source)
    if requester is not None:
        return requester
    templates = {template.key.name for template in templates_of(state, namespace, source)}
    for service in state.in_namespace(SERVICE.kind, namespace) if templates else ():
        if service.status.get("resolvedTemplate") in templates and not service.deleting:
            return service
    for existing in state.find_lazily(INFERENCE_SERVICES_BY_CLAIM, claim, namespace):
        return existing
    for pod in state.find_lazily(PODS_BY_CLAIM, claim, namespace):
        if not is_pod_finished(pod):
            return pod
    return None


def why_kept(state: Projection, cache: KubeObject) -> str | None:
    """Why a cache cannot be evicted, as the end of a sentence; None if it can."""
    if cache.labels.get(labels.MANAGED_BY) != labels.MANAGED_BY_AIM:
        return "created by a user"
    if cache.annotations.get(labels.ANNOTATION_EVICT) == NEVER:
        return f"annotation {labels.ANNOTATION_EVICT} is {NEVER}"
    user = user_of(state, cache)
    return None if user is None else f"used by {user.key.kind} {user.key.name}"


def used_at(cache: KubeObject) -> str:
    """When it was last used, else since when it is filled, else when it was created."""
    return str(cache.status.get("lastUsed") or _filled_since(cache) or cache.creation_timestamp)


def unused_until(cache: KubeObject, evict_after_s: float | None) -> datetime.datetime | None:
    """From when on a cache has been unused for so long; None if it never was used or filled."""
    since = _time(cache.status.get("lastUsed") or _filled_since(cache))
    if since is None or evict_after_s is None:
        return None
    return since + datetime.timedelta(seconds=min(evict_after_s, 1e9))


def seconds(duration: str | None) -> float | None:
    """A GEP-2257 duration in seconds; None for none."""
    parts = _PART.findall(duration or "")
    return sum(int(number) * _UNIT_S[unit] for number, unit in parts) if parts else None


def marked_at(cache: KubeObject) -> datetime.datetime | None:
    """When it was marked for eviction; None without a mark that is a time."""
    return _time(cache.annotations.get(labels.ANNOTATION_EVICTING))


def deleted_at(obj: KubeObject) -> datetime.datetime | None:
    """When its deletion was requested; None if it was not."""
    return _time(obj.body["metadata"].get("deletionTimestamp"))


def caching_of(state: Projection, namespace: str | None) -> Caching:
    """Quota and eviction of a namespace: those of its config `default`."""
    config = state.get(Key(CONFIG.kind, namespace, DEFAULT_CONFIG))
    spec = None if config is None else config.spec_as(ConfigSpec.model_validate)
    return Caching() if spec is None or spec.caching is None else spec.caching


def _filled_since(cache: KubeObject) -> str | None:
    filled = cache.condition(reasons.FILLED) or {}
    return filled.get("lastTransitionTime") if filled.get("status") == "True" else None


def _time(text: object) -> datetime.datetime | None:
    try:
        found = parse_timestamp(str(text))
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
