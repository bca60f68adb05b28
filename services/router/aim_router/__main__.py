"""`aim-router`: the router as a process."""

import sys
from functools import partial

from aim_router import projection
from aim_router.plan import plan
from aim_router.settings import RouterSettings
from aimcontroller.component import Component
from aimcontroller.controller import run_controller
from aimcontroller.health import Health
from aimcontroller.process import run
from aimschema.reasons import ROUTER


def service(settings: RouterSettings) -> Component:
    """The router as data: its kinds and its planner."""
    return Component(
        ROUTER,
        projection.RECONCILES,
        projection.WATCHES,
        projection.map_to_keys,
        partial(plan, options=settings.options),
        owns=projection.OWNS,
        failures=projection.FAILURES,
        reads_status_of=projection.READS_STATUS_OF,
        predicates=projection.PREDICATES,
        map_change_to_keys=projection.map_change_to_keys,
    )


async def serve(settings: RouterSettings, health: Health) -> None:
    await run_controller(service(settings), settings, health)


def main() -> None:
    sys.exit(run(ROUTER, RouterSettings, serve))


if __name__ == "__main__":
    main()
