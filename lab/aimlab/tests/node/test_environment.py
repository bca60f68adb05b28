"""The environment of a container from its pod, Secrets and ConfigMaps."""

import base64
from typing import Any

import pytest

from aimlab.node.environment import ConfigError, expand, resolve, sources_of

Body = dict[str, Any]
POD = {
    "metadata": {"name": "pod", "namespace": "demo", "labels": {"app": "x"}},
    "spec": {"nodeName": "lab"},
}
CONTENTS: dict[tuple[str, str], Body | None] = {
    ("Secret", "hub"): {"data": {"token": base64.b64encode(b"s3cret").decode()}},
    ("ConfigMap", "settings"): {"data": {"level": "high"}},
    ("Secret", "gone"): None,
    ("ConfigMap", "gone"): None,
}


def secret(name: str, key: str, **more: Any) -> Body:
    return {"valueFrom": {"secretKeyRef": {"name": name, "key": key} | more}}


def config_map(name: str, key: str) -> Body:
    return {"valueFrom": {"configMapKeyRef": {"name": name, "key": key}}}


def field(path: str) -> Body:
    return {"valueFrom": {"fieldRef": {"fieldPath": path}}}


def container(*variables: Body) -> Body:
    return {"env": [{"name": f"V{number}"} | variable for number, variable in enumerate(variables)]}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        pytest.param({"value": "plain"}, "plain", id="literal"),
        pytest.param({}, "", id="empty"),
        pytest.param(secret("hub", "token"), "s3cret", id="secret"),
        pytest.param(config_map("settings", "level"), "high", id="config-map"),
        pytest.param(secret("gone", "token", optional=True), None, id="optional-secret"),
        pytest.param(secret("hub", "other", optional=True), None, id="optional-key"),
        pytest.param(field("metadata.name"), "pod", id="name"),
        pytest.param(field("metadata.labels['app']"), "x", id="label"),
        pytest.param(field("spec.nodeName"), "lab", id="node"),
        pytest.param(field("status.podIP"), "127.20.0.1", id="address"),
    ],
)
def test_a_variable_gets_its_value(variable: Body, value: str | None) -> None:
    assert resolve(POD, container(variable), CONTENTS, pod_ip="127.20.0.1").get("V0") == value


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        pytest.param(secret("gone", "token"), 'secret "gone" not found', id="secret"),
        pytest.param(config_map("gone", "level"), 'configmap "gone" not found', id="config-map"),
        pytest.param(
            secret("hub", "other"), "couldn't find key other in Secret demo/hub", id="secret-key"
        ),
        pytest.param(
            config_map("settings", "other"),
            "couldn't find key other in ConfigMap demo/settings",
            id="config-map-key",
        ),
    ],
)
def test_a_missing_source_has_the_kubelets_message(variable: Body, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        resolve(POD, container(variable), CONTENTS, pod_ip="127.20.0.1")


def test_a_variable_may_use_those_before_it() -> None:
    assert (
        resolve(
            POD,
            container({"value": "a"}, {"value": "$(V0)-$(V2)"}, {"value": "c"}),
            CONTENTS,
            pod_ip="",
        )["V1"]
        == "a-$(V2)"
    )


def test_a_doubled_dollar_is_one() -> None:
    assert expand("$$(V0) $(V0) $V0", {"V0": "x"}) == "$(V0) x $V0"


def test_only_what_is_referred_to_is_fetched() -> None:
    found = list(
        sources_of(
            container({"value": "x"}, secret("hub", "token"), config_map("settings", "level"))
        )
    )
    assert found == [("Secret", "hub"), ("ConfigMap", "settings")]
