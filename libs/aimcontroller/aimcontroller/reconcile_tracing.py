"""What caused a pass over a key, as traces: a pass goes on with the trace of the latest news that
asked for it, and points at the rest.

1. News is an event that came since everything was last looked at, and that no pass over the key has
   had yet; or a fact learned while a span was open. The latest event is the parent, all else that
   is known to have asked is a link.
2. Without news (a retry, a time to look again, a start, a takeover, a new load) a pass begins a
   trace of its own, with links to the pass before and to the events it is about.
3. What is remembered is bounded, and forgotten first come, first gone. Where nobody traces nothing
   is remembered.
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
        self.begin()

    def begin(self) -> None:
        """Sequences of before may be those of another log."""
        self._heard: OrderedDict[int, str] = OrderedDict()
        self._before: OrderedDict[Key, tuple[int, SpanContext]] = OrderedDict()
        self._learned: OrderedDict[Key, SpanContext] = OrderedDict()
        self._newest = self._old = 0

    def again(self) -> None:
        """Everything is looked at: what was heard so far is no news."""
        self._old = self._newest

    def heard(self, event: Event) -> None:
        if self._tracer is not None:
            self._newest = max(self._newest, event.seq)
            if event.traceparent:
                _remember(self._heard, event.seq, event.traceparent, MAX_EVENTS)

    def learned(self, key: Key) -> None:
        """The open span found something out, for which the key is looked at again."""
        if (
            self._tracer is not None
            and (found := trace.get_current_span().get_span_context()).is_valid
        ):
            _remember(self._learned, key, found, MAX_KEYS)

    def cause(self, key: Key, causes: Sequence[int]) -> Cause:
        """Why the key is looked at; what was learned for it is used up."""
        before_seq, before = self._before.get(key, (0, None))
        known = [
            (seq, context_of(self._heard[seq])) for seq in sorted(causes) if seq in self._heard
        ]
        news = [found for seq, found in known if seq > max(self._old, before_seq)]
        learned = self._learned.pop(key, None)
        parent = news[-1] if news else learned
        others = [*(found for _, found in known), learned, before if parent is None else None]
        return Cause(
            parent, tuple(found for found in others if found is not None and found != parent)
        )

    @contextmanager
    def over(self, key: Key, causes: Sequence[int]) -> Iterator[None]:
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
            had, _ = self._before.get(key, (0, None))
            newest = max((seq for seq in causes if seq in self._heard), default=0)
            _remember(self._before, key, (max(had, newest), span.get_span_context()), MAX_KEYS)
            yield

    def ended(self, outcome: str) -> None:
        """How the open pass ended; `error` is what nobody foresaw."""
        if self._tracer is not None:
            span = trace.get_current_span()
            span.set_attribute(otel_attributes.OUTCOME, outcome)
            if outcome == "error":
                span.set_status(Status(StatusCode.ERROR))


@contextmanager
def detached_span() -> Iterator[None]:
    """What is done in here belongs to no trace: it goes on for so long that it would make one of
    hours."""
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
