"""A service `s`, its config, its route as the gateway sees it, and the gateway."""

from typing import Any

import pytest

from aim_router.plan import plan
from aimschema.resources import GATEWAY, ROUTE, SERVICE, Key
from aimservice import testing
from aimservice.plan import Plan
from aimservice.projection import Projection
from aimservice.testing import NAMESPACE, NOW, Body, said


class World:
    key = Key(SERVICE.kind, NAMESPACE, "s")

    def service(self, name: str = "s", *, replicas: int = 1, configRef: str = "default", **fields: Any) -> Body:  # noqa: N803
        return testing.cr(SERVICE.kind, name, {"model": "m:1", "templateRef": "t", "configRef": configRef, "replicas": replicas}, **fields)

    def config(self, gateway: Body | None = None, name: str = "default", **routing: Any) -> Body:
        return testing.cr("AIMNamespaceConfig", name, {"routing": {"gateway": {"name": "gw"} | (gateway or {})} | routing})

    def route(self, *conditions: Body, gateway: str = "gw", **fields: Any) -> Body:
        """The route; with `conditions` as this gateway sees it."""
        parents = [{"parentRef": {"name": gateway}, "conditions": list(conditions)}] if conditions else []
        return testing.obj(ROUTE.kind, "s", **{"owner": (SERVICE.kind, "s"), "spec": {}, "status": {"parents": parents}} | fields)

    def accepted(self) -> tuple[Body, Body]:
        return said("Accepted", True), said("ResolvedRefs", True)

    def gateway(self, *addresses: str, **listener: Any) -> Body:
        listeners = [{"name": "web", "port": 80, "protocol": "HTTP"} | listener]
        found = [{"value": address} for address in addresses]
        return testing.obj(GATEWAY.kind, "gw", spec={"listeners": listeners}, status={"addresses": found})

    def plan(self, seen: Projection, name: str = "s") -> Plan:
        return plan(seen, Key(SERVICE.kind, NAMESPACE, name), NOW)


@pytest.fixture
def world() -> World:
    return World()
