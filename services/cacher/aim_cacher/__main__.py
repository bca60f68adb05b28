"""`aim-cacher`: the cacher as a process."""

import sys
from functools import partial

from aim_cacher import projection
from aim_cacher.metrics import measure
from aim_cacher.plan import plan
from aim_cacher.settings import CacherSettings
from aim_cacher.storage_handlers import Handlers
from aimcontroller.component import Component
from aimcontroller.controller import run_controller
from aimcontroller.health import Health
from aimcontroller.process import run
from aimschema.reasons import CACHER


def service(settings: CacherSettings) -> Component:
    """What the cacher watches and how it plans, as data."""
    planner = partial(plan, options=settings.job_options())
    return Component(
        CACHER,
        projection.RECONCILES,
        projection.WATCHES,
        projection.map_to_keys,
        planner,
        owns=projection.OWNS,
        failures=projection.FAILURES,
        reads_status_of=projection.READS_STATUS_OF,
        predicates=projection.PREDICATES,
        map_change_to_keys=projection.map_change_to_keys,
        progress_of=projection.PROGRESS_OF,
        measure=measure,
    )


async def serve(settings: CacherSettings, health: Health) -> None:
    await run_controller(service(settings), settings, health, Handlers())


def main() -> None:
    sys.exit(run(CACHER, CacherSettings, serve))


if __name__ == "__main__":
    main()
