"""Structural schemas of custom resources (apiextensions v1): prune, default, validate. Pure; the
first two change the value in place.

The order of a write is `prune`, `default`, `problems`. An update may keep what was already invalid
and did not change (KEP-4008).
"""

import ipaddress
import math
import re
import uuid
from base64 import b64decode
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache
from urllib.parse import urlsplit

from aimlab.apiserver.cel import MISSING, Rules, broken, item_key, items_by_key, quote_value
from aimlab.apiserver.errors import Cause
from aimlab.apiserver.objects import Json, Obj, clone, same

ROOT_FIELDS = frozenset({"apiVersion", "kind", "metadata"})
STOPS_RULES = frozenset(
    {
        "FieldValueNotSupported",
        "FieldValueRequired",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueTypeInvalid",
    }
)
UNCHECKED = Cause(
    "<nil>",
    "FieldValueInvalid",
    "Invalid value: null: some validation rules were not checked because the object was invalid;"
    " correct the existing errors to complete validation",
)


def prune(value: Json, schema: Obj, path: str = "", *, root: bool = True) -> list[str]:
    """Drop what the schema does not name; returns the dropped paths (`spec.x`, `spec.env[0].y`)."""
    dropped: list[str] = []
    if isinstance(value, list):
        items = schema.get("items")
        for index, item in enumerate(value):
            dropped += (
                prune(item, items, f"{path}[{index}]", root=False)
                if isinstance(items, dict)
                else []
            )
    if not isinstance(value, dict):
        return dropped
    properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
    preserved = ROOT_FIELDS if root or schema.get("x-kubernetes-embedded-resource") else frozenset()
    for name in list(value):
        where = f"{path}.{name}" if path else name
        if name in preserved:
            continue
        if name in properties:
            dropped += prune(value[name], properties[name], where, root=False)
        elif isinstance(extra, dict):
            dropped += prune(value[name], extra, where, root=False)
        elif not extra and not schema.get("x-kubernetes-preserve-unknown-fields"):
            del value[name]
            dropped.append(where)
    return dropped


def default(value: Json, schema: Obj) -> None:
    """Fill in defaults; a null where none is allowed becomes the default or goes."""
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            default(item, schema["items"])
    if not isinstance(value, dict):
        return
    properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
    for name, sub in properties.items():
        if name in value and value[name] is None and not sub.get("nullable"):
            del value[name]
        if name not in value and sub.get("default") is not None:
            value[name] = clone(sub["default"])
        if name in value:
            default(value[name], sub)
    if isinstance(extra, dict):
        for name in [name for name in value if name not in properties]:
            if value[name] is None and not extra.get("nullable"):
                del value[name]
            else:
                default(value[name], extra)


def problems(value: Json, schema: Obj, rules: Rules | None, old: Json = MISSING) -> list[Cause]:
    """Everything wrong with an object: schema first, then repeated list items, then CEL rules
    unless the schema's errors forbid them."""
    found = list(validate(value, schema, "", old))
    found += duplicate_items(value, schema, "", old)
    if rules is None:
        return found
    if any(cause.reason in STOPS_RULES for cause in found):
        return [*found, UNCHECKED]
    return found + list(broken(rules, value, old))


def kind_of(value: Json) -> str:
    """The JSON schema type of a value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def validate(value: Json, schema: Obj, path: str, old: Json = MISSING) -> Iterator[Cause]:
    """The schema's errors in a value, parents before children, siblings by name."""
    if (old is not MISSING and same(value, old)) or (value is None and schema.get("nullable")):
        return
    kind, expected = kind_of(value), schema.get("type")
    if schema.get("x-kubernetes-int-or-string"):
        expected = kind if kind in ("integer", "string") else "integer,string"
    if expected and kind != expected and not (expected == "number" and kind == "integer"):
        message = f'Invalid value: "{kind}": {path} in body must be of type {expected}: "{kind}"'
        yield Cause(path or "<nil>", "FieldValueTypeInvalid", message)
        return
    if "enum" in schema and not any(same(value, choice) for choice in schema["enum"]):
        choices = ", ".join(quote_value(choice) for choice in schema["enum"])
        yield Cause(
            path,
            "FieldValueNotSupported",
            f"Unsupported value: {quote_value(value)}: supported values: {choices}",
        )
    match value:
        case str():
            yield from _string(value, schema, path)
        case bool() | None:
            pass
        case int() | float():
            yield from _number(value, schema, path)
        case list():
            yield from _array(value, schema, path, old)
        case dict():
            yield from _object(value, schema, path, old)
    yield from _check_combinators(value, schema, path)


def _wrong(path: str, value: Json, why: str) -> Cause:
    return Cause(
        path, "FieldValueInvalid", f"Invalid value: {quote_value(value)}: {path} in body {why}"
    )


def _string(value: str, schema: Obj, path: str) -> Iterator[Cause]:
    if len(value) < schema.get("minLength", 0):
        yield _wrong(path, value, f"should be at least {schema['minLength']} chars long")
    if len(value) > schema.get("maxLength", math.inf):
        yield Cause(
            path, "FieldValueTooLong", f"Too long: may not be more than {schema['maxLength']} bytes"
        )
    if "pattern" in schema and not _pattern(schema["pattern"]).search(value):
        yield _wrong(path, value, f"should match '{schema['pattern']}'")
    format_ = schema.get("format")
    if format_ in FORMATS and not _parses(format_, value):
        yield Cause(
            path,
            "FieldValueInvalid",
            f"Invalid value: {quote_value(value)}: {path} in body must be of type {format_}:"
            f" {quote_value(value)}",
        )


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\$$", r"\\Z", text))


def _time(text: str) -> None:
    if (
        not re.match(r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d", text)
        or datetime.fromisoformat(text).tzinfo is None
    ):
        raise ValueError(text)


def _duration(text: str) -> None:
    if not re.fullmatch(r"[+-]?(\d+(\.\d+)?(ns|us|µs|ms|s|m|h|d|w))+|0", text):
        raise ValueError(text)


def _uri(text: str) -> None:
    if not urlsplit(text).scheme:
        raise ValueError(text)


def _date(text: str) -> None:
    datetime.strptime(text, "%Y-%m-%d")  # noqa: DTZ007  only the form is checked


FORMATS: dict[str, Callable[[str], object]] = {
    "date-time": _time,
    "date": _date,
    "duration": _duration,
    "uri": _uri,
    "uuid": uuid.UUID,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "cidr": ipaddress.ip_network,
    "byte": lambda text: b64decode(text, validate=True),
}


def _parses(format_: str, value: str) -> bool:
    try:
        FORMATS[format_](value)
    except ValueError:
        return False
    return True


def _number(value: float, schema: Obj, path: str) -> Iterator[Cause]:
    lowest = schema.get("minimum")
    highest = schema.get("maximum")
    step = schema.get("multipleOf")
    if lowest is not None and (
        value < lowest or (schema.get("exclusiveMinimum") and value == lowest)
    ):
        yield _wrong(
            path,
            value,
            "should be greater than"
            f" {'' if schema.get('exclusiveMinimum') else 'or equal to '}{lowest}",
        )
    if highest is not None and (
        value > highest or (schema.get("exclusiveMaximum") and value == highest)
    ):
        yield _wrong(
            path,
            value,
            "should be less than"
            f" {'' if schema.get('exclusiveMaximum') else 'or equal to '}{highest}",
        )
    if step and value % step:
        yield _wrong(path, value, f"should be a multiple of {step}")
    bits = {"int32": 31, "int64": 63}.get(schema.get("format", ""))
    if bits and schema.get("type") == "integer" and not -(2**bits) <= value < 2**bits:
        yield _wrong(path, value, f"must be of type {schema['format']}")


def _array(value: list[Json], schema: Obj, path: str, old: Json) -> Iterator[Cause]:
    if len(value) < schema.get("minItems", 0):
        yield _wrong(path, len(value), f"should have at least {schema['minItems']} items")
    if len(value) > schema.get("maxItems", math.inf):
        yield Cause(
            path,
            "FieldValueTooMany",
            f"Too many: {len(value)}: must have at most {schema['maxItems']} items",
        )
    if isinstance(schema.get("items"), dict):
        before = items_by_key(old, schema) if isinstance(old, list) else {}
        for index, item in enumerate(value):
            yield from validate(
                item,
                schema["items"],
                f"{path}[{index}]",
                before.get(item_key(item, schema), MISSING),
            )


def _object(value: Obj, schema: Obj, path: str, old: Json) -> Iterator[Cause]:
    prefix = f"{path}." if path else ""
    for name in schema.get("required") or ():
        if name not in value:
            yield Cause(prefix + name, "FieldValueRequired", "Required value")
    if len(value) < schema.get("minProperties", 0):
        yield _wrong(path, value, f"should have at least {schema['minProperties']} properties")
    if len(value) > schema.get("maxProperties", math.inf):
        yield Cause(
            path,
            "FieldValueTooMany",
            f"Too many: {len(value)}: must have at most {schema['maxProperties']} items",
        )
    properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
    for name in sorted(value):
        sub = properties.get(name, extra)
        if isinstance(sub, dict):
            before = old.get(name, MISSING) if isinstance(old, dict) else MISSING
            yield from validate(value[name], sub, prefix + name, before)


def _check_combinators(value: Json, schema: Obj, path: str) -> Iterator[Cause]:
    def fits(sub: Obj) -> bool:
        return not any(validate(value, sub, path))

    for sub in schema.get("allOf") or ():
        yield from validate(value, sub, path)
    if "anyOf" in schema and not any(map(fits, schema["anyOf"])):
        yield _wrong(path, value, "must validate at least one schema (anyOf)")
    if "oneOf" in schema and sum(map(fits, schema["oneOf"])) != 1:
        yield _wrong(path, value, "must validate one and only one schema (oneOf)")
    if "not" in schema and fits(schema["not"]):
        yield _wrong(path, value, "must not validate the schema (not)")


def duplicate_items(value: Json, schema: Obj, path: str, old: Json = MISSING) -> Iterator[Cause]:
    """Items that occur twice in a list of type map or set."""
    if old is not MISSING and same(value, old):
        return
    if isinstance(value, dict):
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        for name in sorted(value):
            sub = properties.get(name, extra)
            if isinstance(sub, dict):
                yield from duplicate_items(value[name], sub, f"{path}.{name}" if path else name)
    if not isinstance(value, list):
        return
    identities: set[str] = set()
    for index, item in enumerate(value):
        where = f"{path}[{index}]"
        identity = identity_of(item, schema)
        if identity is not None and identity in identities:
            yield Cause(where, "FieldValueDuplicate", f"Duplicate value: {identity}")
        identities.add(identity or "")
        if isinstance(schema.get("items"), dict):
            yield from duplicate_items(item, schema["items"], where)


def identity_of(item: Json, schema: Obj) -> str | None:
    """What must be unique of a list's item, as compact JSON; None in atomic lists."""
    match schema.get("x-kubernetes-list-type"):
        case "map" if isinstance(item, dict):
            pairs = ((key, item.get(key)) for key in sorted(schema["x-kubernetes-list-map-keys"]))
            return (
                "{"
                + ",".join(
                    f'"{key}":{quote_value(value)}' for key, value in pairs if value is not None
                )
                + "}"
            )
        case "set":
            return quote_value(item) if not isinstance(item, dict | list) else repr(item)
        case _:
            return None
