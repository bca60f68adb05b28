"""A proxy in front of an API server that records the requests of a client: for tests with foreign
clients."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp
from aiohttp import web
from multidict import CIMultiDict


class RecordedRequest(NamedTuple):
    """A request, and status and Content-Type of its answer. `sends` is the request's
    Content-Type, "" without a body."""

    method: str
    path: str
    sends: str
    accepts: str
    status: int
    form: str


@asynccontextmanager
async def recording_proxy(url: str) -> AsyncIterator[tuple[list[RecordedRequest], str]]:
    """What was asked so far, in the order of the answers, and the URL to ask at."""
    recorded_requests: list[RecordedRequest] = []
    timeout = aiohttp.ClientTimeout(total=None)

    async def pass_on(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = CIMultiDict(request.headers)
        headers.popall("Host")
        async with session.request(
            request.method, request.rel_url, data=body or None, headers=headers
        ) as answer:
            form, sends = answer.headers["Content-Type"], request.headers.get("Content-Type", "")
            recorded_requests.append(
                RecordedRequest(
                    request.method,
                    request.path_qs,
                    sends,
                    request.headers["Accept"],
                    answer.status,
                    form,
                )
            )
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": form})
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", pass_on)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.2)
    async with aiohttp.ClientSession(url, timeout=timeout, trust_env=False) as session:
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield recorded_requests, f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()
