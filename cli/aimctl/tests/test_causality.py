"""The story of an event, from a small history."""

import datetime

import pytest

from aimbus import Event
from aimctl.analysis.causality import Link, describe, notable_links, story
from aimschema.messages import (
    ActionTaken,
    Message,
    ObjectChanged,
    ReportedCondition,
    StatusReported,
    subject_of,
)
from aimschema.resources import Key

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
CACHE = Key("ModelCache", "ml", "c")


def event(seq: int, message: Message, *cause: int) -> Event:
    return Event(
        seq, subject_of(message), message, START + datetime.timedelta(seconds=seq), cause, "test"
    )


def changed(
    kind: str, name: str, version: int, status: dict[str, object] | None = None
) -> ObjectChanged:
    api = "aim.silogen.ai/v1alpha1" if kind == "ModelCache" else "v1"
    body = {"apiVersion": api, "kind": kind, "metadata": {"name": name}, "status": status or {}}
    return ObjectChanged(
        kind=kind,
        namespace="ml",
        name=name,
        uid=f"uid-{name}",
        resource_version=str(version),
        object=body,
    )


def applied(kind: str, name: str, version: int, *, verb: str = "apply") -> ActionTaken:
    return ActionTaken(
        service="cacher",
        verb=verb,
        kind=kind,
        namespace="ml",
        name=name,
        about=CACHE,
        outcome="done",
        resource_version=str(version),
    )


REPORT = StatusReported(
    kind="ModelCache",
    namespace="ml",
    name="c",
    uid="uid-c",
    service="cacher",
    observed_generation=1,
    conditions=(ReportedCondition(type="Filled", status="True", reason="Warm"),),
)
HISTORY = [
    event(1, changed("ModelCache", "c", 10)),
    event(2, changed("ModelCache", "other", 11)),
    event(3, applied("Job", "c-download", 12), 1),
    event(4, changed("Job", "c-download", 12)),
    event(
        5,
        changed("Job", "c-download", 15, {"conditions": [{"type": "Complete", "status": "True"}]}),
    ),
    event(6, REPORT, 5),
    event(7, applied("ModelCache", "c", 16, verb="write-status"), 6),
    event(
        8,
        changed(
            "ModelCache",
            "c",
            16,
            {
                "status": "Available",
                "conditions": [{"type": "Ready", "status": "True", "reason": "Warm"}],
            },
        ),
    ),
]


def linked_story() -> list[Link]:
    return story(HISTORY, lambda each: each.seq == 8)


def test_a_story_goes_back_to_the_external_cause() -> None:
    assert [link.event.seq for link in linked_story()] == [1, 3, 4, 5, 6, 7, 8]


def test_an_external_change_links_to_the_version_before() -> None:
    parents = {link.event.seq: link.parents for link in linked_story()}
    assert parents[5] == (4,)
    assert parents[4] == (3,)
    assert parents[3] == (1, 1)


def test_only_news_is_described() -> None:
    described = [(who, what) for _, who, what in notable_links(linked_story())]
    assert described == [
        ("you", "ModelCache c: created"),
        ("cacher", "apply Job c-download"),
        ("cluster", "Job c-download: complete"),
        ("cacher", "reports on ModelCache c: Filled=True (Warm)"),
    ]


def test_what_did_not_happen_has_no_story() -> None:
    assert story(HISTORY, lambda each: each.seq == 99) == []


@pytest.mark.parametrize(
    ("status", "description"),
    [
        pytest.param({}, "created", id="new"),
        pytest.param({"phase": "Bound"}, "Bound", id="phase"),
        pytest.param(
            {"conditions": [{"type": "Ready", "status": "False", "reason": "NotYet"}]},
            "Ready=False (NotYet)",
            id="ready",
        ),
        pytest.param({"parents": []}, "reported by the gateway", id="route"),
        pytest.param({"conditions": [{"type": "Failed", "status": "True"}]}, "failed", id="failed"),
    ],
)
def test_an_object_is_described_by_its_state(status: dict[str, object], description: str) -> None:
    assert describe(Link(event(1, changed("Job", "j", 1, status)), ())) == (
        "cluster",
        f"Job j: {description}",
    )


def test_a_rejected_action_has_its_reason() -> None:
    action = ActionTaken(
        service="cacher",
        verb="apply",
        kind="Job",
        namespace="ml",
        name="j",
        about=CACHE,
        outcome="refused",
        detail="quota",
    )
    assert describe(Link(event(1, action), ())) == ("cacher", "apply Job j refused: quota")
