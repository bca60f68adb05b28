"""Equal parts of objects are stored once, and no object changes by it."""

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimcontroller.projection import Projection, fold
from aimcontroller.shared_parts import MOST_SPECS, share_parts
from aimcontroller.testing import changed, obj
from aimschema.resources import INFERENCE_SERVICE, Key

SPEC: dict[str, Any] = {
    "predictor": {"containers": [{"name": "c", "image": "example.org/m:1", "env": []}] * 3}
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 1) | st.sampled_from(["a", "True", 0.0, 1.0]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2)
    ),
)
CONDITIONS = VALUES | st.lists(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(["type", "status", "reason", "message", "other"], VALUES)
    )
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "spec": VALUES | VALUES.map(lambda value: {"padding": "x" * 80, "value": value}),
        "status": VALUES | st.fixed_dictionaries({"conditions": CONDITIONS}),
    },
)


def encoded(body: object) -> bytes:
    """Also tells apart what is equal in Python: True and 1."""
    return msgspec.json.encode(body)


@given(st.lists(BODIES, max_size=6))
def test_a_body_stays_what_it_is(bodies: list[dict[str, Any]]) -> None:
    before = [encoded(body) for body in bodies]
    for body in bodies:
        share_parts(body)
    assert [encoded(body) for body in bodies] == before


@pytest.mark.parametrize("spec", [{"n": {1, 2}}, {"n": 1 << 80}, {"n": "\ud800"}, "text", 7])
def test_a_spec_that_json_does_not_hold_stays(spec: Any) -> None:
    body = {"spec": spec}
    share_parts(body)
    assert body["spec"] is spec


def test_objects_with_an_equal_spec_share_it() -> None:
    state = Projection()
    for name in "ab":
        body = obj(INFERENCE_SERVICE.kind, name, spec=copy.deepcopy(SPEC))
        state = fold(state, changed(body), 1)
    specs = [
        found.spec
        for name in "ab"
        if (found := state.get(Key(INFERENCE_SERVICE.kind, "team", name))) is not None
    ]
    assert specs == [SPEC, SPEC]
    assert specs[0] is specs[1]


def test_a_spec_that_was_changed_is_not_shared() -> None:
    first, second = ({"spec": copy.deepcopy(SPEC)} for _ in range(2))
    share_parts(first)
    first["spec"]["predictor"] = {}
    share_parts(second)
    assert second["spec"] == SPEC


def test_only_the_latest_specs_are_known() -> None:
    def spec_of(number: int) -> Any:
        body = {"spec": {"padding": "x" * 80, "number": number}}
        share_parts(body)
        return body["spec"]

    first = spec_of(0)
    assert spec_of(0) is first
    for number in range(1, MOST_SPECS + 1):
        spec_of(number)
    assert spec_of(0) is not first


def test_texts_of_conditions_are_stored_once() -> None:
    bodies = [
        {"status": {"conditions": [{"type": "Ready", "message": "".join(["why ", str(30)])}]}}
        for _ in range(2)
    ]
    for body in bodies:
        share_parts(body)
    one, two = (body["status"]["conditions"][0]["message"] for body in bodies)
    assert one is two
