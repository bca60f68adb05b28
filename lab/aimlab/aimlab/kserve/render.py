"""What KServe makes of an InferenceService in Standard mode: a Deployment and a Service. Pure.

Labels and annotations of the InferenceService reach the pod template, so that changing one
restarts the pods; strategy and replicas are beside the template, so that changing them does not.

The Service's endpoints are made here too, since the API server double has no controller for them.
"""

import hashlib

import msgspec

from aimlab.kinds import Body, is_deleting, is_finished, is_true, owner_reference
from aimlab.node.probes import port_number

ISVC_LABEL = "serving.kserve.io/inferenceservice"
VISIBILITY_LABEL = "networking.kserve.io/visibility"
STOP_ANNOTATION = "serving.kserve.io/stop"
RENDERED = "lab.aim/rendered"
"""Annotation of the Deployment: what it was made from, so that fields left out later go."""
MAIN_CONTAINER = "kserve-container"
DOMAIN = "example.com"
SERVICE_PORT = 80
DEFAULT_PORT = 8000
PROGRESS_DEADLINE_S = 600

NOT_OF_THE_POD = frozenset(
    {"minReplicas", "maxReplicas", "scaleTarget", "scaleMetric", "scaleMetricType", "autoScaling"}
    | {"containerConcurrency", "timeout", "canaryTrafficPercent", "deploymentStrategy", "labels"}
    | {"annotations", "logger", "batcher", "model", "workerSpec"}
)
"""Fields of a predictor that are not a PodSpec's (KServe v1beta1, PredictorSpec and
ComponentExtensionSpec)."""
NOT_PASSED_ON = frozenset({"kubectl.kubernetes.io/last-applied-configuration"})
"""Annotations that KServe keeps from the pods (its config, serviceAnnotationDisallowedList)."""


def predictor_name(isvc: Body) -> str:
    return f"{isvc['metadata']['name']}-predictor"


def app_of(isvc: Body) -> dict[str, str]:
    """The label by which Service and Deployment find the pods."""
    return {"app": f"isvc.{predictor_name(isvc)}"}


def pod_labels(isvc: Body) -> dict[str, str]:
    own = {"component": "predictor", ISVC_LABEL: isvc["metadata"]["name"]}
    labels = isvc["metadata"].get("labels") or {}
    return labels | (isvc["spec"]["predictor"].get("labels") or {}) | app_of(isvc) | own


def pod_annotations(isvc: Body) -> dict[str, str]:
    annotations = isvc["metadata"].get("annotations") or {}
    passed_on = {key: text for key, text in annotations.items() if key not in NOT_PASSED_ON}
    return passed_on | (isvc["spec"]["predictor"].get("annotations") or {})


def pod_spec(isvc: Body) -> Body:
    predictor = isvc["spec"]["predictor"]
    of_pod = {field: value for field, value in predictor.items() if field not in NOT_OF_THE_POD}
    return of_pod | {"restartPolicy": "Always"}


def is_stopped(isvc: Body) -> bool:
    annotations = isvc["metadata"].get("annotations") or {}
    return str(annotations.get(STOP_ANNOTATION, "")).lower() == "true"


def replicas_of(isvc: Body) -> int:
    return 0 if is_stopped(isvc) else int(isvc["spec"]["predictor"].get("minReplicas", 1))


def deployment_for(isvc: Body) -> Body:
    predictor, labels = isvc["spec"]["predictor"], pod_labels(isvc)
    rolling = {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
    }
    metadata = {"labels": labels, "annotations": pod_annotations(isvc)}
    spec: Body = {
        "replicas": replicas_of(isvc),
        "selector": {"matchLabels": app_of(isvc)},
        "strategy": predictor.get("deploymentStrategy") or rolling,
        "progressDeadlineSeconds": PROGRESS_DEADLINE_S,
        "template": {"metadata": metadata, "spec": pod_spec(isvc)},
    }
    made = _owned_object(isvc, "apps/v1", "Deployment", predictor_name(isvc), labels)
    digest = hashlib.sha256(msgspec.json.encode(spec, order="deterministic")).hexdigest()[:10]
    made["metadata"]["annotations"] = pod_annotations(isvc) | {RENDERED: digest}
    return made | {"spec": spec}


def main_port(isvc: Body) -> int:
    containers = isvc["spec"]["predictor"].get("containers") or [{}]
    ports = containers[0].get("ports") or [{"containerPort": DEFAULT_PORT}]
    return port_number(ports[0]["containerPort"], containers[0])


def service_for(isvc: Body) -> Body:
    """Headless, as KServe's default for Standard mode."""
    port = {"name": "http", "port": SERVICE_PORT, "targetPort": main_port(isvc), "protocol": "TCP"}
    spec = {"clusterIP": "None", "ports": [port], "selector": app_of(isvc)}
    return _owned_object(isvc, "v1", "Service", predictor_name(isvc), pod_labels(isvc)) | {
        "spec": spec
    }


def endpoints_for(isvc: Body, pods: list[Body]) -> Body:
    """The pods that have an address, on their loopback addresses; a real API server rejects
    those."""
    name = predictor_name(isvc)
    labels = {
        "kubernetes.io/service-name": name,
        "endpointslice.kubernetes.io/managed-by": "aimlab",
    }
    addressed = (pod for pod in pods if pod.get("status", {}).get("podIP") and not is_finished(pod))
    endpoints = [_endpoint(pod) for pod in addressed]
    port = {"name": "http", "port": main_port(isvc), "protocol": "TCP"}
    slice_of = _owned_object(isvc, "discovery.k8s.io/v1", "EndpointSlice", f"{name}-lab", labels)
    return slice_of | {"addressType": "IPv4", "endpoints": endpoints, "ports": [port]}


def _endpoint(pod: Body) -> Body:
    ready = is_true(pod, "Ready")
    going = is_deleting(pod)
    metadata = pod["metadata"]
    target = {"kind": "Pod"} | {key: metadata[key] for key in ("namespace", "name", "uid")}
    conditions = {"ready": ready and not going, "serving": ready, "terminating": going}
    return {"addresses": [pod["status"]["podIP"]], "conditions": conditions, "targetRef": target}


def _owned_object(
    isvc: Body, api_version: str, kind: str, name: str, labels: dict[str, str]
) -> Body:
    namespace, owner = isvc["metadata"]["namespace"], owner_reference(isvc)
    metadata = {"name": name, "namespace": namespace, "labels": labels, "ownerReferences": [owner]}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}
