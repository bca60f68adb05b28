"""`aim-router`: the router as a process."""

import sys

from aim_router.plan import plan
from aim_router.projection import FOLLOWS, OWNS, PLANS_FOR, READS, affected, neighbours
from aimcontroller.controller import Component, run_controller
from aimcontroller.health import Health
from aimcontroller.process import run
from aimcontroller.settings import ServiceSettings
from aimschema.reasons import ROUTER


def service(_settings: ServiceSettings) -> Component:
    """The router as data: its kinds and its planner."""
    return Component(
        ROUTER, PLANS_FOR, FOLLOWS, affected, plan, keeps=OWNS, reads=READS, neighbours=neighbours
    )


async def serve(settings: ServiceSettings, health: Health) -> None:
    await run_controller(service(settings), settings, health)


def main() -> None:
    sys.exit(run(ROUTER, ServiceSettings, serve))


if __name__ == "__main__":
    main()
