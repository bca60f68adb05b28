"""`aim-router`: the router as a process."""

import sys

from aim_router.plan import plan
from aim_router.projection import FOLLOWS, OWNS, PLANS_FOR, READS, affected, neighbours
from aim_router.settings import RouterSettings
from aimcontroller.controller import Service, run_loop
from aimcontroller.health import Health
from aimcontroller.process import run
from aimschema.reasons import ROUTER


def service(_settings: RouterSettings) -> Service:
    """What it follows and how it plans, as data."""
    return Service(
        ROUTER, PLANS_FOR, FOLLOWS, affected, plan, keeps=OWNS, reads=READS, neighbours=neighbours
    )


async def serve(settings: RouterSettings, health: Health) -> None:
    await run_loop(service(settings), settings, health)


def main() -> None:
    sys.exit(run(ROUTER, RouterSettings, serve))


if __name__ == "__main__":
    main()
