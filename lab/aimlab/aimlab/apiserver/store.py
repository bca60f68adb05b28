"""Objects in memory with one version counter, a history for watches and observers. No asyncio, no
rules about kinds.

Guarantees: every change gets the next version; observers of a collection see its changes in version
order, before the writer continues; an object handed in is never changed afterwards.
Single-threaded.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Literal, NamedTuple

import msgspec

from aimlab.apiserver.objects import Obj

HISTORY_SIZE = 10_000
FIRST_VERSION = 1

CollectionKey = tuple[str, str]
"""(group, plural)"""


class Entry:
    """One version of an object; encoded at most once."""

    __slots__ = ("_raw", "obj", "version")

    def __init__(self, obj: Obj, version: int) -> None:
        self.obj = obj
        self.version = version
        self._raw: bytes | None = None

    @property
    def raw(self) -> bytes:
        """The object as JSON."""
        if self._raw is None:
            self._raw = msgspec.json.encode(self.obj)
        return self._raw


class Change(NamedTuple):
    """One step in a collection's history. For DELETED, `entry` is the last state under the
    version of the deletion."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    entry: Entry
    previous: Entry | None

    @property
    def version(self) -> int:
        return self.entry.version


Observer = Callable[[Change], None]


@dataclass(eq=False)
class Collection:
    """The objects of one kind, by namespace ("" for cluster-scoped) and name. History before
    version `floor` is discarded."""

    floor: int
    objects: dict[str, dict[str, Entry]] = field(default_factory=dict)
    history: deque[Change] = field(default_factory=deque)
    observers: set[Observer] = field(default_factory=set)
    closers: set[Callable[[], None]] = field(default_factory=set)

    def get(self, namespace: str, name: str) -> Entry | None:
        return self.objects.get(namespace, {}).get(name)

    def entries(self, namespace: str | None) -> list[Entry]:
        """All entries of a namespace, or of all with None, in the order of their keys."""
        spaces = sorted(self.objects) if namespace is None else [namespace]
        return [
            entry for space in spaces for _, entry in sorted(self.objects.get(space, {}).items())
        ]

    def since(self, version: int) -> list[Change]:
        """The changes after a version, oldest first."""
        newer = list(takewhile(lambda change: change.version > version, reversed(self.history)))
        newer.reverse()
        return newer

    def entries_at(self, namespace: str | None, version: int) -> list[Entry]:
        """The entries as they were at a version not older than `floor`."""
        keys = {
            (_space(entry), entry.obj["metadata"]["name"]): entry
            for entry in self.entries(namespace)
        }
        for change in reversed(self.since(version)):
            key = (_space(change.entry), change.entry.obj["metadata"]["name"])
            if namespace is not None and key[0] != namespace:
                continue
            if change.previous is None:
                keys.pop(key, None)
            else:
                keys[key] = change.previous
        return [keys[key] for key in sorted(keys)]


def _space(entry: Entry) -> str:
    return entry.obj["metadata"].get("namespace") or ""


class Store:
    """All collections of a cluster."""

    def __init__(self, history_size: int = HISTORY_SIZE) -> None:
        self.version = FIRST_VERSION
        self.history_size = history_size
        self.collections: dict[CollectionKey, Collection] = {}
        self.observers: list[Callable[[CollectionKey, Change], None]] = []

    def open(self, key: CollectionKey) -> Collection:
        """The collection, made if it is new; its history starts now."""
        if key not in self.collections:
            self.version += 1
            self.collections[key] = Collection(floor=self.version)
        return self.collections[key]

    def close(self, key: CollectionKey) -> None:
        """Forget a collection and end its watches. It should be empty."""
        for closer in list(self.collections.pop(key).closers):
            closer()

    def put(self, key: CollectionKey, obj: Obj) -> Entry:
        """Store a new object or version under the next version, which is written into its
        metadata."""
        metadata = obj["metadata"]
        space = self.collections[key].objects.setdefault(metadata.get("namespace") or "", {})
        previous = space.get(metadata["name"])
        entry = self._stamp_version(obj)
        space[metadata["name"]] = entry
        self._notify(key, Change("MODIFIED" if previous else "ADDED", entry, previous))
        return entry

    def remove(
        self, key: CollectionKey, namespace: str, name: str, last: Obj | None = None
    ) -> None:
        """Remove an object; watchers see `last` (default: as stored) under the version of the
        deletion."""
        space = self.collections[key].objects[namespace]
        previous = space.pop(name)
        if not space:
            del self.collections[key].objects[namespace]
        final = last or previous.obj
        self._notify(
            key,
            Change(
                "DELETED",
                self._stamp_version({**final, "metadata": dict(final["metadata"])}),
                previous,
            ),
        )

    def _stamp_version(self, obj: Obj) -> Entry:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        return Entry(obj, self.version)

    def _notify(self, key: CollectionKey, change: Change) -> None:
        collection = self.collections[key]
        collection.history.append(change)
        if len(collection.history) > self.history_size:
            collection.floor = collection.history.popleft().version
        for observer in list(collection.observers):
            observer(change)
        for everything in self.observers:
            everything(key, change)

    def everything(self) -> Iterator[tuple[CollectionKey, Entry]]:
        """Every stored entry."""
        for key, collection in list(self.collections.items()):
            for entry in collection.entries(None):
                yield key, entry
