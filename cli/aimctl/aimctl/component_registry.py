"""The services that plan, as data, wired as their processes wire them."""

import os
from collections.abc import Iterable

from aim_cacher.__main__ import service as cacher
from aim_cacher.render import CONTAINER
from aim_cacher.settings import CacherSettings
from aim_deployer.__main__ import service as deployer
from aim_deployer.settings import DeployerSettings
from aim_discovery.__main__ import service as discovery
from aim_discovery.settings import DiscoverySettings
from aim_router.__main__ import service as router
from aim_statuswriter.__main__ import service as statuswriter
from aimbus import Event
from aimcontroller.component import Component
from aimcontroller.settings import ServiceSettings
from aimschema.messages import ObjectChanged
from aimschema.reasons import CACHER, DEPLOYER, DISCOVERY, ROUTER, STATUSWRITER, WATCHER
from aimschema.resources import JOB

PLANNERS = (DISCOVERY, CACHER, DEPLOYER, ROUTER, STATUSWRITER)


def planner(name: str, events: Iterable[Event] = ()) -> Component:
    """With the settings of this environment, such as AIM_DOWNLOADER_IMAGE. Without that variable,
    a replay of `events` uses the downloader image that they name. Raises KeyError for a service
    that does not plan."""
    image = None if "AIM_DOWNLOADER_IMAGE" in os.environ else downloader_image(events)
    return {
        DISCOVERY: lambda: discovery(DiscoverySettings()),
        CACHER: lambda: cacher(
            CacherSettings() if image is None else CacherSettings(downloader_image=image)
        ),
        DEPLOYER: lambda: deployer(DeployerSettings()),
        ROUTER: lambda: router(ServiceSettings()),
        STATUSWRITER: lambda: statuswriter(ServiceSettings()),
    }[name]()


def downloader_image(events: Iterable[Event]) -> str | None:
    """The image of the first download Job in a recording; None where no Job names its image."""
    for event in events:
        message = event.message
        if isinstance(message, ObjectChanged) and message.kind == JOB.kind:
            pod = message.object.get("spec", {}).get("template", {}).get("spec", {})
            for container in pod.get("containers", ()):
                if container.get("name") == CONTAINER and "image" in container:
                    return str(container["image"])
    return None


SERVICES = (WATCHER, STATUSWRITER, DISCOVERY, CACHER, DEPLOYER, ROUTER)
