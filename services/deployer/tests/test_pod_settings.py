"""Pod settings of a service and of its config, as they reach the pods."""

from typing import Any

import pytest

from aimcontroller.testing import Body, applied, golden, projection
from aimschema import labels
from aimschema.resources import INFERENCE_SERVICE

RESTRICTED = {
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "podSecurityContext": {"fsGroup": 1000, "runAsUser": 1000},
}
OF_CONFIG = {
    "env": [{"name": "LEVEL", "value": "config"}, {"name": "HTTP_PROXY", "value": "http://proxy"}],
    "resources": {"requests": {"cpu": "2", "memory": "20Gi"}, "limits": {"memory": "200Gi"}},
    "imagePullSecrets": [{"name": "theirs"}],
    "serviceAccountName": "models",
    "priorityClassName": "low",
    "tolerations": [{"key": "pool", "operator": "Equal", "value": "a", "effect": "NoSchedule"}],
    "nodeSelector": {"pool": "a", "zone": "1"},
    **RESTRICTED,
}
OF_SERVICE: Body = {
    "env": [
        {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "levels", "key": "chat"}}},
        {"name": "AIM_METRIC", "value": "own"},
        {"name": "AIM_CACHE_PATH", "value": "/elsewhere"},
    ],
    "resources": {"requests": {"cpu": 6}, "limits": {"ephemeral-storage": "10Gi"}},
    "imagePullSecrets": [{"name": "own"}, {"name": "theirs"}],
    "priorityClassName": "high",
    "tolerations": [
        {"key": "spot", "operator": "Exists"},
        {"key": "pool", "operator": "Equal", "value": "a", "effect": "NoSchedule"},
        {"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    ],
    "nodeSelector": {"zone": "2"},
    "securityContext": {"runAsNonRoot": False},
}


def rendered(world: Any, *more: Body, **spec: Any) -> Body:
    body = applied(world.plan(projection(*world.parts(**spec), *more)), INFERENCE_SERVICE.kind)
    return dict(body)


def container(body: Body) -> Body:
    found: Body = body["spec"]["predictor"]["containers"][0]
    return found


def variables(body: Body) -> dict[str, Body]:
    return {each["name"]: each for each in container(body)["env"]}


def test_all_of_them_are_as_recorded(world: Any) -> None:
    config = world.config(runtime=OF_CONFIG, images={"imagePullSecrets": ["registry"]})
    golden(__file__, "inference-service.settings", rendered(world, config, **OF_SERVICE))


def test_those_of_a_config_alone_apply(world: Any) -> None:
    body = rendered(world, world.config(runtime=OF_CONFIG))
    predictor = body["spec"]["predictor"]
    assert predictor["serviceAccountName"] == "models"
    assert predictor["nodeSelector"] == {"pool": "a", "zone": "1"}
    assert container(body)["securityContext"] == RESTRICTED["securityContext"]
    assert variables(body)["LEVEL"]["value"] == "config"


def test_a_variable_of_the_service_replaces_the_whole_entry(world: Any) -> None:
    own = variables(rendered(world, world.config(runtime=OF_CONFIG), **OF_SERVICE))
    assert own["LEVEL"] == OF_SERVICE["env"][0]
    assert own["AIM_METRIC"]["value"] == "own"
    assert own["AIM_CACHE_PATH"]["value"] == labels.CACHE_PATH


def test_a_variable_refers_to_those_of_its_own_list(world: Any) -> None:
    """The kubelet replaces `$(NAME)` by an earlier variable only: what overrides comes last."""
    config = world.config(runtime={"env": [{"name": "URL", "value": "x"}, {"name": "Z"}]})
    own = [
        {"name": "HOST", "value": "h"},
        {"name": "URL", "value": "http://$(HOST)"},
        {"name": "AIM_METRIC", "value": "$(URL)"},
    ]
    assert list(variables(rendered(world, config, env=own)))[-4:] == [
        "Z",
        "HOST",
        "URL",
        "AIM_METRIC",
    ]


def test_a_named_account_has_its_token_mounted(world: Any) -> None:
    assert rendered(world)["spec"]["predictor"]["automountServiceAccountToken"] is False
    with_account = rendered(world, serviceAccountName="models")["spec"]["predictor"]
    assert "automountServiceAccountToken" not in with_account


@pytest.mark.parametrize(
    ("of_config", "of_service", "requests", "limits"),
    [
        ({}, {}, ("8", "64Gi"), ("16", "96Gi")),
        ({}, {"requests": {"cpu": "1"}}, ("1", "64Gi"), ("16", "96Gi")),
        ({}, {"requests": {"memory": "1Ti"}}, ("8", "1Ti"), ("16", "1Ti")),
        ({}, {"limits": {"memory": "8Gi"}}, ("8", "8Gi"), ("16", "8Gi")),
        ({"requests": {"cpu": "2"}}, {"limits": {"cpu": "1"}}, ("1", "64Gi"), ("1", "96Gi")),
        ({"limits": {"cpu": "1"}}, {"requests": {"cpu": "4"}}, ("4", "64Gi"), ("4", "96Gi")),
        ({"requests": {"cpu": 1}}, {"requests": {"cpu": "0.5"}}, ("0.5", "64Gi"), ("16", "96Gi")),
    ],
)
def test_a_request_raises_a_limit_and_a_limit_lowers_a_request(
    world: Any,
    of_config: Body,
    of_service: Body,
    requests: tuple[str, str],
    limits: tuple[str, str],
) -> None:
    config = world.config(runtime={"resources": of_config})
    found = container(rendered(world, config, resources=of_service))["resources"]
    assert found == {
        "requests": {"cpu": requests[0], "memory": requests[1], "amd.com/gpu": "2"},
        "limits": {"cpu": limits[0], "memory": limits[1], "amd.com/gpu": "2"},
    }


EMPTY: Body = {
    "env": [],
    "tolerations": [],
    "nodeSelector": {},
    "resources": {},
    "securityContext": {},
    "podSecurityContext": {},
}


def test_empty_settings_change_nothing(world: Any) -> None:
    bare = rendered(world, world.config())
    assert rendered(world, world.config(runtime=EMPTY), **EMPTY) == bare
    assert rendered(world, **EMPTY) == bare


@pytest.mark.parametrize("spec", [{"nodeSelector": {"zone": "1"}}, OF_SERVICE])
def test_a_config_without_settings_rolls_out_nothing(world: Any, spec: Body) -> None:
    """Its creation, another name and its deletion leave the pods of a service with settings."""
    bare = rendered(world, **spec)
    assert rendered(world, world.config(), **spec) == bare
    assert rendered(world, world.config("b", credentials={}), configRef="b", **spec) == bare
    existing = running(world, rendered(world, world.config(credentials={}), **spec))
    assert resolved(world, *world.parts(**spec), *existing) == "Resolved"


def test_a_new_name_of_a_config_rolls_out_nothing(world: Any) -> None:
    first = rendered(world, world.config(runtime=OF_CONFIG))
    second = rendered(world, world.config("b", runtime=OF_CONFIG), configRef="b")
    assert second == first


def test_a_setting_moves_an_object_to_the_newest_version(world: Any) -> None:
    body = rendered(world, world.first_runtime(), world.ready_pod(), nodeSelector={"zone": "1"})
    assert body["metadata"]["annotations"][labels.ANNOTATION_RENDER] == "2"
    assert body["spec"]["predictor"]["nodeSelector"] == {"zone": "1"}


# --- which config an object needs ---


def running(world: Any, body: Body) -> list[Body]:
    """The InferenceService as it was applied, with a ready pod."""
    existing = world.runtime()
    metadata = existing["metadata"] | {"annotations": body["metadata"]["annotations"]}
    return [{**existing, "spec": body["spec"], "metadata": metadata}, world.ready_pod()]


def resolved(world: Any, *objects: Body) -> str:
    report = world.plan(projection(*objects)).reports[0]
    return next(str(each.reason) for each in report.conditions if each.type == "Resolved")


def test_a_deleted_config_with_settings_leaves_the_pods(world: Any) -> None:
    before = rendered(world, world.config(runtime={"nodeSelector": {"zone": "1"}}))
    assert resolved(world, *world.parts(), *running(world, before)) == "RuntimeConfigMissing"


def test_a_service_with_secrets_of_its_own_needs_no_config(world: Any) -> None:
    """Its pull secrets and variables are not mistaken for those of a deleted config."""
    spec = {
        "imagePullSecrets": [{"name": "own"}],
        "env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "own", "key": "k"}}}],
    }
    before = rendered(world, **spec)
    assert resolved(world, *world.parts(**spec), *running(world, before)) == "Resolved"
    assert resolved(world, *world.parts(), *running(world, before)) == "Resolved"


# --- labels ---


QUEUE = "kueue.x-k8s.io/queue-name"


def labelled(world: Any, **names: str) -> list[Body]:
    service = world.service()
    own = {"team": "vision", QUEUE: "gpus"} | names
    return [
        *world.parts("AIMService"),
        {**service, "metadata": service["metadata"] | {"labels": own}},
    ]


def sent(world: Any, *objects: Body) -> Body:
    return dict(applied(world.plan(projection(*objects)), INFERENCE_SERVICE.kind))


def test_matching_labels_reach_a_new_object(world: Any) -> None:
    config = world.config(labelPropagation={"match": ["team"]})
    found = sent(world, *labelled(world), config)["metadata"]
    assert found["labels"]["team"] == "vision"
    assert found["labels"][QUEUE] == "gpus"
    assert found["annotations"][labels.ANNOTATION_PASSED] == f"{QUEUE}=gpus,team=vision"


def test_ours_are_not_replaced(world: Any) -> None:
    config = world.config(labelPropagation={"match": ["*"]})
    own = {labels.LABEL_SERVICE: "other", labels.MANAGED_BY: "them"}
    found = sent(world, *labelled(world, **own), config)["metadata"]["labels"]
    assert found[labels.LABEL_SERVICE] == "s"
    assert found[labels.MANAGED_BY] == labels.MANAGED_BY_AIM


def test_a_changed_label_waits_for_the_next_roll_out(world: Any) -> None:
    config = world.config(labelPropagation={"match": ["team"]})
    before = sent(world, *labelled(world), config)
    existing, pod = running(world, before)
    existing["metadata"]["labels"] = before["metadata"]["labels"]
    changed = labelled(world, team="audio")
    again = sent(world, *changed, config, existing, pod)
    assert again["metadata"]["labels"] == before["metadata"]["labels"]
    rolled = [
        {**each, "spec": {**each["spec"], "nodeSelector": {"zone": "1"}}}
        if each["kind"] == "AIMService"
        else each
        for each in changed
    ]
    assert sent(world, *rolled, config, existing, pod)["metadata"]["labels"]["team"] == "audio"


def test_a_label_does_not_reach_an_object_that_runs(world: Any) -> None:
    config = world.config(labelPropagation={"match": ["team"]})
    existing = world.first_runtime()
    found = sent(world, *labelled(world), config, existing, world.ready_pod())["metadata"]
    assert "team" not in found["labels"]
    assert labels.ANNOTATION_PASSED not in found["annotations"]


@pytest.mark.parametrize("edited", [{}, {QUEUE: "theirs"}])
@pytest.mark.parametrize("queue", ["gpus", "new"])
def test_an_edited_label_comes_back(world: Any, edited: Body, queue: str) -> None:
    """A queue must not be bypassed. The repair rolls out, so it brings the newest labels."""
    before = sent(world, *labelled(world))
    existing, pod = running(world, before)
    others = {name: text for name, text in before["metadata"]["labels"].items() if name != QUEUE}
    existing["metadata"]["labels"] = others | edited
    again = sent(world, *labelled(world, **{QUEUE: queue}), existing, pod)
    assert again["metadata"]["labels"][QUEUE] == queue
