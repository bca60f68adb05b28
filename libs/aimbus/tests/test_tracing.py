"""The trace context of messages, with a real SDK."""

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer, format_span_id, format_trace_id

from aimbus.envelope import TRACEPARENT, headers_for
from aimbus.tracing import context_of, linked_span, publishing, record_created, tracer
from aimschema import otel_attributes
from aimschema.messages import ObjectChanged, key_of, subject_of

BODY = {
    "metadata": {"name": "a.b", "namespace": "ml", "uid": "u"},
    "spec": {"env": [{"name": "TOKEN", "value": "hush"}]},
}
CHANGED = ObjectChanged(
    kind="Pod", namespace="ml", name="a.b", uid="u", resource_version="7", object=BODY
)
SUBJECT, KEY = subject_of(CHANGED), key_of(CHANGED)


@pytest.fixture
def finished() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traces(finished: InMemorySpanExporter) -> Tracer:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(finished))
    return provider.get_tracer("test")


def traceparent(span: ReadableSpan) -> str:
    assert span.context is not None
    context = span.context
    trace_id, span_id = format_trace_id(context.trace_id), format_span_id(context.span_id)
    return f"00-{trace_id}-{span_id}-{context.trace_flags:02x}"


def test_a_process_that_does_not_trace_has_no_tracer() -> None:
    assert tracer("aimbus") is None


def test_of_the_headers_only_the_trace_context_is_another(
    traces: Tracer, finished: InMemorySpanExporter
) -> None:
    before = headers_for(CHANGED, source="aim-watcher", cause=[3])
    for send in (publishing, record_created):
        headers = dict(before)
        if (made := send(traces, SUBJECT, headers, KEY)) is not None:
            with made:
                pass
        assert headers == before | {TRACEPARENT: traceparent(finished.get_finished_spans()[-1])}


def test_a_span_has_conventional_names_and_no_content(
    traces: Tracer, finished: InMemorySpanExporter
) -> None:
    with publishing(traces, SUBJECT, headers_for(CHANGED, source="s"), KEY):
        pass
    (span,) = finished.get_finished_spans()
    assert (span.name, span.kind.name) == ("publish aim.object.Pod", "PRODUCER")
    assert dict(span.attributes or {}) == {
        otel_attributes.SYSTEM: "nats",
        otel_attributes.DESTINATION: "aim.object.Pod.ml.a_b",
        otel_attributes.OPERATION: "publish",
        otel_attributes.OPERATION_TYPE: "send",
        otel_attributes.MESSAGE_ID: "u:7",
        otel_attributes.OBJECT_KIND: "Pod",
        otel_attributes.OBJECT_NAME: "a.b",
        otel_attributes.NAMESPACE: "ml",
    }


def test_messages_of_a_batch_begin_traces_of_their_own(
    traces: Tracer, finished: InMemorySpanExporter
) -> None:
    for _ in range(2):
        record_created(traces, SUBJECT, headers_for(CHANGED, source="s"), KEY)
    one, other = finished.get_finished_spans()
    assert one.context is not None
    assert other.context is not None
    assert one.context.trace_id != other.context.trace_id
    assert one.name == "create aim.object.Pod"


def test_a_look_back_points_at_each_trace_once(
    traces: Tracer, finished: InMemorySpanExporter
) -> None:
    first, second, third = (
        f"00-{trace:032x}-{span:016x}-01" for trace, span in ((1, 1), (1, 2), (2, 3))
    )
    with linked_span(traces, "replay", [first, "", second, "nonsense", third]):
        pass
    (span,) = finished.get_finished_spans()
    assert span.parent is None
    assert {link.context.span_id for link in span.links} == {1, 3}


@pytest.mark.parametrize(
    "header",
    ["", "nonsense", "00-" + "0" * 32 + "-" + "1" * 16 + "-01"],
    ids=["none", "nonsense", "zeros"],
)
def test_a_header_that_makes_no_sense_is_no_context(header: str) -> None:
    assert not context_of(header).is_valid
