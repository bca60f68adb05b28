"""The cost of tracing for a publication and a reconcile, off and on, on one core: with an embedded
NATS server, and an exporter that drops all spans.

Run by `make bench`; prints a section of RESULTS.md.
"""

import asyncio
import datetime
import logging
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from aimbus import Event, NatsServer, connect, ensure_streams
from aimbus.tracing import tracer
from aimcontroller.reconcile_tracing import ReconcileTracer
from aimschema.messages import ObjectChanged, subject_of
from aimschema.resources import Key

MESSAGES = 2000
PASSES = 20_000
ROUNDS = 5


class Dropping(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002 (the exporter's interface)
        return SpanExportResult.SUCCESS


def pod(number: int, version: int) -> ObjectChanged:
    name = f"pod-{number}"
    body = {"metadata": {"name": name, "namespace": "ml", "uid": name}}
    return ObjectChanged(
        kind="Pod", namespace="ml", name=name, uid=name, resource_version=str(version), object=body
    )


async def publish_us(folder: Path, versions: Sequence[int]) -> float:
    """CPU time per message, one after another, of this process only; the best of the rounds."""
    server = NatsServer(folder)
    await server.start()
    bus = await connect(server.url, name="bench")
    try:
        await ensure_streams(bus)
        best_s = float("inf")
        for version in versions:
            began_s = time.process_time()
            for number in range(MESSAGES):
                await bus.publisher.publish(pod(number, version))
            best_s = min(best_s, time.process_time() - began_s)
    finally:
        await bus.close()
        await server.stop()
    return best_s / MESSAGES * 1e6


def pass_us() -> float:
    """The cost of an event and a reconcile of its key without the planner; the best of the
    rounds."""
    passes = ReconcileTracer(tracer("bench"))
    key = Key("Pod", "ml", "a")
    now = datetime.datetime.now(datetime.UTC)
    message = pod(1, 1)
    subject, traceparent = subject_of(message), f"00-{1:032x}-{1:016x}-01"
    best_s = float("inf")
    for round_ in range(ROUNDS):
        events = [
            Event(
                round_ * PASSES + number + 1, subject, message, now, (), "aim-watcher", traceparent
            )
            for number in range(PASSES)
        ]
        began_s = time.process_time()
        for event in events:
            passes.on_event(event)
            with passes.span(key, (event.seq,)):
                passes.finish("done")
        best_s = min(best_s, time.process_time() - began_s)
    return best_s / PASSES * 1e6


async def measure() -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="aim-bench-") as folder:
        return await publish_us(Path(folder), range(1, ROUNDS + 1)), pass_us()


def main() -> None:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    off_us = asyncio.run(measure())
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Dropping()))
    trace.set_tracer_provider(provider)
    on_us = asyncio.run(measure())
    provider.shutdown()
    print("## Tracing\n")
    print(
        f"`.venv/bin/python bench/tracing.py`, CPU time of one process, the best of {ROUNDS}"
        f" rounds, load {os.getloadavg()[0]:.1f} at the end.\n"
    )
    print("| | off | on | on/off |\n|---|---|---|---|")
    for what, off, on in zip(
        (f"publish a message (of {MESSAGES:,})", f"receive an event and reconcile (of {PASSES:,})"),
        off_us,
        on_us,
        strict=True,
    ):
        print(f"| {what} | {off:.1f} µs | {on:.1f} µs | {on / off:.2f} |")


if __name__ == "__main__":
    main()
