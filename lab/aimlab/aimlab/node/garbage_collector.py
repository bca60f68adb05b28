"""Deletes objects without owners, for API servers without kube-controller-manager (such as
envtest's).

Guarantees that no object is deleted whose owner exists. The state may be old, so a missing owner is
first requested from the server. Owners of unknown kinds count as existing. The next reconcile
handles the children of deleted objects.
"""

import asyncio

from aimkube import Cluster, KubeError, NotFound
from aimlab.controller_loop import COALESCE_S, RETRY_S, delete_of, try_write
from aimlab.informer import Informer, Objects
from aimlab.kinds import SERVICE, Body, is_deleting, uid_of
from aimschema.resources import DEPLOYMENT, ENDPOINT_SLICE, WATCHED, Resource

KINDS = (*WATCHED, SERVICE, ENDPOINT_SLICE, DEPLOYMENT)
_RESOURCES = {(resource.api_version, resource.kind): resource for resource in KINDS}


def orphans(state: Objects) -> list[tuple[Resource, Body]]:
    """Objects with owners of which none is in the state. Pure."""
    held = [(resource, body) for resource in KINDS for body in state.all(resource)]
    existing_uids = {uid_of(body) for _, body in held}
    return [
        (resource, body)
        for resource, body in held
        if not is_deleting(body) and (uids := _owner_uids(body)) and not uids & existing_uids
    ]


def _owner_uids(body: Body) -> set[str]:
    return {reference["uid"] for reference in body["metadata"].get("ownerReferences") or ()}


async def collect(cluster: Cluster, mirror: Informer) -> None:
    """Works until cancelled."""
    changed = mirror.listen()
    await mirror.loaded.wait()
    while True:
        changed.clear()
        done = [
            await _collect_one(cluster, resource, body)
            for resource, body in orphans(mirror.objects)
        ]
        if all(done):
            await changed.wait()
        else:
            await asyncio.sleep(RETRY_S)
        await asyncio.sleep(COALESCE_S)


async def _collect_one(cluster: Cluster, resource: Resource, body: Body) -> bool:
    """False where it has to be tried again."""
    try:
        if any(
            [
                await _exists(cluster, body, reference)
                for reference in body["metadata"]["ownerReferences"]
            ]
        ):
            return True
    except KubeError:
        return False
    return await try_write(cluster, delete_of(resource, body))


async def _exists(cluster: Cluster, body: Body, reference: Body) -> bool:
    """Raises KubeError."""
    resource = _RESOURCES.get((reference["apiVersion"], reference["kind"]))
    if resource is None:
        return True
    try:
        owner = await cluster.get(
            resource,
            body["metadata"].get("namespace") if resource.namespaced else None,
            reference["name"],
        )
    except NotFound:
        return False
    uid: str = reference["uid"]
    return uid_of(owner) == uid
