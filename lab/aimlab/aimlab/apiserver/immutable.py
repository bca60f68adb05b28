"""Immutable fields of built-in kinds, and how a real API server rejects a change. Pure.

tests/apiserver/transcripts/immutable.jsonl has the recorded answers. Where a real server appends a
dump or a diff of Go structs, only the text before it is here.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal

import msgspec

from aimlab.apiserver import quantity
from aimlab.apiserver.errors import Cause
from aimlab.apiserver.objects import Json, Obj, clone, dig, same

STATEFUL_SET_FREE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)
JOB_FIXED = (
    "completionMode",
    "completions",
    "podFailurePolicy",
    "selector",
    "successPolicy",
    "template",
)
SCHEDULING = ("nodeSelector", "affinity", "tolerations", "schedulingGates")
"""What of its pods a suspended Job that never started lets change: where they run."""
VOLUME_FREE = (
    "capacity",
    "accessModes",
    "claimRef",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "mountOptions",
    "nodeAffinity",
    "volumeAttributesClassName",
    "volumeMode",
)
"""Fields of a PersistentVolume that are not its source."""
FIXED = "field is immutable"


def as_json(value: Json) -> str:
    return msgspec.json.encode(value).decode()


def forbidden_changes(obj: Obj, old: Obj) -> list[Cause]:
    """What of the change from `old` to `obj` is not allowed, both after defaulting."""
    check = CHECKS.get(obj["kind"])
    return list(check(obj, old)) if check else []


def _check_fixed(holder: Obj, old: Obj, names: Iterable[str], prefix: str = "") -> list[Cause]:
    """These fields, each with its new value in the message."""
    return [
        Cause(
            f"{prefix}{name}",
            "FieldValueInvalid",
            f"Invalid value: {as_json(holder.get(name))}: {FIXED}",
        )
        for name in names
        if not same(holder.get(name), old.get(name))
    ]


def _stateful_set(obj: Obj, old: Obj) -> list[Cause]:
    fixed = (obj["spec"].keys() | old["spec"].keys()) - set(STATEFUL_SET_FREE)
    if all(same(obj["spec"].get(name), old["spec"].get(name)) for name in fixed):
        return []
    *most, last = (f"'{name}'" for name in STATEFUL_SET_FREE)
    message = (
        f"updates to statefulset spec for fields other than {', '.join(most)} and {last} are"
        " forbidden"
    )
    return [Cause("spec", "FieldValueForbidden", f"Forbidden: {message}")]


def _selector(obj: Obj, old: Obj) -> list[Cause]:
    return _check_fixed(obj["spec"], old["spec"], ("selector",), "spec.")


def _job(obj: Obj, old: Obj) -> list[Cause]:
    waits = old["spec"].get("suspend") and not dig(old, "status", "startTime")

    def immutable_part(job: Obj) -> Obj:
        spec: Obj = clone(job["spec"])
        if waits:
            spec["template"].pop("metadata", None)
            for name in SCHEDULING:
                spec["template"]["spec"].pop(name, None)
        return spec

    return _check_fixed(immutable_part(obj), immutable_part(old), JOB_FIXED, "spec.")


def _service(obj: Obj, old: Obj) -> list[Cause]:
    """An address, once given, stays; None is one as well."""
    new, before = dig(obj, "spec", "clusterIP"), dig(old, "spec", "clusterIP")
    if not before or not new or new == before or dig(obj, "spec", "type") == "ExternalName":
        return []
    addresses = dig(obj, "spec", "clusterIPs") or [new]
    message = f"Invalid value: {as_json(addresses)}: may not change once set"
    return [Cause("spec.clusterIPs[0]", "FieldValueInvalid", message)]


def _claim(obj: Obj, old: Obj) -> list[Cause]:
    def rest(claim: Obj) -> Obj:
        spec: Obj = clone(claim["spec"])
        for name in ("volumeName", "storageClassName", "volumeAttributesClassName"):
            if not old["spec"].get(name) or name == "volumeAttributesClassName":
                spec.pop(name, None)
        if dig(old, "status", "phase") == "Bound":
            (spec.get("resources") or {}).pop("requests", None)
        return spec

    if not same(rest(obj), rest(old)):
        free = "resources.requests and volumeAttributesClassName for bound claims"
        text = f"Forbidden: spec is immutable after creation except {free}"
        return [Cause("spec", "FieldValueForbidden", text)]
    if _size(obj) < _size(old) and _size(obj) <= _size_of(
        dig(old, "status", "capacity", "storage")
    ):
        message = "Forbidden: field can not be less than status.capacity"
        return [Cause("spec.resources.requests.storage", "FieldValueForbidden", message)]
    return []


def grows(obj: Obj, old: Obj) -> bool:
    """A claim asks for more than it did."""
    return obj["kind"] == "PersistentVolumeClaim" and _size(obj) > _size(old)


def _size(claim: Obj) -> Decimal:
    return _size_of(dig(claim, "spec", "resources", "requests", "storage"))


def _size_of(amount: Json) -> Decimal:
    return quantity.parse(str(amount or "0"))


def _volume(obj: Obj, old: Obj) -> list[Cause]:
    def source(volume: Obj) -> Obj:
        return {name: value for name, value in volume["spec"].items() if name not in VOLUME_FREE}

    causes = [] if same(source(obj), source(old)) else [_volume_source()]
    return causes + _check_fixed(obj["spec"], old["spec"], ("volumeMode",))


def _volume_source() -> Cause:
    field = "spec.persistentvolumesource"
    return Cause(field, "FieldValueForbidden", f"Forbidden: {field} is immutable after creation")


def _storage_class(obj: Obj, old: Obj) -> list[Cause]:
    names = ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode")
    return _check_fixed(obj, old, names)


def _data(obj: Obj, old: Obj) -> list[Cause]:
    """A Secret's type, and everything of what calls itself immutable."""
    causes = _check_fixed(obj, old, ("type",))
    if not old.get("immutable"):
        return causes
    message = "Forbidden: field is immutable when `immutable` is set"
    return causes + [
        Cause(name, "FieldValueForbidden", message)
        for name in ("immutable", "data", "binaryData")
        if not same(obj.get(name), old.get(name))
    ]


def _pod(obj: Obj, old: Obj) -> list[Cause]:
    """Images, a deadline, more tolerations and fewer gates; the binding is a separate write."""

    def immutable_part(pod: Obj) -> Obj:
        spec: Obj = clone(pod["spec"])
        for name in ("activeDeadlineSeconds", "terminationGracePeriodSeconds", "schedulingGates"):
            spec.pop(name, None)
        for name in ("containers", "initContainers"):
            for container in spec.get(name) or []:
                container.pop("image", None)
        if old["spec"].get("schedulingGates"):
            for name in ("nodeSelector", "affinity"):
                spec.pop(name, None)
        spec.pop("tolerations", None)
        return spec

    gates = {gate["name"] for gate in old["spec"].get("schedulingGates") or []}
    for index, gate in enumerate(obj["spec"].get("schedulingGates") or []):
        if gate["name"] not in gates:
            only = "only deletion is allowed, but found new scheduling gate"
            message = f"Forbidden: {only} '{gate['name']}'"
            return [Cause(f"spec.schedulingGates[{index}].name", "FieldValueForbidden", message)]
    before, after = old["spec"].get("tolerations") or [], obj["spec"].get("tolerations") or []
    all_remain = all(any(same(one, other) for other in after) for one in before)
    if same(immutable_part(obj), immutable_part(old)) and all_remain:
        return []
    free = (
        "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations`"
        " (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it"
        " to be set to 1 if it was previously negative)"
    )
    message = f"Forbidden: pod updates may not change fields other than {free}"
    return [Cause("spec", "FieldValueForbidden", message)]


def _role_ref(obj: Obj, old: Obj) -> list[Cause]:
    reference = obj.get("roleRef") or {}
    if same(reference, old.get("roleRef") or {}):
        return []
    shown = {
        "APIGroup": reference.get("apiGroup"),
        "Kind": reference.get("kind"),
        "Name": reference.get("name"),
    }
    message = f"Invalid value: {as_json(shown)}: cannot change roleRef"
    return [Cause("roleRef", "FieldValueInvalid", message)]


def _address_type(obj: Obj, old: Obj) -> list[Cause]:
    return _check_fixed(obj, old, ("addressType",))


CHECKS: dict[str, Callable[[Obj, Obj], list[Cause]]] = {
    "StatefulSet": _stateful_set,
    "Deployment": _selector,
    "ReplicaSet": _selector,
    "Job": _job,
    "Service": _service,
    "PersistentVolumeClaim": _claim,
    "PersistentVolume": _volume,
    "StorageClass": _storage_class,
    "ConfigMap": _data,
    "Secret": _data,
    "Pod": _pod,
    "RoleBinding": _role_ref,
    "ClusterRoleBinding": _role_ref,
    "EndpointSlice": _address_type,
}
