"""Ids, headers and what is made of foreign messages."""

from datetime import UTC, datetime

import pytest
from msgspec import structs

from aimbus.envelope import ERROR_LENGTH, Event, Undecodable, headers_for, open_event
from aimschema.messages import (
    ActionTaken,
    DeadLetter,
    KindSynced,
    Message,
    ObjectChanged,
    ObjectDeleted,
    StatusReported,
    encode,
    subject_of,
)
from aimschema.resources import Key

NOW = datetime(2026, 1, 2, tzinfo=UTC)
CHANGED = ObjectChanged(
    kind="Pod", namespace="ml", name="a.b", uid="u1", resource_version="7", object={"metadata": {}}
)
DELETED = ObjectDeleted(
    kind="Pod", namespace="ml", name="a.b", uid="u1", resource_version="9", object={"metadata": {}}
)
SYNCED = KindSynced(kind="Pod", resource_version="9", objects=1)
ACTION = ActionTaken(
    service="aim-cacher",
    verb="apply",
    kind="Job",
    namespace="ml",
    name="j",
    about=Key("ModelCache", "ml", "c"),
    outcome="done",
)


def report(generation: int = 1) -> StatusReported:
    return StatusReported(
        kind="ModelCache",
        namespace="ml",
        name="c",
        uid="u2",
        service="cacher",
        observed_generation=generation,
    )


def id_of(message: Message) -> str:
    return headers_for(message, source="s")["Nats-Msg-Id"]


def test_uid_and_version_identify_an_object_and_its_delete() -> None:
    assert id_of(CHANGED) == "u1:7"
    assert id_of(DELETED) == f"u1:deleted:{DELETED.resource_version}"


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(SYNCED, id="marker"),
        pytest.param(ACTION, id="action"),
        pytest.param(report(), id="report"),
    ],
)
def test_saying_anything_else_twice_is_two_messages(message: Message) -> None:
    assert id_of(message) != id_of(message)


def test_headers_are_cloudevents_in_lower_case() -> None:
    headers = headers_for(CHANGED, source="aim-watcher", cause=(3, 12))
    assert headers["ce-specversion"] == "1.0"
    assert headers["ce-id"] == "u1:7"
    assert headers["ce-type"] == "aim.object.changed.v1"
    assert headers["ce-source"] == "aim-watcher"
    assert headers["ce-subject"] == "Pod/ml/a.b"
    assert headers["ce-datacontenttype"] == "application/json"
    assert headers["aim-cause"] == "3,12"
    assert datetime.fromisoformat(headers["ce-time"]).tzinfo is not None
    assert {name for name in headers if name != name.lower()} == {"Nats-Msg-Id"}


def test_only_deletes_expire_and_they_do_with_the_log() -> None:
    assert headers_for(DELETED, source="s")["Nats-TTL"] == "604800"
    assert "Nats-TTL" not in headers_for(CHANGED, source="s")


def test_a_trace_is_handed_on_or_begun() -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert headers_for(CHANGED, source="s", traceparent=parent)["traceparent"] == parent
    begun = [headers_for(CHANGED, source="s")["traceparent"] for _ in range(2)]
    assert begun[0] != begun[1]
    assert all(len(text) == len(parent) for text in begun)


def test_what_was_put_in_comes_out() -> None:
    headers = headers_for(CHANGED, source="aim-watcher", cause=(3, 12))
    event = open_event(13, "aim.object.Pod.ml.a_b", NOW, encode(CHANGED), headers)
    assert event == Event(
        13, "aim.object.Pod.ml.a_b", CHANGED, NOW, (3, 12), "aim-watcher", headers["traceparent"]
    )


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="torn"),
        pytest.param(b"\xff\xfe", id="not-utf-8"),
        pytest.param(b'{"type":"aim.object.changed.v2","kind":"Pod"}', id="later-version"),
        pytest.param(b'{"type":"aim.object.changed.v1","kind":7}', id="wrong-type"),
        pytest.param(
            b'{"type":"aim.object.changed.v1","object":'
            + b'{"a":' * 100_000
            + b"1"
            + b"}" * 100_001,
            id="too-deep",
        ),
    ],
)
def test_a_body_that_makes_no_sense_is_an_item_not_an_error(data: bytes) -> None:
    item = open_event(5, "aim.object.Pod.ml.x", NOW, data, {})
    assert isinstance(item, Undecodable)
    assert (item.seq, item.data) == (5, data)
    assert item.error


@pytest.mark.parametrize(
    ("message", "error"),
    [
        pytest.param(
            structs.replace(CHANGED, name="x"), "for aim.object.Pod.ml.x", id="wrong-subject"
        ),
        pytest.param(
            structs.replace(CHANGED, resource_version="seven"),
            "resource_version",
            id="wrong-version",
        ),
        pytest.param(structs.replace(CHANGED, object={}), "metadata", id="no-metadata"),
        pytest.param(
            structs.replace(CHANGED, object={"metadata": {"ownerReferences": "me"}}),
            "ownerReferences",
            id="wrong-metadata",
        ),
        pytest.param(SYNCED, "for aim.synced.Pod", id="wrong-family"),
    ],
)
def test_what_readers_could_not_trust_is_not_an_event(message: Message, error: str) -> None:
    item = open_event(5, "aim.object.Pod.ml.a_b", NOW, encode(message), {})
    assert isinstance(item, Undecodable)
    assert error in item.error


@pytest.mark.parametrize(
    ("message", "error"),
    [
        pytest.param(
            structs.replace(CHANGED, name="x" * 1_000_000),
            "for aim.object.Pod",
            id="a-name-of-1-mb",
        ),
        pytest.param(
            structs.replace(CHANGED, resource_version="9" * 1_000_000),
            "resource_version",
            id="a-version-of-1-mb",
        ),
        pytest.param(
            structs.replace(CHANGED, resource_version="9" * 5000),
            "resource_version",
            id="a-version-python-does-not-read",
        ),
        pytest.param(
            structs.replace(CHANGED, resource_version="²"),
            "resource_version",
            id="a-digit-of-another-script",
        ),
        pytest.param(
            structs.replace(CHANGED, object={"metadata": {"labels": {"a": ["x" * 1_000_000]}}}),
            "labels",
            id="metadata",
        ),
    ],
)
def test_what_is_quoted_of_a_message_is_bounded(message: Message, error: str) -> None:
    item = open_event(5, "aim.object.Pod.ml.a_b", NOW, encode(message), {})
    assert isinstance(item, Undecodable)
    assert error in item.error
    assert len(item.error) <= ERROR_LENGTH


@pytest.mark.parametrize("version", ["seven", "-1", "9" * 5000, "1.5", "²"])
def test_a_marker_at_a_version_that_is_no_number_is_not_an_event(version: str) -> None:
    marker = KindSynced(kind="Pod", resource_version=version, objects=1)
    assert isinstance(open_event(5, "aim.synced.Pod", NOW, encode(marker), {}), Undecodable)


def test_a_message_on_an_unknown_subject_is_not_an_event() -> None:
    message = structs.replace(CHANGED, name="x" * 4000)
    item = open_event(5, subject_of(message), NOW, encode(message), {})
    assert isinstance(item, Undecodable)
    assert "subject" in item.error


def test_what_supersedes_another_message_has_its_own_id() -> None:
    assert headers_for(CHANGED, source="s", supersedes_seq=12)["Nats-Msg-Id"] == "u1:7:over:12"


def test_a_dead_letter_is_stored_once_and_leaves_with_the_log() -> None:
    dead_letter = DeadLetter(
        service="router",
        kind="Pod",
        name="a",
        error="x",
        attempts=1,
        subject="aim.object.Pod.ml.a",
        seq=7,
    )
    assert id_of(dead_letter) == id_of(dead_letter)
    assert id_of(dead_letter) != id_of(structs.replace(dead_letter, seq=8))
    assert id_of(structs.replace(dead_letter, handled=True)) != id_of(
        structs.replace(dead_letter, handled=True)
    )
    assert (
        headers_for(structs.replace(dead_letter, handled=True), source="s")["Nats-TTL"] == "604800"
    )
    assert "Nats-TTL" not in headers_for(dead_letter, source="s")


@pytest.mark.parametrize(
    "cause",
    [
        pytest.param("x,2", id="not-a-number"),
        pytest.param("1,,2", id="hole"),
        pytest.param("", id="empty"),
    ],
)
def test_headers_that_make_no_sense_are_left_out(cause: str) -> None:
    event = open_event(
        5,
        "aim.object.Pod.ml.a_b",
        NOW,
        encode(CHANGED),
        {"aim-cause": cause, "traceparent": "nonsense"},
    )
    assert isinstance(event, Event)
    assert (event.cause, event.traceparent, event.source) == ((), "", "")
