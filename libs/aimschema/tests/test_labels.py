"""Labels: whatever an object is called, its label value is one the API server takes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimschema import labels

VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")


@given(st.text(max_size=300))
def test_every_label_value_is_valid(text: str) -> None:
    value = labels.label_value(text)
    assert VALUE.fullmatch(value)
    assert len(value) <= 63


@given(st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", fullmatch=True))
def test_a_valid_value_stays_as_it_is(text: str) -> None:
    assert labels.label_value(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("meta/llama-3-8b:1.1+20240915", "meta-llama-3-8b-1.1-20240915"),
        ("a" * 62 + "-b", "a" * 62),
        ("/model/", "model"),
        ("///", ""),
        ("mødel", "m-del"),
    ],
)
def test_other_texts_are_made_to_fit(text: str, value: str) -> None:
    assert labels.label_value(text) == value


def test_the_labels_of_everything_made() -> None:
    assert labels.common_labels(labels.COMPONENT_CACHE, modelcache="c", model="a/b") == {
        "app.kubernetes.io/managed-by": "aim",
        "app.kubernetes.io/component": "cache",
        "aim.silogen.ai/model": "a-b",
        "aim.silogen.ai/modelcache": "c",
    }


def test_a_name_that_leaves_nothing_gets_no_label() -> None:
    assert labels.LABEL_MODEL not in labels.common_labels(labels.COMPONENT_ROUTING, model="///")
