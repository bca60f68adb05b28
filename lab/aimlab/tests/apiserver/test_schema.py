"""Defaulting, pruning, validation and CEL of custom kinds, on small schemas."""

from typing import Any

import pytest

from aimlab.apiserver.cel import MISSING, compile_rules
from aimlab.apiserver.schema import default, problems, prune

Obj = dict[str, Any]
TEXT: Obj = {"type": "string"}
NUMBER: Obj = {"type": "integer"}
FREE: Obj = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def of(**properties: Obj) -> Obj:
    return {"type": "object", "properties": properties}


def listing(items: Obj, **more: Any) -> Obj:
    return {"type": "array", "items": items, **more}


def causes(schema: Obj, value: Any, old: Any = MISSING) -> list[tuple[str, str]]:
    """Field and reason of everything wrong with `spec`."""
    whole = of(spec=schema)
    before = old if old is MISSING else {"spec": old}
    found = problems({"spec": value}, whole, compile_rules(whole), before)
    return [
        (cause.field, cause.reason.removeprefix("FieldValue"))
        for cause in found
        if cause.field != "<nil>"
    ]


@pytest.mark.parametrize(
    ("schema", "value", "left", "dropped"),
    [
        pytest.param(of(a=TEXT), {"a": "x", "b": 1}, {"a": "x"}, ["spec.b"], id="unknown"),
        pytest.param(FREE, {"b": {"c": 1}}, {"b": {"c": 1}}, [], id="preserved"),
        pytest.param(
            {**FREE, "properties": {"a": of(b=TEXT)}},
            {"a": {"c": 1}, "d": 2},
            {"a": {}, "d": 2},
            ["spec.a.c"],
            id="preserved-but-known",
        ),
        pytest.param(
            {"type": "object", "additionalProperties": of(a=TEXT)},
            {"k": {"z": 1}},
            {"k": {}},
            ["spec.k.z"],
            id="map",
        ),
        pytest.param(
            of(l=listing(of(a=TEXT))), {"l": [{"z": 1}]}, {"l": [{}]}, ["spec.l[0].z"], id="list"
        ),
        pytest.param(
            of(t={**of(spec=FREE), "x-kubernetes-embedded-resource": True}),
            {"t": {"kind": "K", "metadata": {"name": "n"}, "z": 1}},
            {"t": {"kind": "K", "metadata": {"name": "n"}}},
            ["spec.t.z"],
            id="embedded-resource",
        ),
    ],
)
def test_pruning_drops_what_the_schema_does_not_name(
    schema: Obj, value: Obj, left: Obj, dropped: list[str]
) -> None:
    obj = {"kind": "K", "spec": value}
    assert prune(obj, of(spec=schema)) == dropped
    assert obj == {"kind": "K", "spec": left}


@pytest.mark.parametrize(
    ("schema", "value", "filled"),
    [
        pytest.param(of(a={**NUMBER, "default": 3}), {}, {"a": 3}, id="absent"),
        pytest.param(of(a={**NUMBER, "default": 3}), {"a": None}, {"a": 3}, id="null"),
        pytest.param(of(a=NUMBER), {"a": None}, {}, id="null-without-default"),
        pytest.param(of(a={**NUMBER, "nullable": True}), {"a": None}, {"a": None}, id="nullable"),
        pytest.param(of(a=of(b={**NUMBER, "default": 3})), {}, {}, id="parent-absent"),
        pytest.param(
            of(a={**of(b={**NUMBER, "default": 3}), "default": {}}),
            {},
            {"a": {"b": 3}},
            id="parent-has-default",
        ),
        pytest.param(
            of(l=listing(of(b={**NUMBER, "default": 3}))),
            {"l": [{}]},
            {"l": [{"b": 3}]},
            id="in-list",
        ),
        pytest.param(
            {"type": "object", "additionalProperties": of(b={**NUMBER, "default": 3})},
            {"k": {}},
            {"k": {"b": 3}},
            id="in-map",
        ),
    ],
)
def test_defaults_are_filled_in(schema: Obj, value: Obj, filled: Obj) -> None:
    default(value, schema)
    assert value == filled


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        pytest.param(of(a=TEXT), {"a": 1}, [("spec.a", "TypeInvalid")], id="type"),
        pytest.param(of(a={"type": "number"}), {"a": 1}, [], id="integer-is-a-number"),
        pytest.param(
            of(a=NUMBER), {"a": 1.5}, [("spec.a", "TypeInvalid")], id="fraction-is-no-integer"
        ),
        pytest.param(
            of(a=NUMBER), {"a": True}, [("spec.a", "TypeInvalid")], id="boolean-is-no-integer"
        ),
        pytest.param(
            of(a={"x-kubernetes-int-or-string": True}),
            {"a": [1]},
            [("spec.a", "TypeInvalid")],
            id="int-or-string",
        ),
        pytest.param(
            of(a={**TEXT, "maxLength": 2}), {"a": "xyz"}, [("spec.a", "TooLong")], id="too-long"
        ),
        pytest.param(
            of(a={**TEXT, "pattern": "^[a-z]+$"}),
            {"a": "ab\n"},
            [("spec.a", "Invalid")],
            id="pattern-ends-at-the-end",
        ),
        pytest.param(
            of(a={**TEXT, "format": "date-time"}),
            {"a": "2026-01-01"},
            [("spec.a", "Invalid")],
            id="date-time",
        ),
        pytest.param(
            of(a={**TEXT, "format": "date-time"}),
            {"a": "2026-01-01T00:00:00.5Z"},
            [],
            id="date-time-right",
        ),
        pytest.param(
            of(a={**NUMBER, "format": "int32"}), {"a": 2**31}, [("spec.a", "Invalid")], id="int32"
        ),
        pytest.param(
            of(a={**NUMBER, "maximum": 5, "exclusiveMaximum": True}),
            {"a": 5},
            [("spec.a", "Invalid")],
            id="exclusive-maximum",
        ),
        pytest.param(
            of(a=listing(TEXT, maxItems=1)),
            {"a": ["x", "y"]},
            [("spec.a", "TooMany")],
            id="too-many",
        ),
        pytest.param(
            of(a=listing(TEXT, **{"x-kubernetes-list-type": "set"})),
            {"a": ["x", "x"]},
            [("spec.a[1]", "Duplicate")],
            id="set",
        ),
        pytest.param(
            {**of(a=TEXT), "required": ["a"]}, {}, [("spec.a", "Required")], id="required"
        ),
        pytest.param(
            {"type": "object", "additionalProperties": NUMBER},
            {"k": "x"},
            [("spec.k", "TypeInvalid")],
            id="map-value",
        ),
        pytest.param(
            {**of(a=TEXT, b=TEXT), "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {},
            [("spec", "Invalid")],
            id="one-of",
        ),
        pytest.param(
            {**of(a=TEXT), "not": {"required": ["a"]}}, {"a": "x"}, [("spec", "Invalid")], id="not"
        ),
    ],
)
def test_values_are_checked(schema: Obj, value: Obj, expected: list[tuple[str, str]]) -> None:
    assert causes(schema, value) == expected


def rule(text: str, **more: Any) -> Obj:
    return {"x-kubernetes-validations": [{"rule": text, **more}]}


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        pytest.param(
            {**of(a=NUMBER), **rule("self.a > 1")}, {"a": 1}, [("spec", "Invalid")], id="plain"
        ),
        pytest.param({**of(a=NUMBER), **rule("has(self.a)")}, {}, [("spec", "Invalid")], id="has"),
        pytest.param(
            {**of(a=NUMBER), **rule("self.a > 1")},
            {},
            [("spec", "Invalid")],
            id="absent-field-is-an-error",
        ),
        pytest.param(
            {**of(a=NUMBER), **rule("self.a > 1", fieldPath=".a", reason="FieldValueForbidden")},
            {"a": 1},
            [("spec.a", "Forbidden")],
            id="path",
        ),
        pytest.param(
            of(a={**TEXT, **rule("self.matches('^x')")}),
            {"a": "y"},
            [("spec.a", "Invalid")],
            id="matches",
        ),
        pytest.param(
            {**of(**{"a-b": NUMBER}), **rule("self.a__dash__b == 1")},
            {"a-b": 1},
            [],
            id="escaped-dash",
        ),
        pytest.param(
            {**of(namespace=TEXT), **rule("self.__namespace__ == 'x'")},
            {"namespace": "x"},
            [],
            id="escaped-keyword",
        ),
        pytest.param(
            of(l=listing({**NUMBER, **rule("self > 0")})),
            {"l": [1, 0]},
            [("spec.l[1]", "Invalid")],
            id="list-item",
        ),
        pytest.param(
            of(l={**listing(NUMBER), **rule("self.all(x, x > 0) && self.size() < 3")}),
            {"l": [1, 2]},
            [],
            id="list",
        ),
        pytest.param(
            of(m={"type": "object", "additionalProperties": {**NUMBER, **rule("self > 0")}}),
            {"m": {"k": 0}},
            [("spec.m[k]", "Invalid")],
            id="map",
        ),
        pytest.param(
            of(
                q={
                    "x-kubernetes-int-or-string": True,
                    **rule("quantity(string(self)).isLessThan(quantity('1Gi'))"),
                }
            ),
            {"q": "1024Mi"},
            [("spec.q", "Invalid")],
            id="quantity",
        ),
        pytest.param(
            of(q={"x-kubernetes-int-or-string": True, **rule("isQuantity(string(self))")}),
            {"q": 5},
            [],
            id="is-quantity",
        ),
        pytest.param(
            of(u={**TEXT, **rule("isURL(self) && url(self).getScheme() == 's3'")}),
            {"u": "s3://b/x"},
            [],
            id="url",
        ),
        pytest.param(
            of(
                t={
                    **TEXT,
                    "format": "date-time",
                    **rule("self > timestamp('2020-01-01T00:00:00Z')"),
                }
            ),
            {"t": "2019-01-01T00:00:00Z"},
            [("spec.t", "Invalid")],
            id="timestamp",
        ),
        pytest.param(
            of(s={**TEXT, **rule("self.lowerAscii().split(',').exists(x, x.startsWith('a'))")}),
            {"s": "B,A1"},
            [],
            id="strings",
        ),
    ],
)
def test_rules_are_run(schema: Obj, value: Obj, expected: list[tuple[str, str]]) -> None:
    assert causes(schema, value) == expected


IMMUTABLE = of(a={**NUMBER, **rule("self == oldSelf", message="a is immutable")})
KEYED = of(
    l=listing(
        of(n=TEXT, v={**NUMBER, **rule("self >= oldSelf")}),
        **{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"]},
    )
)


@pytest.mark.parametrize(
    ("schema", "old", "new", "expected"),
    [
        pytest.param(IMMUTABLE, MISSING, {"a": 1}, [], id="no-old-object"),
        pytest.param(IMMUTABLE, {}, {"a": 1}, [], id="no-old-value"),
        pytest.param(IMMUTABLE, {"a": 1}, {"a": 2}, [("spec.a", "Invalid")], id="changed"),
        pytest.param(
            KEYED,
            {"l": [{"n": "x", "v": 2}]},
            {"l": [{"n": "y", "v": 1}, {"n": "x", "v": 1}]},
            [("spec.l[1].v", "Invalid")],
            id="by-key",
        ),
        pytest.param(
            {**of(a=NUMBER), **rule("oldSelf.hasValue() || self.a == 1", optionalOldSelf=True)},
            MISSING,
            {"a": 2},
            [("spec", "Invalid")],
            id="optional-old-self",
        ),
        pytest.param(
            of(a={**NUMBER, "minimum": 5}, b=TEXT),
            {"a": 1},
            {"a": 1, "b": "x"},
            [],
            id="invalid-but-unchanged",
        ),
        pytest.param(
            of(a={**NUMBER, **rule("self > 5")}, b=TEXT),
            {"a": 1},
            {"a": 1, "b": "x"},
            [],
            id="rule-broken-but-unchanged",
        ),
    ],
)
def test_an_update_is_compared_with_what_was(
    schema: Obj, old: Any, new: Obj, expected: list[tuple[str, str]]
) -> None:
    assert causes(schema, new, old) == expected


def test_a_message_expression_speaks_for_its_rule() -> None:
    whole = of(a={**NUMBER, **rule("self > 5", messageExpression="string(self) + ' is too small'")})
    (cause,) = problems({"a": 1}, whole, compile_rules(whole))
    assert cause.message == "Invalid value: 1: 1 is too small"


def test_a_rule_that_does_not_compile_names_itself() -> None:
    with pytest.raises(ValueError, match="self ==="):
        compile_rules(rule("self === 1"))
