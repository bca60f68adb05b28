"""KServe's part of the laptop cluster: plans the Deployment, Service, endpoints and status of every
InferenceService, as KServe 0.16 does in Standard mode. Pure.

The pods are the Deployment's (`aimlab.node.deployments`, or the cluster's own controller).
"""

from datetime import datetime

from aimlab.controller_loop import Create, Patch, ReconcileResult, Write, delete_of, patch_of
from aimlab.informer import Objects
from aimlab.kinds import SERVICE, Body, is_deleting, is_owned, uid_of
from aimlab.kserve import render
from aimlab.kserve.modes import NEWEST, Version
from aimlab.kserve.status import invalid, not_served, status_of
from aimschema.resources import DEPLOYMENT, ENDPOINT_SLICE, INFERENCE_SERVICE, POD, Resource

WATCHED = (INFERENCE_SERVICE, DEPLOYMENT, POD, SERVICE, ENDPOINT_SLICE)


def plan(state: Objects, now: datetime, version: Version = NEWEST) -> ReconcileResult:
    """One pass over all InferenceServices."""
    writes: list[Write] = []
    for isvc in state.all(INFERENCE_SERVICE):
        if not is_deleting(isvc):
            writes += plan_one(isvc, state, now, version)
    return ReconcileResult(writes)


def plan_one(isvc: Body, state: Objects, now: datetime, version: Version) -> list[Write]:
    """Endpoints before the Deployment, so that the gateway learns first; the status last."""
    if not isvc["spec"].get("predictor", {}).get("containers"):
        why = "the predictor has no container; only custom predictors are served here"
        return _report(isvc, invalid(isvc, why, now))
    mode = version.mode_of(isvc)
    if mode != version.standard:
        return _report(isvc, not_served(mode))
    namespace = isvc["metadata"]["namespace"]
    app = render.app_of(isvc)["app"]
    pods = [
        pod
        for pod in state.all(POD, namespace)
        if (pod["metadata"].get("labels") or {}).get("app") == app
    ]
    writes: list[Write] = []
    for resource, body in (
        (SERVICE, render.service_for(isvc)),
        (ENDPOINT_SLICE, render.endpoints_for(isvc, pods)),
        (DEPLOYMENT, render.deployment_for(isvc)),
    ):
        stopped = render.is_stopped(isvc)
        writes += _remove(resource, body, isvc, state) if stopped else _apply(resource, body, state)
    deployment = state.find(DEPLOYMENT, namespace, render.predictor_name(isvc))
    return writes + _report(isvc, status_of(isvc, mode, deployment, pods, now))


def _remove(resource: Resource, body: Body, isvc: Body, state: Objects) -> list[Write]:
    existing = state.find(resource, body["metadata"]["namespace"], body["metadata"]["name"])
    if existing is None or is_deleting(existing) or not is_owned(existing, uid_of(isvc)):
        return []
    return [delete_of(resource, existing)]


def _apply(resource: Resource, body: Body, state: Objects) -> list[Write]:
    """Makes the object, or repairs what differs from it."""
    metadata = body["metadata"]
    existing = state.find(resource, metadata["namespace"], metadata["name"])
    if existing is None:
        return [Create(resource, body)]
    if is_deleting(existing):
        return []
    annotations = metadata.get("annotations") or {}
    mark = annotations.get(render.RENDERED)
    same_mark = (existing["metadata"].get("annotations") or {}).get(render.RENDERED) == mark
    desired = {field: value for field, value in body.items() if field != "metadata"}
    if same_mark and _contains(existing, desired):
        return []
    patch = {field: _replacing(existing.get(field), value) for field, value in desired.items()}
    metadata_patch = {"labels": metadata["labels"]} | ({"annotations": annotations} if mark else {})
    where = (resource, metadata["namespace"], metadata["name"])
    return [Patch(*where, patch | {"metadata": metadata_patch})]


def _contains(existing: object, desired: object) -> bool:
    """Everything wanted is there; the API server may have added to it."""
    if isinstance(desired, dict):
        found = existing if isinstance(existing, dict) else None
        return found is not None and all(_contains(found.get(key), desired[key]) for key in desired)
    if isinstance(desired, list):
        found_all = existing if isinstance(existing, list) else []
        return len(found_all) == len(desired) and all(map(_contains, found_all, desired))
    return existing == desired


def _replacing(existing: object, desired: object) -> object:
    """A merge patch that takes away what is not wanted; defaults come back by themselves."""
    if not isinstance(existing, dict) or not isinstance(desired, dict):
        return desired
    removed = dict.fromkeys(existing.keys() - desired.keys())
    return removed | {key: _replacing(existing.get(key), value) for key, value in desired.items()}


def _report(isvc: Body, status: Body) -> list[Write]:
    before = isvc.get("status") or {}
    if before == status:
        return []
    patch = {"status": _replacing(before, status)}
    return [patch_of(INFERENCE_SERVICE, isvc, patch, "status")]
