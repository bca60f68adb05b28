"""`aim-control-plane`: all services in one process and one event loop, for small clusters.

Each runs as it does alone, with its own Lease, NATS connection and API client. So the process can
run beside single services: the holder of a service's Lease is the one that works.
"""

import sys

from aim_cacher.__main__ import serve as cacher
from aim_cacher.settings import CacherSettings
from aim_deployer.__main__ import serve as deployer
from aim_deployer.settings import DeployerSettings
from aim_discovery.__main__ import serve as discovery
from aim_discovery.settings import DiscoverySettings
from aim_router.__main__ import serve as router
from aim_router.settings import RouterSettings
from aim_statuswriter.__main__ import serve as statuswriter
from aim_watcher.__main__ import main as watcher
from aim_watcher.__main__ import watch
from aim_watcher.settings import WatcherSettings
from aimcontroller.process import Program, run_together
from aimcontroller.settings import ServiceSettings
from aimschema.reasons import CACHER, DEPLOYER, DISCOVERY, ROUTER, STATUSWRITER, WATCHER

NAME = "control-plane"
PROGRAMS = (
    Program(WATCHER, WatcherSettings, watch),
    Program(STATUSWRITER, ServiceSettings, statuswriter),
    Program(DISCOVERY, DiscoverySettings, discovery),
    Program(CACHER, CacherSettings, cacher),
    Program(DEPLOYER, DeployerSettings, deployer),
    Program(ROUTER, RouterSettings, router),
)


def main() -> None:
    if sys.argv[1:] == ["nats-init"]:
        watcher()
    sys.exit(run_together(NAME, PROGRAMS))


if __name__ == "__main__":
    main()
