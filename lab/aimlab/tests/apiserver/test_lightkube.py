"""The list and watch of lightkube, a foreign client, against the double."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from lightkube import ApiError, AsyncClient, KubeConfig
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap
from lightkube.types import OnErrorAction, OnErrorResult

from aimlab.accounts import write_kubeconfig
from aimlab.apiserver import ApiServer


class Recorder(httpx2.AsyncHTTPTransport):
    """Records the version from which each watch started; `watches` is set at each new one."""

    def __init__(self) -> None:
        super().__init__()
        self.versions: list[str | None] = []
        self.watches = asyncio.Condition()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = await super().handle_async_request(request)
        if "watch" in request.url.params:
            async with self.watches:
                self.versions.append(request.url.params.get("resourceVersion"))
                self.watches.notify_all()
        return answer

    async def until(self, count: int) -> None:
        async with self.watches:
            await self.watches.wait_for(lambda: len(self.versions) >= count)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def client(
    server: ApiServer, recorder: Recorder, tmp_path: Path
) -> AsyncIterator[AsyncClient]:
    write_kubeconfig(tmp_path / "kubeconfig", server.url)
    made = AsyncClient(
        config=KubeConfig.from_file(tmp_path / "kubeconfig").get(),
        transport=recorder,
        trust_env=False,
    )
    yield made
    await made.close()


def named(name: str, **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data=data)


Received = tuple[str, str | None]


async def following(
    client: AsyncClient, version: str, into: asyncio.Queue[Received], problems: list[int]
) -> None:
    """Watches without end, each time for a second, and continues after errors as the library
    does."""

    def go_on(error: Exception, _count: int) -> OnErrorResult:
        assert isinstance(error, ApiError)
        problems.append(error.status.code or 0)
        return OnErrorResult(OnErrorAction.RETRY)

    async for kind, body in client.watch(
        ConfigMap, namespace="default", resource_version=version, server_timeout=1, on_error=go_on
    ):
        into.put_nowait((kind, body.metadata.name if body.metadata else None))


@pytest.fixture
async def tasks() -> AsyncIterator[list[asyncio.Task[None]]]:
    running: list[asyncio.Task[None]] = []
    yield running
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def test_a_resumed_watch_neither_loses_nor_repeats_events(
    client: AsyncClient, recorder: Recorder, tasks: list[asyncio.Task[None]]
) -> None:
    await client.create(named("before"))
    listed = client.list(ConfigMap, namespace="default")
    assert [one.metadata.name async for one in listed if one.metadata] == ["before"]
    received: asyncio.Queue[Received] = asyncio.Queue()
    tasks.append(asyncio.create_task(following(client, listed.resourceVersion, received, [])))
    await recorder.until(1)
    made = await client.create(named("during"))
    assert await asyncio.wait_for(received.get(), 5) == ("ADDED", "during")
    await recorder.until(2)
    await client.patch(ConfigMap, "during", {"data": {"a": "b"}}, namespace="default")
    await client.delete(ConfigMap, "before", namespace="default")
    assert [await asyncio.wait_for(received.get(), 5) for _ in range(2)] == [
        ("MODIFIED", "during"),
        ("DELETED", "before"),
    ]
    assert made.metadata
    assert recorder.versions[:2] == [listed.resourceVersion, made.metadata.resourceVersion]
    assert received.empty()


async def test_a_watch_from_an_expired_version_gets_410_and_restarts(
    client: AsyncClient, recorder: Recorder, tasks: list[asyncio.Task[None]]
) -> None:
    await client.create(named("there"))
    received: asyncio.Queue[Received] = asyncio.Queue()
    problems: list[int] = []
    tasks.append(asyncio.create_task(following(client, "1", received, problems)))
    assert await asyncio.wait_for(received.get(), 5) == ("ADDED", "there")
    assert (problems, recorder.versions[:2]) == ([410], ["1", None])


async def test_lists_come_in_pages(client: AsyncClient) -> None:
    names = [f"c{number}" for number in range(5)]
    for name in names:
        await client.create(named(name))
    found = client.list(ConfigMap, namespace="default", chunk_size=2)
    assert [one.metadata.name async for one in found if one.metadata] == names
