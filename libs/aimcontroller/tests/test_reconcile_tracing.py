"""Parents and links of a reconcile: a new event continues a trace, everything else starts one and
links back."""

import datetime

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, StatusCode

from aimbus import Event
from aimcontroller.reconcile_tracing import MAX_EVENTS, Cause, ReconcileTracer, detached_span
from aimschema.messages import KindSynced
from aimschema.resources import Key

KEY, OTHER = Key("AIMService", "ml", "chat"), Key("AIMService", "ml", "other")
NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


Point = tuple[int, int]
"""Trace and span. Of an event both are its sequence."""


def point(context: SpanContext | None) -> Point:
    assert context is not None
    return context.trace_id, context.span_id


class Traced:
    """ReconcileTracer with a real SDK behind them."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.passes = ReconcileTracer(provider.get_tracer("test"))

    def heard(self, seq: int) -> Point:
        traceparent = f"00-{seq:032x}-{seq:016x}-01"
        self.passes.on_event(
            Event(
                seq,
                "aim.synced.Pod",
                KindSynced(kind="Pod", resource_version="1", objects=0),
                NOW,
                (),
                "watcher",
                traceparent,
            )
        )
        return seq, seq

    def over(
        self, *causes: int, key: Key = KEY, learns: Key | None = None
    ) -> tuple[Point | None, set[Point], Point]:
        """Parent, links and the pass itself."""
        with self.passes.span(key, causes):
            if learns is not None:
                self.passes.on_observation(learns)
        span = self.spans.get_finished_spans()[-1]
        return (
            None if span.parent is None else point(span.parent),
            {point(link.context) for link in span.links},
            point(span.context),
        )


@pytest.fixture
def traced() -> Traced:
    return Traced()


def test_the_latest_event_is_the_parent_and_the_others_are_links(traced: Traced) -> None:
    first, last = traced.heard(3), traced.heard(7)
    parent, links, (trace, _) = traced.over(3, 7)
    assert (parent, links) == (last, {first})
    assert trace == last[0]


def test_a_retry_begins_a_trace_linked_to_the_former_pass(
    traced: Traced,
) -> None:
    event = traced.heard(3)
    _, _, before = traced.over(3)
    parent, links, again = traced.over(3)
    assert (parent, links) == (None, {event, before})
    assert again[0] != before[0]


def test_a_retry_that_news_came_to_goes_on_with_the_news(traced: Traced) -> None:
    old = traced.heard(3)
    traced.over(3)
    news = traced.heard(4)
    assert traced.over(3, 4)[:2] == (news, {old})


def test_an_event_is_news_for_each_key_it_touches(traced: Traced) -> None:
    event = traced.heard(3)
    assert traced.over(3)[0] == event
    assert traced.over(3, key=OTHER)[0] == event


def test_an_observation_in_a_reconcile_continues_its_trace(traced: Traced) -> None:
    traced.heard(3)
    _, _, before = traced.over(3, learns=KEY)
    assert traced.over(3)[0] == before
    assert traced.over(3)[0] is None


def test_an_observation_outside_has_no_trace_to_continue(traced: Traced) -> None:
    traced.heard(3)
    with traced.passes.span(KEY, (3,)), detached_span():
        traced.passes.on_observation(KEY)
    assert traced.over(3)[0] is None


def test_events_before_the_first_reconcile_are_no_cause(traced: Traced) -> None:
    event = traced.heard(3)
    traced.passes.mark_all_stale()
    assert traced.over(3)[:2] == (None, {event})
    news = traced.heard(4)
    assert traced.over(4)[0] == news


def test_in_another_log_the_same_sequences_are_other_events(traced: Traced) -> None:
    traced.heard(9)
    traced.over(9)
    traced.passes.reset()
    assert traced.over(9)[:2] == (None, set())
    news = traced.heard(1)
    assert traced.over(1)[0] == news


def test_what_is_remembered_is_bounded(traced: Traced) -> None:
    for seq in range(1, MAX_EVENTS + 2):
        traced.heard(seq)
    assert traced.over(1)[:2] == (None, set())
    assert traced.over(2, key=OTHER)[0] == (2, 2)


def test_an_unexpected_failure_of_a_reconcile(traced: Traced) -> None:
    with traced.passes.span(KEY, ()):
        traced.passes.finish("error")
    (span,) = traced.spans.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["aim.outcome"] == "error"


def test_without_a_tracer_nothing_is_remembered() -> None:
    passes = ReconcileTracer(None)
    passes.on_event(
        Event(
            3,
            "aim.synced.Pod",
            KindSynced(kind="Pod", resource_version="1", objects=0),
            NOW,
            (),
            "watcher",
            f"00-{3:032x}-{3:016x}-01",
        )
    )
    assert passes.cause(KEY, (3,)) == Cause(None, ())
