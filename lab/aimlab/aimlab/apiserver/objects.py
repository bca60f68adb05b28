"""What every module of the API server double knows about a Kubernetes object: it is a tree of JSON
values.

Stored objects are shared between readers and never changed; a writer works on a `clone`.
"""

from datetime import datetime
from typing import Any

Obj = dict[str, Any]
"""A JSON object as decoded: a whole Kubernetes object or a part of one."""

Json = Any
"""Any JSON value."""


def clone(value: Json) -> Json:
    """A deep copy of a JSON value."""
    if isinstance(value, dict):
        return {
            key: clone(item) if isinstance(item, dict | list) else item
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [clone(item) if isinstance(item, dict | list) else item for item in value]
    return value


def dig(value: Json, *path: str) -> Json:
    """The value at a path of keys, None where the path ends early."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def meta(obj: Obj) -> Obj:
    """The metadata of an object; made if it has none."""
    found = obj.get("metadata")
    if not isinstance(found, dict):
        found = obj["metadata"] = {}
    return found


def stamp(now: datetime) -> str:
    """A time as Kubernetes writes metav1.Time: UTC, whole seconds."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def same(left: Json, right: Json) -> bool:
    """Equality of JSON values; unlike `==`, true and 1 differ."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(
            same(item, right[key]) for key, item in left.items()
        )
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)
