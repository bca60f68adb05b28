"""The double as an API server whose etcd has no RequestWatchProgress, such as Debian's 3.4."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from aimkube import Cluster, Modified, Snapshot
from aimlab.accounts import write_kubeconfig
from aimlab.apiserver import ApiServer
from aimschema.resources import CONFIG_MAP, SECRET, Resource

CONFIGS = CONFIG_MAP.path("default")
WATCH_LIST = {
    "watch": "true",
    "sendInitialEvents": "true",
    "resourceVersionMatch": "NotOlderThan",
    "allowWatchBookmarks": "true",
}


@pytest.fixture
async def old() -> AsyncIterator[ApiServer]:
    async with ApiServer(old_etcd=True) as server:
        yield server


async def test_a_watch_list_ends_with_an_error_event(old: ApiServer) -> None:
    async with (
        aiohttp.ClientSession(old.url) as session,
        session.get(CONFIGS, params=WATCH_LIST) as answer,
    ):
        event = await answer.json()
    assert answer.status == 200
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (500, "InternalError")
    assert "RequestWatchProgress is disabled" in event["object"]["message"]


async def test_a_watch_has_no_bookmarks(old: ApiServer) -> None:
    query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": "1"}
    async with (
        aiohttp.ClientSession(old.url) as session,
        session.get(CONFIGS, params=query) as answer,
    ):
        assert await answer.read() == b""


async def test_each_kind_is_listed_by_page_and_watched(old: ApiServer, tmp_path: Path) -> None:
    write_kubeconfig(tmp_path / "kubeconfig", old.url)
    cluster = await Cluster.connect(str(tmp_path / "kubeconfig"), user_agent="test")

    async def create_and_hear(resource: Resource) -> str:
        metadata = {"name": "a", "namespace": "default"}
        body = {"apiVersion": "v1", "kind": resource.kind, "metadata": metadata}
        stream = cluster.list_and_watch(resource, "default")
        async with asyncio.timeout(20), aclosing(stream):
            assert isinstance(await anext(stream), Snapshot)
            await cluster.create(body, resource=resource)
            change = await anext(stream)
            assert isinstance(change, Modified)
            return str(change.body["kind"])

    with capture_logs() as logs:
        heard = await asyncio.gather(create_and_hear(CONFIG_MAP), create_and_hear(SECRET))
    await cluster.close()
    assert list(heard) == ["ConfigMap", "Secret"]
    assert [each["event"] for each in logs] == ["watch-list-rejected"]
