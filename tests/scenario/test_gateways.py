"""A service runs whatever other controllers write into the status of its route."""

from pathlib import Path

import pytest

from aim_testing.fault_catalogue.place import GATEWAY, Place
from aimlab.cli.environment import control_plane_on_laptop
from aimlab.gateway.policies import POLICY_CONTROLLER, other_entries
from aimschema.resources import CONFIG, NAMESPACE, ROUTE, SERVICE

pytestmark = pytest.mark.timeout(120)


async def test_a_policy_controller_and_stale_entries_do_no_harm(tmp_path: Path) -> None:
    async with control_plane_on_laptop(tmp_path) as stack, other_entries(stack.lab.cluster):
        place = Place(stack, "policies", tmp_path)
        await stack.lab.cluster.create(
            {"apiVersion": "v1", "kind": NAMESPACE.kind, "metadata": {"name": place.name}}
        )
        await place.running()
        route = await place.get(ROUTE, "s")
        assert POLICY_CONTROLLER in {
            parent["controllerName"] for parent in route["status"]["parents"]
        }
        await place.edit(
            CONFIG, "default", {"spec": {"routing": {"gateway": GATEWAY | {"sectionName": "http"}}}}
        )
        await place.until(
            ROUTE,
            "s",
            lambda body: body["metadata"]["generation"] > route["metadata"]["generation"],
            "another parentRef",
        )
        await place.until_reported(SERVICE, "s", "RoutingReady", "RouteReady")
