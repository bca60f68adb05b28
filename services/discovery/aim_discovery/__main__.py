"""`aim-discovery`: discovery as a process."""

import sys

from aim_discovery.apply import read_log
from aim_discovery.plan import plan
from aim_discovery.projection import FOLLOWS, PLANS_FOR, affected
from aim_discovery.settings import DiscoverySettings
from aimschema.reasons import DISCOVERY
from aimservice.health import Health
from aimservice.loop import Service, run_loop
from aimservice.process import run


def service(_settings: DiscoverySettings) -> Service:
    """What it follows and how it plans, as data."""
    return Service(DISCOVERY, PLANS_FOR, FOLLOWS, affected, plan)


async def serve(settings: DiscoverySettings, health: Health) -> None:
    await run_loop(service(settings), settings, health, read_log)


def main() -> None:
    sys.exit(run(DISCOVERY, DiscoverySettings, serve))


if __name__ == "__main__":
    main()
