"""Least privilege, measured: what the services really asked the API server for, against what
deploy/rbac grants them, both ways.

The world is brought up as in every other test here, then each path that it does not take by itself
is taken for real. `make permission-docs` writes the table into docs/reference/permissions.md. Each
test has a world of its own.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from aim_testing.chaos import fleet
from aim_testing.chaos.fleet import SMALL, an_object, image_of, model_name
from aim_testing.chaos.proxy import Misbehaviour
from aim_testing.chaos.world import QUIET_S, World, bring_up, world
from aimctl.component_registry import SERVICES
from aimctl.manifests import rbac
from aimkube.rbac import list_grants
from aimlab.apiserver.access import ACCOUNT_PREFIX
from aimlab.apiserver.store import Change, CollectionKey
from aimlab.certificates import make_certificate
from aimlab.kinds import RBAC_KINDS, RESOURCE_QUOTA, SECRET, Body, condition_of
from aimlab.testing import eventually
from aimlab.testing.permissions import used_grants
from aimschema import labels, reasons
from aimschema.names import SYSTEM_NAMESPACE
from aimschema.resources import (
    BUDGET,
    CACHE,
    CONFIG,
    EVENT,
    INFERENCE_SERVICE,
    LEASE,
    MODEL,
    NAMESPACE,
    POD,
    ROUTE,
    SERVICE,
    TEMPLATE,
    Resource,
)
from tools.permission_docs import grants_table

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "permissions.md"
SPACE = "ns0"
SEED = 7
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("permissions"),
    pytest.mark.timeout(180),
]


@pytest_asyncio.fixture(loop_scope="module")
async def running(tmp_path: Path) -> AsyncIterator[World]:
    """A world for each test, since one counts the calls that the other has denied."""
    async with world(tmp_path, SEED) as made:
        _, outcome = await bring_up(made, SMALL, None, None, SEED)
        assert outcome.problems == ()
        yield made


def find(running: World, resource: Resource, name: str, namespace: str = SPACE) -> Body | None:
    entry = running.api.cluster.store.collections[resource.group, resource.plural].get(
        namespace if resource.namespaced else "", name
    )
    return None if entry is None else entry.obj


async def until(
    running: World, resource: Resource, name: str, holds: Callable[[Body | None], bool]
) -> None:
    async def check() -> bool:
        return holds(find(running, resource, name))

    await eventually(check, f"{resource.kind} {name}, which is {find(running, resource, name)}")


def has_reason(kind: str, reason: str, fragment: str = "") -> Callable[[Body | None], bool]:
    def holds(body: Body | None) -> bool:
        found = None if body is None else condition_of(body, kind)
        return found is not None and found["reason"] == reason and fragment in found["message"]

    return holds


def is_available(body: Body | None) -> bool:
    return body is not None and body.get("status", {}).get("status") == reasons.AVAILABLE_STATE


def is_deleted(body: Body | None) -> bool:
    return body is None


async def template(running: World, name: str, model: int, **spec: Any) -> None:
    await running.cluster.create(
        an_object(
            TEMPLATE,
            SPACE,
            name,
            {
                "model": model_name(model),
                "metric": "latency",
                "gpuModel": "MI300X",
                "gpusPerReplica": 1,
                "tensorParallelism": 1,
                **spec,
            },
        )
    )


async def a_server_without_watch_lists(running: World) -> None:
    """The watcher lists, in pages."""
    pages = asyncio.create_task(running.proxy.misbehave(Misbehaviour(pages_only=True), 60.0))
    await running.kill(reasons.WATCHER)
    await running.start(reasons.WATCHER)
    await running.ready_one(reasons.WATCHER)
    pages.cancel()


async def a_second_process_of_each_service_stands_by(running: World) -> None:
    """It watches the Lease of the leader."""
    for service in SERVICES:
        env = {
            "AIM_NATS_URL": running.nats.url,
            "AIM_HTTP_PORT": "0",
            "KUBECONFIG": str(running.accounts[f"aim-{service}"]),
        }
        program = str(Path(sys.executable).with_name(f"aim-{service}"))
        await running.services.start(f"{service}-standby", [program], env=env)
    async with asyncio.timeout(60.0):
        while not all(read_by(running, service, LEASE, "watch") for service in SERVICES):  # noqa: ASYNC110 (other processes make it true)
            await asyncio.sleep(0.5)
    for service in SERVICES:
        await running.services.kill(f"{service}-standby")


async def objects_are_read_first(running: World) -> None:
    """Services whose dry run is rejected read what they create, and the statuswriter what its
    write conflicts with."""
    services = (
        reasons.DISCOVERY,
        reasons.CACHER,
        reasons.DEPLOYER,
        reasons.ROUTER,
        reasons.STATUSWRITER,
    )
    for service in services:
        await running.kill(service)
        await running.start(service)
    for service in services:
        await running.ready_one(service)
    await running.cluster.delete(INFERENCE_SERVICE, SPACE, "s1")
    await until(running, INFERENCE_SERVICE, "s1", lambda body: body is not None)


async def routing_is_switched_off_and_on(running: World) -> None:
    """The router removes its route."""
    await running.cluster.merge_patch(
        CONFIG, SPACE, "default", {"spec": {"routing": {"autoCreateRoute": False}}}
    )
    await until(running, ROUTE, "s0", is_deleted)
    await running.cluster.merge_patch(
        CONFIG, SPACE, "default", {"spec": {"routing": {"autoCreateRoute": True}}}
    )
    await until(running, ROUTE, "s0", lambda body: body is not None)


async def a_cache_asks_for_a_class_that_is_not_there(running: World) -> None:
    """The cacher removes a claim that never got a volume, once another class is asked for."""
    spec = {"sourceUri": "hf://org/Misplaced", "size": "1Gi", "storageClassName": "nowhere"}
    await running.cluster.create(an_object(CACHE, SPACE, "misplaced", spec))
    await until(
        running,
        CACHE,
        "misplaced",
        has_reason(reasons.STORAGE_READY, reasons.STORAGE_CLASS_MISSING),
    )
    await running.cluster.merge_patch(
        CACHE, SPACE, "misplaced", {"spec": {"storageClassName": "lab"}}
    )
    await until(running, CACHE, "misplaced", is_available)


async def a_failed_cache_is_no_longer_needed(running: World) -> None:
    """The cacher removes a cache that it made."""
    await running.cluster.create(
        an_object(
            MODEL,
            None,
            "gone",
            {"name": model_name(fleet.MISSING), "image": image_of(fleet.MISSING)},
        )
    )
    await template(running, "gone", fleet.MISSING)
    await running.cluster.create(
        an_object(
            SERVICE, SPACE, "gone", {"model": model_name(fleet.MISSING), "templateRef": "gone"}
        )
    )

    def made() -> list[str]:
        caches = running.api.cluster.store.collections[CACHE.group, CACHE.plural].entries(SPACE)
        return [
            entry.obj["metadata"]["name"]
            for entry in caches
            if entry.obj["spec"]["sourceUri"] == fleet.MISSING_SOURCE
        ]

    async def there_is_one() -> bool:
        return bool(made())

    await eventually(there_is_one, "a cache of the deleted source")
    (name,) = made()
    await until(running, CACHE, name, has_reason(reasons.FILLED, reasons.SOURCE_NOT_FOUND))
    await running.cluster.delete(SERVICE, SPACE, "gone")
    await until(running, CACHE, name, is_deleted)


async def the_news_of_a_pod_never_comes(running: World) -> None:
    """No watch delivers a pod that loses its label: discovery reads it from the API server."""
    stripping: list[asyncio.Task[Body]] = []

    def strip(key: CollectionKey, change: Change) -> None:
        metadata = change.entry.obj["metadata"]
        if (
            key == ("", "pods")
            and change.type == "ADDED"
            and metadata.get("labels", {}).get(labels.LABEL_TEMPLATE) == "unheard"
        ):
            bare = {"metadata": {"labels": {labels.MANAGED_BY: None}}}
            stripping.append(
                asyncio.create_task(running.cluster.merge_patch(POD, SPACE, metadata["name"], bare))
            )

    running.api.cluster.store.observers.append(strip)
    await template(running, "unheard", 0)
    await until(running, TEMPLATE, "unheard", is_available)
    running.api.cluster.store.observers.remove(strip)
    await asyncio.gather(*stripping)


async def a_store_has_a_private_ca(running: World, folder: Path) -> None:
    """The cacher hands certificates on to the Jobs of a cache."""
    authority = await asyncio.to_thread(make_certificate, folder, "authority")
    await running.kill(reasons.CACHER)
    await running.start(reasons.CACHER, AIM_CA_BUNDLE=str(authority.certificate))
    await running.ready_one(reasons.CACHER)
    await running.cluster.create(
        an_object(CACHE, SPACE, "private", {"sourceUri": "hf://org/Private", "size": "1Gi"})
    )
    await until(running, CACHE, "private", is_available)


async def no_pod_is_admitted(running: World) -> None:
    """Discovery and the cacher read the Events of a Job without a pod."""
    quota = an_object(RESOURCE_QUOTA, "crowded", "no-pods", {"hard": {"pods": "0"}})
    await running.cluster.create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "crowded"}},
        resource=NAMESPACE,
    )
    await running.cluster.create(quota, resource=RESOURCE_QUOTA)
    spec = {
        "model": model_name(0),
        "metric": "latency",
        "gpuModel": "MI300X",
        "gpusPerReplica": 1,
        "tensorParallelism": 1,
    }
    await running.cluster.create(an_object(TEMPLATE, "crowded", "t", spec))
    await running.cluster.create(
        an_object(CACHE, "crowded", "c", {"sourceUri": "hf://org/Crowded", "size": "1Gi"})
    )

    async with asyncio.timeout(90.0):
        while not (read_by(running, reasons.DISCOVERY) and read_by(running, reasons.CACHER)):  # noqa: ASYNC110 (other processes make it true)
            await asyncio.sleep(0.5)


def read_by(running: World, service: str, resource: Resource = EVENT, verb: str = "list") -> bool:
    user = f"{ACCOUNT_PREFIX}:{SYSTEM_NAMESPACE}:aim-{service}"
    return any(
        (call.user, call.resource, call.verb) == (user, resource.plural, verb)
        for call in running.api.access.calls
    )


async def a_config_names_a_gateway_that_is_not_there(running: World) -> None:
    """The statuswriter asks for the config before it sends an Event on it."""
    await running.cluster.create(
        an_object(
            CONFIG,
            SPACE,
            "advised",
            {"routing": {"autoCreateRoute": True, "gateway": {"name": "missing"}}},
        )
    )
    async with asyncio.timeout(60.0):
        while not read_by(running, reasons.STATUSWRITER, CONFIG, "get"):  # noqa: ASYNC110 (another process makes it true)
            await asyncio.sleep(0.5)


async def a_model_server_gets_no_pod(running: World) -> None:
    """The deployer reads the Events of its InferenceService."""
    unready = {"type": "Ready", "status": "False", "lastTransitionTime": "2030-01-01T00:00:00Z"}
    await running.cluster.merge_patch(
        INFERENCE_SERVICE, SPACE, "s3", {"status": {"conditions": [unready]}}, subresource="status"
    )
    await running.cluster.delete(POD, SPACE, "s3-predictor-0", grace_period_s=0)
    async with asyncio.timeout(120.0):
        while not read_by(running, reasons.DEPLOYER):  # noqa: ASYNC110 (another process makes it true)
            await asyncio.sleep(0.5)


async def a_service_gets_a_second_replica_and_loses_it(running: World) -> None:
    """The deployer makes a disruption budget, puts it right and deletes it."""
    await running.cluster.merge_patch(SERVICE, SPACE, "s0", {"spec": {"replicas": 2}})
    await until(running, BUDGET, "s0", lambda body: body is not None)
    await running.cluster.merge_patch(BUDGET, SPACE, "s0", {"spec": {"maxUnavailable": 2}})
    await until(
        running, BUDGET, "s0", lambda body: body is not None and body["spec"]["maxUnavailable"] == 1
    )
    await running.cluster.merge_patch(SERVICE, SPACE, "s0", {"spec": {"replicas": 1}})
    await until(running, BUDGET, "s0", is_deleted)


async def a_cache_makes_room_for_another(running: World) -> None:
    """The cacher asks who uses the old one, and lists the claims before it creates one. The mark
    is set back by the minute that services have."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bounded"}}
    await running.cluster.create(namespace, resource=NAMESPACE)
    quota = {"caching": {"quota": "1Gi"}}
    await running.cluster.create(an_object(CONFIG, "bounded", "default", quota))
    old = an_object(CACHE, "bounded", "old", {"sourceUri": "hf://org/Old", "size": "1Gi"})
    old["metadata"]["labels"] = {labels.MANAGED_BY: labels.MANAGED_BY_AIM}
    await running.cluster.create(old)
    await until_in(running, "bounded", "old", is_available)
    new = an_object(CACHE, "bounded", "new", {"sourceUri": "hf://org/New", "size": "1Gi"})
    await running.cluster.create(new)
    await until_in(running, "bounded", "old", is_evicting)
    earlier = {"metadata": {"annotations": {labels.ANNOTATION_EVICTING: "2020-01-01T00:00:00Z"}}}
    await running.cluster.merge_patch(CACHE, "bounded", "old", earlier)
    await until_in(running, "bounded", "old", is_deleted)
    await until_in(running, "bounded", "new", is_available)


def is_evicting(body: Body | None) -> bool:
    return has_reason(reasons.READY, reasons.EVICTING)(body)


async def until_in(
    running: World, namespace: str, name: str, holds: Callable[[Body | None], bool]
) -> None:
    async def check() -> bool:
        return holds(find(running, CACHE, name, namespace))

    await eventually(check, f"ModelCache {name}, which is {find(running, CACHE, name, namespace)}")


async def a_cache_that_is_used_is_marked(running: World) -> None:
    """The deployer removes the mark from the cache of a service that runs."""
    (name,) = [
        entry.obj["metadata"]["name"]
        for entry in running.api.cluster.store.collections[CACHE.group, CACHE.plural].entries(SPACE)
        if entry.obj["spec"]["sourceUri"] == fleet.sources_of(0)[0][0]
    ]
    mark = {"metadata": {"annotations": {labels.ANNOTATION_EVICTING: "2020-01-01T00:00:00Z"}}}
    await running.cluster.merge_patch(CACHE, SPACE, name, mark)

    def is_unmarked(body: Body | None) -> bool:
        annotations = {} if body is None else body["metadata"].get("annotations") or {}
        return body is not None and labels.ANNOTATION_EVICTING not in annotations

    await until(running, CACHE, name, is_unmarked)
    async with asyncio.timeout(60.0):
        while not read_by(running, reasons.DEPLOYER, CACHE, "patch"):  # noqa: ASYNC110 (another process makes it true)
            await asyncio.sleep(0.5)


async def a_registry_wants_credentials(running: World) -> None:
    """Discovery reads them once it inspects images; the other paths take longer than that."""
    metadata = {"name": "registries", "namespace": SYSTEM_NAMESPACE}
    login = {
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": '{"auths": {}}'},
    }
    await running.cluster.create(
        {"apiVersion": SECRET.api_version, "kind": SECRET.kind, "metadata": metadata, **login},
        resource=SECRET,
    )
    await running.cluster.create(
        an_object(
            CONFIG, SYSTEM_NAMESPACE, "default", {"images": {"imagePullSecrets": ["registries"]}}
        )
    )


async def test_granted_permissions_are_exactly_the_used_ones(
    running: World, tmp_path: Path
) -> None:
    await a_server_without_watch_lists(running)
    await a_second_process_of_each_service_stands_by(running)
    cautious = asyncio.create_task(running.proxy.misbehave(Misbehaviour(cautious=True), 150.0))
    await objects_are_read_first(running)
    await a_registry_wants_credentials(running)
    async with asyncio.TaskGroup() as paths:
        paths.create_task(routing_is_switched_off_and_on(running))
        paths.create_task(a_cache_asks_for_a_class_that_is_not_there(running))
        paths.create_task(a_failed_cache_is_no_longer_needed(running))
        paths.create_task(the_news_of_a_pod_never_comes(running))
        paths.create_task(no_pod_is_admitted(running))
        paths.create_task(a_model_server_gets_no_pod(running))
        paths.create_task(a_config_names_a_gateway_that_is_not_there(running))
        paths.create_task(a_cache_makes_room_for_another(running))
        paths.create_task(a_cache_that_is_used_is_marked(running))
        paths.create_task(a_service_gets_a_second_replica_and_loses_it(running))
    await a_store_has_a_private_ca(running, tmp_path)
    cautious.cancel()
    calls = [
        call
        for call in running.api.access.calls
        if call.user.startswith(f"{ACCOUNT_PREFIX}:{SYSTEM_NAMESPACE}:")
    ]
    assert [call for call in calls if not call.granted] == []
    grants = list_grants(rbac())
    needed = used_grants(grants, calls, SYSTEM_NAMESPACE)
    assert [grant for grant in grants if grant not in needed] == []
    table = grants_table(grants, needed)
    print(table)
    head, mark, _ = PAGE.read_text().partition("<!-- written by make permission-docs -->\n\n")
    if os.environ.get("AIM_WRITE_GOLDEN"):
        PAGE.write_text(f"{head}{mark}{table}")
    assert PAGE.read_text() == f"{head}{mark}{table}", (
        "docs/reference/permissions.md is out of date: make permission-docs"
    )


async def test_a_missing_permission_is_reported_and_recovers(
    running: World,
) -> None:
    """Even `create`, of which a real API server says only that something is forbidden."""
    (cluster_role,) = [kind for kind in RBAC_KINDS if kind.kind == "ClusterRole"]
    (role,) = [
        body
        for body in rbac()
        if body["kind"] == "ClusterRole" and body["metadata"]["name"] == "aim-cacher"
    ]
    less = [
        rule | {"verbs": ["get", "patch", "delete"]} if rule["resources"] == ["jobs"] else rule
        for rule in role["rules"]
    ]
    await running.cluster.merge_patch(cluster_role, None, "aim-cacher", {"rules": less})
    await running.cluster.create(
        an_object(CACHE, SPACE, "lacking", {"sourceUri": "hf://org/Lacking", "size": "1Gi"})
    )
    missing = f'cannot create resource "jobs" in API group "batch" in the namespace "{SPACE}"'
    await until(running, CACHE, "lacking", has_reason(reasons.FILLED, reasons.DOWNLOADING, missing))
    await until(
        running, CACHE, "lacking", has_reason(reasons.PROGRESSING, reasons.DOWNLOADING, missing)
    )
    await quiet(running)
    await running.cluster.merge_patch(cluster_role, None, "aim-cacher", {"rules": role["rules"]})
    await until(running, CACHE, "lacking", is_available)


async def quiet(running: World) -> None:
    """Waits until no service writes: later effects are not caused by an event."""
    writes, since_s = running.observer.writes, time.monotonic()

    async def check() -> bool:
        nonlocal writes, since_s
        if running.observer.writes != writes:
            writes, since_s = running.observer.writes, time.monotonic()
        return time.monotonic() - since_s > QUIET_S

    await eventually(check, "quiet")
