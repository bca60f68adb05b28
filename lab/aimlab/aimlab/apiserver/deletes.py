"""What delete does: preconditions, finalizers, grace periods, propagation (garbage collection
itself is in `controllers`). No I/O."""

from dataclasses import dataclass
from datetime import timedelta

from aimlab.apiserver import crd
from aimlab.apiserver.cluster import NAMESPACES, PROTECTED_NAMESPACES, Cluster
from aimlab.apiserver.errors import ApiError, conflict, object_details
from aimlab.apiserver.objects import Obj, clone, dig, stamp
from aimlab.apiserver.store import CollectionKey, Entry
from aimlab.apiserver.writes import Request, Result

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


@dataclass(frozen=True, kw_only=True)
class Options:
    """DeleteOptions. `grace_s` None leaves it to the kind; `propagation` "" too."""

    grace_s: int | None = None
    propagation: str = ""
    uid: str = ""
    resource_version: str = ""


def delete(cluster: Cluster, request: Request, options: Options) -> Result:
    """DELETE of one object: the object while finalizers or a grace period hold it, else a
    Status. ApiError 404, 409, 403."""
    resource = request.resource
    entry = cluster.get(resource, request.namespace, request.name)
    live = entry.obj
    _check(request, live, options)
    finalizers = _finalizers(request, live, options)
    grace_s = _grace_s(live, options)
    stays = bool(finalizers or grace_s) or resource.storage == NAMESPACES
    if not stays:
        if not request.dry_run:
            cluster.store.remove(resource.storage, request.namespace, request.name)
        last = {
            **live,
            "metadata": {**live["metadata"], "resourceVersion": str(cluster.store.version)},
        }
        return Result(
            200, resource.view(last) if resource.returns_deleted else _success(request, live)
        )
    obj = _mark_deleted(cluster, live, finalizers, grace_s)
    if request.dry_run or obj is live:
        return Result(200, resource.view(obj))
    return Result(200, resource.view(cluster.store.put(resource.storage, obj).obj))


def delete_collection(
    cluster: Cluster, request: Request, entries: list[Entry], options: Options
) -> None:
    """DELETE of a selection."""
    for entry in entries:
        metadata = entry.obj["metadata"]
        each = Request(
            resource=request.resource,
            namespace=metadata.get("namespace") or "",
            name=metadata["name"],
            dry_run=request.dry_run,
        )
        delete(cluster, each, options)


def _check(request: Request, live: Obj, options: Options) -> None:
    resource, metadata = request.resource, live["metadata"]
    if options.uid and options.uid != metadata["uid"]:
        why = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record"
            f" ({metadata['uid']}). "
        )
        raise conflict(
            resource.group,
            resource.kind,
            request.name,
            why + "The object might have been deleted and then recreated",
        )
    if options.resource_version and options.resource_version != metadata["resourceVersion"]:
        why = (
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match"
            " the ResourceVersion in record "
        )
        raise conflict(
            resource.group,
            resource.kind,
            request.name,
            why + f"({metadata['resourceVersion']}). The object might have been modified",
        )
    if resource.storage == NAMESPACES and request.name in PROTECTED_NAMESPACES:
        details = object_details("", "namespaces", request.name)
        raise ApiError(
            403,
            "Forbidden",
            f'namespaces "{request.name}" is forbidden: this namespace may not be deleted',
            details,
        )


def _finalizers(request: Request, live: Obj, options: Options) -> list[str]:
    """The finalizers after the deletion is asked for. A Job's Pods are orphaned unless asked
    otherwise, as in Kubernetes."""
    found = list(live["metadata"].get("finalizers") or ())
    policy = options.propagation
    if policy:
        found = [name for name in found if name not in (FOREGROUND, ORPHAN)]
    elif "deletionTimestamp" not in live["metadata"] and request.resource.storage == (
        "batch",
        "jobs",
    ):
        policy = "Orphan"
    finalizer = {"Foreground": FOREGROUND, "Orphan": ORPHAN}.get(policy)
    if finalizer and finalizer not in found:
        found.append(finalizer)
    if request.resource.storage == crd.COLLECTION and crd.CLEANUP not in found:
        found.append(crd.CLEANUP)
    return found


def _grace_s(live: Obj, options: Options) -> int:
    """The grace period in seconds: only Pods on a node that have not ended have one."""
    if (
        live["kind"] != "Pod"
        or not dig(live, "spec", "nodeName")
        or dig(live, "status", "phase") in ("Succeeded", "Failed")
    ):
        return 0
    requested_s = (
        options.grace_s
        if options.grace_s is not None
        else live["spec"].get("terminationGracePeriodSeconds", 30)
    )
    return int(min(requested_s, live["metadata"].get("deletionGracePeriodSeconds", requested_s)))


def _mark_deleted(cluster: Cluster, live: Obj, finalizers: list[str], grace_s: int) -> Obj:
    """The object on its way out; the live one if it was that already."""
    metadata = live["metadata"]
    before = list(metadata.get("finalizers") or ())
    if (
        "deletionTimestamp" in metadata
        and before == finalizers
        and metadata.get("deletionGracePeriodSeconds", 0) <= grace_s
    ):
        return live
    obj: Obj = clone(live)
    metadata = obj["metadata"]
    if "deletionTimestamp" not in metadata and "generation" in metadata:
        metadata["generation"] += 1
    metadata["deletionTimestamp"] = stamp(cluster.now() + timedelta(seconds=grace_s))
    metadata["deletionGracePeriodSeconds"] = grace_s
    if finalizers:
        metadata["finalizers"] = finalizers
    if obj["kind"] == "Namespace":
        obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
        metadata.pop("deletionGracePeriodSeconds")
    if obj["kind"] == crd.KIND:
        terminating = crd.condition(
            "Terminating",
            "InstanceDeletionPending",
            "CustomResourceDefinition marked for deletion",
            cluster.time(),
        )
        obj["status"] = {
            **obj["status"],
            "conditions": [*(obj["status"].get("conditions") or []), terminating],
        }
    return obj


def release(cluster: Cluster, key: CollectionKey, live: Obj, finalizer: str) -> None:
    """Take a finalizer off an object; the last one takes the object with it."""
    metadata = dict(live["metadata"])
    left = [name for name in metadata.pop("finalizers", ()) if name != finalizer]
    obj = {**live, "metadata": {**metadata, **({"finalizers": left} if left else {})}}
    if (
        "deletionTimestamp" in metadata
        and not left
        and not metadata.get("deletionGracePeriodSeconds")
    ):
        cluster.store.remove(key, metadata.get("namespace") or "", metadata["name"], last=obj)
    else:
        cluster.store.put(key, obj)


def _success(request: Request, live: Obj) -> Obj:
    details = object_details(request.resource.group, request.resource.plural, request.name) | {
        "uid": live["metadata"]["uid"]
    }
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    }
