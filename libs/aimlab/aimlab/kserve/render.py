"""What KServe makes of an InferenceService in Standard mode: pods (there is no Deployment in between here), a Service and its endpoints. Pure."""

import hashlib

import msgspec

from aimlab.kinds import Body, is_going, is_over, is_true, owner_reference
from aimlab.node.probes import port_number
from aimlab.rollout import Replica

ISVC_LABEL = "serving.kserve.io/inferenceservice"
REVISION_LABEL = "pod-template-hash"
NUMBER_LABEL = "aimlab.local/number"
MAIN_CONTAINER = "kserve-container"
SERVICE_PORT = 80
DEFAULT_PORT = 8000

NOT_OF_THE_POD = frozenset(
    {"minReplicas", "maxReplicas", "scaleTarget", "scaleMetric", "scaleMetricType", "autoScaling", "containerConcurrency", "timeout"}
    | {"canaryTrafficPercent", "deploymentStrategy", "labels", "annotations", "logger", "batcher", "model", "workerSpec"}
)
"""Fields of a predictor that are not a PodSpec's (KServe v1beta1, PredictorSpec and ComponentExtensionSpec)."""


def predictor_name(isvc: Body) -> str:
    return f"{isvc['metadata']['name']}-predictor"


def pod_labels(isvc: Body) -> dict[str, str]:
    name = predictor_name(isvc)
    own = {"app": f"isvc.{name}", "component": "predictor", ISVC_LABEL: isvc["metadata"]["name"]}
    return (isvc["metadata"].get("labels") or {}) | (isvc["spec"]["predictor"].get("labels") or {}) | own


def pod_spec(isvc: Body) -> Body:
    return {field: value for field, value in isvc["spec"]["predictor"].items() if field not in NOT_OF_THE_POD} | {"restartPolicy": "Always"}


def revision_of(isvc: Body) -> str:
    """Ten hex digits that change when the pods must."""
    template = [pod_labels(isvc), pod_spec(isvc), isvc["spec"]["predictor"].get("annotations")]
    return hashlib.sha256(msgspec.json.encode(template, order="deterministic")).hexdigest()[:10]


def replicas_of(isvc: Body) -> int:
    stopped = (isvc["metadata"].get("annotations") or {}).get("serving.kserve.io/stop") == "true"
    return 0 if stopped else int(isvc["spec"]["predictor"].get("minReplicas", 1))


def replica_of(pod: Body) -> Replica:
    labels = pod["metadata"]["labels"]
    return Replica(
        name=pod["metadata"]["name"],
        revision=labels.get(REVISION_LABEL, ""),
        number=int(labels.get(NUMBER_LABEL, 0)),
        ready=is_true(pod, "Ready"),
        going=is_going(pod),
        over=is_over(pod),
    )


def pod_for(isvc: Body, number: int) -> Body:
    revision = revision_of(isvc)
    metadata: Body = {
        "name": f"{predictor_name(isvc)}-{revision}-{number}",
        "namespace": isvc["metadata"]["namespace"],
        "labels": pod_labels(isvc) | {REVISION_LABEL: revision, NUMBER_LABEL: str(number)},
        "annotations": isvc["spec"]["predictor"].get("annotations") or {},
        "ownerReferences": [owner_reference(isvc)],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec(isvc)}


def main_port(isvc: Body) -> int:
    containers = isvc["spec"]["predictor"].get("containers") or [{}]
    ports = containers[0].get("ports") or [{"containerPort": DEFAULT_PORT}]
    return port_number(ports[0]["containerPort"], containers[0])


def service_for(isvc: Body) -> Body:
    """Headless, as KServe's default for Standard mode."""
    name = predictor_name(isvc)
    port = {"name": "http", "port": SERVICE_PORT, "targetPort": main_port(isvc), "protocol": "TCP"}
    spec = {"clusterIP": "None", "ports": [port], "selector": {"app": f"isvc.{name}"}}
    return _owned(isvc, "v1", "Service", name, pod_labels(isvc)) | {"spec": spec}


def endpoints_for(isvc: Body, pods: list[Body]) -> Body:
    """The pods that have an address, on their loopback addresses; a real API server refuses those."""
    name = predictor_name(isvc)
    labels = {"kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "aimlab"}
    endpoints = [_endpoint(pod) for pod in pods if pod.get("status", {}).get("podIP") and not is_over(pod)]
    port = {"name": "http", "port": main_port(isvc), "protocol": "TCP"}
    slice_of = _owned(isvc, "discovery.k8s.io/v1", "EndpointSlice", f"{name}-lab", labels)
    return slice_of | {"addressType": "IPv4", "endpoints": endpoints, "ports": [port]}


def _endpoint(pod: Body) -> Body:
    ready, going = is_true(pod, "Ready"), is_going(pod)
    target = {"kind": "Pod", "namespace": pod["metadata"]["namespace"], "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    conditions = {"ready": ready and not going, "serving": ready, "terminating": going}
    return {"addresses": [pod["status"]["podIP"]], "conditions": conditions, "targetRef": target}


def _owned(isvc: Body, api_version: str, kind: str, name: str, labels: dict[str, str]) -> Body:
    metadata = {"name": name, "namespace": isvc["metadata"]["namespace"], "labels": labels, "ownerReferences": [owner_reference(isvc)]}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}
