"""One active and one standby of a service: its lease `aim-<service>` in the control plane's
namespace, shown in /readyz and as `aim_leader`."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aimcontroller.health import Health
from aimcontroller.metrics import LEADER
from aimcontroller.settings import ServiceSettings
from aimkube import Cluster, LeadershipState, Lease, LeaseTiming
from aimkube.lease import TIMING

LEASE = "lease"


@asynccontextmanager
async def leader_election(
    service: str,
    settings: ServiceSettings,
    health: Health,
    *,
    leader_only: Sequence[str] = (),
    timing: LeaseTiming = TIMING,
) -> AsyncIterator[Lease]:
    """The service's lease, over a separate connection: requests of the work must not delay
    renewals. Raises NotConfigured.

    `leader_only` are entries of /readyz that only a leader must fulfil.
    """
    cluster = await Cluster.connect(settings.kubeconfig, user_agent=f"aim-{service}")
    health.set_not_ready(LEASE, "not requested yet: the state is loaded first")

    def on_change(standing: LeadershipState) -> None:
        LEADER.labels(service).set(standing.leading)
        health.role = "leader" if standing.leading else "standby"
        if standing.leading:
            for what in leader_only:
                health.set_not_ready(what, "just became leader")
        else:
            health.set_ready(*leader_only)
        if standing.problem:
            health.set_not_ready(LEASE, standing.problem)
        else:
            health.set_ready(LEASE)

    try:
        yield Lease(
            cluster, settings.namespace, f"aim-{service}", on_change=on_change, timing=timing
        )
    finally:
        await cluster.close()
