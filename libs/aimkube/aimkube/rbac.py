"""What RBAC manifests grant to ServiceAccounts. Pure."""

from collections.abc import Iterable
from itertools import product
from typing import Any, NamedTuple

Body = dict[str, Any]


class Grant(NamedTuple):
    """One verb on one resource (`pods`, `pods/log`). `namespace` "": everywhere. `names`: on
    these objects only."""

    account: str
    namespace: str
    group: str
    resource: str
    names: tuple[str, ...]
    verb: str


def list_grants(manifests: Iterable[Body]) -> list[Grant]:
    """What the bindings among the manifests give, in their order. Raises KeyError for a role
    that is not among them."""
    bodies = list(manifests)
    roles = {
        _place(body): body["rules"] for body in bodies if body["kind"] in {"Role", "ClusterRole"}
    }
    return [
        Grant(
            subject["name"], namespace, group, resource, tuple(rule.get("resourceNames", ())), verb
        )
        for binding in bodies
        if binding["kind"] in {"RoleBinding", "ClusterRoleBinding"}
        for namespace in [binding["metadata"].get("namespace", "")]
        for subject in binding["subjects"]
        for rule in roles[binding["roleRef"]["kind"], namespace, binding["roleRef"]["name"]]
        for group, resource, verb in product(rule["apiGroups"], rule["resources"], rule["verbs"])
    ]


def _place(body: Body) -> tuple[str, str, str]:
    return body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"]
