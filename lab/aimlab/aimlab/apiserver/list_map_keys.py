"""Which lists of the built-in kinds merge by key: the little of their schemas that apply and
strategic merge need.

Everything not named here is untyped: maps merge field by field, lists are replaced whole. The
spelling is that of structural schemas.
"""

from aimlab.apiserver.objects import Obj


def keyed(*keys: str, items: Obj | None = None) -> Obj:
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
    ownerReferences=keyed("uid"), finalizers={"type": "array", "x-kubernetes-list-type": "set"}
)
CONDITIONS = of(conditions=keyed("type"))
PROTOCOL = of(protocol={"default": "TCP"})
CONTAINER = of(
    env=keyed("name"),
    ports=keyed("containerPort", "protocol", items=PROTOCOL),
    volumeMounts=keyed("mountPath"),
    volumeDevices=keyed("devicePath"),
)
POD_SPEC = of(
    containers=keyed("name", items=CONTAINER),
    initContainers=keyed("name", items=CONTAINER),
    ephemeralContainers=keyed("name", items=CONTAINER),
    volumes=keyed("name"),
    imagePullSecrets=keyed("name"),
    hostAliases=keyed("ip"),
)
TEMPLATE = of(template=of(metadata=META, spec=POD_SPEC))

SHAPES: dict[str, Obj] = {
    "Pod": of(
        metadata=META, spec=POD_SPEC, status=of(conditions=keyed("type"), podIPs=keyed("ip"))
    ),
    "Job": of(metadata=META, spec=TEMPLATE, status=CONDITIONS),
    "Deployment": of(metadata=META, spec=TEMPLATE, status=CONDITIONS),
    "ReplicaSet": of(metadata=META, spec=TEMPLATE, status=CONDITIONS),
    "StatefulSet": of(metadata=META, spec=TEMPLATE, status=CONDITIONS),
    "Service": of(
        metadata=META, spec=of(ports=keyed("port", "protocol", items=PROTOCOL)), status=CONDITIONS
    ),
    "ServiceAccount": of(metadata=META, secrets=keyed("name"), imagePullSecrets=keyed("name")),
    "Node": of(
        metadata=META,
        spec=of(taints={}),
        status=of(conditions=keyed("type"), addresses=keyed("type")),
    ),
}
DEFAULT = of(metadata=META, status=CONDITIONS)
