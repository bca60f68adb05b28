"""Admission by ResourceQuota (Kubernetes, "Resource Quotas"): compute, storage and object counts.

A real server admits by the usage that a controller wrote into the quota's status. So does the
double if the status has a usage; else it counts at each request. Not supported: scopeSelector, and
the counts of node ports and load balancers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from aimlab.apiserver import quantity
from aimlab.apiserver.errors import ApiError, object_details
from aimlab.apiserver.kinds import Resource
from aimlab.apiserver.objects import Obj, dig
from aimlab.apiserver.store import Store
from aimschema.resources import qualified_name

QUOTAS = ("", "resourcequotas")
OVER = frozenset({"Succeeded", "Failed"})
BARE = frozenset(
    {"pods", "services", "secrets", "configmaps", "persistentvolumeclaims", "resourcequotas"}
)
"""Kinds that are counted by their name alone as well as by `count/`."""
NATIVE = frozenset({"cpu", "memory", "ephemeral-storage"})
MUST_BE_SET = {
    "cpu": ("requests", "cpu"),
    "memory": ("requests", "memory"),
    "requests.cpu": ("requests", "cpu"),
    "requests.memory": ("requests", "memory"),
    "limits.cpu": ("limits", "cpu"),
    "limits.memory": ("limits", "memory"),
}
"""What every container must set under a quota on it."""


@dataclass(frozen=True, slots=True)
class Use:
    """Amounts by the quota's names; those of `binary` are written with units such as Gi."""

    amounts: dict[str, Decimal]
    binary: frozenset[str]

    def amount_text(self, name: str, amount: Decimal) -> str:
        return quantity.text_of(amount, binary=name in self.binary)

    def text(self, name: str, amount: Decimal) -> str:
        return f"{name}={self.amount_text(name, amount)}"


def require_room(store: Store, resource: Resource, obj: Obj, old: Obj | None = None) -> None:
    """ApiError 403 if a quota of the namespace has no room, worded as by the admission plugin."""
    metadata = obj["metadata"]
    for quota in _in(store, QUOTAS, metadata["namespace"]):
        if not _covers(quota, obj):
            continue
        if obj["kind"] == "Pod" and old is None and (missing := _missing(quota, obj["spec"])):
            why = f"failed quota: {quota['metadata']['name']}: must specify {missing}"
            raise _forbidden(resource, metadata["name"], why)
        before = _used_amounts(store, resource, metadata["namespace"], quota)
        if why := _describe_exceeded(
            quota, _use(resource, obj), _use(resource, old) if old else None, before
        ):
            raise _forbidden(resource, metadata["name"], why)


def _describe_exceeded(quota: Obj, new: Use, old: Use | None, before: dict[str, Decimal]) -> str:
    hard = dig(quota, "spec", "hard") or {}
    more = {
        name: amount - (old.amounts.get(name, Decimal(0)) if old else 0)
        for name, amount in new.amounts.items()
    }
    over = sorted(
        name
        for name, amount in more.items()
        if name in hard
        and amount > 0
        and before.get(name, Decimal(0)) + amount > quantity.parse(str(hard[name]))
    )
    if not over:
        return ""
    requested = ",".join(new.text(name, more[name]) for name in over)
    used = ",".join(new.text(name, before.get(name, Decimal(0))) for name in over)
    limited = ",".join(f"{name}={hard[name]}" for name in over)
    return (
        f"exceeded quota: {quota['metadata']['name']}, requested: {requested}, used: {used},"
        f" limited: {limited}"
    )


def _forbidden(resource: Resource, name: str, why: str) -> ApiError:
    kind = qualified_name(resource.plural, resource.group)
    return ApiError(
        403,
        "Forbidden",
        f'{kind} "{name}" is forbidden: {why}',
        object_details(resource.group, resource.plural, name),
    )


def _used_amounts(
    store: Store, resource: Resource, namespace: str, quota: Obj
) -> dict[str, Decimal]:
    """By the quota's status where there is one, else counted."""
    written = dig(quota, "status", "used")
    if written:
        return {name: quantity.parse(str(amount)) for name, amount in written.items()}
    total: dict[str, Decimal] = {}
    for obj in _in(store, resource.storage, namespace):
        if _covers(quota, obj):
            for name, amount in _use(resource, obj).amounts.items():
                total[name] = total.get(name, Decimal(0)) + amount
    return total


def take(store: Store, resource: Resource, obj: Obj) -> None:
    """Adds a new object to the usage that a status has, as the plugin does."""
    use = _use(resource, obj)
    for quota in _in(store, QUOTAS, obj["metadata"]["namespace"]):
        used = dig(quota, "status", "used") or {}
        counted = [name for name in used if name in use.amounts] if _covers(quota, obj) else []
        if counted:
            more = {
                name: use.amount_text(name, quantity.parse(str(used[name])) + use.amounts[name])
                for name in counted
            }
            status = {**quota["status"], "used": {**used, **more}}
            store.put(QUOTAS, {**quota, "metadata": dict(quota["metadata"]), "status": status})


def _covers(quota: Obj, obj: Obj) -> bool:
    """Scopes are about pods; pods that have ended do not count."""
    scopes = dig(quota, "spec", "scopes") or []
    if obj["kind"] != "Pod":
        return not scopes
    if dig(obj, "status", "phase") in OVER:
        return False
    has_deadline = dig(obj, "spec", "activeDeadlineSeconds") is not None
    best_effort = dig(obj, "status", "qosClass") == "BestEffort"
    holds = {"Terminating": has_deadline, "NotTerminating": not has_deadline}
    holds |= {"BestEffort": best_effort, "NotBestEffort": not best_effort}
    return all(holds.get(scope, False) for scope in scopes)


def _missing(quota: Obj, spec: Obj) -> str:
    containers = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    parts = []
    for name in sorted(dig(quota, "spec", "hard") or {}):
        if name in MUST_BE_SET:
            silent = [
                one["name"]
                for one in containers
                if dig(one, "resources", *MUST_BE_SET[name]) is None
            ]
            parts += [f"{name} for: {','.join(silent)}"] if silent else []
    return "; ".join(parts)


def _use(resource: Resource, obj: Obj) -> Use:
    kind = qualified_name(resource.plural, resource.group)
    amounts, binary = {f"count/{kind}": Decimal(1)}, set()
    if kind in BARE:
        amounts[kind] = Decimal(1)
    for name, amount, unit in _amounts(obj):
        amounts[name] = amount
        binary |= {name} if unit else set()
    return Use(amounts, frozenset(binary))


def _amounts(obj: Obj) -> Iterator[tuple[str, Decimal, bool]]:
    """Names, amounts, and whether they are written in binary units."""
    if obj["kind"] == "PersistentVolumeClaim":
        text = str(dig(obj, "spec", "resources", "requests", "storage") or "0")
        of_class = obj["spec"].get("storageClassName")
        prefixes = ["", f"{of_class}.storageclass.storage.k8s.io/"] if of_class else [""]
        for prefix in prefixes:
            yield f"{prefix}requests.storage", quantity.parse(text), text.endswith("i")
        if of_class:
            yield f"{prefixes[1]}persistentvolumeclaims", Decimal(1), False
    if obj["kind"] == "Pod":
        for kind in ("requests", "limits"):
            for name, (amount, unit) in _of_pod(obj["spec"], kind).items():
                if kind == "requests" or name in NATIVE:
                    yield f"{kind}.{name}", amount, unit
                if kind == "requests" and name in NATIVE:
                    yield name, amount, unit


def _of_pod(spec: Obj, kind: str) -> dict[str, tuple[Decimal, bool]]:
    """The containers together, or the largest init container if that is more."""
    total: dict[str, tuple[Decimal, bool]] = {}
    for container in spec.get("containers") or []:
        for name, text in (dig(container, "resources", kind) or {}).items():
            amount, unit = total.get(name, (Decimal(0), False))
            total[name] = amount + quantity.parse(str(text)), unit or str(text).endswith("i")
    for container in spec.get("initContainers") or []:
        for name, text in (dig(container, "resources", kind) or {}).items():
            one = quantity.parse(str(text)), str(text).endswith("i")
            total[name] = max(total.get(name, one), one)
    return total


def _in(store: Store, collection: tuple[str, str], namespace: str) -> list[Obj]:
    return [entry.obj for entry in store.collections[collection].entries(namespace)]
