"""Who may come in though the object itself is valid: pod security and quota, in the order of a real
server's plugins. No I/O.
"""

from aimlab.apiserver import pod_security, quota
from aimlab.apiserver.cluster import Cluster
from aimlab.apiserver.objects import Obj


def admit(cluster: Cluster, obj: Obj) -> None:
    """ApiError 403 where the namespace does not take a new object."""
    if obj["kind"] != "Pod":
        return
    namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
    pod_security.require(cluster.namespace(namespace), name, obj["spec"])
    quota.require_room(cluster.store, namespace, name)
