"""Carry out the actions of a plan, in order.

1. A component sees its own writes at once: the API server's answer is folded before the watcher
   brings the event.
2. The first rejected action ends the plan; the next plan is made with the rejection.
3. What a background task of a handler returns, or raises as a KubeError, counts like the outcome of
   its action.
4. An action that can be late is carried out in the background once the plan has written: planned
   again, it would not be repeated anyway.
"""

import asyncio
import datetime
from collections.abc import Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

import structlog

from aimbus import Bus
from aimcontroller.action import Action, ApplyObject, DeleteObject, PatchObject, ReadEvents
from aimcontroller.action_log import DONE, ActionLog, ActionRecord
from aimcontroller.applier import Applier, NameConflict
from aimcontroller.background import BackgroundQueue, BackgroundTasks
from aimcontroller.confirm import Confirm, unconditionally
from aimcontroller.events import latest_warning
from aimcontroller.handler import ActionContext, ActionResult, Body, Handler
from aimcontroller.observer import Observer
from aimcontroller.projection import (
    LATEST_WARNING,
    ApplyRejected,
    LatestWarning,
    Observation,
    changed_from_response,
)
from aimcontroller.store import StateStore
from aimkube import Cluster, Conflict, Forbidden, Invalid, KubeError, Rejected
from aimschema.messages import ActionTaken, Finding, timestamp
from aimschema.resources import Key

REJECTED = "refused"
"""Outcome of a plan with a rejected action, as the bus and the metrics have it."""
RETRY = "retry"
NAMESPACE_TERMINATING = "NamespaceTerminating"
"""The cause that the NamespaceLifecycle admission plugin gives."""
ABANDONED = "abandoned"
"""Outcome of an action that is not needed any more, like those after it."""
MAX_LATE_ACTIONS = 64
log = structlog.get_logger()


class Executor:
    """For one event loop. In all methods `key` is the reconciled object, and `causes` are the
    sequence numbers of the events that it is reconciled for."""

    def __init__(
        self,
        component: str,
        bus: Bus,
        cluster: Cluster,
        store: StateStore,
        observer: Observer,
        handler: Handler | None,
    ) -> None:
        self._component = component
        self._cluster = cluster
        self._store = store
        self._observer = observer
        self._handler = handler
        self._publish_live = bus.publisher.publish_live
        self._applier = Applier(cluster, f"aim-{component}")
        self._action_log = ActionLog(component, bus, self._applier.mark)
        self._background = BackgroundTasks()
        self._late = BackgroundQueue(MAX_LATE_ACTIONS)
        self._term_started = ""

    async def execute(
        self, actions: Sequence[Action], key: Key, causes: Sequence[int], confirm: Confirm
    ) -> str:
        """Returns DONE or REJECTED. Raises UnconfirmedError, and KubeErrors that are retried."""
        has_written = False
        for action in actions:
            if action.can_be_late and has_written:
                await confirm()
                await self._late.put(key, partial(self._act_late, action, key, causes))
                continue
            outcome = await self._act(action, key, causes, confirm)
            if outcome == REJECTED:
                return REJECTED
            if outcome == ABANDONED:
                break
            has_written = True
        self._observer.clear_rejection(key, causes)
        return DONE

    async def wait_recorded(self, key: Key) -> None:
        """Until all that was done for this object is on the bus."""
        await self._action_log.wait(key)

    async def finish_late(self) -> None:
        """Until the actions in the background have ended."""
        await self._late.flush()

    async def flush_records(self) -> None:
        """Until all that was done is on the bus."""
        await self._action_log.flush()

    def term_started(self) -> None:
        """A term of leadership begins; other processes have acted before."""
        self._term_started = timestamp(datetime.datetime.now(datetime.UTC))

    async def probe(self, kinds: Iterable[str]) -> None:
        """Test what the API server does, before the first action of a term."""
        await self._applier.probe(self._store.state, kinds)

    def forget_object(self, key: Key) -> None:
        """The object has been deleted."""
        self._applier.on_deleted(key)

    def restore_mark(self, action: ActionTaken) -> None:
        """Another process of this component has acted; its marks are needed to take over."""
        self._applier.restore_mark(Key(action.kind, action.namespace, action.name), action.mark)

    async def cancel_background(self) -> None:
        await self._background.cancel_all()
        await self._late.cancel_all()
        await self._action_log.cancel_all()

    async def _act(self, action: Action, key: Key, causes: Sequence[int], confirm: Confirm) -> str:
        """Returns DONE, REJECTED or ABANDONED. Raises as `execute` does."""
        target = action.target or key
        try:
            result = await self._perform(action, key, causes, confirm)
        except (Invalid, Forbidden, Rejected, NameConflict) as error:
            if _is_namespace_terminating(error):
                return ABANDONED
            rejection = self._observer.observe_rejection(error, target, key, causes)
            await self._action_log.publish(
                action, key, causes, _rejection_record(REJECTED, rejection)
            )
            return REJECTED
        except KubeError as error:
            reported = self._observer.observe_error(error, target, key, causes)
            if reported is not None:
                await self._action_log.publish(
                    action, key, causes, _rejection_record(RETRY, reported)
                )
            raise
        await self._finish(action, key, causes, result)
        return DONE

    async def _act_late(self, action: Action, key: Key, causes: Sequence[int]) -> None:
        try:
            result = await self._perform(action, key, causes, unconditionally)
        except KubeError as error:
            log.warning("late-action-failed", key=str(key), action=action.verb, error=str(error))
            return
        await self._finish(action, key, causes, result)

    async def _perform(
        self, action: Action, key: Key, causes: Sequence[int], confirm: Confirm
    ) -> ActionResult:
        match action:
            case ApplyObject():
                return _result_of(await self._applier.apply(self._store.state, action, confirm))
            case PatchObject():
                return _result_of(await self._applier.patch(action, confirm))
            case DeleteObject():
                is_deleted = await self._applier.delete(action, confirm)
                return ActionResult(record=ActionRecord() if is_deleted else None)
            case ReadEvents():
                return await self._read_events(action)
        if self._handler is None:
            raise TypeError(f"{self._component} plans {type(action).__name__} but has no handler")
        context = self._context(action, key, causes)
        if not action.is_guarded:
            await confirm()
            return await self._handler(action, context)
        try:
            result = await self._handler(action, context)
        except Conflict:
            await confirm()
            raise
        await confirm(result.response)
        return result

    async def _finish(
        self, action: Action, key: Key, causes: Sequence[int], result: ActionResult
    ) -> None:
        """Fold a result first, so that nothing is planned without it; then publish the action."""
        if result.response is not None:
            self._store.fold(changed_from_response(result.response))
        for observation in result.observations:
            self._store.fold(observation)
        if result.requeue_after_s is not None:
            self._observer.requeue(key, causes, result.requeue_after_s)
        if result.record is not None:
            await self._action_log.publish(action, key, causes, result.record)
        if isinstance(action, ApplyObject):
            repair = self._applier.delayed_repair(action.key)
            self._observer.observe_conflict(repair, action.key, key, causes)

    def _context(self, action: Action, key: Key, causes: Sequence[int]) -> ActionContext:
        obj = self._store.state.get(key)
        return ActionContext(
            self._cluster,
            self._publish_live,
            partial(self._observer.observe, key=key, causes=causes),
            partial(self._start, action, key, causes),
            obj is not None and "" < self._term_started < obj.creation_timestamp,
        )

    def _start(
        self,
        action: Action,
        key: Key,
        causes: Sequence[int],
        work: Coroutine[Any, Any, ActionResult],
    ) -> "asyncio.Task[None]":
        task = self._background.start(self._finish_later(action, key, causes, work))
        task.add_done_callback(lambda _: work.close())  # (cancelled before it began)
        return task

    async def _finish_later(
        self,
        action: Action,
        key: Key,
        causes: Sequence[int],
        work: Coroutine[Any, Any, ActionResult],
    ) -> None:
        try:
            result = await work
        except KubeError as error:
            self._observer.retry(error, key, causes)
            return
        await self._finish(action, key, causes, result)

    async def _read_events(self, action: ReadEvents) -> ActionResult:
        """The newest Warning on an object. Without the right to read Events there is less to
        report, and nothing else is lost."""
        now = datetime.datetime.now(datetime.UTC)
        latest = LatestWarning(now)
        try:
            latest = await latest_warning(self._cluster, action, now)
        except KubeError as error:
            log.info("events-unreadable", of=str(action.of), error=str(error))
        known: LatestWarning | None = self._store.state.observation(action.of, LATEST_WARNING)
        observations = (Observation(action.of, LATEST_WARNING, latest),)
        if known is not None and (known.reason, known.note) == (latest.reason, latest.note):
            return ActionResult(observations=observations)
        detail = f"{latest.reason}: {latest.note}" if latest.reason else ""
        finding = Finding(reason=latest.reason, message=latest.note)
        record = ActionRecord(detail=detail, finding=finding)
        return ActionResult(observations=observations, requeue_after_s=0.0, record=record)


def _result_of(response: Body | None) -> ActionResult:
    """None: the object already is as it must be."""
    return ActionResult() if response is None else ActionResult.from_response(response)


def _rejection_record(outcome: str, rejection: ApplyRejected) -> ActionRecord:
    return ActionRecord(outcome, rejection.message, rejected_by=rejection.fact.by)


def _is_namespace_terminating(error: KubeError | NameConflict) -> bool:
    """Nothing can be created in a namespace that is being deleted, and nothing has to be."""
    return isinstance(error, Forbidden) and any(
        cause.reason == NAMESPACE_TERMINATING for cause in error.causes
    )
