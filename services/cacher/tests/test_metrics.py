"""Bytes in caches, as they are counted at a scrape."""

from aim_cacher.metrics import measure
from aimcontroller import testing as given
from aimschema.resources import CACHE


def test_sizes_are_added_up_by_state_over_all_namespaces() -> None:
    caches = [
        given.cr(CACHE.kind, "a", {}, status={"status": "Available", "sizeBytes": 5}),
        given.cr(
            CACHE.kind, "b", {}, namespace="other", status={"status": "Available", "sizeBytes": 7}
        ),
        given.cr(CACHE.kind, "c", {}, status={"status": "Progressing", "sizeBytes": 3}),
        given.cr(CACHE.kind, "d", {}),
    ]
    (metric,) = measure(given.projection(*caches))
    told = {sample.labels["status"]: sample.value for sample in metric.samples}
    assert told == {"Pending": 0, "Progressing": 3, "Available": 12, "Failed": 0}
