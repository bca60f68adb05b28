"""Options of downloads: settings of the cluster, of a config and of a cache, and what they do to
the Jobs. AIM_WRITE_GOLDEN=1 rewrites the files in golden/."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from aim_cacher.environment import is_forbidden
from aim_cacher.settings import CacherSettings
from aimcontroller.testing import (
    Body,
    action_summaries,
    ago,
    applied,
    claim,
    golden,
    projection,
    storage_class,
)

ALL: Body = {
    "env": [
        {"name": "HF_ENDPOINT", "value": "https://hub.example"},
        {"name": "HTTPS_PROXY", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "url"}}},
    ],
    "caBundle": {"configMapName": "corporate", "key": "bundle.pem"},
    "serviceAccountName": "downloads",
    "resources": {"requests": {"memory": "2Gi"}, "limits": {"cpu": 4}},
    "include": ["*.safetensors", "*.json"],
    "exclude": ["original/*"],
}


def job(world: Any, options: Body | None, which: str = "download", **settings: Any) -> Body:
    """The Job of a cache whose config has these options of downloads."""
    config = world.config(**({} if options is None else {"caching": {"download": options}}))
    spec = {"sourceUri": world.uri} | ({"size": "1Gi"} if which == "download" else {})
    bodies = [storage_class(), world.cache(spec=spec), config]
    bodies += [world.claim()] if which == "download" else []
    return applied(world.plan(projection(*bodies), **settings), "Job")


def container(body: Body) -> Body:
    found: Body = body["spec"]["template"]["spec"]["containers"][0]
    return found


def env(body: Body) -> Body:
    return {each["name"]: each.get("value", "") for each in container(body)["env"]}


def test_the_objects_with_all_options_are_as_recorded(world: Any) -> None:
    golden(__file__, "download-job.options", job(world, ALL))
    golden(__file__, "size-job.options", job(world, ALL, "size"))


@pytest.mark.parametrize("which", ["download", "size"])
@pytest.mark.parametrize(
    "options", [{}, {"env": [], "resources": {}}], ids=["empty", "empty-parts"]
)
def test_a_config_without_options_changes_no_job(world: Any, which: str, options: Body) -> None:
    assert job(world, options, which) == job(world, None, which)


@pytest.mark.parametrize("which", ["download", "size"])
def test_settings_of_the_cluster_reach_every_job(world: Any, which: str) -> None:
    settings = {
        "env": (("HF_ENDPOINT", "https://hub.example"),),
        "service_account": "downloads",
        "include": ("*.json",),
        "exclude": (),
    }
    rendered = job(world, None, which, **settings)
    assert rendered["spec"]["template"]["spec"]["serviceAccountName"] == "downloads"
    assert env(rendered) == {
        "HF_ENDPOINT": "https://hub.example",
        "AIM_INCLUDE": '["*.json"]',
        "AIM_EXCLUDE": "[]",
    }


def test_a_config_overrides_the_settings_of_the_cluster(world: Any) -> None:
    settings: Body = {
        "env": (("HF_ENDPOINT", "https://cluster.example"), ("NO_PROXY", "a")),
        "service_account": "of-the-cluster",
        "include": ("*",),
        "exclude": ("x",),
        "ca": "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
    }
    rendered = job(world, ALL, **settings)
    pod = rendered["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "downloads"
    assert env(rendered) | {"HTTPS_PROXY": ""} == env(job(world, ALL)) | {"NO_PROXY": "a"}
    (bundle,) = [each["configMap"] for each in pod["volumes"] if each["name"] == "ca"]
    assert bundle["name"] == "corporate"


def test_an_empty_list_of_globs_overrides_one_of_the_cluster(world: Any) -> None:
    rendered = job(world, {"exclude": []}, exclude=("*.bin",))
    assert env(rendered) == {"AIM_EXCLUDE": "[]"}


def test_credentials_override_the_cluster_and_a_config_both(world: Any) -> None:
    """The order of four writers of one variable; what refers to another comes after it."""
    token = {"huggingFaceToken": {"name": "hf", "key": "token"}}
    layers: list[Body] = [{"name": "HF_TOKEN", "value": str(number)} for number in range(4)]

    def last(cluster: bool, credentials: bool, config: bool, cache: bool) -> Body:
        spec = {"sourceUri": world.uri, "size": "1Gi", "env": layers[3:] if cache else []}
        download = {"caching": {"download": {"env": layers[2:3]}}} if config else {}
        state = projection(
            storage_class(),
            world.cache(spec=spec),
            world.config(**({"credentials": token} if credentials else {}), **download),
            world.claim(),
        )
        settings = {"env": (("HF_TOKEN", "0"),)} if cluster else {}
        rendered = applied(world.plan(state, **settings), "Job")
        (variable,) = container(rendered)["env"]
        return dict(variable)

    assert last(True, False, False, False) == layers[0]
    assert "valueFrom" in last(True, True, False, False)
    assert last(True, True, True, False) == layers[2]
    assert last(True, True, True, True) == layers[3]


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"requests": {"memory": "2Gi"}}, ("2Gi", "2Gi")),
        ({"limits": {"memory": "128Mi"}}, ("128Mi", "128Mi")),
        ({"limits": {"memory": "8Gi"}}, ("256Mi", "8Gi")),
        ({"requests": {"memory": "1Gi"}, "limits": {"memory": "3Gi"}}, ("1Gi", "3Gi")),
        ({"requests": {"memory": 1073741824}}, ("1073741824", "1Gi")),
    ],
)
def test_resources_replace_the_defaults_by_name(
    world: Any, own: Body, expected: tuple[str, str]
) -> None:
    resources = container(job(world, {"resources": own}))["resources"]
    assert (resources["requests"]["memory"], resources["limits"]["memory"]) == expected
    assert (resources["requests"]["cpu"], resources["limits"]["cpu"]) == ("100m", "2")


def test_the_own_globs_of_a_cache_are_ignored(world: Any) -> None:
    """AIM_INCLUDE belongs to the config: a cache cannot leave files out of a shared volume."""
    spec = {
        "sourceUri": world.uri,
        "size": "1Gi",
        "env": [{"name": "AIM_INCLUDE", "value": '["x"]'}],
    }
    config = world.config(caching={"download": {"include": ["*.json"]}})
    plan = world.plan(projection(storage_class(), world.cache(spec=spec), config, world.claim()))
    assert env(applied(plan, "Job")) == {"AIM_INCLUDE": '["*.json"]'}


@pytest.mark.parametrize("option", list(ALL))
def test_a_changed_option_is_tried_at_once(world: Any, option: str) -> None:
    failed = {"attempts": 9, "nextAttemptTime": ago(-60)}
    bodies = [
        storage_class(),
        world.cache(status=failed),
        world.claim(cache=world.cache()),
    ]
    assert "apply Job c-download" not in action_summaries(world.plan(projection(*bodies)))
    config = world.config(caching={"download": {option: ALL[option]}})
    plan = world.plan(projection(*bodies, config))
    assert action_summaries(plan)[-1] == "apply Job c-download"


@pytest.mark.parametrize("mode", ["ReadWriteOnce", "ReadWriteMany", None])
def test_the_access_mode_is_that_of_new_claims(world: Any, mode: str | None) -> None:
    config = world.config(**({} if mode is None else {"caching": {"accessMode": mode}}))
    state = projection(storage_class(), world.cache(), config)
    created = applied(world.plan(state), "PersistentVolumeClaim")
    assert created["spec"]["accessModes"] == [mode or "ReadWriteMany"]


@pytest.mark.parametrize("mode", ["ReadWriteOnce", "ReadWriteMany"])
def test_an_existing_claim_keeps_its_access_mode(world: Any, mode: str) -> None:
    other = {"ReadWriteOnce": "ReadWriteMany", "ReadWriteMany": "ReadWriteOnce"}[mode]
    existing = claim("c-cache", world.owner, "Bound")
    existing["spec"]["accessModes"] = [mode]
    state = projection(
        storage_class(), world.cache(), world.config(caching={"accessMode": other}), existing
    )
    again = applied(world.plan(state), "PersistentVolumeClaim")
    assert again["spec"]["accessModes"] == [mode]


def test_the_digest_of_the_manifest_is_reported(world: Any) -> None:
    line = json.dumps({"bytes": 7, "revision": "r", "manifest_digest": "sha256:ab"})
    state = projection(
        storage_class(),
        world.cache(),
        world.claim(cache=world.cache(), filled="r"),
        world.download("succeeded"),
        world.ended(0, line),
    )
    (report,) = world.plan(state).reports
    assert report.fields["manifestDigest"] == "sha256:ab"


def test_a_missing_secret_of_the_options_is_named(world: Any) -> None:
    pod = world.running(phase="Pending")
    pod["status"]["containerStatuses"] = [
        {
            "name": "downloader",
            "state": {
                "waiting": {
                    "reason": "CreateContainerConfigError",
                    "message": 'secret "proxy" not found',
                }
            },
        }
    ]
    config = world.config(caching={"download": ALL})
    state = projection(storage_class(), world.cache(), config, world.claim(), world.download(), pod)
    (report,) = world.plan(state, "default", "AIMNamespaceConfig").reports
    (warning,) = report.warnings
    assert warning.message.startswith("spec.caching.download.env[1] names Secret proxy")


def test_settings_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIM_DOWNLOAD_ENV", '{"HF_ENDPOINT": "https://hub.example"}')
    monkeypatch.setenv("AIM_DOWNLOAD_SERVICE_ACCOUNT", "downloads")
    monkeypatch.setenv("AIM_DOWNLOAD_INCLUDE", '["*.json"]')
    monkeypatch.setenv("AIM_DOWNLOAD_EXCLUDE", " ")
    monkeypatch.setenv("AIM_CACHE_QUOTA", "50Ti")
    options = CacherSettings().job_options()
    assert options.env == (("HF_ENDPOINT", "https://hub.example"),)
    assert (options.service_account, options.include, options.exclude) == (
        "downloads",
        ("*.json",),
        None,
    )
    assert options.quota_bytes == 50 << 40


@pytest.mark.parametrize(
    ("variable", "text", "fragment"),
    [
        ("AIM_DOWNLOAD_ENV", "HF_ENDPOINT=x", "is not JSON"),
        ("AIM_DOWNLOAD_ENV", "[]", "valid dictionary"),
        ("AIM_DOWNLOAD_ENV", '{"PYTHONPATH": "/x"}', "PYTHONPATH loads code"),
        ("AIM_DOWNLOAD_ENV", '{"aim_s3_0_region": "x"}', "aim_s3_0_region loads code"),
        ("AIM_DOWNLOAD_INCLUDE", "*.json", "is not JSON"),
        ("AIM_DOWNLOAD_EXCLUDE", "[1]", "valid string"),
        ("AIM_CACHE_QUOTA", "much", "not a quantity"),
        ("AIM_CACHE_QUOTA", "0", "greater than 0"),
        ("AIM_CACHE_QUOTA", "-1Gi", "greater than 0"),
    ],
)
def test_an_invalid_setting_ends_the_start(
    variable: str, text: str, fragment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ValidationError, match=fragment):
        CacherSettings()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PYTHONPATH", True),
        ("ld_preload", True),
        ("Path", True),
        ("SSLKEYLOGFILE", True),
        ("AIM_S3_0_REGION", True),
        ("HF_ENDPOINT", False),
        ("https_proxy", False),
        ("MY_PATH", False),
    ],
)
def test_variables_a_config_may_not_set(name: str, expected: bool) -> None:
    assert is_forbidden(name) is expected
