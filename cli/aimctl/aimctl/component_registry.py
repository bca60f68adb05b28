"""The services, and those that plan as data, wired as their processes wire them. A service is
imported when it is asked for: help, completion and most commands need none."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from aimschema.reasons import CACHER, DEPLOYER, DISCOVERY, ROUTER, STATUSWRITER, WATCHER

if TYPE_CHECKING:
    from aimbus import Event
    from aimcontroller.component import Component

PLANNERS = (DISCOVERY, CACHER, DEPLOYER, ROUTER, STATUSWRITER)
SERVICES = (WATCHER, STATUSWRITER, DISCOVERY, CACHER, DEPLOYER, ROUTER)
ALL_IN_ONE = "control-plane"
"""The process that runs all of them."""


def planner(name: str, events: "Iterable[Event]" = ()) -> "Component":
    """With the settings of this environment, such as AIM_DOWNLOADER_IMAGE. Without that variable,
    a replay of `events` uses the downloader image that they name. Raises KeyError for a service
    that does not plan, RuntimeError for an invalid setting."""
    from pydantic import ValidationError

    from aimcontroller.settings import describe_invalid

    wire = {
        DISCOVERY: _discovery,
        CACHER: lambda: _cacher(events),
        DEPLOYER: _deployer,
        ROUTER: _router,
        STATUSWRITER: _statuswriter,
    }[name]
    try:
        return wire()
    except ValidationError as error:
        raise RuntimeError("; ".join(describe_invalid(error))) from error


def _discovery() -> "Component":
    from aim_discovery.__main__ import service
    from aim_discovery.settings import DiscoverySettings

    return service(DiscoverySettings())


def _cacher(events: "Iterable[Event]") -> "Component":
    from aim_cacher.__main__ import service
    from aim_cacher.settings import CacherSettings

    image = None if "AIM_DOWNLOADER_IMAGE" in os.environ else downloader_image(events)
    return service(CacherSettings() if image is None else CacherSettings(downloader_image=image))


def _deployer() -> "Component":
    from aim_deployer.__main__ import service
    from aim_deployer.settings import DeployerSettings

    return service(DeployerSettings())


def _router() -> "Component":
    from aim_router.__main__ import service
    from aim_router.settings import RouterSettings

    return service(RouterSettings())


def _statuswriter() -> "Component":
    from aim_statuswriter.__main__ import service
    from aimcontroller.settings import ServiceSettings

    return service(ServiceSettings())


def downloader_image(events: "Iterable[Event]") -> str | None:
    """The image of the first download Job in a recording; None where no Job names its image."""
    from aim_cacher.render import CONTAINER
    from aimschema.messages import ObjectChanged
    from aimschema.resources import JOB

    for event in events:
        message = event.message
        if isinstance(message, ObjectChanged) and message.kind == JOB.kind:
            pod = message.object.get("spec", {}).get("template", {}).get("spec", {})
            for container in pod.get("containers", ()):
                if container.get("name") == CONTAINER and "image" in container:
                    return str(container["image"])
    return None
