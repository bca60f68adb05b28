"""A bare HTTP client for the API server: no retries, no queue, no objects. What it needs for the
same calls is the yardstick of the benchmarks."""

import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec

from aimlab.accounts import api_of

Body = dict[str, Any]
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON = "application/json"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Body).decode


class RequestFailed(Exception):
    """The API server answered with an error."""


class RawApi:
    """Requests with the credentials of one kubeconfig."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    @classmethod
    @asynccontextmanager
    async def open(cls, kubeconfig: Path) -> AsyncIterator[Self]:
        api = api_of(kubeconfig)
        tls = ssl.create_default_context(cafile=api.ca_file) if api.ca_file else True
        headers = {"Authorization": f"Bearer {api.token}"} if api.token else {}
        async with aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(ssl=tls, limit=64),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            trust_env=False,
            read_bufsize=1 << 20,
        ) as session:
            yield cls(api.url, session)

    async def text(self, path: str) -> str:
        async with self._session.get(self._url + path) as answer:
            return await answer.text()

    async def get(self, path: str) -> Body:
        return await self._send("GET", path, None, JSON)

    async def post(self, path: str, body: Body) -> Body:
        return await self._send("POST", path, body, JSON)

    async def merge(self, path: str, patch: Body) -> Body:
        return await self._send("PATCH", path, patch, MERGE)

    async def apply(self, path: str, body: Body, manager: str) -> Body:
        return await self._send("PATCH", f"{path}?fieldManager={manager}&force=true", body, APPLY)

    async def delete(self, path: str) -> None:
        with contextlib.suppress(RequestFailed):
            await self._send("DELETE", path, None, JSON)

    async def _send(self, method: str, path: str, body: Body | None, content: str) -> Body:
        data = None if body is None else _encode(body)
        async with self._session.request(
            method, self._url + path, data=data, headers={"Content-Type": content}
        ) as answer:
            received = await answer.read()
        if answer.status >= 300:
            raise RequestFailed(f"{method} {path}: {answer.status} {received.decode()[:500]}")
        return _decode(received)

    async def watch(self, path: str, version: str) -> AsyncGenerator[bytes, None]:
        """The lines of a watch from a version on; it ends with the server's time-out."""
        query = f"{path}?watch=true&resourceVersion={version}&timeoutSeconds=3600"
        async with self._session.get(self._url + query) as answer:
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield line

    async def version_of(self, path: str) -> str:
        """The version of a collection, to watch from."""
        listed = await self.get(f"{path}?limit=1")
        return str(listed["metadata"]["resourceVersion"])
