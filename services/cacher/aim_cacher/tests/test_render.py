"""The objects of a cache, as they are sent. AIM_WRITE_GOLDEN=1 rewrites the files in golden/."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from aim_cacher.render import download_env
from aimschema.kinds import ConfigSpec, EnvVar
from aimservice.testing import Body, applied, golden, plain, projection, storage_class

GOLDEN = Path(__file__).parent / "golden"


def recorded(name: str, body: Body) -> None:
    golden(GOLDEN / f"{name}.yaml", yaml.safe_dump(plain(body), sort_keys=False, allow_unicode=True, width=150))


CREDENTIALS: Body = {
    "huggingFaceToken": {"name": "hf", "key": "token"},
    "s3": [
        {
            "endpointUrl": "https://s3.example.org",
            "accessKeyId": {"name": "s3", "key": "id"},
            "secretAccessKey": {"name": "s3", "key": "secret"},
        },
        {"region": "eu-north-1"},
    ],
}


def test_the_objects_are_as_recorded(world: Any) -> None:
    config = world.config(credentials=CREDENTIALS)
    cache = world.cache(spec={"sourceUri": "hf://org/model@main", "size": "20Gi", "env": [{"name": "HF_ENDPOINT", "value": "http://hub"}]})
    recorded("claim", applied(world.plan(projection(storage_class(), cache, config)), "PersistentVolumeClaim"))
    recorded("download-job", applied(world.plan(projection(storage_class(), cache, config, world.claim())), "Job"))
    recorded("size-job", applied(world.plan(projection(storage_class(), world.cache(None))), "Job"))
    asked = projection(world.template(), world.result())
    recorded("modelcache", applied(world.plan(asked, "t", "AIMServiceTemplate"), "ModelCache"))


@pytest.mark.parametrize("name", ["claim", "download-job", "size-job"])
def test_kubernetes_takes_them(name: str) -> None:
    kubernetes_validate.validate(yaml.safe_load((GOLDEN / f"{name}.yaml").read_text()), "1.32", strict=True)


def test_the_caches_own_variables_come_last_and_win() -> None:
    own = [EnvVar(name="HF_TOKEN", value="mine"), EnvVar(name="PROXY", value="p")]
    env = download_env(ConfigSpec.model_validate({"credentials": CREDENTIALS}), own)
    assert [variable["name"] for variable in env] == [
        "AIM_S3_0_ENDPOINT_URL",
        "AIM_S3_0_ACCESS_KEY_ID",
        "AIM_S3_0_SECRET_ACCESS_KEY",
        "AIM_S3_1_REGION",
        "HF_TOKEN",
        "PROXY",
    ]
    assert env[4] == {"name": "HF_TOKEN", "value": "mine"}


def test_secrets_go_by_reference_only() -> None:
    env = {variable["name"]: variable for variable in download_env(ConfigSpec.model_validate({"credentials": CREDENTIALS}), [])}
    secret = [env["HF_TOKEN"], env["AIM_S3_0_ACCESS_KEY_ID"], env["AIM_S3_0_SECRET_ACCESS_KEY"]]
    assert [list(variable["valueFrom"]) for variable in secret] == [["secretKeyRef"]] * 3


def test_without_a_config_there_is_nothing_but_the_caches_own() -> None:
    assert download_env(None, []) == []
