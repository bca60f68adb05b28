"""What is on the bus: per object, the last message that was published on it.

1. It is folded from two sources that overlap, the acknowledgements of our own messages and the bus
   itself; the sequence number says which is later, so their order does not matter.
2. Bodies are kept as JSON: they are needed only to compare, and as dicts they take five times the
   memory.
3. A deleted object stays as a mark until the bus has shown its delete to us: an earlier message
   still under way must not revive it.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
from immutables import Map

from aimschema.messages import ObjectChanged, ObjectDeleted
from aimschema.resources import Key


@dataclass(frozen=True, slots=True)
class Published:
    """The last message on an object: `seq` is its place in the log, `deleted` that it was a delete,
    `raw` the body as JSON, the rest the message's."""

    uid: str
    version: int
    raw: bytes
    seq: int
    deleted: bool = False
    epoch: int = 0
    truncated: tuple[str, ...] = ()

    @property
    def body(self) -> dict[str, Any]:
        return _decode(self.raw)


_decode = msgspec.json.Decoder(dict[str, Any]).decode
PublishedObjects: TypeAlias = Map[Key, Published]
NOTHING: PublishedObjects = Map()


def fold(
    known: PublishedObjects, message: ObjectChanged | ObjectDeleted, seq: int
) -> PublishedObjects:
    """What is on the bus after `message` got the sequence number `seq`. Folding it twice, or
    after a later one, changes nothing."""
    key = Key(message.kind, message.namespace, message.name)
    published = known.get(key)
    deleted = isinstance(message, ObjectDeleted)
    if published is None and deleted:
        return known
    if published is not None and seq <= published.seq:
        return (
            known.delete(key) if deleted and published.deleted and seq == published.seq else known
        )
    truncated = message.truncated if isinstance(message, ObjectChanged) else ()
    raw = msgspec.json.encode(message.object)
    return known.set(
        key,
        Published(
            message.uid, int(message.resource_version), raw, seq, deleted, message.epoch, truncated
        ),
    )


def live_object(known: PublishedObjects, key: Key) -> Published | None:
    """What the bus says on an object that it says is there."""
    published = known.get(key)
    return None if published is None or published.deleted else published


def within(known: PublishedObjects, namespace: str) -> PublishedObjects:
    """Of a kind only what is in a namespace."""
    return Map({key: published for key, published in known.items() if key.namespace == namespace})
