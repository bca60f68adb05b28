"""The causes of a reconcile as traces: a reconcile continues the trace of its latest new cause, and
links to the others.

1. A new cause is an event since all keys were last reconciled that no reconcile of the key has
   handled, or an observation made while a span was open. The latest event is the parent, all other
   known causes are links.
2. Without a new cause (a retry, a requeue, a start, a takeover, a new load) a reconcile starts a
   new trace, with links to the previous reconcile and to the events of its key.
3. The memory is bounded, and the oldest entries are dropped first. Without tracing nothing is
   stored.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
)

from aimbus import Event
from aimbus.tracing import context_of
from aimschema import otel_attributes
from aimschema.resources import Key

MAX_EVENTS = 10_000
MAX_KEYS = 10_000
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a pass is made: `parent` None begins a trace."""

    parent: SpanContext | None
    links: tuple[SpanContext, ...]


class ReconcileTracer:
    """For one event loop."""

    def __init__(self, tracer: Tracer | None) -> None:
        self._tracer = tracer
        self.reset()

    def reset(self) -> None:
        """Sequences of before may be those of another log."""
        self._events: OrderedDict[int, str] = OrderedDict()
        self._previous: OrderedDict[Key, tuple[int, SpanContext]] = OrderedDict()
        self._observed: OrderedDict[Key, SpanContext] = OrderedDict()
        self._newest = self._old = 0

    def mark_all_stale(self) -> None:
        """All keys are reconciled: earlier events are no new causes."""
        self._old = self._newest

    def on_event(self, event: Event) -> None:
        if self._tracer is not None:
            self._newest = max(self._newest, event.seq)
            if event.traceparent:
                _remember(self._events, event.seq, event.traceparent, MAX_EVENTS)

    def on_observation(self, key: Key) -> None:
        """The open span made an observation, for which the key is reconciled again."""
        if (
            self._tracer is not None
            and (found := trace.get_current_span().get_span_context()).is_valid
        ):
            _remember(self._observed, key, found, MAX_KEYS)

    def cause(self, key: Key, causes: Sequence[int]) -> Cause:
        """The causes of the reconcile; consumes the observations of the key."""
        before_seq, before = self._previous.get(key, (0, None))
        known = [
            (seq, context_of(self._events[seq])) for seq in sorted(causes) if seq in self._events
        ]
        news = [found for seq, found in known if seq > max(self._old, before_seq)]
        observed = self._observed.pop(key, None)
        parent = news[-1] if news else observed
        others = [*(found for _, found in known), observed, before if parent is None else None]
        return Cause(
            parent, tuple(found for found in others if found is not None and found != parent)
        )

    @contextmanager
    def span(self, key: Key, causes: Sequence[int]) -> Iterator[None]:
        """The span of one pass; within it, spans of what it does."""
        if self._tracer is None:
            yield
            return
        cause = self.cause(key, causes)
        parent = (
            Context()
            if cause.parent is None
            else trace.set_span_in_context(NonRecordingSpan(cause.parent), Context())
        )
        attributes = {
            otel_attributes.SYSTEM: otel_attributes.SYSTEM_NATS,
            otel_attributes.OPERATION: "process",
            otel_attributes.OPERATION_TYPE: "process",
            **otel_attributes.about(key),
        }
        links = [Link(found) for found in cause.links]
        name = f"process {key.kind}"
        with self._tracer.start_as_current_span(
            name, parent, SpanKind.CONSUMER, attributes, links, record_exception=False
        ) as span:
            had, _ = self._previous.get(key, (0, None))
            newest = max((seq for seq in causes if seq in self._events), default=0)
            _remember(self._previous, key, (max(had, newest), span.get_span_context()), MAX_KEYS)
            yield

    def finish(self, outcome: str) -> None:
        """The outcome of the open reconcile; `error` is an unexpected error."""
        if self._tracer is not None:
            span = trace.get_current_span()
            span.set_attribute(otel_attributes.OUTCOME, outcome)
            if outcome == "error":
                span.set_status(Status(StatusCode.ERROR))


@contextmanager
def detached_span() -> Iterator[None]:
    """Work in this block belongs to no trace: it runs so long that its trace would take hours."""
    token = otel_context.attach(trace.set_span_in_context(INVALID_SPAN))
    try:
        yield
    finally:
        otel_context.detach(token)


def _remember(known: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > most:
        known.popitem(last=False)
