"""Which writes bring specs back, and what they cannot bring back."""

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimctl.analysis.history import Version
from aimctl.analysis.rollback import (
    MANAGER,
    ORDER,
    plan_rollback,
    restarts_pods,
    secret_names,
    tool_of,
)
from aimctl.analysis.spec_diff import canonical, path_text
from aimlab.apiserver.patch import json_patch
from aimschema.crds import immutable_fields
from aimschema.env_literals import hash_of, without_env_literals
from aimschema.kinds import KINDS, AIMServiceTemplate, ModelCache
from aimschema.labels import WORKLOAD_ID
from aimschema.resources import RESOURCES, Key

NOW = datetime.datetime(2030, 1, 2, tzinfo=datetime.UTC)
SERVICE = Key("AIMService", "ml", "chat")
CACHE = Key("ModelCache", "ml", "weights")


def version(key: Key, spec: dict[str, Any], **more: Any) -> Version:
    labels = more.pop("labels", {})
    return Version(key, 7, "u1", 3, NOW, spec, labels, {}, **more)


def live(key: Key, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    identity = {"name": key.name, "namespace": key.namespace, "uid": "u1", "resourceVersion": "9"}
    return {
        "apiVersion": RESOURCES[key.kind].api_version,
        "kind": key.kind,
        "metadata": identity | metadata,
        "spec": spec,
    }


def spec_entry(manager: str, *fields: str) -> dict[str, Any]:
    return {
        "manager": manager,
        "operation": "Apply",
        "fieldsV1": {"f:spec": {f"f:{name}": {} for name in fields}},
    }


def test_the_patch_has_only_differing_fields_and_guards() -> None:
    recorded = {"model": "m", "replicas": 1, "routing": {"a": 1, "b": 2}}
    body = live(SERVICE, {"model": "m", "replicas": 2, "routing": {"a": 1}, "configRef": "x"})
    plan = plan_rollback({SERVICE: version(SERVICE, recorded)}, {SERVICE: body})
    (write,) = plan.writes
    operations = write.operations(body)
    assert operations[:2] == [
        {"op": "test", "path": "/metadata/uid", "value": "u1"},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": "9"},
    ]
    assert sorted(each["path"] for each in operations[2:]) == [
        "/spec/configRef",
        "/spec/replicas",
        "/spec/routing/b",
    ]
    assert json_patch(body, operations)["spec"] == recorded


def test_an_equal_object_is_not_written() -> None:
    plan = plan_rollback({SERVICE: version(SERVICE, {"a": 1})}, {SERVICE: live(SERVICE, {"a": 1})})
    assert plan == plan_rollback({}, {})


def test_writes_are_in_the_order_of_dependencies() -> None:
    keys = [Key(kind, "ml", "x") for kind in reversed(ORDER)]
    plan = plan_rollback({key: version(key, {"a": 1}) for key in keys}, {})
    assert [write.key.kind for write in plan.writes] == list(ORDER)


def test_managers_that_lose_a_field_are_named() -> None:
    entries = [spec_entry("argo-rollouts", "replicas"), spec_entry(MANAGER, "replicas", "model")]
    body = live(SERVICE, {"model": "m", "replicas": 2}, managedFields=entries)
    plan = plan_rollback(
        {SERVICE: version(SERVICE, {"model": "m", "replicas": 1})}, {SERVICE: body}
    )
    assert plan.writes[0].takes == ((("replicas",), ("argo-rollouts",)),)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_immutable_fields_stay_and_are_named(kind: Any) -> None:
    fields = immutable_fields(kind)
    key = Key(kind.__name__, "ml", "x")
    recorded = {path[0]: "then" for path in fields} | {"free": "then"}
    body = live(key, {path[0]: "now" for path in fields} | {"free": "now"})
    plan = plan_rollback({key: version(key, recorded)}, {key: body})
    assert {each.path for each in plan.skipped if each.immutable} == fields
    assert plan.writes[0].spec == {path[0]: "now" for path in fields} | {"free": "then"}


def test_the_immutable_fields_are_those_of_the_reference() -> None:
    assert immutable_fields(ModelCache) >= {("sourceUri",)}
    assert immutable_fields(AIMServiceTemplate) >= {
        (name,)
        for name in (
            "model",
            "metric",
            "precision",
            "gpusPerReplica",
            "gpuModel",
            "tensorParallelism",
        )
    }


def env(*variables: tuple[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in variables]


@pytest.mark.parametrize(
    ("recorded", "current", "expected", "named"),
    [
        pytest.param(env(("A", "1")), env(("A", "1")), env(("A", "1")), [], id="still-there"),
        pytest.param(
            env(("A", "1")), env(("A", "2")), env(("A", "2")), ["spec.env.A"], id="another-value"
        ),
        pytest.param(env(("A", "1")), [], [], ["spec.env.A"], id="missing"),
        pytest.param(
            env(("B", "2"), ("A", "1")),
            env(("A", "1"), ("C", "3")),
            env(("A", "1")),
            ["spec.env.B"],
            id="one-of-two",
        ),
    ],
)
def test_a_literal_comes_back_only_if_it_is_there(
    recorded: Any, current: Any, expected: Any, named: list[str]
) -> None:
    past = version(CACHE, without_env_literals({"env": recorded, "size": "1Gi"}))
    body = live(CACHE, {"env": current, "size": "2Gi"})
    plan = plan_rollback({CACHE: past}, {CACHE: body})
    assert plan.writes[0].spec == {"env": expected, "size": "1Gi"}
    assert [path_text(each.path) for each in plan.skipped] == named
    assert not any("sha256" in str(each) for each in plan.writes[0].operations(body))


def test_a_hash_is_never_written_into_a_new_object() -> None:
    spec = {"env": [{"name": "A", "value": hash_of("1")}], "size": "1Gi"}
    plan = plan_rollback({CACHE: version(CACHE, spec)}, {})
    assert plan.writes[0].body["spec"] == {"env": [], "size": "1Gi"}


def test_a_cut_spec_cannot_be_put_back() -> None:
    past = version(CACHE, {}, truncated=("spec",))
    plan = plan_rollback({CACHE: past}, {CACHE: live(CACHE, {"size": "2Gi"})})
    assert plan.writes == ()
    assert "too large" in plan.skipped[0].reason


@pytest.mark.parametrize(
    ("labels", "path"), [({}, True), ({WORKLOAD_ID: "w"}, False)], ids=["without-id", "with-id"]
)
def test_a_re_created_service_gets_a_new_uid_and_path(labels: dict[str, str], path: bool) -> None:
    plan = plan_rollback({SERVICE: version(SERVICE, {"replicas": 1}, labels=labels)}, {})
    (note,) = plan.notes
    assert "new uid" in note
    assert ("new path" in note) == path
    assert plan.writes[0].body["metadata"].get("labels", {}) == labels


def test_a_later_object_stays() -> None:
    plan = plan_rollback({}, {SERVICE: live(SERVICE, {"replicas": 1})})
    assert plan.writes == ()
    assert "stays" in plan.notes[0]


def test_a_cache_of_the_control_plane_is_left_to_it() -> None:
    past = version(CACHE, {"size": "9Gi"}, labels={"app.kubernetes.io/managed-by": "aim"})
    plan = plan_rollback({CACHE: past}, {})
    assert plan.writes == ()
    assert plan.notes == (
        "ModelCache/ml/weights of 9Gi was evicted; the model is downloaded again if it is used",
    )


@pytest.mark.parametrize(
    ("metadata", "tool"),
    [
        ({"annotations": {"argocd.argoproj.io/tracking-id": "x"}}, "Argo CD"),
        ({"labels": {"argocd.argoproj.io/instance": "x"}}, "Argo CD"),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "x"}}, "Flux"),
        ({"labels": {"helm.toolkit.fluxcd.io/name": "x"}}, "Flux"),
        ({"annotations": {"meta.helm.sh/release-name": "x"}}, "Helm"),
        ({"labels": {"app.kubernetes.io/managed-by": "Helm"}}, "Helm"),
        ({"managedFields": [spec_entry("argocd-controller", "a")]}, "Argo CD"),
        ({"managedFields": [spec_entry("argocd-application-controller", "a")]}, "Argo CD"),
        ({"managedFields": [spec_entry("kustomize-controller", "a")]}, "Flux"),
        ({"managedFields": [spec_entry("helm-controller", "a")]}, "Flux"),
        ({"managedFields": [spec_entry("helm", "a")]}, "Helm"),
        ({"managedFields": [spec_entry("Helm", "a")]}, "Helm"),
        ({"managedFields": [spec_entry("Terraform", "a")]}, "Terraform"),
        ({"managedFields": [spec_entry("kubectl-edit", "a")]}, None),
        ({"managedFields": [{"manager": "helm", "fieldsV1": {"f:metadata": {}}}]}, None),
        ({"managedFields": ["x", None, {}]}, None),
        ({}, None),
    ],
)
def test_a_gitops_tool_is_found(metadata: dict[str, Any], tool: str | None) -> None:
    assert tool_of(live(SERVICE, {}, **metadata)) == tool


def test_what_a_tool_manages_is_written_only_by_force() -> None:
    body = live(SERVICE, {"a": 2}, labels={"kustomize.toolkit.fluxcd.io/name": "x"})
    past = {SERVICE: version(SERVICE, {"a": 1})}
    plan = plan_rollback(past, {SERVICE: body})
    assert (plan.writes, plan.managed) == ((), ((SERVICE, "Flux"),))
    forced = plan_rollback(past, {SERVICE: body}, force=True)
    assert (len(forced.writes), forced.managed) == (1, ())


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ({"env": [{"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}, {"s"}),
        ({"env": [{"valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]}, set()),
        ({"credentials": {"huggingFaceToken": {"name": "h", "key": "k"}}}, {"h"}),
        ({"credentials": {"s3": [{"accessKeyId": {"name": "a", "key": "k"}}]}}, {"a"}),
        ({"images": {"imagePullSecrets": ["p", "q"]}}, {"p", "q"}),
        ({"imagePullSecrets": [{"name": "p"}]}, {"p"}),
        ({"routing": {"gateway": {"name": "g"}}}, set()),
    ],
)
def test_the_secrets_of_a_spec(spec: dict[str, Any], names: set[str]) -> None:
    assert secret_names(spec) == names


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"minReplicas": 1}, {"minReplicas": 2, "maxReplicas": 2}, False),
        ({"deploymentStrategy": {"type": "Recreate"}}, {}, False),
        ({"minReplicas": 1, "containers": [1]}, {"minReplicas": 1, "containers": [2]}, True),
        ({}, {"tolerations": []}, True),
    ],
)
def test_a_change_of_replicas_restarts_no_pods(
    before: dict[str, Any], after: dict[str, Any], expected: bool
) -> None:
    bodies = [{"spec": {"predictor": predictor}} for predictor in (before, after)]
    assert restarts_pods(*bodies) == expected


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x", "a/b~c"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b/c", "d~e", ""]), inner, max_size=3)
    ),
    max_leaves=8,
)
SPECS = st.dictionaries(st.sampled_from(["a", "b", "env"]), VALUES, max_size=3)
ENVS = st.lists(
    st.tuples(st.sampled_from("ABC"), st.sampled_from(["1", "2"])), unique_by=lambda each: each[0]
)


@given(SPECS, SPECS)
def test_a_written_spec_is_the_recorded_one(recorded: Any, current: Any) -> None:
    """And a second run plans nothing."""
    past = {SERVICE: version(SERVICE, without_env_literals(recorded))}
    body = live(SERVICE, current)
    plan = plan_rollback(past, {SERVICE: body})
    for write in plan.writes:
        body = json_patch(body, write.operations(body))
        assert plan.skipped or canonical(body["spec"]) == canonical(recorded)
    assert plan_rollback(past, {SERVICE: body}).writes == ()


@given(ENVS, ENVS)
def test_literals_are_exact_or_named(recorded: Any, current: Any) -> None:
    past = version(CACHE, without_env_literals({"env": env(*recorded)}))
    body = live(CACHE, {"env": env(*current)})
    plan = plan_rollback({CACHE: past}, {CACHE: body})
    for write in plan.writes:
        body = json_patch(body, write.operations(body))
    named = {each.path[-1] for each in plan.skipped}
    final = {each["name"]: each["value"] for each in body["spec"]["env"]}
    expected, now = dict(recorded), dict(current)
    assert named == {name for name in expected if now.get(name) != expected[name]}
    assert final == {name: now[name] for name in expected if name in now}
