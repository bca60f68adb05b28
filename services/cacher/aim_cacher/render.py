"""The objects a cache is made of, each a pure function of what it is made for."""

from typing import Any

from aimschema import labels, names
from aimschema.credentials import credential_env
from aimschema.kinds import ConfigSpec, EnvVar
from aimschema.quantities import with_headroom
from aimschema.resources import CACHE, CLAIM, JOB
from aimservice.projection import Seen

Body = dict[str, Any]
DEST = "/cache"
CONTAINER = "downloader"
DOWNLOADER_UID = 1000
JOB_TTL_S = 3600


def cache_for(template: Seen, source: str, size_bytes: int | None, config: str) -> Body:
    """A ModelCache for a source that has none. It has no owner: it is shared, and outlives who asked first."""
    spec: Body = {"sourceUri": source}
    if size_bytes is not None:
        spec["size"] = with_headroom(size_bytes)
    return {
        "apiVersion": CACHE.api_version,
        "kind": CACHE.kind,
        "metadata": {
            "name": names.cache_for(source),
            "namespace": template.key.namespace,
            "labels": labels.common_labels(labels.COMPONENT_CACHE, model=str(template.spec.get("model"))),
            "annotations": {labels.ANNOTATION_CONFIG: config},
        },
        "spec": spec,
    }


def claim_for(cache: Seen, existing: Seen | None, size: str | int, storage_class: str | None, annotations: dict[str, str]) -> Body:
    """The volume claim. Of an existing one size and class stay as they are: they cannot be changed."""
    if existing is not None:
        size = requested(existing) or size
        storage_class = existing.spec.get("storageClassName")
    spec: Body = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": str(size)}}}
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    metadata = _metadata(cache, names.cache_claim(cache.key.name)) | ({"annotations": annotations} if annotations else {})
    return {"apiVersion": CLAIM.api_version, "kind": CLAIM.kind, "metadata": metadata, "spec": spec}


def requested(claim: Seen) -> str | None:
    """Size that a claim asks for."""
    size = ((claim.spec.get("resources") or {}).get("requests") or {}).get("storage")
    return None if size is None else str(size)


def inputs_with(inputs: str, claim: Seen) -> str:
    """What a download is made from, with the claim it fills: a claim made anew is empty, whatever a Job of before says."""
    return f"{inputs}.{claim.uid}"


def fills(job: Seen, claim: Seen) -> bool:
    return job.annotations.get(labels.ANNOTATION_INPUTS, "").partition(".")[2] == claim.uid


def download_job(cache: Seen, image: str, env: list[Body], inputs: str, attempt: int) -> Body:
    container = _container(image, ["fetch", str(cache.spec["sourceUri"]), DEST], env)
    container["volumeMounts"] = [{"name": "cache", "mountPath": DEST}]
    job = _job(cache, names.cache_download_job(cache.key.name), container, inputs, attempt)
    job["spec"]["template"]["spec"]["volumes"] = [{"name": "cache", "persistentVolumeClaim": {"claimName": names.cache_claim(cache.key.name)}}]
    return job


def size_job(cache: Seen, image: str, env: list[Body], inputs: str, attempt: int) -> Body:
    container = _container(image, ["size", str(cache.spec["sourceUri"])], env)
    return _job(cache, names.cache_size_job(cache.key.name), container, inputs, attempt)


def download_env(config: ConfigSpec | None, own: list[EnvVar]) -> list[Body]:
    """Credentials by reference, then the cache's own variables, which win and so may use each other's values (`$(NAME)` looks back only)."""
    named = {variable.name for variable in own}
    credentials = [variable for variable in credential_env(config) if variable["name"] not in named]
    return credentials + [variable.model_dump(by_alias=True, exclude_none=True) for variable in own]


def literal(arg: str) -> str:
    """An argument that the kubelet hands on as it is: `$(NAME)` would become the variable's value, which may be a secret."""
    return arg.replace("$", "$$")


def _metadata(cache: Seen, name: str) -> Body:
    return {
        "name": name,
        "namespace": cache.key.namespace,
        "labels": labels.common_labels(labels.COMPONENT_CACHE, modelcache=cache.key.name),
        "ownerReferences": [cache.owner_reference()],
    }


def _container(image: str, args: list[str], env: list[Body]) -> Body:
    return {
        "name": CONTAINER,
        "image": image,
        "args": [literal(arg) for arg in args],
        "env": env,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def _job(cache: Seen, name: str, container: Body, inputs: str, attempt: int) -> Body:
    """One try, under restricted pod security (Pod Security Standards); the group can write to the volume."""
    metadata = _metadata(cache, name)
    pod: Body = {
        "restartPolicy": "Never",
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": DOWNLOADER_UID,
            "runAsGroup": DOWNLOADER_UID,
            "fsGroup": DOWNLOADER_UID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.kind,
        "metadata": metadata | {"annotations": {labels.ANNOTATION_ATTEMPT: str(attempt), labels.ANNOTATION_INPUTS: inputs}},
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": JOB_TTL_S,
            "template": {"metadata": {"labels": metadata["labels"]}, "spec": pod},
        },
    }
