"""Renders the InferenceService and PodDisruptionBudget of a service. Pure: unchanged inputs render
an unchanged object.

Field names follow serving.kserve.io/v1beta1 (Standard deployment mode). The fields that reach the
pod template differ by render version (aim_deployer/versions.py). Within one version they must not
change: that would restart running pods. The number of replicas, the deployment strategy and the
budget are not part of the pod template. They are the same in every version.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from aim_deployer.modes import Mode
from aim_deployer.pod_settings import amounts, dump, has_settings, merge, pod_fields
from aim_deployer.projection import CONTAINER
from aim_deployer.resolve import ResolvedService, Source
from aimcontroller.projection import KubeObject
from aimschema import labels
from aimschema.credentials import credential_env, pull_secrets
from aimschema.kinds import PodSettings, Precision
from aimschema.names import cache_claim
from aimschema.propagation import as_text
from aimschema.resources import BUDGET, INFERENCE_SERVICE

Body = dict[str, Any]
PORT = 8000
CPU_PER_GPU = 4
# Without a limit KServe's webhook sets 1, which is less than the request: no pod would be admitted.
CPU_LIMIT_PER_GPU = 8
MEMORY_REQUEST_GI_PER_GPU = 32
MEMORY_LIMIT_GI_PER_GPU = 48
STARTUP_PERIOD_S = 10
STARTUP_TRIES = 180
FORBIDDEN_ENV = frozenset({"PYTHONPATH"})
LATEST = 2
"""The newest render version."""


NEEDS_CONFIG = "needed"
NEEDS_NO_CONFIG = ""
"""Values of ANNOTATION_CONFIG. Without the name of the config: a new name would restart pods."""


def inference_service(
    parts: ResolvedService,
    *,
    cached: bool,
    mode: Mode,
    version: int = LATEST,
    passed: Mapping[str, str] = MappingProxyType({}),
) -> Body:
    """The InferenceService. `cached`: whether caches are mounted, decided at the first render.
    `passed`: labels that it gets from its service."""
    service = parts.service
    named = labels.common_labels(
        labels.COMPONENT_INFERENCE,
        model=parts.spec.model,
        template=parts.spec.template_ref,
        service=service.key.name,
    )
    annotations = {
        labels.KSERVE_DEPLOYMENT_MODE: mode.name,
        labels.KSERVE_AUTOSCALER: "none",
        labels.ANNOTATION_CACHED: "true" if cached else "false",
        **({labels.KSERVE_STOP: "true"} if parts.spec.replicas == 0 else {}),
        **({} if version == 1 else {labels.ANNOTATION_RENDER: str(version)}),
        **({labels.ANNOTATION_PASSED: as_text(passed)} if passed else {}),
        **_config_annotation(parts, cached=cached),
    }
    return {
        "apiVersion": INFERENCE_SERVICE.api_version,
        "kind": INFERENCE_SERVICE.kind,
        "metadata": {
            "name": service.key.name,
            "namespace": service.key.namespace,
            "labels": {**passed} | named | {labels.KSERVE_VISIBILITY: "cluster-local"},
            "annotations": annotations,
            "ownerReferences": [service.owner_reference()],
        },
        "spec": {"predictor": _predictor(parts, cached=cached, mode=mode, version=version)},
    }


def _config_annotation(parts: ResolvedService, *, cached: bool) -> Body:
    """With pod settings, the object itself no longer shows whether its pods need the config."""
    config = parts.config
    runtime = None if config is None else config.runtime
    if not (has_settings(runtime) or has_settings(parts.spec)):
        return {}
    needs = has_settings(runtime) or bool(pull_secrets(config))
    needs = needs or (not cached and bool(credential_env(config)))
    return {labels.ANNOTATION_CONFIG: NEEDS_CONFIG if needs else NEEDS_NO_CONFIG}


def _predictor(parts: ResolvedService, *, cached: bool, mode: Mode, version: int) -> Body:
    replicas = parts.spec.replicas
    settings = merge(None if parts.config is None else parts.config.runtime, parts.spec)
    predictor: Body = {
        "minReplicas": replicas,
        "maxReplicas": replicas,
        **({"deploymentStrategy": _strategy(replicas)} if mode.strategy else {}),
        "containers": [_container(parts, settings, cached=cached)],
        "volumes": [
            {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}},
            *(_volume(index, source) for index, source in _mounted_sources(parts, cached=cached)),
        ],
        "affinity": _affinity(parts, version),
    }
    secrets = pull_secrets(parts.config)
    secrets += [each for each in map(dump, settings.image_pull_secrets) if each not in secrets]
    if secrets:
        predictor["imagePullSecrets"] = secrets
    tolerations = list(map(dump, settings.tolerations))
    if version > 1:
        own = _tolerations(parts)
        tolerations = [*own, *(each for each in tolerations if each not in own)]
    if tolerations:
        predictor["tolerations"] = tolerations
    if version > 1:
        if settings.service_account_name is None:
            predictor["automountServiceAccountToken"] = False
        predictor["enableServiceLinks"] = False
    return predictor | pod_fields(settings)


def disruption_budget(service: KubeObject) -> Body:
    """The PodDisruptionBudget for two or more replicas: a node drain evicts one predictor pod at a
    time."""
    return {
        "apiVersion": BUDGET.api_version,
        "kind": BUDGET.kind,
        "metadata": {
            "name": service.key.name,
            "namespace": service.key.namespace,
            "labels": labels.common_labels(labels.COMPONENT_INFERENCE, service=service.key.name),
            "ownerReferences": [service.owner_reference()],
        },
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": {labels.KSERVE_ISVC_LABEL: service.key.name}},
        },
    }


def _strategy(replicas: int) -> Body:
    """The strategy of a roll-out. GPUs are scarce, so a roll-out adds no pod. With one replica it
    is an outage in any case, and Recreate makes that explicit."""
    if replicas == 1:
        return {"type": "Recreate"}
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}


def _tolerations(parts: ResolvedService) -> list[Body]:
    """Tolerations for the common taint of GPU nodes, and those of the GPU table."""
    resource: Body = {"key": parts.gpu.resource, "operator": "Exists", "effect": "NoSchedule"}
    return [resource, *(dict(each) for each in parts.gpu.tolerations)]


def mount_path(source: Source) -> str:
    """The path at which the runtime reads a source."""
    return f"{labels.CACHE_PATH}/{source.path[0]}/{source.path[1]}"


def _container(parts: ResolvedService, settings: PodSettings, *, cached: bool) -> Body:
    health = {"httpGet": {"path": "/health", "port": PORT}}
    mounts = [
        {"name": f"cache-{index}", "mountPath": mount_path(source), "readOnly": True}
        for index, source in _mounted_sources(parts, cached=cached)
    ]
    context = settings.security_context and dump(settings.security_context)
    return {
        "name": CONTAINER,
        "image": parts.image,
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "env": _env(parts, settings, cached=cached),
        "resources": _resources(parts),
        **({"securityContext": context} if context else {}),
        "volumeMounts": [
            {"name": "dshm", "mountPath": "/dev/shm"},  # noqa: S108 (in the container)
            *mounts,
        ],
        "startupProbe": {
            **health,
            "periodSeconds": STARTUP_PERIOD_S,
            "failureThreshold": STARTUP_TRIES,
        },
        "readinessProbe": {**health, "periodSeconds": 10, "failureThreshold": 3},
    }


def _resources(parts: ResolvedService) -> Body:
    gpus = parts.template_spec.gpus_per_replica
    requests = {
        "cpu": str(CPU_PER_GPU * gpus),
        "memory": f"{MEMORY_REQUEST_GI_PER_GPU * gpus}Gi",
        parts.gpu.resource: str(gpus),
    }
    limits = {
        "cpu": str(CPU_LIMIT_PER_GPU * gpus),
        "memory": f"{MEMORY_LIMIT_GI_PER_GPU * gpus}Gi",
        parts.gpu.resource: str(gpus),
    }
    default = {"requests": requests, "limits": limits}
    config = None if parts.config is None else parts.config.runtime
    return amounts(default, None if config is None else config.resources, parts.spec.resources)


def _env(parts: ResolvedService, settings: PodSettings, *, cached: bool) -> list[Body]:
    """Variables by name: of the profile, credentials, the control plane, then of the settings. The
    later override the earlier, but the path of the caches is where they are mounted. Those of the
    settings stay in their order, since `$(NAME)` is an earlier variable. Without mounted caches
    the runtime gets credentials to load the model itself."""
    profile = parts.found.profile
    metadata = profile.metadata
    auto = parts.template_spec.precision is Precision.AUTO
    env: dict[str, Body] = {
        name: {"name": name, "value": _text(value)}
        for name, value in profile.env_vars.items()
        if name not in FORBIDDEN_ENV
    }
    if not cached:
        env |= {variable["name"]: variable for variable in credential_env(parts.config)}
    own = {
        labels.ENV_MODEL_ID: profile.quantized_model or profile.model or parts.found.models[0].name,
        labels.ENV_METRIC: str(parts.template_spec.metric),
        labels.ENV_PRECISION: (
            metadata.precision
            if auto and metadata.precision
            else str(parts.template_spec.precision)
        ),
        labels.ENV_CACHE_PATH: labels.CACHE_PATH,
        labels.ENV_VLLM_METRICS: "true",
        **(
            {labels.ENV_ENGINE_ARGS: json.dumps(profile.engine_args, sort_keys=True)}
            if profile.engine_args
            else {}
        ),
    }
    env |= {name: {"name": name, "value": value} for name, value in own.items()}
    last = {each.name: dump(each) for each in settings.env if each.name != labels.ENV_CACHE_PATH}
    return [*(each for name, each in env.items() if name not in last), *last.values()]


def _text(value: str | float | bool | None) -> str:
    """An environment value as a string; booleans as in JSON and YAML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _mounted_sources(parts: ResolvedService, *, cached: bool) -> list[tuple[int, Source]]:
    return list(enumerate(parts.sources)) if cached else []


def _volume(index: int, source: Source) -> Body:
    assert source.cache is not None
    return {
        "name": f"cache-{index}",
        "persistentVolumeClaim": {"claimName": cache_claim(source.cache.key.name)},
    }


def _affinity(parts: ResolvedService, version: int) -> Body:
    card = {"key": parts.gpu.label, "operator": "In", "values": parts.gpu.values_in(version)}
    return {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [card]}]
            }
        }
    }
