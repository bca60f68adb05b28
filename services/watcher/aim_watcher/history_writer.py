"""Writes AIM_HISTORY: what lists and watches of the AIM kinds return goes through the planner, in
order.

1. The last message of each history is read at start and after every error, not remembered from
   before. Each message is appended behind it, so nothing is stored twice.
2. It works beside the publication and never delays it. While the stream is unavailable, changes
   wait. If too many wait, or NATS rejects the stream, they are dropped, and all kinds are listed
   again afterwards.
3. A change that cannot be processed is logged and left out.
4. Only the holder of the Lease writes: each write awaits `fence` first.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from aim_watcher import history
from aim_watcher.history import HistoryMessage, Recorded, Scope
from aimbus import (
    Appended,
    Bus,
    BusError,
    Event,
    HistoryMoved,
    OversizedMessage,
    StreamsRejected,
    append_history,
    ensure_history,
    read_history,
)
from aimkube import Deleted, Fence, KindNotServed, Modified, Snapshot, WatchEvent
from aimschema import subjects
from aimschema.messages import SpecDeleted, SpecVersion, key_of, subject_of
from aimschema.reasons import WATCHER
from aimschema.resources import Key

BATCH = 200
MOST_WAITING = 10_000
RETRY_S = 1.0
REJECTED_RETRY_S = 30.0
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Change:
    """What a list or a watch returned in `epoch`."""

    scope: Scope
    event: WatchEvent
    epoch: int


class HistoryWriter:
    """`max_bytes` and `replicas` are those of the stream."""

    def __init__(self, bus: Bus, fence: Fence, *, replicas: int, max_bytes: int) -> None:
        self._bus = bus
        self._fence = fence
        self._replicas = replicas
        self._max_bytes = max_bytes
        self._waiting: asyncio.Queue[Change] = asyncio.Queue(MOST_WAITING)
        self._known: dict[Key, Recorded] = {}
        self._dropped = False
        self._trouble = ""

    def note(self, kind: str, namespace: str | None, event: WatchEvent, epoch: int) -> None:
        """Record a change soon. Never waits."""
        if kind not in history.KINDS or self._dropped:
            return
        try:
            self._waiting.put_nowait(Change(Scope(kind, namespace), event, epoch))
        except asyncio.QueueFull:
            self._dropped = True
            log.warning("history-dropped", changes=MOST_WAITING)

    async def run(self, relist: Callable[[], None]) -> None:
        """Write until cancelled. `relist` makes all kinds be listed again."""
        change: Change | None = None
        started = False
        while True:
            try:
                is_new = await self._load()
                if self._dropped or (is_new and started):
                    self._drop_waiting()
                    self._dropped = False
                    change = None
                    relist()
                started = True
                while True:
                    change = change or await self._waiting.get()
                    await self._write(change)
                    change = None
            except StreamsRejected as error:
                self._dropped = True
                self._drop_waiting()
                self._report(str(error))
                await asyncio.sleep(REJECTED_RETRY_S)
            except HistoryMoved:
                log.info("history-moved")
            except (BusError, TimeoutError) as error:
                self._report(f"{type(error).__name__}: {error}".removesuffix(": "))
                await asyncio.sleep(RETRY_S)
            except Exception:  # (no object may end the watcher)
                log.exception("history-failed")
                change = None
                await asyncio.sleep(RETRY_S)

    def _drop_waiting(self) -> None:
        while not self._waiting.empty():
            self._waiting.get_nowait()

    def _report(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning("history-unavailable", error=trouble)

    async def _load(self) -> bool:
        """Read the last message of each history; True if the stream is new."""
        is_new = await ensure_history(self._bus, replicas=self._replicas, max_bytes=self._max_bytes)
        known: dict[Key, Recorded] = {}
        async for item in read_history(self._bus, [f"{subjects.HISTORY}.>"], newest_only=True):
            message = item.message if isinstance(item, Event) else None
            address = subjects.try_parse(item.subject)
            if address is None or address.key is None:
                continue
            if isinstance(message, SpecVersion | SpecDeleted):
                known[address.key] = history.record_of(message, item.seq)
            else:
                known[address.key] = history.unknown_record(item.seq)
        self._known = known
        return is_new

    async def _write(self, change: Change) -> None:
        """Each round stores the next message of every object."""
        planned = self._plan(change)
        while planned:
            rest: list[HistoryMessage] = []
            now: dict[str, HistoryMessage] = {}
            for message in planned:
                if now.setdefault(subject_of(message), message) is not message:
                    rest.append(message)
            messages = list(now.values())
            for start in range(0, len(messages), BATCH):
                await self._store(messages[start : start + BATCH])
            planned = rest
        self._trouble = ""

    def _plan(self, change: Change) -> list[HistoryMessage]:
        match change.event:
            case Snapshot(items, resource_version):
                return history.plan_listed(
                    self._known, change.scope, items, resource_version, change.epoch
                )
            case Modified(body):
                return history.plan_changed(self._known, body, change.epoch)
            case Deleted(body):
                return history.plan_removed(self._known, body, change.epoch)
            case KindNotServed():
                return history.plan_absent(self._known, change.scope, change.epoch)

    async def _store(self, messages: Sequence[HistoryMessage]) -> None:
        await self._fence()
        appended = [Appended(message, self._last_seq(message)) for message in messages]
        try:
            sequences = await append_history(self._bus, appended, source=f"aim-{WATCHER}")
        except OversizedMessage as error:
            if len(messages) > 1:
                for message in messages:
                    await self._store([message])
                return
            await self._store_cut(messages[0], error)
            return
        for message, seq in zip(messages, sequences, strict=True):
            self._known[_key(message)] = history.record_of(message, seq)

    async def _store_cut(self, message: HistoryMessage, error: OversizedMessage) -> None:
        smaller = history.cut(message)
        log.warning(
            "history-truncated",
            subject=error.subject,
            size_bytes=error.size_bytes,
            limit_bytes=error.limit_bytes,
        )
        if smaller is not None:
            await self._store([smaller])

    def _last_seq(self, message: HistoryMessage) -> int:
        last = self._known.get(_key(message))
        return 0 if last is None else last.seq


def _key(message: HistoryMessage) -> Key:
    key = key_of(message)
    assert key is not None  # of every message but KindSynced
    return key
