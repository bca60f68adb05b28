"""Which lists of the built-in kinds merge by key: the little of their schemas that apply and
strategic merge need.

Everything not named here is untyped: maps merge field by field, lists are replaced whole. The
spelling is that of structural schemas.
"""

from aimlab.apiserver.objects import Obj


def list_map_schema(*keys: str, items: Obj | None = None) -> Obj:
    """A list of type map."""
    return {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": list(keys),
        "items": items or {},
    }


def of(**properties: Obj) -> Obj:
    """An object of which some properties are known."""
    return {"properties": properties, "x-kubernetes-preserve-unknown-fields": True}


META = of(
    ownerReferences=list_map_schema("uid"),
    finalizers={"type": "array", "x-kubernetes-list-type": "set"},
)
CONDITIONS = of(conditions=list_map_schema("type"))
PROTOCOL = of(protocol={"default": "TCP"})
CONTAINER = of(
    env=list_map_schema("name"),
    ports=list_map_schema("containerPort", "protocol", items=PROTOCOL),
    volumeMounts=list_map_schema("mountPath"),
    volumeDevices=list_map_schema("devicePath"),
)
POD_SPEC = of(
    containers=list_map_schema("name", items=CONTAINER),
    initContainers=list_map_schema("name", items=CONTAINER),
    ephemeralContainers=list_map_schema("name", items=CONTAINER),
    volumes=list_map_schema("name"),
    imagePullSecrets=list_map_schema("name"),
    hostAliases=list_map_schema("ip"),
)
TEMPLATE = of(template=of(metadata=META, spec=POD_SPEC))

SHAPES: dict[str, Obj] = {
    "Pod": of(
        metadata=META,
        spec=POD_SPEC,
        status=of(conditions=list_map_schema("type"), podIPs=list_map_schema("ip")),
    ),
    "Job": of(metadata=META, spec=TEMPLATE, status=CONDITIONS),
    "Deployment": of(metadata=META, spec=TEMPLATE, status=CONDITIONS),
    "ReplicaSet": of(metadata=META, spec=TEMPLATE, status=CONDITIONS),
    "StatefulSet": of(metadata=META, spec=TEMPLATE, status=CONDITIONS),
    "Service": of(
        metadata=META,
        spec=of(ports=list_map_schema("port", "protocol", items=PROTOCOL)),
        status=CONDITIONS,
    ),
    "ServiceAccount": of(
        metadata=META, secrets=list_map_schema("name"), imagePullSecrets=list_map_schema("name")
    ),
    "Node": of(
        metadata=META,
        spec=of(taints={}),
        status=of(conditions=list_map_schema("type"), addresses=list_map_schema("type")),
    ),
}
DEFAULT = of(metadata=META, status=CONDITIONS)
