"""The messages as JSON Schema, and whether a change to one can be rolled out.

1. Both directions count. The log keeps messages for days and the latest state for ever, so new
   readers meet old messages. Services are replaced one by one, so old readers meet new messages.
   Schema registries call this FULL compatibility. It must hold with every released version.
2. So a message may gain optional fields, and nothing else. Any other change is a new message, v2,
   beside the old one.
"""

import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from aimschema import subjects
from aimschema.messages import (
    ActionTaken,
    DeadLetter,
    KindSynced,
    Message,
    ObjectChanged,
    ObjectDeleted,
    Progress,
    SpecDeleted,
    SpecVersion,
    StatusReported,
)

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
SUFFIX = ".schema.json"
MESSAGES: tuple[type[msgspec.Struct], ...] = typing.get_args(Message)
_CONSTRAINTS = frozenset(
    {
        "pattern",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minItems",
        "maxItems",
        "uniqueItems",
    }
    | {
        "minItems",
        "maxItems",
        "uniqueItems",
        "format",
        "contentEncoding",
        "minProperties",
        "maxProperties",
    }
)
FAMILIES: dict[str, tuple[type[msgspec.Struct], ...]] = {
    subjects.OBJECT: (ObjectChanged, ObjectDeleted),
    subjects.SYNCED: (KindSynced,),
    subjects.REPORT: (StatusReported,),
    subjects.ACTION: (ActionTaken,),
    subjects.DEAD: (DeadLetter,),
    subjects.LIVE_PROGRESS: (Progress,),
    subjects.HISTORY: (SpecVersion, SpecDeleted),
}
"""The messages on the subjects of each family."""


class Contract(NamedTuple):
    """Filters of the subjects that a service reads and of those it sends on.

    `reads`: by kind, the conditions and status fields that it reads and others report.
    """

    service: str
    consumes: tuple[str, ...]
    emits: tuple[str, ...]
    reads: Mapping[str, frozenset[str]] = {}


class Breach(NamedTuple):
    """Why a change cannot be rolled out.

    `field` is dotted, with `[]` for the items of a list. It is empty for the whole message.
    """

    rule: str
    message: str
    field: str
    why: str

    def __str__(self) -> str:
        return (
            f"{self.rule}: {self.message}{f' field {self.field}' if self.field else ''}: {self.why}"
        )


def tag(message: type[msgspec.Struct]) -> str:
    """The CloudEvents type, such as `aim.object.changed.v1`."""
    return str(message.__struct_config__.tag)


def schemas() -> dict[str, Schema]:
    """By type, the JSON Schema (2020-12) of every message."""
    found = {
        tag(message): {
            "$schema": DIALECT,
            "$id": f"{tag(message)}{SUFFIX}",
            **msgspec.json.schema(message),
        }
        for message in MESSAGES
    }
    return msgspec.json.decode(msgspec.json.encode(found), type=dict[str, Schema])


def compare(old: dict[str, Schema], new: dict[str, Schema]) -> list[Breach]:
    """The changes from `old` to `new` that break a reader of either with a message of the other."""
    found = []
    for name, schema in old.items():
        if name not in new:
            found.append(
                Breach(
                    "MESSAGE_REMOVED",
                    name,
                    "",
                    "it is stored, and older services send it; keep it",
                )
            )
        else:
            found += _Comparison(name, schema, new[name]).between(schema, new[name], "")
    return found


class _Comparison:
    """Of two versions of one message."""

    def __init__(self, message: str, old: Schema, new: Schema) -> None:
        self._message = message
        self._old, self._new = old.get("$defs", {}), new.get("$defs", {})

    def between(self, old: Schema, new: Schema, field: str) -> Iterator[Breach]:
        before, after = _alternatives(old, self._old), _alternatives(new, self._new)
        if missing := before.keys() - after.keys():
            yield self._breach(
                "TYPE_NARROWED",
                field,
                f"stored messages have {_list(missing)}, which new readers reject",
            )
        if added := after.keys() - before.keys():
            yield self._breach(
                "TYPE_WIDENED",
                field,
                f"new messages may have {_list(added)}, which older readers reject",
            )
        for kind in sorted(before.keys() & after.keys()):
            yield from self._same_type(before[kind], after[kind], field)

    def _same_type(self, old: Schema, new: Schema, field: str) -> Iterator[Breach]:
        was, now = old.get("enum"), new.get("enum")
        if was != now:
            yield self._breach(
                "VALUES_CHANGED",
                field,
                f"it could be {_list(was or ['anything'])}, and now {_list(now or ['anything'])}",
            )
        if "items" in old and "items" in new:
            yield from self.between(old["items"], new["items"], f"{field}[]")
        items_old, items_new = old.get("prefixItems", []), new.get("prefixItems", [])
        if len(items_old) != len(items_new):
            yield self._breach(
                "TYPE_NARROWED",
                field,
                f"it had {len(items_old)} items and now has {len(items_new)}",
            )
        for index, (before, after) in enumerate(zip(items_old, items_new, strict=False)):
            yield from self.between(before, after, f"{field}[{index}]")
        yield from self._constraints(old, new, field)
        yield from self._fields(old, new, field)

    def _constraints(self, old: Schema, new: Schema, field: str) -> Iterator[Breach]:
        was, now = old.get("additionalProperties", True), new.get("additionalProperties", True)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from self.between(was, now, f"{field}.*")
        elif now is False and was is not False:
            yield self._breach(
                "CLOSED", field, "a field of a later version would make the message undecodable"
            )
        for word in sorted(_CONSTRAINTS & (old.keys() | new.keys())):
            if old.get(word) != new.get(word):
                yield self._breach(
                    "CONSTRAINT_CHANGED",
                    field,
                    f"{word} was {old.get(word, 'absent')} and is now {new.get(word, 'absent')}",
                )

    def _fields(self, old: Schema, new: Schema, field: str) -> Iterator[Breach]:
        was, now = old.get("properties", {}), new.get("properties", {})
        must, must_now = set(old.get("required", ())), set(new.get("required", ()))
        for name in was:
            path = f"{field}.{name}".lstrip(".")
            if name not in now:
                yield self._breach(
                    "FIELD_REMOVED",
                    path,
                    "older readers would treat it as absent; keep it",
                )
                continue
            if name in must - must_now:
                yield self._breach(
                    "FIELD_MADE_OPTIONAL",
                    path,
                    "older readers cannot read a message without it",
                )
            if name in must_now - must:
                yield self._breach(
                    "FIELD_REQUIRED",
                    path,
                    "stored messages may not have it; give it a default",
                )
            if name not in must | must_now and was[name].get("default") != now[name].get("default"):
                yield self._breach(
                    "DEFAULT_CHANGED",
                    path,
                    "the meaning of stored messages without it would change",
                )
            yield from self.between(was[name], now[name], path)
        for name in sorted((now.keys() - was.keys()) & must_now):
            yield self._breach(
                "FIELD_REQUIRED",
                f"{field}.{name}".lstrip("."),
                "stored messages do not have it; give it a default",
            )

    def _breach(self, rule: str, field: str, why: str) -> Breach:
        return Breach(rule, self._message, field, why)


def _alternatives(schema: Schema, definitions: Schema) -> dict[str, Schema]:
    """The schema of a value by JSON type; {"any": ...} where the schema has no type."""
    if "$ref" in schema:
        return _alternatives(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return {
            kind: found
            for each in schema["anyOf"]
            for kind, found in _alternatives(each, definitions).items()
        }
    if "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        return dict.fromkeys(kinds, schema)
    return {"enum" if "enum" in schema else "any": schema}


def _list(names: typing.Iterable[object]) -> str:
    return ", ".join(sorted(map(str, names)))
