"""Discovery, size and download Jobs in namespaces as other people's clusters have them: a mesh,
OpenShift, a quota on limits."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from aim_testing.fault_catalogue.place import Body, Place
from aimlab.apiserver.guests import SIDECAR, SIDECAR_IMAGE
from aimlab.cli.environment import Stack, control_plane_on_laptop
from aimlab.kinds import RESOURCE_QUOTA
from aimschema import reasons
from aimschema.resources import CACHE, NAMESPACE, POD, TEMPLATE

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
NAMESPACES: dict[str, Body] = {
    "istio": {"labels": {"istio-injection": "enabled"}},
    "another-mesh": {"annotations": {"linkerd.io/inject": "enabled"}},
    "openshift": {"annotations": {"openshift.io/sa.scc.uid-range": "1000650000/10000"}},
    "quota": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}
QUOTA = {
    "hard": {
        "limits.cpu": "4",
        "limits.memory": "8Gi",
        "requests.cpu": "1",
        "requests.memory": "2Gi",
    }
}
SIDECARS = {"another-mesh": {SIDECAR_IMAGE}}
"""By namespace; none elsewhere."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    settings = {"AIM_POD_SECURITY": "openshift"}
    async with control_plane_on_laptop(
        tmp_path_factory.mktemp("tenants"), settings=settings
    ) as made:
        yield made


async def watch_sidecars(place: Place, found: set[str]) -> None:
    """The images of other containers than ours in the namespace's pods."""
    async with contextlib.aclosing(place._versions(POD)) as versions:
        async for body in versions:
            found |= {
                each["image"]
                for each in body["spec"]["containers"]
                if each["name"] == SIDECAR["name"]
            }


@pytest.mark.parametrize("name", NAMESPACES)
async def test_a_model_is_discovered_and_cached_and_no_job_stays(
    stack: Stack, tmp_path: Path, name: str
) -> None:
    await stack.lab.cluster.create(
        {"apiVersion": "v1", "kind": NAMESPACE.kind, "metadata": {"name": name} | NAMESPACES[name]}
    )
    place, sidecars = Place(stack, name, tmp_path), set[str]()
    watching = asyncio.create_task(watch_sidecars(place, sidecars))
    if name == "quota":
        await place.make(RESOURCE_QUOTA, "compute", QUOTA)
    await place.config()
    await place.put_source()
    await place.cache()
    await place.model()
    await place.template(warmCache=True)
    await place.until_reported(CACHE, "c", reasons.FILLED, reasons.WARM)
    await place.until_reported(TEMPLATE, "t", reasons.READY, reasons.WARM)
    await place.no_jobs()
    watching.cancel()
    assert sidecars == SIDECARS.get(name, set())
