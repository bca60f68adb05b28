"""meta.k8s.io/v1 Table: what kubectl prints. Pure.

Columns of built-in kinds are functions here, those of custom kinds JSONPaths of their definition.
"""

from collections.abc import Callable, Iterable
from datetime import datetime

from aimlab.apiserver import jsonpath
from aimlab.apiserver.kinds import Resource
from aimlab.apiserver.objects import Json, Obj, dig

NAME: Obj = {
    "name": "Name",
    "type": "string",
    "format": "name",
    "description": (
        "Name must be unique within a namespace. Is required when creating resources, although some"
        " resources may allow a client to request the generation of an appropriate name"
        " automatically. Name is primarily intended for creation idempotence and configuration"
        " definition. Cannot be updated. More info:"
        " https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"
    ),
    "priority": 0,
}
Cell = Callable[[Obj, datetime], Json]


def table(
    resource: Resource, objects: Iterable[Obj], now: datetime, *, include: str, metadata: Obj
) -> Obj:
    """The objects as a Table. `include` is what goes into each row: Metadata, Object or None."""
    columns = [NAME, *_definitions(resource)]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": [{"cells": _cells(resource, obj, now), **_object(obj, include)} for obj in objects],
    }


def _object(obj: Obj, include: str) -> Obj:
    match include:
        case "None":
            return {}
        case "Object":
            return {"object": obj}
        case _:
            return {"object": partial(obj)}


def partial(obj: Obj) -> Obj:
    """An object's metadata alone."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": obj["metadata"],
    }


def _definitions(resource: Resource) -> list[Obj]:
    if not resource.custom:
        rows = COLUMNS.get(resource.plural, AGE_ONLY)
        return [
            {"name": name, "type": kind, "format": "", "description": "", "priority": priority}
            for name, kind, priority, _ in rows
        ]
    return [
        {
            "name": column["name"],
            "type": column["type"],
            "format": column.get("format", ""),
            "description": (
                column.get("description")
                or f"Custom resource definition column (in JSONPath format): {column['jsonPath']}"
            ),
            "priority": column.get("priority", 0),
        }
        for column in resource.columns
    ]


def _cells(resource: Resource, obj: Obj, now: datetime) -> list[Json]:
    name = obj["metadata"].get("name", "")
    if not resource.custom:
        return [name, *(cell(obj, now) for _, _, _, cell in COLUMNS.get(resource.plural, AGE_ONLY))]
    return [name, *(_custom(column, obj, now) for column in resource.columns)]


def _custom(column: Obj, obj: Obj, now: datetime) -> Json:
    found = jsonpath.find(obj, column["jsonPath"])
    if not found:
        return None
    value = found[0]
    match column["type"]:
        case "date":
            return age(value, now) if isinstance(value, str) else None
        case "integer" | "number" | "boolean":
            return value if isinstance(value, bool | int | float) else None
        case _:
            if value is None or isinstance(value, str):
                return value
            return str(value).lower() if isinstance(value, bool) else str(value)


def age(time: Json, now: datetime) -> str:
    """How long ago, in kubectl's short form; `<unknown>` without a time."""
    if not isinstance(time, str):
        return "<unknown>"
    return short((now - datetime.fromisoformat(time)).total_seconds())


def short(seconds: float) -> str:
    """Seconds as kubectl shows a duration: the two units that matter."""
    whole = max(0, int(seconds))
    minutes = whole // 60
    hours = whole // 3600
    days = whole // 86400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    return _two(days // 365, "y", days % 365, "d")


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def path(*names: str, otherwise: Json = "") -> Cell:
    """A cell that shows one field."""

    def cell(obj: Obj, _now: datetime) -> Json:
        found = dig(obj, *names)
        return otherwise if found is None else found

    return cell


def _age(obj: Obj, now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _pod_ready(obj: Obj, _now: datetime) -> str:
    ready = sum(bool(found.get("ready")) for found in dig(obj, "status", "containerStatuses") or ())
    return f"{ready}/{len(dig(obj, 'spec', 'containers') or ())}"


def _pod_status(obj: Obj, _now: datetime) -> str:
    text = dig(obj, "status", "reason") or dig(obj, "status", "phase") or "Unknown"
    for found in dig(obj, "status", "containerStatuses") or ():
        for state in ("waiting", "terminated"):
            reason = dig(found, "state", state, "reason")
            if reason:
                text = reason
            elif state == "terminated" and dig(found, "state", state):
                text = f"ExitCode:{found['state'][state].get('exitCode', 0)}"
    return "Terminating" if "deletionTimestamp" in obj["metadata"] else str(text)


def _restarts(obj: Obj, _now: datetime) -> str:
    return str(
        sum(
            int(found.get("restartCount") or 0)
            for found in dig(obj, "status", "containerStatuses") or ()
        )
    )


def _job_status(obj: Obj, _now: datetime) -> str:
    on = {
        found["type"]
        for found in dig(obj, "status", "conditions") or ()
        if found.get("status") == "True"
    }
    for condition, text in (
        ("Complete", "Complete"),
        ("Failed", "Failed"),
        ("Suspended", "Suspended"),
        ("FailureTarget", "FailureTarget"),
    ):
        if condition in on:
            return text
    return "Terminating" if "deletionTimestamp" in obj["metadata"] else "Running"


def _job_completions(obj: Obj, _now: datetime) -> str:
    return f"{dig(obj, 'status', 'succeeded') or 0}/{dig(obj, 'spec', 'completions') or 1}"


def _job_duration(obj: Obj, now: datetime) -> str:
    start, end = dig(obj, "status", "startTime"), dig(obj, "status", "completionTime")
    return "" if not start else age(start, datetime.fromisoformat(end) if end else now)


MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def _modes(obj: Obj, _now: datetime) -> str:
    bound = obj["kind"] == "PersistentVolume" or dig(obj, "spec", "volumeName")
    return (
        ",".join(MODES.get(mode, mode) for mode in dig(obj, "spec", "accessModes") or ())
        if bound
        else ""
    )


def _pvc_capacity(obj: Obj, _now: datetime) -> str:
    return (
        str(dig(obj, "status", "capacity", "storage") or "")
        if dig(obj, "spec", "volumeName")
        else ""
    )


def _terminating(*names: str) -> Cell:
    def cell(obj: Obj, _now: datetime) -> str:
        return (
            "Terminating" if "deletionTimestamp" in obj["metadata"] else str(dig(obj, *names) or "")
        )

    return cell


def _node_status(obj: Obj, _now: datetime) -> str:
    ready = {
        found["type"]: found["status"] for found in dig(obj, "status", "conditions") or ()
    }.get("Ready")
    text = "NotReady" if ready else "Unknown"
    if ready == "True":
        text = "Ready"
    return f"{text},SchedulingDisabled" if dig(obj, "spec", "unschedulable") else text


def _roles(obj: Obj, _now: datetime) -> str:
    prefix = "node-role.kubernetes.io/"
    roles = sorted(
        key.removeprefix(prefix)
        for key in dig(obj, "metadata", "labels") or ()
        if key.startswith(prefix)
    )
    return ",".join(roles) or "<none>"


def _last_observed(obj: Obj, now: datetime) -> str:
    return age(
        obj.get("lastTimestamp")
        or dig(obj, "series", "lastObservedTime")
        or obj.get("eventTime")
        or obj.get("firstTimestamp"),
        now,
    )


def _event_object(obj: Obj, _now: datetime) -> str:
    involved = obj.get("involvedObject") or obj.get("regarding") or {}
    return f"{str(involved.get('kind') or '').lower()}/{involved.get('name', '')}"


def _note(obj: Obj, _now: datetime) -> str:
    return str(obj.get("message") or obj.get("note") or "").strip()


def _count(*names: str) -> Cell:
    return lambda obj, _now: sum(len(obj.get(name) or ()) for name in names)


def _ports(obj: Obj, _now: datetime) -> str:
    ports = [
        f"{port.get('port')}/{port.get('protocol', 'TCP')}"
        for port in dig(obj, "spec", "ports") or ()
    ]
    return ",".join(ports) or "<none>"


def _slice_ports(obj: Obj, _now: datetime) -> str:
    return ",".join(str(port.get("port")) for port in obj.get("ports") or ()) or "<unset>"


def _slice_endpoints(obj: Obj, _now: datetime) -> str:
    return (
        ",".join(
            address
            for endpoint in obj.get("endpoints") or ()
            for address in endpoint.get("addresses") or ()
        )
        or "<unset>"
    )


def _of(*names: str) -> Cell:
    return lambda obj, _now: f"{dig(obj, *names) or 0}/{dig(obj, 'spec', 'replicas') or 0}"


def _claim(obj: Obj, _now: datetime) -> str:
    ref = dig(obj, "spec", "claimRef") or {}
    return f"{ref.get('namespace', '')}/{ref.get('name', '')}" if ref else ""


def _subjects(obj: Obj, _now: datetime) -> str:
    return f"{dig(obj, 'roleRef', 'kind')}/{dig(obj, 'roleRef', 'name')}"


AGE: tuple[str, str, int, Cell] = ("Age", "string", 0, _age)
AGE_ONLY = (AGE,)
CREATED: tuple[str, str, int, Cell] = (
    "Created At",
    "date",
    0,
    path("metadata", "creationTimestamp"),
)

# column name, type, priority (1: only with -o wide), cell
COLUMNS: dict[str, tuple[tuple[str, str, int, Cell], ...]] = {
    "pods": (
        ("Ready", "string", 0, _pod_ready),
        ("Status", "string", 0, _pod_status),
        ("Restarts", "string", 0, _restarts),
        AGE,
        ("IP", "string", 1, path("status", "podIP", otherwise="<none>")),
        ("Node", "string", 1, path("spec", "nodeName", otherwise="<none>")),
    ),
    "jobs": (
        ("Status", "string", 0, _job_status),
        ("Completions", "string", 0, _job_completions),
        ("Duration", "string", 0, _job_duration),
        AGE,
    ),
    "persistentvolumeclaims": (
        ("Status", "string", 0, _terminating("status", "phase")),
        ("Volume", "string", 0, path("spec", "volumeName")),
        ("Capacity", "string", 0, _pvc_capacity),
        ("Access Modes", "string", 0, _modes),
        ("StorageClass", "string", 0, path("spec", "storageClassName")),
        AGE,
        ("VolumeMode", "string", 1, path("spec", "volumeMode")),
    ),
    "persistentvolumes": (
        ("Capacity", "string", 0, path("spec", "capacity", "storage")),
        ("Access Modes", "string", 0, _modes),
        ("Reclaim Policy", "string", 0, path("spec", "persistentVolumeReclaimPolicy")),
        ("Status", "string", 0, _terminating("status", "phase")),
        ("Claim", "string", 0, _claim),
        ("StorageClass", "string", 0, path("spec", "storageClassName")),
        AGE,
    ),
    "namespaces": (("Status", "string", 0, path("status", "phase")), AGE),
    "nodes": (
        ("Status", "string", 0, _node_status),
        ("Roles", "string", 0, _roles),
        AGE,
        ("Version", "string", 0, path("status", "nodeInfo", "kubeletVersion")),
    ),
    "events": (
        ("Last Seen", "string", 0, _last_observed),
        ("Type", "string", 0, path("type")),
        ("Reason", "string", 0, path("reason")),
        ("Object", "string", 0, _event_object),
        ("Message", "string", 0, _note),
    ),
    "services": (
        ("Type", "string", 0, path("spec", "type")),
        ("Cluster-IP", "string", 0, path("spec", "clusterIP", otherwise="<none>")),
        ("External-IP", "string", 0, path("spec", "externalName", otherwise="<none>")),
        ("Port(s)", "string", 0, _ports),
        AGE,
    ),
    "configmaps": (("Data", "integer", 0, _count("data", "binaryData")), AGE),
    "secrets": (("Type", "string", 0, path("type")), ("Data", "integer", 0, _count("data")), AGE),
    "deployments": (
        ("Ready", "string", 0, _of("status", "readyReplicas")),
        ("Up-to-date", "integer", 0, path("status", "updatedReplicas", otherwise=0)),
        ("Available", "integer", 0, path("status", "availableReplicas", otherwise=0)),
        AGE,
    ),
    "replicasets": (
        ("Desired", "integer", 0, path("spec", "replicas", otherwise=0)),
        ("Current", "integer", 0, path("status", "replicas", otherwise=0)),
        ("Ready", "integer", 0, path("status", "readyReplicas", otherwise=0)),
        AGE,
    ),
    "storageclasses": (
        ("Provisioner", "string", 0, path("provisioner")),
        ("ReclaimPolicy", "string", 0, path("reclaimPolicy")),
        ("VolumeBindingMode", "string", 0, path("volumeBindingMode")),
        ("AllowVolumeExpansion", "boolean", 0, path("allowVolumeExpansion", otherwise=False)),
        AGE,
    ),
    "leases": (("Holder", "string", 0, path("spec", "holderIdentity")), AGE),
    "endpointslices": (
        ("AddressType", "string", 0, path("addressType")),
        ("Ports", "string", 0, _slice_ports),
        ("Endpoints", "string", 0, _slice_endpoints),
        AGE,
    ),
    "customresourcedefinitions": (CREATED,),
    "roles": (CREATED,),
    "clusterroles": (CREATED,),
    "rolebindings": (("Role", "string", 0, _subjects), AGE),
    "clusterrolebindings": (("Role", "string", 0, _subjects), AGE),
}
