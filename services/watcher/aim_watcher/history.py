"""Decide which versions of a spec are appended to AIM_HISTORY. Pure and total.

1. A version is recorded if its uid or generation differs from the last message of its subject, and
   if it is newer. So a restart, a doubled event or a late one records nothing a second time.
2. Newer is a later epoch, or a higher resourceVersion in the same epoch (aimschema.messages).
3. A delete is recorded once. If an object was deleted and created again unnoticed, its delete comes
   first, at the last recorded version.
4. Versions that were not seen are missing. Their generations show it.
5. The spec has hashes in place of literal values of environment variables.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from msgspec import structs

from aim_watcher.prune import change_of, publishable
from aimschema.env_literals import without_env_literals
from aimschema.labels import PREFIX
from aimschema.messages import SpecDeleted, SpecVersion
from aimschema.published import SPEC
from aimschema.resources import AIM_KINDS, Key, key_of

Body: TypeAlias = dict[str, Any]
HistoryMessage: TypeAlias = SpecVersion | SpecDeleted
KINDS = frozenset(resource.kind for resource in AIM_KINDS)


@dataclass(frozen=True, slots=True)
class Recorded:
    """The last message on the history of an object; `seq` is its sequence."""

    uid: str
    generation: int
    epoch: int
    version: int
    seq: int
    deleted: bool


RecordedObjects: TypeAlias = Mapping[Key, Recorded]


class Scope(NamedTuple):
    """The objects of a kind, in one namespace or in all (None)."""

    kind: str
    namespace: str | None


def record_of(message: HistoryMessage, seq: int) -> Recorded:
    """The state after a message of the stream."""
    return Recorded(
        message.uid,
        message.generation,
        message.epoch,
        int(message.resource_version),
        seq,
        isinstance(message, SpecDeleted),
    )


def unknown_record(seq: int) -> Recorded:
    """The state after a message that cannot be decoded: the object is recorded again."""
    return Recorded("", 0, -1, 0, seq, deleted=True)


def plan_listed(
    known: RecordedObjects, scope: Scope, items: Iterable[Body], resource_version: str, epoch: int
) -> list[HistoryMessage]:
    """The messages for a list of a kind, those of one object in order."""
    listed = {key_of(item): item for item in items}
    versions = [
        message
        for key, item in listed.items()
        for message in plan_version(known.get(key), item, epoch)
    ]
    missing = (key for key in _within(known, scope) if key not in listed)
    return [*versions, *_deletes(known, missing, int(resource_version), epoch)]


def plan_changed(known: RecordedObjects, body: Body, epoch: int) -> list[HistoryMessage]:
    """The messages for an added or modified object."""
    return plan_version(known.get(key_of(body)), body, epoch)


def plan_removed(known: RecordedObjects, body: Body, epoch: int) -> list[HistoryMessage]:
    """The messages for an object that was deleted."""
    return _deletes(known, [key_of(body)], _version(body), epoch)


def plan_absent(known: RecordedObjects, scope: Scope, epoch: int) -> list[HistoryMessage]:
    """The messages for a kind that the API server does not serve: it has no objects."""
    return _deletes(known, _within(known, scope), None, epoch)


def plan_version(last: Recorded | None, body: Body, epoch: int) -> list[HistoryMessage]:
    """The messages for an object that exists."""
    metadata = body["metadata"]
    generation, version = _generation(metadata), _version(body)
    if last is not None:
        if (epoch, version) <= (last.epoch, last.version):
            return []
        if not last.deleted and (last.uid, last.generation) == (metadata["uid"], generation):
            return []
    found = _spec_version(key_of(body), body, generation, epoch)
    if last is None or last.deleted or last.uid == found.uid:
        return [found]
    return [_delete_of(key_of(body), last, last.version, last.epoch), found]


def cut(message: HistoryMessage) -> HistoryMessage | None:
    """The message without its spec, for a server that takes only smaller ones; then without labels
    and annotations. None if there is nothing left to omit."""
    if not isinstance(message, SpecVersion) or not (
        message.spec or message.labels or message.annotations
    ):
        return None
    if message.spec:
        return structs.replace(message, spec={}, truncated=(*message.truncated, SPEC))
    left_out = (*message.truncated, "metadata.labels", "metadata.annotations")
    return structs.replace(message, labels={}, annotations={}, truncated=left_out)


def _spec_version(key: Key, body: Body, generation: int, epoch: int) -> SpecVersion:
    published, left_out = publishable(body)
    metadata = published["metadata"]
    spec = published.get(SPEC)
    return SpecVersion(
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        uid=metadata["uid"],
        generation=generation,
        resource_version=metadata["resourceVersion"],
        spec=without_env_literals(spec) if isinstance(spec, dict) else {},
        labels=_texts(metadata.get("labels")),
        annotations=_texts(metadata.get("annotations"), PREFIX),
        truncated=tuple(path for path in left_out if path.partition(".")[0] != "status"),
        epoch=epoch,
        **change_of(body)._asdict(),
    )


def _texts(found: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(found, dict):
        return {}
    return {
        name: text
        for name, text in found.items()
        if isinstance(text, str) and name.startswith(prefix)
    }


def _delete_of(key: Key, last: Recorded, version: int, epoch: int) -> SpecDeleted:
    return SpecDeleted(
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        uid=last.uid,
        generation=last.generation,
        resource_version=str(version),
        epoch=epoch,
    )


def _within(known: RecordedObjects, scope: Scope) -> list[Key]:
    return [
        key for key in known if key.kind == scope.kind and scope.namespace in {None, key.namespace}
    ]


def _deletes(
    known: RecordedObjects, keys: Iterable[Key], version: int | None, epoch: int
) -> list[HistoryMessage]:
    """The messages for objects that do not exist at `version`; None: at their last version."""
    found: list[HistoryMessage] = []
    for key in keys:
        last = known.get(key)
        if last is None or last.deleted:
            continue
        at = last.version if version is None else version
        if (epoch, at) >= (last.epoch, last.version):
            found.append(_delete_of(key, last, at, epoch))
    return found


def _generation(metadata: Body) -> int:
    generation = metadata.get("generation")
    return generation if isinstance(generation, int) else 0


def _version(body: Body) -> int:
    return int(body["metadata"]["resourceVersion"])
