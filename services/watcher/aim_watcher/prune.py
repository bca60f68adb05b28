"""Reduces objects to the fields that are published, and truncates objects that are too large."""

from typing import Any, TypeAlias

import msgspec

from aimschema.published import HASHES, SPEC, goes_whole, limit_bytes, published_part, size_bytes
from aimschema.spec_change import UNKNOWN, SpecChange, newest_spec_change

Body: TypeAlias = dict[str, Any]
Path: TypeAlias = tuple[str, ...]

METADATA: Path = ("metadata",)
IDENTITY = frozenset(
    {
        ("apiVersion",),
        ("kind",),
        *(
            (*METADATA, name)
            for name in ("name", "namespace", "uid", "resourceVersion", "generation")
        ),
    }
)
BULK = 0.5
DEEPEST = 100
"""Maximum nesting of a published body. Every reader decodes it with part of its stack in use, and
Python's recursion limit is 1,000."""


class Reduced(dict[str, Any]):
    """A body as it is published. `left_out` has the dotted paths of removed fields, `change` the
    newest change of the spec."""

    left_out: tuple[str, ...] = ()
    change: SpecChange = UNKNOWN


def reduce_body(body: Body) -> Reduced:
    """The reduced body of an object; lists hold it in place of the object. `body` is not
    changed."""
    ready, left_out = publishable(body)
    found = Reduced(ready)
    found.left_out = left_out
    found.change = change_of(body)
    return found


def change_of(body: Body) -> SpecChange:
    """The newest change of the spec of an object."""
    if isinstance(body, Reduced):
        return body.change
    return newest_spec_change(body["metadata"].get("managedFields"))


def publishable(body: Body) -> tuple[Body, tuple[str, ...]]:
    """The body as it is published, and the removed paths. Of a body that is malformed or nested too
    deeply only the identity remains."""
    if isinstance(body, Reduced):
        return dict(body), body.left_out
    try:
        pruned = prune(body)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        pruned = body
    else:
        if not _is_deep(pruned):
            return _limit_size(pruned, (HASHES,) if HASHES in pruned else ())
    return _limit_size(
        _identity(body),
        tuple(name for name in pruned if name not in {"apiVersion", "kind", "metadata"}),
    )


def _limit_size(body: Body, left_out: tuple[str, ...]) -> tuple[Body, tuple[str, ...]]:
    """The body truncated to the size limit of one object. The spec of an AIM kind is never
    truncated."""
    whole = {SPEC: body[SPEC]} if goes_whole(body["kind"]) and SPEC in body else {}
    rest = {name: value for name, value in body.items() if name not in whole}
    limit = limit_bytes(body["kind"])
    while size_bytes(rest) > limit:
        found = without_largest(rest)
        if found is None:
            break
        rest, path = found
        left_out = (*left_out, path)
    return {**rest, **whole}, left_out


def prune(body: Body) -> Body:
    """The fields that the services read. `body` is not changed."""
    return published_part(body)


def _is_deep(node: Any) -> bool:
    level = [node]
    for _ in range(DEEPEST):
        level = [
            value
            for each in level
            for value in (each.values() if isinstance(each, dict) else each)
            if isinstance(value, dict | list)
        ]
        if not level:
            return False
    return True


def _identity(body: Body) -> Body:
    metadata = {
        name: body["metadata"][name] for *_, name in sorted(IDENTITY) if name in body["metadata"]
    }
    return {"apiVersion": body.get("apiVersion", ""), "kind": body["kind"], "metadata": metadata}


def smaller(body: Body) -> tuple[Body, str] | None:
    """Like `without_largest`, but the spec of an AIM kind is removed completely or not at all: a
    part of it would be another request."""
    found = without_largest(body)
    if found is None or not goes_whole(body["kind"]) or found[1].partition(".")[0] != SPEC:
        return found
    return {name: value for name, value in body.items() if name != SPEC}, SPEC


def without_largest(body: Body) -> tuple[Body, str] | None:
    """The body without its largest subtree, and the dotted path of that; None if only identity is
    left.

    It descends while one child has at least half the size of its parent. So it removes a single
    huge field, and other fields stay. It removes a list as a whole.
    """
    path: Path = ()
    node: Any = body
    while isinstance(node, dict) and (sizes := _sizes(node, path)):
        largest = max(sizes, key=lambda name: sizes[name])
        if path not in ((), METADATA) and sizes[largest] < BULK * sum(sizes.values()):
            break
        path = (*path, largest)
        node = node[largest]
    return (_without_path(body, path), ".".join(path)) if path else None


def _sizes(node: Body, path: Path) -> dict[str, int]:
    """The size of each child of `node` in bytes of JSON, without required fields."""
    sizes = {}
    for name, value in node.items():
        below = (*path, name)
        if below == METADATA:
            value = {key: each for key, each in value.items() if (*METADATA, key) not in IDENTITY}  # noqa: PLW2901
        if below not in IDENTITY and (value or below != METADATA):
            sizes[name] = len(msgspec.json.encode(value))
    return sizes


def _without_path(node: Body, path: Path) -> Body:
    if len(path) == 1:
        return {name: value for name, value in node.items() if name != path[0]}
    return {**node, path[0]: _without_path(node[path[0]], path[1:])}
