"""The objects that a diagnosis needs, as subjects to read: few of those on the bus. Pure.

A diagnosis of what is known so far looks up objects that are not read yet. They are read, and it is
made again until it looks up nothing new. So it is the same as with all objects read. Objects of all
namespaces are read last: only a name that is missing is looked up in others.
"""

import datetime
from collections.abc import Iterator, Set
from typing import Any

import msgspec

from aimcontroller.indexes import Index
from aimcontroller.projection import KubeObject, Projection
from aimctl.analysis.diagnosis import diagnose
from aimschema import subjects
from aimschema.resources import RESOURCES, Key


class _Recorder(Projection, frozen=True):
    """A state that records what is looked up in it."""

    lookups: set[str] = msgspec.field(default_factory=set)
    everywhere: set[str] = msgspec.field(default_factory=set)

    def get(self, key: Key) -> KubeObject | None:
        self.lookups.add(subjects.of_object(key))
        return Projection.get(self, key)

    def in_namespace(self, kind: str, namespace: str | None) -> Iterator[KubeObject]:
        self.lookups.add(subjects.objects_in(kind, namespace))
        return Projection.in_namespace(self, kind, namespace)

    def in_all_namespaces(self, kind: str) -> Iterator[KubeObject]:
        self.everywhere.add(subjects.objects(kind))
        return Projection.in_all_namespaces(self, kind)

    def _find(
        self, index: Index, kind: str, namespace: str | None, value: str
    ) -> Iterator[KubeObject]:
        if namespace is None and RESOURCES[kind].namespaced:
            self.everywhere.add(subjects.objects(kind))
        else:
            self.lookups.add(subjects.objects_in(kind, namespace))
        return Projection._find(self, index, kind, namespace, value)


def unread_subjects(
    state: Projection, key: Key, now: datetime.datetime, read: Set[str]
) -> frozenset[str]:
    """Filters, of which none overlaps another, for the objects that a diagnosis of `key` needs
    beside those of the filters `read`."""
    fields: dict[str, Any] = {name: getattr(state, name) for name in state.__struct_fields__}
    recorder = _Recorder(**fields)
    diagnose(recorder, key, now, {})
    return _unread(recorder.lookups, read) or _unread(recorder.everywhere, read)


def _unread(lookups: Set[str], read: Set[str]) -> frozenset[str]:
    unread = {each for each in lookups if not _is_covered(each, read)}
    return frozenset(each for each in unread if not _is_covered(each, unread - {each}))


def _is_covered(subject: str, filters: Set[str]) -> bool:
    return any(subjects.matches(each, subject) for each in filters)
