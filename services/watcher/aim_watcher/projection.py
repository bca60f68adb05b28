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
    """The last message on an object: `seq` is its place in the log, `gone` that it was a delete,
    `raw` the body as JSON, the rest the message's."""

    uid: str
    version: int
    raw: bytes
    seq: int
    gone: bool = False
    epoch: int = 0
    truncated: tuple[str, ...] = ()

    @property
    def body(self) -> dict[str, Any]:
        return _decode(self.raw)


_decode = msgspec.json.Decoder(dict[str, Any]).decode
Known: TypeAlias = Map[Key, Published]
NOTHING: Known = Map()


def fold(known: Known, message: ObjectChanged | ObjectDeleted, seq: int) -> Known:
    """What is on the bus after `message` got the sequence number `seq`. Folding it twice, or
    after a later one, changes nothing."""
    key = Key(message.kind, message.namespace, message.name)
    present = known.get(key)
    gone = isinstance(message, ObjectDeleted)
    if present is None and gone:
        return known
    if present is not None and seq <= present.seq:
        return known.delete(key) if gone and present.gone and seq == present.seq else known
    truncated = message.truncated if isinstance(message, ObjectChanged) else ()
    raw = msgspec.json.encode(message.object)
    return known.set(
        key,
        Published(
            message.uid, int(message.resource_version), raw, seq, gone, message.epoch, truncated
        ),
    )


def living(known: Known, key: Key) -> Published | None:
    """What the bus says on an object that it says is there."""
    present = known.get(key)
    return None if present is None or present.gone else present


def within(known: Known, namespace: str) -> Known:
    """Of a kind only what is in a namespace."""
    return Map({key: present for key, present in known.items() if key.namespace == namespace})
