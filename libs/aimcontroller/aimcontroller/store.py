"""The state of the cluster that one component has built, and the bookkeeping of a load.

1. `state` is replaced, never changed: a planner may hold on to it.
2. A load that ends drops what it did not bring: it was deleted while nothing was read.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from aimcontroller import projection
from aimcontroller.projection import (
    PENDING_CREATE,
    Observation,
    Projection,
    StateEvent,
    clear_observations,
    drop_object,
    drop_reports,
    reset_report_order,
)
from aimschema.messages import KindSynced, ObjectDeleted
from aimschema.resources import Key


@dataclass
class _Load:
    """What a load has brought."""

    objects: set[Key] = field(default_factory=set)
    reports: set[tuple[Key, str]] = field(default_factory=set)


class StateStore:
    """For one event loop."""

    def __init__(self) -> None:
        self.state = Projection()
        self._load: _Load | None = None

    def fold(self, event: StateEvent, seq: int = 0) -> None:
        """Sequence number 0: the answer to a write of this process, or an observation."""
        self.state = projection.fold(self.state, event, seq)

    def load_started(self) -> None:
        """Sequence numbers from before may be those of another stream."""
        self._load = _Load()
        self.state = reset_report_order(self.state)

    def object_loaded(self, key: Key) -> None:
        """The load has brought the object, or a message that hides it."""
        if self._load is not None:
            self._load.objects.add(key)

    def report_loaded(self, key: Key, component: str) -> None:
        if self._load is not None:
            self._load.reports.add((key, component))

    def load_ended(self) -> None:
        load, self._load = self._load, None
        if load is None:
            return
        for key in [obj.key for obj in self.state.all_objects() if obj.key not in load.objects]:
            self.drop(key)
        outdated = [report for report in self.state.report_keys() if report not in load.reports]
        self.state = drop_reports(self.state, outdated)

    def drop(self, key: Key) -> None:
        """Forget an object without knowing the version at which it was deleted."""
        self.state = drop_object(self.state, key)

    def drop_report(self, key: Key, component: str) -> None:
        self.state = drop_reports(self.state, [(key, component)])

    def clear_observations(self) -> None:
        self.state = clear_observations(self.state)

    def unconfirmed_deletions(self, marker: KindSynced) -> list[ObjectDeleted]:
        """Deletions of own writes that a complete list does not have. While the state is loaded,
        the end of the load drops them."""
        if self._load is not None:
            return []
        return [
            ObjectDeleted(
                kind=obj.key.kind,
                namespace=obj.key.namespace,
                name=obj.key.name,
                uid=obj.uid,
                resource_version=str(obj.version),
                object=obj.body,
                epoch=obj.epoch,
            )
            for obj in self.state.unconfirmed_writes(marker)
        ]

    @contextmanager
    def creating(self, keys: Sequence[Key]) -> Iterator[None]:
        """What is planned counts at once: the plan of another key may depend on how many there
        are."""
        for key in keys:
            self.fold(Observation(key, PENDING_CREATE, value=True))
        try:
            yield
        finally:
            for key in keys:
                self.fold(Observation(key, PENDING_CREATE, None))
