"""Spans of requests that write, within whatever span is open; without one, such as for the lease,
there is none.

Of an object a span has kind, namespace and name, never what is in it; of an error its type, never
the server's words, which may quote values.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from aimschema import otel_attributes
from aimschema.resources import Key


@contextmanager
def request(verb: str, method: str, key: Key, subresource: str | None = None) -> Iterator[None]:
    """The span of one request, named for the verb and the kind."""
    if not trace.get_current_span().get_span_context().is_valid:
        yield
        return
    target = key.kind if subresource is None else f"{key.kind}/{subresource}"
    attributes = {
        otel_attributes.METHOD: method,
        **otel_attributes.about(key),
        **({} if subresource is None else {otel_attributes.SUBRESOURCE: subresource}),
    }
    tracer = trace.get_tracer("aimkube", schema_url=otel_attributes.SCHEMA_URL)
    with tracer.start_as_current_span(
        f"{verb} {target}",
        kind=SpanKind.CLIENT,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except Exception as error:
            span.set_attribute(otel_attributes.ERROR_TYPE, type(error).__name__)
            span.set_status(Status(StatusCode.ERROR))
            raise
