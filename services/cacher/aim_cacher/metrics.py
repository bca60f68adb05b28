"""Metrics of the cacher: bytes that downloads received, and bytes that caches hold."""

from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import Counter
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from aimcontroller.projection import Projection
from aimschema.resources import CACHE
from aimschema.states import TemplateState

DOWNLOAD_BYTES = Counter(
    "aim_download_bytes", "Bytes of models that downloads reported; resumed bytes count again"
)


def measure(state: Projection) -> Iterable[Metric]:
    """One sum over all namespaces: a label for the namespace would have no bound."""
    cache_bytes = GaugeMetricFamily(
        "aim_cache_bytes",
        "Size of the models in caches, by the state of the cache",
        labels=["status"],
    )
    tally: Tally[str] = Tally()
    for cache in state.in_all_namespaces(CACHE.kind):
        tally[str(cache.status.get("status"))] += int(cache.status.get("sizeBytes") or 0)
    for status in TemplateState:
        cache_bytes.add_metric([status.value], tally[status.value])
    return [cache_bytes]
