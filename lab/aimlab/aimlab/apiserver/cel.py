"""`x-kubernetes-validations`: CEL rules of a schema, compiled once and run on values (KEP-2876).

- A rule that names `oldSelf` is a transition rule: it runs only where there is an old value to
  compare with, unless it has `optionalOldSelf`.
- List items have an old value only in lists of type map, by their keys.
- A rule on a value that did not change is not run again, except a transition rule (KEP-4008,
  ratcheting).
- Property names that CEL cannot spell are escaped as Kubernetes does (`__dash__`, `__namespace__`).

Not there: static type checks and cost limits, optional field selection (`self.?x`), `cel.bind` and
two-variable macros.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import cel
from cel import stdlib

from aimlab.apiserver import quantity
from aimlab.apiserver.errors import Cause
from aimlab.apiserver.objects import Json, Obj, same

RESERVED = frozenset(
    [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)
MISSING: Any = object()


@dataclass(frozen=True)
class Rule:
    """A compiled rule with its message."""

    text: str
    program: cel.Program
    message: str
    message_program: cel.Program | None
    reason: str
    field_path: str
    transition: bool
    optional_old: bool


@dataclass(frozen=True)
class Rules:
    """The rules of a schema node and of the nodes below it; nodes without any rule are left out."""

    schema: Obj
    here: tuple[Rule, ...] = ()
    properties: dict[str, "Rules"] = field(default_factory=dict)
    items: "Rules | None" = None
    values: "Rules | None" = None


def compile_rules(schema: Obj) -> Rules | None:
    """The rules in a structural schema, None if it has none. ValueError names the rule that does
    not compile."""
    here = tuple(_rule(raw) for raw in schema.get("x-kubernetes-validations") or ())
    properties = {
        name: found
        for name, sub in (schema.get("properties") or {}).items()
        if (found := compile_rules(sub))
    }
    items = compile_rules(schema["items"]) if isinstance(schema.get("items"), dict) else None
    extra = schema.get("additionalProperties")
    values = compile_rules(extra) if isinstance(extra, dict) else None
    return (
        Rules(schema, here, properties, items, values)
        if here or properties or items or values
        else None
    )


def _rule(raw: Obj) -> Rule:
    program, message = program_of(raw["rule"]), raw.get("messageExpression")
    return Rule(
        text=raw["rule"].strip(),
        program=program,
        message=raw.get("message") or f"failed rule: {raw['rule'].strip()}",
        message_program=program_of(message) if message else None,
        reason=raw.get("reason") or "FieldValueInvalid",
        field_path=raw.get("fieldPath") or "",
        transition="oldSelf" in program.variables(),
        optional_old=bool(raw.get("optionalOldSelf")),
    )


@lru_cache(maxsize=4096)
def program_of(text: str) -> cel.Program:
    try:
        return cel.compile(text)
    except ValueError as error:
        raise ValueError(f"rule {text!r} does not compile: {error}") from error


def broken(
    rules: Rules | None, value: Json, old: Json = MISSING, path: str = ""
) -> Iterator[Cause]:
    """The causes for every rule that does not hold; `old` is MISSING where there is nothing to
    compare with."""
    if rules is None or value is None:
        return
    unchanged = old is not MISSING and same(value, old)
    for rule in rules.here:
        if rule.transition and not rule.optional_old and old is MISSING:
            continue
        if unchanged and not rule.transition:
            continue
        yield from _run(rule, rules.schema, value, old, path)
    if isinstance(value, dict):
        for name, item in value.items():
            before = old.get(name, MISSING) if isinstance(old, dict) else MISSING
            yield from broken(
                rules.properties.get(name), item, before, f"{path}.{name}" if path else name
            )
            if name not in rules.properties and rules.values:
                yield from broken(rules.values, item, before, f"{path}[{name}]")
    elif isinstance(value, list) and rules.items:
        before_by_key = items_by_key(old, rules.schema) if isinstance(old, list) else {}
        for index, item in enumerate(value):
            before = before_by_key.get(item_key(item, rules.schema), MISSING)
            yield from broken(rules.items, item, before, f"{path}[{index}]")


def item_key(item: Json, schema: Obj) -> tuple[str, ...] | None:
    """What identifies an item of a list of type map; None in other lists."""
    keys = schema.get("x-kubernetes-list-map-keys")
    return tuple(repr(item.get(key)) for key in keys) if keys and isinstance(item, dict) else None


def items_by_key(items: list[Json], schema: Obj) -> dict[tuple[str, ...] | None, Json]:
    """The items of a list of type map by their keys."""
    return {key: item for item in items if (key := item_key(item, schema)) is not None}


def _run(rule: Rule, schema: Obj, value: Json, old: Json, path: str) -> Iterator[Cause]:
    variables = {"self": _native(value, schema)}
    if rule.optional_old:
        variables["oldSelf"] = (
            cel.OptionalValue.none()
            if old is MISSING
            else cel.OptionalValue.of(_native(old, schema))
        )
    elif rule.transition:
        variables["oldSelf"] = _native(old, schema)
    where = f"{path}{rule.field_path}" if path else rule.field_path.removeprefix(".")
    try:
        if rule.program.execute(cel.Context(variables, functions_of(rule.program))) is True:
            return
        message = _message(rule, variables)
    except (
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        IndexError,
        ArithmeticError,
        AttributeError,
    ) as error:
        message = f"rule evaluation error: {_error_text(error)}: {rule.text}"
    yield Cause(where or "<nil>", rule.reason, cause_message(rule.reason, value, message))


def _error_text(error: Exception) -> str:
    return (
        f"no such key: {error.args[0]}"
        if isinstance(error, KeyError) and error.args
        else str(error).split(".", maxsplit=1)[0]
    )


def _message(rule: Rule, variables: dict[str, Any]) -> str:
    if rule.message_program is None:
        return rule.message
    text = rule.message_program.execute(cel.Context(variables, functions_of(rule.message_program)))
    return text.strip() if isinstance(text, str) and text.strip() else rule.message


def cause_message(reason: str, value: Json, message: str) -> str:
    """The message of a cause, as apimachinery's field.Error words it for its reason."""
    match reason:
        case "FieldValueRequired":
            return f"Required value: {message}"
        case "FieldValueForbidden":
            return f"Forbidden: {message}"
        case "FieldValueDuplicate":
            return f"Duplicate value: {quote_value(value)}"
        case _:
            return f"Invalid value: {quote_value(value)}: {message}"


def quote_value(value: Json) -> str:
    """A value as error messages quote it; a map or list only by its type."""
    match value:
        case dict():
            return '"object"'
        case list():
            return '"array"'
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case bool():
            return str(value).lower()
        case None:
            return "null"
        case _:
            return str(value)


def _native(value: Json, schema: Obj) -> Any:
    """A value as CEL sees it: names escaped, date-times as timestamps, `number` as double."""
    if isinstance(value, dict):
        known, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        rest = extra if isinstance(extra, dict) else {}
        return {
            escape_name(name) if name in known else name: _native(item, known.get(name, rest))
            for name, item in value.items()
        }
    if isinstance(value, list):
        inner = schema.get("items")
        return [_native(item, inner if isinstance(inner, dict) else {}) for item in value]
    if isinstance(value, str) and schema.get("format") == "date-time":
        return datetime.fromisoformat(value)
    if isinstance(value, int) and not isinstance(value, bool) and schema.get("type") == "number":
        return float(value)
    return value


@lru_cache(maxsize=4096)
def escape_name(name: str) -> str:
    """A property name as CEL spells it."""
    if name in RESERVED:
        return f"__{name}__"
    name = name.replace("__", "__underscores__")
    return name.replace(".", "__dot__").replace("-", "__dash__").replace("/", "__slash__")


def _quantity(value: Any) -> Obj:
    return {"quantity": str(quantity.parse(str(value)).normalize())}


def _is(parse: Callable[[Any], Any]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        try:
            parse(value)
        except ValueError:
            return False
        return True

    return check


def _number(value: Any) -> Decimal:
    return quantity.parse(value["quantity"])


def _compare(left: Any, right: Any) -> int:
    return (_number(left) > _number(right)) - (_number(left) < _number(right))


def _url(text: str) -> Obj:
    parts = urlsplit(text)
    if not parts.scheme or not (parts.netloc or parts.path.startswith("/")):
        raise ValueError(f"{text!r} is not a URL")
    return {
        "scheme": parts.scheme,
        "host": parts.netloc,
        "hostname": parts.hostname or "",
        "port": str(parts.port or ""),
        "path": parts.path,
    }


EXTENSIONS: dict[str, Callable[..., Any]] = {
    "quantity": _quantity,
    "isQuantity": _is(_quantity),
    "isGreaterThan": lambda left, right: _compare(left, right) > 0,
    "isLessThan": lambda left, right: _compare(left, right) < 0,
    "compareTo": _compare,
    "sign": lambda left: (_number(left) > 0) - (_number(left) < 0),
    "isInteger": lambda left: _number(left) == int(_number(left)),
    "asInteger": lambda left: int(_number(left)),
    "asApproximateFloat": lambda left: float(_number(left)),
    "add": lambda left, right: {
        "quantity": str(
            (_number(left) + (_number(right) if isinstance(right, dict) else right)).normalize()
        )
    },
    "sub": lambda left, right: {
        "quantity": str(
            (_number(left) - (_number(right) if isinstance(right, dict) else right)).normalize()
        )
    },
    "url": _url,
    "isURL": _is(_url),
    "getScheme": lambda url: url["scheme"],
    "getHost": lambda url: url["host"],
    "getHostname": lambda url: url["hostname"],
    "getPort": lambda url: url["port"],
    "getEscapedPath": lambda url: url["path"],
    "find": lambda text, pattern: found[0] if (found := re.search(pattern, text)) else "",
    "findAll": lambda text, pattern: [found[0] for found in re.finditer(pattern, text)],
    "isSorted": lambda items: all(left <= right for left, right in pairwise(items)),
}


def _library() -> dict[str, Callable[..., Any]]:
    context = cel.Context()
    stdlib.add_stdlib_to_context(context)
    return {**context.functions, **EXTENSIONS}


LIBRARY = _library()


@lru_cache(maxsize=4096)
def functions_of(program: cel.Program) -> dict[str, Callable[..., Any]]:
    """Only what a rule calls: filling a context costs more than most rules."""
    called, spaces = set(program.functions()), set(program.variables())
    return {
        name: call
        for name, call in LIBRARY.items()
        if name in called or ("." in name and name.split(".")[0] in spaces)
    }
