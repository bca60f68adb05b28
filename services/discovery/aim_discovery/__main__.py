"""`aim-discovery`: discovery as a process."""

import sys
from functools import partial

from aim_discovery import projection
from aim_discovery.action_handlers import Handlers
from aim_discovery.inspection import Inspector
from aim_discovery.plan import plan
from aim_discovery.registry import Registries
from aim_discovery.settings import DiscoverySettings
from aimcontroller.component import Component
from aimcontroller.controller import run_controller
from aimcontroller.health import Health
from aimcontroller.process import run
from aimschema.reasons import DISCOVERY


def service(settings: DiscoverySettings) -> Component:
    """What it follows and how it plans, as data."""
    own = settings.namespace
    planner = partial(
        plan, namespace=own, first_retry_s=settings.discovery_retry_s, rules=settings.job_rules()
    )
    return Component(
        DISCOVERY,
        projection.RECONCILES,
        projection.WATCHES,
        partial(projection.map_to_keys, namespace=own),
        planner,
        owns=projection.OWNS,
        failures=projection.FAILURES,
        reads_status_of=projection.READS_STATUS_OF,
        map_change_to_keys=projection.map_change_to_keys,
    )


async def serve(settings: DiscoverySettings, health: Health) -> None:
    async with Registries(ca_bundle=settings.ca_bundle) as registries:
        await run_controller(
            service(settings), settings, health, Handlers(Inspector(registries, settings.namespace))
        )


def main() -> None:
    sys.exit(run(DISCOVERY, DiscoverySettings, serve))


if __name__ == "__main__":
    main()
