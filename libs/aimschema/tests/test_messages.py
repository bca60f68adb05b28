"""Messages: out as JSON and in again; what a reader does not know it ignores."""

import datetime
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimschema import subjects
from aimschema.messages import (
    ActionTaken,
    DeadLetter,
    KindSynced,
    Message,
    ObjectChanged,
    ObjectDeleted,
    Progress,
    ReportedCondition,
    SpecDeleted,
    SpecVersion,
    StatusReported,
    decode,
    encode,
    key_of,
    parse_timestamp,
    subject_of,
    timestamp,
    type_of,
)
from aimschema.resources import Key

KEY = Key("ModelCache", "ml", "llama.8b")
BODY = {
    "kind": "ModelCache",
    "metadata": {"name": "llama.8b", "labels": None},
    "spec": {"sourceUri": "hf://a/b", "size": 3.5},
}
CONDITION = ReportedCondition(
    type="Filled", status="False", reason="AuthError", message="accept the licence ✓"
)
MESSAGES: dict[str, Message] = {
    "changed": ObjectChanged(
        kind=KEY.kind,
        namespace="ml",
        name=KEY.name,
        uid="u",
        resource_version="7",
        object=BODY,
        truncated=("spec.env",),
    ),
    "changed-cluster": ObjectChanged(
        kind="AIMClusterModel", name="m", uid="u", resource_version="7", object={}
    ),
    "deleted": ObjectDeleted(
        kind=KEY.kind, namespace="ml", name=KEY.name, uid="u", resource_version="8", object=BODY
    ),
    "synced": KindSynced(kind="Gateway", resource_version="9", objects=0, installed=False),
    "reported": StatusReported(
        kind=KEY.kind,
        namespace="ml",
        name=KEY.name,
        uid="u",
        service="cacher",
        observed_generation=2,
        conditions=(CONDITION,),
        fields={"progress": "43%"},
    ),
    "acted": ActionTaken(
        service="cacher",
        verb="apply",
        kind="Job",
        namespace="ml",
        name="j",
        about=KEY,
        outcome="done",
        resource_version="11",
    ),
    "dead": DeadLetter(
        service="cacher",
        kind=KEY.kind,
        namespace="ml",
        name=KEY.name,
        error="KeyError('x')",
        attempts=5,
    ),
    "progress": Progress(
        kind=KEY.kind,
        namespace="ml",
        name=KEY.name,
        phase="download",
        bytes=5,
        total=10,
        rate=1.5,
        seconds_left=3.0,
        file="a",
    ),
    "recorded": SpecVersion(
        kind=KEY.kind,
        namespace="ml",
        name=KEY.name,
        uid="u",
        generation=2,
        resource_version="7",
        spec={"size": "1Gi"},
        labels={"team": "x"},
        manager="kubectl-edit",
        operation="Update",
        time="2030-01-02T03:04:05Z",
        truncated=("metadata.labels",),
    ),
    "recorded-delete": SpecDeleted(
        kind=KEY.kind, namespace="ml", name=KEY.name, uid="u", generation=2, resource_version="9"
    ),
}
EVERY_MESSAGE = pytest.mark.parametrize(
    "message", [pytest.param(message, id=name) for name, message in MESSAGES.items()]
)


def test_every_message_is_in_the_table() -> None:
    assert {type(message) for message in MESSAGES.values()} == set(Message.__args__)


@EVERY_MESSAGE
def test_a_message_comes_back_as_it_was_sent(message: Message) -> None:
    assert decode(encode(message)) == message


@EVERY_MESSAGE
def test_fields_of_a_later_version_are_ignored(message: Message) -> None:
    later = json.loads(encode(message)) | {"added_later": {"deep": [1, 2]}}
    assert decode(json.dumps(later).encode()) == message


@EVERY_MESSAGE
def test_fields_with_defaults_may_be_missing(message: Message) -> None:
    """A message of an earlier version, from before those fields were there."""
    optional = {field.name for field in msgspec.structs.fields(type(message)) if not field.required}
    earlier = {
        name: value for name, value in json.loads(encode(message)).items() if name not in optional
    }
    assert type(decode(json.dumps(earlier).encode())) is type(message)


@EVERY_MESSAGE
def test_the_type_is_in_the_payload_and_ends_in_a_version(message: Message) -> None:
    assert json.loads(encode(message))["type"] == type_of(message)
    assert type_of(message).startswith("aim.")
    assert type_of(message).endswith(".v1")


@EVERY_MESSAGE
def test_a_message_goes_where_its_object_is_found_again(message: Message) -> None:
    assert subjects.parse(subject_of(message)).key == key_of(message)


def test_types_are_all_different() -> None:
    assert len({type_of(message) for message in MESSAGES.values()}) == len(Message.__args__)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{}", id="no-type"),
        pytest.param(b'{"type":"aim.other.v1"}', id="unknown-type"),
        pytest.param(b'{"type":"aim.kind.synced.v1","kind":"Pod"}', id="field-missing"),
        pytest.param(
            b'{"type":"aim.kind.synced.v1","kind":"Pod","resource_version":7,"objects":1}',
            id="field-of-another-type",
        ),
        pytest.param(b"\xff\xfe", id="no-text"),
    ],
)
def test_anything_else_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (the words are msgspec's)
        decode(data)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(body=st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_any_object_survives_the_bus(body: dict[str, Any]) -> None:
    message = ObjectChanged(
        kind="Pod", namespace="ml", name="p", uid="u", resource_version="1", object=body
    )
    assert decode(encode(message)) == message


@given(
    st.datetimes(
        min_value=datetime.datetime(1970, 1, 1),  # noqa: DTZ001
        max_value=datetime.datetime(2200, 1, 1),  # noqa: DTZ001
        timezones=st.just(datetime.UTC),
    )
)
def test_times_come_back_to_the_second(moment: datetime.datetime) -> None:
    assert parse_timestamp(timestamp(moment)) == moment.replace(microsecond=0)


def test_times_of_other_zones_are_written_in_utc() -> None:
    cet = datetime.timezone(datetime.timedelta(hours=1))
    assert timestamp(datetime.datetime(2026, 1, 2, 0, 30, tzinfo=cet)) == "2026-01-01T23:30:00Z"


def test_a_dead_letter_of_the_first_version_is_readable() -> None:
    old = (
        b'{"type":"aim.dead.v1","service":"cacher","kind":"Pod","namespace":"ml","name":"a",'
        b'"error":"x","attempts":5}'
    )
    dead_letter = decode(old)
    assert isinstance(dead_letter, DeadLetter)
    assert (dead_letter.subject, dead_letter.seq, dead_letter.data, dead_letter.handled) == (
        "",
        0,
        b"",
        False,
    )


def test_the_data_of_any_unreadable_message_survives() -> None:
    dead_letter = DeadLetter(
        service="cacher",
        kind="Pod",
        name="a",
        error="x",
        attempts=1,
        subject="aim.object.Pod.-.a",
        seq=7,
        data=b"\xff\x00{",
    )
    assert decode(encode(dead_letter)) == dead_letter
    assert subject_of(dead_letter) == "aim.dead.cacher.unreadable.object.Pod.-.a"
