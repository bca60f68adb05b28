"""Publishes the changes of the cluster, from the load of AIM_STATE on.

1. Nothing is listed before AIM_STATE is loaded, so that deletes during a downtime are found. A new
   load starts over.
2. Only the holder of the Lease publishes: each publication awaits `fence` first.
3. If a message cannot be decoded or processed, its object is republished: now, or with the list of
   its kind.
"""

import asyncio
from collections.abc import Sequence
from typing import assert_never

import structlog

from aim_watcher.bus_state import BusState
from aim_watcher.cluster_watch import ClusterWatch
from aim_watcher.contract import CONTRACT
from aim_watcher.history_writer import HistoryWriter
from aim_watcher.object_publisher import ObjectPublisher
from aimbus import Bus, CaughtUp, Event, Loading, Stalled, Undecodable, follow
from aimcontroller.dead_letters import DeadLetters
from aimcontroller.health import Health
from aimcontroller.metrics import events_read, follow_lag, source_of
from aimkube import Cluster, Fence
from aimschema import subjects
from aimschema.messages import DeadLetter, KindSynced, ObjectChanged, ObjectDeleted
from aimschema.reasons import WATCHER

STATE = "state"
log = structlog.get_logger()


class ClusterPublisher:
    """Publishes the cluster until it is cancelled."""

    def __init__(
        self,
        bus: Bus,
        cluster: Cluster,
        health: Health,
        history: HistoryWriter,
        *,
        fence: Fence,
        namespaces: Sequence[str] = (),
    ) -> None:
        self._bus = bus
        self._history = history
        self._health = health
        self._dead_letters = DeadLetters(WATCHER, bus)
        self._state = BusState(namespaces)
        objects = ObjectPublisher(bus, fence, self._state)
        self._watch = ClusterWatch(cluster, health, self._state, objects, history)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._dead_letters.send())
            tasks.create_task(self._watch.run())
            tasks.create_task(self._history.run(self._watch.relist))
            await self._follow(tasks)

    async def _follow(self, tasks: asyncio.TaskGroup) -> None:
        loading = True
        try:
            async for item in follow(self._bus, CONTRACT.consumes, self._is_known):
                match item:
                    case Loading():
                        loading = True
                        await self._on_loading()
                    case Event():
                        self._on_event(item, tasks)
                    case Undecodable():
                        self._dead_letters.record_undecodable(item)
                        self._on_hidden(item, tasks)
                    case CaughtUp():
                        loading = False
                        self._on_caught_up()
                    case Stalled(why=why):
                        self._health.set_not_ready(STATE, why)
                    case _:
                        assert_never(item)
                if isinstance(item, Event):
                    _count(item.source, item.pending)
                if loading and isinstance(item, Event | Undecodable):
                    self._state.loaded_seq = max(self._state.loaded_seq, item.seq)
        finally:
            await self._watch.stop()

    def _is_known(self, seq: int, pending: int) -> bool:
        """Whether it is an own message that is folded already."""
        is_known = self._state.is_known(seq)
        if is_known:
            _count(WATCHER, pending)
        return is_known

    async def _on_loading(self) -> None:
        await self._watch.stop()
        self._state.reset()
        self._dead_letters.load_started()
        self._health.set_not_ready(STATE, "loading from AIM_STATE")

    def _on_caught_up(self) -> None:
        self._dead_letters.load_ended()
        known = self._state.known.values()
        log.info("caught-up", objects=sum(len(objects) for objects in known))
        self._watch.start()
        self._health.set_ready(STATE)

    def _on_event(self, event: Event, tasks: asyncio.TaskGroup) -> None:
        try:
            self._fold(event)
        except Exception as error:  # (no message may end the watcher)
            log.exception("event-failed", subject=event.subject, seq=event.seq)
            self._dead_letters.record_unprocessable(event, error)
            self._on_hidden(event, tasks)

    def _fold(self, event: Event) -> None:
        match event.message:
            case ObjectChanged() | ObjectDeleted() as message:
                self._state.fold(message, event.seq)
            case DeadLetter() as dead_letter:
                self._dead_letters.mark_published(dead_letter)
            case KindSynced() as marker:
                self._state.note_age(marker)
            case _:
                log.warning("unexpected-message", subject=event.subject, seq=event.seq)

    def _on_hidden(self, item: Event | Undecodable, tasks: asyncio.TaskGroup) -> None:
        """Republish the object of an undecodable message: now, or with the list of its kind."""
        address = subjects.try_parse(item.subject)
        if address is None:
            return
        if address.key is not None:
            self._state.hidden[address.key] = item.seq
        marker = self._watch.marker(address.kind)
        if marker is not None:
            is_marker = address.key is None
            tasks.create_task(self._watch.republish(marker, with_marker=is_marker))


def _count(source: str, pending: int) -> None:
    events_read(source_of(source)).inc()
    follow_lag(WATCHER).set(pending)
