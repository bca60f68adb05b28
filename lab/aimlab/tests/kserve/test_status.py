"""The objects and the status of an InferenceService that no recording covers; the recorded cases
are in test_kserve_transcripts."""

from datetime import UTC, datetime
from typing import Any

import pytest

from aimlab.controller_loop import Create, Delete, Patch, Write
from aimlab.informer import Objects
from aimlab.kserve.controller import plan
from aimlab.kserve.modes import ONLY_RAW, VERSIONS
from aimlab.kserve.render import deployment_for
from aimlab.node.deployments import pod_for, revision_of

Body = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODE = "serving.kserve.io/deploymentMode"
RECREATE = {"type": "Recreate"}


def isvc(
    *,
    image: str = "x",
    replicas: int = 1,
    strategy: Body | None = None,
    mode: str | None = None,
    **metadata: Any,
) -> Body:
    container = {"name": "kserve-container", "image": image, "ports": [{"containerPort": 8000}]}
    predictor = {
        "minReplicas": replicas,
        "maxReplicas": replicas,
        "containers": [container],
        "imagePullSecrets": [{"name": "pull"}],
    }
    meta = {
        "name": "svc",
        "namespace": "demo",
        "uid": "u1",
        "labels": {"team": "a"},
        "annotations": {} if mode is None else {MODE: mode},
    }
    spec = {"predictor": predictor | ({"deploymentStrategy": strategy} if strategy else {})}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": meta | metadata,
        "spec": spec,
    }


def deployment(of: Body) -> Body:
    made = deployment_for(of)
    return made | {"metadata": made["metadata"] | {"uid": "d1", "generation": 1}}


def pod(of: Body, number: int = 0, *, ready: bool = False, **status: Any) -> Body:
    made = pod_for(deployment(of), number)
    made["metadata"]["uid"] = f"p{number}"
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return made | {
        "status": {"podIP": f"127.20.0.{number + 1}", "conditions": conditions, **status}
    }


def status(writes: list[Write]) -> Body:
    return next(
        write.body["status"]
        for write in writes
        if isinstance(write, Patch) and write.subresource == "status"
    )


def planned(*bodies: Body, version: str = "0.16") -> list[Write]:
    return plan(Objects(bodies), NOW, VERSIONS[version]).writes


def made_by(writes: list[Write]) -> dict[str, Body]:
    return {write.body["kind"]: write.body for write in writes if isinstance(write, Create)}


def test_a_new_one_gets_service_endpoints_and_deployment() -> None:
    made = made_by(planned(isvc(annotations={"note": "b"})))
    assert set(made) == {"Service", "EndpointSlice", "Deployment"}
    assert made["Deployment"]["metadata"]["name"] == "svc-predictor"
    template = made["Deployment"]["spec"]["template"]
    assert (
        template["metadata"]["labels"].items()
        >= {
            "team": "a",
            "serving.kserve.io/inferenceservice": "svc",
        }.items()
    )
    assert template["metadata"]["annotations"] == {"note": "b"}
    assert template["spec"]["imagePullSecrets"] == [{"name": "pull"}]
    assert "minReplicas" not in template["spec"]
    assert (
        made["Service"]["spec"]["ports"][0] | {"port": 80, "targetPort": 8000}
        == made["Service"]["spec"]["ports"][0]
    )


@pytest.mark.parametrize(
    ("changed", "restarts"),
    [
        pytest.param(isvc(image="y"), True, id="image"),
        pytest.param(isvc(labels={"team": "b"}), True, id="label"),
        pytest.param(isvc(annotations={"note": "b"}), True, id="annotation"),
        pytest.param(isvc(strategy=RECREATE), False, id="strategy"),
        pytest.param(isvc(replicas=3), False, id="replicas"),
    ],
)
def test_only_what_is_in_the_pod_template_restarts_the_pods(changed: Body, restarts: bool) -> None:
    assert (revision_of(deployment(changed)) != revision_of(deployment(isvc()))) == restarts


def test_a_field_removed_from_the_service_leaves_the_deployment() -> None:
    labelled = isvc(
        labels={"team": "a", "more": "b"},
        strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0}},
    )
    patches = [
        write.body
        for write in planned(isvc(strategy=RECREATE), deployment(labelled))
        if isinstance(write, Patch)
    ]
    spec = next(patch["spec"] for patch in patches if "spec" in patch)
    assert spec["template"]["metadata"]["labels"]["more"] is None
    assert spec["strategy"] == {"type": "Recreate", "rollingUpdate": None}


def test_a_deployment_edited_by_hand_is_repaired() -> None:
    edited = deployment(isvc())
    edited["spec"]["replicas"] = 7
    assert any(
        isinstance(write, Patch) and write.body.get("spec", {}).get("replicas") == 1
        for write in planned(isvc(), edited)
    )


def test_a_failed_load_carries_the_containers_message() -> None:
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": "cannot serve"}}
    crashed = pod(isvc(), containerStatuses=[{"name": "kserve-container", "state": ended}])
    model = status(planned(isvc(), crashed))["modelStatus"]
    assert model["transitionStatus"] == "BlockedByFailedLoad"
    assert model["lastFailureInfo"] == {
        "reason": "ModelLoadFailed",
        "message": "cannot serve",
        "exitCode": 1,
    }


def test_an_exceeded_deadline_has_the_deployments_message() -> None:
    late = {
        "type": "Progressing",
        "status": "False",
        "reason": "ProgressDeadlineExceeded",
        "message": "timed out",
    }
    available = {
        "type": "Available",
        "status": "True",
        "reason": "MinimumReplicasAvailable",
        "message": "enough",
    }
    body = deployment(isvc()) | {"status": {"conditions": [late, available]}}
    ready = next(
        one for one in status(planned(isvc(), body))["conditions"] if one["type"] == "Ready"
    )
    assert (ready["status"], ready["reason"]) == ("False", "ProgressDeadlineExceeded")


def test_stopped_takes_deployment_service_and_endpoints_away() -> None:
    made = [
        body | {"metadata": body["metadata"] | {"uid": "x"}}
        for body in made_by(planned(isvc())).values()
    ]
    writes = planned(isvc(annotations={"serving.kserve.io/stop": "true"}), *made)
    assert {write.resource.kind for write in writes if isinstance(write, Delete)} == {
        "Deployment",
        "Service",
        "EndpointSlice",
    }
    assert not made_by(writes)


def test_endpoints_are_the_pods_addresses_with_their_readiness() -> None:
    endpoints = made_by(planned(isvc(replicas=2), pod(isvc(), 0, ready=True), pod(isvc(), 1)))[
        "EndpointSlice"
    ]["endpoints"]
    found = {one["addresses"][0]: one["conditions"]["ready"] for one in endpoints}
    assert found == {"127.20.0.1": True, "127.20.0.2": False}


def test_a_settled_one_is_left_alone() -> None:
    first = planned(isvc(), pod(isvc(), ready=True))
    made = [
        body | {"metadata": body["metadata"] | {"uid": "x"}} for body in made_by(first).values()
    ]
    assert planned(isvc() | {"status": status(first)}, pod(isvc(), ready=True), *made) == []


def test_a_predictor_without_container_is_invalid() -> None:
    broken = isvc()
    broken["spec"]["predictor"] = {"model": {"modelFormat": {"name": "onnx"}}}
    assert status(planned(broken))["modelStatus"]["transitionStatus"] == "InvalidSpec"


@pytest.mark.parametrize(
    ("version", "mode", "recorded"),
    [
        pytest.param("0.16", "Standard", "Standard", id="standard"),
        pytest.param("0.16", "RawDeployment", "Standard", id="the-old-word-means-the-same"),
        pytest.param("0.16", None, "Standard", id="the-default"),
        pytest.param("0.16", "Serverless", "Knative", id="another-mode"),
        pytest.param("0.15", "RawDeployment", "RawDeployment", id="before-0.16"),
        pytest.param("0.15", "Standard", "Serverless", id="a-word-that-0.15-does-not-know"),
    ],
)
def test_the_mode_is_read_as_the_version_reads_it(
    version: str, mode: str | None, recorded: str
) -> None:
    writes = planned(isvc(mode=mode), version=version)
    assert status(writes)["deploymentMode"] == recorded
    assert ("Deployment" in made_by(writes)) == (recorded == VERSIONS[version].standard)


@pytest.mark.parametrize(
    ("version", "new", "recorded", "denial"),
    [
        pytest.param(
            "0.16", isvc(mode="Standard", strategy=RECREATE), None, None, id="standard-and-strategy"
        ),
        pytest.param(
            "0.16",
            isvc(mode="RawDeployment", strategy=RECREATE),
            None,
            ONLY_RAW,
            id="raw-and-strategy",
        ),
        pytest.param("0.16", isvc(mode="RawDeployment"), None, None, id="raw-alone"),
        pytest.param("0.16", isvc(strategy=RECREATE), None, ONLY_RAW, id="no-mode-and-strategy"),
        pytest.param(
            "0.16",
            isvc(mode="RawDeployment"),
            "Standard",
            "update rejected: deploymentMode cannot be changed from 'Standard' to 'RawDeployment'",
            id="every-update-of-a-raw-one",
        ),
        pytest.param("0.16", isvc(), "Standard", None, id="an-update-without-a-mode"),
        pytest.param(
            "0.15",
            isvc(mode="RawDeployment", strategy=RECREATE),
            None,
            None,
            id="0.15-raw-and-strategy",
        ),
        pytest.param(
            "0.15",
            isvc(mode="Standard", strategy=RECREATE),
            None,
            ONLY_RAW,
            id="0.15-standard-and-strategy",
        ),
        pytest.param("0.15", isvc(mode="Standard"), None, None, id="0.15-standard-alone-is-let-in"),
    ],
)
def test_the_webhook_denies_what_the_version_denies(
    version: str, new: Body, recorded: str | None, denial: str | None
) -> None:
    before = isvc() | {"status": {"deploymentMode": recorded}} if recorded else None
    assert VERSIONS[version].denial(new, before) == denial
