"""Reads an existing InferenceService and its predictor pods. Pure and total.

A malformed part counts as absent.
"""

from collections.abc import Iterable
from typing import Any

from aim_deployer.projection import CONTAINER
from aimcontroller.projection import KubeObject, Projection
from aimschema import labels, reasons
from aimschema.names import CLAIM_SUFFIX, cache_claim
from aimschema.resources import CACHE, Key

Body = dict[str, Any]


def is_running(pods: Iterable[KubeObject]) -> bool:
    """Whether a pod is Ready, or has started before: a running pod may hold data that cannot be
    loaded a second time."""
    return any(
        not pod.deleting and (pod.is_condition_true(reasons.READY) or has_started(pod))
        for pod in pods
    )


def is_stopped(existing: KubeObject) -> bool:
    return existing.annotations.get(labels.KSERVE_STOP) == "true"


def uses_config(existing: KubeObject) -> bool:
    """Whether it has pull secrets, credentials or settings of a config: a render without the config
    would remove them."""
    named = existing.annotations.get(labels.ANNOTATION_CONFIG)
    if named is not None:
        return bool(named)
    predictor = _predictor(existing)
    env = [
        variable
        for container in _items(predictor, "containers")
        for variable in _items(container, "env")
    ]
    return bool(predictor.get("imagePullSecrets")) or any(
        "valueFrom" in variable for variable in env
    )


def images(existing: KubeObject) -> frozenset[str]:
    """The images of its containers."""
    containers = _items(_predictor(existing), "containers")
    return frozenset(str(each["image"]) for each in containers if "image" in each)


def mounts(existing: KubeObject) -> dict[str, str]:
    """The claims that it mounts, by mount path."""
    predictor = _predictor(existing)
    claims = {
        str(volume.get("name")): str(_object(volume, "persistentVolumeClaim").get("claimName", ""))
        for volume in _items(predictor, "volumes")
    }
    volume_mounts = [
        mount
        for container in _items(predictor, "containers")
        for mount in _items(container, "volumeMounts")
    ]
    return {
        str(mount.get("mountPath")): claims[str(mount.get("name"))]
        for mount in volume_mounts
        if claims.get(str(mount.get("name")))
    }


def lost_claims(state: Projection, existing: KubeObject) -> list[str]:
    """The mounted claims whose cache is deleted or is being filled again."""
    claims = set(mounts(existing).values())
    return sorted(each for each in claims if not _is_warm(state, existing.key.namespace, each))


def _is_warm(state: Projection, namespace: str | None, claim: str) -> bool:
    cache = state.get(Key(CACHE.kind, namespace, claim.removesuffix(CLAIM_SUFFIX)))
    return (
        cache is not None
        and cache_claim(cache.key.name) == claim
        and not cache.deleting
        and cache.status.get("status") == reasons.AVAILABLE_STATE
    )


def has_started(pod: KubeObject) -> bool:
    return any(
        each.get("name") == CONTAINER
        and each.get("started") is True
        and "running" in _object(each, "state")
        for each in _items(pod.status, "containerStatuses")
    )


def _predictor(existing: KubeObject) -> Body:
    return _object(existing.spec, "predictor")


def _object(holder: Body, field: str) -> Body:
    value = holder.get(field)
    return value if isinstance(value, dict) else {}


def _items(holder: Body, field: str) -> list[Body]:
    """The objects in a list. Other items are dropped; any other value counts as an empty list."""
    value = holder.get(field)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
