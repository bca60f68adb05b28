"""Of two equal Events within a minute one is sent, though the statuswriter is killed in between."""

import asyncio
import signal
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aimbus
from aimbus import Bus, Event
from aimctl.local.processes import Children
from aimctl.manifests import crds, rbac
from aimctl.nats.server import embedded_nats
from aimkube import Cluster
from aimlab.testing import eventually
from aimlab.testing.environments import control_plane_place
from aimschema import subjects
from aimschema.messages import ObjectChanged, ReportedCondition, StatusReported
from aimschema.reasons import CACHER
from aimschema.resources import CACHE, EVENT

pytest_plugins = ["aimlab.testing.server_fixture"]
NAMESPACE = "aim-system"


async def reports(bus: Bus, cache: dict[str, Any], reason: str) -> None:
    """What the cacher would report on the cache."""
    filled = ReportedCondition(
        type="Filled", status="False", reason=reason, message=f"it is {reason}"
    )
    stored = ReportedCondition(
        type="StorageReady", status="True", reason="PVCBound", message="bound"
    )
    metadata = cache["metadata"]
    await bus.publisher.publish(
        StatusReported(
            kind=CACHE.kind,
            namespace=NAMESPACE,
            name=metadata["name"],
            uid=metadata["uid"],
            service=CACHER,
            observed_generation=metadata["generation"],
            conditions=(stored, filled),
        )
    )


async def has_reason(cluster: Cluster, reason: str) -> None:
    """Waits until Ready on the cache has the reason; the Event is sent after that. A lease is
    taken over within 15 s."""
    async with asyncio.timeout(50):
        while True:
            found = (
                (await cluster.get(CACHE, NAMESPACE, "c")).get("status", {}).get("conditions", [])
            )
            if any((each["type"], each["reason"]) == ("Ready", reason) for each in found):
                return
            await asyncio.sleep(0.05)


async def sent(cluster: Cluster) -> list[str]:
    return sorted(
        body["reason"]
        for body in (await cluster.list(EVENT, NAMESPACE)).items
        if body["regarding"]["kind"] == CACHE.kind
    )


async def has_events(cluster: Cluster, *reasons: str) -> None:
    async def have_events() -> bool:
        return set(reasons) <= set(await sent(cluster))

    await eventually(have_events, f"Events {reasons}")


async def test_a_new_process_does_not_repeat_an_equal_event(
    tmp_path: Path, external_server: Path | None
) -> None:
    async with (
        embedded_nats(tmp_path / "nats") as nats,
        Children(tmp_path / "log") as children,
        control_plane_place(external_server, children, tmp_path, [*crds(), *rbac()]) as (
            cluster,
            accounts,
        ),
    ):

        async def start(command: str, name: str) -> None:
            env = {
                "AIM_NATS_URL": nats.url,
                "AIM_NATS_MAX_BYTES": str(1 << 26),
                "AIM_HTTP_PORT": "0",
                "KUBECONFIG": str(accounts[command]),
            }
            await children.start(name, [str(Path(sys.executable).with_name(command))], env=env)

        await start("aim-watcher", "watcher")
        await start("aim-statuswriter", "statuswriter-1")
        bus = await aimbus.connect(nats.url, name="aim-cacher")
        metadata = {"name": "c", "namespace": NAMESPACE}
        cache = await cluster.create(
            {
                "apiVersion": CACHE.api_version,
                "kind": CACHE.kind,
                "metadata": metadata,
                "spec": {"sourceUri": "hf://a/b"},
            }
        )
        await published(bus, "c")
        for reason in ("AuthError", "SourceNotFound"):
            await reports(bus, cache, reason)
            await has_reason(cluster, reason)
            await has_events(cluster, reason)
        children.running["statuswriter-1"].send_signal(signal.SIGKILL)
        await start("aim-statuswriter", "statuswriter-2")
        for reason in ("AuthError", "ChecksumMismatch"):
            await reports(bus, cache, reason)
            await has_reason(cluster, reason)
        await has_events(cluster, "ChecksumMismatch")
        assert await sent(cluster) == ["AuthError", "ChecksumMismatch", "SourceNotFound"]
        await bus.close()


async def published(bus: Bus, name: str) -> None:
    """Waits until the watcher has published the cache."""
    async with (
        asyncio.timeout(30),
        aclosing(aimbus.read_log(bus, [subjects.objects(CACHE.kind)], follow=True)) as events,
    ):
        async for event in events:
            if (
                isinstance(event, Event)
                and isinstance(event.message, ObjectChanged)
                and event.message.name == name
            ):
                return
