"""Which writes bring specs back to recorded versions, and what they cannot bring back. Pure and
total.

1. A written spec is the recorded one byte for byte, but for what `skipped` names: immutable fields,
   and literal values of environment variables that the object no longer has.
2. A plan is computed from the objects as they are. So after an interruption, the same command plans
   what is left, and nothing where nothing is left.
3. Objects that a GitOps tool manages, or that the control plane creates, are not written. The tool
   would undo it. `force` includes those of a tool.
4. An object that was created later stays. Only specs are put back.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from aimcontroller.drift import field_managers_at
from aimctl.analysis.history import Version
from aimctl.analysis.spec_diff import Difference, Path, canonical, differences, path_text
from aimschema.crds import immutable_fields
from aimschema.env_literals import ENV, restore
from aimschema.kinds import KINDS
from aimschema.labels import MANAGED_BY, MANAGED_BY_AIM, WORKLOAD_ID
from aimschema.resources import CACHE, CONFIG, MODEL, SERVICE, TEMPLATE, Key

Body: TypeAlias = dict[str, Any]
MANAGER = "aimctl-rollback"
ORDER = tuple(kind.kind for kind in (CONFIG, MODEL, TEMPLATE, CACHE, SERVICE))
_IMMUTABLE = {kind.__name__: immutable_fields(kind) for kind in KINDS}
_ABSENT = object()
_SCALING = frozenset(
    {
        "minReplicas",
        "maxReplicas",
        "scaleTarget",
        "scaleMetric",
        "autoScaling",
        "deploymentStrategy",
    }
)
"""Fields of a predictor that do not change its pods."""
_MARKS = {
    "argocd.argoproj.io/tracking-id": "Argo CD",
    "argocd.argoproj.io/instance": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
    "meta.helm.sh/release-name": "Helm",
    "objectset.rio.cattle.io/id": "Fleet",
    "configsync.gke.io/resource-id": "Config Sync",
    "configmanagement.gke.io/managed": "Config Sync",
    "kapp.k14s.io/app": "kapp",
}
"""Labels and annotations, and the tool that sets them."""
_MANAGERS = {
    "argocd": "Argo CD",
    "kustomize-controller": "Flux",
    "helm-controller": "Flux",
    "flux": "Flux",
    "helm": "Helm",
    "fleetagent": "Fleet",
    "fleet-agent": "Fleet",
    "configsync.gke.io": "Config Sync",
    "kapp": "kapp",
    "pulumi": "Pulumi",
    "terraform": "Terraform",
    "hashicorp": "Terraform",
}
"""Beginnings of field managers, in lower case. The longest that fits counts."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """What is not put back, and why. An empty path: nothing of the object is."""

    key: Key
    path: Path
    reason: str
    immutable: bool = False

    def __str__(self) -> str:
        field = f" {path_text(self.path)}" if self.path else ""
        return f"{self.key}{field}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Write:
    """One write. Without `live`, the object is created. `takes` has the managers that lose a
    field."""

    key: Key
    version: Version
    live: Body | None
    spec: Body
    changes: tuple[Difference, ...]
    takes: tuple[tuple[Path, tuple[str, ...]], ...] = ()

    @property
    def body(self) -> Body:
        """The object as it will be, without what the server adds."""
        if self.live is None:
            return self.version.manifest | {"spec": self.spec}
        metadata = self.live["metadata"]
        names = ("name", "namespace", "labels", "annotations")
        known = {name: metadata[name] for name in names if name in metadata}
        return {
            "apiVersion": self.live["apiVersion"],
            "kind": self.key.kind,
            "metadata": known,
            "spec": self.spec,
        }

    def operations(self, live: Body) -> list[Body]:
        """The JSON patch of the object `live`, which the server rejects for any other version of
        it."""
        metadata = live["metadata"]
        guards = [
            {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
            {
                "op": "replace",
                "path": "/metadata/resourceVersion",
                "value": metadata["resourceVersion"],
            },
        ]
        if "spec" not in live:
            return [*guards, {"op": "add", "path": "/spec", "value": self.spec}]
        return [*guards, *_operations(live["spec"], self.spec, "/spec")]


@dataclass(frozen=True, slots=True)
class Rollback:
    """`managed` has the tool of each object that is not written because of it."""

    writes: tuple[Write, ...]
    skipped: tuple[Skipped, ...]
    managed: tuple[tuple[Key, str], ...]
    notes: tuple[str, ...]


def plan_rollback(
    versions: Mapping[Key, Version], live: Mapping[Key, Body], *, force: bool = False
) -> Rollback:
    """What brings the objects of `versions` back. `live` has those that exist, with
    managedFields."""
    writes: list[Write] = []
    skipped: list[Skipped] = []
    managed: list[tuple[Key, str]] = []
    notes: list[str] = []
    for key in sorted(versions, key=_order):
        version, body = versions[key], live.get(key)
        if _is_ours(version, body):
            notes += _note_of_ours(version, body)
            continue
        write, reasons = _plan_object(version, body)
        tool = None if write is None or force else tool_of(body or version.manifest)
        if write is not None and tool is not None:
            managed.append((key, tool))
            continue
        skipped += reasons
        if write is not None:
            writes.append(write)
            notes += _note_of_created(write)
    for key in sorted(live.keys() - versions.keys(), key=_order):
        notes.append(f"{key} was created or first recorded later, and stays")
    return Rollback(tuple(writes), tuple(skipped), tuple(managed), tuple(notes))


def tool_of(body: Body) -> str | None:
    """The tool that manages an object, by its labels, annotations and managers of the spec."""
    metadata = body.get("metadata") or {}
    marks = {**(metadata.get("labels") or {}), **(metadata.get("annotations") or {})}
    for name, tool in _MARKS.items():
        if name in marks:
            return tool
    if str(marks.get(MANAGED_BY, "")).lower() == "helm":
        return "Helm"
    for entry in metadata.get("managedFields") or ():
        if isinstance(entry, dict) and "f:spec" in (entry.get("fieldsV1") or {}):
            found = _tool_named(str(entry.get("manager", "")).lower())
            if found is not None:
                return found
    return None


def restarts_pods(before: Body, after: Body) -> bool:
    """Whether a change of an InferenceService changes its pods, and not only their number."""
    old, new = (_pods_of(body) for body in (before, after))
    return canonical(old) != canonical(new)


def _pods_of(body: Body) -> Body:
    predictor = (body.get("spec") or {}).get("predictor") or {}
    return {name: value for name, value in predictor.items() if name not in _SCALING}


def secret_names(spec: Any) -> set[str]:
    """The Secrets that a spec refers to."""
    return set(_secrets(spec, ""))


def _order(key: Key) -> tuple[int, str]:
    return ORDER.index(key.kind) if key.kind in ORDER else len(ORDER), str(key)


def _tool_named(manager: str) -> str | None:
    found = [name for name in _MANAGERS if manager.startswith(name)]
    return _MANAGERS[max(found, key=len)] if found else None


def _is_ours(version: Version, body: Body | None) -> bool:
    labels = version.labels if body is None else body["metadata"].get("labels") or {}
    return labels.get(MANAGED_BY) == MANAGED_BY_AIM


def _note_of_ours(version: Version, body: Body | None) -> Iterator[str]:
    if version.key.kind != CACHE.kind:
        return
    if body is None:
        size = version.spec.get("size")
        amount = f" of {size}" if size else ""
        yield f"{version.key}{amount} was evicted; the model is downloaded again if it is used"
    else:
        yield f"{version.key} is still there"


def _note_of_created(write: Write) -> Iterator[str]:
    if write.live is not None:
        return
    path = ""
    if write.key.kind == SERVICE.kind and WORKLOAD_ID not in write.version.labels:
        path = " and a new path, since it has no label aim.silogen.ai/workload-id"
    yield f"{write.key} is created again: it gets a new uid{path}"


def _plan_object(version: Version, body: Body | None) -> tuple[Write | None, list[Skipped]]:
    key = version.key
    if not version.is_whole:
        reason = "the recorded spec is incomplete, because it was too large for a message"
        return None, [Skipped(key, (), reason)]
    if body is not None and body["metadata"].get("deletionTimestamp"):
        return None, [Skipped(key, (), "it is being deleted; run the command again afterwards")]
    before: Body = {} if body is None else body.get("spec") or {}
    spec, missing = restore(version.spec, before)
    skipped = [Skipped(key, path, _UNRECORDED) for path in missing]
    for path in missing:
        spec = _with_literal_of(spec, before, path)
    if body is not None:
        for path in sorted(_IMMUTABLE.get(key.kind, ())):
            if _at(spec, path) != _at(before, path):
                skipped.append(Skipped(key, path, _FIXED, immutable=True))
                spec = _with_value(spec, path, _at(before, path))
    if body is not None and canonical(spec) == canonical(before):
        return None, skipped
    changes = tuple(differences(before, spec))
    takes = () if body is None else tuple(_takes(body, before, spec))
    return Write(key, version, body, spec, changes, takes), skipped


_UNRECORDED = "its literal value is not recorded, and the object no longer has it; set it by hand"
_FIXED = "the field is immutable; delete the object and create it again to change it"


def _takes(body: Body, before: Body, spec: Body) -> Iterator[tuple[Path, tuple[str, ...]]]:
    for name in sorted(before.keys() | spec.keys()):
        if canonical(before.get(name)) != canonical(spec.get(name)):
            managers = field_managers_at(body, ("spec", name), but=MANAGER)
            if managers:
                yield (name,), tuple(managers)


def _at(node: Any, path: Path) -> Any:
    for name in path:
        if not isinstance(node, dict) or name not in node:
            return _ABSENT
        node = node[name]
    return node


def _with_value(node: Any, path: Path, value: Any) -> Any:
    """A copy with another value at a path of maps; _ABSENT removes it."""
    name, *rest = path
    fields = dict(node) if isinstance(node, dict) else {}
    if rest:
        fields[name] = _with_value(fields.get(name), tuple(rest), value)
    elif value is _ABSENT:
        fields.pop(name, None)
    else:
        fields[name] = value
    return fields


def _with_literal_of(node: Any, live: Any, path: Path) -> Any:
    """The spec with the variable at `path` as `live` has it: with another value, or without it."""
    name, *rest = path
    below, other = _item(node, name), _item(live, name)
    if rest and (len(rest) > 1 or name == ENV):
        return _with_item(node, name, _with_literal_of(below, other, tuple(rest)))
    return _with_item(node, name, other)


def _item(node: Any, name: str) -> Any:
    if isinstance(node, dict):
        return node.get(name, _ABSENT)
    if isinstance(node, list):
        for place, item in enumerate(node):
            if _name_of(item, place) == name:
                return item
    return _ABSENT


def _with_item(node: Any, name: str, value: Any) -> Any:
    if isinstance(node, list):
        return [
            value if _name_of(item, place) == name else item
            for place, item in enumerate(node)
            if _name_of(item, place) != name or value is not _ABSENT
        ]
    return _with_value(node, (name,), value)


def _name_of(item: Any, place: int) -> str:
    return str(item["name"]) if isinstance(item, dict) and "name" in item else str(place)


def _operations(before: Any, after: Any, pointer: str) -> Iterator[Body]:
    """Maps field by field; every other value as a whole."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        if canonical(before) != canonical(after):
            yield {"op": "replace", "path": pointer, "value": after}
        return
    for name in before.keys() | after.keys():
        here = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
        if name not in after:
            yield {"op": "remove", "path": here}
        elif name not in before:
            yield {"op": "add", "path": here, "value": after[name]}
        else:
            yield from _operations(before[name], after[name], here)


def _secrets(node: Any, field: str) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            if field == "imagePullSecrets" and isinstance(item, str):
                yield item
            else:
                yield from _secrets(item, field)
    elif isinstance(node, dict):
        is_reference = isinstance(node.get("name"), str) and isinstance(node.get("key"), str)
        if (is_reference and field != "configMapKeyRef") or field == "imagePullSecrets":
            yield str(node.get("name", ""))
        else:
            for name, value in node.items():
                yield from _secrets(value, name)
