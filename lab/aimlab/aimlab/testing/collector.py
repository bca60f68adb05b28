"""A collector of traces that keeps what it is sent: OTLP/HTTP, as protobuf (OTLP specification
1.x)."""

import asyncio
import gzip
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from aimschema import otel_attributes

PROTOBUF = "application/x-protobuf"
WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Span:
    """`parent` is empty for the first of a trace; times are in ns since 1970; `links` are pairs
    of trace and span."""

    service: str
    trace: str
    id: str
    parent: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    attributes: dict[str, str]
    links: tuple[tuple[str, str], ...]
    failed: bool


class Collector:
    """Listens on loopback for as long as the block lasts. `endpoint` is for
    OTEL_EXPORTER_OTLP_ENDPOINT; `raw` is every request as it came."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.raw: list[bytes] = []
        self.endpoint = ""
        self._came = asyncio.Event()
        app = web.Application(client_max_size=1 << 26)
        app.add_routes([web.post("/v1/traces", self._take)])
        self._runner = web.AppRunner(app, access_log=None)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.endpoint = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    async def until(self, holds: Callable[[list[Span]], bool]) -> list[Span]:
        """All spans, once `holds` is true of them. Fails with what came."""
        try:
            async with asyncio.timeout(WITHIN_S):
                while not holds(self.spans):
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            raise AssertionError("\n".join(trees(self.spans))) from None
        return list(self.spans)

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if body.startswith(b"\x1f\x8b"):
            body = gzip.decompress(body)
        self.raw.append(body)
        self.spans += read(ExportTraceServiceRequest.FromString(body))
        self._came.set()
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type=PROTOBUF
        )


def read(request: ExportTraceServiceRequest) -> list[Span]:
    return [
        _span(_attributes(resource.resource.attributes)[otel_attributes.SERVICE_NAME], span)
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _span(service: str, span: trace_pb2.Span) -> Span:
    return Span(
        service=service,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, str]:
    return {pair.key: _text(pair.value) for pair in pairs}


def _text(value: AnyValue) -> str:
    field = value.WhichOneof("value")
    return "" if field is None else str(getattr(value, field))


def trees(of: Iterable[Span]) -> list[str]:
    """Traces as text, a span a line, those that follow from one indented below it; the oldest
    trace first."""
    known = sorted(of, key=lambda span: span.start_ns)
    ids = {span.id for span in known}
    below: dict[str, list[Span]] = {}
    for span in known:
        below.setdefault(span.parent if span.parent in ids else "", []).append(span)
    return [line for first in below.get("", ()) for line in _tree(first, below, first.start_ns, 0)]


def _tree(span: Span, below: dict[str, list[Span]], begin_ns: int, depth: int) -> list[str]:
    namespace = span.attributes.get(otel_attributes.NAMESPACE, "")
    name = span.attributes.get(otel_attributes.OBJECT_NAME, "")
    links = (
        f"  links to {', '.join(sorted({trace[:8] for trace, _ in span.links}))}"
        if span.links
        else ""
    )
    what = f"{'  ' * depth}{span.service}  {span.name}  {namespace}{'/' if namespace else ''}{name}"
    line = (
        f"{(span.start_ns - begin_ns) / 1e6:8.1f} ms {(span.end_ns - span.start_ns) / 1e6:8.1f} ms "
        f" {what}{links}"
    )
    return [
        line,
        *(
            each
            for child in below.get(span.id, ())
            for each in _tree(child, below, begin_ns, depth + 1)
        ),
    ]
