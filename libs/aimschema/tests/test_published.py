"""The published part of an object."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimschema.discovery_result import LARGEST_ELEMENT_BYTES
from aimschema.labels import PREFIX
from aimschema.published import (
    HASHES,
    hashed_field,
    limit_bytes,
    published_part,
    size_bytes,
    tombstone,
)
from aimschema.resources import AIM_KINDS, RESOURCES, WATCHED

Body = dict[str, Any]
SECRET = "hf_hunter2"
OWNER = {"apiVersion": "aim.silogen.ai/v1alpha1", "kind": "AIMService", "name": "s", "uid": "o"}
OURS = {"ownerReferences": [OWNER]}
ENV = [
    {"name": "HF_TOKEN", "value": SECRET},
    {"name": "REF", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
]
PROBE = {"httpGet": {"path": "/", "httpHeaders": [{"name": "Authorization", "value": SECRET}]}}
CONTAINER = {
    "name": "c",
    "env": ENV,
    "args": [f"--password={SECRET}"],
    "command": ["sh", "-c", SECRET],
    "livenessProbe": PROBE,
    "readinessProbe": {"exec": {"command": [SECRET]}},
    "lifecycle": {"preStop": PROBE},
}
POD_SPEC = {
    "containers": [CONTAINER],
    "initContainers": [CONTAINER],
    "ephemeralContainers": [CONTAINER],
}
SERVING: Body = {
    "predictor": {**POD_SPEC, "model": {**CONTAINER, "name": ""}, "workerSpec": POD_SPEC},
    "transformer": POD_SPEC,
    "explainer": POD_SPEC,
}
FILTER = {
    "type": "RequestHeaderModifier",
    "requestHeaderModifier": {"set": [{"name": "Authorization", "value": SECRET}]},
}


def body(kind: str, metadata: Body | None = None, **more: Any) -> Body:
    identity = {"name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "1"}
    return {
        "apiVersion": RESOURCES[kind].api_version,
        "kind": kind,
        "metadata": identity | (metadata or {}),
        **more,
    }


SECRETS = [
    pytest.param(body("Pod", spec=POD_SPEC), id="pod"),
    pytest.param(body("Job", OURS, spec={"template": {"spec": POD_SPEC}}), id="job"),
    pytest.param(body("InferenceService", OURS, spec=SERVING), id="inference-service"),
    pytest.param(
        body(
            "HTTPRoute",
            OURS,
            spec={"rules": [{"filters": [FILTER], "backendRefs": [{"filters": [FILTER]}]}]},
        ),
        id="route",
    ),
    pytest.param(
        body("ConfigMap", OURS, data={"password": SECRET}, binaryData={"p": SECRET}),
        id="config-map",
    ),
    pytest.param(
        body(
            "Pod",
            {
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": SECRET,
                    "note": SECRET,
                }
            },
        ),
        id="annotation",
    ),
    pytest.param(
        body("AIMService", {"annotations": {"note": SECRET}, "managedFields": [{"x": SECRET}]}),
        id="annotation-of-ours",
    ),
    pytest.param(body("StorageClass", parameters={"password": SECRET}), id="storage-class"),
    *(
        pytest.param(
            body(kind, {"labels": {"x": SECRET}}, spec={"a": SECRET}, status={"b": SECRET}),
            id=f"foreign-{kind}",
        )
        for kind in ("Job", "PersistentVolumeClaim", "InferenceService", "HTTPRoute")
    ),
    pytest.param(
        body(
            "ConfigMap", {"labels": {"app.kubernetes.io/managed-by": "aim"}}, data={"image": SECRET}
        ),
        id="foreign-config-map",
    ),
]


@pytest.mark.parametrize("before", SECRETS)
def test_secrets_stay_off_the_bus(before: Body) -> None:
    untouched = copy.deepcopy(before)
    assert SECRET not in json.dumps(published_part(before))
    assert before == untouched


@pytest.mark.parametrize("before", SECRETS)
def test_what_is_published_already_stays_as_it_is(before: Body) -> None:
    assert published_part(published_part(before)) == published_part(before)


@pytest.mark.parametrize("resource", AIM_KINDS, ids=lambda resource: resource.kind)
def test_our_kinds_go_whole(resource: Any) -> None:
    before = body(
        resource.kind,
        {"labels": {"x": "y"}},
        spec={"env": ENV, "x": {"y": [1]}},
        status={"status": "Failed"},
    )
    assert published_part(before) == before


def test_an_edit_of_a_literal_shows_in_its_hash() -> None:
    before = body("InferenceService", OURS, spec=SERVING)
    edited = body("InferenceService", OURS, spec=json.loads(json.dumps(SERVING)))
    edited["spec"]["predictor"]["containers"][0]["env"][0]["value"] = "other"
    one, other = published_part(before), published_part(edited)
    assert {name: value for name, value in one.items() if name != HASHES} == {
        name: value for name, value in other.items() if name != HASHES
    }
    (path,) = [path for path in one[HASHES] if one[HASHES][path] != other[HASHES][path]]
    assert path == "spec.predictor.containers[c].env[HF_TOKEN]"
    assert hashed_field(path) == ("spec", "predictor", "containers")


@pytest.mark.parametrize(
    "owner",
    [{"labels": {"app.kubernetes.io/managed-by": "aim"}}, OURS],
    ids=["by-label", "by-owner"],
)
@pytest.mark.parametrize("kind", ["Job", "PersistentVolumeClaim", "InferenceService", "HTTPRoute"])
def test_ours_go_with_what_is_read(kind: str, owner: Body) -> None:
    assert published_part(
        body(kind, owner, status={"conditions": [{"type": "Ready"}]}, spec={"suspend": True})
    )["spec"] == {"suspend": True}


def test_a_foreign_object_goes_as_what_takes_a_name() -> None:
    metadata = {
        "labels": {PREFIX + "service": "s", "x": "y"},
        "ownerReferences": [{"kind": "Deployment", "name": "d", "uid": "d"}],
    }
    reduced = {**metadata, "labels": {PREFIX + "service": "s"}}
    assert published_part(body("InferenceService", metadata, spec=SERVING)) == body(
        "InferenceService", reduced
    )


def test_annotations_that_are_read_go() -> None:
    read = {
        PREFIX + "retry": "1",
        "serving.kserve.io/stop": "true",
        "storageclass.kubernetes.io/is-default-class": "true",
    }
    assert (
        published_part(body("StorageClass", {"annotations": read | {"x": "y"}}))["metadata"][
            "annotations"
        ]
        == read
    )


def test_a_route_of_ours_goes_with_all_short_annotations() -> None:
    """Users choose some of them, and the drift of one is repaired."""
    annotations = {"example.org/ttl": "60", "example.org/long": "x" * 1025}
    for metadata, expected in ((OURS, {"example.org/ttl": "60"}), ({}, {})):
        route = body("HTTPRoute", metadata | {"annotations": annotations})
        assert published_part(route)["metadata"]["annotations"] == expected


def test_a_long_annotation_is_none_of_ours() -> None:
    assert (
        published_part(body("AIMService", {"annotations": {PREFIX + "retry": "x" * 1025}}))[
            "metadata"
        ]["annotations"]
        == {}
    )


def test_a_status_without_end_keeps_ready() -> None:
    conditions = [
        *({"type": f"T{number}"} for number in range(200)),
        "no condition",
        {"type": "Ready"},
    ]
    reduced = published_part(body("InferenceService", OURS, status={"conditions": conditions}))[
        "status"
    ]["conditions"]
    assert (len(reduced), reduced[0]) == (100, {"type": "Ready"})


def test_a_tombstone_has_the_identity_of_its_object() -> None:
    deleted = body(
        "Job",
        OURS | {"labels": {"x": "y"}, "annotations": {PREFIX + "x": "y"}},
        spec={"a": 1},
        status={"b": 1},
    )
    assert tombstone(deleted) == body("Job", OURS)


def test_a_tombstone_does_not_grow_with_its_owners() -> None:
    assert tombstone(
        body("Job", {"ownerReferences": [OWNER | {"uid": f"u{number}"} for number in range(1000)]})
    ) == body("Job")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["env", "args", "name", "value", "containers", "conditions"]), inner
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(WATCHED), VALUES, VALUES, VALUES)
def test_whatever_an_object_holds_it_is_published(
    resource: Any, spec: Any, status: Any, data: Any
) -> None:
    once = published_part(body(resource.kind, OURS, spec=spec, status=status, data=data))
    assert published_part(once) == once


def test_a_spec_without_bottom_is_cut() -> None:
    deep: Body = {}
    for _ in range(5000):
        deep = {"x": deep}
    json.dumps(published_part(body("InferenceService", OURS, spec=deep)))


def test_the_largest_answer_fits() -> None:
    answer = body(
        "ConfigMap",
        OURS,
        data={"result.json": '"' * LARGEST_ELEMENT_BYTES, "image": "registry/model:1"},
    )
    assert size_bytes(published_part(answer)) <= limit_bytes("ConfigMap")
