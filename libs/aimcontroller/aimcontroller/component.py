"""A component of the control plane as data. Pure: nothing here runs it."""

import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain

from prometheus_client.metrics_core import Metric

from aimcontroller.failures import FailureConditions, with_failures
from aimcontroller.plan import Plan
from aimcontroller.predicates import Predicate
from aimcontroller.projection import KubeObject, Projection
from aimschema import reasons, subjects
from aimschema.resources import CONFIG, Key, Resource
from aimschema.schema_compat import Contract


@dataclass(frozen=True)
class Component:
    """A service as data: what it follows, which keys an event touches, what it plans, and its
    own kinds of action."""

    name: str
    reconciles: tuple[Resource, ...]  # kinds whose objects are reconciled
    watches: tuple[Resource, ...]  # kinds in its state
    map_to_keys: Callable[[Projection, Key], Iterable[Key]]
    planner: Callable[[Projection, Key, datetime.datetime], Plan]
    reports: str = ""  # filter of the reports it reads; empty: its own
    owns: tuple[Resource, ...] = ()  # kinds it creates, and repairs after drift
    reads_status_of: Mapping[str, frozenset[str]] = field(
        default_factory=dict, hash=False
    )  # by kind, what others report that it reads
    measure: Callable[[Projection], Iterable[Metric]] = (
        lambda _state: ()
    )  # what is counted at each scrape
    failures: Mapping[str, FailureConditions] = field(
        default_factory=dict, hash=False
    )  # by kind that is planned, the conditions that show what prevents a plan
    progress_of: tuple[Resource, ...] = ()  # kinds whose progress it publishes, not stored
    map_change_to_keys: Callable[[Projection, Projection, Key], Iterable[Key]] = (
        lambda _before, _after, _key: ()
    )  # keys an event touches by what it changes
    predicates: Mapping[str, Predicate] = field(
        default_factory=dict, hash=False
    )  # by kind, which updates of an object are reconciled; all of a kind that is missing here

    def plan(self, state: Projection, key: Key, now: datetime.datetime) -> Plan:
        """What the planner decides, with the rejections and field conflicts that prevent it."""
        return with_failures(self.planner(state, key, now), state, key, self.failures)

    @property
    def filters(self) -> list[str]:
        reports = self.reports or subjects.reports(service=self.name)
        objects = (subjects.objects(r.kind) for r in self.watches)
        markers = (subjects.of_synced(r.kind) for r in self.watches)
        actions = (subjects.actions(self.name, r.kind) for r in self.owns)
        return [*objects, *markers, *actions, reports, subjects.dead_letters(self.name)]

    def keys_to_reconcile(self, before: Projection, after: Projection, key: Key) -> list[Key]:
        """Keys to reconcile once the object at `key` has changed: those it touched before and
        touches now (it may have moved between owners). After a write of our own the event of it
        counts whatever it has: nothing was reconciled for the response."""
        matters = self.predicates.get(key.kind)
        if matters is not None and not _is_reconciled(matters, before.get(key), after.get(key)):
            return []
        found = (
            self.map_to_keys(before, key),
            self.map_to_keys(after, key),
            self.map_change_to_keys(before, after, key),
        )
        return list(dict.fromkeys(chain.from_iterable(found)))

    @property
    def contract(self) -> Contract:
        """What it does on the bus."""
        owned = [
            kind for kind, services in reasons.STATUS_OWNERSHIP.items() if self.name in services
        ]
        advised = [CONFIG.kind] if self.name in reasons.WARNING_REPORTERS else []
        reports = (subjects.reports(kind, self.name) for kind in [*owned, *advised])
        progress = (subjects.progress(resource.kind) for resource in self.progress_of)
        emits = (*reports, subjects.actions(self.name), subjects.dead_letters(self.name), *progress)
        return Contract(self.name, tuple(self.filters), emits, self.reads_status_of)


def _is_reconciled(matters: Predicate, old: KubeObject | None, new: KubeObject | None) -> bool:
    return old is None or new is None or not old.seq or matters(old, new)
