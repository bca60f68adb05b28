"""Server-side apply: what the recordings do not show, and what must hold for any objects."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimlab.apiserver.errors import ApiError
from aimlab.apiserver.fields import (
    Owner,
    apply,
    decode,
    encode,
    ownable_leaves,
    owners_after_update,
    type_errors,
)

Obj = dict[str, Any]
SCHEMA: Obj = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "m": {"type": "object", "additionalProperties": {"type": "string"}},
        "whole": {
            "type": "object",
            "x-kubernetes-map-type": "atomic",
            "additionalProperties": {"type": "string"},
        },
        "l": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k"],
            "items": {
                "type": "object",
                "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
            },
        },
        "s": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
    },
}


def by(manager: str, operation: str = "Apply") -> Owner:
    return Owner(manager, operation, "g/v1", "", "2026-01-01T00:00:00Z")


def applied(
    live: Obj, sent: Obj, owners: list[Owner], manager: str, *, force: bool = False
) -> tuple[Obj, list[Owner]]:
    return apply(live, sent, owners, by(manager), SCHEMA, force=force)


@pytest.mark.parametrize(
    ("first", "second", "left"),
    [
        pytest.param({"n": 1, "m": {"a": "x"}}, {"n": 1}, {"n": 1}, id="field"),
        pytest.param(
            {"m": {"a": "x", "b": "y"}}, {"m": {"a": "x"}}, {"m": {"a": "x"}}, id="key-of-map"
        ),
        pytest.param(
            {"l": [{"k": "a", "v": 1}, {"k": "b"}]},
            {"l": [{"k": "b"}]},
            {"l": [{"k": "b"}]},
            id="item",
        ),
        pytest.param(
            {"l": [{"k": "a", "v": 1}]},
            {"l": [{"k": "a"}]},
            {"l": [{"k": "a"}]},
            id="field-of-item",
        ),
        pytest.param({"s": ["a", "b"]}, {"s": ["b"]}, {"s": ["b"]}, id="item-of-set"),
        pytest.param(
            {"whole": {"a": "x", "b": "y"}},
            {"whole": {"a": "z"}},
            {"whole": {"a": "z"}},
            id="atomic-map",
        ),
    ],
)
def test_what_a_manager_no_longer_sends_goes(first: Obj, second: Obj, left: Obj) -> None:
    live, owners = applied({}, first, [], "one")
    assert applied(live, second, owners, "one")[0] == left


def test_what_another_manager_owns_too_stays() -> None:
    live, owners = applied({}, {"l": [{"k": "a", "v": 1}]}, [], "one")
    live, owners = applied(live, {"l": [{"k": "a"}]}, owners, "two")
    live, owners = applied(live, {"l": []}, owners, "one")
    assert live == {"l": [{"k": "a"}]}


def test_equal_values_are_shared_and_different_ones_conflict() -> None:
    live, owners = applied({}, {"n": 1}, [], "one")
    live, owners = applied(live, {"n": 1}, owners, "two")
    with pytest.raises(ApiError) as caught:
        applied(live, {"n": 2}, owners, "three")
    assert [cause["message"] for cause in (caught.value.details or {})["causes"]] == [
        'conflict with "one"',
        'conflict with "two"',
    ]


def test_an_update_takes_over_what_it_changes() -> None:
    live, owners = applied({}, {"n": 1, "m": {"a": "x"}}, [], "one")
    changed = {"n": 2, "m": {"a": "x"}}
    owners = owners_after_update(owners, by("editor", "Update"), live, changed, SCHEMA)
    assert {owner.manager: owner.paths for owner in owners} == {
        "one": {("f:m", "f:a")},
        "editor": {("f:n",)},
    }


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        pytest.param({"nope": 1}, "field not declared", id="unknown-field"),
        pytest.param({"n": "x"}, "expected numeric", id="wrong-type"),
        pytest.param({"m": []}, "expected map", id="list-for-map"),
        pytest.param({"l": [{"v": 1}]}, "omits all key fields", id="no-key"),
        pytest.param({"l": [{"k": "a"}, {"k": "a"}]}, "duplicate entries", id="same-key-twice"),
    ],
)
def test_what_does_not_fit_its_schema_is_named(sent: Obj, why: str) -> None:
    (text,) = type_errors(sent, SCHEMA)
    assert why in text


short_texts = st.text("abc", min_size=1, max_size=2)
objects = st.fixed_dictionaries(
    {},
    optional={
        "n": st.integers(0, 3),
        "m": st.dictionaries(short_texts, short_texts, max_size=3),
        "whole": st.dictionaries(short_texts, short_texts, max_size=2),
        "l": st.lists(
            st.fixed_dictionaries({"k": short_texts}, optional={"v": st.integers(0, 3)}),
            max_size=3,
            unique_by=lambda item: item["k"],
        ),
        "s": st.lists(short_texts, max_size=3, unique=True),
    },
)


def filled(obj: Obj) -> dict[Any, Any]:
    """The leaves without empty containers, which a merge cannot distinguish from missing ones."""
    return {
        path: value for path, value in ownable_leaves(obj, SCHEMA).items() if value not in ({}, [])
    }


@settings(max_examples=50)
@given(objects, objects)
def test_apply_sets_what_was_sent_and_is_idempotent(first: Obj, second: Obj) -> None:
    live, owners = applied({}, first, [], "one")
    live, owners = applied(live, second, owners, "two", force=True)
    assert filled(second).items() <= filled(live).items()
    again, owners_again = applied(live, second, decode(encode(owners)), "two")
    assert (again, encode(owners_again)) == (live, encode(owners))


@settings(max_examples=50)
@given(objects, objects)
def test_sole_manager_gets_exactly_what_it_sends(first: Obj, second: Obj) -> None:
    live, owners = applied({}, first, [], "one")
    live, _ = applied(live, second, owners, "one")
    assert filled(live) == filled(second)


@settings(max_examples=50)
@given(objects)
def test_managed_fields_survive_a_round_trip(obj: Obj) -> None:
    owner = by("one")
    owner.paths = set(ownable_leaves(obj, SCHEMA))
    again, *_ = decode(encode([owner])) or [by("one")]
    assert again.paths == owner.paths
