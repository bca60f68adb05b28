"""Health over HTTP: alive, ready or what is missing, and the metrics."""

import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from aimcontroller.health import STALLED_AFTER_S, Health, application, serve_http


class Stalled(Health):
    """One whose loop has not turned for a while."""

    since_s = 0.0

    def stalled_s(self) -> float:
        return self.since_s


@pytest.fixture
def health() -> Stalled:
    return Stalled()


@pytest.fixture
async def client(health: Stalled) -> AsyncIterator[TestClient]:  # type: ignore[type-arg]
    async with TestClient(TestServer(application(health))) as client:
        yield client


async def get(client: TestClient, path: str) -> tuple[int, str]:  # type: ignore[type-arg]
    async with client.get(path) as answer:
        return answer.status, await answer.text()


async def test_ready_once_nothing_is_missing(client: TestClient, health: Stalled) -> None:  # type: ignore[type-arg]
    assert await get(client, "/readyz") == (503, "start: starting\n")
    health.set_not_ready("sync", "the watcher has not yet published: Pod")
    health.set_not_ready("nats", "connecting")
    health.set_ready("start", "never-waited-for")
    assert await get(client, "/readyz") == (
        503,
        "nats: connecting\nsync: the watcher has not yet published: Pod\n",
    )
    health.set_ready("nats", "sync")
    assert await get(client, "/readyz") == (200, "ok\n")


async def test_ready_once_all_components_are(client: TestClient, health: Stalled) -> None:  # type: ignore[type-arg]
    router, cacher = health.component("router"), health.component("cacher")
    health.set_ready("start")
    cacher.set_ready("start")
    router.set_not_ready("nats", "connecting")
    router.set_ready("start")
    assert await get(client, "/readyz") == (503, "router: nats: connecting\n")
    router.set_ready("nats")
    router.role, cacher.role = "leader", "standby"
    assert await get(client, "/readyz") == (200, "ok\nrouter: leader\ncacher: standby\n")


async def test_alive_while_the_loop_turns_also_when_not_ready(
    client: TestClient,  # type: ignore[type-arg]
    health: Stalled,
) -> None:
    assert await get(client, "/livez") == (200, "ok\n")
    health.since_s = STALLED_AFTER_S + 5
    assert await get(client, "/livez") == (503, "the event loop has not run for 65 s\n")


def test_a_beat_shows_that_the_event_loop_runs() -> None:
    health = Health()
    before_s = health.stalled_s()
    health.heartbeat()
    assert 0 <= health.stalled_s() < before_s + 1


async def test_metrics_are_in_the_form_prometheus_reads(client: TestClient) -> None:  # type: ignore[type-arg]
    async with client.get("/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert "# TYPE python_info gauge" in await answer.text()


async def test_served_for_as_long_as_the_service_runs() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/livez"
    async with aiohttp.ClientSession(trust_env=False) as session:
        async with serve_http(Health(), port), session.get(url) as answer:
            assert answer.status == 200
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(url)


async def test_port_0_serves_nothing() -> None:
    async with serve_http(Health(), 0):
        pass
