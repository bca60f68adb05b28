"""Settings that every service has, from the environment.

A variable is `AIM_` and the field's name in capitals; `KUBECONFIG` keeps the name kubectl gave it.
A variable that any AIM service knows is accepted by all, so that one environment serves them all;
others are warned about once. A value of a fixed set may be written in any case. In paths,
`{component}` stands for the name of the service: services of one environment can have keys and
accounts of their own.
"""

import os
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from aimbus import NatsCredentials
from aimcontroller.jobs import JobRules, parse_resources
from aimschema.environment import COMPONENT_VARIABLES, PREFIX

COMPONENT_PATHS = ("nats_creds", "nats_ca", "kubeconfig")


def _resources(value: object) -> object:
    return parse_resources(value) if isinstance(value, str) else value


class ServiceSettings(BaseSettings):
    """Frozen after start. Units are in the names; None means what the comment says."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", populate_by_name=True
    )

    nats_url: str = "nats://127.0.0.1:4222"
    nats_creds: str | None = (
        None  # path of an NKey seed or a credentials file; None: no authentication
    )
    nats_ca: str | None = (
        None  # path of the certificates that vouch for the server; None: those of the system
    )
    kubeconfig: str | None = Field(
        default=None, validation_alias="KUBECONFIG"
    )  # None: the pod's service account
    namespace: str = "aim-system"  # the control plane's own
    http_port: int = Field(default=8080, ge=0, le=65535)  # /livez /readyz /metrics; 0: none
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    log_format: Literal["json", "console"] = "json"

    @field_validator("*", mode="before")
    @classmethod
    def _in_any_case(cls, value: object, info: ValidationInfo) -> object:
        """`debug` as DEBUG: what is not of the set is left for the error."""
        choices = get_args(cls.model_fields[str(info.field_name)].annotation)
        if not isinstance(value, str) or not all(isinstance(each, str) for each in choices):
            return value
        text = value.strip().lower()
        return next((each for each in choices if each.lower() == text), value)

    def of_component(self, component: str) -> Self:
        """The settings with its name for `{component}` in the paths."""
        paths = {name: getattr(self, name) for name in COMPONENT_PATHS}
        return self.model_copy(
            update={
                name: path.replace("{component}", component)
                for name, path in paths.items()
                if path is not None
            }
        )

    def access(self) -> NatsCredentials:
        """How the service shows who it is to NATS."""
        return NatsCredentials(self.nats_creds, self.nats_ca)


class JobSettings(ServiceSettings):
    """Of services that run Jobs in the namespaces of tenants."""

    pod_security: Literal["restricted", "openshift"] = (
        "restricted"  # openshift: uid, gid and fsGroup come from the namespace's range
    )
    job_resources: Annotated[dict[str, Any] | None, NoDecode, BeforeValidator(_resources)] = None
    """JSON of a ResourceRequirements for the container of each Job; None: small ones."""

    def job_rules(self) -> JobRules:
        return JobRules(resources=self.job_resources, openshift=self.pod_security == "openshift")


def describe_invalid(error: ValidationError) -> list[str]:
    """A line for each setting that is invalid: its variable, what is wrong, and its value."""
    return [
        f"setting {PREFIX}{str(problem['loc'][0]).upper().removeprefix(PREFIX)}:"
        f" {problem['msg']}, got {problem['input']!r}"
        for problem in error.errors()
    ]


def unknown_variables(
    settings: type[ServiceSettings], environ: dict[str, str] | None = None
) -> list[str]:
    """Variables that start with `AIM_` and that no service knows: most likely misspelt."""
    variables = os.environ if environ is None else environ
    own = {
        PREFIX + name.upper()
        for name, field in settings.model_fields.items()
        if field.validation_alias is None
    }
    return sorted(
        name
        for name in variables
        if name.startswith(PREFIX) and name not in own | COMPONENT_VARIABLES
    )
