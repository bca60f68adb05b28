"""The services that plan, as data, wired as their processes wire them."""

from aim_cacher.__main__ import service as cacher
from aim_cacher.settings import CacherSettings
from aim_deployer.__main__ import service as deployer
from aim_deployer.settings import DeployerSettings
from aim_discovery.__main__ import service as discovery
from aim_discovery.settings import DiscoverySettings
from aim_router.__main__ import service as router
from aim_statuswriter.__main__ import service as statuswriter
from aimcontroller.controller import Component
from aimcontroller.settings import ServiceSettings
from aimschema.reasons import CACHER, DEPLOYER, DISCOVERY, ROUTER, STATUSWRITER, WATCHER

PLANNERS = (DISCOVERY, CACHER, DEPLOYER, ROUTER, STATUSWRITER)


def planner(name: str) -> Component:
    """With the settings of this environment, such as AIM_DOWNLOADER_IMAGE. Raises KeyError for a
    service that does not plan."""
    return {
        DISCOVERY: lambda: discovery(DiscoverySettings()),
        CACHER: lambda: cacher(CacherSettings()),
        DEPLOYER: lambda: deployer(DeployerSettings()),
        ROUTER: lambda: router(ServiceSettings()),
        STATUSWRITER: lambda: statuswriter(ServiceSettings()),
    }[name]()


SERVICES = (WATCHER, STATUSWRITER, DISCOVERY, CACHER, DEPLOYER, ROUTER)
