"""A service `s`, its config, its route as the gateway sees it, and the gateway."""

from collections.abc import Sequence
from typing import Any

import pytest

from aim_router.plan import plan
from aim_router.projection import FAILURES
from aimcontroller import testing
from aimcontroller.failures import with_failures
from aimcontroller.plan import Plan
from aimcontroller.projection import Projection
from aimcontroller.testing import NAMESPACE, NOW, Body, status_condition
from aimschema.resources import GATEWAY, ROUTE, SERVICE, Key


class World:
    key = Key(SERVICE.kind, NAMESPACE, "s")

    def service(
        self,
        name: str = "s",
        *,
        replicas: int = 1,
        configRef: str = "default",  # noqa: N803
        **fields: Any,
    ) -> Body:
        return testing.cr(
            SERVICE.kind,
            name,
            {"model": "m:1", "templateRef": "t", "configRef": configRef, "replicas": replicas},
            **fields,
        )

    def config(self, gateway: Body | None = None, name: str = "default", **routing: Any) -> Body:
        return testing.cr(
            "AIMNamespaceConfig",
            name,
            {"routing": {"gateway": {"name": "gw"} | (gateway or {})} | routing},
        )

    def route(
        self, *conditions: Body, gateway: str = "gw", parents: Any = None, **fields: Any
    ) -> Body:
        """The route; with `conditions` in the entry of this gateway, or with these `parents`."""
        entries = (
            [self.parent(*conditions, name=gateway)]
            if conditions and parents is None
            else parents or []
        )
        return testing.obj(
            ROUTE.kind,
            "s",
            **{"owner": (SERVICE.kind, "s"), "spec": {}, "status": {"parents": entries}} | fields,
        )

    def parent(
        self, *conditions: Body, controller: str = "example.org/gateway", **reference: Any
    ) -> Body:
        """A controller's entry in status.parents for this parentRef (name `gw` by default)."""
        parent_ref = {"name": "gw"} | reference
        return {
            "parentRef": parent_ref,
            "controllerName": controller,
            "conditions": list(conditions),
        }

    def accepted(self) -> tuple[Body, Body]:
        return status_condition("Accepted", True), status_condition("ResolvedRefs", True)

    def gateway(self, *addresses: str, **listener: Any) -> Body:
        return self.gateway_with(
            {"name": "web", "port": 80, "protocol": "HTTP"} | listener, addresses=addresses
        )

    def gateway_with(
        self, *listeners: Body, addresses: Sequence[str] = ("10.0.0.9",), **fields: Any
    ) -> Body:
        status = {"addresses": [{"value": address} for address in addresses]} | fields.pop(
            "status", {}
        )
        return testing.obj(
            GATEWAY.kind, "gw", spec={"listeners": list(listeners)}, status=status, **fields
        )

    def plan(self, state: Projection, name: str = "s") -> Plan:
        key = Key(SERVICE.kind, NAMESPACE, name)
        return with_failures(plan(state, key, NOW), state, key, FAILURES)


@pytest.fixture
def world() -> World:
    return World()
