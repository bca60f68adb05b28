"""Prometheus metrics that every service has, named by the Prometheus conventions.
docs/reference/metrics.md lists all metrics.

Label values are from fixed sets (services, outcomes, kinds, states): never the name or namespace of
an object, of which there may be any number.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from aimschema.reasons import COMPONENTS

EVENTS = Counter("aim_events", "Events read from the bus, by publisher", ["source"])
FAILURES = Counter(
    "aim_failures", "Unexpected failures, by kind: undecodable, unexpected", ["kind"]
)
RECONCILE_SECONDS = Histogram(
    "aim_reconcile_duration_seconds",
    "Duration of a reconcile, by outcome",
    ["service", "outcome"],
)
LEADER = Gauge(
    "aim_leader",
    "1 while this process is the leader of its service, 0 while it is a standby",
    ["service"],
)
QUEUE_DEPTH = Gauge(
    "aim_queue_depth",
    "Keys that wait for a reconcile, without those that wait for a backoff",
    ["service"],
)
FOLLOW_LAG = Gauge(
    "aim_follow_lag", "Messages of AIM_STATE that the service has not read yet", ["service"]
)

SOURCES = frozenset(f"aim-{component}" for component in COMPONENTS)
OTHER = "other"


def source_of(source: str) -> str:
    """A publisher as a label value: the name of a publisher is untrusted."""
    return source if source in SOURCES else OTHER


@cache
def events_read(source: str) -> Counter:
    """The counter of a publisher, as `source_of` names it. Kept, as the others below: finding a
    child by its labels takes longer than to count."""
    return EVENTS.labels(source)


@cache
def follow_lag(component: str) -> Gauge:
    return FOLLOW_LAG.labels(component)


@cache
def reconcile_seconds(component: str, outcome: str) -> Histogram:
    return RECONCILE_SECONDS.labels(component, outcome)


class _Measured(Collector):
    def __init__(self, measure: Callable[[], Iterable[Metric]]) -> None:
        self._measure = measure

    def collect(self) -> Iterable[Metric]:
        return self._measure()

    def describe(self) -> Iterable[Metric]:
        return ()


@contextmanager
def collector_registered(measure: Callable[[], Iterable[Metric]]) -> Iterator[None]:
    """Serves the values of `measure` until the block ends, computed at each scrape."""
    collector = _Measured(measure)
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)
