"""The shell of the watcher: publishes the changes of the cluster through the planner.

1. Nothing is listed before AIM_STATE is loaded, so that deletes during a downtime are found. A new
   load, or new streams, starts over.
2. Each kind has one task, which publishes in order. Lists are published in batches, one kind after
   another, so that only one list is in memory. A KindSynced follows when all before it is stored.
3. The known state of the bus changes only by acknowledgements and by messages from the bus.
4. Only the holder of the Lease publishes. Each publication awaits `fence` first, so that a paused
   process never publishes after its successor has started.
5. If the last message on an object cannot be decoded, or AIM_STATE lacks one that AIM_LOG has, the
   object is republished.
6. With a list of namespaces, each namespaced kind has a list and watch per namespace. Gateways are
   the exception: other namespaces use them. A KindSynced follows when all namespaces are listed.
   Objects in other namespaces count as missing.
7. If the cluster went back in time, a new epoch begins: every kind is listed and republished.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import TypedDict, Unpack, assert_never

import structlog

from aim_watcher import plan
from aim_watcher.contract import CONTRACT
from aim_watcher.metrics import MIRROR_LAG, MIRROR_STALLS, STATE_FULL
from aim_watcher.plan import ObjectMessage, Outgoing
from aim_watcher.projection import NOTHING, PublishedObjects, fold, within
from aim_watcher.prune import reduced
from aimbus import (
    Bus,
    CaughtUp,
    Event,
    Item,
    Level,
    Loading,
    OversizedMessage,
    Stalled,
    Undecodable,
    follow,
    maintain_streams,
)
from aimcontroller.dead_letters import DeadLetters
from aimcontroller.health import Health
from aimcontroller.metrics import EVENTS, FOLLOW_LAG, source_of
from aimkube import Cluster, Deleted, Fence, KindNotServed, Modified, Snapshot, WatchEvent
from aimschema import subjects
from aimschema.labels import MANAGED_BY, MANAGED_BY_AIM
from aimschema.messages import (
    DeadLetter,
    KindSynced,
    ObjectChanged,
    ObjectDeleted,
    key_of,
    subject_of,
)
from aimschema.reasons import WATCHER
from aimschema.resources import BUDGET, CONFIG_MAP, GATEWAY, POD, RESOURCES, WATCHED, Key, Resource

MANAGED = f"{MANAGED_BY}={MANAGED_BY_AIM}"
SELECTORS: dict[str, str] = {POD.kind: MANAGED, CONFIG_MAP.kind: MANAGED, BUDGET.kind: MANAGED}
EVERYWHERE = frozenset({GATEWAY.kind})
"""Namespaced kinds that objects of other namespaces refer to."""
CHUNK = 500
TURN_S = 10.0
RETRY_S = 5.0
STILL_AFTER_S = 5.0
"""Seconds without progress after which a lagging mirror counts as stalled."""
STREAMS = "streams"
STATE = "state"
LEADER_ONLY = (STREAMS, STATE, *(resource.kind for resource in WATCHED))
"""Checks of /readyz that only the leader has."""
log = structlog.get_logger()


async def unfenced() -> None:
    """The fence of a watcher without leader election."""


class ClusterPublisher:
    """Publishes the cluster from the load of AIM_STATE until it is cancelled."""

    def __init__(
        self,
        bus: Bus,
        cluster: Cluster,
        health: Health,
        fence: Fence,
        namespaces: Sequence[str] = (),
    ) -> None:
        self._bus = bus
        self._cluster = cluster
        self._health = health
        self._fence = fence
        self._namespaces = tuple(namespaces)
        self._known: defaultdict[str, PublishedObjects] = defaultdict(lambda: NOTHING)
        self._watching: list[asyncio.Task[None]] = []
        self._back_in_time = asyncio.Event()
        self._dead_letters = DeadLetters(WATCHER, bus)
        self._begin()

    def _begin(self) -> None:
        """Reset all state for a new load."""
        self._known.clear()
        self._loaded_seq = 0
        self._epoch = 0
        # Epoch and version of the newest message, by kind and namespace.
        self._newest: defaultdict[tuple[str, str | None], tuple[int, int]] = defaultdict(
            lambda: (0, 0)
        )
        # The marker of each list, by kind and namespace.
        self._listed: defaultdict[str, dict[str | None, KindSynced]] = defaultdict(dict)
        # Objects whose last message cannot be decoded, with the sequence number of that message.
        self._hidden: dict[Key, int] = {}
        self._markers: dict[str, KindSynced] = {}
        # By kind: only one task publishes at a time.
        self._publishing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._listing = asyncio.Lock()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._dead_letters.send())
            tasks.create_task(self._list_again())
            await self._follow(tasks)

    async def _list_again(self) -> None:
        """List all kinds whenever an epoch begins."""
        while True:
            await self._back_in_time.wait()
            self._back_in_time.clear()
            await self._stop_watching()
            self._start_watching()

    async def _follow(self, tasks: asyncio.TaskGroup) -> None:
        loading = True
        try:
            async for item in follow(self._bus, CONTRACT.consumes):
                match item:
                    case Loading():
                        loading = True
                        await self._stop_watching()
                        self._begin()
                        self._dead_letters.loading()
                        self._health.waiting(STATE, "loading from AIM_STATE")
                    case Event():
                        try:
                            self._on_event(item)
                        except Exception as error:  # (no message may end the watcher)
                            log.exception("event-failed", subject=item.subject, seq=item.seq)
                            self._dead_letters.unusable(item, error)
                            self._on_hidden(item, tasks)
                    case Undecodable():
                        self._dead_letters.unreadable(item)
                        self._on_hidden(item, tasks)
                    case CaughtUp():
                        loading = False
                        self._dead_letters.caught_up()
                        self._start_watching()
                    case Stalled(why=why):
                        self._health.waiting(STATE, why)
                    case _:
                        assert_never(item)
                _count(item)
                if loading and isinstance(item, Event | Undecodable):
                    self._loaded_seq = max(self._loaded_seq, item.seq)
        finally:
            await self._stop_watching()

    def _on_event(self, event: Event) -> None:
        match event.message:
            case ObjectChanged() | ObjectDeleted() as message:
                self._fold(message, event.seq)
            case DeadLetter() as dead_letter:
                self._dead_letters.seen(dead_letter)
            case KindSynced() as marker:
                self._note_age(marker)
            case _:
                log.warning("unexpected-message", subject=event.subject, seq=event.seq)

    def _on_hidden(self, item: Event | Undecodable, tasks: asyncio.TaskGroup) -> None:
        """Republish the object of an undecodable message: now, or with the list of its kind."""
        address = subjects.try_parse(item.subject)
        if address is None:
            return
        if address.key is not None:
            self._hidden[address.key] = item.seq
        if (marker := self._markers.get(address.kind)) is not None:
            tasks.create_task(self._republish(marker, marker_too=address.key is None))

    async def _republish(self, marker: KindSynced, *, marker_too: bool) -> None:
        try:
            async with self._publishing[marker.kind]:
                await self._republish_hidden(marker.kind)
                if marker_too:
                    await self._bus.publisher.publish(marker)
        except Exception:  # (the next list of the kind republishes them)
            log.exception("republish-failed", kind=marker.kind)

    async def _republish_hidden(self, kind: str) -> None:
        for key in [key for key in self._hidden if key.kind == kind]:
            await self._publish(plan.plan_hidden(self._known[kind], key))
            log.info("republished", key=str(key))

    def _start_watching(self) -> None:
        log.info("caught-up", objects=sum(len(known) for known in self._known.values()))
        self._listed.clear()
        for resource in WATCHED:
            self._health.waiting(resource.kind, "not listed yet")
        self._health.ready(STATE)
        self._watching = [
            asyncio.create_task(self._watch(resource, scope))
            for resource in WATCHED
            for scope in self._scopes(resource)
        ]

    def _scopes(self, resource: Resource) -> Sequence[str | None]:
        """The namespaces in which a kind is watched. None is the whole cluster."""
        return (
            self._namespaces
            if self._namespaces and resource.namespaced and resource.kind not in EVERYWHERE
            else (None,)
        )

    async def _stop_watching(self) -> None:
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        self._watching = []

    async def _watch(self, resource: Resource, scope: str | None) -> None:
        """Watch one kind in one namespace or in all, until cancelled. An unexpected error leads to
        a new list."""
        while True:
            stream = self._cluster.list_and_watch(
                resource, scope, label_selector=SELECTORS.get(resource.kind, ""), reduce=reduced
            )
            try:
                async with contextlib.aclosing(stream):
                    async with self._list_slot():
                        await self._publish_all(resource, scope, await anext(stream))
                    async for change in stream:
                        await self._publish_all(resource, scope, change)
            except Exception:
                log.exception("watch-failed", kind=resource.kind, namespace=scope, retry_s=RETRY_S)
            await asyncio.sleep(RETRY_S)

    @contextlib.asynccontextmanager
    async def _list_slot(self) -> AsyncIterator[None]:
        """Wait until no other kind is being listed, at most TURN_S: a kind that hangs must not
        block the others."""
        is_acquired = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TURN_S):
                is_acquired = await self._listing.acquire()
        try:
            yield
        finally:
            if is_acquired:
                self._listing.release()

    async def _publish_all(self, resource: Resource, scope: str | None, change: WatchEvent) -> None:
        async with self._publishing[resource.kind]:
            await self._check_time(resource, scope, change)
            known = self._known[resource.kind]
            if scope is not None and isinstance(change, Snapshot | KindNotServed):
                known = within(known, scope)
            planned = _plan(known, resource, change, self._epoch)
            messages = [message for message in planned if not isinstance(message, KindSynced)]
            for start in range(0, len(messages), CHUNK):
                await self._publish_chunk(messages[start : start + CHUNK])
            for marker in planned:
                if isinstance(marker, KindSynced):
                    await self._on_scope_listed(resource, scope, marker, len(messages))

    async def _check_time(self, resource: Resource, scope: str | None, change: WatchEvent) -> None:
        """If the cluster went back in time, begin an epoch and wait until `_list_again` cancels
        this task."""
        if not isinstance(change, Snapshot):
            return
        if plan.is_older_than_published(
            self._newest[resource.kind, scope], change.resource_version, self._epoch
        ):
            self._epoch += 1
            log.warning(
                "cluster-restored",
                kind=resource.kind,
                resource_version=change.resource_version,
                epoch=self._epoch,
            )
            self._back_in_time.set()
            await asyncio.get_running_loop().create_future()

    async def _on_scope_listed(
        self, resource: Resource, scope: str | None, marker: KindSynced, published: int
    ) -> None:
        """Publish the KindSynced once every namespace is listed."""
        listed = self._listed[resource.kind]
        listed[scope] = marker
        if len(listed) < len(self._scopes(resource)):
            return
        outside = (
            []
            if scope is None
            else plan.plan_outside(self._known[resource.kind], self._namespaces, self._epoch)
        )
        for start in range(0, len(outside), CHUNK):
            await self._publish_chunk(outside[start : start + CHUNK])
        await self._mark(
            plan.joined(listed.values(), begins_epoch=bool(outside)), published + len(outside)
        )

    async def _mark(self, marker: KindSynced, published: int) -> None:
        await self._republish_hidden(marker.kind)
        await self._bus.publisher.publish(marker)
        self._markers[marker.kind] = marker
        self._health.ready(marker.kind)
        log.info(
            "synced",
            kind=marker.kind,
            objects=marker.objects,
            installed=marker.installed,
            published=published,
        )

    async def _publish_chunk(self, messages: Sequence[ObjectMessage]) -> None:
        """Publish in order; as one batch unless a message needs special handling."""
        await self._fence()
        sequences: Sequence[int] = ()
        if len(messages) > 1 and not any(key_of(message) in self._hidden for message in messages):
            with contextlib.suppress(OversizedMessage):
                sequences = await self._bus.publisher.publish_many(messages)
        for place, message in enumerate(messages):
            if place < len(sequences) and sequences[place] > self._loaded_seq:
                self._fold(message, sequences[place])
            else:
                await self._publish(message)

    async def _publish(self, message: ObjectMessage) -> None:
        """Publish until this is the last message on its object. If AIM_LOG dropped it as a
        duplicate of a message that AIM_STATE lacks, publish it once more."""
        over = self._hidden.pop(Key(message.kind, message.namespace, message.name), None)
        smaller: ObjectMessage | None = message
        while smaller is not None:
            await self._fence()
            try:
                seq = await self._bus.publisher.publish(smaller, supersedes_seq=over)
                if seq <= self._loaded_seq:
                    seq = await self._bus.publisher.publish(
                        smaller, supersedes_seq=self._loaded_seq
                    )
            except OversizedMessage as error:
                log.warning(
                    "object-truncated",
                    subject=error.subject,
                    size_bytes=error.size_bytes,
                    limit_bytes=error.limit_bytes,
                )
                smaller = plan.truncated_message(smaller)
            else:
                self._fold(smaller, seq)
                return
        log.error("object-too-large", subject=subject_of(message))

    def _fold(self, message: ObjectMessage, seq: int) -> None:
        self._known[message.kind] = fold(self._known[message.kind], message, seq)
        self._note_age(message)

    def _note_age(self, message: Outgoing) -> None:
        self._epoch = max(self._epoch, message.epoch)
        scopes = self._scopes(RESOURCES[message.kind])
        for scope in (
            scopes if isinstance(message, KindSynced) or scopes == (None,) else (message.namespace,)
        ):
            self._newest[message.kind, scope] = max(
                self._newest[message.kind, scope], plan.newest_of(message)
            )


def _count(item: Item) -> None:
    if isinstance(item, Event):
        EVENTS.labels(source_of(item.source)).inc()
        FOLLOW_LAG.labels(WATCHER).set(item.pending)


def _plan(
    known: PublishedObjects, resource: Resource, change: WatchEvent, epoch: int
) -> list[Outgoing]:
    match change:
        case Snapshot(items, resource_version):
            return plan.plan_listed(known, resource, items, resource_version, epoch)
        case Modified(body):
            return plan.plan_changed(known, body, epoch)
        case Deleted(body):
            return plan.plan_removed(known, body, epoch)
        case KindNotServed():
            return plan.plan_absent(known, resource, epoch)
        case _:
            assert_never(change)


def note_level(health: Health, level: Level) -> None:
    """Report the state of the mirror in /metrics, and a stalled mirror in /readyz."""
    MIRROR_LAG.set(level.lag)
    if level.stalled:
        MIRROR_STALLS.inc()
    else:
        STATE_FULL.set(level.full)
    if level.lag == 0:
        health.ready(STREAMS)
    elif level.still_s >= STILL_AFTER_S:
        health.waiting(
            STREAMS,
            f"AIM_STATE is {level.lag} messages behind AIM_LOG and has not moved for"
            f" {level.still_s:.0f} s",
        )


class Limits(TypedDict):
    """Limits of the streams: replicas of each, and bytes of AIM_LOG."""

    replicas: int
    max_bytes: int


async def publish_cluster(
    bus: Bus,
    cluster: Cluster,
    health: Health,
    *,
    fence: Fence = unfenced,
    namespaces: Sequence[str] = (),
    **limits: Unpack[Limits],
) -> None:
    """Maintain the streams and publish to them, until cancelled. `namespaces` are watched; empty
    means all. Raises StreamsRefused if NATS cannot hold the streams."""
    async with asyncio.TaskGroup() as tasks:
        feed: asyncio.Task[None] | None = None
        maintained = maintain_streams(bus, **limits, on_level=partial(note_level, health))
        async with contextlib.aclosing(maintained) as remade:
            async for streams in remade:
                log.info("streams-ready", republish=streams.republish)
                if feed is not None:
                    feed.cancel()
                    await asyncio.wait([feed])
                feed = tasks.create_task(
                    ClusterPublisher(bus, cluster, health, fence, namespaces).run()
                )
