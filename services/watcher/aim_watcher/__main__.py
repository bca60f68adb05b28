"""Wiring: one bus, one cluster, one feed."""

import asyncio
import sys
from functools import partial

import aimbus
from aim_watcher.apply import LEADER_ONLY, publish_cluster, tell_connection
from aim_watcher.settings import WatcherSettings
from aimkube import Cluster
from aimschema.reasons import WATCHER
from aimservice.health import Health
from aimservice.leadership import candidacy
from aimservice.process import run


async def watch(settings: WatcherSettings, health: Health) -> None:
    health.waiting("nats", f"no answer from {settings.nats_url}")
    health.ready("start")
    bus = await aimbus.connect(settings.nats_url, name="aim-watcher", creds=settings.nats_creds)
    try:
        async with candidacy(WATCHER, settings, health, leader_only=LEADER_ONLY) as lease:
            cluster = await Cluster.connect(settings.kubeconfig, user_agent="aim-watcher")
            limits = {"replicas": settings.nats_replicas, "max_bytes": settings.nats_max_bytes}
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(tell_connection(bus, health))
                    tasks.create_task(lease.lead(partial(publish_cluster, bus, cluster, health, fence=lease.confirm, **limits)))
            finally:
                await cluster.close()
    finally:
        await bus.close()


def main() -> None:
    sys.exit(run(WATCHER, WatcherSettings, watch))


if __name__ == "__main__":
    main()
