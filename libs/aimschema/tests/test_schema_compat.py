"""Which changes of a message can be rolled out, and which are rejected, by rule and field."""

from collections.abc import Callable
from typing import Any

import pytest

from aimschema.schema_compat import FAMILIES, MESSAGES, compare, schemas

REPORT = "aim.status.reported.v1"
ACTION = "aim.action.taken.v1"
DEAD_LETTER = "aim.dead.v1"
Change = Callable[[dict[str, Any]], Any]


def fields(schema: dict[str, Any], struct: str) -> dict[str, Any]:
    found: dict[str, Any] = schema["$defs"][struct]["properties"]
    return found


def after(message: str, change: Change) -> list[tuple[str, str, str]]:
    """The breaches of a change to one message."""
    new = schemas()
    change(new[message])
    return [(breach.rule, breach.message, breach.field) for breach in compare(schemas(), new)]


def retype(struct: str, name: str, **to: Any) -> Change:
    return lambda schema: fields(schema, struct).update({name: to})


def require(struct: str, name: str) -> Change:
    return lambda schema: schema["$defs"][struct]["required"].append(name)


def default(struct: str, name: str, value: Any) -> Change:
    return lambda schema: fields(schema, struct)[name].update(default=value)


REJECTED = {
    "a field goes": (
        REPORT,
        lambda s: fields(s, "StatusReported").pop("fields"),
        "FIELD_REMOVED",
        "fields",
    ),
    "a field of an item goes": (
        REPORT,
        lambda s: fields(s, "ReportedCondition").pop("message"),
        "FIELD_REMOVED",
        "conditions[].message",
    ),
    "a field must be there now": (
        REPORT,
        require("StatusReported", "warnings"),
        "FIELD_REQUIRED",
        "warnings",
    ),
    "a new field must be there": (
        REPORT,
        lambda s: (
            fields(s, "ReportedCondition").update(since={"type": "string"}),
            require("ReportedCondition", "since")(s),
        ),
        "FIELD_REQUIRED",
        "conditions[].since",
    ),
    "a field need not be there now": (
        REPORT,
        lambda s: s["$defs"]["StatusReported"]["required"].remove("uid"),
        "FIELD_MADE_OPTIONAL",
        "uid",
    ),
    "what a left out field means": (
        DEAD_LETTER,
        default("DeadLetter", "handled", True),
        "DEFAULT_CHANGED",
        "handled",
    ),
    "one more type": (
        REPORT,
        retype("StatusReported", "uid", anyOf=[{"type": "string"}, {"type": "null"}]),
        "TYPE_WIDENED",
        "uid",
    ),
    "one type less": (
        DEAD_LETTER,
        retype("DeadLetter", "namespace", type="string", default=None),
        "TYPE_NARROWED",
        "namespace",
    ),
    "inside what may be null": (
        ACTION,
        lambda s: fields(s, "Mark").pop("whole"),
        "FIELD_REMOVED",
        "mark.whole",
    ),
    "a place of a tuple": (
        ACTION,
        lambda s: s["$defs"]["Key"]["prefixItems"].pop(),
        "TYPE_NARROWED",
        "about",
    ),
    "the type of a place": (
        ACTION,
        lambda s: s["$defs"]["Key"]["prefixItems"][0].update(type="integer"),
        "TYPE_NARROWED",
        "about[0]",
    ),
    "the values of a map": (
        DEAD_LETTER,
        retype(
            "DeadLetter",
            "headers",
            type="object",
            additionalProperties={"type": "integer"},
            default={},
        ),
        "TYPE_NARROWED",
        "headers.*",
    ),
    "bytes become text": (
        DEAD_LETTER,
        retype("DeadLetter", "data", type="string", default=""),
        "CONSTRAINT_CHANGED",
        "data",
    ),
    "a pattern": (
        DEAD_LETTER,
        retype("DeadLetter", "name", type="string", pattern="^x"),
        "CONSTRAINT_CHANGED",
        "name",
    ),
    "a minimum": (
        DEAD_LETTER,
        retype("DeadLetter", "attempts", type="integer", minimum=1),
        "CONSTRAINT_CHANGED",
        "attempts",
    ),
    "unknown fields are rejected": (
        DEAD_LETTER,
        lambda s: s["$defs"]["DeadLetter"].update(additionalProperties=False),
        "CLOSED",
        "",
    ),
    "the tag": (
        DEAD_LETTER,
        lambda s: fields(s, "DeadLetter")["type"].update(enum=["aim.dead.v2"]),
        "VALUES_CHANGED",
        "type",
    ),
}


@pytest.mark.parametrize(
    ("message", "change", "rule", "field"), REJECTED.values(), ids=REJECTED.keys()
)
def test_a_change_that_breaks_a_reader_is_rejected(
    message: str, change: Change, rule: str, field: str
) -> None:
    assert (rule, message, field) in after(message, change)


ALLOWED = {
    "a new field with a default": (
        lambda s: fields(s, "StatusReported").update(urgency={"type": "integer", "default": 0})
    ),
    "a new field of an item with a default": (
        lambda s: fields(s, "ReportedCondition").update(since={"type": "string", "default": ""})
    ),
    "other words": lambda s: s["$defs"]["StatusReported"].update(description="Other words."),
}


@pytest.mark.parametrize("change", ALLOWED.values(), ids=ALLOWED.keys())
def test_a_harmless_change_is_allowed(change: Change) -> None:
    assert after(REPORT, change) == []


def test_a_message_may_not_go() -> None:
    new = schemas()
    del new[DEAD_LETTER]
    assert [(breach.rule, breach.message) for breach in compare(schemas(), new)] == [
        ("MESSAGE_REMOVED", DEAD_LETTER)
    ]


def test_every_message_has_a_family_of_subjects() -> None:
    assert {message for messages in FAMILIES.values() for message in messages} == set(MESSAGES)
