"""A proxy between the services and the API server double that causes faults. Without a fault it
forwards everything unchanged."""

import asyncio
import contextlib
import random
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector, web

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "transfer-encoding",
        "content-length",
        "content-encoding",
        "host",
        "te",
        "upgrade",
    }
)


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """Shares are of all requests, times in seconds.

    `rejected` are answered with one of `statuses`; `lost` writes take effect, but the connection is
    cut instead of an answer; `hangs`: nothing is answered, new or open; `cut_every_s`: that often a
    stream is cut, most often in the middle of a line; `pages_only`: no watch begins with the
    objects there are, as on servers without the feature WatchList; `cautious`: dry runs are
    rejected, and the first write of each status conflicts.
    """

    rejected: float = 0.0
    statuses: tuple[int, ...] = ()
    lost: float = 0.0
    delay_s: float = 0.0
    hangs: bool = False
    cut_every_s: float | None = None
    pages_only: bool = False
    cautious: bool = False


NONE = Misbehaviour()


@dataclass
class Trap:
    """Springs at the `count`-th write of a client to a path with this end: the write has taken
    effect, and its answer is held back until `opened`. Then the connection is cut, unless the trap
    `answers`."""

    user_agent: str
    count: int
    path_end: str = ""
    answers: bool = False
    sprung: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    """Use as a context. `faulty` counts what was done to requests and streams; `ca_file`: whom
    to trust where the upstream is https."""

    def __init__(self, upstream: str, rng: random.Random, ca_file: Path | None = None) -> None:
        self.url = ""
        self.faulty = 0
        self.requests = 0
        self._upstream = upstream
        self._trusts = None if ca_file is None else ssl.create_default_context(cafile=ca_file)
        self._rng = rng
        self.traps: list[Trap] = []
        self._now = NONE
        self._over = asyncio.Event()
        self._statuses: set[str] = set()
        self._streams: list[Stream] = []
        self._runner: web.AppRunner | None = None
        self._session: ClientSession | None = None

    async def __aenter__(self) -> "Proxy":
        self._over.set()
        connector = TCPConnector(limit=0, ssl=self._trusts or True)
        self._session = ClientSession(
            connector=connector,
            timeout=ClientTimeout(total=None),
            trust_env=False,
            auto_decompress=False,
        )
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, backlog=1024).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        assert self._runner is not None
        assert self._session is not None
        await self._runner.cleanup()
        await self._session.close()

    async def misbehave(self, how: Misbehaviour, window_s: float) -> None:
        """For a while; then what hangs is cut off."""
        self._now = how
        self._over.clear()
        try:
            async with asyncio.timeout(window_s):
                while how.cut_every_s is not None:
                    await asyncio.sleep(self._rng.expovariate(1 / how.cut_every_s))
                    self._cut_one()
                await asyncio.Event().wait()
        except TimeoutError:
            pass
        finally:
            self._now = NONE
            self._over.set()

    def _is_first_status(self, request: web.Request) -> bool:
        is_first = request.path.endswith("/status") and request.path not in self._statuses
        self._statuses.add(request.path)
        return is_first

    def _cut_one(self) -> None:
        if self._streams:
            self.faulty += 1
            self._rng.choice(self._streams).cut(within_a_line=self._rng.random() < 0.8)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        how, body = self._now, await request.read()
        if how.hangs:
            self.faulty += 1
            await self._over.wait()
            return _hung_up(request)
        if how.delay_s:
            self.faulty += 1
            await asyncio.sleep(self._rng.uniform(0, 2 * how.delay_s))
        if self._rng.random() < how.rejected:
            self.faulty += 1
            return _error_response(self._rng.choice(how.statuses))
        if how.pages_only and "sendInitialEvents" in request.query:
            return _error_response(422)
        if how.cautious and "dryRun" in request.query:
            return _error_response(422)
        if how.cautious and self._is_first_status(request):
            return _error_response(409)
        return await self._pass_on(
            request, body, lost=request.method != "GET" and self._rng.random() < how.lost
        )

    async def _pass_on(
        self, request: web.Request, body: bytes, *, lost: bool
    ) -> web.StreamResponse:
        assert self._session is not None
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP
        }
        try:
            async with self._session.request(
                request.method,
                f"{self._upstream}{request.rel_url}",
                data=body or None,
                headers=headers,
            ) as answer:
                passed = {
                    name: value
                    for name, value in answer.headers.items()
                    if name.lower() not in HOP_BY_HOP
                }
                if "watch" in request.query or "follow" in request.query:
                    return await self._stream(
                        request, web.StreamResponse(status=answer.status, headers=passed), answer
                    )
                whole = await answer.read()
        except ClientError:
            return _hung_up(request)
        if lost or await self._trapped(request):
            self.faulty += 1
            return _hung_up(request)
        return web.Response(status=answer.status, headers=passed, body=whole)

    async def _trapped(self, request: web.Request) -> bool:
        if request.method == "GET" or "/leases" in request.path:
            return False
        for trap in self.traps:
            is_meant = trap.user_agent == request.headers.get(
                "User-Agent"
            ) and request.path.endswith(trap.path_end)
            if is_meant and not trap.sprung.is_set():
                trap.count -= 1
                if trap.count <= 0:
                    trap.sprung.set()
                    await trap.opened.wait()
                    return not trap.answers
        return False

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, answer: ClientResponse
    ) -> web.StreamResponse:
        await response.prepare(request)
        stream = Stream(request)
        self._streams.append(stream)
        try:
            async for chunk in answer.content.iter_any():
                if self._now.hangs:
                    self.faulty += 1
                    await self._over.wait()
                    return _hung_up(request)
                if stream.to_be_cut:
                    with contextlib.suppress(ConnectionError):
                        await response.write(chunk[: len(chunk) // 2])
                    return _hung_up(request)
                await response.write(chunk)
        finally:
            self._streams.remove(stream)
        await response.write_eof()
        return response


class Stream:
    """One open watch or log."""

    def __init__(self, request: web.Request) -> None:
        self.to_be_cut = False
        self._request = request

    def cut(self, *, within_a_line: bool) -> None:
        """Now, or at the next thing there is to send."""
        self.to_be_cut = True
        if not within_a_line:
            _hung_up(self._request)


def _hung_up(request: web.Request) -> web.Response:
    """The connection ends without another byte; the response goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _error_response(status: int) -> web.Response:
    """As API servers and what stands before them reject requests: plain text from priority and
    fairness and from proxies, else a Status."""
    if status == 429:
        return web.Response(
            status=429,
            text="Too many requests, please try again later.\n",
            headers={"Retry-After": "1"},
        )
    reasons = {
        500: ("", "etcdserver: request timed out"),
        409: ("Conflict", "the object has been modified"),
        422: ("Invalid", "the server does not support this option"),
    }
    if status in reasons:
        reason, message = reasons[status]
        body = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": status,
        }
        return web.json_response(body, status=status)
    return web.Response(
        status=status, text="upstream connect error or disconnect/reset before headers\n"
    )
