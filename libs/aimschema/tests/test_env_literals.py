"""Hashes in place of literal values of environment variables, and the values again."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimschema.env_literals import hash_of, restore, without_env_literals

SECRET = "hf_hunter2"
HASH = "sha256:" + hashlib.sha256(SECRET.encode()).hexdigest()
REFERENCE = {"name": "REF", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}


def env(value: Any) -> list[dict[str, Any]]:
    return [{"name": "HF_TOKEN", "value": value}, REFERENCE]


SPECS = [
    pytest.param(lambda value: {"env": env(value)}, id="cache-service-or-template"),
    pytest.param(
        lambda value: {"caching": {"download": {"env": env(value)}}}, id="downloads-of-a-config"
    ),
    pytest.param(lambda value: {"env": {"HF_TOKEN": value}}, id="a-map"),
    pytest.param(lambda value: {"steps": [{"name": "a", "env": env(value)}]}, id="in-a-list"),
    pytest.param(lambda value: {"env": [{"value": value}]}, id="without-a-name"),
]


@pytest.mark.parametrize("spec", SPECS)
def test_a_literal_becomes_its_hash(spec: Any) -> None:
    assert without_env_literals(spec(SECRET)) == spec(HASH)
    assert hash_of(SECRET) == HASH


@pytest.mark.parametrize("spec", SPECS)
def test_a_literal_that_the_object_has_comes_back(spec: Any) -> None:
    assert restore(spec(HASH), spec(SECRET)) == (spec(SECRET), ())


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("other", ["another", None])
def test_another_value_is_no_source_of_a_literal(spec: Any, other: Any) -> None:
    restored, missing = restore(spec(HASH), spec(other) if other else {})
    assert restored == spec(HASH)
    assert len(missing) == 1


@pytest.mark.parametrize(
    "spec",
    [
        {"env": [REFERENCE]},
        {"env": [{"name": "EMPTY", "value": ""}]},
        {"env": None},
        {"env": "text"},
        {"env": ["a", 1, None]},
        {"sourceUri": "hf://a/b", "value": "no variable"},
    ],
)
def test_all_else_stays(spec: Any) -> None:
    assert without_env_literals(spec) == spec


def test_literals_keep_their_place_when_the_order_changes() -> None:
    recorded = [{"name": "A", "value": hash_of("1")}, {"name": "B", "value": hash_of("2")}]
    current = {"env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]}
    assert restore({"env": recorded}, current) == (
        {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
        (),
    )


def test_too_deep_a_spec_does_not_raise() -> None:
    deep: dict[str, Any] = {}
    for _ in range(900):
        deep = {"a": deep}
    without_env_literals({"a": deep})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["env", "name", "value", "a"]), inner, max_size=4)
    ),
    max_leaves=15,
)


@given(JSON)
def test_any_spec_is_restored_from_itself(spec: Any) -> None:
    assert restore(without_env_literals(spec), spec) == (spec, ())
