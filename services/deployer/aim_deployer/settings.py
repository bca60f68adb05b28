"""Settings of the deployer beyond those every service has."""

from aimservice.settings import ServiceSettings


class DeployerSettings(ServiceSettings):
    gpu_table: str | None = None  # path of a YAML file in the form of gpus.yaml that adds to it; None: nothing to add
