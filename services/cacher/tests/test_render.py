"""The objects of a cache, as they are sent. AIM_WRITE_GOLDEN=1 rewrites the files in golden/."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from aim_cacher.job_options import JobOptions, download_env
from aim_cacher.render import escape_env_refs
from aimcontroller.jobs import JobRules
from aimcontroller.testing import (
    Body,
    action_summaries,
    ago,
    applied,
    golden,
    obj,
    projection,
    storage_class,
)
from aimschema.kinds import ConfigSpec, EnvVar

OPTIONS = JobOptions("i")
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
    cache = world.cache(
        spec={
            "sourceUri": "hf://org/model@main",
            "size": "20Gi",
            "env": [{"name": "HF_ENDPOINT", "value": "http://hub"}],
        }
    )
    golden(
        __file__,
        "claim-for",
        applied(world.plan(projection(storage_class(), cache, config)), "PersistentVolumeClaim"),
    )
    golden(
        __file__,
        "download-job",
        applied(world.plan(projection(storage_class(), cache, config, world.claim())), "Job"),
    )
    golden(
        __file__,
        "size-job",
        applied(world.plan(projection(storage_class(), world.cache(None))), "Job"),
    )
    state = projection(world.template(), world.result())
    golden(
        __file__, "cache-for", applied(world.plan(state, "t", "AIMServiceTemplate"), "ModelCache")
    )


def test_the_caches_own_variables_come_last_and_win() -> None:
    own = [EnvVar(name="HF_TOKEN", value="mine"), EnvVar(name="PROXY", value="p")]
    env = download_env(ConfigSpec.model_validate({"credentials": CREDENTIALS}), own, OPTIONS)
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
    env = {
        variable["name"]: variable
        for variable in download_env(
            ConfigSpec.model_validate({"credentials": CREDENTIALS}), [], OPTIONS
        )
    }
    secret = [env["HF_TOKEN"], env["AIM_S3_0_ACCESS_KEY_ID"], env["AIM_S3_0_SECRET_ACCESS_KEY"]]
    assert [list(variable["valueFrom"]) for variable in secret] == [["secretKeyRef"]] * 3


def test_without_a_config_only_the_variables_of_the_cache_count() -> None:
    assert download_env(None, [], OPTIONS) == []


def expanded(arg: str, env: dict[str, str]) -> str:
    """Expands like the kubelet (core/v1 Container.args): `$$` is a dollar, `$(NAME)` the value
    of a variable that exists. Any other text stays."""
    return re.sub(
        r"\$\$|\$\((\w+)\)",
        lambda found: "$" if found[0] == "$$" else env.get(found[1], found[0]),
        arg,
    )


@pytest.mark.parametrize(
    "arg",
    [
        "hf://org/$(HF_TOKEN)",
        "hf://org/$$(HF_TOKEN)",
        "$$$(HF_TOKEN)",
        "$",
        "$(",
        "$HF_TOKEN",
        "s3://bucket/org/model",
    ],
)
def test_an_argument_reaches_the_container_as_it_is_written(arg: str) -> None:
    assert expanded(escape_env_refs(arg), {"HF_TOKEN": "hf_secret"}) == arg


def test_without_the_escape_the_token_would_be_in_the_argument() -> None:
    assert expanded("hf://org/$(HF_TOKEN)", {"HF_TOKEN": "hf_secret"}) == "hf://org/hf_secret"


def test_the_jobs_escape_the_source(world: Any) -> None:
    cache = world.cache(spec={"sourceUri": "hf://org/$(HF_TOKEN)", "size": "1Gi"})
    job = applied(world.plan(projection(storage_class(), cache, world.claim())), "Job")
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == [
        "fetch",
        "hf://org/$$(HF_TOKEN)",
        "/cache",
    ]


def jobs(world: Any, env: list[Body] | None = None, **settings: Any) -> list[Body]:
    """The download and the size Job of a cache under these settings."""
    bodies = [
        world.cache(spec={"sourceUri": world.uri, "size": "1Gi", "env": env or []}),
        world.claim(),
    ]
    without_size = world.cache(spec={"sourceUri": world.uri, "env": env or []})
    download = world.plan(projection(storage_class(), *bodies), **settings)
    return [
        applied(plan, "Job")
        for plan in (download, world.plan(projection(without_size), **settings))
    ]


def pod_of(job: Body) -> Body:
    pod: Body = job["spec"]["template"]["spec"]
    return pod


def test_on_openshift_the_namespace_gives_the_ids(world: Any) -> None:
    for job in jobs(world, rules=JobRules(openshift=True)):
        expected = {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
            "fsGroupChangePolicy": "OnRootMismatch",
        }
        assert pod_of(job)["securityContext"] == expected


@pytest.mark.parametrize(
    ("resources", "expected"),
    [({"limits": {"memory": "4Gi"}}, {"limits": {"memory": "4Gi"}}), ({}, None)],
    ids=["limits", "none"],
)
def test_resources_can_be_set(world: Any, resources: Body, expected: Body | None) -> None:
    for job in jobs(world, rules=JobRules(resources=resources)):
        assert pod_of(job)["containers"][0].get("resources") == expected


def test_what_a_quota_may_count_has_requests_and_limits(world: Any) -> None:
    for job in jobs(world):
        resources = pod_of(job)["containers"][0]["resources"]
        assert {part: set(amounts) for part, amounts in resources.items()} == {
            part: {"cpu", "memory"} for part in ("requests", "limits")
        }


CA = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
CA_FILE = "/etc/aim/ca/ca.crt"


def test_a_bundle_is_mounted_and_named_to_every_client(world: Any) -> None:
    for job in jobs(world, ca=CA):
        pod = pod_of(job)
        assert {"name": "ca", "configMap": {"name": "c-ca"}} in pod["volumes"]
        assert {"name": "ca", "mountPath": "/etc/aim/ca", "readOnly": True} in pod["containers"][0][
            "volumeMounts"
        ]
        env = {each["name"]: each["value"] for each in pod["containers"][0]["env"]}
        assert env == dict.fromkeys(
            ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"), CA_FILE
        )


def test_the_caches_own_bundle_wins(world: Any) -> None:
    for job in jobs(world, [{"name": "SSL_CERT_FILE", "value": "/mine"}], ca=CA):
        named = [
            each["value"]
            for each in pod_of(job)["containers"][0]["env"]
            if each["name"] == "SSL_CERT_FILE"
        ]
        assert named == ["/mine"]


def test_the_bundle_comes_before_the_job_and_goes_with_the_cache(world: Any) -> None:
    plan = world.plan(projection(storage_class(), world.cache(), world.claim()), ca=CA)
    assert action_summaries(plan)[1:] == ["apply ConfigMap c-ca", "apply Job c-download"]
    config_map = applied(plan, "ConfigMap")
    golden(__file__, "ca-config-map", config_map)
    assert config_map["metadata"]["ownerReferences"][0]["uid"] == "modelcache-c"


def test_a_changed_bundle_is_tried_at_once(world: Any) -> None:
    failed = {"attempts": 9, "nextAttemptTime": ago(-60)}
    state = projection(
        storage_class(), world.cache(status=failed), world.claim(cache=world.cache())
    )
    assert "apply Job c-download" not in action_summaries(world.plan(state))
    assert action_summaries(world.plan(state, ca=CA))[-1] == "apply Job c-download"


RELEASED = Path(__file__).parent / "released"
SETTINGS = {"rules": JobRules(openshift=True, resources={"limits": {"cpu": "1"}})}


@pytest.mark.parametrize("name", ["download-job", "size-job"])
@pytest.mark.parametrize("settings", [{}, SETTINGS], ids=["same-settings", "other-settings"])
@pytest.mark.parametrize("phase", ["Pending", "Running", "gone"])
def test_a_job_of_version_0_2_finishes_as_it_is(
    world: Any, name: str, settings: Body, phase: str
) -> None:
    """The files are as 0.2 rendered them."""
    job: Body = yaml.safe_load((RELEASED / f"{name}.yaml").read_text())
    job["metadata"] |= {"uid": "j", "resourceVersion": "1", "creationTimestamp": ago(300)}
    env = [{"name": "HF_ENDPOINT", "value": "http://hub"}]
    bodies = [
        world.config(credentials=CREDENTIALS),
        world.cache(spec={"sourceUri": "hf://org/model@main", "size": "20Gi", "env": env}),
        world.claim(),
    ]
    bodies = bodies if name == "download-job" else [world.cache(None)]
    pod = obj("Pod", "p", status={"phase": phase})
    pod["metadata"]["ownerReferences"] = [
        {"kind": "Job", "name": job["metadata"]["name"], "uid": "j"}
    ]
    plan = world.plan(
        projection(storage_class(), *bodies, job, *([] if phase == "gone" else [pod])), **settings
    )
    assert [
        action
        for action in action_summaries(plan)
        if "Events" not in action and "log" not in action
    ] == []
