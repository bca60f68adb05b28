"""`aim-watcher nats-init`: does what `aimctl nats init --apply` does, inside the cluster.

Exit code 0: every Secret that a pod mounts exists. Exit code 1: the log has the reason; run it
again.
"""

import asyncio

import structlog

from aim_watcher.nats_secrets import SERVER, Secrets, complete, outcome, reload_command
from aim_watcher.settings import WatcherSettings
from aimcontroller import logs
from aimkube import Cluster, KubeError
from aimschema.reasons import WATCHER

log = structlog.get_logger()


def main() -> int:
    settings = WatcherSettings()
    logs.configure(settings, WATCHER)
    try:
        existing, secrets = asyncio.run(_complete(settings))
    except (KubeError, ValueError) as error:
        log.error("nats-secrets-incomplete", namespace=settings.namespace, error=str(error))  # noqa: TRY400 (the reason is all there is)
        return 1
    outcomes = {name: outcome(name, existing, secrets) for name in secrets}
    log.info("nats-secrets-complete", namespace=settings.namespace, **outcomes)
    if outcomes[SERVER] == "changed":
        log.warning("nats-reload-needed", command=reload_command(settings.namespace))
    return 0


async def _complete(settings: WatcherSettings) -> tuple[Secrets, Secrets]:
    cluster = await Cluster.connect(settings.kubeconfig, user_agent=f"aim-{WATCHER}")
    try:
        return await complete(cluster, settings.namespace, unattended=True)
    finally:
        await cluster.close()
