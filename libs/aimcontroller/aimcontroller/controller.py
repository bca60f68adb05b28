"""The controller that every component runs: follow events, fold them, plan for the keys that they
touch, act, report.

1. Nothing is planned before the whole state is loaded and the watcher has marked every watched kind
   as synced (sync_state.py).
2. Only the holder of the component's lease plans and acts; a standby follows and folds. A term of
   leadership begins like a new process, but with the state: an empty queue, no observations,
   everything reconciled. When the lease is lost all work is cancelled.
3. The parts: follower.py reads the bus into store.py; reconciler.py plans, reporter.py and
   executor.py carry out a plan, observer.py folds what went wrong.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable

from aimbus import Bus, Event, connect
from aimbus.tracing import tracer
from aimcontroller.component import Component
from aimcontroller.confirm import Confirmations
from aimcontroller.executor import Executor
from aimcontroller.follower import Follower
from aimcontroller.handler import Handler
from aimcontroller.health import Health
from aimcontroller.holds import Holds
from aimcontroller.leader_election import leader_election
from aimcontroller.metrics import QUEUE_DEPTH, collector_registered
from aimcontroller.observer import Observer
from aimcontroller.projection import Projection
from aimcontroller.queue import WorkQueue
from aimcontroller.readiness import Readiness
from aimcontroller.reconcile_tracing import ReconcileTracer
from aimcontroller.reconciler import Reconciler
from aimcontroller.reporter import Reporter
from aimcontroller.settings import ServiceSettings
from aimcontroller.store import StateStore
from aimkube import Cluster, Lease
from aimschema.messages import ActionTaken
from aimschema.resources import Key

NATS = "nats"  # in /readyz
WORKERS = 4
FLUSH_S = 2.0
"""For what is still to be written and recorded when a term of leadership ends."""


class Controller:
    """One component in one process."""

    def __init__(
        self,
        component: Component,
        bus: Bus,
        cluster: Cluster,
        health: Health,
        handler: Handler | None = None,
        lease: Lease | None = None,
    ) -> None:
        """Without a lease the process is the leader from the start, and reads every object before
        it creates it."""
        self.bus = bus
        self.queue = WorkQueue()
        self._component = component
        self._lease = lease
        self._store = StateStore()
        self._tracer = ReconcileTracer(tracer("aimcontroller"))
        self._confirmations = Confirmations(cluster)
        self._holds = Holds(time.monotonic)
        kinds = [resource.kind for resource in component.watches]
        self._readiness = Readiness(kinds, health, self._store, self._enqueue_all)
        observer = Observer(self._store, self.queue, self._tracer)
        reporter = Reporter(component.name, bus, self._store)
        self._executor = Executor(component.name, bus, cluster, self._store, observer, handler)
        self._reconciler = Reconciler(
            component,
            bus,
            self._store,
            self.queue,
            self._tracer,
            observer,
            reporter,
            self._executor,
            self._confirmations,
            None if lease is None else lease.wait_until_held,
            self._holds,
        )
        self._follower = Follower(component, bus, self._store, self._readiness, reporter, self)

    @property
    def state(self) -> Projection:
        return self._store.state

    async def run(self) -> None:
        """Until cancelled: follow, and work while the lease is held."""
        name = self._component.name
        QUEUE_DEPTH.labels(name).set_function(lambda: len(self.queue))
        with collector_registered(lambda: self._component.measure(self.state)):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follower.run())
                tasks.create_task(self._lead_when_elected())

    async def _lead_when_elected(self) -> None:
        """A process that is not synced does not compete with those that are."""
        if self._lease is None:
            await self._lead()
            return
        await self._readiness.wait_until_synced()
        await self._lease.run_while_leading(self._lead)

    async def _lead(self) -> None:
        """One term of leadership, until cancelled."""
        self.queue.clear()
        self._holds.clear()
        self._store.clear_observations()
        self._executor.term_started()
        self._readiness.term_started()
        try:
            if self._lease is not None:
                await self._readiness.wait_until_synced()
                await self._executor.probe(resource.kind for resource in self._component.owns)
            async with asyncio.TaskGroup() as workers:
                for _ in range(WORKERS):
                    workers.create_task(self._work())
        finally:
            self._readiness.term_ended()
            try:
                await self._flush()
            finally:
                await self._executor.cancel_background()

    async def _flush(self) -> None:
        """What is written and recorded before the lease is released; without the lease nothing is
        written."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                if self._lease is None or self._lease.held:
                    await self._reconciler.flush()
                    await self._executor.finish_late()
                await self._executor.flush_records()

    async def _work(self) -> None:
        while True:
            key, causes = await self.queue.take()
            try:
                await self._readiness.wait_until_synced()
                await self._reconciler.reconcile(key, causes)
            finally:
                self.queue.done(key)

    def _enqueue_all(self) -> None:
        self._tracer.mark_all_stale()
        for resource in self._component.reconciles:
            for obj in self.state.in_all_namespaces(resource.kind):
                self.queue.add(obj.key, obj.seq)

    def on_load(self) -> None:
        self._tracer.reset()

    def on_event(self, event: Event) -> None:
        self._tracer.on_event(event)

    def on_deleted(self, key: Key) -> None:
        self._executor.forget_object(key)
        self._confirmations.forget(key)

    def on_action_taken(self, action: ActionTaken) -> None:
        if not self._readiness.is_leading:
            self._executor.restore_mark(action)

    def on_retry(self, key: Key, seq: int) -> None:
        self._reconciler.retry_dead(key)
        self.queue.add(key, seq)

    def enqueue(self, keys: Iterable[Key], seq: int) -> None:
        for key in keys:
            self.queue.add(key, seq)


async def connect_bus(component: str, settings: ServiceSettings, health: Health) -> Bus:
    """Connect, however long that takes; /readyz shows meanwhile why there is no connection."""

    def on_status(trouble: str) -> None:
        if trouble:
            health.set_not_ready(NATS, trouble)
        else:
            health.set_ready(NATS)

    on_status("no answer yet from the server of AIM_NATS_URL")
    return await connect(
        settings.nats_url, name=f"aim-{component}", access=settings.access(), on_status=on_status
    )


async def run_controller(
    component: Component, settings: ServiceSettings, health: Health, handler: Handler | None = None
) -> None:
    """Connect and run a component until cancelled."""
    bus = await connect_bus(component.name, settings, health)
    try:
        async with leader_election(component.name, settings, health) as lease:
            cluster = await Cluster.connect(
                settings.kubeconfig, user_agent=f"aim-{component.name}", fence=lease.wait_until_held
            )
            try:
                await Controller(component, bus, cluster, health, handler, lease).run()
            finally:
                await cluster.close()
    finally:
        await bus.close()
