"""Admission by ResourceQuota, for the number of pods alone (Kubernetes, "Resource Quotas": object count; pods that have ended do not count).

A real server admits by the usage that a controller wrote into the quota's status; here it is counted at each request.
"""

from aimlab.apiserver import quantity
from aimlab.apiserver.errors import ApiError
from aimlab.apiserver.objects import Obj
from aimlab.apiserver.store import Store

QUOTAS, PODS = ("", "resourcequotas"), ("", "pods")
OVER = frozenset({"Succeeded", "Failed"})


def require_room(store: Store, namespace: str, name: str) -> None:
    """ApiError 403 where a quota of the namespace lets no further pod in; the words are those of the admission plugin `ResourceQuota`."""
    used = sum(1 for pod in _in(store, PODS, namespace) if pod.get("status", {}).get("phase") not in OVER)
    for quota in _in(store, QUOTAS, namespace):
        limit = quota["spec"].get("hard", {}).get("pods")
        if limit is not None and used + 1 > quantity.parse(str(limit)):
            why = f"exceeded quota: {quota['metadata']['name']}, requested: pods=1, used: pods={used}, limited: pods={limit}"
            raise ApiError(403, "Forbidden", f'pods "{name}" is forbidden: {why}', {"name": name, "kind": "pods"})


def _in(store: Store, collection: tuple[str, str], namespace: str) -> list[Obj]:
    return [entry.obj for entry in store.collections[collection].entries(namespace)]
