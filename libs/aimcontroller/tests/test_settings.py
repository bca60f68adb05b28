"""Settings from the environment: names, defaults, and the warning for an unknown variable."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from aimcontroller.jobs import JobRules
from aimcontroller.settings import JobSettings, ServiceSettings, unknown_variables


class Cachers(ServiceSettings):
    cold_start_s: float = 1.0


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "KUBECONFIG",
        "AIM_KUBECONFIG",
        *(f"AIM_{field.upper()}" for field in ServiceSettings.model_fields),
    ):
        monkeypatch.delenv(name, raising=False)


def test_defaults() -> None:
    assert ServiceSettings().model_dump() == {
        "nats_url": "nats://127.0.0.1:4222",
        "nats_creds": None,
        "nats_ca": None,
        "kubeconfig": None,
        "namespace": "aim-system",
        "http_port": 8080,
        "log_level": "INFO",
        "log_format": "json",
    }


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("AIM_NATS_URL", "nats://nats:4222", "nats_url", "nats://nats:4222"),
        ("AIM_NATS_CREDS", "/creds", "nats_creds", "/creds"),
        ("AIM_NATS_CA", "/ca.crt", "nats_ca", "/ca.crt"),
        ("KUBECONFIG", "/kubeconfig", "kubeconfig", "/kubeconfig"),
        ("AIM_NAMESPACE", "infra", "namespace", "infra"),
        ("AIM_HTTP_PORT", "0", "http_port", 0),
        ("AIM_LOG_LEVEL", "DEBUG", "log_level", "DEBUG"),
        ("AIM_LOG_FORMAT", "console", "log_format", "console"),
        ("AIM_COLD_START_S", "2.5", "cold_start_s", 2.5),
    ],
)
def test_a_variable_sets_its_field(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str, value: Any
) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(Cachers(), field) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [("AIM_HTTP_PORT", "80800"), ("AIM_HTTP_PORT", "http"), ("AIM_LOG_LEVEL", "LOUD")],
)
def test_an_invalid_value_is_rejected(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ValidationError):
        ServiceSettings()


def test_settings_do_not_change_after_the_start() -> None:
    with pytest.raises(ValidationError):
        ServiceSettings().http_port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("environ", "unknown"),
    [
        pytest.param(
            {"AIM_NATS_URL": "", "AIM_COLD_START_S": "", "PATH": "", "KUBECONFIG": ""},
            [],
            id="known",
        ),
        pytest.param(
            {
                "AIM_DOWNLOADER_IMAGE": "",
                "AIM_NATS_REPLICAS": "",
                "AIM_GPU_TABLE": "",
                "AIM_DISCOVERY_RETRY_S": "",
            },
            [],
            id="known-to-another-service",
        ),
        pytest.param({"AIM_NATS_ULR": "", "AIM_X": ""}, ["AIM_NATS_ULR", "AIM_X"], id="misspelt"),
        pytest.param({"AIM_KUBECONFIG": ""}, ["AIM_KUBECONFIG"], id="kubectl-calls-it-otherwise"),
    ],
)
def test_unknown_variables_are_reported(environ: dict[str, str], unknown: list[str]) -> None:
    assert unknown_variables(Cachers, environ) == unknown


RESOURCES = {"requests": {"cpu": "100m"}, "limits": {"cpu": 1, "memory": "1Gi"}}


@pytest.mark.parametrize(
    ("environ", "rules"),
    [
        pytest.param({}, JobRules(), id="default"),
        pytest.param({"AIM_POD_SECURITY": "openshift"}, JobRules(openshift=True), id="openshift"),
        pytest.param({"AIM_JOB_RESOURCES": ""}, JobRules(), id="empty"),
        pytest.param({"AIM_JOB_RESOURCES": "{}"}, JobRules(resources={}), id="no-resources"),
        pytest.param(
            {"AIM_JOB_RESOURCES": json.dumps(RESOURCES)},
            JobRules(
                resources={"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "1Gi"}}
            ),
            id="resources",
        ),
    ],
)
def test_rules_for_jobs(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], rules: JobRules
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert JobSettings().job_rules() == rules


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{", "is not JSON"),
        ("[]", 'must be an object with "requests" and "limits"'),
        ('{"memory": "1Gi"}', 'must be an object with "requests" and "limits"'),
        ('{"limits": 5}', "limits must be an object"),
        ('{"limits": {"mem": "1Gi"}}', "limits.mem is no resource"),
        ('{"limits": {"memory": "1 GB"}}', "'1 GB' is not a quantity"),
        ('{"limits": {"memory": null}}', "limits.memory None is not a quantity"),
        (
            '{"requests": {"cpu": "500m"}, "limits": {"cpu": "250m"}}',
            "requests.cpu 500m is above limits.cpu 250m",
        ),
    ],
)
def test_resources_that_no_pod_could_have_end_the_start(
    monkeypatch: pytest.MonkeyPatch, text: str, parts: str
) -> None:
    monkeypatch.setenv("AIM_JOB_RESOURCES", text)
    with pytest.raises(ValidationError) as caught:
        JobSettings()
    [problem] = caught.value.errors()
    assert problem["loc"] == ("job_resources",)
    assert parts in problem["msg"]


def test_an_unknown_pod_security_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIM_POD_SECURITY", "privileged")
    with pytest.raises(ValidationError):
        JobSettings()
