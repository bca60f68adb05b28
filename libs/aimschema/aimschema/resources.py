"""Every Kubernetes kind the control plane touches: its group, version, plural and scope.

The API path of an object follows from these four (Kubernetes API concepts, "Resource URIs").
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

AIM_GROUP = "aim.silogen.ai"
AIM_VERSION = "v1alpha1"


class Key(NamedTuple):
    """Which object: `namespace` is None for cluster-scoped kinds."""

    kind: str
    namespace: str | None
    name: str

    def __str__(self) -> str:
        return (
            f"{self.kind}/{self.name}"
            if self.namespace is None
            else f"{self.kind}/{self.namespace}/{self.name}"
        )


@dataclass(frozen=True, slots=True)
class Resource:
    kind: str
    group: str
    version: str
    plural: str
    namespaced: bool = True
    short_names: tuple[str, ...] = field(default=(), compare=False)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """URL path of the collection, of one object or of its subresource; without a namespace,
        of all namespaces."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part is not None]
        return "/" + "/".join(parts)


MODEL = Resource(
    "AIMClusterModel",
    AIM_GROUP,
    AIM_VERSION,
    "aimclustermodels",
    namespaced=False,
    short_names=("aimclm", "aimclmodel"),
)
CONFIG = Resource(
    "AIMNamespaceConfig", AIM_GROUP, AIM_VERSION, "aimnamespaceconfigs", short_names=("aimns",)
)
TEMPLATE = Resource(
    "AIMServiceTemplate", AIM_GROUP, AIM_VERSION, "aimservicetemplates", short_names=("aimst",)
)
SERVICE = Resource("AIMService", AIM_GROUP, AIM_VERSION, "aimservices", short_names=("aimsvc",))
CACHE = Resource("ModelCache", AIM_GROUP, AIM_VERSION, "modelcaches", short_names=("mc",))
AIM_KINDS = (MODEL, CONFIG, TEMPLATE, SERVICE, CACHE)

JOB = Resource("Job", "batch", "v1", "jobs")
POD = Resource("Pod", "", "v1", "pods")
CLAIM = Resource("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims")
CONFIG_MAP = Resource("ConfigMap", "", "v1", "configmaps")
INFERENCE_SERVICE = Resource(
    "InferenceService", "serving.kserve.io", "v1beta1", "inferenceservices"
)
ROUTE = Resource("HTTPRoute", "gateway.networking.k8s.io", "v1", "httproutes")
GATEWAY = Resource("Gateway", "gateway.networking.k8s.io", "v1", "gateways")
BUDGET = Resource("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets")
STORAGE_CLASS = Resource("StorageClass", "storage.k8s.io", "v1", "storageclasses", namespaced=False)
OTHER_KINDS = (
    JOB,
    POD,
    CLAIM,
    CONFIG_MAP,
    INFERENCE_SERVICE,
    ROUTE,
    GATEWAY,
    STORAGE_CLASS,
    BUDGET,
)

WATCHED = AIM_KINDS + OTHER_KINDS
"""What the watcher publishes."""

EVENT = Resource("Event", "events.k8s.io", "v1", "events")
LEASE = Resource("Lease", "coordination.k8s.io", "v1", "leases")
CRD = Resource(
    "CustomResourceDefinition",
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    namespaced=False,
)
NAMESPACE = Resource("Namespace", "", "v1", "namespaces", namespaced=False)
SECRET = Resource("Secret", "", "v1", "secrets")
"""Read only by discovery, by name, in the control plane's own namespace: pull secrets of the
registries it asks."""

NODE = Resource("Node", "", "v1", "nodes", namespaced=False)
ENDPOINT_SLICE = Resource("EndpointSlice", "discovery.k8s.io", "v1", "endpointslices")
NETWORK_POLICY = Resource("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies")
SERVICE_ACCOUNT = Resource("ServiceAccount", "", "v1", "serviceaccounts")
DEPLOYMENT = Resource("Deployment", "apps", "v1", "deployments")
GATEWAY_CLASS = Resource(
    "GatewayClass", "gateway.networking.k8s.io", "v1", "gatewayclasses", namespaced=False
)

RESOURCES: dict[str, Resource] = {
    resource.kind: resource for resource in (*WATCHED, EVENT, LEASE, CRD, NAMESPACE)
}
"""By kind. Kinds of one name in two groups (such as Event) appear with the group this project
uses."""


def key_of(body: dict[str, Any]) -> Key:
    """The key of an object as the API serves it."""
    metadata = body["metadata"]
    return Key(body["kind"], metadata.get("namespace"), metadata["name"])


def qualified_name(name: str, group: str) -> str:
    """A plural or kind with its group, as messages name it: `widgets.lab.example.com`, `pods`."""
    return f"{name}.{group}" if group else name
