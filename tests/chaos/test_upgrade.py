"""All services are replaced while 100 model services are up, as a Deployment does it: the new one
is ready, then the old one gets SIGTERM.

Nothing that runs is touched: every InferenceService keeps its version. What users change in between
is done, and the bus has the latest of all.
"""

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

import aimbus
from aim_testing.chaos.fleet import of_size
from aim_testing.chaos.world import World, bring_up, world
from aimctl.component_registry import SERVICES
from aimctl.local.ports import free_ports
from aimctl.local.processes import until_answers
from aimlab.testing import eventually
from aimschema import subjects
from aimschema.messages import ObjectChanged
from aimschema.resources import (
    CACHE,
    INFERENCE_SERVICE,
    JOB,
    ROUTE,
    SERVICE,
    TEMPLATE,
    Key,
    Resource,
)

SEED = 11
MODEL_SERVICES = 100
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with world(tmp_path_factory.mktemp("upgrade"), SEED) as made:
        _, outcome = await bring_up(made, of_size(MODEL_SERVICES), None, None, SEED)
        assert outcome.problems == ()
        yield made


async def replace(running: World, service: str, edited: Key | None) -> None:
    """The new process is ready before the old one gets SIGTERM, which ends with exit code 0;
    meanwhile a user scales a service."""
    port, new = free_ports(1)[0], f"{service}-new"
    env = {
        "AIM_NATS_URL": running.nats.url,
        "AIM_HTTP_PORT": str(port),
        "KUBECONFIG": str(running.accounts[f"aim-{service}"]),
    }
    process = await running.services.start(
        new, [str(Path(sys.executable).with_name(f"aim-{service}"))], env=env
    )
    await until_answers(process, f"http://127.0.0.1:{port}/readyz", new)
    if edited is not None:
        await running.cluster.merge_patch(
            SERVICE, edited.namespace, edited.name, {"spec": {"replicas": 3}}
        )
    assert await running.services.stop(service) == 0


async def versions(running: World, *kinds: Resource) -> dict[Key, tuple[str, str]]:
    """By object, its uid and resourceVersion."""
    found = {}
    for kind in kinds:
        for body in (await running.cluster.list(kind)).items:
            metadata = body["metadata"]
            found[Key(kind.kind, metadata.get("namespace"), metadata["name"])] = (
                metadata["uid"],
                metadata["resourceVersion"],
            )
    return found


async def heard(running: World, kind: Resource) -> dict[Key, tuple[str, str]]:
    """By object, the last version that is on the bus."""
    found = {}
    bus = await aimbus.connect(running.nats.url, name="test")
    try:
        async with contextlib.aclosing(
            aimbus.read_log(bus, [subjects.objects(kind.kind)])
        ) as events:
            async for event in events:
                assert isinstance(event, aimbus.Event)
                match event.message:
                    case ObjectChanged(
                        kind=of, namespace=namespace, name=name, uid=uid, resource_version=version
                    ):
                        found[Key(of, namespace, name)] = (uid, version)
                    case deleted:
                        raise AssertionError(f"nothing was deleted: {deleted}")
    finally:
        await bus.close()
    return found


async def test_a_rolling_update_touches_nothing_and_misses_nothing(running: World) -> None:
    kinds = (INFERENCE_SERVICE, ROUTE, CACHE, TEMPLATE, JOB)
    before = await versions(running, *kinds)
    assert sum(key.kind == INFERENCE_SERVICE.kind for key in before) >= MODEL_SERVICES
    edited = sorted(key for key in await versions(running, SERVICE) if key.name in {"s3", "s4"})[
        : len(SERVICES)
    ]
    assert len(edited) == len(SERVICES)
    for service, key in zip(SERVICES, edited, strict=True):
        await replace(running, service, key)

    async def all_scaled() -> bool:
        made = [
            await running.cluster.get(INFERENCE_SERVICE, key.namespace, key.name) for key in edited
        ]
        return all(body["spec"]["predictor"]["minReplicas"] == 3 for body in made)

    await eventually(all_scaled, "what was edited is scaled")
    touched = {Key(INFERENCE_SERVICE.kind, key.namespace, key.name) for key in edited}
    after = await versions(running, *kinds)
    assert {key: version for key, version in after.items() if key not in touched} == {
        key: version for key, version in before.items() if key not in touched
    }
    assert running.observer.violations == []
    for kind in (SERVICE, INFERENCE_SERVICE):

        async def all_heard(kind: Resource = kind) -> bool:
            return await heard(running, kind) == await versions(running, kind)

        await eventually(all_heard, f"the latest of every {kind.kind} is on the bus")
