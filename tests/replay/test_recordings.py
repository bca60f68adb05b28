"""Every recording here, replayed through the services that took part in it: a regression test
without more code.

`aimctl record -n NAMESPACE -o tests/replay/NAME.jsonl` writes a recording (docs/how-to/replay.md).
"""

from dataclasses import replace
from pathlib import Path

import pytest

from aimctl.component_registry import PLANNERS, planner
from aimctl.replay.check import check
from aimctl.replay.engine import takes_part
from aimctl.replay.recording import Recording, load
from aimschema.messages import ActionTaken, StatusReported

RECORDINGS = {file.stem: load(file) for file in sorted(Path(__file__).parent.glob("*.jsonl"))}
PARTS = [
    (name, service)
    for name, recording in RECORDINGS.items()
    for service in PLANNERS
    if takes_part(planner(service, recording.events), recording.events)
]


@pytest.mark.parametrize(("name", "service"), PARTS)
def test_the_service_reports_and_does_the_same_today(name: str, service: str) -> None:
    assert check(planner(service, RECORDINGS[name].events), RECORDINGS[name]).differences == ()


@pytest.mark.parametrize("service", PLANNERS)
def test_each_service_is_replayed_at_least_once(service: str) -> None:
    assert service in {part for _, part in PARTS}


def without(recording: Recording, seq: int) -> Recording:
    return replace(recording, events=tuple(event for event in recording.events if event.seq != seq))


@pytest.mark.parametrize(("name", "service"), PARTS)
def test_the_last_report_left_out_of_the_record_is_missed(name: str, service: str) -> None:
    """So that the test above is known to be able to fail, for each recording and service. The
    statuswriter reports nothing: its last write."""
    recording = RECORDINGS[name]
    own = [
        event
        for event in recording.events
        if isinstance(event.message, StatusReported | ActionTaken)
        and event.message.service == service
    ]
    own_reports = [event for event in own if isinstance(event.message, StatusReported)] or own
    if isinstance(own_reports[-1].message, ActionTaken):
        wrote = own_reports[-1].message.resource_version
        version = next(
            e
            for e in recording.events
            if getattr(e.message, "resource_version", "") == wrote and e is not own_reports[-1]
        )
        recording = without(recording, version.seq)
    found = check(
        planner(service, recording.events), without(recording, own_reports[-1].seq)
    ).differences
    about = own_reports[-1].message
    assert isinstance(about, StatusReported | ActionTaken)
    assert any(
        (each.key.kind, each.key.name) == (about.kind, about.name) and "was not then" in each.what
        for each in found
    )
