"""Which Warning Event says why an object is stuck."""

import datetime
from typing import Any

import pytest

from aimcontroller.events import newest
from aimcontroller.projection import LatestWarning
from aimschema.messages import timestamp

NOW = datetime.datetime(2030, 1, 2, 12, 0, 0, tzinfo=datetime.UTC)


def event(
    reason: str, seconds_ago: float, field: str = "eventTime", **fields: Any
) -> dict[str, Any]:
    at = timestamp(NOW - datetime.timedelta(seconds=seconds_ago))
    times = {"series": {"lastObservedTime": at, "count": 4}} if field == "series" else {field: at}
    return {"type": "Warning", "reason": reason, "note": f"{reason} happened", **times, **fields}


MOUNT = LatestWarning(NOW, "FailedMount", "FailedMount happened")
NONE = LatestWarning(NOW)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param([], NONE, id="none"),
        pytest.param(
            [event("FailedMount", 50), event("FailedAttachVolume", 90)], MOUNT, id="the-newest"
        ),
        pytest.param(
            [event("FailedMount", 5, "deprecatedLastTimestamp"), event("Old", 9)],
            MOUNT,
            id="repeated-in-the-old-form",
        ),
        pytest.param(
            [event("FailedMount", 5, "series", eventTime=timestamp(NOW)), event("Old", 9)],
            MOUNT,
            id="a-series",
        ),
        pytest.param(
            [event("FailedMount", 5), event("Pulled", 1, type="Normal")], MOUNT, id="no-warning"
        ),
        pytest.param(
            [event("FailedMount", 5), event("FailedScheduling", 1)],
            MOUNT,
            id="scheduling-is-in-the-status",
        ),
        pytest.param([event("FailedMount", 601)], NONE, id="too-old"),
        pytest.param(
            [event("FailedMount", 5, "metadata", metadata={"creationTimestamp": timestamp(NOW)})],
            MOUNT,
            id="by-creation",
        ),
        pytest.param([{"type": "Warning", "reason": "NoTime"}], NONE, id="without-a-time"),
        pytest.param(
            [event("FailedMount", 5, note=None)],
            LatestWarning(NOW, "FailedMount"),
            id="without-a-note",
        ),
        pytest.param(
            [event("FailedMount", 5, note="a\tb\n")],
            LatestWarning(NOW, "FailedMount", "a b"),
            id="control-characters",
        ),
    ],
)
def test_the_newest_warning_counts(events: list[dict[str, Any]], expected: LatestWarning) -> None:
    assert newest(events, NOW) == expected
