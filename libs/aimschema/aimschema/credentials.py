"""Credentials of a namespace's config as environment variables, by reference: no value of a
Secret is ever read here."""

from typing import Any

from aimschema import labels
from aimschema.kinds import ConfigSpec, SecretKeySelector


def credential_env(config: ConfigSpec | None) -> list[dict[str, Any]]:
    """Kubernetes EnvVars for a container that gets at model sources: HF_TOKEN, and AIM_S3_<i>_*
    for each store in order."""
    if config is None or config.credentials is None:
        return []
    env: list[dict[str, Any]] = []
    if config.credentials.hugging_face_token is not None:
        env.append(_from_secret(labels.ENV_HF_TOKEN, config.credentials.hugging_face_token))
    for index, store in enumerate(config.credentials.s3):
        prefix = f"{labels.ENV_S3_PREFIX}{index}_"
        if store.endpoint_url is not None:
            env.append({"name": prefix + "ENDPOINT_URL", "value": store.endpoint_url})
        if store.region is not None:
            env.append({"name": prefix + "REGION", "value": store.region})
        if store.addressing_style is not None:
            env.append({"name": prefix + "ADDRESSING", "value": store.addressing_style})
        if store.access_key_id is not None:
            env.append(_from_secret(prefix + "ACCESS_KEY_ID", store.access_key_id))
        if store.secret_access_key is not None:
            env.append(_from_secret(prefix + "SECRET_ACCESS_KEY", store.secret_access_key))
    return env


def pull_secrets(config: ConfigSpec | None) -> list[dict[str, str]]:
    """imagePullSecrets of pods that run AIM images."""
    return (
        [{"name": name} for name in config.images.image_pull_secrets]
        if config is not None and config.images is not None
        else []
    )


def _from_secret(name: str, selector: SecretKeySelector) -> dict[str, Any]:
    return {
        "name": name,
        "valueFrom": {"secretKeyRef": selector.model_dump(by_alias=True, exclude_none=True)},
    }
