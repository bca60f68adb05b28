"""An InferenceService's pods, endpoints and status."""

from datetime import UTC, datetime
from typing import Any

import pytest

from aimlab.control import Create, Delete, Patch, Write
from aimlab.kserve.controller import plan
from aimlab.kserve.render import pod_for, revision_of
from aimlab.mirror import Objects

Body = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def isvc(*, image: str = "x", replicas: int = 1, annotations: dict[str, str] | None = None, **metadata: Any) -> Body:
    container = {"name": "kserve-container", "image": image, "ports": [{"containerPort": 8000}]}
    predictor = {"minReplicas": replicas, "maxReplicas": replicas, "containers": [container], "imagePullSecrets": [{"name": "pull"}]}
    meta = {"name": "svc", "namespace": "demo", "uid": "u1", "labels": {"team": "a"}, "annotations": annotations or {}} | metadata
    return {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": meta, "spec": {"predictor": predictor}}


def pod(of: Body, number: int = 0, *, ready: bool = False, container: Body | None = None) -> Body:
    made = pod_for(of, number)
    made["metadata"]["uid"] = f"p{number}"
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    statuses = [{"name": "kserve-container"} | (container or {})]
    return made | {"status": {"podIP": f"127.20.0.{number + 1}", "conditions": conditions, "containerStatuses": statuses}}


def status(writes: list[Write]) -> Body:
    return next(write.body["status"] for write in writes if isinstance(write, Patch) and write.subresource == "status")


def conditions(writes: list[Write]) -> dict[str, str]:
    return {one["type"]: one["status"] for one in status(writes)["conditions"]}


def planned(*bodies: Body) -> list[Write]:
    return plan(Objects(bodies), NOW).writes


def test_a_new_one_gets_a_service_endpoints_and_a_pod_with_its_labels() -> None:
    writes = planned(isvc())
    made = {write.body["kind"]: write.body for write in writes if isinstance(write, Create)}
    assert set(made) == {"Service", "EndpointSlice", "Pod"}
    assert made["Pod"]["metadata"]["name"] == f"svc-predictor-{revision_of(isvc())}-0"
    assert made["Pod"]["metadata"]["labels"].items() >= {"team": "a", "serving.kserve.io/inferenceservice": "svc"}.items()
    assert made["Pod"]["spec"]["imagePullSecrets"] == [{"name": "pull"}]
    assert "minReplicas" not in made["Pod"]["spec"]
    assert made["Service"]["spec"]["ports"][0] | {"port": 80, "targetPort": 8000} == made["Service"]["spec"]["ports"][0]


CRASHED = {"exitCode": 1, "message": "cannot serve"}
BACKING_OFF = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}


@pytest.mark.parametrize(
    ("container", "ready", "transition"),
    [
        pytest.param({"state": {"running": {}}}, True, "UpToDate", id="ready"),
        pytest.param({"state": {"running": {}}}, False, "InProgress", id="loading"),
        pytest.param({"state": {"waiting": {"reason": "ImagePullBackOff"}}}, False, "InProgress", id="cannot-be-pulled"),
        pytest.param({"state": {"terminated": CRASHED}}, False, "BlockedByFailedLoad", id="crashed"),
        pytest.param(
            {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": CRASHED}},
            False,
            "BlockedByFailedLoad",
            id="crash-loop",
        ),
        pytest.param({"state": {"running": {}}, "lastState": {"terminated": CRASHED}}, False, "InProgress", id="running-again"),
    ],
)
def test_the_status_follows_the_pods(container: Body, ready: bool, transition: str) -> None:
    writes = planned(isvc(), pod(isvc(), ready=ready, container=container))
    assert status(writes)["modelStatus"]["transitionStatus"] == transition
    said = conditions(writes)
    assert {said[kind] for kind in ("Ready", "PredictorReady", "IngressReady")} == {"True" if ready else "False"}


def test_a_failed_load_carries_the_containers_last_words() -> None:
    failed = status(planned(isvc(), pod(isvc(), container={"state": {"terminated": CRASHED}})))
    assert failed["modelStatus"]["lastFailureInfo"].items() >= {"reason": "ModelLoadFailed", "message": "cannot serve", "exitCode": 1}.items()


def test_a_changed_image_replaces_the_pod_and_a_changed_replica_count_does_not() -> None:
    writes = planned(isvc(image="y"), pod(isvc(image="x"), ready=True))
    assert [write.name for write in writes if isinstance(write, Delete)] == [pod(isvc(image="x"))["metadata"]["name"]]
    assert revision_of(isvc(replicas=3)) == revision_of(isvc(replicas=1))


def test_stopped_means_no_pods_and_says_so() -> None:
    stopped = isvc(annotations={"serving.kserve.io/stop": "true"})
    writes = planned(stopped, pod(isvc(), ready=True))
    assert [type(write) for write in writes if isinstance(write, Create | Delete)].count(Delete) == 1
    assert conditions(writes) == {"IngressReady": "False", "PredictorReady": "False", "Ready": "False", "Stopped": "True"}


def test_endpoints_are_the_pods_addresses_with_their_readiness() -> None:
    writes = planned(isvc(replicas=2), pod(isvc(), 0, ready=True), pod(isvc(), 1))
    endpoints = next(write.body for write in writes if isinstance(write, Create) and write.body["kind"] == "EndpointSlice")
    assert [(one["addresses"], one["conditions"]["ready"]) for one in endpoints["endpoints"]] == [(["127.20.0.1"], True), (["127.20.0.2"], False)]


def test_a_settled_one_is_left_alone() -> None:
    first = planned(isvc(), pod(isvc(), ready=True))
    made = [write.body for write in first if isinstance(write, Create)]
    assert planned(isvc() | {"status": status(first)}, pod(isvc(), ready=True), *made) == []


def test_a_predictor_without_container_is_invalid() -> None:
    broken = isvc()
    broken["spec"]["predictor"] = {"model": {"modelFormat": {"name": "onnx"}}}
    assert status(planned(broken))["modelStatus"]["transitionStatus"] == "InvalidSpec"
