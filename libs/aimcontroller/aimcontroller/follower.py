"""Follow the bus: load the state, fold events, and enqueue the objects to reconcile.

1. An event only says which keys to reconcile. A plan is made from the state as it is when a worker
   gets to the key.
2. A message that cannot be decoded or folded never blocks the next one and changes nothing: it
   becomes a dead letter. If it hides a report of this component, that is published again; hidden
   objects are republished by the watcher.
"""

import asyncio
from collections.abc import Iterable
from typing import Protocol, assert_never

import structlog

from aimbus import Bus, CaughtUp, Event, Loading, Stalled, Undecodable, follow
from aimcontroller.component import Component
from aimcontroller.dead_letters import DeadLetters
from aimcontroller.metrics import events_read, follow_lag, source_of
from aimcontroller.readiness import Readiness
from aimcontroller.reporter import Reporter
from aimcontroller.store import StateStore
from aimschema import subjects
from aimschema.messages import (
    ActionTaken,
    DeadLetter,
    KindSynced,
    ObjectChanged,
    ObjectDeleted,
    StatusReported,
)
from aimschema.resources import Key

log = structlog.get_logger()


class EventSink(Protocol):
    """Callbacks of the follower to the controller."""

    def on_load(self) -> None:
        """A load begins."""

    def on_event(self, event: Event) -> None:
        """An event has come; nothing of it is folded yet."""

    def on_deleted(self, key: Key) -> None:
        """The object does not exist any more."""

    def on_action_taken(self, action: ActionTaken) -> None:
        """A process of this component, maybe another one, has acted."""

    def on_retry(self, key: Key, seq: int) -> None:
        """A person requests a retry of the work behind a dead letter."""

    def enqueue(self, keys: Iterable[Key], seq: int) -> None:
        """Reconcile these because of the event with this sequence number."""


class Follower:
    """For one event loop."""

    def __init__(
        self,
        component: Component,
        bus: Bus,
        store: StateStore,
        readiness: Readiness,
        reporter: Reporter,
        sink: EventSink,
    ) -> None:
        self._component = component
        self._bus = bus
        self._store = store
        self._readiness = readiness
        self._reporter = reporter
        self._sink = sink
        self._dead_letters = DeadLetters(component.name, bus)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._dead_letters.send())

    async def _follow(self) -> None:
        async for item in follow(self._bus, self._component.filters):
            match item:
                case Loading():
                    self._load_started()
                case Event():
                    self._handle(item)
                case CaughtUp():
                    self._store.load_ended()
                    self._readiness.load_ended()
                    self._dead_letters.load_ended()
                case Stalled(why=why):
                    self._readiness.load_stalled(why)
                case Undecodable():
                    self._dead_letters.record_undecodable(item)
                    self._on_undecodable(item.subject, item.seq)
                case _:
                    assert_never(item)

    def _load_started(self) -> None:
        self._dead_letters.load_started()
        self._sink.on_load()
        self._store.load_started()
        self._readiness.load_started()

    def _handle(self, event: Event) -> None:
        try:
            self._on_event(event)
        except Exception as error:  # (one event must not stop the next)
            log.exception("event-failed", subject=event.subject, seq=event.seq)
            self._dead_letters.record_unprocessable(event, error)
            self._on_undecodable(event.subject, event.seq)

    def _on_undecodable(self, subject: str, seq: int) -> None:
        """The last message on a subject is unknown: that does not mean that its object is
        deleted."""
        address = subjects.try_parse(subject)
        if address is None or address.key is None:
            return
        key = address.key
        if address.family == subjects.OBJECT:
            self._store.object_loaded(key)
        elif address.family == subjects.REPORT and address.service is not None:
            if address.service != self._component.name:
                self._store.report_loaded(key, address.service)
                return
            self._store.drop_report(key, address.service)
            self._enqueue([key], seq)

    def _on_event(self, event: Event) -> None:
        events_read(source_of(event.source)).inc()
        follow_lag(self._component.name).set(event.pending)
        self._sink.on_event(event)
        match event.message:
            case KindSynced() as marker:
                self._on_kind_synced(marker)
            case ObjectChanged() | ObjectDeleted() as message:
                key = Key(message.kind, message.namespace, message.name)
                self._store.object_loaded(key)
                self._fold_object(message, key, event.seq)
                if self._store.state.get(key) is None:
                    self._sink.on_deleted(key)
            case ActionTaken() as action:
                self._sink.on_action_taken(action)
            case StatusReported() as report:
                self._on_report(report, event.seq)
            case DeadLetter() as dead_letter:
                self._on_dead_letter(dead_letter, event.seq)
            case _:
                log.warning("unexpected-message", subject=event.subject, seq=event.seq)

    def _on_kind_synced(self, marker: KindSynced) -> None:
        for deletion in self._store.unconfirmed_deletions(marker):
            key = Key(deletion.kind, deletion.namespace, deletion.name)
            self._fold_object(deletion, key, 0)
            self._sink.on_deleted(key)
        is_changed = self._store.state.is_kind_served(marker.kind) != marker.installed
        self._store.fold(marker)
        self._readiness.kind_synced(marker.kind, is_changed=is_changed)

    def _fold_object(self, message: ObjectChanged | ObjectDeleted, key: Key, seq: int) -> None:
        before = self._store.state
        self._store.fold(message, seq)
        after = self._store.state
        if self._readiness.is_leading and after is not before:
            self._sink.enqueue(self._component.keys_to_reconcile(before, after, key), seq)

    def _on_report(self, report: StatusReported, seq: int) -> None:
        key = Key(report.kind, report.namespace, report.name)
        self._store.report_loaded(key, report.service)
        is_foreign = self._reporter.is_from_another_process(report, key)
        self._store.fold(report, seq)
        if self._component.reports or is_foreign:
            self._enqueue([key], seq)

    def _on_dead_letter(self, dead_letter: DeadLetter, seq: int) -> None:
        self._dead_letters.mark_published(dead_letter)
        is_of_object = bool(dead_letter.name) and not dead_letter.subject
        if dead_letter.handled and is_of_object and self._readiness.is_leading:
            key = Key(dead_letter.kind, dead_letter.namespace, dead_letter.name)
            self._sink.on_retry(key, seq)

    def _enqueue(self, keys: Iterable[Key], seq: int) -> None:
        if self._readiness.is_leading:
            self._sink.enqueue(keys, seq)
