"""Credentials travel by reference: the environment of a container names Secrets and holds none
of their values."""

import pytest

from aimschema.credentials import credential_env, pull_secrets
from aimschema.kinds import ConfigSpec

KEYS = {
    "accessKeyId": {"name": "s3", "key": "id"},
    "secretAccessKey": {"name": "s3", "key": "secret"},
}


def config(**spec: object) -> ConfigSpec:
    return ConfigSpec.model_validate(spec)


@pytest.mark.parametrize(
    "nothing",
    [None, config(), config(credentials={})],
    ids=["no-config", "no-credentials", "empty-credentials"],
)
def test_without_credentials_the_access_is_anonymous(nothing: ConfigSpec | None) -> None:
    assert credential_env(nothing) == []


@pytest.mark.parametrize("style", ["path", "virtual", "auto"])
def test_the_addressing_style_of_a_store(style: str) -> None:
    stores = [{"region": "eu-west-1"}, {"endpointUrl": "http://minio", "addressingStyle": style}]
    assert credential_env(config(credentials={"s3": stores}))[1:] == [
        {"name": "AIM_S3_1_ENDPOINT_URL", "value": "http://minio"},
        {"name": "AIM_S3_1_ADDRESSING", "value": style},
    ]


def test_the_hub_token_and_every_store_in_order() -> None:
    stores = [
        {"endpointUrl": "http://minio:9000", **KEYS},
        {"region": "eu-west-1", "endpointUrl": "http://other"},
    ]
    env = credential_env(
        config(
            credentials={
                "huggingFaceToken": {"name": "hf", "key": "token", "optional": True},
                "s3": stores,
            }
        )
    )
    assert env == [
        {
            "name": "HF_TOKEN",
            "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token", "optional": True}},
        },
        {"name": "AIM_S3_0_ENDPOINT_URL", "value": "http://minio:9000"},
        {
            "name": "AIM_S3_0_ACCESS_KEY_ID",
            "valueFrom": {"secretKeyRef": {"name": "s3", "key": "id"}},
        },
        {
            "name": "AIM_S3_0_SECRET_ACCESS_KEY",
            "valueFrom": {"secretKeyRef": {"name": "s3", "key": "secret"}},
        },
        {"name": "AIM_S3_1_ENDPOINT_URL", "value": "http://other"},
        {"name": "AIM_S3_1_REGION", "value": "eu-west-1"},
    ]


@pytest.mark.parametrize(
    ("config", "secrets"),
    [
        (None, []),
        (config(), []),
        (config(images={}), []),
        (config(images={"imagePullSecrets": ["a", "b"]}), [{"name": "a"}, {"name": "b"}]),
    ],
    ids=["no-config", "no-images", "no-secrets", "two"],
)
def test_pull_secrets(config: ConfigSpec | None, secrets: list[dict[str, str]]) -> None:
    assert pull_secrets(config) == secrets
