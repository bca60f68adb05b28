"""The objects a cache is made of, each a pure function of what it is made for."""

from dataclasses import dataclass
from typing import Any

from aim_cacher.environment import is_ignored
from aimcontroller.jobs import (
    DEFAULT_RULES,
    JobRules,
    container_security,
    pod_security,
    with_resources,
)
from aimcontroller.projection import Seen
from aimschema import labels, names
from aimschema.credentials import credential_env
from aimschema.kinds import ConfigSpec, EnvVar
from aimschema.quantities import with_headroom
from aimschema.resources import CACHE, CLAIM, CONFIG_MAP, JOB

Body = dict[str, Any]
DEST = "/cache"
CONTAINER = "downloader"
DOWNLOADER_UID = 1000
JOB_TTL_S = 3600
DOWNLOAD_DEADLINE_S = 24 * 3600
"""One try; the next goes on from the files that are there. It frees a claim that waits for a
transfer without end."""
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
CA_FOLDER, CA_KEY = "/etc/aim/ca", "ca.crt"
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")


@dataclass(frozen=True, slots=True)
class Making:
    """Settings that go into the Jobs of every cache. `ca`: certificates in PEM form that they
    trust beside the public ones."""

    image: str
    rules: JobRules = DEFAULT_RULES
    ca: str = ""


def cache_for(template: Seen, source: str, size_bytes: int | None, config: str) -> Body:
    """A ModelCache for a source that has none. It has no owner: it is shared, and outlives who
    asked first."""
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
    cache: Seen,
    existing: Seen | None,
    size: str | int,
    storage_class: str | None,
    annotations: dict[str, str],
) -> Body:
    """The volume claim. Of an existing one size and class stay as they are: they cannot be
    changed."""
    if existing is not None:
        size = requested(existing) or size
        storage_class = existing.spec.get("storageClassName")
    spec: Body = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": str(size)}},
    }
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    metadata = _metadata(cache, names.cache_claim(cache.key.name)) | (
        {"annotations": annotations} if annotations else {}
    )
    return {"apiVersion": CLAIM.api_version, "kind": CLAIM.kind, "metadata": metadata, "spec": spec}


def requested(claim: Seen) -> str | None:
    """Size that a claim asks for."""
    size = ((claim.spec.get("resources") or {}).get("requests") or {}).get("storage")
    return None if size is None else str(size)


def inputs_with(inputs: str, claim: Seen) -> str:
    """What a download is made from, with the claim it fills: a claim made anew is empty,
    whatever a Job of before says."""
    return f"{inputs}.{claim.uid}"


def fills(job: Seen, claim: Seen) -> bool:
    return job.annotations.get(labels.ANNOTATION_INPUTS, "").partition(".")[2] == claim.uid


def download_job(cache: Seen, making: Making, env: list[Body], inputs: str, attempt: int) -> Body:
    container = _container(
        making, ["fetch", str(cache.spec["sourceUri"]), DEST], env, DOWNLOAD_RESOURCES
    )
    container["volumeMounts"] = [{"name": "cache", "mountPath": DEST}]
    pod = _pod(making, container)
    pod["volumes"] = [
        {"name": "cache", "persistentVolumeClaim": {"claimName": names.cache_claim(cache.key.name)}}
    ]
    metadata = _job_metadata(cache, names.cache_download_job(cache.key.name), inputs, attempt)
    return _job(metadata, _with_ca(cache, making, pod), DOWNLOAD_DEADLINE_S)


def size_job(cache: Seen, making: Making, env: list[Body], inputs: str, attempt: int) -> Body:
    pod = _pod(
        making, _container(making, ["size", str(cache.spec["sourceUri"])], env, SIZE_RESOURCES)
    )
    metadata = _job_metadata(cache, names.cache_size_job(cache.key.name), inputs, attempt)
    return _job(metadata, _with_ca(cache, making, pod), SIZE_DEADLINE_S)


def ca_config_map(cache: Seen, ca: str) -> Body:
    """Certificates for the cache's Jobs, in their namespace. Without the label managed-by:
    nobody needs it on the bus."""
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


def download_env(config: ConfigSpec | None, own: list[EnvVar]) -> list[Body]:
    """Credentials by reference, then the cache's own variables, which win and so may use each
    other's values (`$(NAME)` looks back only)."""
    named = {variable.name for variable in own}
    credentials = [variable for variable in credential_env(config) if variable["name"] not in named]
    return credentials + [variable.model_dump(by_alias=True, exclude_none=True) for variable in own]


def literal(arg: str) -> str:
    """An argument that the kubelet hands on as it is: `$(NAME)` would become the variable's
    value, which may be a secret."""
    return arg.replace("$", "$$")


def _metadata(cache: Seen, name: str) -> Body:
    return {
        "name": name,
        "namespace": cache.key.namespace,
        "labels": labels.common_labels(labels.COMPONENT_CACHE, modelcache=cache.key.name),
        "ownerReferences": [cache.owner_reference()],
    }


def _container(making: Making, args: list[str], env: list[Body], resources: Body) -> Body:
    container = {
        "name": CONTAINER,
        "image": making.image,
        "args": [literal(arg) for arg in args],
        "env": [variable for variable in env if not is_ignored(variable["name"])],
        "securityContext": container_security(),
    }
    return with_resources(container, making.rules, resources)


def _pod(making: Making, container: Body) -> Body:
    """Under restricted pod security (Pod Security Standards); the group can write to the volume."""
    ids = {"runAsUser": DOWNLOADER_UID, "runAsGroup": DOWNLOADER_UID, "fsGroup": DOWNLOADER_UID}
    return {
        "restartPolicy": "Never",
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": (
            pod_security(making.rules, ids) | {"fsGroupChangePolicy": "OnRootMismatch"}
        ),
        "containers": [container],
    }


def _with_ca(cache: Seen, making: Making, pod: Body) -> Body:
    """The pod, trusting the bundle of the settings; the cache's own variables win."""
    if not making.ca:
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
        {"name": "ca", "configMap": {"name": names.cache_ca(cache.key.name)}},
    ]
    return pod | {
        "containers": [container | {"env": env, "volumeMounts": mounts}],
        "volumes": volumes,
    }


def _job_metadata(cache: Seen, name: str, inputs: str, attempt: int) -> Body:
    annotations = {labels.ANNOTATION_ATTEMPT: str(attempt), labels.ANNOTATION_INPUTS: inputs}
    return _metadata(cache, name) | {"annotations": annotations}


def _job(metadata: Body, pod: Body, deadline_s: int) -> Body:
    """One try."""
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
