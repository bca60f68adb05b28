"""What each version of a spec led to."""

import datetime
from typing import Any

import pytest

from aimbus import Event
from aimcontroller.testing import NAMESPACE, changed, cr, obj, plain, status_condition
from aimctl.analysis.effects import Effect, effects_of
from aimctl.analysis.history import Version
from aimctl.commands.history import effect_text
from aimschema.labels import KSERVE_ISVC_LABEL
from aimschema.messages import ActionTaken, Message, ObjectDeleted, subject_of
from aimschema.published import tombstone
from aimschema.resources import INFERENCE_SERVICE, POD, SERVICE, Key

START = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
CHAT = Key(SERVICE.kind, NAMESPACE, "chat")
UID = "aimservice-chat"


def event(seq: int, message: Message, *cause: int) -> Event:
    time = START + datetime.timedelta(seconds=seq)
    return Event(seq, subject_of(message), message, time, cause, "test")


def service(version: int, generation: int, state: str = "", observed: int = 0) -> Message:
    status: dict[str, Any] = {}
    if state:
        ready = status_condition("Ready", state == "Running")
        status = {"status": state, "observedGeneration": observed, "conditions": [ready]}
    spec = {"model": "m", "templateRef": "t", "replicas": generation}
    body = cr(SERVICE.kind, "chat", spec, version=version, generation=generation, status=status)
    return changed(plain(body))


def runtime(version: int) -> Message:
    body = obj(INFERENCE_SERVICE.kind, "chat", owner=(SERVICE.kind, "chat"), version=version)
    return changed(plain(body))


def pod(name: str, version: int) -> Message:
    labels = {KSERVE_ISVC_LABEL: "chat"}
    return changed(plain(obj(POD.kind, name, labels=labels, version=version)))


def deleted_pod(name: str, version: int) -> Message:
    body = plain(obj(POD.kind, name, labels={KSERVE_ISVC_LABEL: "chat"}, version=version))
    return ObjectDeleted(
        kind=POD.kind,
        namespace=NAMESPACE,
        name=name,
        uid=body["metadata"]["uid"],
        resource_version=str(version),
        object=tombstone(body),
    )


def applied(version: int) -> ActionTaken:
    return ActionTaken(
        service="deployer",
        verb="apply",
        kind=INFERENCE_SERVICE.kind,
        namespace=NAMESPACE,
        name="chat",
        about=CHAT,
        outcome="done",
        resource_version=str(version),
    )


def versions(*generations: int) -> list[Version]:
    return [
        Version(CHAT, generation * 100, UID, generation, START, {}, {}, {})
        for generation in generations
    ]


FIRST = [
    event(1, service(1, 1)),
    event(2, applied(2), 1),
    event(3, runtime(2)),
    event(4, pod("a", 3)),
    event(9, service(4, 1, "Running", 1)),
]
SECOND = [
    event(20, service(5, 2, "Running", 1)),
    event(21, applied(6), 20),
    event(22, runtime(6)),
    event(23, pod("b", 7)),
    event(24, pod("c", 8)),
    event(25, service(9, 2, "Starting", 2)),
    event(26, deleted_pod("a", 10)),
]
READY = event(63, service(10, 2, "Running", 2))
APPLY = "deployer: apply InferenceService/chat"


@pytest.mark.parametrize(
    ("events", "expected", "text"),
    [
        pytest.param(
            [*FIRST],
            {100: Effect((APPLY,), 1, False, 8.0, "Running", False)},
            ["started 1 pod, 8.0 s until Running"],
            id="first",
        ),
        pytest.param(
            [*FIRST, *SECOND, READY],
            {
                100: Effect((APPLY,), 1, False, 8.0, "Running", True),
                200: Effect((APPLY,), 2, True, 43.0, "Running", False),
            },
            ["started 1 pod, 8.0 s until Running", "restarted 2 pods, 43 s until Running"],
            id="a-restart",
        ),
        pytest.param(
            [*FIRST, *SECOND[:-1], READY],
            {
                100: Effect((APPLY,), 1, False, 8.0, "Running", True),
                200: Effect((APPLY,), 2, False, 43.0, "Running", False),
            },
            ["started 1 pod, 8.0 s until Running", "started 2 pods, 43 s until Running"],
            id="more-replicas",
        ),
        pytest.param(
            [*FIRST, *SECOND],
            {
                100: Effect((APPLY,), 1, False, 8.0, "Running", True),
                200: Effect((APPLY,), 2, True, None, "Starting", False),
            },
            ["started 1 pod, 8.0 s until Running", "restarted 2 pods, not ready yet (Starting)"],
            id="not-ready-yet",
        ),
        pytest.param(
            [*FIRST[:3], SECOND[0], SECOND[-2], event(70, service(11, 3, "Starting", 2))],
            {
                100: Effect((APPLY,), 0, False, None, "", True),
                200: Effect((), 0, False, None, "Starting", True),
                300: Effect((), 0, False, None, "", False),
            },
            [APPLY, "not ready before the next version (Starting)", ""],
            id="never-ready",
        ),
        pytest.param([], {}, [], id="the-log-is-younger"),
    ],
)
def test_effects(events: list[Event], expected: dict[int, Effect], text: list[str]) -> None:
    found = effects_of(versions(1, 2, 3), events)
    assert found == expected
    assert [effect_text(effect) for effect in found.values()] == text


def test_a_deleted_object_has_no_effects() -> None:
    assert effects_of([], FIRST) == {}
