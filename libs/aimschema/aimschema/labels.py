"""Labels, annotations and environment variables that are part of the interface, each spelled
once."""

import re
from typing import Final

PREFIX: Final = "aim.silogen.ai/"

DEFAULT_STORAGE_CLASS = "storageclass.kubernetes.io/is-default-class"
"""Kubernetes' own annotation of the class for claims that name none."""
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGED_BY_AIM: Final = "aim"
COMPONENT: Final = "app.kubernetes.io/component"
COMPONENT_DISCOVERY: Final = "discovery"
COMPONENT_CACHE: Final = "cache"
COMPONENT_INFERENCE: Final = "inference"
COMPONENT_ROUTING: Final = "routing"

LABEL_MODEL: Final = PREFIX + "model"
LABEL_TEMPLATE: Final = PREFIX + "template"
LABEL_SERVICE: Final = PREFIX + "service"
LABEL_CACHE: Final = PREFIX + "modelcache"
WORKLOAD_ID: Final = PREFIX + "workload-id"

ANNOTATION_CONFIG: Final = PREFIX + "config"
ANNOTATION_RETRY: Final = PREFIX + "retry"
ANNOTATION_ROUTE_TIMEOUT: Final = PREFIX + "route-timeout"
ANNOTATION_ATTEMPT: Final = PREFIX + "attempt"
ANNOTATION_INPUTS: Final = PREFIX + "inputs"
ANNOTATION_DIGEST: Final = PREFIX + "digest"
ANNOTATION_TRIED: Final = PREFIX + "tried"
ANNOTATION_CACHED: Final = PREFIX + "cached"
ANNOTATION_FILLED: Final = PREFIX + "filled"
ANNOTATION_EVICT: Final = PREFIX + "evict"
ANNOTATION_EVICTING: Final = PREFIX + "evicting"
"""On a ModelCache: since when it is marked for eviction. The deployer mounts none with it."""
ANNOTATION_RENDER: Final = PREFIX + "render"
ANNOTATION_PASSED: Final = PREFIX + "passed-labels"
"""On an InferenceService: the labels that it got from its service, as `name=value`."""

JOB_UID: Final = "batch.kubernetes.io/controller-uid"
"""Set by the Job controller on a Job's pods since Kubernetes 1.27."""

KSERVE_PREFIX: Final = "serving.kserve.io/"
KSERVE_VISIBILITY: Final = "networking.kserve.io/visibility"
KSERVE_DEPLOYMENT_MODE: Final = "serving.kserve.io/deploymentMode"
KSERVE_AUTOSCALER: Final = "serving.kserve.io/autoscalerClass"
KSERVE_STOP: Final = "serving.kserve.io/stop"
KSERVE_NO_UPDATES: Final = "serving.kserve.io/disable-auto-update"
KSERVE_ISVC_LABEL: Final = "serving.kserve.io/inferenceservice"
KSERVE_COMPONENT_LABEL: Final = "component"  # predictor, transformer or explainer

ISTIO_INJECT: Final = "sidecar.istio.io/inject"
"""On a pod: "false" keeps Istio's sidecar out of it."""

KUEUE_QUEUE: Final = "kueue.x-k8s.io/queue-name"

ENV_METRIC: Final = "AIM_METRIC"
ENV_PRECISION: Final = "AIM_PRECISION"
ENV_GPU_MODEL: Final = "AIM_GPU_MODEL"
ENV_GPU_COUNT: Final = "AIM_GPU_COUNT"
ENV_TENSOR_PARALLELISM: Final = "AIM_TENSOR_PARALLELISM"
ENV_RUNTIME_LOG_LEVEL: Final = "AIM_LOG_LEVEL"
ENV_MODEL_ID: Final = "AIM_MODEL_ID"
ENV_CACHE_PATH: Final = "AIM_CACHE_PATH"
ENV_ENGINE_ARGS: Final = "AIM_ENGINE_ARGS"
ENV_VLLM_METRICS: Final = "VLLM_ENABLE_METRICS"
ENV_INCLUDE: Final = "AIM_INCLUDE"
ENV_EXCLUDE: Final = "AIM_EXCLUDE"
"""JSON lists of globs over file names, for downloads."""
ENV_S3_PREFIX: Final = "AIM_S3_"
ENV_HF_TOKEN: Final = "HF_TOKEN"  # noqa: S105 (the name of a variable)

CACHE_PATH: Final = "/workspace/model-cache"
"""Where the runtime looks for cached models; caches are mounted at <this>/<org>/<model>."""

_OUTSIDE = re.compile(r"[^A-Za-z0-9_.-]")


def label_value(text: str) -> str:
    """`text` as a label value: other characters become `-`, cut to 63, alphanumeric at both ends
    (Kubernetes label syntax)."""
    return _OUTSIDE.sub("-", text)[:63].strip("-_.")


def common_labels(component: str, **of: str) -> dict[str, str]:
    """The labels of everything the control plane makes; `of` names the objects it was made for:
    model, template, service, modelcache."""
    named = {PREFIX + kind: label_value(name) for kind, name in sorted(of.items())}
    return {
        MANAGED_BY: MANAGED_BY_AIM,
        COMPONENT: component,
        **{k: v for k, v in named.items() if v},
    }
