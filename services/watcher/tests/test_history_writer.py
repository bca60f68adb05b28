"""The writer of AIM_HISTORY on a real nats-server, without a cluster."""

import asyncio
from pathlib import Path
from typing import Any

from aim_watcher.history_writer import HistoryWriter
from aim_watcher.streams import no_fence
from aimbus import Event, NatsServer, connect, read_history
from aimkube import Modified
from aimschema.messages import SpecVersion
from aimschema.resources import CACHE


def cache(name: str, version: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ml", "uid": name, "resourceVersion": version}
    return {
        "apiVersion": CACHE.api_version,
        "kind": CACHE.kind,
        "metadata": metadata | {"generation": 1},
        "spec": {"size": "1Gi"},
    }


async def test_an_object_that_makes_no_sense_stops_nothing(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    bus = await connect(await server.start(), name="aim-watcher")
    writer = HistoryWriter(bus, no_fence, replicas=1, max_bytes=1 << 24)
    writing = asyncio.create_task(writer.run(lambda: None))
    for name, version in (("bad", "no number"), ("good", "7")):
        writer.note(CACHE.kind, None, Modified(cache(name, version)), 0)
    writer.note("Pod", None, Modified(cache("foreign", "8")), 0)
    found: list[str] = []
    async with asyncio.timeout(20):
        while not found:
            await asyncio.sleep(0.05)
            async for item in read_history(bus, ["aimhistory.>"]):
                if isinstance(item, Event) and isinstance(item.message, SpecVersion):
                    found.append(item.message.name)
    assert found == ["good"]
    writing.cancel()
    await asyncio.wait([writing])
    await bus.close()
    await server.kill()
