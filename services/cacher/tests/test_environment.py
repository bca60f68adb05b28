"""Which of a cache's own variables reach its Jobs, and what the cache reports of the others."""

from typing import Any

import pytest

from aim_cacher.environment import is_ignored
from aimcontroller.plan import Plan
from aimcontroller.testing import Body, applied, message, projection, storage_class

LOADERS = [
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "PYTHONUSERBASE",
    "PYTHONINSPECT",
    "PYTHONWARNINGS",
    "PYTHONBREAKPOINT",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "PATH",
    "HOME",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "LOCPATH",
    "OPENSSL_CONF",
    "OPENSSL_MODULES",
    "OPENSSL_ENGINES",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_DATA_PATH",
    "BOTO_CONFIG",
    "BASH_ENV",
    "ENV",
    "AIM_TERMINATION_LOG",
    "AIM_ANYTHING",
]
HARMLESS = [
    "HF_ENDPOINT",
    "HF_TOKEN",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "AWS_CA_BUNDLE",
    "AWS_REGION",
    "AWS_ACCESS_KEY_ID",
    "AIM_S3_0_ADDRESSING",
    "AIM_S3_0_ENDPOINT_URL",
    "MY_PATH",
    "pythonpath",
    "PATHS",
]


def cache(world: Any, names: list[str], size: str | None = "1Gi") -> Body:
    env = [{"name": name, "value": "/cache"} for name in names]
    spec = {"sourceUri": world.uri, "env": env} | ({} if size is None else {"size": size})
    body: Body = world.cache(spec=spec)
    return body


def planned(world: Any, *names: str) -> Plan:
    plan: Plan = world.plan(projection(storage_class(), cache(world, [*names]), world.claim()))
    return plan


def variables(plan: Plan) -> list[str]:
    (container,) = applied(plan, "Job")["spec"]["template"]["spec"]["containers"]
    return [variable["name"] for variable in container["env"]]


@pytest.mark.parametrize("name", LOADERS)
def test_a_variable_that_loads_code_reaches_no_job(world: Any, name: str) -> None:
    assert is_ignored(name)
    assert variables(planned(world, "HF_ENDPOINT", name)) == ["HF_ENDPOINT"]
    without_size = projection(storage_class(), cache(world, [name, "HF_ENDPOINT"], None))
    assert variables(world.plan(without_size)) == ["HF_ENDPOINT"]


@pytest.mark.parametrize("name", HARMLESS)
def test_other_variables_are_passed_on_without_a_warning(world: Any, name: str) -> None:
    plan = planned(world, name)
    assert variables(plan) == [name]
    assert [warning for report in plan.reports for warning in report.warnings] == []


def test_warning_and_condition_name_field_and_variables(world: Any) -> None:
    plan = planned(world, "LD_PRELOAD", "PYTHONPATH")
    ((warning,),) = [report.warnings for report in plan.reports]
    assert (warning.reason, warning.message.startswith("spec.env LD_PRELOAD, PYTHONPATH: ")) == (
        "EnvIgnored",
        True,
    )
    assert warning.message in message(plan, "Filled")


def test_the_value_of_a_variable_is_never_reported(world: Any) -> None:
    assert "/cache" not in str(planned(world, "LD_PRELOAD").reports)


def test_many_long_names_fit_into_the_condition(world: Any) -> None:
    """An Event that no condition repeats would be sent again and again."""
    plan = planned(world, *(f"PYTHON{'X' * 300}{index}" for index in range(1000)), "LD_PRELOAD")
    ((warning,),) = [report.warnings for report in plan.reports]
    assert warning.message in message(plan, "Filled")
    assert len(message(plan, "Filled")) <= 1024
