"""Recordings as files: what they contain, what they omit, and the errors of broken ones."""

import datetime
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aimbus import Bus, Event, NatsServer, connect, ensure_streams
from aimctl.analysis.diff import REDACTED
from aimctl.replay.recording import (
    VERSION,
    BadRecording,
    Header,
    Recording,
    load,
    make_recording,
    redact,
    save,
    split,
)
from aimschema.messages import ActionTaken, KindSynced, Message, ObjectChanged, encode, subject_of
from aimschema.names import image_config_map
from aimschema.resources import Key

START = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


def changed(
    kind: str, namespace: str | None, name: str, version: int = 1, **spec: object
) -> ObjectChanged:
    body = {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "uid": name},
        "spec": spec,
    }
    return ObjectChanged(
        kind=kind,
        namespace=namespace,
        name=name,
        uid=name,
        resource_version=str(version),
        object=body,
    )


def event(seq: int, message: Message, *cause: int) -> Event:
    return Event(
        seq, subject_of(message), message, START + datetime.timedelta(seconds=seq), cause, "watcher"
    )


def header(**fields: object) -> Header:
    return Header(recording=VERSION, origin="test", until=START, **fields)  # type: ignore[arg-type]


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    done = ActionTaken(
        service="cacher",
        verb="apply",
        kind="Job",
        namespace="ml",
        name="j",
        about=Key("ModelCache", "ml", "c"),
        outcome="done",
    )
    recording = Recording(
        header(namespace="ml", begins=3),
        (event(4, changed("ModelCache", "ml", "c")), event(5, done, 4)),
    )
    save(recording, tmp_path / "r.jsonl")
    assert load(tmp_path / "r.jsonl") == recording
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "line 1 is no header", id="empty"),
        pytest.param("# Title\n", "line 1 is no header", id="another-file"),
        pytest.param(
            '{"recording": 9, "origin": "", "until": "2030-01-01T00:00:00Z"}\n',
            "version 9",
            id="later-version",
        ),
        pytest.param(
            '{"recording": 1, "origin": "", "until": "2030-01-01T00:00:00Z"}\n{"seq": 1\n',
            "line 2",
            id="torn",
        ),
        pytest.param(
            '{"recording": 1, "origin": "", "until": "2030-01-01T00:00:00Z"}\n\n{"seq": 1, "time":'
            ' "2030-01-01T00:00:00Z", "subject": "aim.synced.Pod", "message": {"type":'
            ' "aim.kind.synced.v1", "kind": "Job", "resource_version": "1", "objects": 0}}\n',
            "line 3: a message for aim.synced.Job",
            id="wrong-subject",
        ),
    ],
)
def test_a_broken_file_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.jsonl").write_text(text)
    with pytest.raises(BadRecording, match=message):
        load(tmp_path / "r.jsonl")


def test_values_of_variables_are_not_in_it() -> None:
    env = [
        {"name": "TOKEN", "value": "hf_secret"},
        {"name": "REF", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ]
    redacted_message = redact(
        changed(
            "InferenceService",
            "ml",
            "chat",
            predictor={"containers": [{"name": "c", "env": env}]},
            env="text",
        )
    )
    assert b"hf_secret" not in encode(redacted_message)
    containers = redacted_message.object["spec"]["predictor"]["containers"]
    assert containers[0]["env"] == [{"name": "TOKEN", "value": REDACTED}, env[1]]
    assert redacted_message.object["spec"]["env"] == "text"


def test_objects_older_than_since_have_their_last_version() -> None:
    events = [
        event(seq, changed("ModelCache", "ml", name, seq))
        for seq, name in enumerate("abacb", start=1)
    ]
    before, after = split(events, START + datetime.timedelta(seconds=4))
    assert [each.seq for each in before] == [2, 3]
    assert [each.seq for each in after] == [4, 5]


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    server = NatsServer(tmp_path / "nats")
    connected = await connect(await server.start(), name="test")
    await ensure_streams(connected, max_bytes=1 << 26)
    yield connected
    await connected.close()
    await server.stop()


async def test_it_has_the_namespace_and_what_that_depends_on(
    bus: Bus,
) -> None:
    gateway = {"gateway": {"name": "public", "namespace": "edge"}}
    labels = changed("ConfigMap", "aim-system", image_config_map("m"))
    rejected_action = ActionTaken(
        service="discovery",
        verb="apply",
        kind="ConfigMap",
        namespace="aim-system",
        name=labels.name,
        about=Key("AIMClusterModel", None, "m"),
        outcome="done",
    )
    mine: list[Message] = [
        changed("Gateway", "edge", "public"),
        changed("Gateway", "edge", "former"),
        changed("Gateway", "edge", "own"),
        labels,
        rejected_action,
        changed(
            "AIMNamespaceConfig",
            "aim-system",
            "default",
            2,
            images={"imagePullSecrets": [{"name": "registry"}]},
        ),
        changed(
            "HTTPRoute",
            "ml",
            "chat",
            parentRefs=[
                {"name": "former", "namespace": "edge"},
                {"name": "s", "kind": "Service", "namespace": "edge"},
            ],
        ),
        changed("AIMService", "ml", "s", routing={"gateway": {"name": "own", "namespace": "edge"}}),
        changed("AIMClusterModel", None, "m"),
        KindSynced(kind="Pod", resource_version="1", objects=0),
        changed("AIMNamespaceConfig", "ml", "default", routing=gateway),
        changed("Pod", "ml", "p", env=[{"name": "A", "value": "secret"}]),
    ]
    others = [
        changed("Gateway", "edge", "internal"),
        changed("Gateway", "edge", "s"),
        changed("Pod", "other", "q"),
        changed("ConfigMap", "aim-system", "another"),
        changed(
            "AIMNamespaceConfig",
            "other",
            "default",
            3,
            routing={"gateway": {"name": "internal", "namespace": "edge"}},
        ),
    ]
    for message in [*mine[:3], *others, *mine[3:]]:
        await bus.publisher.publish(message)
    recording = await make_recording(bus, "ml", None, START)
    assert [each.subject for each in recording.events] == [subject_of(message) for message in mine]
    assert (recording.header.namespace, recording.header.begins, recording.header.until) == (
        "ml",
        0,
        START,
    )
    assert all(b"secret" not in encode(each.message) for each in recording.events)
