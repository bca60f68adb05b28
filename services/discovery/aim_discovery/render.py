"""The objects of a discovery, each a pure function of what it is made for."""

from typing import Any

from aimcontroller.jobs import (
    DEFAULT_RULES,
    JobRules,
    container_security,
    job_tolerations,
    pod_security,
    with_resources,
)
from aimcontroller.projection import KubeObject
from aimschema import labels, names
from aimschema.credentials import pull_secrets
from aimschema.discovery_result import IMAGE_KEY, RESULT_KEY, digest
from aimschema.kinds import ConfigSpec, TemplateSpec
from aimschema.propagation import passed_on
from aimschema.resources import CONFIG_MAP, JOB

Body = dict[str, Any]
CONTAINER = "discovery"
DISCOVERY_UID = 65532
JOB_TTL_S = 3600
DEADLINE_S = 600
RESOURCES: Body = {
    "requests": {"cpu": "100m", "memory": "256Mi"},
    "limits": {"cpu": "1", "memory": "2Gi"},
}
"""A dry run loads no model, but it may load the engine that would."""


def inputs_of(image: str, spec: TemplateSpec) -> str:
    """Eight hex digits that stand for everything an answer depends on."""
    return names.short_hash(
        [
            image,
            spec.model,
            spec.metric,
            spec.precision,
            str(spec.gpus_per_replica),
            spec.gpu_model,
            str(spec.tensor_parallelism),
        ]
    )


def discovery_job(
    template: KubeObject,
    image: str,
    config: ConfigSpec | None,
    tried: str,
    attempt: int,
    rules: JobRules = DEFAULT_RULES,
) -> Body:
    spec = template.spec_as(TemplateSpec.model_validate)
    name = names.discovery_job(template.key.name, inputs_of(image, spec))
    metadata = _metadata(template, name, config)
    of_pods = {
        name: text for name, text in metadata["labels"].items() if name != labels.KUEUE_QUEUE
    }
    annotations = {labels.ANNOTATION_ATTEMPT: str(attempt), labels.ANNOTATION_TRIED: tried}
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.kind,
        "metadata": metadata | {"annotations": annotations},
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": JOB_TTL_S,
            "activeDeadlineSeconds": DEADLINE_S,
            "template": {
                "metadata": {"labels": of_pods | {labels.ISTIO_INJECT: "false"}},
                "spec": _pod(spec, image, config, rules),
            },
        },
    }


def _pod(spec: TemplateSpec, image: str, config: ConfigSpec | None, rules: JobRules) -> Body:
    env = {
        labels.ENV_METRIC: spec.metric,
        labels.ENV_PRECISION: spec.precision,
        labels.ENV_GPU_MODEL: spec.gpu_model,
        labels.ENV_GPU_COUNT: str(spec.gpus_per_replica),
        labels.ENV_TENSOR_PARALLELISM: str(spec.tensor_parallelism),
        labels.ENV_RUNTIME_LOG_LEVEL: "CRITICAL",
    }
    container = {
        "name": CONTAINER,
        "image": image,
        "args": ["dry-run", "--format=json"],
        "env": [{"name": name, "value": str(value)} for name, value in env.items()],
        "securityContext": container_security(),
    }
    pod: Body = {
        "restartPolicy": "Never",
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": pod_security(rules, {"runAsUser": DISCOVERY_UID}),
        "containers": [with_resources(container, rules, RESOURCES)],
    }
    secrets = pull_secrets(config)
    tolerations = job_tolerations(config)
    return (
        pod
        | ({"imagePullSecrets": secrets} if secrets else {})
        | ({"tolerations": tolerations} if tolerations else {})
    )


def result_config_map(
    template: KubeObject,
    data: dict[str, str],
    inputs: str | None,
    tried: str,
    config: ConfigSpec | None = None,
) -> Body:
    """The discovery result, the inputs that it is valid for, and the inputs of the last attempt."""
    annotations = {labels.ANNOTATION_TRIED: tried, labels.ANNOTATION_DIGEST: digest(data)}
    annotations |= {} if inputs is None else {labels.ANNOTATION_INPUTS: inputs}
    return {
        "apiVersion": CONFIG_MAP.api_version,
        "kind": CONFIG_MAP.kind,
        "metadata": (
            _metadata(template, names.discovery_config_map(template.key.name), config)
            | {"annotations": annotations}
        ),
        "data": data,
    }


def result_data(answer: str, image: str) -> dict[str, str]:
    """`answer`: a Discovered in JSON."""
    return {RESULT_KEY: answer, IMAGE_KEY: image}


def _metadata(template: KubeObject, name: str, config: ConfigSpec | None) -> Body:
    own = labels.common_labels(
        labels.COMPONENT_DISCOVERY,
        model=str(template.spec.get("model")),
        template=template.key.name,
    )
    return {
        "name": name,
        "namespace": template.key.namespace,
        "labels": passed_on(template.labels, config) | own,
        "ownerReferences": [template.owner_reference()],
    }
