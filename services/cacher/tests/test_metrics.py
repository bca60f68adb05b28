"""Bytes in caches, as they are counted at a scrape."""

from aim_cacher.metrics import measure
from aimcontroller import testing
from aimschema.resources import CACHE


def test_sizes_are_added_up_by_state_over_all_namespaces() -> None:
    caches = [
        testing.cr(CACHE.kind, "a", {}, status={"status": "Available", "sizeBytes": 5}),
        testing.cr(
            CACHE.kind, "b", {}, namespace="other", status={"status": "Available", "sizeBytes": 7}
        ),
        testing.cr(CACHE.kind, "c", {}, status={"status": "Progressing", "sizeBytes": 3}),
        testing.cr(CACHE.kind, "d", {}),
    ]
    (metric,) = measure(testing.projection(*caches))
    samples = {sample.labels["status"]: sample.value for sample in metric.samples}
    assert samples == {"Pending": 0, "Progressing": 3, "Available": 12, "Failed": 0}
