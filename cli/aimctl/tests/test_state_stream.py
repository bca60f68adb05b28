"""What is read from the bus for one object, on a real NATS server."""

import asyncio
import datetime
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aimbus import Bus, NatsServer, connect, ensure_streams
from aimcontroller.testing import NAMESPACE, changed, claim, cr, job, obj, status_condition
from aimctl.analysis.diagnosis import diagnose, root_cause
from aimctl.state_stream import chain_state, live_progress
from aimschema import names
from aimschema.messages import Progress
from aimschema.resources import CACHE, POD, SERVICE, Key

WEIGHTS = Key(CACHE.kind, NAMESPACE, "weights")
CLAIM = names.cache_claim("weights")


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    server = NatsServer(tmp_path / "nats")
    connected = await connect(await server.start(), name="test")
    await ensure_streams(connected)
    yield connected
    await connected.close()
    await server.stop()


async def test_of_a_namespace_only_the_chain_is_read(bus: Bus) -> None:
    waits = [
        status_condition("Ready", False, "PVCProvisioning", "waits"),
        status_condition("StorageReady", False, "PVCProvisioning"),
    ]
    bodies = [
        cr(CACHE.kind, "weights", {"sourceUri": "hf://o/m"}, status={"conditions": waits}),
        claim(CLAIM, (CACHE.kind, "weights"), "Pending"),
        cr(CACHE.kind, "other", {"sourceUri": "hf://o/n"}),
        cr(SERVICE.kind, "chat", {}),
        obj(POD.kind, "chat-1"),
        job("other-download", (CACHE.kind, "other")),
    ]
    await bus.publisher.publish_many([changed(body) for body in bodies])
    now = datetime.datetime.now(datetime.UTC)
    state = await chain_state(bus, WEIGHTS, now)
    assert {each.key.name for each in state.all_objects()} == {"weights", CLAIM}
    assert root_cause(diagnose(state, WEIGHTS, now, {})).key.name == CLAIM


async def test_a_missing_object_is_looked_up_in_other_namespaces(bus: Bus) -> None:
    await bus.publisher.publish_many([changed(cr(SERVICE.kind, "chat", {}, namespace="edge"))])
    now, key = datetime.datetime.now(datetime.UTC), Key(SERVICE.kind, NAMESPACE, "chat")
    diagnosis = diagnose(await chain_state(bus, key, now), key, now, {})
    assert (diagnosis.state, diagnosis.remedy) == (
        "missing",
        f"create it in namespace {NAMESPACE}, or correct the name: there is one in edge",
    )


async def test_listening_ends_with_the_progress_of_what_is_asked_for(bus: Bus) -> None:
    async def report() -> None:
        while True:
            for name in ("other", "weights"):
                await bus.publisher.publish_live(
                    Progress(
                        kind=CACHE.kind,
                        namespace=NAMESPACE,
                        name=name,
                        phase="downloading",
                        bytes=1,
                        total=2,
                        rate=1.0,
                    )
                )
            await asyncio.sleep(0)

    reporting, started_s = asyncio.create_task(report()), time.monotonic()
    found = await live_progress(bus, NAMESPACE, for_s=30.0, until={WEIGHTS})
    reporting.cancel()
    assert WEIGHTS in found
    assert time.monotonic() - started_s < 30.0


async def test_listening_ends_in_time_where_nothing_reports(bus: Bus) -> None:
    assert await live_progress(bus, NAMESPACE, for_s=0.05, until={WEIGHTS}) == {}
