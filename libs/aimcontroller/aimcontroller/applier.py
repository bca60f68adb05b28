"""Apply and delete objects: no write without a change, none over foreign objects, and backoff
instead of a conflict loop.

Each apply is recorded as a Mark, and published with the action. So a new process, or a standby that
takes over, knows the applies of its predecessor and does not repeat them. A mark is only an
optimisation: without it an object is applied, with it perhaps not.

The first apply of an object carries NO_VERSION, which no object has. An API server then creates the
object if it is missing, and answers 409 if it exists. Only then is it read and checked: an object
of another owner is never overwritten. That a version is a guard is documented ("Concurrency control
and consistency" in the API conventions), that it does not count for a missing object is not. Both
are tested: the guard by a dry run on an object of ours (`probe`), the other by use. Where one
does not hold, every object is read before its first apply.
"""

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import structlog
from msgspec import structs

from aimcontroller.action import ApplyObject, DeleteObject, PatchObject
from aimcontroller.additions import first_path, removal
from aimcontroller.confirm import Confirm, unconditionally
from aimcontroller.drift import (
    RepairHistory,
    comparable,
    diff_paths,
    digest,
    field_managers_at,
    is_ours,
    managed_fields_of,
    owners,
    same_owner,
)
from aimcontroller.projection import FieldConflict, KubeObject, Projection
from aimkube import AlreadyExists, Body, Cluster, Conflict, KubeError, NotFound
from aimschema.messages import Mark
from aimschema.published import HASHES, hashed_field, published_part, without_literals
from aimschema.resources import CACHE, JOB, RESOURCES, Key, key_of

log = structlog.get_logger()
CREATE_ONLY_KINDS = frozenset({JOB.kind, CACHE.kind})
"""The pod template of a Job cannot be changed (batch/v1), and a ModelCache is the user's as soon
as it is there: they are made, not kept."""


NO_VERSION = "1"
"""The first write to etcd has revision 2."""


class NameConflict(Exception):
    """A foreign object of this name exists; it is not overwritten."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What was applied last. `part`: our fields in the answer, None where another process
    applied it."""

    mark: Mark
    part: Any = None
    owners: str = ""


@dataclass(frozen=True, slots=True)
class DelayedRepair:
    """An object is repaired no earlier than in `after_s`, because of the conflict."""

    conflict: FieldConflict
    after_s: float


class Applier:
    """Server-side apply with one field manager (KEP-555). Errors: those of aimkube, and
    NameConflict.

    `confirm` is awaited before each write; what it raises is raised, and nothing is written.
    """

    def __init__(
        self, cluster: Cluster, manager: str, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._cluster = cluster
        self._manager = manager
        self._clock_s = clock_s
        self._applied: dict[Key, Applied] = {}
        self._repairs: dict[Key, RepairHistory] = {}
        self._is_guard_honoured: bool | None = None  # None: not tested yet

    async def probe(self, state: Projection, kinds: Iterable[str]) -> None:
        """Test whether the API server honours a version as a guard, on one object of these kinds.
        Nothing is stored. Objects of others are not used: writing them may be forbidden. If there
        is none of ours, the first one that is created is used."""
        found = chain.from_iterable(map(state.in_all_namespaces, kinds))
        ours = next((obj.key for obj in found if is_ours(obj.body)), None)
        self._is_guard_honoured = None if ours is None else await self._honours_guard(ours)

    async def apply(
        self, state: Projection, action: ApplyObject, confirm: Confirm = unconditionally
    ) -> Body | None:
        """The object as it is now, or None where nothing had to be written."""
        key, body = action.key, action.body
        is_unread = state.get(key) is None and key not in self._applied
        if is_unread and self._is_guard_honoured:
            if not self._may_create(key, body):
                return None
            with contextlib.suppress(Conflict, AlreadyExists):
                return await self._send(body, {"resourceVersion": NO_VERSION}, confirm)
        existing = await self._known_object(state, key)
        if existing is None:
            if is_unread and self._is_guard_honoured:
                # The server rejects the version for a missing object too: it is not tried again.
                self._is_guard_honoured = False
            return await self._create(key, body, confirm)
        if existing.deleting:
            return None
        if not same_owner(body, existing.body):
            raise NameConflict(f"{key} exists and was not made for this; rename or delete it")
        if key.kind in CREATE_ONLY_KINDS:
            return None
        return await self._update(key, body, existing, confirm)

    async def patch(self, action: PatchObject, confirm: Confirm = unconditionally) -> Body | None:
        """The current object, or None if it was deleted. Drops the record of earlier applies: the
        next apply is sent."""
        await confirm()
        self._applied.pop(action.key, None)
        resource, metadata = RESOURCES[action.key.kind], action.patch.get("metadata") or {}
        patch = {**action.patch, "metadata": {**metadata, "uid": action.uid}}
        try:
            answer = await self._cluster.merge_patch(
                resource, action.key.namespace, action.key.name, patch
            )
        except NotFound:
            return None
        answer["metadata"].pop("managedFields", None)
        return answer

    async def _update(
        self, key: Key, body: Body, existing: KubeObject, confirm: Confirm
    ) -> Body | None:
        """Apply what differs, and remove what others added and must not be there."""
        wants_apply, wants_removal = await self._wants_write(key, body, existing)
        answer = await self._send(body, {"uid": existing.uid}, confirm) if wants_apply else None
        if not wants_apply and not wants_removal:
            return None
        stored = await self._read(key) if answer is None else answer
        patch = None if stored is None else removal(body, stored)
        return (
            answer
            if patch is None or stored is None
            else await self._remove(key, stored, patch, confirm)
        )

    async def _send(self, body: Body, guard: dict[str, str], confirm: Confirm) -> Body:
        """An update names the uid, so that it cannot land on a successor of the same name."""
        await confirm()
        guarded = {**body, "metadata": {**body["metadata"], **guard}} if guard else body
        answer = await self._cluster.apply(guarded, manager=self._manager)
        answer["metadata"].pop("managedFields", None)
        part = _part(body, answer)
        mark = Mark(sent=digest(body), ours=digest(part), whole=_whole(answer))
        self._applied[key_of(body)] = Applied(mark, part, owners(body))
        return answer

    async def _remove(self, key: Key, stored: Body, patch: Body, confirm: Confirm) -> Body:
        """Guarded by the version that the patch was made from: lists are sent whole."""
        guard = {
            "uid": stored["metadata"]["uid"],
            "resourceVersion": stored["metadata"]["resourceVersion"],
        }
        guarded = {**patch, "metadata": {**patch.get("metadata", {}), **guard}}
        await confirm()
        answer = await self._cluster.merge_patch(
            RESOURCES[key.kind], key.namespace, key.name, guarded
        )
        answer["metadata"].pop("managedFields", None)
        applied = self._applied[key]
        self._applied[key] = replace(
            applied, mark=structs.replace(applied.mark, whole=_whole(answer))
        )
        return answer

    async def delete(self, action: DeleteObject, confirm: Confirm = unconditionally) -> bool:
        """True if there was something to delete. An object of the same name with another uid is
        left alone."""
        await confirm()
        self.forget(action.key)
        try:
            await self._cluster.delete(
                RESOURCES[action.key.kind],
                action.key.namespace,
                action.key.name,
                uid=action.uid,
                propagation="Background",
            )
        except (NotFound, Conflict):
            return False
        return True

    def forget(self, key: Key) -> None:
        """We deleted the object, or its record is invalid."""
        self._applied.pop(key, None)
        self._repairs.pop(key, None)

    def on_deleted(self, key: Key) -> None:
        """The object was deleted. If not by us, the deletion counts as drift to repair."""
        applied, now_s = self._applied.pop(key, None), self._clock_s()
        self._repairs = {
            of: repairs for of, repairs in self._repairs.items() if not repairs.is_expired(now_s)
        }
        if applied is not None and applied.owners and key.kind not in CREATE_ONLY_KINDS:
            repairs = self._repairs.get(key, RepairHistory())
            same = repairs if repairs.lost in {"", applied.owners} else RepairHistory()
            self._repairs[key] = replace(same.record(now_s), lost=applied.owners)

    def mark(self, key: Key) -> Mark | None:
        """Of the last apply, for those who come after us."""
        applied = self._applied.get(key)
        return None if applied is None else applied.mark

    def restore_mark(self, key: Key, mark: Mark | None) -> None:
        """The published record of the last action of an earlier process on an object."""
        self.forget(key)
        if mark is not None:
            self._applied[key] = Applied(mark)

    def delayed_repair(self, key: Key) -> DelayedRepair | None:
        """The repair of an object that others keep changing or deleting."""
        repairs = self._repairs.get(key)
        if repairs is None or repairs.conflict is None:
            return None
        return DelayedRepair(repairs.conflict, max(1.0, repairs.next_s - self._clock_s()))

    async def _create(self, key: Key, body: Body, confirm: Confirm) -> Body | None:
        """Applies a missing object. The first one of ours is used to test the guard."""
        if not self._may_create(key, body):
            return None
        created = await self._send(body, {}, confirm)
        if self._is_guard_honoured is None:
            self._is_guard_honoured = await self._honours_guard(key)
        return created

    async def _honours_guard(self, key: Key) -> bool:
        """Whether an apply with another version than the object has is answered with 409."""
        metadata = {"name": key.name, "resourceVersion": NO_VERSION}
        namespace = {} if key.namespace is None else {"namespace": key.namespace}
        body = {
            "apiVersion": RESOURCES[key.kind].api_version,
            "kind": key.kind,
            "metadata": metadata | namespace,
        }
        try:
            await self._cluster.apply(body, manager=self._manager, dry_run=True)
        except Conflict:
            return True
        except KubeError as error:
            log.info("guard-unknown", key=str(key), error=str(error))
            return False
        log.warning("guard-ignored", key=str(key), hint="objects are read before they are created")
        return False

    async def _known_object(self, state: Projection, key: Key) -> KubeObject | None:
        """The object from the state. If it is missing or incomplete, it is read from the API
        server: not every kind is watched completely, and events may be late."""
        existing = state.get(key)
        if existing is not None and existing.complete:
            return existing
        stored = await self._read(key)
        return (
            None
            if stored is None
            else KubeObject(
                key, stored["metadata"]["uid"], int(stored["metadata"]["resourceVersion"]), stored
            )
        )

    async def _read(self, key: Key) -> Body | None:
        """The object as the API server has it; on the bus are only parts of it."""
        try:
            return await self._cluster.get(RESOURCES[key.kind], key.namespace, key.name)
        except NotFound:
            return None

    def _may_create(self, key: Key, body: Body) -> bool:
        """Whether a missing object may be created now; another actor may keep deleting it."""
        repairs = self._repairs.get(key)
        if repairs is None or repairs.lost != owners(body) or self._clock_s() >= repairs.next_s:
            return True
        self._repairs[key] = replace(repairs, conflict=FieldConflict(key))
        return False

    async def _wants_write(self, key: Key, body: Body, existing: KubeObject) -> tuple[bool, bool]:
        """Whether an object that is there has to be applied, and whether others added what must
        go; counts repairs."""
        last, now_s = self._applied.get(key), self._clock_s()
        if last is None or last.mark.sent != digest(body):
            return True, True
        part = _part(body, existing.body)
        repairs = self._repairs.get(key, RepairHistory())
        additions = removal(body, existing.body)
        if last.part is None and (digest(part), _whole(existing.body)) != (
            last.mark.ours,
            last.mark.whole,
        ):
            last = await self._convert(key, body, last)
        drifted = digest(part) != last.mark.ours
        if not drifted and additions is None:
            if repairs.conflict is not None and now_s >= repairs.next_s:
                self._repairs[key] = replace(repairs, conflict=None)
            # A process before this one may have applied more and ended before it recorded that:
            # what it left behind must go.
            if last.part is None and _whole(existing.body) != last.mark.whole:
                return True, False
            self._applied[key] = Applied(last.mark, part, owners(body))
            return False, False
        if now_s < repairs.next_s:
            if repairs.conflict is None:
                path = (
                    next(diff_paths(last.part, part), ())
                    if additions is None
                    else first_path(additions)
                )
                conflict = await self._field_conflict(key, path)
                self._repairs[key] = replace(repairs, conflict=conflict)
            return False, False
        self._repairs[key] = repairs.record(now_s)
        return drifted, additions is not None

    async def _convert(self, key: Key, body: Body, last: Applied) -> Applied:
        """With the mark as it is made today, where a release before 0.3 made it from all of an
        object that is still the same."""
        stored = await self._read(key)
        if stored is None or (
            digest(managed_fields_of(body, stored)),
            digest(comparable(stored)),
        ) != (
            last.mark.ours,
            last.mark.whole,
        ):
            return last
        return replace(
            last,
            mark=structs.replace(last.mark, ours=digest(_part(body, stored)), whole=_whole(stored)),
        )

    async def _field_conflict(self, key: Key, path: tuple[str, ...]) -> FieldConflict:
        stored = await self._cluster.get(RESOURCES[key.kind], key.namespace, key.name)
        path = hashed_field(path[1]) if path[:1] == (HASHES,) and len(path) > 1 else path
        managers = tuple(field_managers_at(stored, path, self._manager))
        return FieldConflict(key, ".".join(path), managers)


def _part(body: Body, existing: Body) -> Any:
    """What is ours of an object. On the bus are hashes in place of literals; answers of the API
    server have to compare with that."""
    return managed_fields_of(without_literals(body), without_literals(existing))


def _whole(existing: Body) -> str:
    return digest(comparable(published_part(existing)))
