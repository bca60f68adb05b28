"""Wiring: one bus, one cluster, one feed."""

import sys

import aimbus
from aim_watcher.apply import publish_cluster
from aim_watcher.settings import WatcherSettings
from aimkube import Cluster
from aimservice.health import Health
from aimservice.process import run


async def watch(settings: WatcherSettings, health: Health) -> None:
    cluster = await Cluster.connect(settings.kubeconfig, user_agent="aim-watcher")
    try:
        health.waiting("nats", f"no answer from {settings.nats_url}")
        health.ready("start")
        bus = await aimbus.connect(settings.nats_url, name="aim-watcher", creds=settings.nats_creds)
        health.waiting("streams", "making AIM_LOG and AIM_STATE")
        health.ready("nats")
        try:
            await publish_cluster(bus, cluster, health, replicas=settings.nats_replicas, max_bytes=settings.nats_max_bytes)
        finally:
            await bus.close()
    finally:
        await cluster.close()


def main() -> None:
    sys.exit(run("watcher", WatcherSettings, watch))


if __name__ == "__main__":
    main()
