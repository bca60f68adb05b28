"""An S3 server on loopback that speaks as other makers' stores do: every departure from Amazon's S3
is a switch of `Dialect`.

It reads only (ListObjects in both versions, HEAD, GET), checks no signature, and has one bucket.
SeaweedFS is the server for everything that needs no departure.
"""

from __future__ import annotations

import gzip
import hashlib
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote
from xml.sax.saxutils import escape

from aiohttp import web

HOST = "127.0.0.1"
MODIFIED = "2024-01-01T00:00:00.000Z"
MODIFIED_HEADER = "Mon, 01 Jan 2024 00:00:00 GMT"


@dataclass(frozen=True, slots=True)
class Rejection:
    """An error instead of an answer; `body` instead of S3's XML where it is given."""

    status: int
    code: str = ""
    message: str = ""
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self, method: str) -> web.Response:
        xml = f"<Error><Code>{self.code}</Code><Message>{escape(self.message)}</Message></Error>"
        kind = "text/plain" if self.body else "application/xml"
        if self.body.startswith("<"):
            kind = "text/html"
        text = "" if method == "HEAD" else self.body or xml
        return web.Response(
            status=self.status, text=text, content_type=kind, headers=dict(self.headers)
        )


@dataclass(slots=True)
class Dialect:
    """How the store departs. The default is Amazon's S3 as far as reading goes.

    `rejects` are answers by operation: `list`, `list-v2`, `head`, `part-head`, `get`, `range`,
    `conditional`, `all`. `omits` are elements of listings, `omits_headers` headers of HEAD and GET.
    """

    page_keys: int = 1000
    token: Literal["new", "none", "unchanged", "empty"] = "new"  # noqa: S105 - of a listing
    knows_token: bool = True
    knows_start_after: bool = True
    knows_marker: bool = True
    knows_list_v2: bool = True
    knows_prefix: bool = True
    keys: Literal["encoded-as-asked", "raw", "encoded-unsaid"] = "encoded-as-asked"
    omits: frozenset[str] = frozenset()
    adds: Mapping[str, str] = field(default_factory=dict)
    omits_headers: frozenset[str] = frozenset()
    headers: Mapping[str, str] = field(default_factory=dict)
    etag: str = '"{md5}"'
    answer_etag: str = ""
    ranges: Literal["kept", "ignored", "shifted", "of-another-total", "short"] = "kept"
    part_bytes: int = 0
    compresses: bool = False
    virtual_hosted_only: bool = False
    rejects: Mapping[str, Rejection] = field(default_factory=dict)
    page: str = ""
    """HTML that is answered with 200 to everything."""


@dataclass(slots=True)
class Store:
    """A running store. `requests` has method, Host and path with query of every request so far."""

    dialect: Dialect
    bucket: str
    objects: dict[str, bytes]
    endpoint_url: str = ""
    port: int = 0
    requests: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.host} {request.raw_path}")
        if self.dialect.page:
            return web.Response(text=self.dialect.page, content_type="text/html")
        if "all" in self.dialect.rejects:
            return self.dialect.rejects["all"].response(request.method)
        host = request.host.partition(":")[0]
        in_host = host.removesuffix(".localhost") if host.endswith(".localhost") else ""
        bucket, _, rest = request.path.removeprefix("/").partition("/")
        key = request.path.removeprefix("/") if in_host else rest
        if self.dialect.virtual_hosted_only and not in_host:
            text = "Please use virtual hosted style to access."
            return Rejection(403, "SecondLevelDomainForbidden", text).response(request.method)
        if (in_host or bucket) != self.bucket:
            return Rejection(404, "NoSuchBucket", "The specified bucket does not exist").response(
                request.method
            )
        return self._list(request) if not key else await self._object(request, key)

    # --- listing

    def _list(self, request: web.Request) -> web.Response:
        query, dialect = request.query, self.dialect
        second = query.get("list-type") == "2" and dialect.knows_list_v2
        for name in ("list-v2", "list") if second else ("list",):
            if name in dialect.rejects:
                return dialect.rejects[name].response("GET")
        prefix = query.get("prefix", "") if dialect.knows_prefix else ""
        keys = sorted(key for key in self.objects if key.startswith(prefix))
        start, after = self._after(query, second=second)
        keys = [key for key in keys[start:] if key > after]
        most = min(dialect.page_keys, int(query.get("max-keys", "1000")))
        text = self._listing(query, keys[:most], (len(keys) > most, start + most), second=second)
        return web.Response(text=text, content_type="application/xml")

    def _after(self, query: Mapping[str, str], *, second: bool) -> tuple[int, str]:
        """How many keys and which key the page comes after."""
        dialect = self.dialect
        if not second:
            return 0, query.get("marker", "") if dialect.knows_marker else ""
        if query.get("continuation-token") and dialect.knows_token:
            return int(query["continuation-token"].removeprefix("page-")), ""
        return 0, query.get("start-after", "") if dialect.knows_start_after else ""

    def _listing(
        self, query: Mapping[str, str], page: list[str], follows: tuple[bool, int], *, second: bool
    ) -> str:
        truncated, upto = follows
        tokens = {
            "new": f"page-{upto}",
            "none": None,
            "unchanged": f"page-{self.dialect.page_keys}",
            "empty": "",
        }
        is_url_encoded = (
            self.dialect.keys == "encoded-as-asked" and query.get("encoding-type") == "url"
        )
        facts: dict[str, str | None] = {
            "Name": self.bucket,
            "MaxKeys": query.get("max-keys", str(min(1000, self.dialect.page_keys))),
            "KeyCount": str(len(page)) if second else None,
            "EncodingType": "url" if is_url_encoded else None,
            "IsTruncated": "true" if truncated else "false",
            "NextContinuationToken": tokens[self.dialect.token] if truncated and second else None,
        }
        facts |= self.dialect.adds
        elements = "".join(
            f"<{name}>{value}</{name}>"
            for name, value in facts.items()
            if value is not None and name not in self.dialect.omits
        )
        encoded = is_url_encoded or self.dialect.keys == "encoded-unsaid"
        contents = (
            ""
            if "Contents" in self.dialect.omits
            else "".join(self._entry(key, encoded=encoded) for key in page)
        )
        xmlns = "http://s3.amazonaws.com/doc/2006-03-01/"
        return (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult'
            f' xmlns="{xmlns}">{elements}{contents}</ListBucketResult>'
        )

    def _entry(self, key: str, *, encoded: bool) -> str:
        content = self.objects[key]
        name = (
            quote(key, safe="" if self.dialect.keys == "encoded-unsaid" else "/")
            if encoded
            else escape(key)
        )
        facts = {
            "Key": name,
            "Size": str(len(content)),
            "ETag": escape(self._etag(content)),
            "LastModified": MODIFIED,
            "StorageClass": "STANDARD",
        }
        return (
            "<Contents>"
            + "".join(f"<{n}>{v}</{n}>" for n, v in facts.items() if n not in self.dialect.omits)
            + "</Contents>"
        )

    def _etag(self, content: bytes, form: str = "") -> str:
        return (form or self.dialect.etag).format(
            md5=hashlib.md5(content, usedforsecurity=False).hexdigest()
        )

    # --- objects

    async def _object(self, request: web.Request, key: str) -> web.StreamResponse:
        dialect, headers = self.dialect, request.headers
        preconditions = {
            "part-head": "partNumber" in request.query,
            "head": request.method == "HEAD" and "partNumber" not in request.query,
            "conditional": "If-Match" in headers,
            "range": "Range" in headers,
            "get": request.method == "GET",
        }
        for name, applies in preconditions.items():
            if applies and name in dialect.rejects:
                return dialect.rejects[name].response(request.method)
        if key not in self.objects:
            return Rejection(404, "NoSuchKey", "The specified key does not exist.").response(
                request.method
            )
        content = self.objects[key]
        etag = self._etag(content, dialect.answer_etag)
        if headers.get("If-Match", etag) not in {etag, "*"}:
            return Rejection(
                412, "PreconditionFailed", "At least one of the pre-conditions did not hold"
            ).response(request.method)
        return await self._content(
            request, content, {"ETag": etag, "Last-Modified": MODIFIED_HEADER, **dialect.headers}
        )

    async def _content(
        self, request: web.Request, content: bytes, headers: dict[str, str]
    ) -> web.StreamResponse:
        status, body, more = self._span(request, content)
        if self.dialect.compresses:
            body, more = gzip.compress(body), more | {"Content-Encoding": "gzip"}
        sent = {
            name: value
            for name, value in (headers | more).items()
            if name not in self.dialect.omits_headers
        }
        answer = web.StreamResponse(status=status, headers=sent)
        if "Content-Length" in self.dialect.omits_headers:
            answer.enable_chunked_encoding()
        else:
            answer.content_length = len(body)
        await answer.prepare(request)
        if request.method != "HEAD":
            await answer.write(body)
        await answer.write_eof()
        return answer

    def _span(self, request: web.Request, content: bytes) -> tuple[int, bytes, dict[str, str]]:
        if "partNumber" in request.query and self.dialect.part_bytes:
            size, number = self.dialect.part_bytes, int(request.query["partNumber"])
            parts = -(-len(content) // size)
            return (
                206,
                content[(number - 1) * size : number * size],
                {"x-amz-mp-parts-count": str(parts)},
            )
        if "Range" not in request.headers or self.dialect.ranges == "ignored":
            return 200, content, {}
        start, end, _ = request.http_range.indices(len(content))
        total = len(content)
        if self.dialect.ranges == "shifted":
            start, end = 0, end - start
        if self.dialect.ranges == "of-another-total":
            total += 1
        if self.dialect.ranges == "short":
            end = min(end, start + 40_000)
        return 206, content[start:end], {"Content-Range": f"bytes {start}-{end - 1}/{total}"}


@asynccontextmanager
async def dialect_store(
    dialect: Dialect,
    objects: Mapping[str, bytes],
    *,
    bucket: str = "models",
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Store]:
    """Runs the store for as long as the block lasts."""
    store = Store(dialect, bucket, dict(objects))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", store.handle)
    runner: Any = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0, ssl_context=tls).start()
        store.port = runner.addresses[0][1]
        store.endpoint_url = f"{'https' if tls else 'http'}://{HOST}:{store.port}"
        yield store
    finally:
        await runner.cleanup()
