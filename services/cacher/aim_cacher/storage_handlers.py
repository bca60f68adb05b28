"""Create and evict caches as the API server has them, not as the state does.

1. Claims under a quota are created one after the other. Each is preceded by a list of all claims:
   the quota holds even if an event is late, and after a takeover.
2. A cache is deleted in the version that was read before its users were listed. So a mark that was
   removed meanwhile, or an annotation that keeps the cache, prevents it.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

from aim_cacher.action_handlers import Followers
from aim_cacher.actions import CreateClaim, EvictCache
from aim_cacher.cache_use import NEVER
from aim_cacher.storage_quota import held_bytes
from aimcontroller.action import Action
from aimcontroller.action_log import ActionRecord
from aimcontroller.handler import ActionContext, ActionResult
from aimcontroller.indexes import claims_mounted
from aimcontroller.projection import KubeObject
from aimcontroller.workloads import is_pod_finished
from aimkube import Cluster, Conflict, NotFound
from aimschema import labels, names
from aimschema.reasons import CACHER
from aimschema.resources import CACHE, CLAIM, INFERENCE_SERVICE, POD, SERVICE, TEMPLATE, Key

Body = dict[str, Any]
MANAGER = f"aim-{CACHER}"
FULL_RETRY_S = 5.0
NEW = "1"
"""resourceVersion of an apply that only creates: no object has it."""
log = structlog.get_logger()


class Handlers:
    """The handler of all actions of the cacher."""

    def __init__(self) -> None:
        self._followers = Followers()
        self._creating = asyncio.Lock()

    async def __call__(self, action: Action, ctx: ActionContext) -> ActionResult:
        match action:
            case CreateClaim():
                async with self._creating:
                    return await _create(action, ctx.cluster)
            case EvictCache():
                return await _evict(action, ctx.cluster)
            case _:
                return await self._followers(action, ctx)


async def _create(action: CreateClaim, cluster: Cluster) -> ActionResult:
    """Without room nothing is created: the state lags behind, and the next plan waits."""
    own = str(action.target.namespace)
    asked_bytes = held_bytes(_object(action.body))
    scopes = [([own], action.namespace_bytes), (action.namespaces, action.cluster_bytes)]
    for namespaces, limit_bytes in scopes:
        if limit_bytes is None:
            continue
        used_bytes = 0
        for namespace in namespaces:
            claims = (await cluster.list(CLAIM, namespace)).items
            used_bytes += sum(held_bytes(_object(each)) for each in claims if _is_own(each))
        if used_bytes + asked_bytes > limit_bytes:
            log.info("quota-full", claim=str(action.target), used_bytes=used_bytes)
            return ActionResult(requeue_after_s=FULL_RETRY_S)
    body = {**action.body, "metadata": {**action.body["metadata"], "resourceVersion": NEW}}
    try:
        return ActionResult.from_response(await cluster.apply(body, manager=MANAGER))
    except Conflict:
        # It exists: the event on it is on its way, or the plan reports another owner.
        return ActionResult(requeue_after_s=FULL_RETRY_S)


async def _evict(action: EvictCache, cluster: Cluster) -> ActionResult:
    try:
        cache = await cluster.get(CACHE, action.key.namespace, action.key.name)
    except NotFound:
        return ActionResult()
    metadata = cache["metadata"]
    annotations = metadata.get("annotations") or {}
    is_marked = annotations.get(labels.ANNOTATION_EVICTING) == action.mark
    if metadata["uid"] != action.uid or "deletionTimestamp" in metadata or not is_marked:
        return ActionResult()
    is_kept = annotations.get(labels.ANNOTATION_EVICT) == NEVER
    user = labels.ANNOTATION_EVICT if is_kept else await _user(action, cluster)
    if user is None:
        await cluster.delete_version(cache)
        return ActionResult(record=ActionRecord(detail=action.cause))
    log.info("eviction-cancelled", cache=str(action.key), user=user)
    unmarked = {
        "resourceVersion": metadata["resourceVersion"],
        "uid": action.uid,
        "annotations": {labels.ANNOTATION_EVICTING: None},
    }
    response = await cluster.merge_patch(
        CACHE, action.key.namespace, action.key.name, {"metadata": unmarked}
    )
    version = str(response["metadata"]["resourceVersion"])
    return ActionResult(response, record=ActionRecord(resource_version=version, detail=user))


async def _user(action: EvictCache, cluster: Cluster) -> str | None:
    """An object that uses the cache, in words."""
    namespace = action.key.namespace
    claim = names.cache_claim(action.key.name)
    templates = set(action.templates)
    for template in (await cluster.list(TEMPLATE, namespace)).items:
        name = template["metadata"]["name"]
        if action.source in ((template.get("status") or {}).get("modelSources") or ()):
            templates.add(name)
        if name in templates and template["spec"].get("warmCache"):
            return f"used by {TEMPLATE.kind} {name}"
    for service in (await cluster.list(SERVICE, namespace)).items:
        if _requests(service, templates):
            return f"used by {SERVICE.kind} {service['metadata']['name']}"
    for existing in await _inference_services(cluster, namespace):
        if claim in claims_mounted({"spec": existing.get("spec", {}).get("predictor")}):
            return f"used by {INFERENCE_SERVICE.kind} {existing['metadata']['name']}"
    for pod in (await cluster.list(POD, namespace)).items:
        if claim in claims_mounted(pod) and not is_pod_finished(_object(pod)):
            return f"used by {POD.kind} {pod['metadata']['name']}"
    return None


def _requests(service: Body, templates: set[str]) -> bool:
    spec = service["spec"]
    resolved = (service.get("status") or {}).get("resolvedTemplate")
    reference = spec.get("templateRef") if spec.get("cacheModel", True) else None
    return resolved in templates or reference in templates


async def _inference_services(cluster: Cluster, namespace: str | None) -> Sequence[Body]:
    """InferenceServices; none where KServe is not installed."""
    try:
        return (await cluster.list(INFERENCE_SERVICE, namespace)).items
    except NotFound:
        return ()


def _is_own(claim: Body) -> bool:
    """Whether it is the claim of a cache."""
    owners = claim["metadata"].get("ownerReferences") or ()
    return any(owner.get("kind") == CACHE.kind for owner in owners)


def _object(body: Body) -> KubeObject:
    metadata = body["metadata"]
    key = Key(str(body.get("kind")), metadata.get("namespace"), metadata["name"])
    return KubeObject(key, str(metadata.get("uid")), 0, body)
