"""`aim-statuswriter`: the statuswriter as a process."""

import sys

from aim_statuswriter.action_handlers import Writer
from aim_statuswriter.metrics import measure
from aim_statuswriter.plan import plan
from aim_statuswriter.projection import READS_STATUS_OF, RECONCILES, WATCHES, map_to_keys
from aimcontroller.component import Component
from aimcontroller.controller import run_controller
from aimcontroller.health import Health
from aimcontroller.process import run
from aimcontroller.settings import ServiceSettings
from aimschema import subjects
from aimschema.reasons import STATUSWRITER


def service(_settings: ServiceSettings) -> Component:
    """The statuswriter as data: its kinds and its planner."""
    return Component(
        STATUSWRITER,
        RECONCILES,
        WATCHES,
        map_to_keys,
        plan,
        reports=subjects.reports(),
        reads_status_of=READS_STATUS_OF,
        measure=measure,
    )


async def serve(settings: ServiceSettings, health: Health) -> None:
    await run_controller(service(settings), settings, health, Writer(has_predecessor=True))


def main() -> None:
    sys.exit(run(STATUSWRITER, ServiceSettings, serve))


if __name__ == "__main__":
    main()
