"""The objects of a cache, as they are sent. AIM_WRITE_GOLDEN=1 rewrites the files in golden/."""

import re
from typing import Any

import pytest

from aim_cacher.render import download_env, literal
from aimschema.kinds import ConfigSpec, EnvVar
from aimservice.testing import Body, applied, golden, projection, storage_class

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
    golden(__file__, "claim-for", applied(world.plan(projection(storage_class(), cache, config)), "PersistentVolumeClaim"))
    golden(__file__, "download-job", applied(world.plan(projection(storage_class(), cache, config, world.claim())), "Job"))
    golden(__file__, "size-job", applied(world.plan(projection(storage_class(), world.cache(None))), "Job"))
    asked = projection(world.template(), world.result())
    golden(__file__, "cache-for", applied(world.plan(asked, "t", "AIMServiceTemplate"), "ModelCache"))


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


def expanded(arg: str, env: dict[str, str]) -> str:
    """As the kubelet does (core/v1 Container.args): `$$` is a dollar, `$(NAME)` the value of a variable that there is, and stays otherwise."""
    return re.sub(r"\$\$|\$\((\w+)\)", lambda found: "$" if found[0] == "$$" else env.get(found[1], found[0]), arg)


@pytest.mark.parametrize("arg", ["hf://org/$(HF_TOKEN)", "hf://org/$$(HF_TOKEN)", "$$$(HF_TOKEN)", "$", "$(", "$HF_TOKEN", "s3://bucket/org/model"])
def test_an_argument_reaches_the_container_as_it_is_written(arg: str) -> None:
    assert expanded(literal(arg), {"HF_TOKEN": "hf_secret"}) == arg


def test_without_the_escape_the_token_would_be_in_the_argument() -> None:
    assert expanded("hf://org/$(HF_TOKEN)", {"HF_TOKEN": "hf_secret"}) == "hf://org/hf_secret"


def test_the_jobs_escape_the_source(world: Any) -> None:
    cache = world.cache(spec={"sourceUri": "hf://org/$(HF_TOKEN)", "size": "1Gi"})
    job = applied(world.plan(projection(storage_class(), cache, world.claim())), "Job")
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["fetch", "hf://org/$$(HF_TOKEN)", "/cache"]
