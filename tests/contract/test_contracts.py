"""The messages between services: declared by each, generated into contracts/, and read across
versions."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from msgspec import NODEFAULT, structs

from aim_watcher.projection import NOTHING, live_object
from aim_watcher.projection import fold as published
from aimcontroller.projection import Projection, fold
from aimctl.component_registry import PLANNERS, planner
from aimctl.contracts import CONSOLE, CONTRACTS
from aimlab.testing.bus_contract import flaws
from aimschema import reasons, subjects
from aimschema.messages import (
    KindSynced,
    Message,
    ObjectChanged,
    ObjectDeleted,
    StatusReported,
    decode,
    encode,
    key_of,
)
from aimschema.resources import CONFIG, Key
from aimschema.schema_compat import Contract, schemas
from tools.asyncapi import asyncapi
from tools.message_schemas import check, read

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "contracts"
STORED = [
    pytest.param(line, id=f"{path.parent.name}-{number}-{json.loads(line)['type']}")
    for path in sorted(FOLDER.glob("released/*/messages.jsonl"))
    for number, line in enumerate(path.read_bytes().splitlines())
]
FOREIGN = {
    "phase",
    "capacity",
    "conditions",
    "containerStatuses",
    "modelStatus",
    "deploymentMode",
    "parents",
    "listeners",
    "addresses",
    "Programmed",
    "PodScheduled",
}
"""What services read of the status of Pods, claims, InferenceServices, HTTPRoutes and Gateways:
the contract of Kubernetes, not ours."""
services = pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.service)


def test_the_folder_matches_the_code() -> None:
    assert read(FOLDER) == schemas()
    assert yaml.safe_load((FOLDER / "asyncapi.yaml").read_text()) == asyncapi()


def test_every_release_is_compatible_and_has_every_message() -> None:
    assert check(FOLDER) == []
    for version in (FOLDER / "released").iterdir():
        stored = {
            json.loads(line)["type"]
            for line in (version / "messages.jsonl").read_bytes().splitlines()
        }
        assert stored == read(version).keys()


def test_the_schemas_are_schemas() -> None:
    for schema in schemas().values():
        Draft202012Validator.check_schema(schema)


@services
def test_every_consumed_subject_has_a_publisher(contract: Contract) -> None:
    """For a filter such as `aim.object.Pod.>`, a sender whose filter has it; for one such as
    `aim.report.*.*.*.*`, a sender within it."""
    sent = [pattern for other in CONTRACTS for pattern in other.emits]
    for consumed in contract.consumes:
        assert any(
            subjects.matches(consumed, pattern) or subjects.matches(pattern, consumed)
            for pattern in sent
        ), consumed


@services
def test_every_published_subject_has_a_consumer(contract: Contract) -> None:
    read_by_services = [
        pattern for other in CONTRACTS if other is not CONSOLE for pattern in other.consumes
    ]
    for sent in contract.emits:
        readers = [*read_by_services, *CONSOLE.consumes]
        assert any(
            subjects.matches(consumed, sent) or subjects.matches(sent, consumed)
            for consumed in readers
        ), sent


def reported(kind: str) -> set[str]:
    """Conditions and fields of a kind's status that some service reports, and what the
    statuswriter makes of them."""
    owned = [names for pair in reasons.STATUS_OWNERSHIP.get(kind, {}).values() for names in pair]
    return {name for names in owned for name in names} | {
        *reasons.DERIVED,
        "status",
        "conditions",
        "observedGeneration",
    }


@services
def test_every_condition_and_status_field_read_is_reported(contract: Contract) -> None:
    for kind, names in contract.reads.items():
        assert any(
            subjects.matches(f"{subjects.OBJECT}.{kind}.>", consumed)
            for consumed in contract.consumes
        ), kind
        assert names <= reported(kind)


def names_read(package: Path) -> set[str]:
    """What the code asks of a status by name: `.status.get("x")`, `.is_condition_true(reasons.X)`,
    `.condition(reasons.X)`."""
    found = set()
    for node in (
        node for file in package.glob("*.py") for node in ast.walk(ast.parse(file.read_text()))
    ):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        of_status = (
            node.func.attr == "get"
            and isinstance(node.func.value, ast.Attribute)
            and node.func.value.attr == "status"
        )
        of_condition = node.func.attr in {"is_condition_true", "condition"}
        match node.args[0]:
            case ast.Constant(value=str(name)) if of_status or of_condition:
                found.add(name)
            case ast.Attribute(value=ast.Name(id="reasons"), attr=name) if of_condition:
                found.add(getattr(reasons, name))
            case _:
                pass
    return found


@pytest.mark.parametrize("name", PLANNERS)
def test_a_service_reads_only_declared_status_fields(name: str) -> None:
    declared = {each for names in planner(name).contract.reads.values() for each in names}
    used = names_read(ROOT / "services" / name / f"aim_{name}")
    assert used <= declared | FOREIGN


@pytest.mark.parametrize("name", PLANNERS)
def test_the_readme_names_what_a_service_reports(name: str) -> None:
    emits = re.search(
        r"^\| emits \| (.*) \|$", (ROOT / "services" / name / "README.md").read_text(), re.MULTILINE
    )
    assert emits is not None
    documented = set(re.findall(r"`aim\.report\.(\w+)\.", emits[1]))
    assert documented == {
        kind for kind, owners in reasons.STATUS_OWNERSHIP.items() if name in owners
    } | ({CONFIG.kind} if name in reasons.WARNING_REPORTERS else set())
    for kind, owners in reasons.STATUS_OWNERSHIP.items():
        assert owners.get(name, (frozenset[str](), None))[0] <= set(re.findall(r"\w+", emits[1])), (
            kind
        )


def has_all(value: Any, stored: Any) -> bool:
    """Whether everything stored is in the value; it may have more fields."""
    if isinstance(stored, dict):
        return all(name in value and has_all(value[name], each) for name, each in stored.items())
    if isinstance(stored, list):
        return len(value) == len(stored) and all(map(has_all, value, stored))
    return bool(value == stored)


@pytest.mark.parametrize("line", STORED)
def test_a_message_of_a_released_version_is_read_and_folded(line: bytes) -> None:
    message = decode(line)
    stored = json.loads(line)
    assert has_all(json.loads(encode(message)), stored)
    defaults = {
        field.name: field.default_factory() if field.default is NODEFAULT else field.default
        for field in structs.fields(message)
        if not field.required
    }
    assert all(getattr(message, name) == defaults[name] for name in defaults.keys() - stored.keys())
    state = fold(Projection(), message, 7)
    match message:
        case ObjectChanged():
            assert state.get(_key(message)) is not None
            assert live_object(published(NOTHING, message, 7), _key(message)) is not None
        case StatusReported():
            assert state.report(_key(message), message.service) == message
        case KindSynced():
            assert state.is_kind_served(message.kind) == message.installed
        case ObjectDeleted():
            assert live_object(published(NOTHING, message, 7), _key(message)) is None
            assert (
                fold(
                    state,
                    ObjectChanged(
                        **{name: getattr(message, name) for name in message.__struct_fields__}
                    ),
                    6,
                )
                == state
            )
        case _:
            assert state == Projection()


@pytest.mark.parametrize("line", STORED)
def test_fields_of_a_later_version_are_passed_over(line: bytes) -> None:
    assert decode(json.dumps(with_more(json.loads(line))).encode()) == decode(line)


def with_more(message: dict[str, Any]) -> dict[str, Any]:
    """With unknown fields in the message and in the items of its lists, but not in the object and
    the status fields, which are foreign data."""
    items = {
        name: [with_more(item) if isinstance(item, dict) else item for item in value]
        for name, value in message.items()
        if isinstance(value, list)
    }
    return {**message, **items, "later": {"than": ["this", "version"]}}


def as_json(message: Message) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(encode(message))
    del decoded["type"]
    return decoded


def _key(message: ObjectChanged | ObjectDeleted | StatusReported) -> Key:
    key = key_of(message)
    assert key is not None
    return key


GOOD = {
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-type": "aim.kind.synced.v1",
    "ce-source": "aim-watcher",
    "ce-subject": "Pod",
}
GOOD |= {
    "ce-time": "2026-11-24T10:00:00Z",
    "ce-datacontenttype": "application/json",
    "traceparent": "00-0",
    "Nats-Msg-Id": "1",
}
BODY = b'{"type":"aim.kind.synced.v1","kind":"Pod","resource_version":"1","objects":0}'
PLACE = "aim.synced.Pod"


@pytest.mark.parametrize(
    ("subject", "headers", "body", "expected"),
    [
        (PLACE, GOOD, BODY, []),
        (
            PLACE,
            {**GOOD, "ce-source": "aim-router"},
            BODY,
            ["router does not declare that it sends on aim.synced.Pod"],
        ),
        (PLACE, {**GOOD, "ce-source": "cron"}, BODY, ["no service is called 'cron'"]),
        (
            PLACE,
            {name: text for name, text in GOOD.items() if name != "ce-id"},
            BODY,
            ["header ce-id is missing"],
        ),
        (
            PLACE,
            GOOD,
            BODY.replace(b'"objects":0', b'"objects":"0"'),
            ["$.objects: '0' is not of type 'integer'"],
        ),
        (PLACE, GOOD, BODY.replace(b',"objects":0', b""), ["$: 'objects' is a required property"]),
        (
            "aim.object.Pod.ns.name",
            GOOD,
            BODY,
            ["'aim.kind.synced.v1' does not belong on aim.object.Pod.ns.name"],
        ),
    ],
)
def test_what_is_wrong_with_a_message_is_named(
    subject: str, headers: dict[str, str], body: bytes, expected: list[str]
) -> None:
    assert flaws(subject, headers, body) == expected
