"""Lists and watches all kinds, and publishes the changes through the planner.

1. Each kind has one task per namespace, and one of them publishes at a time. Lists are published
   one kind after another, so that only one list is in memory. Kinds that the API server does not
   serve have no list: their absence is confirmed at the same time.
2. A KindSynced follows when all before it is stored, and all namespaces of the kind are listed.
3. Gateways are watched in all namespaces: other namespaces use them. Objects in namespaces that are
   not watched count as missing.
4. If the cluster went back in time, or a delete on the bus hides an object, a new epoch begins:
   every kind is listed and republished.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import assert_never

import structlog

from aim_watcher import plan
from aim_watcher.batching import batch, independent
from aim_watcher.bus_state import BusState
from aim_watcher.history_writer import HistoryWriter
from aim_watcher.object_publisher import BATCH, ObjectPublisher
from aim_watcher.plan import Outgoing
from aim_watcher.projection import PublishedObjects, within
from aim_watcher.prune import reduce_body
from aimcontroller.health import Health
from aimkube import Cluster, Deleted, KindNotServed, KubeError, Modified, Snapshot, WatchEvent
from aimschema.labels import MANAGED_BY, MANAGED_BY_AIM
from aimschema.messages import KindSynced
from aimschema.resources import BUDGET, CONFIG_MAP, POD, WATCHED, Resource

MANAGED = f"{MANAGED_BY}={MANAGED_BY_AIM}"
SELECTORS: dict[str, str] = {POD.kind: MANAGED, CONFIG_MAP.kind: MANAGED, BUDGET.kind: MANAGED}
LIST_SLOT_S = 10.0
RETRY_S = 5.0
log = structlog.get_logger()


class ClusterWatch:
    """The lists and watches of all kinds. `start` lists again, `stop` ends them."""

    def __init__(
        self,
        cluster: Cluster,
        health: Health,
        state: BusState,
        objects: ObjectPublisher,
        history: HistoryWriter,
    ) -> None:
        self._history = history
        self._cluster = cluster
        self._health = health
        self._state = state
        self._objects = objects
        self._tasks: list[asyncio.Task[None]] = []
        self._relist = asyncio.Event()
        self._reset()

    async def run(self) -> None:
        """List all kinds again whenever an epoch begins or `relist` was called, until cancelled."""
        while True:
            await self._relist.wait()
            self._relist.clear()
            if self._tasks:
                await self._cancel()
                self.start()

    def relist(self) -> None:
        """List all kinds again, if they are being watched."""
        self._relist.set()

    def start(self) -> None:
        self._listed.clear()
        for resource in WATCHED:
            self._health.set_not_ready(resource.kind, "not listed yet")
        self._tasks = [
            asyncio.create_task(self._watch(resource, scope))
            for resource in WATCHED
            for scope in self._state.scopes(resource)
        ]

    async def stop(self) -> None:
        """End all lists and watches, and forget the markers."""
        await self._cancel()
        self._reset()

    def marker(self, kind: str) -> KindSynced | None:
        """The last KindSynced of a kind; None before its first list is published."""
        return self._markers.get(kind)

    async def republish(self, marker: KindSynced, *, with_marker: bool) -> None:
        """Republish the hidden objects of a kind, and its marker if that is hidden too."""
        try:
            async with self._publishing[marker.kind]:
                if with_marker:
                    await self._objects.publish_marker(marker)
                else:
                    await self._objects.republish_hidden(marker.kind)
        except Exception:  # (the next list of the kind republishes them)
            log.exception("republish-failed", kind=marker.kind)

    def _reset(self) -> None:
        # The marker of each list, by kind and namespace.
        self._listed: defaultdict[str, dict[str | None, KindSynced]] = defaultdict(dict)
        self._markers: dict[str, KindSynced] = {}
        # By kind: only one task publishes at a time.
        self._publishing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._listing = asyncio.Lock()

    async def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _watch(self, resource: Resource, scope: str | None) -> None:
        """Watch one kind in one namespace or in all, until cancelled. An unexpected error leads to
        a new list."""
        while True:
            stream = self._cluster.list_and_watch(
                resource, scope, label_selector=SELECTORS.get(resource.kind, ""), reduce=reduce_body
            )
            try:
                async with contextlib.aclosing(stream):
                    async with self._list_slot(resource):
                        await self._publish_all(resource, scope, [await anext(stream)])
                    async with contextlib.aclosing(batch(stream, BATCH)) as batches:
                        async for changes in batches:
                            for group in independent(changes):
                                await self._publish_all(resource, scope, group)
            except Exception:
                log.exception("watch-failed", kind=resource.kind, namespace=scope, retry_s=RETRY_S)
            await asyncio.sleep(RETRY_S)

    @contextlib.asynccontextmanager
    async def _list_slot(self, resource: Resource) -> AsyncIterator[None]:
        """Wait until no other kind is being listed, at most LIST_SLOT_S: a kind that hangs must not
        block the others. A kind that is not served does not wait."""
        is_acquired = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIST_SLOT_S):
                if await self._may_be_served(resource):
                    is_acquired = await self._listing.acquire()
        try:
            yield
        finally:
            if is_acquired:
                self._listing.release()

    async def _may_be_served(self, resource: Resource) -> bool:
        try:
            return await self._cluster.serves(resource)
        except KubeError:
            return True

    async def _publish_all(
        self, resource: Resource, scope: str | None, changes: Sequence[WatchEvent]
    ) -> None:
        """Publish changes of different objects, or a list."""
        async with self._publishing[resource.kind]:
            planned: list[Outgoing] = []
            for change in changes:
                await self._check_epoch(resource, scope, change)
                known = self._state.known[resource.kind]
                if scope is not None and isinstance(change, Snapshot | KindNotServed):
                    known = within(known, scope)
                planned += _plan(known, resource, change, self._state.epoch)
            messages = [message for message in planned if not isinstance(message, KindSynced)]
            await self._objects.publish_in_batches(messages)
            for marker in planned:
                if isinstance(marker, KindSynced):
                    await self._on_scope_listed(resource, scope, marker, len(messages))
            for change in changes:
                self._history.note(resource.kind, scope, change, self._state.epoch)

    async def _check_epoch(self, resource: Resource, scope: str | None, change: WatchEvent) -> None:
        """If readers would drop what is listed, begin an epoch and wait until `run` cancels this
        task."""
        if not isinstance(change, Snapshot):
            return
        state = self._state
        where = log.bind(kind=resource.kind, resource_version=change.resource_version)
        if state.is_newer_than(resource.kind, scope, change.resource_version):
            where.warning("cluster-restored", epoch=state.epoch + 1)
        elif state.hides(resource.kind, change.items):
            where.warning("delete-outdated", epoch=state.epoch + 1)
        else:
            return
        state.epoch += 1
        self.relist()
        await asyncio.get_running_loop().create_future()

    async def _on_scope_listed(
        self, resource: Resource, scope: str | None, marker: KindSynced, published: int
    ) -> None:
        """Publish the KindSynced once every namespace is listed."""
        state = self._state
        listed = self._listed[resource.kind]
        listed[scope] = marker
        if len(listed) < len(state.scopes(resource)):
            return
        outside = []
        if scope is not None:
            outside = plan.plan_outside(state.known[resource.kind], state.namespaces, state.epoch)
        await self._objects.publish_in_batches(outside)
        synced = plan.join_markers(listed.values(), begins_epoch=bool(outside))
        await self._objects.publish_marker(synced)
        state.forget_deletes(synced.kind)
        self._markers[synced.kind] = synced
        self._health.set_ready(synced.kind)
        log.info(
            "synced",
            kind=synced.kind,
            objects=synced.objects,
            installed=synced.installed,
            published=published + len(outside),
        )


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
