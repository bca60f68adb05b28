"""What a real server's admission plugins do to a valid write: they set defaults and reject.

In the order of a real server: tolerations and limits are set first; then limits, pod security and
quota are checked. No I/O.
"""

from aimlab.apiserver import guests, immutable, limits, pod_security, quota
from aimlab.apiserver.cluster import Cluster
from aimlab.apiserver.errors import ApiError, object_details
from aimlab.apiserver.kinds import Resource
from aimlab.apiserver.objects import Obj, dig, same

STORAGE_CLASSES = ("storage.k8s.io", "storageclasses")
LOST_NODE = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
STAYS_S = 300
"""How long a pod stays on a lost node by default."""


def complete(cluster: Cluster, obj: Obj, *, new: bool) -> None:
    """What plugins add to an object. ApiError 403 for what one of them cannot complete."""
    if obj["kind"] not in {"Pod", "Job"}:
        return
    if new:
        guests.complete(cluster.namespace(obj["metadata"]["namespace"]), obj)
    if obj["kind"] == "Job":
        return
    if new:
        limits.complete(cluster.store, obj)
    known = {toleration.get("key") for toleration in obj["spec"].get("tolerations") or []}
    for key in LOST_NODE:
        if key not in known:
            stay = {
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": STAYS_S,
            }
            obj["spec"].setdefault("tolerations", []).append(stay)


def admit(cluster: Cluster, resource: Resource, obj: Obj, old: Obj | None = None) -> list[str]:
    """Warnings. ApiError 403 where the namespace or the class does not take the object."""
    if resource.custom or not resource.namespaced:
        return []
    if old is None and obj["kind"] in {"Pod", "PersistentVolumeClaim"}:
        limits.require(cluster.store, obj)
    warned = _pod_security(cluster, obj, old)
    if old is not None and immutable.grows(obj, old):
        _require_growth(cluster, obj)
    if old is None or immutable.grows(obj, old):
        quota.require_room(cluster.store, resource, obj, old)
    return warned


def count(cluster: Cluster, resource: Resource, obj: Obj) -> None:
    """What was let in takes its room."""
    if resource.namespaced:
        quota.take(cluster.store, resource, obj)


def _pod_security(cluster: Cluster, obj: Obj, old: Obj | None) -> list[str]:
    """Pods are rejected; workloads only get a warning."""
    namespace = cluster.namespace(obj["metadata"]["namespace"])
    template = dig(obj, "spec", "template", "spec")
    if obj["kind"] == "Pod":
        if old is None or not same(_images(obj), _images(old)):
            pod_security.require(namespace, obj["metadata"]["name"], obj["spec"])
        return []
    changed = old is None or not same(template, dig(old, "spec", "template", "spec"))
    return pod_security.warnings(namespace, template) if template and changed else []


def _images(pod: Obj) -> list[object]:
    return [container.get("image") for container in pod["spec"].get("containers") or []]


def _require_growth(cluster: Cluster, claim: Obj) -> None:
    name, class_name = claim["metadata"]["name"], claim["spec"].get("storageClassName") or ""
    of_class = cluster.store.collections[STORAGE_CLASSES].get("", class_name)
    if of_class is None or not of_class.obj.get("allowVolumeExpansion"):
        provisioned = "only dynamically provisioned pvc can be resized"
        why = f"{provisioned} and the storageclass that provisions the pvc must support resize"
        text = f'persistentvolumeclaims "{name}" is forbidden: {why}'
        raise ApiError(403, "Forbidden", text, object_details("", "persistentvolumeclaims", name))
