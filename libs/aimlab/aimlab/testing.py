"""Fixtures for tests that need a laptop cluster: an API server double, a client for it, and the lab's own processes on it.

Use them by `pytest_plugins = ["aimlab.testing"]` in a test module. Everything is in the test's own folder and on free ports, and ends with the test.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import yaml

from aimkube import Cluster, NotFound
from aimlab.apiserver import ApiServer
from aimlab.kinds import Body
from aimlab.processes import Children
from aimschema.resources import Resource

Wait = Callable[[Resource, str, Callable[[Body], bool]], Awaitable[Body]]
Start = Callable[[], Awaitable[Children]]
WITHIN_S = 20.0
POLL_S = 0.03
NAMESPACE = "demo"
"""The one namespace that `cluster` makes."""


async def eventually(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Waits until it holds, for what no watch tells of. Raises AssertionError with `what` after 20 s."""
    try:
        async with asyncio.timeout(WITHIN_S):
            while not await holds():  # noqa: ASYNC110 (other processes make it true)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"not within {WITHIN_S:g} s: {what}") from None


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
    await connected.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    yield connected
    await connected.close()


@pytest.fixture
async def children(tmp_path: Path) -> AsyncIterator[Children]:
    async with Children(tmp_path / "logs") as group:
        yield group


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """The image table: `shell` runs a shell with the container's args, `python` this interpreter."""
    path = tmp_path / "images.json"
    path.write_bytes(msgspec.json.encode({"shell": {"command": ["/bin/sh"]}, "python": {"command": [sys.executable]}}))
    return path


@pytest.fixture
def start_node(children: Children, kubeconfig: str, images: Path, tmp_path: Path) -> Start:
    """Starts a node in the group; a second one finds what an earlier one left."""

    async def start() -> Children:
        state = tmp_path / "state"
        argv = [sys.executable, "-m", "aimlab.node", "--kubeconfig", kubeconfig, "--state", str(state), "--images", str(images)]
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
        seen: Body = {}

        async def look() -> bool:
            with suppress(NotFound):
                found = await cluster.get(resource, NAMESPACE if resource.namespaced else None, name)
                seen.clear()
                seen.update(found)
            return bool(seen) and holds(seen)

        try:
            await eventually(look, f"{resource.kind} {name}")
        except AssertionError:
            raise AssertionError(f"{resource.kind} {name} is still {seen.get('status', seen)}") from None
        return seen

    return wait
