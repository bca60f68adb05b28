"""Requests and streams over kubernetes.aio's ApiClient, which brings configuration, authentication
and TLS.

Bodies are raw dicts through msgspec: the generated models drop unknown fields and cost a hundred
times the CPU. Two clients: a watch holds its connection for minutes and must not use up the pool
that requests need.
"""

import contextlib
import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import aiohttp
import msgspec
import yaml

from aimkube import errors
from aimkube.kubernetes_aio import (
    ApiClient,
    ConfigException,
    Configuration,
    load_incluster_config,
    load_kube_config,
)

Body = dict[str, Any]
Query = dict[str, str | int | bool]
Fence: TypeAlias = Callable[[], Awaitable[None]]

JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"  # JSON is YAML

DEEPEST = 256
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)

REQUEST_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 10.0


class _Request(NamedTuple):
    method: str
    path: str
    query: Query | None = None
    body: Body | list[Body] | None = None
    content_type: str = JSON


async def _configure(configuration: Configuration, kubeconfig: str | None) -> None:
    path = kubeconfig or os.environ.get("KUBECONFIG")
    try:
        if path:
            await load_kube_config(path, client_configuration=configuration, persist_config=False)  # type: ignore[no-untyped-call]
        else:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, yaml.YAMLError, OSError, TypeError, AttributeError) as error:
        where = (
            f"kubeconfig {path}"
            if path
            else "the service account of this pod (KUBECONFIG is not set)"
        )
        raise errors.NotConfigured(f"cannot use {where}: {error}") from error


class Transport:
    """One API server. `kubeconfig` None: $KUBECONFIG, else in-cluster."""

    def __init__(
        self,
        configuration: Configuration,
        kubeconfig: str | None,
        user_agent: str,
        fence: Fence | None = None,
    ) -> None:
        self._configuration = configuration
        self._kubeconfig = kubeconfig
        self._fence = fence
        self._requests = ApiClient(configuration)
        self._streams = ApiClient(configuration)
        self._requests.user_agent = self._streams.user_agent = user_agent
        self._limit_found = False

    @classmethod
    async def open(
        cls, kubeconfig: str | None, user_agent: str, fence: Fence | None = None
    ) -> "Transport":
        """Reads the configuration and makes no request. Raises NotConfigured."""
        configuration = Configuration()
        configuration.client_session_kwargs = {"trust_env": False}
        await _configure(configuration, kubeconfig)
        return cls(configuration, kubeconfig, user_agent, fence)

    def is_first_limit(self) -> bool:
        """Whether this is the first time that the server rejects watch-lists or sends no
        bookmarks: to log it once for all kinds."""
        is_first, self._limit_found = not self._limit_found, True
        return is_first

    async def close(self) -> None:
        await self._requests.close()  # type: ignore[no-untyped-call]
        await self._streams.close()  # type: ignore[no-untyped-call]

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Body | list[Body] | None = None,
        content_type: str = JSON,
    ) -> bytes:
        """The body of a successful answer; raises KubeError."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
        if self._fence is not None and method != "GET":
            await self._fence()
        try:
            async with await self._call(
                self._requests, _Request(method, path, query, body, content_type), timeout
            ) as response:
                await self._check(response)
                return await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error) from error

    async def lines(
        self,
        path: str,
        query: Query,
        *,
        quiet_s: float,
        total_s: float | None = None,
        limit_bytes: int | None = None,
    ) -> AsyncGenerator[bytes]:
        """The whole lines of a streamed answer as they come, without their newline; what follows
        the last newline is dropped.

        A line of more than `limit_bytes` is dropped as well, and is never kept in memory; None: a
        line may have any length.

        Ends when the server ends the stream. Raises KubeError; Unavailable also when nothing came
        for `quiet_s` or it all took longer than `total_s`. The first thing yielded is an empty
        line: the server has accepted the request.
        """
        timeout = aiohttp.ClientTimeout(
            total=total_s, sock_connect=CONNECT_TIMEOUT_S, sock_read=quiet_s
        )
        try:
            async with await self._call(
                self._streams, _Request("GET", path, query), timeout
            ) as response:
                await self._check(response)
                yield b""
                lines = _Lines(limit_bytes)
                # Not readline(): it raises for lines longer than the read buffer.
                async for chunk in response.content.iter_any():
                    for line in lines.feed(chunk):
                        yield line
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error) from error

    async def _call(
        self, client: ApiClient, request: _Request, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": "application/json, */*", "Content-Type": request.content_type}
        # The body is given to call_api alone: param_serialize would copy it.
        method, url, headers, _, _ = await client.param_serialize(
            request.method,
            request.path,
            query_params=request.query,
            header_params=headers,
            auth_settings=["BearerToken"],
        )
        answer = await client.call_api(method, url, headers, request.body, _request_timeout=timeout)
        response: aiohttp.ClientResponse = answer.response
        return response

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        if response.ok:
            return
        if response.status == 401:
            # The token of an exec plugin or a rotated kubeconfig: the next request has the new one.
            with contextlib.suppress(errors.NotConfigured):
                await _configure(self._configuration, self._kubeconfig)
        raise errors.from_response(
            response.status,
            response.content_type,
            await response.read(),
            response.headers.get("Retry-After"),
        )


class _Lines:
    """Whole lines out of chunks. Of a line over `limit_bytes` nothing is kept up to its newline."""

    def __init__(self, limit_bytes: int | None) -> None:
        self._limit_bytes = limit_bytes
        self._pending = bytearray()
        self._too_long = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that end in `chunk`, without their newline."""
        first, *more = chunk.split(b"\n")
        self._take(first)
        for part in more:
            if not self._too_long:
                yield bytes(self._pending)
            self._pending, self._too_long = bytearray(), False
            self._take(part)

    def _take(self, part: bytes) -> None:
        if self._too_long:
            return
        if self._limit_bytes is not None and len(self._pending) + len(part) > self._limit_bytes:
            self._pending, self._too_long = bytearray(), True
        else:
            self._pending += part


def decode(data: bytes) -> Body:
    """A JSON object; raises Unavailable for anything else, which no Kubernetes API sends (a proxy
    between, a torn line).

    The API server takes objects 10,000 levels deep, Python reads about 900: what lies deeper than
    DEEPEST is null then, so that one object of a list does not hide the others.
    """
    body: Body = _decode(data, Body)
    return body


def decode_list(data: bytes) -> tuple[Any, Iterator[Any]]:
    """Metadata and items of a list, each item decoded when it is asked for; raises Unavailable
    as `decode` does."""
    page = _decode(data, _Page)
    return page.metadata, (_decode(item, Any) for item in page.items or ())


class _Page(msgspec.Struct):
    metadata: Any = None
    items: list[msgspec.Raw] | None = None


def _decode(data: bytes | msgspec.Raw, type_: Any) -> Any:
    try:
        try:
            return msgspec.json.decode(data, type=type_)
        except RecursionError:
            return msgspec.json.decode(_without_depths(bytes(data)), type=type_)
    except msgspec.DecodeError as error:
        raise errors.Unavailable(
            f"not a JSON object in an answer of the API server: {error}", reason="Undecodable"
        ) from error


def _without_depths(data: bytes) -> bytes:
    """The JSON with null for each list and object below DEEPEST levels. Without recursion, in
    one pass."""
    shallow = bytearray()
    begin = 0
    depth = 0
    for token in _TOKEN.finditer(data):
        match token[0]:
            case b"{" | b"[":
                depth += 1
                if depth == DEEPEST + 1:
                    shallow += data[begin : token.start()]
            case b"}" | b"]":
                if depth == DEEPEST + 1:
                    shallow += b"null"
                    begin = token.end()
                depth -= 1
    return bytes(shallow) if depth > DEEPEST else bytes(shallow + data[begin:])


def _unreachable(error: Exception) -> errors.Unavailable:
    timed_out = isinstance(error, TimeoutError)
    return errors.Unavailable(
        str(error) or type(error).__name__, reason="Timeout" if timed_out else "Unreachable"
    )
