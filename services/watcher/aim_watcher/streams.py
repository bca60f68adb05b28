"""Maintains the streams of the bus, and publishes the cluster to them.

New streams are empty: whenever they are created, the publication starts over.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Unpack

import structlog

from aim_watcher.history_writer import HistoryWriter
from aim_watcher.metrics import MIRROR_LAG, MIRROR_STALLS, STATE_FULL
from aim_watcher.publisher import STATE, ClusterPublisher
from aim_watcher.settings import Limits
from aimbus import HISTORY_MAX_BYTES, Bus, Level, maintain_streams
from aimcontroller.health import Health
from aimkube import Cluster, Fence
from aimschema.resources import WATCHED

STILL_AFTER_S = 5.0
"""Seconds without progress after which a lagging mirror counts as stalled."""
STREAMS = "streams"
LEADER_ONLY = (STREAMS, STATE, *(resource.kind for resource in WATCHED))
"""Checks of /readyz that only the leader has."""
log = structlog.get_logger()


async def no_fence() -> None:
    """The fence of a watcher without leader election."""


async def publish_cluster(
    bus: Bus,
    cluster: Cluster,
    health: Health,
    *,
    fence: Fence = no_fence,
    namespaces: Sequence[str] = (),
    **limits: Unpack[Limits],
) -> None:
    """Maintain the streams and publish to them, until cancelled. `namespaces` are watched; empty
    means all. Raises StreamsRejected if NATS cannot hold the streams."""
    replicas = limits["replicas"]
    history_max_bytes = limits.get("history_max_bytes", HISTORY_MAX_BYTES)
    async with asyncio.TaskGroup() as tasks:
        publication: asyncio.Task[None] | None = None
        maintained = maintain_streams(
            bus,
            replicas=replicas,
            max_bytes=limits["max_bytes"],
            on_level=partial(note_level, health),
        )
        async with contextlib.aclosing(maintained) as created:
            async for streams in created:
                log.info("streams-ready", republish=streams.republish)
                if publication is not None:
                    publication.cancel()
                    await asyncio.wait([publication])
                history = HistoryWriter(bus, fence, replicas=replicas, max_bytes=history_max_bytes)
                publisher = ClusterPublisher(
                    bus, cluster, health, history, fence=fence, namespaces=namespaces
                )
                publication = tasks.create_task(publisher.run())


def note_level(health: Health, level: Level) -> None:
    """Report the state of the mirror in /metrics, and a stalled mirror in /readyz."""
    MIRROR_LAG.set(level.lag)
    if level.stalled:
        MIRROR_STALLS.inc()
    else:
        STATE_FULL.set(level.full)
    if level.lag == 0:
        health.set_ready(STREAMS)
    elif level.still_s >= STILL_AFTER_S:
        health.set_not_ready(
            STREAMS,
            f"AIM_STATE is {level.lag} messages behind AIM_LOG and has not moved for"
            f" {level.still_s:.0f} s",
        )
