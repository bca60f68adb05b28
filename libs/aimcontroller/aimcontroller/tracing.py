"""Traces of a process, sent to a collector over OTLP/HTTP if the standard variables of
OpenTelemetry name one; otherwise tracing is off.

1. The SDK reads all other OTEL_* variables as documented: sampling, resource attributes, headers,
   TLS, queue, timeouts.
2. A thread of the SDK sends spans. An unreachable collector costs only spans, and is logged once.
3. The SDK is imported only if tracing is on. If it is not installed, this is logged once, and the
   service runs without traces.
"""

import importlib
import os
import threading
from collections.abc import Callable, Mapping

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, WrappedLogger

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
EXTRA = "aimcontroller[otel]"
log = structlog.get_logger()

Flush = Callable[[float], None]
"""Send what is left, for at most so many seconds."""


def nothing_to_flush(_within_s: float) -> None:
    """Of a process that does not trace."""


def configure(name: str, environ: Mapping[str, str] | None = None) -> Flush:
    """Once per process, before anything that may be traced is made; call what comes back at the
    end."""
    environ = os.environ if environ is None else environ
    endpoint = next((environ[name] for name in reversed(ENDPOINTS) if environ.get(name)), "")
    if not endpoint:
        return nothing_to_flush
    try:
        exporting = importlib.import_module("aimcontroller.otel_sdk")
    except ImportError as error:
        log.warning(
            "tracing-not-installed",
            endpoint=endpoint,
            error=str(error),
            hint=f"pip install '{EXTRA}', or unset {ENDPOINTS[0]}",
        )
        return nothing_to_flush
    provider = exporting.provider_for(name)
    trace.set_tracer_provider(provider)
    log.info("tracing", endpoint=endpoint)

    def flush(within_s: float) -> None:
        """In a thread that the end of the process does not wait for: the SDK's own limit is 30
        s."""
        sending = threading.Thread(target=provider.shutdown, daemon=True)
        sending.start()
        sending.join(within_s)

    return flush


def with_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A log line within a span says which."""
    found = trace.get_current_span().get_span_context()
    if found.is_valid:
        event["trace_id"] = trace.format_trace_id(found.trace_id)
        event["span_id"] = trace.format_span_id(found.span_id)
    return event
