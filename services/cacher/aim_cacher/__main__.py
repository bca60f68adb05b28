"""`aim-cacher`: the cacher as a process."""

import sys
from dataclasses import replace
from functools import partial

from aim_cacher.action_handlers import Followers
from aim_cacher.metrics import measure
from aim_cacher.plan import plan
from aim_cacher.projection import FOLLOWS, KEEPS, PLANS_FOR, READS, affected, neighbours
from aim_cacher.settings import CacherSettings
from aimcontroller.controller import Component, run_controller
from aimcontroller.health import Health
from aimcontroller.process import run
from aimschema.reasons import CACHER
from aimschema.resources import CACHE


def service(settings: CacherSettings) -> Component:
    """What the cacher watches and how it plans, as data."""
    planner = partial(
        plan,
        downloader_image=settings.downloader_image,
        rules=settings.job_rules(),
        ca=settings.ca_text(),
    )
    made = Component(
        CACHER,
        PLANS_FOR,
        FOLLOWS,
        affected,
        planner,
        keeps=KEEPS,
        reads=READS,
        neighbours=neighbours,
    )
    return replace(made, progress_of=(CACHE,), measure=measure)


async def serve(settings: CacherSettings, health: Health) -> None:
    await run_controller(service(settings), settings, health, Followers())


def main() -> None:
    sys.exit(run(CACHER, CacherSettings, serve))


if __name__ == "__main__":
    main()
