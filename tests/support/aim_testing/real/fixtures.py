"""One control plane on real parts for all tests that ask for it, with the quickstart running."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from aim_testing.real.world import Real
from aimlab.cli.environment import control_plane_on_laptop
from aimlab.cli.quickstart import NAMESPACE, SERVICE
from aimlab.real.cluster import FOLDER


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def real(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Real]:
    """With the quickstart's service running."""
    folder = Path(os.environ[FOLDER])
    async with control_plane_on_laptop(
        tmp_path_factory.mktemp("real"), folder / "kubeconfig"
    ) as stack:
        made = Real(stack, folder)
        await made.kubectl("apply", "-f", str(stack.quickstart.manifests))
        await made.until_running(SERVICE)
        yield made
        await made.kubectl("delete", "aimsvc,aimst", "--all", "-n", NAMESPACE)
        await made.kubectl("delete", "mc,aimns,aimclm", "--all", "-n", NAMESPACE)
