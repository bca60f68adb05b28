"""What the bus has, as far as the watcher knows.

1. It changes only by acknowledgements and by messages from the bus: `fold` and `note_age`.
2. Readers drop an object that is not newer than its delete. A watcher that was killed after a
   delete for a kind or namespace that is not watched, and before the marker that begins an epoch,
   leaves such a delete. So the deletes of a load are known until their kind is listed.
3. An own message that is acknowledged before the bus delivers it is not decoded. A delete is: its
   object stays as a tombstone until then.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from aim_watcher.plan import ObjectMessage, Outgoing, is_older_than_published, newest_of
from aim_watcher.projection import NOTHING, PublishedObjects, fold
from aimschema.messages import KindSynced, ObjectChanged, ObjectDeleted
from aimschema.resources import GATEWAY, RESOURCES, Key, Resource, key_of

EVERYWHERE = frozenset({GATEWAY.kind})
"""Namespaced kinds that objects of other namespaces refer to."""


class BusState:
    """The last message of every object, and the age of the newest one.

    `known`: the last messages by kind. `loaded_seq`: the last sequence number of the load.
    `hidden`: objects whose last message cannot be decoded, with its sequence number. `namespaces`:
    those that are watched; empty means all.
    """

    def __init__(self, namespaces: Sequence[str] = ()) -> None:
        self.namespaces = tuple(namespaces)
        self.reset()

    def reset(self) -> None:
        """Forget everything, for a new load."""
        self.known: defaultdict[str, PublishedObjects] = defaultdict(lambda: NOTHING)
        self.loaded_seq = 0
        self.epoch = 0
        self.hidden: dict[Key, int] = {}
        # Sequence numbers of own messages that the bus has not delivered yet, as a heap.
        self._own: list[int] = []
        self._delivered_seq = 0
        # Epoch and version of the newest message, by kind and namespace.
        self._newest: defaultdict[tuple[str, str | None], tuple[int, int]] = defaultdict(
            lambda: (0, 0)
        )
        # Epoch and version of deletes, by kind; without the kinds that have been listed.
        self._deletes: dict[str, dict[Key, tuple[int, int]]] = {kind: {} for kind in RESOURCES}

    def scopes(self, resource: Resource) -> Sequence[str | None]:
        """The namespaces in which a kind is watched. None is the whole cluster."""
        is_scoped = resource.namespaced and resource.kind not in EVERYWHERE
        return self.namespaces if self.namespaces and is_scoped else (None,)

    def fold(self, message: ObjectMessage, seq: int) -> None:
        self.known[message.kind] = fold(self.known[message.kind], message, seq)
        self.note_age(message)
        if isinstance(message, ObjectDeleted) and message.kind in self._deletes:
            key = Key(message.kind, message.namespace, message.name)
            self._deletes[message.kind][key] = newest_of(message)

    def fold_acknowledged(self, message: ObjectMessage, seq: int) -> None:
        """Fold an own message, with the sequence number that the bus gave it."""
        self.fold(message, seq)
        if isinstance(message, ObjectChanged) and seq > self._delivered_seq:
            heapq.heappush(self._own, seq)

    def is_known(self, seq: int) -> bool:
        """Whether the next message that the bus delivers is folded already. Those before it in the
        order will not come: the bus has a later one on their subject."""
        self._delivered_seq = seq
        while self._own and self._own[0] < seq:
            heapq.heappop(self._own)
        return bool(self._own) and self._own[0] == seq

    def note_age(self, message: Outgoing) -> None:
        self.epoch = max(self.epoch, message.epoch)
        scopes = self.scopes(RESOURCES[message.kind])
        if not isinstance(message, KindSynced) and scopes != (None,):
            scopes = (message.namespace,)
        for scope in scopes:
            place = (message.kind, scope)
            self._newest[place] = max(self._newest[place], newest_of(message))

    def is_newer_than(self, kind: str, scope: str | None, resource_version: str) -> bool:
        """Whether the bus has a newer message of this kind than a list at this version."""
        return is_older_than_published(self._newest[kind, scope], resource_version, self.epoch)

    def hides(self, kind: str, items: Iterable[dict[str, Any]]) -> bool:
        """Whether the bus has a delete that is not older than one of these listed objects, so that
        readers would drop the object."""
        deletes = self._deletes.get(kind, {})
        return bool(deletes) and any(
            deletes.get(key_of(item), (-1, 0))
            >= (self.epoch, int(item["metadata"]["resourceVersion"]))
            for item in items
        )

    def forget_deletes(self, kind: str) -> None:
        """The kind is listed in all namespaces; its deletes count no more."""
        self._deletes.pop(kind, None)
