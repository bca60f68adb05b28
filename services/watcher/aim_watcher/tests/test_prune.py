"""What of an object goes on the bus."""

import copy
from typing import Any

import pytest

from aim_watcher.prune import DEEPEST, prune, publishable, without_largest
from aimschema.messages import ObjectChanged, encode

SECRET_REF = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
ENV = [{"name": "PASSWORD", "value": "hunter2"}, SECRET_REF, {"name": "EMPTY"}]
PRUNED_ENV = [{"name": "PASSWORD"}, SECRET_REF, {"name": "EMPTY"}]


def body(kind: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "1"}, **more}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            body("Pod", spec={"containers": [{"name": "a", "env": ENV}], "initContainers": [{"name": "b", "env": ENV}]}),
            body("Pod", spec={"containers": [{"name": "a", "env": PRUNED_ENV}], "initContainers": [{"name": "b", "env": PRUNED_ENV}]}),
            id="pod-env",
        ),
        pytest.param(
            body("Job", spec={"template": {"spec": {"containers": [{"name": "a", "env": ENV}], "ephemeralContainers": None}}}),
            body("Job", spec={"template": {"spec": {"containers": [{"name": "a", "env": PRUNED_ENV}], "ephemeralContainers": None}}}),
            id="job-env",
        ),
        pytest.param(body("AIMService", spec={"env": ENV}), body("AIMService", spec={"env": ENV}), id="env-of-other-kinds-stays"),
        pytest.param(body("Pod"), body("Pod"), id="pod-without-spec"),
    ],
)
def test_literal_env_values_stay_off_the_bus(before: dict[str, Any], after: dict[str, Any]) -> None:
    untouched = copy.deepcopy(before)
    assert prune(before) == after
    assert before == untouched


def test_bookkeeping_of_the_api_server_and_of_kubectl_is_left_out() -> None:
    object_ = body("ConfigMap")
    object_["metadata"] |= {"managedFields": [{}], "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "1"}}
    pruned = prune(object_)
    assert pruned["metadata"] == body("ConfigMap")["metadata"] | {"annotations": {"mine": "1"}}


def nested(levels: int) -> Any:
    node: Any = 1
    for _ in range(levels):
        node = {"a": [node]}
    return node


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        pytest.param("InferenceService", {"status": {"conditions": nested(2000)}}, id="deeper-than-python-goes"),
        pytest.param("InferenceService", {"spec": nested(300)}, id="deeper-than-readers-go"),
        pytest.param("InferenceService", {"spec": nested(DEEPEST)}, id="just-too-deep"),
        pytest.param("Pod", {"spec": ["x"]}, id="spec-is-a-list"),
        pytest.param("Pod", {"spec": {"containers": "x"}}, id="containers-are-text"),
        pytest.param("Pod", {"spec": {"containers": ["x"]}}, id="container-is-text"),
        pytest.param("Pod", {"spec": {"containers": [{"env": "x"}]}}, id="env-is-text"),
        pytest.param("Job", {"spec": {"template": {"spec": {"containers": [{"env": [7]}]}}}}, id="env-of-numbers"),
    ],
)
def test_what_cannot_be_pruned_is_published_by_identity_alone(kind: str, more: dict[str, Any]) -> None:
    whole = body(kind, **more)
    whole["metadata"] |= {"labels": {"a": "b"}, "generation": 3}
    published, left_out = publishable(whole)
    assert published == body(kind) | {"metadata": body(kind)["metadata"] | {"generation": 3}}
    assert left_out == tuple(more)
    encode(
        ObjectChanged(kind=kind, namespace="ns", name="n", uid="u", resource_version="1", object=published, truncated=left_out),
    )


STRINGS = ["x"] * 101
MIXED: list[Any] = [None, 7, [], {"type": "Other"}, *[{"type": "Other"}] * 100, {"type": "Ready", "status": "True"}]


@pytest.mark.parametrize(
    ("conditions", "left"),
    [pytest.param(STRINGS, STRINGS[:100], id="101-strings"), pytest.param(MIXED, [MIXED[-1], *MIXED[:99]], id="ready-among-whatever")],
)
def test_conditions_of_any_shape_are_cut(conditions: list[Any], left: list[Any]) -> None:
    published, left_out = publishable(body("InferenceService", status={"conditions": conditions}))
    assert (published["status"]["conditions"], left_out) == (left, ())


def test_what_is_not_too_deep_is_published_whole() -> None:
    whole = body("InferenceService", spec=nested(DEEPEST // 2 - 2))
    assert publishable(whole) == (whole, ())


BIG = "x" * 1000


@pytest.mark.parametrize(
    ("more", "path"),
    [
        pytest.param({"data": {"big": BIG, "small": "y"}}, "data.big", id="one-huge-field"),
        pytest.param({"spec": {"a": 1}, "status": {"x": {"log": BIG, "phase": "p"}}}, "status.x.log", id="deep"),
        pytest.param({"status": {"conditions": [BIG, BIG]}, "spec": {"a": 1}}, "status.conditions", id="lists-go-whole"),
        pytest.param({"data": {"a": BIG, "b": BIG, "c": BIG}}, "data", id="bulk-in-many-pieces"),
    ],
)
def test_the_largest_part_goes_and_its_neighbours_stay(more: dict[str, Any], path: str) -> None:
    shrunk = without_largest(body("ConfigMap", **more))
    assert shrunk is not None
    assert shrunk[1] == path
    assert BIG not in str(shrunk[0])


def test_a_huge_annotation_goes_and_identity_stays() -> None:
    object_ = body("ConfigMap", data={"a": "b"})
    object_["metadata"]["annotations"] = {"note": BIG, "other": "1"}
    shrunk = without_largest(object_)
    assert shrunk is not None
    assert shrunk[1] == "metadata.annotations.note"
    assert shrunk[0]["metadata"] == body("ConfigMap")["metadata"] | {"annotations": {"other": "1"}}


def test_shrinking_ends_with_identity() -> None:
    object_ = body("ConfigMap", data={"a": BIG, "b": "c"}, immutable=True)
    paths = []
    while (shrunk := without_largest(object_)) is not None:
        object_, path = shrunk
        paths.append(path)
    assert object_ == body("ConfigMap")
    assert paths[0] == "data.a"
