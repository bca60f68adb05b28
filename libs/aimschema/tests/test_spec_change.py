"""Which manager last changed the spec of an object."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimschema.spec_change import UNKNOWN, SpecChange, newest_spec_change

EARLY, LATE = "2030-01-02T03:04:05Z", "2030-01-02T03:04:06Z"
SPEC: dict[str, Any] = {"f:spec": {"f:replicas": {}}}
METADATA: dict[str, Any] = {"f:metadata": {"f:labels": {"f:a": {}}}}


def entry(
    manager: Any, time: Any = EARLY, fields: Any = None, operation: Any = "Update", **more: Any
) -> dict[str, Any]:
    found = {
        "manager": manager,
        "operation": operation,
        "apiVersion": "aim.silogen.ai/v1alpha1",
        "fieldsType": "FieldsV1",
        "fieldsV1": SPEC if fields is None else fields,
        **more,
    }
    return found if time is None else found | {"time": time}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param([], UNKNOWN, id="none"),
        pytest.param([entry("a")], SpecChange("a", "Update", EARLY), id="one"),
        pytest.param(
            [entry("a", LATE), entry("b")], SpecChange("a", "Update", LATE), id="the-newest"
        ),
        pytest.param(
            [entry("argocd-controller", LATE, operation="Apply"), entry("kubectl-edit")],
            SpecChange("argocd-controller", "Apply", LATE),
            id="apply-after-update",
        ),
        pytest.param(
            [entry("a"), entry("aim-statuswriter", LATE, subresource="status")],
            SpecChange("a", "Update", EARLY),
            id="a-subresource-is-no-change-of-the-spec",
        ),
        pytest.param(
            [entry("a"), entry("autoscaler", LATE, subresource="scale")],
            SpecChange("a", "Update", EARLY),
            id="scale-is-a-subresource-too",
        ),
        pytest.param(
            [entry("a"), entry("labeller", LATE, METADATA)],
            SpecChange("a", "Update", EARLY),
            id="labels-are-no-spec",
        ),
        pytest.param(
            [entry("s", fields={"f:status": {"f:status": {}}})], UNKNOWN, id="status-alone"
        ),
        pytest.param(
            [entry("a", fields={"f:spec": {}})],
            SpecChange("a", "Update", EARLY),
            id="the-spec-as-a-whole",
        ),
        pytest.param(
            [entry("timeless", None), entry("a")],
            SpecChange("a", "Update", EARLY),
            id="without-time-is-older",
        ),
        pytest.param(
            [entry("timeless", None)], SpecChange("timeless", "Update", ""), id="only-without-time"
        ),
        pytest.param(
            [entry("b", "yesterday"), entry("a")],
            SpecChange("a", "Update", EARLY),
            id="a-time-that-is-none",
        ),
        pytest.param(
            [entry("b", "9999-12-31T23:59:59-14:00"), entry("a")],
            SpecChange("a", "Update", EARLY),
            id="a-time-after-all-times",
        ),
        pytest.param(
            [entry("a", "2030-01-02T05:04:06+02:00"), entry("b")],
            SpecChange("a", "Update", LATE),
            id="times-compare-across-zones",
        ),
        pytest.param(
            [entry("a", operation="Apply"), entry("b")],
            SpecChange("b", "Update", EARLY),
            id="equal-times-as-the-server-sorts",
        ),
        pytest.param(
            [entry("a"), entry("b")],
            SpecChange("b", "Update", EARLY),
            id="equal-times-by-manager",
        ),
    ],
)
def test_the_newest_change_of_the_spec(entries: list[dict[str, Any]], expected: SpecChange) -> None:
    assert {newest_spec_change(list(order)) for order in itertools.permutations(entries)} == {
        expected
    }


@pytest.mark.parametrize(
    "malformed",
    [
        entry("b", LATE, fields=[]),
        entry("b", LATE, fields="f:spec"),
        entry("b", LATE, fields={"f:spec": None}),
        entry("b", LATE, fields={"f:spec": "x"}),
        entry(None, LATE),
        entry("", LATE),
        entry(7, LATE),
        entry("b", LATE, operation=None),
        {"manager": "b"},
        "b",
        None,
        7,
    ],
)
def test_a_malformed_entry_is_ignored(malformed: Any) -> None:
    assert newest_spec_change([malformed, entry("a")]) == SpecChange("a", "Update", EARLY)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["manager", "operation", "time", "fieldsV1", "f:spec", "subresource"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_managed_fields_raise(managed_fields: Any) -> None:
    assert all(isinstance(value, str) for value in newest_spec_change(managed_fields))
