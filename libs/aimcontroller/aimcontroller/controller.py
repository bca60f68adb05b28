"""The loop every service runs: follow events, fold them, plan for the keys they touch, act, report.

1. Nothing is planned before the whole state has been loaded and every followed kind was marked as
   synced by the watcher: an empty bus is not an empty cluster. After a reload this holds anew, and
   all keys are looked at again.
2. An event only says which keys to look at; a plan is made from the projection as it is when a
   worker gets to the key.
3. A service sees its own writes and reports at once, folded from the answers, before the watcher
   brings them.
4. Outcomes: done; retry with jittered backoff (conflicts, throttling, outages); refused (a person
   must act): folded as `Observation(key, REJECTED, ...)`, so that the planner can
   report it, and tried again with backoff, not before `REJECTED_RETRY_S`. What the API server
   keeps answering with an error, of whatever kind and code, is folded too: from the
   `REPORT_ERROR_AFTER_FAILURES`th time in a row on, at once where a webhook failed. A
   server that does not answer at all is told in the log only: no object is the cause.
5. Only the holder of the service's lease plans and acts; a standby follows and folds. A term of
   leadership begins as a new process would, but for the picture: an empty queue, nothing learned,
   everything looked at. When the lease is lost all work is cancelled.
6. Nothing is written for an object that the API server does not have: it is forgotten until the
   next event on it (confirm).
7. A message that cannot be read or folded stops nothing and says nothing: what was known of its
   object stays known, and a person gets a letter. If it hides a report of our own, that is sent
   again; objects are the watcher's to say again.
"""

import asyncio
import datetime
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, assert_never

import structlog

from aimbus import Bus, CaughtUp, Event, Loading, Stalled, Undecodable, connect, follow
from aimbus.tracing import tracer
from aimcontroller import projection
from aimcontroller.action import Action, ApplyObject, DeleteObject, PatchObject, ReadEvents
from aimcontroller.applier import Applier, NameConflict
from aimcontroller.component import Component
from aimcontroller.confirm import Confirm, Confirmations, UnconfirmedError
from aimcontroller.dead_letters import DeadLetters, truncate_error
from aimcontroller.events import latest_warning
from aimcontroller.health import Health
from aimcontroller.leader_election import leader_election
from aimcontroller.metrics import (
    EVENTS,
    FAILURES,
    FOLLOW_LAG,
    QUEUE_DEPTH,
    RECONCILE_SECONDS,
    collector_registered,
    source_of,
)
from aimcontroller.plan import Report, with_start_times
from aimcontroller.projection import (
    FIELD_CONFLICT,
    LATEST_WARNING,
    PENDING_CREATE,
    REJECTED,
    ApplyRejected,
    KubeObject,
    LatestWarning,
    Observation,
    Projection,
    StateEvent,
    changed_from_response,
    clear_observations,
    drop_object,
    drop_reports,
    reset_report_order,
)
from aimcontroller.queue import WorkQueue
from aimcontroller.reconcile_tracing import ReconcileTracer
from aimcontroller.settings import ServiceSettings
from aimkube import (
    Body,
    Cluster,
    Forbidden,
    Invalid,
    KubeError,
    Lease,
    Rejected,
    describe_error,
    is_from_webhook,
)
from aimschema import subjects
from aimschema.messages import (
    ActionTaken,
    DeadLetter,
    Finding,
    KindSynced,
    ObjectChanged,
    ObjectDeleted,
    StatusReported,
)
from aimschema.resources import Key

REJECTED_RETRY_S = 15.0
REPORT_ERROR_AFTER_FAILURES = 3
MAX_REJECTIONS = 8
DEAD_LETTER_AFTER_FAILURES = 5
NAMESPACE_TERMINATING = (  # the cause that the NamespaceLifecycle admission plugin gives
    "NamespaceTerminating"
)
NATS = "nats"  # in /readyz
WORKERS = 4
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """What ActionTaken tells of an action beside the action itself; see there."""

    outcome: str = "done"
    detail: str = ""
    rejected_by: str = ""
    resource_version: str = ""
    finding: Finding | None = None


DONE = ActionRecord()


def written(response: Body) -> ActionRecord:
    """Of an action that wrote the object in the response."""
    return ActionRecord(resource_version=response["metadata"]["resourceVersion"])


class Handler(Protocol):
    """Carries out the actions that only one service has. Errors are treated as those of any
    action."""

    async def __call__(
        self, loop: "Controller", action: Action, about: Key, causes: Sequence[int], /
    ) -> None: ...


class Controller:
    """One service at work. `projection` is the current picture; `learn` adds to it and looks at
    a key again."""

    def __init__(
        self,
        service: Component,
        bus: Bus,
        cluster: Cluster,
        health: Health,
        handler: Handler | None = None,
    ) -> None:
        self.service = service
        self.bus = bus
        self.cluster = cluster
        self.projection = Projection()
        self.queue = WorkQueue()
        self._health = health
        self._passes = ReconcileTracer(tracer("aimcontroller"))
        self._applier = Applier(cluster, f"aim-{service.name}")
        self._confirmations = Confirmations(cluster)
        self._handler = handler
        self._loaded_objects: set[Key] | None = None
        self._loaded_reports: set[tuple[Key, str]] = set()
        self._unsynced: set[str] = {resource.kind for resource in service.follows}
        self._dead: set[Key] = set()
        self._letters = DeadLetters(service.name, bus)
        self._ready = asyncio.Event()
        self._lease: Lease | None = None
        self._leading = False
        self._background: set[asyncio.Task[None]] = set()
        self._reporting: set[Key] = set()

    async def run(self, lease: Lease | None = None) -> None:
        """Until cancelled: follow, and work while `lease` is held; without one, always."""
        self._lease = lease
        QUEUE_DEPTH.labels(self.service.name).set_function(lambda: len(self.queue))
        with collector_registered(lambda: self.service.measure(self.projection)):
            await self._run(lease)

    async def _run(self, lease: Lease | None) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._letters.send())
            tasks.create_task(self._lead() if lease is None else self._stand(lease))

    async def _stand(self, lease: Lease) -> None:
        """Who has not caught up does not compete with those who have."""
        await self._ready.wait()
        await lease.run_while_leading(self._lead)

    async def _lead(self) -> None:
        """One term of leadership, until cancelled."""
        self.queue = WorkQueue()
        self.projection = clear_observations(self.projection)
        self._leading = True
        if self._ready.is_set():
            self._look_at_everything()
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(WORKERS):
                    workers.create_task(self._work())
        finally:
            self._leading = False
            for task in self._background:
                task.cancel()
            await asyncio.gather(*self._background, return_exceptions=True)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work that goes on beside the queue and ends with the leadership at the latest."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    @property
    def _active(self) -> bool:
        return self._leading and self._ready.is_set()

    def learn(self, fact: Observation, key: Key, causes: Sequence[int] = ()) -> None:
        """Fold something this process found out and look at `key` again, for the same causes."""
        self.fold(fact)
        self._look_again(key, causes)

    def _look_again(self, key: Key, causes: Sequence[int]) -> None:
        self._passes.learned(key)
        self.queue.add(key, *causes)

    async def _follow(self) -> None:
        async for item in follow(self.bus, self.service.filters):
            match item:
                case Loading():
                    self._start_load()
                case Event():
                    try:
                        self._on_event(item)
                    # (nobody foresaw it, and the next event must not wait for somebody who did)
                    except Exception as error:
                        log.exception("event-failed", subject=item.subject, seq=item.seq)
                        self._letters.unusable(item, error)
                        self._pass_over(item.subject, item.seq)
                case CaughtUp():
                    self._end_load()
                    self._letters.caught_up()
                case Stalled(why=why):
                    self._health.waiting("state", why)
                case Undecodable():
                    self._letters.unreadable(item)
                    self._pass_over(item.subject, item.seq)
                case _:
                    assert_never(item)

    def _pass_over(self, subject: str, seq: int) -> None:
        """The last message on a subject is unreadable: it does not say that anything is gone."""
        address = subjects.try_parse(subject)
        if address is None or address.key is None:
            return
        if address.family == subjects.OBJECT and self._loaded_objects is not None:
            self._loaded_objects.add(address.key)
        elif address.family == subjects.REPORT and address.service is not None:
            if address.service != self.service.name:
                self._loaded_reports.add((address.key, address.service))
                return
            self.projection = drop_reports(self.projection, [(address.key, address.service)])
            if self._active:
                self.queue.add(address.key, seq)

    def _start_load(self) -> None:
        self._ready.clear()
        self._letters.loading()
        self._passes.begin()
        self._loaded_objects, self._loaded_reports = set(), set()
        self.projection = reset_report_order(self.projection)
        self._unsynced = {resource.kind for resource in self.service.follows}
        self._health.waiting("state", "loading from AIM_STATE")
        self._health.ready("start")

    def _end_load(self) -> None:
        """Sweep what the load did not bring, then look at everything once."""
        if self._loaded_objects is not None:
            for key in [
                seen.key
                for seen in self.projection.everything()
                if seen.key not in self._loaded_objects
            ]:
                self.projection = drop_object(self.projection, key)
            gone = [
                report
                for report in self.projection.report_keys()
                if report not in self._loaded_reports
            ]
            self.projection = drop_reports(self.projection, gone)
            self._loaded_objects = None
        self._health.ready("state")
        self._start_if_synced()

    def _start_if_synced(self, *, again: bool = False) -> None:
        """Look at everything once all is there; `again` also where that has been done before."""
        if self._loaded_objects is not None or (self._ready.is_set() and not again):
            return
        if self._unsynced:
            self._health.waiting(
                "sync", f"the watcher has not yet published: {', '.join(sorted(self._unsynced))}"
            )
            return
        self._health.ready("sync")
        self._ready.set()
        log.info("caught-up", objects=sum(1 for _ in self.projection.everything()))
        if self._leading:
            self._look_at_everything()

    def _look_at_everything(self) -> None:
        self._passes.again()
        for resource in self.service.plans_for:
            for seen in self.projection.everywhere(resource.kind):
                self.queue.add(seen.key, seen.seq)

    def _on_event(self, event: Event) -> None:
        EVENTS.labels(source_of(event.source)).inc()
        FOLLOW_LAG.labels(self.service.name).set(event.pending)
        self._passes.heard(event)
        match event.message:
            case KindSynced(kind=kind) as marker:
                self._forget_unconfirmed(marker)
                changed = self.projection.installed(kind) != marker.installed
                self.fold(marker)
                self._unsynced.discard(kind)
                self._start_if_synced(again=changed)
            case ObjectChanged() | ObjectDeleted() as message:
                key = Key(message.kind, message.namespace, message.name)
                if self._loaded_objects is not None:
                    self._loaded_objects.add(key)
                self._fold_and_enqueue(message, key, event.seq)
                if self.projection.get(key) is None:
                    self._applier.gone(key)
                    self._confirmations.forget(key)
            case ActionTaken() as taken:
                if not self._active:
                    self._applier.recall(Key(taken.kind, taken.namespace, taken.name), taken.mark)
            case StatusReported() as message:
                key = Key(message.kind, message.namespace, message.name)
                self._loaded_reports.add((key, message.service))
                late = self._is_a_predecessors(message, key)
                self.fold(message, event.seq)
                if self._active and (self.service.reports or late):
                    self.queue.add(key, event.seq)
            case DeadLetter() as letter:
                self._letters.seen(letter)
                if letter.handled and letter.name and not letter.subject and self._active:
                    key = Key(letter.kind, letter.namespace, letter.name)
                    self._dead.discard(key)
                    self.queue.add(key, event.seq)
            case _:
                log.warning("unexpected-message", subject=event.subject, seq=event.seq)

    def _is_a_predecessors(self, message: StatusReported, key: Key) -> bool:
        """A report of our service that we did not send: from before a pause or on a slow way, it
        may come after ours."""
        own = message.service == self.service.name
        return (
            own
            and key not in self._reporting
            and self.projection.report(key, message.service) != message
        )

    def _forget_unconfirmed(self, marker: KindSynced) -> None:
        """While the state is loaded the sweep at its end does that."""
        for own in self.projection.unconfirmed(marker) if self._loaded_objects is None else ():
            key, epoch = own.key, own.epoch
            deleted = ObjectDeleted(
                kind=key.kind,
                namespace=key.namespace,
                name=key.name,
                uid=own.uid,
                resource_version=str(own.version),
                object=own.body,
                epoch=epoch,
            )
            self._fold_and_enqueue(deleted, key, 0)
            self._applier.gone(key)

    def _fold_and_enqueue(self, message: StateEvent, key: Key, seq: int) -> None:
        before = self.projection
        self.fold(message, seq)
        if self._active and self.projection is not before:
            for touched in self.service.touched(before, self.projection, key):
                self.queue.add(touched, seq)

    def fold(self, event: StateEvent, seq: int = 0) -> None:
        self.projection = projection.fold(self.projection, event, seq)

    async def _work(self) -> None:
        while True:
            key, causes = await self.queue.take()
            try:
                await self._ready.wait()
                await self._reconcile(key, causes)
            finally:
                self.queue.done(key)

    async def _reconcile(self, key: Key, causes: Sequence[int]) -> None:
        started_s = time.monotonic()
        with self._passes.over(key, causes):
            outcome = await self._attempt(key, causes)
            duration_s = time.monotonic() - started_s
            RECONCILE_SECONDS.labels(self.service.name, outcome).observe(duration_s)
            log.debug(
                "reconciled",
                key=str(key),
                outcome=outcome,
                duration_s=round(duration_s, 4),
                cause=list(causes),
            )
            self._passes.ended(outcome)

    async def _attempt(self, key: Key, causes: Sequence[int]) -> str:
        """One pass over a key, and how it ended."""
        cause = self.projection.get(key)
        try:
            plan = self.service.plan(self.projection, key, datetime.datetime.now(datetime.UTC))
            if plan.requeue_after_s is not None:
                self.queue.add_after(key, plan.requeue_after_s)
            with self._creating(plan.actions):
                for report in plan.reports:
                    await self._publish_report(report, causes)
                outcome = await self._carry_out(
                    plan.actions, key, causes, partial(self._confirmations.confirm, key, cause)
                )
            if outcome != "refused":
                self._dead.discard(key)
                self.queue.succeeded(key)
        except UnconfirmedError as error:
            self._drop(key, cause, error)
            return "unconfirmed"
        except KubeError as error:
            failures = self.queue.failed(key, causes, error.retry_after_s or 0.0)
            log.info("retrying", key=str(key), error=str(error), failures=failures)
            return "retry"
        except Exception as error:  # (whatever goes wrong with one key must not stop the others)
            await self._unexpected(key, error, causes)
            return "error"
        return outcome

    def _drop(self, key: Key, cause: KubeObject | None, error: UnconfirmedError) -> None:
        """Forget an object that the API server does not have; the next event on it counts again."""
        log.warning("unconfirmed", key=str(key), error=str(error))
        self._dead.discard(key)
        self.queue.succeeded(key)
        if cause is None or self.projection.get(key) is not cause:
            return
        before = set(self.service.affected(self.projection, key))
        self.projection = drop_object(self.projection, key)
        for touched in before | set(self.service.affected(self.projection, key)):
            self.queue.add(touched, cause.seq)

    @contextmanager
    def _creating(self, actions: Sequence[Action]) -> Iterator[None]:
        """What is planned counts at once: the plan of another key may depend on how many there
        are."""
        keys = [action.key for action in actions if isinstance(action, ApplyObject)]
        for key in keys:
            self.fold(Observation(key, PENDING_CREATE, value=True))
        try:
            yield
        finally:
            for key in keys:
                self.fold(Observation(key, PENDING_CREATE, None))

    async def _carry_out(
        self, actions: Sequence[Action], key: Key, causes: Sequence[int], confirm: Confirm
    ) -> str:
        """All actions in order; a refused one ends the list and is folded for the planner to
        tell."""
        for action in actions:
            try:
                await self._act(action, key, causes, confirm)
            except (Invalid, Forbidden, Rejected, NameConflict) as error:
                if isinstance(error, Forbidden) and any(
                    cause.reason == NAMESPACE_TERMINATING for cause in error.causes
                ):
                    break
                why = describe_error(error) if isinstance(error, KubeError) else str(error)
                target = action.target or key
                refusal = ApplyRejected(
                    target, why, isinstance(error, NameConflict), earlier=self._earlier(key, target)
                )
                self._refused(refusal, key, causes)
                record = ActionRecord("refused", why, rejected_by=refusal.fact.by)
                await self.record(action, key, causes, record)
                return "refused"
            except KubeError as error:
                if error.status and (
                    is_from_webhook(error.message)
                    or self.queue.failures(key) + 1 >= REPORT_ERROR_AFTER_FAILURES
                ):
                    await self._keeps_failing(action, error, key, causes)
                raise
        if self.projection.learned(key, REJECTED) is not None:
            self.learn(Observation(key, REJECTED, None), key, causes)
        return "done"

    def _refused(self, refusal: ApplyRejected, key: Key, causes: Sequence[int]) -> None:
        """Fold a refusal; the first of a streak is told by the planner at once. One that reads
        differently each time makes no loop spin."""
        first = self.projection.learned(key, REJECTED) is None
        log.warning("rejected", key=str(key), target=str(refusal.target), error=refusal.message)
        self.fold(Observation(key, REJECTED, refusal))
        self.queue.failed(key, causes, REJECTED_RETRY_S)
        if first:
            self._look_again(key, causes)

    def _earlier(self, key: Key, target: Key) -> frozenset[str]:
        """What the API server has answered for the target so far; what reads differently each
        time does not fill the memory."""
        known: ApplyRejected | None = self.projection.learned(key, REJECTED)
        if known is None or known.target != target:
            return frozenset()
        return (
            known.earlier
            if len(known.earlier) >= MAX_REJECTIONS
            else known.earlier | {known.message}
        )

    async def _keeps_failing(
        self, action: Action, error: KubeError, key: Key, causes: Sequence[int]
    ) -> None:
        """Fold an error that the API server answers again and again, once for each target; the
        caller tries again with backoff."""
        target, known = (action.target or key), self.projection.learned(key, REJECTED)
        refusal = ApplyRejected(
            target,
            describe_error(error),
            transient=True,
            by_webhook=is_from_webhook(error.message),
            earlier=self._earlier(key, target),
        )
        if known is not None and known.target == target:
            self.fold(Observation(key, REJECTED, refusal))
            return
        self.learn(Observation(key, REJECTED, refusal), key, causes)
        record = ActionRecord("retry", refusal.message, rejected_by=refusal.fact.by)
        await self.record(action, key, causes, record)

    async def _act(self, action: Action, key: Key, causes: Sequence[int], confirm: Confirm) -> None:
        match action:
            case ApplyObject():
                answer = await self._applier.apply(self.projection, action, confirm)
                if answer is not None:
                    self.fold(changed_from_response(answer))
                    await self.record(action, key, causes, written(answer))
                self._observe_field_conflict(action.key, key, causes)
            case DeleteObject():
                if await self._applier.delete(action, confirm):
                    await self.record(action, key, causes)
            case PatchObject():
                answer = await self._applier.patch(action, confirm)
                if answer is not None:
                    self.fold(changed_from_response(answer))
                    await self.record(action, key, causes, written(answer))
            case ReadEvents():
                await self._read_events(action, key, causes)
            case _:
                if self._handler is None:
                    raise TypeError(
                        f"{self.service.name} plans {type(action).__name__} but has no handler"
                        " for it"
                    )
                await confirm()
                await self._handler(self, action, key, causes)

    async def _read_events(self, action: ReadEvents, key: Key, causes: Sequence[int]) -> None:
        """Fold the newest Warning on an object. Without the right to read Events there is less
        to report, and nothing else is lost."""
        found: LatestWarning | None = None
        now = datetime.datetime.now(datetime.UTC)
        try:
            found = await latest_warning(self.cluster, action, now)
        except KubeError as error:
            log.info("events-unreadable", of=str(action.of), error=str(error))
        known: LatestWarning | None = self.projection.learned(action.of, LATEST_WARNING)
        latest = found or LatestWarning(now)
        changed = known is None or (known.reason, known.note) != (latest.reason, latest.note)
        self.fold(Observation(action.of, LATEST_WARNING, latest))
        if changed:
            self._look_again(key, causes)
            detail = f"{latest.reason}: {latest.note}" if latest.reason else ""
            finding = Finding(reason=latest.reason, message=latest.note)
            await self.record(action, key, causes, ActionRecord(detail=detail, finding=finding))

    def _observe_field_conflict(self, target: Key, key: Key, causes: Sequence[int]) -> None:
        """Fold the conflict over `target`, or its end, once; and requeue the key for the time of
        the next repair."""
        delayed = self._applier.delayed_repair(target)
        if delayed is not None:
            self.queue.add_after(key, delayed.after_s, causes)
        conflict = None if delayed is None else delayed.conflict
        if self.projection.learned(target, FIELD_CONFLICT) != conflict:
            what = "no longer" if conflict is None else conflict.message
            log.warning("field-conflict", key=str(key), target=str(target), what=what)
            self.learn(Observation(target, FIELD_CONFLICT, conflict), key, causes)

    async def record(
        self,
        action: Action,
        about: Key,
        causes: Sequence[int],
        record: ActionRecord = DONE,
    ) -> None:
        target, done = action.target or about, record.outcome == "done"
        mark = self._applier.mark(target) if isinstance(action, ApplyObject) and done else None
        await self.bus.publisher.publish(
            ActionTaken(
                service=self.service.name,
                verb=action.verb,
                kind=target.kind,
                namespace=target.namespace,
                name=target.name,
                about=about,
                outcome=record.outcome,
                detail=truncate_error(record.detail),
                resource_version=record.resource_version,
                mark=mark,
                rejected_by=record.rejected_by,
                finding=record.finding,
            ),
            cause=causes,
        )

    async def _publish_report(self, report: Report, causes: Sequence[int]) -> None:
        last = self.projection.report(report.key, self.service.name)
        message = with_start_times(
            report.message(self.service.name), last, datetime.datetime.now(datetime.UTC)
        )
        if last == message:
            return
        if self._lease is not None:
            await self._lease.wait_until_held()
        self._reporting.add(report.key)
        try:
            seq = await self.bus.publisher.publish(message, cause=causes)
            self.fold(message, seq)
        finally:
            self._reporting.discard(report.key)

    async def _unexpected(self, key: Key, error: Exception, causes: Sequence[int]) -> None:
        failures = self.queue.failed(key, causes)
        FAILURES.labels("unexpected").inc()
        log.error("unexpected", key=str(key), failures=failures, exc_info=error)
        if failures >= DEAD_LETTER_AFTER_FAILURES and key not in self._dead:
            self._dead.add(key)
            what = truncate_error(repr(error))
            letter = DeadLetter(
                service=self.service.name,
                kind=key.kind,
                namespace=key.namespace,
                name=key.name,
                error=what,
                attempts=failures,
            )
            await self.bus.publisher.publish(letter, cause=causes)


async def connect_bus(service: str, settings: ServiceSettings, health: Health) -> Bus:
    """Connect, however long that takes; /readyz says from now on what is in the way of NATS."""

    def on_status(trouble: str) -> None:
        if trouble:
            health.waiting(NATS, trouble)
        else:
            health.ready(NATS)

    on_status("no answer yet from the server of AIM_NATS_URL")
    return await connect(
        settings.nats_url, name=f"aim-{service}", access=settings.access(), on_status=on_status
    )


async def run_controller(
    service: Component, settings: ServiceSettings, health: Health, handler: Handler | None = None
) -> None:
    """Connect and run a service until cancelled."""
    bus = await connect_bus(service.name, settings, health)
    try:
        async with leader_election(service.name, settings, health) as lease:
            cluster = await Cluster.connect(
                settings.kubeconfig, user_agent=f"aim-{service.name}", fence=lease.wait_until_held
            )
            try:
                await Controller(service, bus, cluster, health, handler).run(lease)
            finally:
                await cluster.close()
    finally:
        await bus.close()
