"""Labels of images: both prefixes, both notations, and malformed values."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_discovery.image_labels import Deployment, ImageLabels, read_labels

NEW = "com.amd.aim."
OLD = "org.amd.silogen."
ONE: dict[str, Any] = {
    "gpuModel": "MI300X",
    "gpuCount": 8,
    "precision": "fp8",
    "metric": "latency",
    "description": "d",
    "profileId": "p",
}
TWO: dict[str, Any] = {
    "gpuModel": "MI325X",
    "gpuCount": 1,
    "precision": "fp16",
    "metric": "throughput",
}
READ = (
    Deployment("MI300X", 8, "fp8", "latency", "d", "p"),
    Deployment("MI325X", 1, "fp16", "throughput"),
)


def recommended(text: str) -> tuple[Deployment, ...]:
    return read_labels(
        {NEW + "model.canonicalName": "m", NEW + "model.recommendedDeployments": text}
    ).recommended


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(json.dumps([ONE, TWO]), id="json-list"),
        pytest.param(f"{ONE!r},{TWO!r}", id="single-quoted-dicts"),
        pytest.param(f" {ONE!r} , {TWO!r} , ", id="single-quoted-with-spaces-and-a-last-comma"),
        pytest.param(
            json.dumps([{**ONE, "gpuCount": "8", "more": [1]}, {**TWO, "description": None}]),
            id="count-as-text-and-unknown-fields",
        ),
    ],
)
def test_both_notations_have_the_same_meaning(text: str) -> None:
    assert recommended(text) == READ


def test_one_dict_is_a_list_of_one() -> None:
    assert recommended(json.dumps(ONE)) == recommended(repr(ONE)) == READ[:1]


def test_the_newer_prefix_counts_label_by_label() -> None:
    labels = {
        OLD + "model.canonicalName": "old",
        NEW + "model.canonicalName": "new",
        OLD + "model.source": "hf://o/m",
        OLD + "hfToken.required": "True",
        NEW + "title": "",
        OLD + "title": "Title",
        "org.opencontainers.image.version": "1.2",
        "maintainer": "unknown",
    }
    assert read_labels(labels) == ImageLabels(
        "new", "hf://o/m", (), True, "Title", {"version": "1.2"}
    )


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        pytest.param(
            {"org.opencontainers.image.title": "x"}, "none of the labels", id="none-of-ours"
        ),
        pytest.param(
            {NEW + "model.recommendedDeployments": "MI300X"},
            "not a list of deployments",
            id="a-string",
        ),
        pytest.param(
            {NEW + "model.recommendedDeployments": "[1]"}, "not a list of deployments", id="numbers"
        ),
        pytest.param(
            {NEW + "model.recommendedDeployments": "__import__('os').abort()"},
            "not a list of deployments",
            id="code",
        ),
        pytest.param(
            {NEW + "model.recommendedDeployments": "[" * 60_000},
            "not a list of deployments",
            id="nested-too-deep",
        ),
        pytest.param(
            {NEW + "model.recommendedDeployments": "x" * 70_000},
            "longer than 64 KiB",
            id="too-long",
        ),
        pytest.param(
            {NEW + "model.recommendedDeployments": json.dumps([ONE] * 65)},
            "65 deployments; at most 64",
            id="too-many",
        ),
        pytest.param(
            {NEW + "model.recommendedDeployments": '[{"gpuCount": 0}]'}, "gpuCount", id="no-gpus"
        ),
        pytest.param(
            {NEW + "model.recommendedDeployments": '[{"gpuCount": "many"}]'},
            "gpuCount",
            id="count-as-text",
        ),
        pytest.param(
            {NEW + "model.recommendedDeployments": '[{"gpuCount": true}]'},
            "gpuCount",
            id="count-a-truth",
        ),
        pytest.param(
            {NEW + "model.recommendedDeployments": '[{"gpuModel": ["x"]}]'},
            "gpuModel",
            id="model-a-list",
        ),
    ],
)
def test_a_malformed_label_is_reported(labels: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        read_labels(labels)


def test_values_are_one_printable_line_cut_to_size() -> None:
    [found] = recommended(
        json.dumps([{"gpuModel": "a\x1b[31m\nb\u202ec", "description": "x" * 9999}])
    )
    assert (found.gpu_model, len(found.description)) == ("a [31m b c", 256)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*ONE, "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON, st.sampled_from([json.dumps, repr, str]))
def test_any_label_is_read_or_rejected(value: Any, notation: Any) -> None:
    try:
        found = recommended(notation(value))
    except ValueError:
        return
    assert all(
        part.isprintable() and len(part) <= 256
        for each in found
        for part in (each.gpu_model, each.metric, each.precision, each.description)
    )


@pytest.mark.parametrize(
    ("deployment", "requested", "fits"),
    [
        (READ[0], Deployment("MI300X", 8, "fp8", "latency"), True),
        (READ[0], Deployment("mi300x", 8, "auto", "latency"), True),
        (READ[0], Deployment("MI300X", 8, "fp16", "latency"), False),
        (READ[0], Deployment("MI300X", 4, "fp8", "latency"), False),
        (READ[0], Deployment("MI325X", 8, "fp8", "latency"), False),
        (READ[0], Deployment("MI300X", 8, "fp8", "throughput"), False),
        (Deployment("MI300X"), Deployment("MI300X", 2, "int4", "throughput"), True),
        (Deployment(precision="auto"), Deployment("L4", 1, "int4", "latency"), True),
    ],
)
def test_what_a_recommended_deployment_supports(
    deployment: Deployment, requested: Deployment, *, fits: bool
) -> None:
    assert deployment.supports(requested) is fits
