"""Predicates: whether an update of an object has to be reconciled. Pure.

1. A predicate compares two versions of one object, both from events. Creation, deletion and what
   follows a write of our own are always reconciled (`Component.keys_to_reconcile`).
2. A part that a predicate leaves out is read by no planner of the component, or only together with
   another change.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from aimcontroller.projection import KubeObject

Predicate: TypeAlias = Callable[[KubeObject, KubeObject], bool]


def without_status(obj: KubeObject) -> object:
    """All of an object but its status and its version."""
    metadata = {**obj.body["metadata"], "resourceVersion": None}
    rest = {name: part for name, part in obj.body.items() if name not in {"metadata", "status"}}
    return obj.uid, obj.complete, obj.has_spec, metadata, rest


def status_changed(*names: str) -> Predicate:
    """Whether more than the status has changed, or one of these conditions or fields of it."""

    def is_changed(old: KubeObject, new: KubeObject) -> bool:
        return _status(old, names) != _status(new, names) or without_status(old) != without_status(
            new
        )

    return is_changed


def _status(obj: KubeObject, names: tuple[str, ...]) -> list[Any]:
    status = obj.body.get("status") or {}
    if not isinstance(status, dict):
        return [status]
    return [(status.get(name), obj.condition(name)) for name in names]
