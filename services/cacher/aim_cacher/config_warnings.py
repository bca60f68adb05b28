"""Warnings on an AIMNamespaceConfig about fields that caches cannot use. Pure.

The cacher never reads Secrets. It knows that one is missing once the kubelet reports it for a pod
that needs it.
"""

from collections.abc import Iterator

from aim_cacher.job_options import download_of
from aim_cacher.projection import config_of
from aimcontroller.indexes import UNMOUNTABLE, UNMOUNTABLE_PODS
from aimcontroller.plan import Plan, report_warnings
from aimcontroller.projection import KubeObject, Projection
from aimcontroller.workloads import pod_start_failure
from aimschema import reasons
from aimschema.kinds import ConfigSpec
from aimschema.names import DEFAULT_CONFIG
from aimschema.resources import CACHE, JOB, STORAGE_CLASS, Key


def plan_config(state: Projection, config: KubeObject) -> Plan:
    spec = config.spec_as(ConfigSpec.model_validate)
    warnings = [
        (reasons.SECRET_MISSING, message) for message in _secrets_missing(state, config, spec)
    ]
    caching = spec.caching
    if config.key.name != DEFAULT_CONFIG and caching is not None:
        set_here = {"quota": caching.quota, "evictAfter": caching.evict_after}
        fields = [f"spec.caching.{name}" for name, value in set_here.items() if value is not None]
        if fields:
            message = (
                f"{' and '.join(fields)} count only in AIMNamespaceConfig {DEFAULT_CONFIG}; set"
                " them there"
            )
            warnings.append((reasons.QUOTA_IGNORED, message))
    class_name = spec.cache_storage_class_name
    if class_name is not None and state.get(Key(STORAGE_CLASS.kind, None, class_name)) is None:
        message = (
            f"spec.cacheStorageClassName names StorageClass {class_name}, which does not exist;"
            " create it, or change the field"
        )
        warnings.append((reasons.STORAGE_CLASS_MISSING, message))
    return report_warnings(state, config, reasons.CACHER, *warnings)


def _secrets_missing(state: Projection, config: KubeObject, spec: ConfigSpec) -> Iterator[str]:
    """A message for each field whose Secret, or its key, is missing so that a pod cannot start."""
    mount_errors = [
        failure.message
        for failure in map(pod_start_failure, _unmountable_pods(state, config))
        if failure is not None and failure.reason == UNMOUNTABLE
    ]
    for field, secret in _secrets_of(spec):
        # Messages of the kubelet: `secret "NAME" not found`, or `couldn't find key KEY in Secret
        # NAMESPACE/NAME`.
        if any(
            f'secret "{secret}" not found' in text
            or f"in Secret {config.key.namespace}/{secret};" in text
            for text in mount_errors
        ):
            yield (
                f"{field} names Secret {secret}, which is missing or has no such key; create it,"
                " or change the field"
            )


def _unmountable_pods(state: Projection, config: KubeObject) -> Iterator[KubeObject]:
    """Of the Jobs of caches that are filled with this config."""
    for pod in state.find(UNMOUNTABLE_PODS, UNMOUNTABLE, config.key.namespace):
        job = _owner(state, pod, JOB.kind)
        cache = None if job is None else _owner(state, job, CACHE.kind)
        if cache is not None and config_of(cache, config.key.namespace) == config.key:
            yield pod


def _owner(state: Projection, obj: KubeObject, kind: str) -> KubeObject | None:
    key = obj.owner(kind)
    owner = None if key is None else state.get(key)
    return owner if owner is not None and owner.uid in obj.owners else None


def _secrets_of(spec: ConfigSpec) -> Iterator[tuple[str, str]]:
    """Fields that name a Secret, with its name."""
    for place, variable in enumerate(download_of(spec).env or []):
        source = None if variable.value_from is None else variable.value_from.secret_key_ref
        if source is not None:
            yield f"spec.caching.download.env[{place}]", source.name
    credentials = spec.credentials
    if credentials is None:
        return
    if credentials.hugging_face_token is not None:
        yield "spec.credentials.huggingFaceToken", credentials.hugging_face_token.name
    for index, store in enumerate(credentials.s3):
        if store.access_key_id is not None:
            yield f"spec.credentials.s3[{index}].accessKeyId", store.access_key_id.name
        if store.secret_access_key is not None:
            yield f"spec.credentials.s3[{index}].secretAccessKey", store.secret_access_key.name
