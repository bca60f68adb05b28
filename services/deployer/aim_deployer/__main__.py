"""`aim-deployer`: the deployer as a process."""

import sys
from functools import partial

from aim_deployer import gpus, projection, reads
from aim_deployer.plan import plan
from aim_deployer.settings import DeployerSettings
from aimcontroller.component import Component
from aimcontroller.controller import run_controller
from aimcontroller.health import Health
from aimcontroller.process import run
from aimschema.reasons import DEPLOYER


def service(settings: DeployerSettings) -> Component:
    """The deployer as data: its kinds and its planner."""
    own = settings.namespace
    planner = partial(
        plan, gpus=gpus.load(settings.gpu_table), mode=settings.kserve_mode, namespace=own
    )
    return Component(
        DEPLOYER,
        projection.RECONCILES,
        projection.WATCHES,
        partial(projection.map_to_keys, namespace=own),
        planner,
        owns=projection.OWNS,
        failures=projection.FAILURES,
        reads_status_of=projection.READS_STATUS_OF,
        predicates=reads.PREDICATES,
    )


async def serve(settings: DeployerSettings, health: Health) -> None:
    await run_controller(service(settings), settings, health)


def main() -> None:
    sys.exit(run(DEPLOYER, DeployerSettings, serve))


if __name__ == "__main__":
    main()
