"""Reconcile one key: plan, report, act, and classify how it ended.

1. Outcomes: done; refused (a person must act); retry with jittered backoff (conflicts, throttling,
   outages); unconfirmed; error.
2. Nothing is written for an object that the API server does not have: it is forgotten until the
   next event on it (confirm.py).
3. An unexpected error of one key never stops another. After DEAD_LETTER_AFTER_FAILURES in a row it
   becomes a dead letter.
4. A plan that may wait is carried out after its time, unless a better one comes first, or at the
   end of the term.
"""

import datetime
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from aimbus import Bus
from aimcontroller.action import ApplyObject
from aimcontroller.action_log import DONE
from aimcontroller.component import Component
from aimcontroller.confirm import Confirmations, UnconfirmedError
from aimcontroller.dead_letters import truncate_error
from aimcontroller.executor import REJECTED, RETRY, Executor
from aimcontroller.holds import Holds
from aimcontroller.metrics import FAILURES, reconcile_seconds
from aimcontroller.observer import Observer
from aimcontroller.projection import KubeObject
from aimcontroller.queue import WorkQueue
from aimcontroller.reconcile_tracing import ReconcileTracer
from aimcontroller.reporter import Reporter
from aimcontroller.store import StateStore
from aimkube import KubeError
from aimschema.messages import DeadLetter
from aimschema.resources import Key

DEAD_LETTER_AFTER_FAILURES = 5
UNCONFIRMED = "unconfirmed"
ERROR = "error"
log = structlog.get_logger()


@dataclass(frozen=True)
class Reconciler:
    """For one event loop. `confirm_lease` returns while this process is the leader; None: there
    is no lease."""

    component: Component
    bus: Bus
    store: StateStore
    queue: WorkQueue
    tracer: ReconcileTracer
    observer: Observer
    reporter: Reporter
    executor: Executor
    confirmations: Confirmations
    confirm_lease: Callable[[], Awaitable[None]] | None
    holds: Holds
    _dead: set[Key] = field(default_factory=set)

    async def reconcile(self, key: Key, causes: Sequence[int]) -> None:
        """`causes` are the sequence numbers of the events that it is reconciled for."""
        started_s = time.monotonic()
        with self.tracer.span(key, causes):
            outcome = await self._attempt(key, causes)
            duration_s = time.monotonic() - started_s
            reconcile_seconds(self.component.name, outcome).observe(duration_s)
            log.debug(
                "reconciled",
                key=str(key),
                outcome=outcome,
                duration_s=round(duration_s, 4),
                cause=list(causes),
            )
            self.tracer.finish(outcome)

    async def flush(self) -> None:
        """Carry out the plans that wait."""
        for key in self.holds.release():
            await self.reconcile(key, ())

    def retry_dead(self, key: Key) -> None:
        """A person has handled the dead letter of this key."""
        self._dead.discard(key)

    async def _attempt(self, key: Key, causes: Sequence[int]) -> str:
        obj = self.store.state.get(key)
        try:
            outcome = await self._plan_and_act(key, obj, causes)
        except UnconfirmedError as error:
            self._drop(key, obj, error)
            return UNCONFIRMED
        except KubeError as error:
            self.observer.retry(error, key, causes)
            return RETRY
        except Exception as error:  # (whatever goes wrong with one key must not stop the others)
            await self._on_unexpected(key, error, causes)
            return ERROR
        if outcome != REJECTED:
            self._forget_failures(key)
        return outcome

    async def _plan_and_act(self, key: Key, obj: KubeObject | None, causes: Sequence[int]) -> str:
        """`obj` is the object at `key`, as the plan is made from it."""
        plan = self.component.plan(self.store.state, key, datetime.datetime.now(datetime.UTC))
        if plan.requeue_after_s is not None:
            self.queue.add_after(key, plan.requeue_after_s)
        applied = [action.key for action in plan.actions if isinstance(action, ApplyObject)]
        with self.store.creating(applied):
            if plan.reports:
                await self.executor.wait_recorded(key)
            for report in plan.reports:
                await self.reporter.publish(report, causes, self.confirm_lease)
            if left_s := self.holds.left_s(key, plan.hold_s):
                self.queue.add_after(key, left_s, causes)
                return DONE
            if plan.actions and obj is not None:
                self.confirmations.check(key, obj)
            confirm = partial(self.confirmations.confirm, key, obj)
            started_s = time.monotonic()
            outcome = await self.executor.execute(plan.actions, key, causes, confirm)
            if plan.actions:
                self.holds.write_took(time.monotonic() - started_s)
            return outcome

    def _forget_failures(self, key: Key) -> None:
        self._dead.discard(key)
        self.queue.forget(key)

    def _drop(self, key: Key, obj: KubeObject | None, error: UnconfirmedError) -> None:
        """Forget an object that the API server does not have; the next event on it counts again."""
        log.warning("unconfirmed", key=str(key), error=str(error))
        self._forget_failures(key)
        if obj is None or self.store.state.get(key) is not obj:
            return
        before = set(self.component.map_to_keys(self.store.state, key))
        self.store.drop(key)
        for other in before | set(self.component.map_to_keys(self.store.state, key)):
            self.queue.add(other, obj.seq)

    async def _on_unexpected(self, key: Key, error: Exception, causes: Sequence[int]) -> None:
        failures = self.queue.add_rate_limited(key, causes)
        FAILURES.labels("unexpected").inc()
        log.error("unexpected", key=str(key), failures=failures, exc_info=error)
        if failures < DEAD_LETTER_AFTER_FAILURES or key in self._dead:
            return
        self._dead.add(key)
        dead_letter = DeadLetter(
            service=self.component.name,
            kind=key.kind,
            namespace=key.namespace,
            name=key.name,
            error=truncate_error(repr(error)),
            attempts=failures,
        )
        await self.bus.publisher.publish(dead_letter, cause=causes)
