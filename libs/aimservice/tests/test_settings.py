"""Settings from the environment: names, defaults, and what is said of a variable that nobody knows."""

from typing import Any

import pytest
from pydantic import ValidationError

from aimservice.settings import ServiceSettings, unknown_variables


class Cachers(ServiceSettings):
    cold_start_s: float = 1.0


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "AIM_KUBECONFIG", *(f"AIM_{field.upper()}" for field in ServiceSettings.model_fields)):
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
def test_a_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str, value: Any) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(Cachers(), field) == value


@pytest.mark.parametrize(("variable", "text"), [("AIM_HTTP_PORT", "80800"), ("AIM_HTTP_PORT", "http"), ("AIM_LOG_LEVEL", "LOUD")])
def test_a_value_that_makes_no_sense_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, text: str) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ValidationError):
        ServiceSettings()


def test_settings_do_not_change_after_the_start() -> None:
    with pytest.raises(ValidationError):
        ServiceSettings().http_port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("environ", "unknown"),
    [
        pytest.param({"AIM_NATS_URL": "", "AIM_COLD_START_S": "", "PATH": "", "KUBECONFIG": ""}, [], id="known"),
        pytest.param(
            {"AIM_DOWNLOADER_IMAGE": "", "AIM_NATS_REPLICAS": "", "AIM_GPU_TABLE": "", "AIM_DISCOVERY_RETRY_S": ""}, [], id="known-to-another-service"
        ),
        pytest.param({"AIM_NATS_ULR": "", "AIM_X": ""}, ["AIM_NATS_ULR", "AIM_X"], id="misspelt"),
        pytest.param({"AIM_KUBECONFIG": ""}, ["AIM_KUBECONFIG"], id="kubectl-calls-it-otherwise"),
    ],
)
def test_variables_nobody_knows(environ: dict[str, str], unknown: list[str]) -> None:
    assert unknown_variables(Cachers, environ) == unknown
