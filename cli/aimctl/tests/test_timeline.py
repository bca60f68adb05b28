"""The timeline of an object from a small history."""

import datetime
from io import StringIO
from typing import Any

from msgspec import structs
from rich.console import Console

from aimbus import Event
from aimcontroller.testing import (
    NAMESPACE,
    changed,
    config_map,
    cr,
    job,
    obj,
    plain,
    pod,
    status_condition,
)
from aimctl.analysis.timeline import Entry, build_timeline, related_keys, without_unconfirmed_writes
from aimctl.commands.timeline import line, tree
from aimschema.discovery_result import RESULT_KEY
from aimschema.messages import (
    ActionTaken,
    Message,
    ObjectChanged,
    ObjectDeleted,
    ReportedCondition,
    StatusReported,
    subject_of,
)
from aimschema.resources import (
    CACHE,
    CONFIG,
    CONFIG_MAP,
    GATEWAY,
    INFERENCE_SERVICE,
    JOB,
    MODEL,
    POD,
    ROUTE,
    SERVICE,
    TEMPLATE,
    Key,
)

START = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
WEIGHTS = Key(CACHE.kind, NAMESPACE, "weights")
OWNER = ("ModelCache", "weights")


def event(seq: int, message: Message, *cause: int, after_s: float | None = None) -> Event:
    return Event(
        seq,
        subject_of(message),
        message,
        START + datetime.timedelta(seconds=seq if after_s is None else after_s),
        cause,
        "test",
    )


def cache(version: int, *conditions: dict[str, Any], **annotations: str) -> ObjectChanged:
    status = {"conditions": list(conditions), "status": "Progressing"} if conditions else {}
    return changed(
        plain(
            cr(
                CACHE.kind,
                "weights",
                {"sourceUri": "s3://b/o/m"},
                version=version,
                annotations=annotations,
                status=status,
            )
        )
    )


def wrote(verb: str, kind: str, name: str, version: int, service: str = "cacher") -> ActionTaken:
    return ActionTaken(
        service=service,
        verb=verb,
        kind=kind,
        namespace=NAMESPACE,
        name=name,
        about=WEIGHTS,
        outcome="done",
        resource_version=str(version),
    )


def reported(reason: str, message: str = "") -> StatusReported:
    condition = ReportedCondition(type="Filled", status="False", reason=reason, message=message)
    return StatusReported(
        kind=CACHE.kind,
        namespace=NAMESPACE,
        name="weights",
        uid="u",
        service="cacher",
        observed_generation=1,
        conditions=(condition,),
    )


DOWNLOAD = job("weights-download", OWNER, version=5)
JOB_POD = pod(
    "weights-download-x", ("Job", "weights-download"), "downloader", phase="Pending", version=6
)
HISTORY = [
    event(1, cache(1)),
    event(2, reported("Downloading", "begins"), 1),
    event(
        3, cache(4, status_condition("Ready", False, "Downloading", "begins"))
    ),  # published before the action that wrote it
    event(4, wrote("write-status", CACHE.kind, "weights", 4, "statuswriter"), 2),
    event(5, wrote("apply", JOB.kind, "weights-download", 5), 1),
    event(6, changed(DOWNLOAD)),
    event(7, changed(JOB_POD)),
    event(8, changed(cr(CACHE.kind, "other", {"sourceUri": "s3://b/o/other"}))),
    event(
        9,
        cache(9, status_condition("Ready", False, "Downloading", "begins"), retry="1"),
        after_s=69,
    ),
    event(10, reported("Downloading", "begins"), 9, after_s=70),
]


def entries(history: list[Event] = HISTORY) -> list[Entry]:
    return build_timeline(history, WEIGHTS)


def test_who_did_what_to_which_object_because_of_what() -> None:
    assert [
        (entry.seq, entry.who, f"{entry.key.kind} {entry.what}", entry.why, entry.cause)
        for entry in entries()
    ] == [
        (1, "you", "ModelCache created", "", None),
        (2, "cacher", "ModelCache Filled=False (Downloading)", "begins", 1),
        (4, "statuswriter", "ModelCache is now Progressing (Downloading)", "begins", 2),
        (5, "cacher", "Job apply", "", 4),
        (7, "cluster", "Pod Pending", "", 5),
        (9, "you", "ModelCache changed: annotations.retry nothing → 1", "", 4),
    ]


def test_a_step_has_the_delay_after_its_cause() -> None:
    assert {entry.seq: entry.after_s for entry in entries()} == {
        1: 0.0,
        2: 1.0,
        4: 2.0,
        5: 1.0,
        7: 2.0,
        9: 65.0,
    }


def test_no_step_comes_before_its_cause() -> None:
    shuffled = [HISTORY[number] for number in (9, 2, 5, 0, 7, 1, 8, 4, 3, 6)]
    assert sorted(entries(shuffled), key=lambda entry: entry.seq) == sorted(
        entries(), key=lambda entry: entry.seq
    )
    earlier: set[int | None] = {None}
    for entry in entries(shuffled):
        assert entry.cause in earlier
        earlier.add(entry.seq)


def test_a_restored_cluster_shows_only_where_it_went_back() -> None:
    """The backup is from before the retry annotation, and has the Job as it still is; version 9
    then comes a second time, from another hand."""
    story = [
        *HISTORY,
        event(
            11,
            structs.replace(
                cache(4, status_condition("Ready", False, "Downloading", "begins")), epoch=1
            ),
        ),
        event(12, structs.replace(changed(DOWNLOAD), epoch=1)),
        event(
            13,
            structs.replace(
                cache(9, status_condition("Ready", False, "Verifying", "checks"), other="1"),
                epoch=1,
            ),
        ),
        event(14, wrote("write-status", CACHE.kind, "weights", 9, "statuswriter"), 11),
    ]
    steps = [
        (entry.seq, entry.epoch, entry.who, entry.what) for entry in entries(story) if entry.seq > 9
    ]
    assert steps == [
        (11, 1, "cluster", "went back in time: changed: annotations.retry 1 → nothing"),
        (14, 1, "statuswriter", "is now Progressing (Verifying)"),
    ]
    assert line(entries(story)[-1]).plain.startswith(
        "  14 00:00:14.000 +3.0 s epoch 1  statuswriter  ModelCache/weights"
    )


def test_following_prints_a_status_write_with_its_content() -> None:
    version, write = HISTORY[2], HISTORY[3]
    early = [*HISTORY[:2], event(3, write.message, 2)]
    assert [entry.seq for entry in without_unconfirmed_writes(early, WEIGHTS)] == [1, 2]
    late = without_unconfirmed_writes([*early, event(4, version.message)], WEIGHTS)
    assert [(entry.seq, entry.what) for entry in late][2:] == [
        (3, "is now Progressing (Downloading)")
    ]


def test_a_deletion_is_shown() -> None:
    deletion = ObjectDeleted(
        kind=JOB.kind,
        namespace=NAMESPACE,
        name="weights-download",
        uid="u",
        resource_version="20",
        object=DOWNLOAD,
    )
    assert [(entry.who, entry.what) for entry in entries([*HISTORY, event(11, deletion)])][-1] == (
        "cluster",
        "is deleted",
    )


def test_circular_forged_causes_terminate() -> None:
    assert {
        entry.seq for entry in entries([event(1, reported("A"), 2), event(2, reported("B"), 1)])
    } == {1, 2}


def test_a_story_has_what_a_service_owns_and_depends_on() -> None:
    found = '{"models": [{"name": "o/m", "source": "s3://b/o/m"}]}'
    bodies = [
        cr(SERVICE.kind, "chat", {"templateRef": "fast"}),
        cr(SERVICE.kind, "neighbour", {"templateRef": "fast"}),
        cr(TEMPLATE.kind, "fast", {"model": "o/m:1"}),
        cr(TEMPLATE.kind, "slow", {"model": "o/m:2"}),
        cr(MODEL.kind, "m1", {"name": "o/m:1"}),
        cr(MODEL.kind, "m2", {"name": "o/m:2"}),
        cr(CONFIG.kind, "default", {}),
        config_map("fast-discovery", ("AIMServiceTemplate", "fast"), {RESULT_KEY: found}),
        cr(CACHE.kind, "weights", {"sourceUri": "s3://b/o/m"}),
        cr(CACHE.kind, "unused", {"sourceUri": "s3://b/o/else"}),
        DOWNLOAD,
        obj(INFERENCE_SERVICE.kind, "chat", owner=("AIMService", "chat")),
        obj(POD.kind, "chat-1", labels={"serving.kserve.io/inferenceservice": "chat"}),
        obj(
            ROUTE.kind,
            "chat",
            owner=("AIMService", "chat"),
            spec={"parentRefs": [{"name": "public", "namespace": "edge"}]},
        ),
    ]
    names = related_keys(
        [event(seq, changed(body)) for seq, body in enumerate(bodies, start=1)],
        Key(SERVICE.kind, NAMESPACE, "chat"),
    )
    expected = {
        (SERVICE, "chat"),
        (TEMPLATE, "fast"),
        (MODEL, "m1"),
        (CONFIG, "default"),
        (CONFIG_MAP, "fast-discovery"),
        (CACHE, "weights"),
    }
    expected |= {
        (JOB, "weights-download"),
        (INFERENCE_SERVICE, "chat"),
        (POD, "chat-1"),
        (ROUTE, "chat"),
        (GATEWAY, "public"),
    }
    assert {(key.kind, key.name) for key in names} == {
        (resource.kind, name) for resource, name in expected
    }


def test_the_tree_branches_and_shows_foreign_text_literally() -> None:
    out = StringIO()
    hostile = [*HISTORY[:1], event(2, reported("X", "[red]boo[/]\x1b[2J"), 1)]
    Console(file=out, width=200).print(tree(WEIGHTS, entries(hostile)))
    assert "ModelCache/weights Filled=False (X)  [red]boo[/] [2J" in out.getvalue()
    assert "\x1b" not in out.getvalue()
    out = StringIO()
    Console(file=out, width=200).print(tree(WEIGHTS, entries()))
    assert [line.index("─ ") for line in out.getvalue().splitlines()[1:]] == [2, 2, 2, 6, 6, 6]
