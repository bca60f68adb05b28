"""Field ownership: managedFields and server-side apply (KEP-555, structured-merge-diff v4). Pure.

A path is a tuple of elements spelled as in FieldsV1: `f:name` for a field, `k:{"name":"x"}` for an
item of a list of type map, `v:1` for an item of a set. A set of paths holds leaves, and the items
of keyed lists themselves (written `.` in FieldsV1).

1. Apply: the manager owns exactly what it sent. A field that it owned before, no longer sends and
   no other manager owns is removed.
2. A field that apply would change and another manager owns is a conflict, unless forced; then the
   others lose it.
3. Any other write: the manager owns what it changed; the others lose what was changed or removed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from aimlab.apiserver.errors import ApiError, Cause, cause_entry
from aimlab.apiserver.objects import Json, Obj, same

Path = tuple[str, ...]
ITEM = object()
NOBODYS = (
    "name",
    "namespace",
    "generateName",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "uid",
    "generation",
    "managedFields",
    "resourceVersion",
)
IDENTITY = frozenset(
    [
        ("f:apiVersion",),
        ("f:kind",),
        ("f:metadata",),
        *(("f:metadata", f"f:{name}") for name in NOBODYS),
    ]
)


@dataclass
class Owner:
    """One entry of managedFields."""

    manager: str
    operation: str
    api_version: str
    subresource: str
    time: str
    paths: set[Path] = field(default_factory=set)

    def is_same(self, other: "Owner") -> bool:
        return (self.manager, self.operation, self.subresource) == (
            other.manager,
            other.operation,
            other.subresource,
        )


def leaves(value: Json, schema: Obj, path: Path = ()) -> Iterator[tuple[Path, Json]]:
    """The leaves of a value with their paths; items of keyed lists come first with ITEM, empty
    and atomic containers are leaves."""
    if isinstance(value, dict) and value and schema.get("x-kubernetes-map-type") != "atomic":
        for name, item in value.items():
            yield from leaves(item, child(schema, name), (*path, f"f:{name}"))
    elif (
        isinstance(value, list) and value and schema.get("x-kubernetes-list-type") in ("map", "set")
    ):
        for item in value:
            here = (*path, element(item, schema))
            yield here, ITEM
            if isinstance(item, dict):
                yield from leaves(item, schema.get("items") or {}, here)
    else:
        yield path, value


def child(schema: Obj, name: str) -> Obj:
    """The schema of a field; {} where it is not known."""
    properties = schema.get("properties")
    found = properties.get(name) if properties else None
    if found is None:
        found = schema.get("additionalProperties")
    return found if isinstance(found, dict) else {}


def element(item: Json, schema: Obj) -> str:
    """The path element of an item in a list of type map or set."""
    if schema.get("x-kubernetes-list-type") == "set" or not isinstance(item, dict):
        return f"v:{msgspec.json.encode(item).decode()}"
    known = (schema.get("items") or {}).get("properties") or {}
    keys = {
        key: item.get(key, (known.get(key) or {}).get("default"))
        for key in sorted(schema["x-kubernetes-list-map-keys"])
    }
    non_null = {key: value for key, value in keys.items() if value is not None}
    return f"k:{msgspec.json.encode(non_null).decode()}"


def ownable_leaves(obj: Obj, schema: Obj) -> dict[Path, Json]:
    """The leaves of an object that can have an owner."""
    return {
        path: value
        for path, value in leaves(obj, schema)
        if path and path not in IDENTITY and path[:2] != ("f:metadata", "f:managedFields")
    }


def decode(managed: list[Obj] | None) -> list[Owner]:
    """managedFields as owners."""
    return [
        Owner(
            entry.get("manager", ""),
            entry.get("operation", "Update"),
            entry.get("apiVersion", ""),
            entry.get("subresource", ""),
            entry.get("time", ""),
            set(_flatten(entry.get("fieldsV1") or {})),
        )
        for entry in managed or ()
    ]


def _flatten(tree: Obj, path: Path = ()) -> Iterator[Path]:
    if "." in tree or (not tree and path):
        yield path
    for name, below in tree.items():
        if name != ".":
            yield from _flatten(below, (*path, name))


def encode(owners: list[Owner]) -> list[Obj]:
    """Owners as managedFields, in the order of a real API server; owners of nothing are left
    out."""
    ranked = sorted(
        (owner for owner in owners if owner.paths),
        key=lambda owner: (owner.operation, owner.time, owner.manager, owner.subresource),
    )
    return [
        {
            "manager": owner.manager,
            "operation": owner.operation,
            "apiVersion": owner.api_version,
            "time": owner.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": _nest_paths(owner.paths),
            **({"subresource": owner.subresource} if owner.subresource else {}),
        }
        for owner in ranked
    ]


def _nest_paths(paths: set[Path]) -> Obj:
    tree: Obj = {}
    for path in sorted(paths):
        node = tree
        for name in path:
            node = node.setdefault(name, {})
        if path[-1].startswith("k:"):
            node["."] = {}
    return _mark_parents(tree, paths)


def _mark_parents(tree: Obj, paths: set[Path], path: Path = ()) -> Obj:
    """A path that is owned itself and has owned paths below needs its dot."""
    for name, below in tree.items():
        if name == "." or not below:
            continue
        here = (*path, name)
        if here in paths:
            below.setdefault(".", {})
        _mark_parents(below, paths, here)
    return tree


def owners_after_update(
    owners: list[Owner], writer: Owner, old: Obj, new: Obj, schema: Obj
) -> list[Owner]:
    """The owners after a write other than apply (rule 3). `writer.paths` is ignored."""
    before, after = ownable_leaves(old, schema), ownable_leaves(new, schema)
    touched = {
        path
        for path, value in after.items()
        if path not in before or not _equal(before[path], value)
    }
    removed = before.keys() - after.keys()
    mine = next((owner for owner in owners if owner.is_same(writer)), writer)
    others = [owner for owner in owners if owner is not mine]
    for owner in others:
        owner.paths -= touched | removed
    still_owned = mine.paths - removed if mine is not writer else set()
    if touched - still_owned or (mine is not writer and touched):
        mine.time = writer.time
    mine.paths, mine.api_version = still_owned | touched, writer.api_version
    return [*others, mine]


def _equal(left: Json, right: Json) -> bool:
    return left is right or (left is not ITEM and right is not ITEM and same(left, right))


def apply(
    live: Obj, applied: Obj, owners: list[Owner], writer: Owner, schema: Obj, *, force: bool
) -> tuple[Obj, list[Owner]]:
    """Server-side apply (rules 1 and 2): the merged object and its owners. ApiError 409 names
    every conflict."""
    mine = next((owner for owner in owners if owner.is_same(writer)), None)
    others = [owner for owner in owners if owner is not mine]
    sent = set(ownable_leaves(applied, schema))
    merged = merged_by(live, applied, schema)
    before, after = ownable_leaves(live, schema), ownable_leaves(merged, schema)
    changed = {
        path
        for path, value in after.items()
        if path not in before or not _equal(before[path], value)
    }
    clashes = [(owner, path) for owner in others for path in sorted(owner.paths & changed)]
    if clashes and not force:
        raise conflicts(clashes)
    for owner in others:
        owner.paths -= changed
    owned_paths = set().union(*(owner.paths for owner in others)) | sent
    dropped = (mine.paths if mine else set()) - owned_paths
    if dropped:
        merged = without(
            merged,
            dropped,
            {path[:size] for path in owned_paths for size in range(1, len(path) + 1)},
            schema,
        )
    moved = mine is None or mine.paths != sent
    after_writer = Owner(
        writer.manager, writer.operation, writer.api_version, writer.subresource, writer.time, sent
    )
    if mine is not None and not moved and not changed and not dropped:
        after_writer.time = mine.time
    return merged, [*others, after_writer]


def merged_by(live: Json, applied: Json, schema: Obj) -> Json:
    """The live value with what was applied: maps and keyed lists merge, everything else is
    replaced."""
    if (
        isinstance(applied, dict)
        and isinstance(live, dict)
        and schema.get("x-kubernetes-map-type") != "atomic"
    ):
        return {
            **live,
            **{
                name: merged_by(live.get(name), value, child(schema, name))
                for name, value in applied.items()
            },
        }
    if (
        isinstance(applied, list)
        and isinstance(live, list)
        and schema.get("x-kubernetes-list-type") in ("map", "set")
    ):
        items = {element(item, schema): item for item in live}
        for item in applied:
            name = element(item, schema)
            items[name] = merged_by(items.get(name), item, schema.get("items") or {})
        return list(items.values())
    return applied


def without(
    value: Json, dropped: set[Path], retained: set[Path], schema: Obj, path: Path = ()
) -> Json:
    """A value less the dropped paths; `retained` are paths, and beginnings of paths, that someone
    still owns."""
    if isinstance(value, dict):
        left: Obj = {}
        for name, item in value.items():
            here = (*path, f"f:{name}")
            if here in dropped and here not in retained:
                continue
            rest = without(item, dropped, retained, child(schema, name), here)
            emptied = rest in ({}, []) and bool(item)
            if not emptied or here in retained:
                left[name] = rest
        return left
    if isinstance(value, list) and schema.get("x-kubernetes-list-type") in ("map", "set"):
        left_items = []
        for item in value:
            here = (*path, element(item, schema))
            if here not in dropped or here in retained:
                left_items.append(without(item, dropped, retained, schema.get("items") or {}, here))
        return left_items
    return value


def conflicts(clashes: list[tuple[Owner, Path]]) -> ApiError:
    """The 409 for fields that other managers own."""
    causes = [
        Cause(format_path(path), "FieldManagerConflict", f"conflict with {_who(owner)}")
        for owner, path in clashes
    ]
    text = "\n".join(f"{cause.message}: {cause.field}" for cause in causes)
    count = f"{len(causes)} conflict{'s' if len(causes) > 1 else ''}"
    return ApiError(
        409,
        "Conflict",
        f"Apply failed with {count}: {text}",
        {"causes": [cause_entry(cause) for cause in causes]},
    )


def _who(owner: Owner) -> str:
    text = f'"{owner.manager}"'
    if owner.subresource:
        text += f' with subresource "{owner.subresource}"'
    if owner.operation == "Update":
        text += f" using {owner.api_version} at {owner.time}"
    return text


def format_path(path: Path) -> str:
    """A path as messages spell it: `.spec.env[name="A"].value`."""
    parts = []
    for name in path:
        if name.startswith("f:"):
            parts.append(f".{name[2:]}")
        elif name.startswith("k:"):
            keys = msgspec.json.decode(name[2:])
            parts.append(
                "["
                + ",".join(
                    f"{key}={msgspec.json.encode(value).decode()}" for key, value in keys.items()
                )
                + "]"
            )
        else:
            parts.append(f"[={name[2:]}]")
    return "".join(parts)


def type_errors(value: Json, schema: Obj, path: str = "") -> Iterator[str]:
    """Why a value cannot be applied under its schema: unknown fields, wrong types, keyed items
    without keys or twice."""
    kind = schema.get("type")
    if value is None or schema.get("x-kubernetes-int-or-string"):
        return
    if kind in EXPECTED and not isinstance(value, EXPECTED[kind][1]):
        yield (
            f"{path}: expected {EXPECTED[kind][0]}, got {msgspec.json.encode(value).decode()[:80]}"
        )
    elif isinstance(value, dict):
        open_ended = (
            "properties" not in schema
            or schema.get("x-kubernetes-preserve-unknown-fields")
            or schema.get("additionalProperties")
        )
        for name, item in value.items():
            if (
                not open_ended
                and name not in schema["properties"]
                and (path or name not in ("apiVersion", "kind", "metadata"))
            ):
                yield f"{path}.{name}: field not declared in schema"
            else:
                yield from type_errors(item, child(schema, name), f"{path}.{name}")
    elif isinstance(value, list):
        yield from _mistyped_items(value, schema, path)


def _mistyped_items(value: list[Json], schema: Obj, path: str) -> Iterator[str]:
    names: set[str] = set()
    for item in value:
        name = ""
        if schema.get("x-kubernetes-list-type") in ("map", "set"):
            name = element(item, schema)
            if name == "k:{}":
                yield (
                    f"{path}: element 0: associative list with keys has an element that omits all"
                    " key fields"
                )
            elif name in names:
                yield f"{path}: duplicate entries for key {format_path((name,))}"
            names.add(name)
        yield from type_errors(
            item, schema.get("items") or {}, f"{path}{format_path((name,)) if name else '[]'}"
        )


EXPECTED: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "object": ("map", dict),
    "array": ("list", list),
    "string": ("string", str),
    "boolean": ("boolean", bool),
    "integer": ("numeric (int or float)", (int, float)),
    "number": ("numeric (int or float)", (int, float)),
}
