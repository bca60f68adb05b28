"""A service as a real process: how it ends, and with which exit code."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aimctl.local.ports import free_ports
from aimlab import forkserver
from aimlab.testing.collector import Collector

PROGRAM = """
import asyncio, os, sys
if missing := os.environ.get("WITHOUT"):
    sys.modules[missing] = None
import structlog
from opentelemetry import trace
from aimcontroller import process
from aimcontroller.settings import ServiceSettings

async def until_cancelled(settings, health):
    print("at work", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("gave back what was in hand", flush=True)

async def ends(settings, health):
    pass

async def fails(settings, health):
    raise RuntimeError("broken")

async def fails_while_stopping(settings, health):
    print("at work", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        raise RuntimeError("broken")

async def never_stops(settings, health):
    print("at work", flush=True)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

async def leaves_behind(settings, health):
    left = asyncio.create_task(never_stops(settings, health))
    await asyncio.sleep(0)
    raise RuntimeError("broken")

async def beats(settings, health):
    beaten = asyncio.Event()
    health.heartbeat = beaten.set
    await beaten.wait()
    print("at work", flush=True)
    await asyncio.Event().wait()

async def prints_its_tracing(settings, health):
    sdk = sys.modules.get("opentelemetry.sdk")
    print(type(trace.get_tracer_provider()).__name__, sdk is not None)

async def makes_a_span(settings, health):
    with trace.get_tracer("test").start_as_current_span("work"):
        structlog.get_logger().info("working")
    print("at work", flush=True)
    await asyncio.Event().wait()

async def makes_spans(settings, health):
    for number in range(20):
        with trace.get_tracer("test").start_as_current_span("work"):
            await asyncio.sleep(0.05)
    print("at work", flush=True)
    await asyncio.Event().wait()

async def shows_its_settings(settings, health):
    paths = {"creds": settings.nats_creds, "kubeconfig": settings.kubeconfig}
    structlog.get_logger().info("settings", **paths)
    await until_cancelled(settings, health)

process.DRAIN_S = 0.3
process.BEAT_S = 0.01
mains = sys.argv[1].split("+")
if len(mains) > 1:
    programs = [
        process.Program(f"c{number}", ServiceSettings, globals()[main])
        for number, main in enumerate(mains)
    ]
    sys.exit(process.run_together("test", programs))
sys.exit(process.run("test", ServiceSettings, globals()[mains[0]]))
"""


@dataclass(frozen=True)
class Process:
    forked: forkserver.Forked
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader

    def terminate(self) -> None:
        self.forked.send_signal(signal.SIGTERM)


Start = Callable[..., Awaitable[Process]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Processes are forked from one that has imported what each service imports."""
    modules = ["structlog", "opentelemetry.trace", "aimcontroller.process"]
    with forkserver.fork_server(tmp_path_factory.mktemp("fork"), modules) as place:
        yield place


async def pipe() -> tuple[asyncio.StreamReader, Any]:
    """Two ends: what is written into the second can be read from the first."""
    reads, writes = os.pipe()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reads, "rb")
    )
    return reader, os.fdopen(writes, "wb")


@pytest.fixture
async def start(
    server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Start]:
    monkeypatch.setenv(forkserver.SOCKET, str(server))
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    running: list[Process] = []

    async def begin(main: str, **environ: str) -> Process:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIM_", "OTEL_"))
        }
        env = inherited | {"AIM_HTTP_PORT": "0"} | environ
        (stdout, out), (stderr, err) = await pipe(), await pipe()
        with out, err:
            argv = [sys.executable, str(program), main]
            process = Process(await forkserver.fork(argv, [out, err], env, None), stdout, stderr)
        running.append(process)
        return process

    yield begin
    for process in running:
        process.forked.send_signal(signal.SIGKILL)
        await process.forked.wait()


async def at_work(process: Process) -> None:
    async with asyncio.timeout(10):
        assert await process.stdout.readline() == b"at work\n"


async def ended(process: Process) -> tuple[int, str, str]:
    async with asyncio.timeout(10):
        out, err = await process.stdout.read(), await process.stderr.read()
        return await process.forked.wait(), out.decode(), err.decode()


def events(log: str) -> list[Any]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_after_a_signal_work_is_released_and_exit_is_0(
    start: Start, number: signal.Signals
) -> None:
    process = await start("until_cancelled")
    await at_work(process)
    process.forked.send_signal(number)
    code, out, err = await ended(process)
    assert (code, out) == (0, "gave back what was in hand\n")
    assert [event["event"] for event in events(err)] == ["stopping", "stopped"]
    assert {event["service"] for event in events(err)} == {"test"}


@pytest.mark.parametrize(("main", "error"), [("ends", "None"), ("fails", "RuntimeError('broken')")])
async def test_a_service_that_ends_by_itself_is_a_failure(
    start: Start, main: str, error: str
) -> None:
    code, _, err = await ended(await start(main))
    assert code == 1
    assert [(event["event"], event["error"]) for event in events(err)] == [
        ("exited-unexpectedly", error)
    ]


@pytest.mark.parametrize(
    ("main", "event_name"),
    [("fails_while_stopping", "failed-while-stopping"), ("never_stops", "drain-timed-out")],
    ids=["fails", "does-not-stop"],
)
async def test_the_exit_code_is_0_whatever_happens_while_stopping(
    start: Start, main: str, event_name: str
) -> None:
    process = await start(main)
    await at_work(process)
    process.terminate()
    code, _, err = await ended(process)
    assert code == 0
    assert event_name in [event["event"] for event in events(err)]


async def test_components_of_one_process_end_together(start: Start) -> None:
    process = await start("until_cancelled+until_cancelled")
    await at_work(process)
    await at_work(process)
    process.terminate()
    code, out, _ = await ended(process)
    assert (code, out) == (0, "gave back what was in hand\n" * 2)


@pytest.mark.parametrize(("main", "error"), [("ends", "c1 ended"), ("fails", "broken")])
async def test_a_component_that_ends_ends_the_process(start: Start, main: str, error: str) -> None:
    code, out, err = await ended(await start(f"until_cancelled+{main}"))
    assert (code, out) == (1, "at work\ngave back what was in hand\n")
    assert f"RuntimeError: {error}" in err


async def test_a_component_has_its_name_in_paths_and_log_lines(start: Start) -> None:
    process = await start(
        "shows_its_settings+shows_its_settings",
        AIM_NATS_CREDS="/keys/{component}/seed",
        KUBECONFIG="/kube/{component}",
    )
    await at_work(process)
    await at_work(process)
    process.terminate()
    _, _, err = await ended(process)
    lines = [line for line in events(err) if line["event"] == "settings"]
    assert [(line["service"], line["creds"], line["kubeconfig"]) for line in lines] == [
        ("c0", "/keys/c0/seed", "/kube/c0"),
        ("c1", "/keys/c1/seed", "/kube/c1"),
    ]


async def test_a_service_ends_although_something_it_started_does_not(start: Start) -> None:
    code, _, err = await ended(await start("leaves_behind"))
    assert code == 1
    assert [event["event"] for event in events(err)] == [
        "exited-unexpectedly",
        "shutdown-timed-out",
    ]


async def test_a_waiting_service_is_alive(start: Start) -> None:
    await at_work(await start("beats"))


@pytest.mark.parametrize(
    ("variable", "value"),
    [("AIM_HTTP_PORT", "many"), ("AIM_LOG_LEVEL", "LOUD"), ("AIM_LOG_FORMAT", "xml")],
    ids=["port", "level", "format"],
)
async def test_a_bad_setting_ends_with_2_and_names_the_variable(
    start: Start, variable: str, value: str
) -> None:
    code, out, err = await ended(await start("until_cancelled", **{variable: value}))
    assert (code, out) == (2, "")
    assert err.startswith(f"aim-test: setting {variable}: ")
    assert err.rstrip().endswith(f"got {value!r}")
    assert len(err.splitlines()) == 1


async def test_an_unknown_variable_is_warned_about_and_changes_nothing(start: Start) -> None:
    process = await start(
        "until_cancelled", AIM_NATS_ULR="nats://x", AIM_GPU_TABLE="/known/elsewhere"
    )
    await at_work(process)
    process.terminate()
    code, _, err = await ended(process)
    assert code == 0
    assert [event["variable"] for event in events(err) if event["event"] == "unknown-setting"] == [
        "AIM_NATS_ULR"
    ]
    assert {event["level"] for event in events(err) if event["event"] == "unknown-setting"} == {
        "warning"
    }


async def test_logs_for_people_are_not_json(start: Start) -> None:
    process = await start("until_cancelled", AIM_LOG_FORMAT="console")
    await at_work(process)
    process.terminate()
    code, _, err = await ended(process)
    assert (code, events(err)) == (0, [])
    assert "stopping" in err


async def test_without_an_endpoint_the_sdk_is_not_even_imported(start: Start) -> None:
    assert await traced(await start("prints_its_tracing")) == (
        ["ProxyTracerProvider", "False"],
        [],
    )


async def test_spans_are_flushed_and_log_lines_name_the_trace(
    start: Start,
) -> None:
    async with Collector() as collector:
        process = await start(
            "makes_a_span",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_BSP_SCHEDULE_DELAY="60000",
        )
        await at_work(process)
        process.terminate()
        code, _, err = await ended(process)
        (span,) = collector.spans
    assert (code, span.service, span.name) == (0, "aim-test", "work")
    assert [
        (event["trace_id"], event["span_id"])
        for event in events(err)
        if event["event"] == "working"
    ] == [(span.trace, span.id)]


async def test_the_standard_variables_have_the_last_word(start: Start) -> None:
    async with Collector() as collector:
        named = {
            "OTEL_SERVICE_NAME": "mine",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.endpoint}/v1/traces",
        }
        process = await start("makes_a_span", **named)
        await at_work(process)
        process.terminate()
        await ended(process)
        assert [span.service for span in collector.spans] == ["mine"]
        never = await start("makes_a_span", **named, OTEL_TRACES_SAMPLER="always_off")
        await at_work(never)
        never.terminate()
        await ended(never)
        assert len(collector.spans) == 1


async def test_a_missing_collector_is_logged_once_and_blocks_nothing(start: Start) -> None:
    (port,) = free_ports(1)
    away = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "0.1",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    process = await start("makes_spans", **away)
    await at_work(process)
    process.terminate()
    code, _, err = await ended(process)
    assert code == 0
    assert [event["event"] for event in events(err)] == [
        "tracing",
        "trace-export-failed",
        "stopping",
        "stopped",
    ]


async def test_a_missing_sdk_is_logged_once_with_its_remedy(start: Start) -> None:
    process = await start(
        "prints_its_tracing",
        WITHOUT="opentelemetry.sdk",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4318",
    )
    printed, (warning,) = await traced(process)
    assert printed == ["ProxyTracerProvider", "False"]
    assert (warning["event"], warning["level"]) == ("tracing-not-installed", "warning")
    assert "aimcontroller[otel]" in warning["hint"]


async def traced(process: Process) -> tuple[list[str], list[Any]]:
    """What it says of its tracing, and what it logs but for its end."""
    _, out, err = await ended(process)
    return out.split(), [event for event in events(err) if event["event"] != "exited-unexpectedly"]
