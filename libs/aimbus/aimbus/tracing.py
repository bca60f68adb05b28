"""Spans of what is published, and the trace context (W3C Trace Context) that a message takes along.

1. Names and attributes follow the OpenTelemetry semantic conventions for messaging, version 1.44.0,
   in which `publish` is the name of the operation and `send` its type. NATS is no system they list,
   so its own name is used, as they ask for.
2. Without a tracer provider in the process there is no tracer, and nothing here is done.
3. Of a message a span has the subject, the id, and which object it is about; never its content.
"""

from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from aimbus.envelope import MSG_ID, TRACEPARENT
from aimschema import otel_attributes, subjects
from aimschema.resources import Key

_propagator = TraceContextTextMapPropagator()


def tracer(name: str) -> Tracer | None:
    """None where the process does not trace."""
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    return trace.get_tracer(name, schema_url=otel_attributes.SCHEMA_URL)


def context_of(traceparent: str) -> SpanContext:
    """Of a header; not valid where it makes no sense."""
    return trace.get_current_span(
        _propagator.extract({TRACEPARENT: traceparent})
    ).get_span_context()


@contextmanager
def publishing(
    tracer: Tracer, subject: str, headers: MutableMapping[str, str], key: Key | None
) -> Iterator[None]:
    """The span of one message on its way, of which the message carries the context."""
    with tracer.start_as_current_span(
        _name("publish", subject),
        kind=SpanKind.PRODUCER,
        attributes=_attributes("publish", "send", subject, headers, key),
        record_exception=False,
    ):
        _propagator.inject(headers)
        yield


def record_created(
    tracer: Tracer, subject: str, headers: MutableMapping[str, str], key: Key | None
) -> None:
    """Each message of a batch has a span that starts a trace: the effects of one are independent of
    the others."""
    attributes = _attributes("create", "create", subject, headers, key)
    span = tracer.start_span(
        _name("create", subject), kind=SpanKind.PRODUCER, attributes=attributes
    )
    _propagator.inject(headers, trace.set_span_in_context(span))
    span.end()


@contextmanager
def linked_span(tracer: Tracer | None, name: str, traceparents: Iterable[str]) -> Iterator[None]:
    """The span of a replay: a separate trace, with a link to each replayed trace (by its first
    message)."""
    if tracer is None:
        yield
        return
    found = {
        context.trace_id: context
        for context in map(context_of, reversed(list(traceparents)))
        if context.is_valid
    }
    with tracer.start_as_current_span(
        name, Context(), links=[Link(context) for context in found.values()]
    ):
        yield


def _name(operation: str, subject: str) -> str:
    """Names are few: family and kind, not the object."""
    address = subjects.try_parse(subject)
    return operation if address is None else f"{operation} {address.family}.{address.kind}"


def _attributes(
    operation: str, type_: str, subject: str, headers: MutableMapping[str, str], key: Key | None
) -> dict[str, str]:
    messaging = {
        otel_attributes.SYSTEM: otel_attributes.SYSTEM_NATS,
        otel_attributes.DESTINATION: subject,
        otel_attributes.OPERATION: operation,
        otel_attributes.OPERATION_TYPE: type_,
        otel_attributes.MESSAGE_ID: headers[MSG_ID],
    }
    return messaging | ({} if key is None else otel_attributes.about(key))
