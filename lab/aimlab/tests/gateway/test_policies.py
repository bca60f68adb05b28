"""Entries of others in status.parents stay beside those of the real Traefik."""

from pathlib import Path
from typing import Any

from aimkube import Cluster
from aimlab.apiserver import ApiServer
from aimlab.crds import bundled_crds
from aimlab.gateway.policies import FORMER_CONTROLLER, POLICY_CONTROLLER, other_entries
from aimlab.gateway.traefik import CONTROLLER, Api, traefik
from aimlab.testing import NAMESPACE, Wait
from aimschema.resources import ROUTE

Body = dict[str, Any]
pytest_plugins = ["aimlab.testing.fixtures"]


def controllers(route: Body) -> list[str]:
    return sorted(each["controllerName"] for each in route.get("status", {}).get("parents") or [])


async def test_every_controller_has_its_entry_also_after_a_change(
    cluster: Cluster, api: ApiServer, until: Wait, tmp_path: Path
) -> None:
    for crd in bundled_crds():
        await cluster.create(crd)
    route = {
        "apiVersion": ROUTE.api_version,
        "kind": ROUTE.kind,
        "metadata": {"name": "r", "namespace": NAMESPACE},
    }
    expected = sorted([POLICY_CONTROLLER, FORMER_CONTROLLER, FORMER_CONTROLLER, CONTROLLER])
    async with (
        traefik(cluster, Api(api.url), namespace=NAMESPACE, folder=tmp_path / "logs"),
        other_entries(cluster),
    ):
        await cluster.create(route | {"spec": {"parentRefs": [{"name": "aim-gateway"}]}})
        await until(ROUTE, "r", lambda body: controllers(body) == expected)
        await cluster.merge_patch(
            ROUTE,
            NAMESPACE,
            "r",
            {"spec": {"parentRefs": [{"name": "aim-gateway", "sectionName": "http"}]}},
        )

        def answered(body: Body) -> bool:
            entries = {each["controllerName"]: each for each in body["status"]["parents"]}
            observed = [one["observedGeneration"] for one in entries[CONTROLLER]["conditions"]]
            return (
                controllers(body) == expected
                and set(observed) == {2}
                and entries[CONTROLLER]["parentRef"].get("sectionName") == "http"
            )

        await until(ROUTE, "r", answered)
