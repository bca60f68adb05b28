"""The observations that a replay infers: only those in the record."""

import datetime
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from msgspec import structs

from aim_discovery.actions import InspectImage
from aim_discovery.catalogue import DIGEST_KEY, LABELS_KEY, Inspection
from aim_discovery.dry_run_output import ReadLogResult
from aim_discovery.image_labels import ImageLabels
from aimbus import Event
from aimcontroller.action import Action, ApplyObject
from aimcontroller.component import Component
from aimcontroller.plan import EMPTY_PLAN, Report, condition
from aimcontroller.projection import ApplyRejected, LatestWarning, Projection
from aimcontroller.testing import NOW, obj, projection
from aimctl.replay.engine import OwnEvent, replay
from aimctl.replay.inferred_observations import infer_observations
from aimschema import labels
from aimschema.discovery_result import RESULT_KEY
from aimschema.messages import (
    ActionTaken,
    Finding,
    KindSynced,
    Message,
    ObjectChanged,
    subject_of,
)
from aimschema.names import discovery_config_map, image_config_map
from aimschema.reasons import DISCOVERY, IMAGE_INSPECTED, INSPECTED, REGISTRY_UNREACHABLE
from aimschema.resources import CLAIM, CONFIG_MAP, JOB, MODEL, POD, TEMPLATE, Key

CHAT = Key(MODEL.kind, None, "chat")
LABELS = ImageLabels(canonical_name="org/chat")
INSPECTION = InspectImage(CHAT, "registry/chat:1", (), "inputs", 2)


def at(seq: int, message: Message) -> Event:
    return Event(
        seq, subject_of(message), message, NOW + datetime.timedelta(seconds=seq), (), "test"
    )


def did(
    verb: str, target: Key = CHAT, outcome: str = "done", detail: str = "", **facts: Any
) -> ActionTaken:
    return ActionTaken(
        service=DISCOVERY,
        verb=verb,
        kind=target.kind,
        namespace=target.namespace,
        name=target.name,
        about=CHAT,
        outcome=outcome,
        detail=detail,
        **facts,
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


def config_map(inputs: str) -> ObjectChanged:
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


def failed(message: str) -> Message:
    return Report(
        CHAT, "uid", 1, (condition(IMAGE_INSPECTED, False, REGISTRY_UNREACHABLE, message),)
    ).message(DISCOVERY)


def inspected() -> Message:
    return Report(CHAT, "uid", 1, (condition(IMAGE_INSPECTED, True, INSPECTED, "fine"),)).message(
        DISCOVERY
    )


def inferred(
    action: ActionTaken, planned: Sequence[Action], *after: Message, state: Projection | None = None
) -> list[object]:
    events = [at(seq, message) for seq, message in enumerate((action, *after))]
    found = infer_observations(action, planned, state or Projection(), events, 0)
    return [observation.value for observation in found]


def test_image_labels_come_from_the_config_map_of_the_inputs() -> None:
    [found] = inferred(
        did("inspect-image"), [INSPECTION], config_map("other inputs"), config_map("inputs")
    )
    assert found == Inspection("registry/chat:1", "inputs", 2, NOW, LABELS, "sha256:1")


UNREACHABLE = Finding(
    reason=REGISTRY_UNREACHABLE,
    message="no route to host",
    remedy="; open the firewall",
    attempt=1,
    retry_after_s=120.0,
)


def test_why_an_inspection_failed_is_in_its_record() -> None:
    """Whatever the report that followed says: the process counted its attempts from 1."""
    action = did("inspect-image", detail="no route to host", finding=UNREACHABLE)
    assert inferred(action, [INSPECTION], failed("any text")) == [
        Inspection(
            "registry/chat:1",
            "inputs",
            1,
            NOW,
            reason=REGISTRY_UNREACHABLE,
            message="no route to host",
            retry_after_s=120.0,
            way_out="; open the firewall",
        )
    ]


def test_a_former_release_has_the_reason_in_its_report() -> None:
    [found] = inferred(
        did("inspect-image", detail="no route to host"),
        [INSPECTION],
        failed("try 1, next at noon: why"),
    )
    assert isinstance(found, Inspection)
    assert (found.attempt, found.reason, found.message) == (
        2,
        REGISTRY_UNREACHABLE,
        "no route to host",
    )


@pytest.mark.parametrize(
    ("detail", "after"),
    [
        pytest.param("", [], id="nothing-stored"),
        pytest.param("", [did("inspect-image"), config_map("inputs")], id="inspected-again-first"),
        pytest.param("no route to host", [], id="nothing-reported"),
        pytest.param("no route to host", [inspected()], id="an-earlier-success-reported"),
    ],
)
def test_without_a_record_of_it_nothing_is_known(detail: str, after: list[Message]) -> None:
    assert inferred(did("inspect-image", detail=detail), [INSPECTION], *after) == []


TEMPLATE_KEY = Key(TEMPLATE.kind, "team", "t")
TEMPLATE_BODY = obj(TEMPLATE.kind, "t", namespace="team")
DISCOVERY_JOB = obj(JOB.kind, "j", namespace="team", owner=(TEMPLATE.kind, "t"))


@pytest.mark.parametrize(
    ("finding", "stored", "result"),
    [
        pytest.param(
            Finding(message="no JSON array", last_lines="oops"),
            "",
            ReadLogResult(problem="no JSON array", last_lines="oops"),
            id="no-answer",
        ),
        pytest.param(
            Finding(message="the log of pod p cannot be read"),
            "",
            ReadLogResult(problem="the log of pod p cannot be read"),
            id="no-log",
        ),
        pytest.param(
            Finding(last_lines="killed"), "", ReadLogResult(last_lines="killed"), id="failed-job"
        ),
        pytest.param(
            Finding(last_lines="[{}]"),
            "[{}]",
            ReadLogResult("[{}]", last_lines="[{}]"),
            id="answer",
        ),
        pytest.param(None, "[{}]", ReadLogResult("[{}]"), id="answer-of-a-former-release"),
        pytest.param(None, "", None, id="failure-of-a-former-release"),
    ],
)
def test_the_result_of_a_log_is_in_its_record(
    finding: Finding | None, stored: str, result: ReadLogResult | None
) -> None:
    read = structs.replace(did("read-log", TEMPLATE_KEY, finding=finding), about=TEMPLATE_KEY)
    config_map = obj(
        CONFIG_MAP.kind,
        discovery_config_map("t"),
        namespace="team",
        data={RESULT_KEY: stored} if stored else {},
    )
    found = inferred(read, [], changed(config_map), state=projection(TEMPLATE_BODY, DISCOVERY_JOB))
    assert found == ([] if result is None else [result])


@pytest.mark.parametrize(
    ("owner", "taken"),
    [pytest.param("chat", False, id="ours"), pytest.param("another", True, id="of-another-owner")],
)
def test_a_name_is_taken_if_the_object_has_another_owner(owner: str, taken: bool) -> None:
    claim = Key(CLAIM.kind, "team", "c")
    desired, existing = (obj(CLAIM.kind, "c", owner=(MODEL.kind, each)) for each in ("chat", owner))
    [found] = inferred(
        did("apply", claim, "refused", "no"), [ApplyObject(desired)], state=projection(existing)
    )
    assert found == ApplyRejected(claim, "no", name_taken=taken)


@pytest.mark.parametrize("outcome", ["refused", "retry"])
@pytest.mark.parametrize(
    ("by", "name_taken", "by_webhook"),
    [
        pytest.param("owner", True, False, id="owner"),
        pytest.param("webhook", False, True, id="webhook"),
        pytest.param("api-server", False, False, id="api-server"),
    ],
)
def test_who_rejected_an_action_is_in_its_record(
    outcome: str, by: str, *, name_taken: bool, by_webhook: bool
) -> None:
    """Its text decides nothing, also not that of a webhook."""
    claim = Key(CLAIM.kind, "team", "c")
    detail = "admission webhook denied the request"
    [found] = inferred(did("apply", claim, outcome, detail, rejected_by=by), [])
    assert found == ApplyRejected(
        claim, detail, name_taken, transient=outcome == "retry", by_webhook=by_webhook
    )


def test_a_persistent_server_error_is_in_the_record() -> None:
    claim = Key(CLAIM.kind, "team", "c")
    [found] = inferred(did("apply", claim, "retry", "failed calling webhook"), [])
    assert found == ApplyRejected(claim, "failed calling webhook", transient=True, by_webhook=True)


@pytest.mark.parametrize(
    ("finding", "warning"),
    [
        pytest.param(
            Finding(reason="FailedMount", message="exit status: 32"),
            LatestWarning(NOW, "FailedMount", "exit status: 32"),
            id="a-warning",
        ),
        pytest.param(Finding(), LatestWarning(NOW), id="none"),
        pytest.param(None, LatestWarning(NOW), id="of-a-former-release"),
    ],
)
def test_the_warning_that_was_read_is_in_the_record(
    finding: Finding | None, warning: LatestWarning
) -> None:
    pod = Key(POD.kind, "team", "p")
    [found] = inferred(did("read-events", pod, detail="A: b", finding=finding), [])
    assert found == warning


def test_a_repeated_version_after_a_restore_is_distinct() -> None:
    """The action names version 7, which the cluster had twice: it wrote the one of its own
    epoch."""
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
        DISCOVERY, (CLAIM,), (CLAIM,), lambda _, key: [key], lambda _state, _key, _now: EMPTY_PLAN
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
        if isinstance(step, OwnEvent) and step.wrote is not None
    ] == ["before", "after"]
