"""A server that answers from a script: the misbehaviour of API servers and of what stands before
them, on demand."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from aiohttp import web

from aimkube import Cluster

Body = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """One whole answer."""

    body: Body | str
    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """Lines of a watch or a log; `then` the server ends it, breaks the connection, or says
    nothing more."""

    lines: Sequence[Body | str]
    then: Literal["end", "break", "silence"] = "end"


@dataclass(frozen=True)
class ReceivedRequest:
    method: str
    path: str
    query: dict[str, str]
    content_type: str
    body: str
    at_s: float


class ScriptedServer:
    """Answers the n-th request with the n-th step; after the last step it keeps requests
    waiting."""

    def __init__(self) -> None:
        self.script: list[Answer | Stream] = []
        self.requests: list[ReceivedRequest] = []
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.text()
        self.requests.append(
            ReceivedRequest(
                request.method,
                request.path,
                dict(request.query),
                request.content_type,
                body,
                time.monotonic(),
            )
        )
        step = (
            self.script[len(self.requests) - 1]
            if len(self.requests) <= len(self.script)
            else Stream([], "silence")
        )
        if isinstance(step, Answer):
            text = step.body if isinstance(step.body, str) else json.dumps(step.body)
            return web.Response(
                status=step.status, text=text, content_type=step.content_type, headers=step.headers
            )
        response = web.StreamResponse()
        await response.prepare(request)
        for line in step.lines:
            await response.write(
                line.encode() if isinstance(line, str) else json.dumps(line).encode() + b"\n"
            )
        if step.then == "silence":
            await self._closing.wait()
        elif step.then == "break" and request.transport is not None:
            request.transport.abort()
        return response


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer()
    yield scripted
    await scripted.stop()


def write_kubeconfig(path: Path, url: str) -> str:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    path.write_text(json.dumps(config))
    return str(path)


class Kit:
    """What the test modules share, as they cannot import from each other."""

    Answer = Answer
    Stream = Stream

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.clusters: list[Cluster] = []

    async def connect(self, url: str) -> Cluster:
        cluster = await Cluster.connect(
            write_kubeconfig(self._folder / "kubeconfig", url), user_agent="aim-test"
        )
        self.clusters.append(cluster)
        return cluster


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[Kit]:
    made = Kit(tmp_path)
    yield made
    for cluster in made.clusters:
        await cluster.close()
