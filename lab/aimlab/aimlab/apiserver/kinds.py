"""What kinds there are: one `Resource` for each group, version and plural, built in or from a
CustomResourceDefinition."""

from collections.abc import Callable
from dataclasses import dataclass, field

from aimlab.apiserver import events, list_map_keys
from aimlab.apiserver.cel import Rules
from aimlab.apiserver.objects import Obj
from aimschema.resources import qualified_name

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
CUSTOM_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A kind as one group and version serves it.

    `storage` names the collection: versions of one kind share it. `schema` is a custom kind's
    structural schema, None for built-in kinds. `shape` is which lists merge by key.
    `to_storage` and `from_storage` convert between this version and the stored form.
    """

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    storage: tuple[str, str]
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False
    subresources: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    fields: frozenset[str] = frozenset()
    schema: Obj | None = None
    rules: Rules | None = None
    shape: Obj = field(default_factory=lambda: list_map_keys.DEFAULT)
    columns: tuple[Obj, ...] = ()
    list_kind: str = ""
    counts_generation: bool = False
    blind_update: bool = True
    path_names: bool = False
    returns_deleted: bool = False
    to_storage: Callable[[Obj], Obj] | None = None
    from_storage: Callable[[Obj], Obj] | None = None

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def full_name(self) -> str:
        """`widgets.lab.example.com`, `pods`."""
        return qualified_name(self.plural, self.group)

    @property
    def custom(self) -> bool:
        return self.schema is not None

    @property
    def selectable(self) -> frozenset[str]:
        """The paths a fieldSelector may name."""
        return self.fields | (
            {"metadata.name", "metadata.namespace"} if self.namespaced else {"metadata.name"}
        )

    def view(self, stored: Obj) -> Obj:
        """A stored object as this version shows it."""
        if self.from_storage:
            return self.from_storage(stored)
        return (
            stored
            if stored["apiVersion"] == self.api_version
            else {**stored, "apiVersion": self.api_version}
        )


@dataclass(frozen=True)
class _Builtin:
    """One line of the table below; `flags` are single characters, see `_resource`."""

    kind: str
    plural: str
    short_names: str = ""
    flags: str = ""
    fields: str = ""


# flags: c cluster-scoped, s has a status subresource, g counts generations, a in category all, u
# update needs a resourceVersion, n any name that fits in a path, d delete answers with the object
TABLE: dict[str, tuple[_Builtin, ...]] = {
    "v1": (
        _Builtin("ConfigMap", "configmaps", "cm"),
        _Builtin("Endpoints", "endpoints", "ep"),
        _Builtin("Event", "events", "ev", "", " ".join(events.CORE_FIELDS)),
        _Builtin("LimitRange", "limitranges", "limits"),
        _Builtin("Namespace", "namespaces", "ns", "cs", "status.phase"),
        _Builtin("Node", "nodes", "no", "cs", "spec.unschedulable"),
        _Builtin("PersistentVolumeClaim", "persistentvolumeclaims", "pvc", "sd"),
        _Builtin("PersistentVolume", "persistentvolumes", "pv", "csd"),
        _Builtin(
            "Pod",
            "pods",
            "po",
            "sgad",
            "spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName"
            " status.phase status.podIP status.nominatedNodeName",
        ),
        _Builtin("ResourceQuota", "resourcequotas", "quota", "sd"),
        _Builtin("Secret", "secrets", "", "", "type"),
        _Builtin("ServiceAccount", "serviceaccounts", "sa", "d"),
        _Builtin("Service", "services", "svc", "sad", "spec.clusterIP spec.type"),
    ),
    "apps/v1": (
        _Builtin("Deployment", "deployments", "deploy", "sga"),
        _Builtin("ReplicaSet", "replicasets", "rs", "sga"),
        _Builtin("StatefulSet", "statefulsets", "sts", "sga"),
    ),
    "batch/v1": (_Builtin("Job", "jobs", "", "sga", "status.successful"),),
    "discovery.k8s.io/v1": (_Builtin("EndpointSlice", "endpointslices", "", "g"),),
    "storage.k8s.io/v1": (_Builtin("StorageClass", "storageclasses", "sc", "c"),),
    "coordination.k8s.io/v1": (_Builtin("Lease", "leases", "", "u"),),
    "events.k8s.io/v1": (_Builtin("Event", "events", "ev", "", " ".join(events.NEW_FIELDS)),),
    "admissionregistration.k8s.io/v1": (
        _Builtin("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "", "cg"),
        _Builtin("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "", "cg"),
        _Builtin("ValidatingAdmissionPolicy", "validatingadmissionpolicies", "", "csg"),
        _Builtin("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", "", "cg"),
    ),
    "policy/v1": (_Builtin("PodDisruptionBudget", "poddisruptionbudgets", "pdb", "sg"),),
    "networking.k8s.io/v1": (_Builtin("NetworkPolicy", "networkpolicies", "netpol", "g"),),
    "rbac.authorization.k8s.io/v1": (
        _Builtin("ClusterRoleBinding", "clusterrolebindings", "", "cn"),
        _Builtin("ClusterRole", "clusterroles", "", "cn"),
        _Builtin("RoleBinding", "rolebindings", "", "n"),
        _Builtin("Role", "roles", "", "n"),
    ),
    "apiextensions.k8s.io/v1": (
        _Builtin("CustomResourceDefinition", "customresourcedefinitions", "crd crds", "csgu"),
    ),
}

STATUS_VERBS = ("get", "patch", "update")
EXTRA: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    "Pod": {"binding": ("Binding", ("create",)), "log": ("Pod", ("get",))},
    "Namespace": {"finalize": ("Namespace", ("update",))},
    "ServiceAccount": {"token": ("TokenRequest", ("create",))},
}


def _categories(group: str, row: _Builtin) -> tuple[str, ...]:
    if "a" in row.flags:
        return ("all",)
    return ("api-extensions",) if group == "apiextensions.k8s.io" else ()


def _resource(api_version: str, row: _Builtin) -> Resource:
    group, _, version = api_version.rpartition("/")
    shared_events = group == "events.k8s.io"
    status = {"status": (row.kind, STATUS_VERBS)} if "s" in row.flags else {}
    return Resource(
        group=group,
        version=version,
        kind=row.kind,
        plural=row.plural,
        singular=row.kind.lower(),
        namespaced="c" not in row.flags,
        storage=("", "events") if shared_events else (group, row.plural),
        short_names=tuple(row.short_names.split()),
        categories=_categories(group, row),
        status="s" in row.flags,
        subresources=EXTRA.get(row.kind, {}) | status,
        fields=frozenset(row.fields.split()),
        shape=list_map_keys.SHAPES.get(row.kind, list_map_keys.DEFAULT),
        list_kind=f"{row.kind}List",
        counts_generation="g" in row.flags,
        blind_update="u" not in row.flags,
        path_names="n" in row.flags,
        returns_deleted="d" in row.flags,
        to_storage=events.to_core if shared_events else None,
        from_storage=events.from_core if shared_events else None,
    )


BUILTINS: tuple[Resource, ...] = tuple(
    _resource(api_version, row) for api_version, rows in TABLE.items() for row in rows
)
