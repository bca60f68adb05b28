"""The kinds the laptop cluster needs beside those the control plane knows, and small readers of
objects as the API serves them."""

from datetime import UTC, datetime
from typing import Any

from aimschema.resources import Resource

Body = dict[str, Any]

SERVICE = Resource("Service", "", "v1", "services")
SECRET = Resource("Secret", "", "v1", "secrets")
RESOURCE_QUOTA = Resource("ResourceQuota", "", "v1", "resourcequotas")
VOLUME = Resource("PersistentVolume", "", "v1", "persistentvolumes", namespaced=False)
RBAC_KINDS = (
    Resource("ClusterRole", "rbac.authorization.k8s.io", "v1", "clusterroles", namespaced=False),
    Resource(
        "ClusterRoleBinding",
        "rbac.authorization.k8s.io",
        "v1",
        "clusterrolebindings",
        namespaced=False,
    ),
    Resource("Role", "rbac.authorization.k8s.io", "v1", "roles"),
    Resource("RoleBinding", "rbac.authorization.k8s.io", "v1", "rolebindings"),
)
STATEFUL_SET = Resource("StatefulSet", "apps", "v1", "statefulsets")


def stamp(time: datetime) -> str:
    """An aware time as Kubernetes writes it: UTC, whole seconds, `Z`."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def time_of(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def uid_of(body: Body) -> str:
    return str(body["metadata"]["uid"])


def is_deleting(body: Body) -> bool:
    """Deletion has been asked for."""
    return "deletionTimestamp" in body["metadata"]


def phase_of(body: Body) -> str:
    return str(body.get("status", {}).get("phase", ""))


def is_finished(pod: Body) -> bool:
    """The pod has ended for good (Pod lifecycle: phases Succeeded and Failed are final)."""
    return phase_of(pod) in {"Succeeded", "Failed"}


def owner_reference(body: Body) -> Body:
    """The reference by which `body` controls what is made for it."""
    metadata = body["metadata"]
    named = {
        "apiVersion": body["apiVersion"],
        "kind": body["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    return named | {"controller": True, "blockOwnerDeletion": True}


def is_owned(body: Body, owner_uid: str) -> bool:
    return any(
        reference.get("uid") == owner_uid
        for reference in body["metadata"].get("ownerReferences", [])
    )


def condition_of(body: Body, kind: str) -> Body | None:
    """The condition of that type, None where there is none."""
    return next(
        (
            item
            for item in body.get("status", {}).get("conditions") or []
            if item.get("type") == kind
        ),
        None,
    )


def is_true(body: Body, kind: str) -> bool:
    found = condition_of(body, kind)
    return found is not None and found.get("status") == "True"


def condition(
    body: Body, kind: str, status: str, now: datetime, *, reason: str = "", message: str = ""
) -> Body:
    """A condition whose lastTransitionTime changes only if `status` differs from that in `body`."""
    before = condition_of(body, kind)
    since = (
        before.get("lastTransitionTime")
        if before is not None and before.get("status") == status
        else None
    )
    made: Body = {"type": kind, "status": status, "lastTransitionTime": since or stamp(now)}
    return made | ({"reason": reason} if reason else {}) | ({"message": message} if message else {})
