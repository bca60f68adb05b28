"""`aim-watcher`: the watcher as a process; `aim-watcher nats-init`: the Secrets of NATS."""

import sys
from functools import partial

from aim_watcher.settings import WatcherSettings
from aim_watcher.streams import LEADER_ONLY, publish_cluster
from aimcontroller.controller import connect_bus
from aimcontroller.health import Health
from aimcontroller.leader_election import leader_election
from aimcontroller.process import run
from aimkube import Cluster
from aimschema.reasons import WATCHER


async def watch(settings: WatcherSettings, health: Health) -> None:
    health.set_ready("start")
    bus = await connect_bus(WATCHER, settings, health)
    try:
        async with leader_election(WATCHER, settings, health, leader_only=LEADER_ONLY) as lease:
            cluster = await Cluster.connect(settings.kubeconfig, user_agent="aim-watcher")
            try:
                await lease.run_while_leading(
                    partial(
                        publish_cluster,
                        bus,
                        cluster,
                        health,
                        fence=lease.wait_until_held,
                        namespaces=settings.scope,
                        **settings.limits,
                    )
                )
            finally:
                await cluster.close()
    finally:
        await bus.close()


def main() -> None:
    if sys.argv[1:] == ["nats-init"]:
        from aim_watcher import nats_init  # noqa: PLC0415 (a watcher needs no certificates)

        sys.exit(nats_init.main())
    sys.exit(run(WATCHER, WatcherSettings, watch))


if __name__ == "__main__":
    main()
