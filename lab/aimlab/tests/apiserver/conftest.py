"""A running API server double and a plain HTTP client for it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from aimctl.local.processes import Children
from aimlab.apiserver import ApiServer
from aimlab.lab import start_double


class Api:
    """Requests as a client sends them; answers as status and decoded body."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        kind: str = "application/json",
        accept: str = "",
    ) -> tuple[int, Any]:
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": kind, **({"Accept": accept} if accept else {})}
        async with self.session.request(method, path, data=data, headers=headers) as answer:
            raw = await answer.read()
            return answer.status, (
                msgspec.json.decode(raw)
                if answer.content_type.endswith("json")
                else {"raw": raw.decode()}
            )

    async def ok(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> Any:
        """The body of an answer that must be a success."""
        status, answer = await self(method, path, body, kind)
        assert status < 300, answer
        return answer


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with ApiServer() as running:
        yield running


@pytest.fixture
async def api(server: ApiServer) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession(server.url, trust_env=False) as session:
        yield Api(session)


@pytest.fixture
async def elsewhere(tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a double in a separate process."""
    async with Children(tmp_path / "log") as children:
        yield await start_double(children)
