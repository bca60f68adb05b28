"""Settings of the deployer beyond those every service has."""

from aim_deployer.modes import AUTO, Setting
from aimcontroller.settings import ServiceSettings


class DeployerSettings(ServiceSettings):
    gpu_table: str | None = (
        None  # path of a YAML file in the form of gpus.yaml that adds to it; None: nothing to add
    )
    # deployment mode of new InferenceServices; auto: Standard, or RawDeployment where KServe
    # rejects that
    kserve_mode: Setting = AUTO
