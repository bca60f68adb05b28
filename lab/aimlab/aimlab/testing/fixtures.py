"""Fixtures for tests that need a laptop cluster: an API server double, a client for it, and the
lab's own processes on it.

Use them by `pytest_plugins = ["aimlab.testing.fixtures"]` in a test module. Everything is in the
test's own folder and on free ports, and ends with the test.
"""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import yaml

from aimctl.local.processes import Children
from aimkube import Cluster, NotFound
from aimlab.apiserver import ApiServer
from aimlab.kinds import Body
from aimlab.testing import NAMESPACE, Start, Wait, eventually
from aimschema.resources import Resource


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        yield server


@pytest.fixture
def kubeconfig(api: ApiServer, tmp_path: Path) -> str:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": api.url}}],
        "users": [{"name": "lab", "user": {"token": "lab"}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return str(path)


@pytest.fixture
async def cluster(kubeconfig: str) -> AsyncIterator[Cluster]:
    connected = await Cluster.connect(kubeconfig)
    await connected.create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    )
    yield connected
    await connected.close()


@pytest.fixture
async def children(tmp_path: Path) -> AsyncIterator[Children]:
    async with Children(tmp_path / "logs") as group:
        yield group


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """The image table: `shell` runs a shell with the container's args, `python` this
    interpreter."""
    path = tmp_path / "images.json"
    path.write_bytes(
        msgspec.json.encode(
            {"shell": {"command": ["/bin/sh"]}, "python": {"command": [sys.executable]}}
        )
    )
    return path


@pytest.fixture
def start_node(children: Children, kubeconfig: str, images: Path, tmp_path: Path) -> Start:
    """Starts a node in the group; a second one finds what an earlier one left."""

    async def start() -> Children:
        state = tmp_path / "state"
        argv = [
            sys.executable,
            "-m",
            "aimlab.node",
            "--kubeconfig",
            kubeconfig,
            "--state",
            str(state),
            "--images",
            str(images),
        ]
        await children.start("node", argv)
        return children

    return start


@pytest.fixture
async def node(start_node: Start) -> Children:
    """The group with a node running in it."""
    return await start_node()


@pytest.fixture
def until(cluster: Cluster) -> Wait:
    """Waits until an object of the namespace fulfils a condition, and gives it."""

    async def wait(resource: Resource, name: str, holds: Callable[[Body], bool]) -> Body:
        latest: Body = {}

        async def fetch() -> bool:
            with suppress(NotFound):
                found = await cluster.get(
                    resource, NAMESPACE if resource.namespaced else None, name
                )
                latest.clear()
                latest.update(found)
            return bool(latest) and holds(latest)

        try:
            await eventually(fetch, f"{resource.kind} {name}")
        except AssertionError:
            raise AssertionError(
                f"{resource.kind} {name} is still {latest.get('status', latest)}"
            ) from None
        return latest

    return wait
