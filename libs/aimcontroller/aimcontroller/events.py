"""The newest Warning Event on an object, read from the API server: only Events say why a pod
does not start or is not created."""

import datetime
from collections.abc import Iterable
from typing import Any

from aimcontroller.action import ReadEvents
from aimcontroller.projection import LatestWarning
from aimkube import Body, Cluster
from aimschema.messages import parse_timestamp
from aimschema.resources import EVENT
from aimschema.sanitize import printable

WARNING_COUNTS_S = 600.0
"""An older Warning is history: what causes it has passed, or it would have come again."""
SCHEDULING = "FailedScheduling"
"""Left out: the pod's own PodScheduled condition is newer."""


async def latest_warning(
    cluster: Cluster, action: ReadEvents, now: datetime.datetime
) -> LatestWarning:
    """One list request. Raises KubeError."""
    selector = f"regarding.uid={action.uid},type=Warning"
    listing = await cluster.list(EVENT, action.of.namespace, field_selector=selector)
    return newest(listing.items, now)


def newest(events: Iterable[Body], now: datetime.datetime) -> LatestWarning:
    """Of events.k8s.io/v1 Events, the Warning that happened last; those of repeated Events count
    by their last time."""
    dated = [
        (at, event)
        for event in events
        if (at := last_time(event)) is not None and _counts(event, at, now)
    ]
    if not dated:
        return LatestWarning(now)
    _, event = max(dated, key=lambda pair: pair[0])
    return LatestWarning(now, str(event["reason"]), printable(str(event.get("note") or "")).strip())


def last_time(event: Body) -> datetime.datetime | None:
    """When it happened last, aware UTC; None where it does not say."""
    series: Any = event.get("series") or {}
    times = (
        series.get("lastObservedTime"),
        event.get("deprecatedLastTimestamp"),
        event.get("eventTime"),
        (event.get("metadata") or {}).get("creationTimestamp"),
    )
    return max((parse_timestamp(text) for text in times if text), default=None)


def _counts(event: Body, at: datetime.datetime, now: datetime.datetime) -> bool:
    recent = (now - at).total_seconds() <= WARNING_COUNTS_S
    return (
        recent
        and event.get("type") == "Warning"
        and event.get("reason") not in {None, "", SCHEDULING}
    )
