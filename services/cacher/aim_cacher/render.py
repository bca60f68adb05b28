"""The objects that the cacher creates, each rendered by a pure function."""

from typing import Any

from aim_cacher.environment import is_ignored
from aim_cacher.job_options import JobOptions
from aimcontroller.jobs import (
    container_security,
    merge_resources,
    pod_security,
    with_resources,
)
from aimcontroller.projection import KubeObject
from aimschema import labels, names
from aimschema.quantities import with_headroom
from aimschema.resources import CACHE, CLAIM, CONFIG_MAP, JOB

Body = dict[str, Any]
DEST = "/cache"
CONTAINER = "downloader"
DOWNLOADER_UID = 1000
JOB_TTL_S = 3600
DOWNLOAD_DEADLINE_S = 24 * 3600
"""For one attempt; the next one resumes from the files on the volume. The deadline frees a claim
from a transfer that never ends."""
SIZE_DEADLINE_S = 3600
DOWNLOAD_RESOURCES: Body = {
    "requests": {"cpu": "100m", "memory": "256Mi"},
    "limits": {"cpu": "2", "memory": "1Gi"},
}
"""A fetch takes about 140 MB at its peak, whatever the model's size; the rest is room for the
page cache."""
SIZE_RESOURCES: Body = {
    "requests": {"cpu": "50m", "memory": "128Mi"},
    "limits": {"cpu": "1", "memory": "512Mi"},
}
SHARED = "ReadWriteMany"
CA_FOLDER = "/etc/aim/ca"
CA_KEY = "ca.crt"
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")


def cache_for(template: KubeObject, source: str, size_bytes: int | None, config: str) -> Body:
    """A ModelCache for a source that has none. It has no owner: it is shared, and outlives its
    first requester."""
    spec: Body = {"sourceUri": source}
    if size_bytes is not None:
        spec["size"] = with_headroom(size_bytes)
    return {
        "apiVersion": CACHE.api_version,
        "kind": CACHE.kind,
        "metadata": {
            "name": names.cache_for(source),
            "namespace": template.key.namespace,
            "labels": labels.common_labels(
                labels.COMPONENT_CACHE, model=str(template.spec.get("model"))
            ),
            "annotations": {labels.ANNOTATION_CONFIG: config},
        },
        "spec": spec,
    }


def claim_for(
    cache: KubeObject,
    existing: KubeObject | None,
    size: str | int,
    storage_class: str | None,
    annotations: dict[str, str],
    access_mode: str = SHARED,
) -> Body:
    """The volume claim. An existing one keeps its size, class and access modes: they cannot be
    changed."""
    access_modes = [access_mode]
    if existing is not None:
        size = requested_size(existing) or size
        storage_class = existing.spec.get("storageClassName")
        access_modes = existing.spec.get("accessModes") or access_modes
    spec: Body = {
        "accessModes": access_modes,
        "resources": {"requests": {"storage": str(size)}},
    }
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    metadata = _metadata(cache, names.cache_claim(cache.key.name)) | (
        {"annotations": annotations} if annotations else {}
    )
    return {"apiVersion": CLAIM.api_version, "kind": CLAIM.kind, "metadata": metadata, "spec": spec}


def requested_size(claim: KubeObject) -> str | None:
    """The size that a claim requests."""
    size = ((claim.spec.get("resources") or {}).get("requests") or {}).get("storage")
    return None if size is None else str(size)


def download_inputs(inputs: str, claim: KubeObject) -> str:
    """Inputs of a download, with the uid of the claim that it fills: a re-created claim is
    empty, even if an earlier Job succeeded."""
    return f"{inputs}.{claim.uid}"


def job_fills_claim(job: KubeObject, claim: KubeObject) -> bool:
    return job.annotations.get(labels.ANNOTATION_INPUTS, "").partition(".")[2] == claim.uid


def download_job(
    cache: KubeObject, options: JobOptions, env: list[Body], inputs: str, attempt: int
) -> Body:
    container = _container(
        options, ["fetch", str(cache.spec["sourceUri"]), DEST], env, DOWNLOAD_RESOURCES
    )
    container["volumeMounts"] = [{"name": "cache", "mountPath": DEST}]
    pod = _pod(options, container)
    pod["volumes"] = [
        {"name": "cache", "persistentVolumeClaim": {"claimName": names.cache_claim(cache.key.name)}}
    ]
    metadata = _job_metadata(cache, names.cache_download_job(cache.key.name), inputs, attempt)
    return _job(metadata, _with_ca(cache, options, pod), DOWNLOAD_DEADLINE_S)


def size_job(
    cache: KubeObject, options: JobOptions, env: list[Body], inputs: str, attempt: int
) -> Body:
    pod = _pod(
        options, _container(options, ["size", str(cache.spec["sourceUri"])], env, SIZE_RESOURCES)
    )
    metadata = _job_metadata(cache, names.cache_size_job(cache.key.name), inputs, attempt)
    return _job(metadata, _with_ca(cache, options, pod), SIZE_DEADLINE_S)


def ca_config_map(cache: KubeObject, ca: str) -> Body:
    """Certificates for the Jobs of the cache, in their namespace. It has no label managed-by: no
    service watches it."""
    metadata = _metadata(cache, names.cache_ca(cache.key.name))
    unwatched = {
        name: value for name, value in metadata["labels"].items() if name != labels.MANAGED_BY
    }
    return {
        "apiVersion": CONFIG_MAP.api_version,
        "kind": CONFIG_MAP.kind,
        "metadata": metadata | {"labels": unwatched},
        "data": {CA_KEY: ca},
    }


def escape_env_refs(arg: str) -> str:
    """An argument that the kubelet passes on unchanged: it would replace `$(NAME)` by the
    variable's value, which may be a secret."""
    return arg.replace("$", "$$")


def _metadata(cache: KubeObject, name: str) -> Body:
    return {
        "name": name,
        "namespace": cache.key.namespace,
        "labels": labels.common_labels(labels.COMPONENT_CACHE, modelcache=cache.key.name),
        "ownerReferences": [cache.owner_reference()],
    }


def _container(options: JobOptions, args: list[str], env: list[Body], resources: Body) -> Body:
    container: Body = {
        "name": CONTAINER,
        "image": options.image,
        "args": [escape_env_refs(arg) for arg in args],
        "env": [v for v in env if not is_ignored(v["name"])] + options.globs,
        "securityContext": container_security(),
    }
    container = with_resources(container, options.rules, resources)
    if options.resources is None:
        return container
    own = options.resources.model_dump(exclude_none=True)
    return container | {"resources": merge_resources(container.get("resources") or {}, own)}


def _pod(options: JobOptions, container: Body) -> Body:
    """Meets Pod Security `restricted`; the pod's group can write to the volume."""
    ids = {"runAsUser": DOWNLOADER_UID, "runAsGroup": DOWNLOADER_UID, "fsGroup": DOWNLOADER_UID}
    account = options.service_account
    return {
        "restartPolicy": "Never",
        "enableServiceLinks": False,
        **({"serviceAccountName": account} if account else {}),
        "automountServiceAccountToken": False,
        "securityContext": (
            pod_security(options.rules, ids) | {"fsGroupChangePolicy": "OnRootMismatch"}
        ),
        "containers": [container],
    }


def _with_ca(cache: KubeObject, options: JobOptions, pod: Body) -> Body:
    """The pod with its CA bundle; variables of config and cache win."""
    if not options.ca and options.ca_bundle is None:
        return pod
    [container] = pod["containers"]
    own = {variable["name"] for variable in container["env"]}
    file = f"{CA_FOLDER}/{CA_KEY}"
    env = [{"name": name, "value": file} for name in CA_VARIABLES if name not in own] + container[
        "env"
    ]
    mounts = [
        *container.get("volumeMounts", ()),
        {"name": "ca", "mountPath": CA_FOLDER, "readOnly": True},
    ]
    volumes = [
        *pod.get("volumes", ()),
        {"name": "ca", "configMap": _ca_source(cache, options)},
    ]
    return pod | {
        "containers": [container | {"env": env, "volumeMounts": mounts}],
        "volumes": volumes,
    }


def _ca_source(cache: KubeObject, options: JobOptions) -> Body:
    bundle = options.ca_bundle
    if bundle is None:
        return {"name": names.cache_ca(cache.key.name)}
    return {"name": bundle.config_map_name, "items": [{"key": bundle.key, "path": CA_KEY}]}


def _job_metadata(cache: KubeObject, name: str, inputs: str, attempt: int) -> Body:
    annotations = {labels.ANNOTATION_ATTEMPT: str(attempt), labels.ANNOTATION_INPUTS: inputs}
    return _metadata(cache, name) | {"annotations": annotations}


def _job(metadata: Body, pod: Body, deadline_s: int) -> Body:
    """One attempt: no retries by the Job controller, and a deadline."""
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.kind,
        "metadata": metadata,
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": JOB_TTL_S,
            "activeDeadlineSeconds": deadline_s,
            "template": {
                "metadata": {"labels": metadata["labels"] | {labels.ISTIO_INJECT: "false"}},
                "spec": pod,
            },
        },
    }
