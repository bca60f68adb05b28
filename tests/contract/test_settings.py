"""A setting with a fixed set of values takes each in any case; the error names the variable. The
settings of all services, so also of those to come."""

from collections.abc import Iterator
from typing import get_args

import pytest
from pydantic import ValidationError

from aim_cacher.settings import CacherSettings
from aim_deployer.settings import DeployerSettings
from aim_discovery.settings import DiscoverySettings
from aim_watcher.settings import WatcherSettings
from aimcontroller.settings import ServiceSettings, describe_invalid
from aimctl.component_registry import PLANNERS, planner

ALL = (ServiceSettings, WatcherSettings, DiscoverySettings, CacherSettings, DeployerSettings)


def choices() -> Iterator[tuple[type[ServiceSettings], str, str]]:
    for settings in ALL:
        for name, field in settings.model_fields.items():
            for value in get_args(field.annotation):
                if isinstance(value, str):
                    yield settings, name, value


CHOICES = list(choices())


def test_the_settings_with_fixed_values_are_found() -> None:
    assert {name for _, name, _ in CHOICES} == {
        "kserve_mode",
        "log_format",
        "log_level",
        "pod_security",
    }


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    CHOICES,
    ids=[f"{s.__name__}-{name}-{value}" for s, name, value in CHOICES],
)
def test_any_case_is_taken(
    monkeypatch: pytest.MonkeyPatch, settings: type[ServiceSettings], name: str, value: str
) -> None:
    for written in (value, value.lower(), value.upper(), value.title(), f" {value}\n"):
        monkeypatch.setenv(f"AIM_{name.upper()}", written)
        assert getattr(settings(), name) == value


@pytest.mark.parametrize("written", ["", "LOUD", "DEBUGGING", "deb ug"])
def test_the_error_names_the_variable(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.setenv("AIM_LOG_LEVEL", written)
    with pytest.raises(ValidationError) as error:
        ServiceSettings()
    (line,) = describe_invalid(error.value)
    assert line.startswith("setting AIM_LOG_LEVEL: ")
    assert "'DEBUG'" in line
    assert line.endswith(f"got {written!r}")


@pytest.mark.parametrize("service", PLANNERS)
def test_aimctl_names_the_variable_too(monkeypatch: pytest.MonkeyPatch, service: str) -> None:
    monkeypatch.setenv("AIM_LOG_LEVEL", "LOUD")
    with pytest.raises(RuntimeError, match=r"setting AIM_LOG_LEVEL: .* got 'LOUD'"):
        planner(service)
