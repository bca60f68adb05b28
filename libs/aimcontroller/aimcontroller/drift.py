"""Whether an object still matches our last apply, and when to repair it. Pure; times are seconds of
any one clock.

1. The object is compared with the response to the last apply, not with the request: the server and
   admission webhooks default and rewrite fields.
2. We own only the fields that we send. Fields that others add belong to them.
3. The first `IMMEDIATE_REPAIRS` repairs in a row are immediate: a manual edit is reverted within
   seconds. Then each waits twice as long as the one before, so that a controller that keeps setting
   its own value costs one write every `LONGEST_S`.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from aimcontroller.projection import FieldConflict
from aimschema.labels import MANAGED_BY, MANAGED_BY_AIM

Body = dict[str, Any]
IMMEDIATE_REPAIRS = 3
FIRST_S = 5.0
LONGEST_S = 300.0
RESET_AFTER_S = 600.0
BOOKKEEPING = frozenset({"resourceVersion", "managedFields", "generation", "finalizers"})
"""Metadata that changes without a change of the object's content."""


def digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()[:32]


def comparable(body: Body) -> Body:
    """The object without its status and bookkeeping."""
    metadata = {name: value for name, value in body["metadata"].items() if name not in BOOKKEEPING}
    return {name: value for name, value in body.items() if name != "status"} | {
        "metadata": metadata
    }


def managed_fields_of(sent: Any, existing: Any) -> Any:
    """The part of `existing` that `sent` speaks of; list items with a name are matched by it (as
    list-maps merge)."""
    if isinstance(sent, dict) and isinstance(existing, dict):
        return {
            field: managed_fields_of(value, existing.get(field)) for field, value in sent.items()
        }
    if (
        isinstance(sent, list)
        and isinstance(existing, list)
        and all(isinstance(item, dict) and "name" in item for item in [*sent, *existing])
    ):
        named = {item["name"]: item for item in existing}
        if len(named) == len(existing):  # in volumeMounts a name may come twice
            return [managed_fields_of(item, named.get(item["name"])) for item in sent]
    if isinstance(sent, list) and isinstance(existing, list) and len(sent) == len(existing):
        return [managed_fields_of(item, other) for item, other in zip(sent, existing, strict=True)]
    return existing


def diff_paths(before: Any, now: Any) -> Iterator[tuple[str, ...]]:
    """Paths at which two parts differ; a list is one place."""
    if isinstance(before, dict) and isinstance(now, dict):
        for field in sorted(before.keys() | now.keys()):
            yield from ((field, *below) for below in diff_paths(before.get(field), now.get(field)))
    elif before != now:
        yield ()


def field_managers_at(body: Body, path: tuple[str, ...], but: str) -> list[str]:
    """Managers other than `but` that own the field at `path`, from managedFields (KEP-555,
    FieldsV1)."""
    entries = [
        entry
        for entry in body["metadata"].get("managedFields") or ()
        if entry.get("manager") != but
    ]
    return sorted(
        {
            str(entry.get("manager"))
            for entry in entries
            if _holds(entry.get("fieldsV1") or {}, path)
        }
    )


def _holds(fields: Any, path: tuple[str, ...]) -> bool:
    for field in path:
        if f"f:{field}" not in fields:
            return False
        fields = fields[f"f:{field}"]
    return True


def same_owner(body: Body, existing: Body) -> bool:
    """Whether both have the same owner by uid; without an owner, the label managed-by decides."""
    owner_uids = {reference["uid"] for reference in body["metadata"].get("ownerReferences", ())}
    if owner_uids:
        return owner_uids <= {
            reference["uid"] for reference in existing["metadata"].get("ownerReferences") or ()
        }
    return (body["metadata"].get("labels") or {}).get(MANAGED_BY) == (
        existing["metadata"].get("labels") or {}
    ).get(MANAGED_BY)


def is_ours(body: Body) -> bool:
    """Whether the label says that this control plane manages it."""
    return (body["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGED_BY_AIM


def owners(body: Body) -> str:
    return digest(body["metadata"].get("ownerReferences"))


@dataclass(frozen=True, slots=True)
class RepairHistory:
    """The number of consecutive repairs of an object, and the time of the last. `conflict`: the
    manager and field that keep changing; None if there is no conflict.

    `lost`: a digest of the owners it had when it was deleted; an object for other owners is not
    delayed.
    """

    count: int = 0
    last_s: float = float("-inf")
    conflict: FieldConflict | None = None
    lost: str = ""

    @property
    def next_s(self) -> float:
        """The earliest time of the next repair."""
        return (
            self.last_s
            if self.count < IMMEDIATE_REPAIRS
            else self.last_s
            + min(LONGEST_S, FIRST_S * 2 ** min(self.count - IMMEDIATE_REPAIRS, 20))
        )

    def record(self, now_s: float) -> "RepairHistory":
        return replace(self, count=1 if self.is_expired(now_s) else self.count + 1, last_s=now_s)

    def is_expired(self, now_s: float) -> bool:
        return now_s - self.last_s > RESET_AFTER_S
