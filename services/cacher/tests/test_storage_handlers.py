"""Creation under a quota and eviction, on an API server: what it has decides, not the state."""

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from aim_cacher.actions import CreateClaim, EvictCache
from aim_cacher.storage_handlers import Handlers
from aimcontroller.handler import ActionContext, ActionResult
from aimkube import Cluster, Conflict, NotFound
from aimlab.accounts import write_kubeconfig
from aimlab.apiserver import ApiServer
from aimlab.lab import define
from aimschema import labels
from aimschema.quantities import GI
from aimschema.resources import CACHE, CLAIM, POD, SERVICE, TEMPLATE, Key, Resource

CRDS = Path(__file__).parents[3] / "deploy" / "crds"
MARK = "2026-01-01T00:00:00Z"
PLACE = "ml"
pytestmark = pytest.mark.asyncio(loop_scope="module")
Body = dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with ApiServer() as server:
        path = tmp_path_factory.mktemp("api") / "kubeconfig"
        write_kubeconfig(path, server.url)
        connected = await Cluster.connect(str(path))
        try:
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PLACE}}
            crds = [yaml.safe_load(file.read_text()) for file in sorted(CRDS.iterdir())]
            await connected.create(namespace)
            await define(connected, crds)
            yield connected
        finally:
            await connected.close()


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(served: Cluster) -> AsyncIterator[Cluster]:
    """No caches, claims, services, templates and pods."""
    yield served
    for resource in (CACHE, CLAIM, SERVICE, TEMPLATE, POD):
        for item in (await served.list(resource, PLACE)).items:
            name = item["metadata"]["name"]
            unheld: Body = {"metadata": {"finalizers": []}}
            with contextlib.suppress(NotFound):
                await served.merge_patch(resource, PLACE, name, unheld)
                await served.delete(resource, PLACE, name, grace_period_s=0)


async def handle(cluster: Cluster, action: CreateClaim | EvictCache) -> ActionResult:
    context = ActionContext(cluster, never, never, never)  # type: ignore[arg-type]
    return await Handlers()(action, context)


def never(*_: object) -> None:
    raise AssertionError("not called")


def an_object(resource: Resource, name: str, spec: Body, **metadata: Any) -> Body:
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name, "namespace": PLACE, **metadata},
        "spec": spec,
    }


def claim(name: str, size: str, owner: str = "u") -> Body:
    owners = [{"apiVersion": CACHE.api_version, "kind": CACHE.kind, "name": "old", "uid": owner}]
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}}
    return an_object(CLAIM, f"{name}-cache", spec, ownerReferences=owners)


def create(body: Body, limit: int | None = None, cluster: int | None = None) -> CreateClaim:
    return CreateClaim(body, limit, cluster, (PLACE,))


async def exists(cluster: Cluster, resource: Resource, name: str) -> bool:
    try:
        await cluster.get(resource, PLACE, name)
    except NotFound:
        return False
    return True


async def a_cache(cluster: Cluster, **annotations: str) -> Body:
    notes = {labels.ANNOTATION_EVICTING: MARK, **annotations}
    return await cluster.create(
        an_object(CACHE, "old", {"sourceUri": "hf://org/old"}, annotations=notes)
    )


def evict(cache: Body, **changed: Any) -> EvictCache:
    fields: Body = {
        "key": Key(CACHE.kind, PLACE, "old"),
        "uid": cache["metadata"]["uid"],
        "mark": MARK,
        "source": "hf://org/old",
        "templates": frozenset({"t"}),
        "cause": "not used",
    }
    return EvictCache(**(fields | changed))


@pytest.mark.parametrize("scope", ["namespace", "cluster"])
async def test_a_claim_that_the_state_does_not_have_counts(cluster: Cluster, scope: str) -> None:
    cache = await a_cache(cluster)
    await cluster.create(claim("late", "8Gi", cache["metadata"]["uid"]))
    foreign = claim("foreign", "90Gi")
    del foreign["metadata"]["ownerReferences"]
    await cluster.create(foreign)
    own = claim("new", "3Gi", cache["metadata"]["uid"])
    limits = {"limit" if scope == "namespace" else "cluster": 10 * GI}
    full = await handle(cluster, create(own, **limits))
    assert (full.response, full.record, full.requeue_after_s) == (None, None, 5.0)
    assert not await exists(cluster, CLAIM, "new-cache")
    limits = dict.fromkeys(limits, 11 * GI)
    made = await handle(cluster, create(own, **limits))
    assert made.response is not None
    assert made.record is not None
    assert await exists(cluster, CLAIM, "new-cache")


async def test_claims_created_at_once_do_not_exceed_the_quota(cluster: Cluster) -> None:
    cache = await a_cache(cluster)
    handlers, context = Handlers(), ActionContext(cluster, never, never, never)  # type: ignore[arg-type]
    bodies = [claim(f"n{number}", "3Gi", cache["metadata"]["uid"]) for number in range(6)]
    await asyncio.gather(*(handlers(create(body, 10 * GI), context) for body in bodies))
    assert len((await cluster.list(CLAIM, PLACE)).items) == 3


async def test_a_claim_that_exists_is_left_as_it_is(cluster: Cluster) -> None:
    cache = await a_cache(cluster)
    body = claim("new", "3Gi", cache["metadata"]["uid"])
    existing = await cluster.create(copy.deepcopy(body))
    result = await handle(cluster, create(body, 10 * GI))
    assert result.response is None
    assert result.requeue_after_s is not None
    found = await cluster.get(CLAIM, PLACE, "new-cache")
    assert found["metadata"]["resourceVersion"] == existing["metadata"]["resourceVersion"]


async def test_an_unused_cache_is_deleted(cluster: Cluster) -> None:
    result = await handle(cluster, evict(await a_cache(cluster)))
    assert result.record is not None
    assert result.record.detail == "not used"
    assert not await exists(cluster, CACHE, "old")


TEMPLATE_SPEC = {
    "model": "m",
    "metric": "latency",
    "gpusPerReplica": 1,
    "gpuModel": "MI300X",
    "tensorParallelism": 1,
}
MOUNTS = {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "old-cache"}}]}
CONTAINERS = {"containers": [{"name": "c", "image": "i"}]}


def service(**spec: Any) -> Body:
    return an_object(SERVICE, "s", {"model": "m", "templateRef": "t", **spec})


@pytest.mark.parametrize(
    ("user", "status"),
    [
        pytest.param(service(), None, id="a-service"),
        pytest.param(
            service(templateRef="x", cacheModel=False),
            {"resolvedTemplate": "t"},
            id="resolved-template",
        ),
        pytest.param(
            an_object(TEMPLATE, "t", TEMPLATE_SPEC | {"warmCache": True}), None, id="warm-template"
        ),
        pytest.param(
            an_object(TEMPLATE, "new", TEMPLATE_SPEC | {"warmCache": True}),
            {"modelSources": ["hf://org/old"]},
            id="a-template-that-the-state-does-not-have",
        ),
        pytest.param(an_object(POD, "p", CONTAINERS | MOUNTS), None, id="a-pod-without-labels"),
    ],
)
async def test_a_cache_that_is_used_loses_its_mark(
    cluster: Cluster, user: Body, status: Body | None
) -> None:
    cache = await a_cache(cluster)
    await cluster.create(user)
    if status is not None:
        resource = SERVICE if user["kind"] == SERVICE.kind else TEMPLATE
        await cluster.merge_patch(
            resource, PLACE, user["metadata"]["name"], {"status": status}, subresource="status"
        )
    result = await handle(cluster, evict(cache))
    assert result.record is not None
    assert result.record.detail == f"used by {user['kind']} {user['metadata']['name']}"
    found = await cluster.get(CACHE, PLACE, "old")
    assert labels.ANNOTATION_EVICTING not in (found["metadata"].get("annotations") or {})


@pytest.mark.parametrize(
    ("bystander", "status"),
    [
        (service(templateRef="other"), None),
        (service(cacheModel=False), None),
        (an_object(TEMPLATE, "t", TEMPLATE_SPEC), None),
        (an_object(POD, "p", CONTAINERS), None),
    ],
    ids=["another-service", "without-cache", "cold-template", "another-pod"],
)
async def test_others_do_not_keep_a_cache(
    cluster: Cluster, bystander: Body, status: Body | None
) -> None:
    cache = await a_cache(cluster)
    await cluster.create(bystander)
    await handle(cluster, evict(cache))
    assert not await exists(cluster, CACHE, "old")


@pytest.mark.parametrize("changed", [{"mark": "another"}, {"uid": "another"}], ids=["mark", "uid"])
async def test_another_mark_or_object_is_left_alone(cluster: Cluster, changed: Body) -> None:
    cache = await a_cache(cluster)
    result = await handle(cluster, evict(cache, **changed))
    assert (result.record, result.response) == (None, None)
    found = await cluster.get(CACHE, PLACE, "old")
    assert found["metadata"]["resourceVersion"] == cache["metadata"]["resourceVersion"]


async def test_an_annotation_keeps_a_cache(cluster: Cluster) -> None:
    cache = await a_cache(cluster, **{labels.ANNOTATION_EVICT: "never"})
    await handle(cluster, evict(cache))
    assert await exists(cluster, CACHE, "old")


async def test_nothing_is_done_for_a_deleted_cache(cluster: Cluster) -> None:
    cache = await a_cache(cluster)
    await cluster.delete(CACHE, PLACE, "old")
    assert (await handle(cluster, evict(cache))).record is None


async def test_a_version_that_has_changed_is_not_deleted(cluster: Cluster) -> None:
    """What is read before the users are listed is what is deleted."""
    cache = await a_cache(cluster)
    await cluster.merge_patch(CACHE, PLACE, "old", {"metadata": {"annotations": {"a": "b"}}})
    with pytest.raises(Conflict):
        await cluster.delete_version(cache)
    assert await exists(cluster, CACHE, "old")
