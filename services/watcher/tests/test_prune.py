"""How a body that is too large is cut."""

from typing import Any

import pytest

from aim_watcher.prune import DEEPEST, publishable, reduce_body, without_largest
from aimschema.messages import ObjectChanged, encode

OURS = {"app.kubernetes.io/managed-by": "aim"}


def body(kind: str, **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "1"},
        **more,
    }


def nested(levels: int) -> Any:
    node: Any = 1
    for _ in range(levels):
        node = {"a": [node]}
    return node


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        pytest.param(
            "AIMService",
            {"status": {"conditions": nested(2000)}},
            id="deeper-than-python-is-deleted",
        ),
        pytest.param("InferenceService", {"spec": nested(300)}, id="deeper-than-readers-go"),
        pytest.param("InferenceService", {"spec": nested(DEEPEST)}, id="just-too-deep"),
        pytest.param("AIMService", {"spec": nested(DEEPEST)}, id="of-ours"),
        pytest.param("Pod", {"status": {"reason": nested(DEEPEST)}}, id="where-a-string-belongs"),
    ],
)
def test_a_malformed_object_is_published_as_its_identity(kind: str, more: dict[str, Any]) -> None:
    whole = body(kind, **more)
    whole["metadata"] |= {"labels": OURS, "generation": 3}
    published, left_out = publishable(whole)
    assert published == body(kind) | {"metadata": body(kind)["metadata"] | {"generation": 3}}
    assert left_out == tuple(more)
    encode(
        ObjectChanged(
            kind=kind,
            namespace="ns",
            name="n",
            uid="u",
            resource_version="1",
            object=published,
            truncated=left_out,
        ),
    )


@pytest.mark.parametrize(
    ("kind", "more", "left"),
    [
        pytest.param("Pod", {"spec": ["x"]}, {"spec": []}, id="spec-is-a-list"),
        pytest.param("Pod", {"spec": "x"}, {"spec": None}, id="spec-is-text"),
        pytest.param(
            "Pod",
            {"spec": {"containers": "x"}},
            {"spec": {"containers": None}},
            id="containers-are-text",
        ),
        pytest.param(
            "Pod",
            {"spec": {"containers": ["x"]}},
            {"spec": {"containers": [None]}},
            id="container-is-text",
        ),
        pytest.param(
            "Pod",
            {"spec": {"containers": [{"env": "x"}]}},
            {"spec": {"containers": [{}]}},
            id="env-is-text",
        ),
        pytest.param(
            "Job",
            {"spec": {"template": {"spec": {"containers": [{"env": [7]}]}}}},
            {"spec": {}},
            id="env-of-numbers",
        ),
        pytest.param("Pod", {}, {}, id="without-spec"),
        pytest.param("Job", {"status": None}, {"status": None}, id="status-is-null"),
        pytest.param(
            "InferenceService",
            {"status": {"conditions": 7}},
            {"status": {"conditions": 7}},
            id="conditions-are-a-number",
        ),
        pytest.param("ConfigMap", {"data": ["x"]}, {"data": []}, id="data-is-a-list"),
    ],
)
def test_the_read_fields_of_any_object_are_published(
    kind: str, more: dict[str, Any], left: dict[str, Any]
) -> None:
    ours = {
        "labels": OURS,
        "ownerReferences": [
            {"apiVersion": "aim.silogen.ai/v1alpha1", "kind": "AIMService", "name": "s", "uid": "o"}
        ],
    }
    whole = body(kind, **more)
    whole["metadata"] |= ours
    published, left_out = publishable(whole)
    assert (published, left_out) == (
        body(kind) | {"metadata": body(kind)["metadata"] | ours} | left,
        (),
    )


@pytest.mark.parametrize(
    "whole",
    [
        body("AIMService", spec={"a": [1]}),
        body("Job", spec={"a": 1}),
        body("AIMService", status={"conditions": nested(2000)}),
    ],
)
def test_a_list_retains_what_is_published(whole: dict[str, Any]) -> None:
    whole["metadata"] |= {"labels": OURS, "annotations": {"a": BIG}}
    assert publishable(reduce_body(whole)) == publishable(whole)


def test_a_body_that_is_not_too_deep_is_published_whole() -> None:
    whole = body("AIMService", spec=nested(DEEPEST // 2 - 2))
    assert publishable(whole) == (whole, ())


BIG = "x" * 1000


@pytest.mark.parametrize(
    ("more", "path"),
    [
        pytest.param({"data": {"big": BIG, "small": "y"}}, "data.big", id="one-huge-field"),
        pytest.param(
            {"spec": {"a": 1}, "status": {"x": {"log": BIG, "phase": "p"}}},
            "status.x.log",
            id="deep",
        ),
        pytest.param(
            {"status": {"conditions": [BIG, BIG]}, "spec": {"a": 1}},
            "status.conditions",
            id="lists-go-whole",
        ),
        pytest.param({"data": {"a": BIG, "b": BIG, "c": BIG}}, "data", id="bulk-in-many-pieces"),
    ],
)
def test_the_largest_part_is_removed_and_others_stay(more: dict[str, Any], path: str) -> None:
    truncated = without_largest(body("ConfigMap", **more))
    assert truncated is not None
    assert truncated[1] == path
    assert BIG not in str(truncated[0])


def test_a_huge_annotation_is_removed_and_identity_stays() -> None:
    object_ = body("ConfigMap", data={"a": "b"})
    object_["metadata"]["annotations"] = {"note": BIG, "other": "1"}
    truncated = without_largest(object_)
    assert truncated is not None
    assert truncated[1] == "metadata.annotations.note"
    assert truncated[0]["metadata"] == body("ConfigMap")["metadata"] | {
        "annotations": {"other": "1"}
    }


def test_shrinking_ends_with_identity() -> None:
    object_ = body("ConfigMap", data={"a": BIG, "b": "c"}, immutable=True)
    paths = []
    while (truncated := without_largest(object_)) is not None:
        object_, path = truncated
        paths.append(path)
    assert object_ == body("ConfigMap")
    assert paths[0] == "data.a"
