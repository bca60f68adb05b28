"""Traces of a real run in a real collector: one trace from the event of an object to the write of
its status, and links to later reconciles.

The tests of this file share one laptop cluster.
"""

import asyncio
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from aim_testing import quickstart
from aimctl.local.ports import free_ports
from aimctl.local.processes import READY_WITHIN_S, until_answers
from aimctl.local.services import start_service
from aimlab.cli.environment import Stack, control_plane_on_laptop, kubectl
from aimlab.cli.quickstart import NAMESPACE, SERVICE
from aimlab.testing.collector import Collector, Span, trees
from aimschema import otel_attributes, reasons
from aimschema.reasons import ROUTER

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]
PASSWORD = "aimlab-secret"
ALONE = {
    "AIMClusterModel": {"name": "org/lonely", "image": "registry.invalid/lonely:1"},
    "AIMService": {"model": "org/lonely", "templateRef": "nowhere"},
}


@dataclass
class Place:
    stack: Stack
    collector: Collector


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    with pytest.MonkeyPatch.context() as environ:
        async with Collector() as collector:
            environ.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
            environ.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
            async with control_plane_on_laptop(tmp_path_factory.mktemp("stack")) as stack:
                yield Place(stack, collector)


def with_status_write(spans: list[Span], kind: str) -> list[list[Span]]:
    """The traces that begin with the event of an object of this kind and have a write of its
    status."""
    begun = [
        span for span in spans if span.name == f"publish aim.object.{kind}" and not span.parent
    ]
    traces = [[span for span in spans if span.trace == first.trace] for first in begun]
    return [
        trace
        for trace in traces
        if any(
            span.name == f"apply {kind}/status" and span.service == "aim-statuswriter"
            for span in trace
        )
    ]


def way(trace: list[Span], last: Span) -> list[tuple[str, str, str]]:
    """From the first span of a trace down to this one: service, name, kind. A pass for what the
    pass before found out counts as one with it.

    Empty while a span between them has not come: each service sends its own.
    """
    by_id = {span.id: span for span in trace}
    upwards = [last]
    while upwards[-1].parent:
        if upwards[-1].parent not in by_id:
            return []
        upwards.append(by_id[upwards[-1].parent])
    downwards = [(span.service, span.name, span.kind) for span in reversed(upwards)]
    return [each for each, _ in itertools.groupby(downwards)]


def ends(trace: list[Span], kind: str) -> list[Span]:
    return [span for span in trace if span.name == f"apply {kind}/status"]


async def lonely(place: Place, kind: str, folder: Path) -> None:
    """One object, alone in its namespace."""
    metadata = {"name": "lonely", **({"namespace": "default"} if kind == "AIMService" else {})}
    body = {
        "apiVersion": "aim.silogen.ai/v1alpha1",
        "kind": kind,
        "metadata": metadata,
        "spec": ALONE[kind],
    }
    (folder / "lonely.json").write_text(json.dumps(body))
    await kubectl(place.stack.lab, "apply", "-f", str(folder / "lonely.json"))


@pytest.mark.parametrize("kind", ALONE)
async def test_one_trace_leads_from_an_event_to_the_status_write(
    place: Place, kind: str, tmp_path: Path
) -> None:
    """A single object: with several events at once, a reconcile continues the trace of the
    latest."""
    await lonely(place, kind, tmp_path)
    ways = [
        [
            ("aim-watcher", f"publish aim.object.{kind}", "producer"),
            (f"aim-{by}", f"process {kind}", "consumer"),
            (f"aim-{by}", f"publish aim.report.{kind}", "producer"),
            ("aim-statuswriter", f"process {kind}", "consumer"),
            ("aim-statuswriter", f"apply {kind}/status", "client"),
        ]
        for by in reasons.STATUS_OWNERSHIP[kind]
    ]

    def holds(spans: list[Span]) -> bool:
        return any(
            way(trace, end) in ways
            for trace in with_status_write(spans, kind)
            for end in ends(trace, kind)
        )

    print("\n".join(trees(await place.collector.until(holds))))


async def test_an_observation_continues_the_trace(place: Place, tmp_path: Path) -> None:
    """The image is inspected outside the queue, and the status of the model is written in the trace
    of the causing event."""
    await lonely(place, "AIMClusterModel", tmp_path)

    def is_inspection(span: Span) -> bool:
        name = span.attributes.get(otel_attributes.OBJECT_NAME)
        return (span.service, span.name, span.kind, name) == (
            "aim-discovery",
            "publish aim.action.AIMClusterModel",
            "producer",
            "lonely",
        )

    spans = await place.collector.until(lambda spans: any(map(is_inspection, spans)))
    inspected = next(filter(is_inspection, spans))
    first = next(span for span in spans if span.trace == inspected.trace and not span.parent)
    assert (first.name, first.attributes[otel_attributes.OBJECT_NAME]) == (
        "publish aim.object.AIMClusterModel",
        "lonely",
    )
    log = [
        json.loads(line)
        for line in place.stack.services.log_of("discovery").read_text().splitlines()
        if line.startswith("{")
    ]
    lines = [line for line in log if line["event"] == "inspected" and "lonely" in str(line)]
    assert lines[0]["trace_id"] == inspected.trace


async def test_a_span_has_conventional_attributes_and_no_content(
    place: Place,
) -> None:
    await quickstart.running(place.stack)
    spans = await place.collector.until(
        lambda spans: any(span.name == "apply InferenceService" for span in spans)
    )
    applied = next(span for span in spans if span.name == "apply InferenceService")
    about = {
        otel_attributes.OBJECT_KIND: "InferenceService",
        otel_attributes.OBJECT_NAME: SERVICE,
        otel_attributes.NAMESPACE: NAMESPACE,
    }
    assert applied.attributes == {otel_attributes.METHOD: "PATCH", **about}
    described = next(
        s
        for s in spans
        if s.name == "publish aim.object.AIMService"
        and s.attributes[otel_attributes.OBJECT_NAME] == SERVICE
    )
    assert {
        name: described.attributes[name]
        for name in (
            otel_attributes.SYSTEM,
            otel_attributes.DESTINATION,
            otel_attributes.OPERATION,
            otel_attributes.OPERATION_TYPE,
        )
    } == {
        otel_attributes.SYSTEM: "nats",
        otel_attributes.DESTINATION: f"aim.object.AIMService.{NAMESPACE}.{SERVICE}",
        otel_attributes.OPERATION: "publish",
        otel_attributes.OPERATION_TYPE: "send",
    }
    sent = b"".join(place.collector.raw)
    for word in (PASSWORD, "VLLM_ENABLE_METRICS", "workspace/model-cache"):
        assert word.encode() not in sent
    print("\n".join(trees(spans)))


async def test_a_restarted_service_links_its_traces_to_former_ones(
    place: Place,
) -> None:
    await quickstart.running(place.stack)
    await place.stack.services.stop(ROUTER)
    (port,) = free_ports(1)
    account = place.stack.lab.accounts
    kubeconfig = None if account is None else account[f"aim-{ROUTER}"]
    url = await start_service(
        place.stack.services,
        ROUTER,
        nats_url=place.stack.nats_url,
        kubeconfig=kubeconfig,
        port=port,
    )
    started_ns = max(span.end_ns for span in place.collector.spans)
    await until_answers(
        place.stack.services.running[ROUTER], f"{url}/readyz", ROUTER, READY_WITHIN_S
    )

    def restarted(spans: list[Span]) -> list[Span]:
        return [
            s
            for s in spans
            if s.service == "aim-router"
            and s.start_ns > started_ns
            and s.name == "process AIMService"
        ]

    spans = await place.collector.until(lambda spans: bool(restarted(spans)))
    again = restarted(spans)[0]
    assert again.parent == ""
    before = {span.trace for span in spans if span.start_ns < started_ns}
    assert again.trace not in before
    linked = {trace for trace, _ in again.links}
    assert linked
    assert again.trace not in linked
    # (a status may be written, and its span arrive, after the restart)
    await place.collector.until(lambda spans: linked <= {span.trace for span in spans})


async def test_a_replay_is_a_trace_linked_to_the_replayed_ones(
    place: Place, tmp_path: Path
) -> None:
    await quickstart.running(place.stack)
    file = tmp_path / "run.jsonl"
    for command in (
        ["record", "-n", NAMESPACE, "-o", str(file)],
        ["replay", str(file), "--service", ROUTER],
    ):
        env = os.environ | {"AIM_NATS_URL": place.stack.nats_url}
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("aimctl")), *command, env=env
        )
        assert await process.wait() == 0
    spans = await place.collector.until(
        lambda spans: any(span.service == "aimctl" for span in spans)
    )
    (replayed,) = [span for span in spans if span.service == "aimctl"]
    assert (replayed.name, replayed.parent) == ("replay router", "")
    of_the_service = {
        s.trace
        for s in spans
        if s.name == "publish aim.object.AIMService"
        and s.attributes[otel_attributes.NAMESPACE] == NAMESPACE
    }
    assert of_the_service & {trace for trace, _ in replayed.links}
    assert replayed.trace not in {span.trace for span in spans if span.service != "aimctl"}
