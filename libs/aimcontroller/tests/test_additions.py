"""What must be absent from our objects, found and removed."""

import copy
from typing import Any

import pytest

from aimcontroller.additions import ADDITIONS, first_path, merge, removal

Body = dict[str, Any]
CONTAINER: Body = {"name": "kserve-container", "image": "m:1", "env": [{"name": "A", "value": "1"}]}
ISVC: Body = {
    "kind": "InferenceService",
    "metadata": {"name": "s", "annotations": {"serving.kserve.io/autoscalerClass": "none"}},
    "spec": {"predictor": {"minReplicas": 1, "containers": [CONTAINER]}},
}
RULE: Body = {
    "matches": [{"path": {"type": "PathPrefix", "value": "/ml/s"}}],
    "backendRefs": [{"name": "s-predictor", "port": 80}],
    "filters": [{"type": "URLRewrite"}],
}
ROUTE: Body = {
    "kind": "HTTPRoute",
    "metadata": {"name": "s"},
    "spec": {"parentRefs": [{"name": "edge"}], "rules": [RULE]},
}
BUDGET: Body = {
    "kind": "PodDisruptionBudget",
    "metadata": {"name": "s"},
    "spec": {"maxUnavailable": 1},
}


def predictor(**more: Any) -> Body:
    return merge(ISVC, {"spec": {"predictor": more}})  # type: ignore[no-any-return]


def container(**more: Any) -> Body:
    return predictor(containers=[{**CONTAINER, **more}])


def annotated(**annotations: str) -> Body:
    named = {
        f"serving.kserve.io/{name.replace('_', '-')}": value for name, value in annotations.items()
    }
    return merge(ISVC, {"metadata": {"annotations": named}})  # type: ignore[no-any-return]


def routed(**more: Any) -> Body:
    return merge(ROUTE, {"spec": {"rules": [{**RULE, **more}]}})  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("sent", "existing", "path"),
    [
        pytest.param(
            ISVC,
            annotated(stop="true"),
            "metadata.annotations.serving.kserve.io/stop",
            id="stopped",
        ),
        pytest.param(
            ISVC,
            annotated(stop="false"),
            "metadata.annotations.serving.kserve.io/stop",
            id="not-stopped-by-another-manager",
        ),
        pytest.param(
            ISVC,
            annotated(disable_auto_update="true"),
            "metadata.annotations.serving.kserve.io/disable-auto-update",
            id="updates-off",
        ),
        pytest.param(
            ISVC,
            predictor(annotations={"serving.kserve.io/stop": "true", "a": "b"}),
            "spec.predictor.annotations.serving.kserve.io/stop",
            id="pods",
        ),
        pytest.param(
            ISVC,
            merge(ISVC, {"spec": {"transformer": {"containers": []}}}),
            "spec.transformer",
            id="transformer",
        ),
        pytest.param(
            ISVC, merge(ISVC, {"spec": {"explainer": {}}}), "spec.explainer", id="explainer"
        ),
        pytest.param(
            ISVC,
            predictor(canaryTrafficPercent=10),
            "spec.predictor.canaryTrafficPercent",
            id="canary",
        ),
        pytest.param(
            ISVC,
            predictor(scaleTarget=1, scaleMetric="cpu"),
            "spec.predictor.scaleTarget",
            id="scaler",
        ),
        pytest.param(
            ISVC,
            predictor(model={"modelFormat": {"name": "x"}}),
            "spec.predictor.model",
            id="second-model",
        ),
        pytest.param(ISVC, predictor(workerSpec={}), "spec.predictor.workerSpec", id="workers"),
        pytest.param(
            ISVC, predictor(logger={"url": "http://x"}), "spec.predictor.logger", id="logger"
        ),
        pytest.param(
            predictor(deploymentStrategy={"type": "Recreate"}),
            predictor(deploymentStrategy={"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}),
            "spec.predictor.deploymentStrategy.rollingUpdate",
            id="strategy",
        ),
        pytest.param(ISVC, predictor(nodeName="n1"), "spec.predictor.nodeName", id="node-name"),
        pytest.param(
            ISVC,
            predictor(initContainers=[{"name": "wait"}]),
            "spec.predictor.initContainers",
            id="init-container",
        ),
        pytest.param(
            ISVC,
            predictor(containers=[CONTAINER, {"name": "miner"}]),
            "spec.predictor.containers",
            id="second-container",
        ),
        pytest.param(
            ISVC, container(command=["sleep", "1d"]), "spec.predictor.containers", id="command"
        ),
        pytest.param(ISVC, container(args=["--help"]), "spec.predictor.containers", id="arguments"),
        pytest.param(
            ISVC,
            container(livenessProbe={"tcpSocket": {"port": 1}}),
            "spec.predictor.containers",
            id="liveness",
        ),
        pytest.param(
            ROUTE,
            merge(ROUTE, {"spec": {"hostnames": ["a.example"]}}),
            "spec.hostnames",
            id="host-names",
        ),
        pytest.param(
            ROUTE,
            merge(ROUTE, {"spec": {"parentRefs": [{"name": "edge"}, {"name": "open"}]}}),
            "spec.parentRefs",
            id="gateway",
        ),
        pytest.param(ROUTE, routed(timeouts={"request": "1s"}), "spec.rules", id="timeout"),
        pytest.param(ROUTE, routed(sessionPersistence={}), "spec.rules", id="session"),
        pytest.param(
            ROUTE,
            routed(matches=[{**RULE["matches"][0], "method": "GET"}]),
            "spec.rules",
            id="method",
        ),
        pytest.param(
            ROUTE,
            routed(backendRefs=[*RULE["backendRefs"], {"name": "other", "port": 80}]),
            "spec.rules",
            id="second-backend",
        ),
        pytest.param(
            BUDGET,
            merge(BUDGET, {"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}}),
            "spec.unhealthyPodEvictionPolicy",
            id="eviction",
        ),
    ],
)
def test_an_addition_is_found_and_taken_away(sent: Body, existing: Body, path: str) -> None:
    before = copy.deepcopy(existing)
    patch = removal(sent, existing)
    assert patch is not None
    assert ".".join(first_path(patch)) == path
    cleaned = merge(existing, patch)
    assert removal(sent, cleaned) is None
    assert (
        cleaned["spec"]["predictor"]["containers"] == [CONTAINER]
        if existing["kind"] == "InferenceService"
        else True
    )
    assert existing == before


@pytest.mark.parametrize(
    ("sent", "existing"),
    [
        pytest.param(ISVC, ISVC, id="as-sent"),
        pytest.param(annotated(stop="true"), annotated(stop="true"), id="stopped-by-us"),
        pytest.param(
            ISVC,
            predictor(tolerations=[{"operator": "Exists"}], nodeSelector={"a": "b"}),
            id="placement",
        ),
        pytest.param(
            ISVC, container(env=[*CONTAINER["env"], {"name": "B", "value": "2"}]), id="environment"
        ),
        pytest.param(ISVC, annotated(metrics="cpu"), id="other-annotation"),
        pytest.param(
            ROUTE,
            routed(backendRefs=[{**RULE["backendRefs"][0], "weight": 1, "kind": "Service"}]),
            id="defaulted",
        ),
        pytest.param(
            routed(timeouts={"request": "1s"}),
            routed(timeouts={"request": "2s"}),
            id="a-field-that-we-send",
        ),
        pytest.param(
            {"kind": "Job", "spec": {}},
            {"kind": "Job", "spec": {"suspend": True}},
            id="suspended-job",
        ),
        pytest.param(ISVC, {"kind": "InferenceService"}, id="nothing-there"),
        pytest.param(
            ISVC,
            {
                "kind": "InferenceService",
                "metadata": {"annotations": None},
                "spec": {"predictor": None},
            },
            id="nulls",
        ),
        pytest.param(
            ISVC,
            {
                "kind": "InferenceService",
                "metadata": "x",
                "spec": {"predictor": {"containers": "y"}},
            },
            id="wrong-types",
        ),
    ],
)
def test_what_else_others_add_stays(sent: Body, existing: Body) -> None:
    assert removal(sent, existing) is None


def test_every_addition_has_a_reason() -> None:
    assert all(why for paths in ADDITIONS.values() for why in paths.values())
