"""The known state of the bus: the last published message of each object.

1. It is folded from two overlapping sources: acknowledgements of published messages, and the bus
   itself. The sequence number orders them, so the order of the folds does not matter.
2. Bodies are stored as JSON: they are only compared, and as dicts they take five times the memory.
3. A deleted object stays as a tombstone until the bus delivers its delete: an earlier message that
   is still in flight must not revive it.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
from immutables import Map

from aimschema.messages import ObjectChanged, ObjectDeleted
from aimschema.resources import Key
from aimschema.spec_change import UNKNOWN, SpecChange


@dataclass(frozen=True, slots=True)
class Published:
    """The last message on an object. `seq` is its sequence number; `deleted` marks a delete;
    `raw` is the body as JSON. The other fields are those of the message."""

    uid: str
    version: int
    raw: bytes
    seq: int
    deleted: bool = False
    epoch: int = 0
    truncated: tuple[str, ...] = ()
    change: SpecChange = UNKNOWN

    @property
    def body(self) -> dict[str, Any]:
        return _decode(self.raw)


_decode = msgspec.json.Decoder(dict[str, Any]).decode
PublishedObjects: TypeAlias = Map[Key, Published]
NOTHING: PublishedObjects = Map()


def fold(
    known: PublishedObjects, message: ObjectChanged | ObjectDeleted, seq: int
) -> PublishedObjects:
    """The state after `message` got the sequence number `seq`. A second fold, or one after a later
    message, changes nothing."""
    key = Key(message.kind, message.namespace, message.name)
    published = known.get(key)
    deleted = isinstance(message, ObjectDeleted)
    if published is None and deleted:
        return known
    if published is not None and seq <= published.seq:
        return (
            known.delete(key) if deleted and published.deleted and seq == published.seq else known
        )
    truncated: tuple[str, ...] = ()
    change = UNKNOWN
    if isinstance(message, ObjectChanged):
        truncated = message.truncated
        change = SpecChange(message.manager, message.operation, message.time)
    return known.set(
        key,
        Published(
            message.uid,
            int(message.resource_version),
            msgspec.json.encode(message.object),
            seq,
            deleted,
            message.epoch,
            truncated,
            change,
        ),
    )


def live_object(known: PublishedObjects, key: Key) -> Published | None:
    """The last message on an object that exists according to the bus; None if it does not."""
    published = known.get(key)
    return None if published is None or published.deleted else published


def within(known: PublishedObjects, namespace: str) -> PublishedObjects:
    """The objects of a kind in one namespace."""
    return Map({key: published for key, published in known.items() if key.namespace == namespace})
