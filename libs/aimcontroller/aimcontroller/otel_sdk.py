"""The OpenTelemetry SDK as this project sets it up. The only module that imports it, and
imported only where traces are wanted."""

import logging
from collections.abc import Sequence

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from aimschema.otel_attributes import SERVICE_NAME

REPEATED = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal")
"""Loggers that repeat with each batch that the collector is away, or what that costs."""
log = structlog.get_logger()


class OutageLoggingExporter(SpanExporter):
    """An exporter that logs once that its collector is unreachable, and once that it is back."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        away = result is not SpanExportResult.SUCCESS
        if away and not self._away:
            log.warning(
                "trace-export-failed",
                hint="spans are dropped until the collector takes them; nothing else is held up",
            )
        elif self._away and not away:
            log.info("trace-export-recovered")
        self._away = away
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


def provider_for(name: str) -> TracerProvider:
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES have the last word on what the process is
    called."""
    resource = Resource.create({SERVICE_NAME: name}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OutageLoggingExporter(OTLPSpanExporter())))
    for repeated in REPEATED:
        logging.getLogger(repeated).setLevel(logging.CRITICAL)
    return provider
