"""Carrying out actions against the cluster, without a write where nothing would change.

Whether an object still is as it should be is judged against what the last apply returned, not against what was sent:
the server and other controllers default and rewrite fields, and a comparison with what was sent would fight them.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec

from aimkube import Body, Cluster, Conflict, NotFound
from aimschema.labels import MANAGED_BY
from aimschema.resources import CONFIG_MAP, RESOURCES, Key
from aimservice.plan import ApplyObject, DeleteObject
from aimservice.projection import Projection, Seen


class NameConflict(Exception):
    """An object of this name exists and belongs to somebody else; it is not overwritten."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What was sent last, and what our fields looked like in the answer."""

    digest: str
    returned: Any


class Applier:
    """Server-side apply with one field manager (KEP-555), remembering what it sent. Errors: those of aimkube, and NameConflict."""

    def __init__(self, cluster: Cluster, manager: str) -> None:
        self._cluster = cluster
        self._manager = manager
        self._applied: dict[Key, Applied] = {}

    async def apply(self, seen: Projection, action: ApplyObject) -> Body | None:
        """The object as it is now, or None where nothing had to be written."""
        key, body = action.key, action.body
        present = seen.get(key)
        digest = hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()
        if present is not None and (present.deleting or self._unchanged(key, body, digest, present)):
            return None
        if present is None and key.kind == CONFIG_MAP.kind:
            await self._refuse_foreign(key, body)
        answer = await self._cluster.apply(_with_uid(body, present), manager=self._manager)
        answer["metadata"].pop("managedFields", None)
        self._applied[key] = Applied(digest, ours(body, answer))
        return answer

    async def delete(self, action: DeleteObject) -> bool:
        """True if there was something to delete. An object of the same name with another uid is left alone."""
        self._applied.pop(action.key, None)
        try:
            await self._cluster.delete(RESOURCES[action.key.kind], action.key.namespace, action.key.name, uid=action.uid, propagation="Background")
        except (NotFound, Conflict):
            return False
        return True

    def forget(self, key: Key) -> None:
        """The object is gone."""
        self._applied.pop(key, None)

    def _unchanged(self, key: Key, body: Body, digest: str, present: Seen) -> bool:
        last = self._applied.get(key)
        return last is not None and last.digest == digest and ours(body, present.body) == last.returned

    async def _refuse_foreign(self, key: Key, body: Body) -> None:
        """Kinds that are only watched by label may be there without being seen."""
        try:
            there = await self._cluster.get(RESOURCES[key.kind], key.namespace, key.name)
        except NotFound:
            return
        if not same_owner(body, there):
            raise NameConflict(f"{key} exists and is not owned by the object it would be made for; rename or delete it")


def same_owner(body: Body, there: Body) -> bool:
    """Whether both name the same owner by uid; what has no owner is told by the label managed-by."""
    wanted = {reference["uid"] for reference in body["metadata"].get("ownerReferences", ())}
    if wanted:
        return wanted <= {reference["uid"] for reference in there["metadata"].get("ownerReferences") or ()}
    return (body["metadata"].get("labels") or {}).get(MANAGED_BY) == (there["metadata"].get("labels") or {}).get(MANAGED_BY)


def ours(sent: Any, there: Any) -> Any:
    """The part of `there` that `sent` speaks of; list items with a name are matched by it (as list-maps merge)."""
    if isinstance(sent, dict) and isinstance(there, dict):
        return {field: ours(value, there.get(field)) for field, value in sent.items()}
    if isinstance(sent, list) and isinstance(there, list) and all(isinstance(item, dict) and "name" in item for item in [*sent, *there]):
        named = {item["name"]: item for item in there}
        if len(named) == len(there):  # in volumeMounts a name may come twice
            return [ours(item, named.get(item["name"])) for item in sent]
    if isinstance(sent, list) and isinstance(there, list) and len(sent) == len(there):
        return [ours(item, other) for item, other in zip(sent, there, strict=True)]
    return there


def _with_uid(body: Body, present: Seen | None) -> Body:
    """An update names the uid, so that it cannot land on a successor of the same name."""
    return body if present is None else {**body, "metadata": {**body["metadata"], "uid": present.uid}}
