"""The shell: feed the cluster's changes through the planner onto the bus.

1. Nothing is listed before AIM_STATE has been loaded, so that deletes which nobody saw are found; a new load, or new streams, begins all over.
2. One task a kind, one message a subject in flight: the order per object is the server's. A KindSynced goes out when all before it is stored.
3. What is known of the bus changes only by acknowledgements and by what the bus shows.
4. Only the holder of the lease feeds. `fence` is awaited before each message, so that one that was paused sends nothing behind its successor's back.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import assert_never

import structlog

from aim_watcher import plan
from aim_watcher.plan import ObjectMessage, Outgoing
from aim_watcher.projection import NOTHING, Known, fold
from aimbus import Bus, CaughtUp, Event, Loading, OversizedMessage, Undecodable, follow, keep_streams
from aimkube import Absent, Changed, Cluster, Fence, Listed, Removed, Seen
from aimschema import subjects
from aimschema.labels import MANAGED_BY, MANAGED_BY_AIM
from aimschema.messages import KindSynced, ObjectChanged, ObjectDeleted, subject_of
from aimschema.resources import CONFIG_MAP, POD, WATCHED, Resource
from aimservice.health import Health

OURS = f"{MANAGED_BY}={MANAGED_BY_AIM}"
SELECTORS: dict[str, str] = {POD.kind: OURS, CONFIG_MAP.kind: OURS}
LANES = 256
RETRY_S = 5.0
BEAT_S = 5.0
STREAMS, STATE = "streams", "state"
LEADER_ONLY = (STREAMS, STATE, *(resource.kind for resource in WATCHED))
"""What /readyz waits for on the leader alone."""
log = structlog.get_logger()


async def unfenced() -> None:
    """The fence of a watcher that is alone."""


class Feed:
    """One pass from loading AIM_STATE to whatever ends it; `known` is what the bus has, by kind."""

    def __init__(self, bus: Bus, cluster: Cluster, health: Health, fence: Fence, kinds: Sequence[Resource] = WATCHED) -> None:
        self._bus = bus
        self._cluster = cluster
        self._health = health
        self._fence = fence
        self._kinds = kinds
        self._known: defaultdict[str, Known] = defaultdict(lambda: NOTHING)
        self._watching: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async for item in follow(self._bus, [f"{subjects.OBJECT}.>"]):
                match item:
                    case Loading():
                        await self._stop_watching()
                        self._known.clear()
                        self._health.waiting(STATE, "loading from AIM_STATE")
                    case Event(message=ObjectChanged() | ObjectDeleted() as message, seq=seq):
                        self._fold(message, seq)
                    case Event():
                        log.warning("unexpected-message", subject=item.subject, seq=item.seq)
                    case Undecodable():
                        log.warning("undecodable", subject=item.subject, seq=item.seq, error=item.error)
                    case CaughtUp():
                        self._start_watching()
                    case _:
                        assert_never(item)
        finally:
            await self._stop_watching()

    def _start_watching(self) -> None:
        log.info("caught-up", objects=sum(len(known) for known in self._known.values()))
        for resource in self._kinds:
            self._health.waiting(resource.kind, "not listed yet")
        self._health.ready(STATE)
        self._watching = [asyncio.create_task(self._watch(resource), name=f"watch-{resource.kind}") for resource in self._kinds]

    async def _stop_watching(self) -> None:
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        self._watching = []

    async def _watch(self, resource: Resource) -> None:
        """One kind, for ever; an error nobody foresaw begins with a list again."""
        while True:
            stream = self._cluster.list_and_watch(resource, label_selector=SELECTORS.get(resource.kind, ""))
            try:
                async with contextlib.aclosing(stream):
                    async for seen in stream:
                        await self._publish_all(_plan(self._known[resource.kind], resource, seen))
            except Exception:
                log.exception("watch-failed", kind=resource.kind, retry_s=RETRY_S)
            await asyncio.sleep(RETRY_S)

    async def _publish_all(self, messages: Iterable[Outgoing]) -> None:
        lanes: defaultdict[str, list[ObjectMessage]] = defaultdict(list)
        synced: KindSynced | None = None
        for message in messages:
            if isinstance(message, KindSynced):
                synced = message
            else:
                lanes[subject_of(message)].append(message)
        waiting = iter(lanes.values())

        async def work() -> None:
            for lane in waiting:
                for message in lane:
                    await self._publish(message)

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(LANES, len(lanes))):
                workers.create_task(work())
        if synced is not None:
            await self._bus.publisher.publish(synced)
            self._health.ready(synced.kind)
            log.info("synced", kind=synced.kind, objects=synced.objects, installed=synced.installed, published=len(lanes))

    async def _publish(self, message: ObjectMessage) -> None:
        smaller: ObjectMessage | None = message
        while smaller is not None:
            await self._fence()
            try:
                seq = await self._bus.publisher.publish(smaller)
            except OversizedMessage as error:
                log.warning("object-truncated", subject=error.subject, size_bytes=error.size_bytes, limit_bytes=error.limit_bytes)
                smaller = plan.shrunk(smaller)
            else:
                self._fold(smaller, seq)
                return
        log.error("object-too-large", subject=subject_of(message))

    def _fold(self, message: ObjectMessage, seq: int) -> None:
        self._known[message.kind] = fold(self._known[message.kind], message, seq)


def _plan(known: Known, resource: Resource, seen: Seen) -> list[Outgoing]:
    match seen:
        case Listed(items, resource_version):
            return plan.plan_listed(known, resource, items, resource_version)
        case Changed(body):
            return plan.plan_changed(known, body)
        case Removed(body):
            return plan.plan_removed(known, body)
        case Absent():
            return plan.plan_absent(known, resource)
        case _:
            assert_never(seen)


async def publish_cluster(bus: Bus, cluster: Cluster, health: Health, *, replicas: int, max_bytes: int, fence: Fence = unfenced) -> None:
    """Keep the streams and feed them, until cancelled. Raises StreamsRefused when NATS cannot hold them."""
    async with asyncio.TaskGroup() as tasks:
        feed: asyncio.Task[None] | None = None
        async with contextlib.aclosing(keep_streams(bus, replicas=replicas, max_bytes=max_bytes)) as remade:
            async for streams in remade:
                health.ready(STREAMS)
                log.info("streams-ready", republish=streams.republish)
                if feed is not None:
                    feed.cancel()
                    await asyncio.wait([feed])
                feed = tasks.create_task(Feed(bus, cluster, health, fence).run())


async def tell_connection(bus: Bus, health: Health) -> None:
    """Keep /readyz saying whether NATS is there, leader or not; until cancelled."""
    while True:
        if bus.connected:
            health.ready("nats")
        else:
            health.waiting("nats", "the connection is lost")
        await asyncio.sleep(BEAT_S)
