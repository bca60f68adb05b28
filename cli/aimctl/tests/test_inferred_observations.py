"""What a replay takes a service to have known: only what the record says."""

import datetime
from collections.abc import Sequence

import msgspec
import pytest

from aim_discovery.actions import InspectImage
from aim_discovery.catalogue import DIGEST_KEY, LABELS_KEY, Inspection
from aim_discovery.image_labels import ImageLabels
from aimbus import Event
from aimcontroller.action import Action, ApplyObject
from aimcontroller.component import Component
from aimcontroller.plan import EMPTY_PLAN, Report, condition
from aimcontroller.projection import ApplyRejected, LatestWarning, Projection
from aimcontroller.testing import NOW, obj, projection
from aimctl.replay.engine import Own, replay
from aimctl.replay.inferred_observations import learned_from
from aimschema import labels
from aimschema.messages import (
    ActionTaken,
    KindSynced,
    Message,
    ObjectChanged,
    subject_of,
    timestamp,
)
from aimschema.names import image_config_map
from aimschema.reasons import DISCOVERY, IMAGE_INSPECTED, REGISTRY_UNREACHABLE
from aimschema.resources import CLAIM, CONFIG_MAP, MODEL, POD, Key

CHAT = Key(MODEL.kind, None, "chat")
DUE = NOW + datetime.timedelta(seconds=60)
LABELS = ImageLabels(canonical_name="org/chat")
LOOK = InspectImage(CHAT, "registry/chat:1", (), "inputs", 2)


def at(seq: int, message: Message) -> Event:
    return Event(
        seq, subject_of(message), message, NOW + datetime.timedelta(seconds=seq), (), "test"
    )


def did(verb: str, target: Key = CHAT, outcome: str = "done", detail: str = "") -> ActionTaken:
    return ActionTaken(
        service=DISCOVERY,
        verb=verb,
        kind=target.kind,
        namespace=target.namespace,
        name=target.name,
        about=CHAT,
        outcome=outcome,
        detail=detail,
    )


def changed(body: dict[str, object], epoch: int = 0) -> ObjectChanged:
    metadata = body["metadata"]
    assert isinstance(metadata, dict)
    version, namespace = metadata["resourceVersion"], metadata.get("namespace")
    return ObjectChanged(
        kind=str(body["kind"]),
        namespace=namespace,
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=version,
        object=body,
        epoch=epoch,
    )


def kept(inputs: str) -> ObjectChanged:
    data = {LABELS_KEY: msgspec.json.encode(LABELS).decode(), DIGEST_KEY: "sha256:1"}
    return changed(
        obj(
            CONFIG_MAP.kind,
            image_config_map("chat"),
            namespace="aim-system",
            annotations={labels.ANNOTATION_INPUTS: inputs},
            data=data,
        )
    )


def failed(words: str) -> Message:
    return Report(
        CHAT, "uid", 1, (condition(IMAGE_INSPECTED, False, REGISTRY_UNREACHABLE, words),)
    ).message(DISCOVERY)


def learned(
    action: ActionTaken, planned: Sequence[Action], *after: Message, seen: Projection | None = None
) -> list[object]:
    events = [at(seq, message) for seq, message in enumerate((action, *after))]
    return [fact.value for fact in learned_from(action, planned, seen or Projection(), events, 0)]


def test_what_an_image_said_is_in_what_was_kept_of_it_for_the_same_inputs() -> None:
    [found] = learned(did("inspect-image"), [LOOK], kept("other inputs"), kept("inputs"))
    assert found == Inspection("registry/chat:1", "inputs", 2, NOW, LABELS, "sha256:1")


def test_why_a_look_failed_is_in_its_record_and_the_report_that_followed() -> None:
    [found] = learned(
        did("inspect-image", detail="no route to host"),
        [LOOK],
        failed(f"try 1, next at {timestamp(DUE)}: no route to host"),
    )
    assert isinstance(found, Inspection)
    assert (found.attempt, found.reason, found.message) == (
        1,
        REGISTRY_UNREACHABLE,
        "no route to host",
    )
    assert found.due == DUE


@pytest.mark.parametrize(
    ("detail", "after"),
    [
        pytest.param("", [], id="nothing-kept"),
        pytest.param("", [did("inspect-image"), kept("inputs")], id="looked-again-first"),
        pytest.param("no route to host", [], id="nothing-said"),
        pytest.param("no route to host", [failed("what was last said")], id="something-else-said"),
    ],
)
def test_where_the_record_does_not_say_nothing_is_known(detail: str, after: list[Message]) -> None:
    assert learned(did("inspect-image", detail=detail), [LOOK], *after) == []


@pytest.mark.parametrize(
    ("owner", "taken"),
    [pytest.param("chat", False, id="ours"), pytest.param("another", True, id="somebody-elses")],
)
def test_a_name_is_taken_where_what_is_there_has_another_owner(owner: str, taken: bool) -> None:
    claim = Key(CLAIM.kind, "team", "c")
    wanted, there = (obj(CLAIM.kind, "c", owner=(MODEL.kind, each)) for each in ("chat", owner))
    [found] = learned(
        did("apply", claim, "refused", "no"), [ApplyObject(wanted)], seen=projection(there)
    )
    assert found == ApplyRejected(claim, "no", name_taken=taken)


def test_an_error_that_the_server_keeps_answering_is_in_the_record() -> None:
    claim = Key(CLAIM.kind, "team", "c")
    [found] = learned(did("apply", claim, "retry", "failed calling webhook"), [])
    assert found == ApplyRejected(claim, "failed calling webhook", transient=True, by_webhook=True)


@pytest.mark.parametrize(
    ("detail", "reason", "note"),
    [("FailedMount: exit status: 32", "FailedMount", "exit status: 32"), ("", "", "")],
    ids=["a-warning", "none"],
)
def test_the_warning_that_was_read_is_in_the_record(detail: str, reason: str, note: str) -> None:
    pod = Key(POD.kind, "team", "p")
    [found] = learned(did("read-events", pod, detail=detail), [])
    assert found == LatestWarning(NOW, reason, note)


def test_a_version_that_comes_again_after_a_restore_is_told_from_the_first() -> None:
    """The action names version 7, which the cluster had twice: what it wrote is that of its own
    time."""
    claim = Key(CLAIM.kind, "team", "c")
    first, second = (
        obj(CLAIM.kind, "c", version=7, uid=uid, namespace="team") for uid in ("before", "after")
    )
    wrote = ActionTaken(
        service=DISCOVERY,
        verb="apply",
        kind=CLAIM.kind,
        namespace="team",
        name="c",
        about=claim,
        outcome="done",
        resource_version="7",
    )
    service = Component(
        DISCOVERY, (CLAIM,), (CLAIM,), lambda _, key: [key], lambda _seen, _key, _now: EMPTY_PLAN
    )
    synced = [
        KindSynced(kind=CLAIM.kind, resource_version="1", objects=0, epoch=epoch)
        for epoch in (0, 1)
    ]
    messages: list[Message] = [
        synced[0],
        wrote,
        changed(first),
        synced[1],
        wrote,
        changed(second, epoch=1),
    ]
    events = [at(seq, each) for seq, each in enumerate(messages, start=1)]
    assert [
        step.wrote.uid
        for step in replay(service, events)
        if isinstance(step, Own) and step.wrote is not None
    ] == ["before", "after"]
