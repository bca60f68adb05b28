"""Fold what this process finds out itself, and reconcile the object again where that matters.

1. A rejection that a person must resolve is folded at once; it is retried with backoff, not before
   REJECTED_RETRY_S.
2. An error that the API server keeps answering is folded too, of whatever kind and code: from the
   REPORT_ERROR_AFTER_FAILURES-th failure in a row, at once where a webhook failed. A server that
   does not answer at all is only logged: no object is the cause.
3. Only the first of a streak of rejections is reconciled at once. One with another message each
   time makes no loop spin.
"""

from collections.abc import Sequence

import structlog

from aimcontroller.applier import DelayedRepair, NameConflict
from aimcontroller.projection import FIELD_CONFLICT, REJECTED, ApplyRejected, Observation
from aimcontroller.queue import WorkQueue
from aimcontroller.reconcile_tracing import ReconcileTracer
from aimcontroller.store import StateStore
from aimkube import KubeError, describe_error, is_from_webhook
from aimschema.resources import Key

REJECTED_RETRY_S = 15.0
REPORT_ERROR_AFTER_FAILURES = 3
MAX_REJECTIONS = 8
"""Messages of earlier rejections that are remembered for a target."""
log = structlog.get_logger()


class Observer:
    """For one event loop. `key` is the reconciled object, `causes` are the sequence numbers of the
    events that it is reconciled for."""

    def __init__(self, store: StateStore, queue: WorkQueue, tracer: ReconcileTracer) -> None:
        self._store = store
        self._queue = queue
        self._tracer = tracer

    def observe(self, observation: Observation, key: Key, causes: Sequence[int]) -> None:
        """Fold an observation and reconcile `key` again, for the same causes."""
        self._store.fold(observation)
        self.requeue(key, causes)

    def requeue(self, key: Key, causes: Sequence[int], after_s: float = 0.0) -> None:
        """Now, for the same causes; or after a time, then for no event."""
        if after_s > 0:
            self._queue.add_after(key, after_s)
            return
        self._tracer.on_observation(key)
        self._queue.add(key, *causes)

    def observe_rejection(
        self, error: KubeError | NameConflict, target: Key, key: Key, causes: Sequence[int]
    ) -> ApplyRejected:
        """The API server rejects a write to `target`, or another owner has its name."""
        message = describe_error(error) if isinstance(error, KubeError) else str(error)
        is_first = self._store.state.observation(key, REJECTED) is None
        rejection = ApplyRejected(
            target, message, isinstance(error, NameConflict), earlier=self._earlier(key, target)
        )
        log.warning("rejected", key=str(key), target=str(target), error=message)
        self._store.fold(Observation(key, REJECTED, rejection))
        self._queue.add_rate_limited(key, causes, REJECTED_RETRY_S)
        if is_first:
            self.requeue(key, causes)
        return rejection

    def observe_error(
        self, error: KubeError, target: Key, key: Key, causes: Sequence[int]
    ) -> ApplyRejected | None:
        """An error after which the caller retries with backoff. Returns what is folded for the
        first time for this target; None otherwise."""
        by_webhook = is_from_webhook(error.message)
        is_reported = self._queue.failures(key) + 1 >= REPORT_ERROR_AFTER_FAILURES
        if not error.status or not (by_webhook or is_reported):
            return None
        known: ApplyRejected | None = self._store.state.observation(key, REJECTED)
        rejection = ApplyRejected(
            target,
            describe_error(error),
            transient=True,
            by_webhook=by_webhook,
            earlier=self._earlier(key, target),
        )
        self._store.fold(Observation(key, REJECTED, rejection))
        if known is not None and known.target == target:
            return None
        self.requeue(key, causes)
        return rejection

    def retry(self, error: KubeError, key: Key, causes: Sequence[int]) -> None:
        """Reconcile again with backoff, not before the API server allows it."""
        failures = self._queue.add_rate_limited(key, causes, error.retry_after_s or 0.0)
        log.info("retrying", key=str(key), error=str(error), failures=failures)

    def clear_rejection(self, key: Key, causes: Sequence[int]) -> None:
        """All actions of a plan were accepted."""
        if self._store.state.observation(key, REJECTED) is not None:
            self.observe(Observation(key, REJECTED, None), key, causes)

    def observe_conflict(
        self, repair: DelayedRepair | None, target: Key, key: Key, causes: Sequence[int]
    ) -> None:
        """Another field manager keeps changing `target`, or has stopped (None). It is reconciled
        again when it may be repaired."""
        if repair is not None:
            self._queue.add_after(key, repair.after_s, causes)
        conflict = None if repair is None else repair.conflict
        if self._store.state.observation(target, FIELD_CONFLICT) != conflict:
            what = "no longer" if conflict is None else conflict.message
            log.warning("field-conflict", key=str(key), target=str(target), what=what)
            self.observe(Observation(target, FIELD_CONFLICT, conflict), key, causes)

    def _earlier(self, key: Key, target: Key) -> frozenset[str]:
        """Messages of the rejections of the target so far, at most MAX_REJECTIONS."""
        known: ApplyRejected | None = self._store.state.observation(key, REJECTED)
        if known is None or known.target != target:
            return frozenset()
        if len(known.earlier) >= MAX_REJECTIONS:
            return known.earlier
        return known.earlier | {known.message}
