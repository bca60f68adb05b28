"""What the cacher counts: bytes that came, and bytes that are kept."""

from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import Counter
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from aimcontroller.projection import Projection
from aimschema.kinds import TemplateState
from aimschema.resources import CACHE

DOWNLOAD_BYTES = Counter(
    "aim_download_bytes", "Bytes of models that downloads told of; what a try resumes counts again"
)


def measure(seen: Projection) -> Iterable[Metric]:
    """Of all namespaces together: by namespace there would be no bound."""
    kept = GaugeMetricFamily(
        "aim_cache_bytes",
        "Size of the models in caches, by the state of the cache",
        labels=["status"],
    )
    tally: Tally[str] = Tally()
    for cache in seen.everywhere(CACHE.kind):
        tally[str(cache.status.get("status"))] += int(cache.status.get("sizeBytes") or 0)
    for state in TemplateState:
        kept.add_metric([state.value], tally[state.value])
    return [kept]
