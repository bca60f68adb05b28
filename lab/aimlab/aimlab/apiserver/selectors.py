"""Label and field selectors: text to a test on objects. Pure. Grammar: apimachinery's labels and
fields packages."""

import re
from collections.abc import Callable

from aimlab.apiserver.errors import bad_request
from aimlab.apiserver.objects import Obj, dig

Test = Callable[[Obj], bool]

TOKEN = re.compile(r"\s*(?:(==|!=|=|!|,|\(|\)|<|>)|([A-Za-z0-9_./-]+))")
NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9_./-]*[A-Za-z0-9])?$")


def labels(text: str) -> Test | None:
    """A label selector (`a=b,c in (x,y),!d`) as a test; None when it selects everything.
    ApiError 400 when malformed."""
    tokens = _tokens(text)
    if not tokens:
        return None
    tests: list[Callable[[Obj], bool]] = []
    while tokens:
        tests.append(_requirement(tokens))
        if tokens and tokens.pop(0) != ",":
            raise bad_request(f"unable to parse requirement in {text!r}")

    def test(obj: Obj) -> bool:
        found = dig(obj, "metadata", "labels") or {}
        return all(check(found) for check in tests)

    return test


def _tokens(text: str) -> list[str]:
    tokens = []
    at = 0
    text = text.strip()
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            raise bad_request(f"unable to parse requirement: unexpected {text[at]!r}")
        tokens.append(match[1] or match[2])
        at = match.end()
    return tokens


def _requirement(tokens: list[str]) -> Callable[[Obj], bool]:
    negated = tokens[0] == "!"
    if negated:
        tokens.pop(0)
    key = tokens.pop(0) if tokens else ""
    if not NAME.match(key):
        raise bad_request(
            f"found '{key}', expected: {'' if negated else '!, '}identifier, or 'end of string'"
        )
    operator = tokens[0] if tokens and tokens[0] != "," else ""
    if negated or not operator:
        return (lambda found: key not in found) if negated else (lambda found: key in found)
    tokens.pop(0)
    if operator in ("in", "notin"):
        values = _values(tokens)
        return (
            (lambda found: found.get(key) in values)
            if operator == "in"
            else (lambda found: found.get(key) not in values)
        )
    value = tokens.pop(0) if tokens and NAME.match(tokens[0]) else ""
    match operator:
        case "=" | "==":
            return lambda found: found.get(key) == value
        case "!=":
            return lambda found: found.get(key) != value
        case ">" | "<" if value.isdigit():
            sign = 1 if operator == ">" else -1
            return lambda found: (
                str(found.get(key, "")).isdigit() and (int(found[key]) - int(value)) * sign > 0
            )
        case _:
            raise bad_request(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")


def _values(tokens: list[str]) -> set[str]:
    if not tokens or tokens.pop(0) != "(" or ")" not in tokens:
        raise bad_request("found no list of values, expected: '('")
    end = tokens.index(")")
    inside = tokens[:end]
    del tokens[: end + 1]
    return set(inside) - {","}


def fields(text: str, allowed: frozenset[str]) -> Test | None:
    """A field selector (`metadata.name=a,status.phase!=Running`) as a test; None when it selects
    everything.

    `allowed` are the paths that may be selected on; ApiError 400 for others.
    """
    tests: list[Test] = []
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"\s*([^=!]+?)\s*(!=|==|=)(.*)", part)
        if not match:
            raise bad_request(f"invalid field selector: {part!r}")
        path, operator, value = match.groups()
        if path not in allowed:
            raise bad_request(f"field label not supported: {path}")
        tests.append(_field(tuple(path.split(".")), value, equal=operator != "!="))
    return (lambda obj: all(test(obj) for test in tests)) if tests else None


def _field(path: tuple[str, ...], value: str, *, equal: bool) -> Test:
    def test(obj: Obj) -> bool:
        found = dig(obj, *path)
        text = "" if found is None else str(found)
        if isinstance(found, bool):
            text = text.lower()
        return (text == value) is equal

    return test


def matches(selector: Obj, found: Obj) -> bool:
    """Whether labels fit a LabelSelector object; an empty one fits all."""
    match_labels = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or []
    return all(found.get(key) == value for key, value in match_labels.items()) and all(
        _holds(one, found) for one in expressions
    )


def _holds(expression: Obj, found: Obj) -> bool:
    value, values = found.get(expression["key"]), expression.get("values") or []
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case _:
            return value is None
