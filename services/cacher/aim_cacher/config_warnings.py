"""What an AIMNamespaceConfig says of caches and cannot be followed, told on the config itself.
Pure.

Secrets are never read: that one is missing is known only once the kubelet says so of a pod that
needs it.
"""

import datetime
from collections.abc import Iterator

from aim_cacher.projection import config_of
from aimcontroller.plan import Plan, advise
from aimcontroller.projection import Projection, Seen
from aimcontroller.workloads import pods_of, problem
from aimschema import reasons
from aimschema.kinds import ConfigSpec
from aimschema.resources import CACHE, JOB, STORAGE_CLASS, Key

_UNMOUNTABLE = "CreateContainerConfigError"


def plan_config(seen: Projection, config: Seen, now: datetime.datetime) -> Plan:
    spec = ConfigSpec.model_validate(config.spec)
    found = [(reasons.SECRET_MISSING, words) for words in _secrets_missing(seen, config, spec)]
    wanted = spec.cache_storage_class_name
    if wanted is not None and seen.get(Key(STORAGE_CLASS.kind, None, wanted)) is None:
        words = (
            f"spec.cacheStorageClassName names StorageClass {wanted}, which does not exist; create"
            " it, or change the field"
        )
        found.append((reasons.STORAGE_CLASS_MISSING, words))
    return advise(seen, config, reasons.CACHER, now, *found)


def _secrets_missing(seen: Projection, config: Seen, spec: ConfigSpec) -> Iterator[str]:
    """Each field once whose Secret, or key of it, keeps a pod of a cache from starting."""
    troubles = [
        found.message
        for pod in _pods(seen, config)
        if (found := problem(pod)) is not None and found.reason == _UNMOUNTABLE
    ]
    for field, secret in _named(spec):
        # The kubelet says `secret "NAME" not found`, or `couldn't find key KEY in Secret
        # NAMESPACE/NAME`.
        if any(
            f'secret "{secret}" not found' in text
            or f"in Secret {config.key.namespace}/{secret};" in text
            for text in troubles
        ):
            yield (
                f"{field} names Secret {secret}, which does not exist or lacks the key; create it,"
                " or change the field"
            )


def _pods(seen: Projection, config: Seen) -> Iterator[Seen]:
    for cache in seen.all(CACHE.kind, config.key.namespace):
        if config_of(cache, config.key.namespace) == config.key:
            for job in seen.owned(cache.uid, JOB.kind, cache.key.namespace):
                yield from pods_of(seen, job)


def _named(spec: ConfigSpec) -> Iterator[tuple[str, str]]:
    """Fields and the Secrets they name."""
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
