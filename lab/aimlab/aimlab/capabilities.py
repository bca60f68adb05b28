"""What a cluster can do that the laptop cluster must otherwise do itself, or do without. Found
out by trying, with objects that are deleted again."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from aimkube import AlreadyExists, Cluster, Forbidden, Invalid, NotFound
from aimlab.kinds import Body
from aimlab.node import node_object
from aimschema.resources import (
    CONFIG_MAP,
    ENDPOINT_SLICE,
    INFERENCE_SERVICE,
    JOB,
    NODE,
    POD,
    Resource,
)

NAME = "aimlab-tries"
CONTROLLERS_WITHIN_S = 5.0
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Capabilities:
    """`collects`: what has lost its owner is deleted. `runs_jobs`: there is a Job controller,
    and with it those of Deployments and StatefulSets. `loopback_endpoints`: taken in
    EndpointSlices. `schedules`: there is a scheduler. `serves`: there is a KServe.
    """

    collects: bool
    runs_jobs: bool
    loopback_endpoints: bool
    schedules: bool = False
    serves: bool = False


DOUBLE = Capabilities(collects=True, runs_jobs=False, loopback_endpoints=True)


async def probe(cluster: Cluster, namespace: str) -> Capabilities:
    """Probes each in `namespace`; a controller without an effect within 5 s counts as missing.

    Raises RuntimeError if the cluster has nodes: its pods would be started there, and others'
    pods here. Raises KubeError.
    """
    others = [
        node["metadata"]["name"]
        for node in (await cluster.list(NODE)).items
        if node["metadata"]["name"] != node_object.NAME
    ]
    if others:
        raise RuntimeError(
            f"the cluster has nodes of its own ({', '.join(others)}); needed is an API server"
            " without, as envtest's or one of a test"
        )
    collects, runs_jobs, loopback, schedules, serves = await asyncio.gather(
        _collects(cluster, namespace),
        _runs_jobs(cluster, namespace),
        _takes_loopback_endpoints(cluster, namespace),
        _schedules(cluster, namespace),
        _serves(cluster, namespace),
    )
    return Capabilities(
        collects=collects,
        runs_jobs=runs_jobs,
        loopback_endpoints=loopback,
        schedules=schedules,
        serves=serves,
    )


async def _collects(cluster: Cluster, namespace: str) -> bool:
    missing_owner = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "aimlab-missing",
        "uid": str(uuid4()),
    }
    await _make(cluster, CONFIG_MAP, namespace, {"metadata": {"ownerReferences": [missing_owner]}})
    try:
        async with asyncio.timeout(CONTROLLERS_WITHIN_S):
            while True:
                await cluster.get(CONFIG_MAP, namespace, NAME)
                await asyncio.sleep(POLL_S)
    except NotFound:
        return True
    except TimeoutError:
        return False
    finally:
        await _remove(cluster, CONFIG_MAP, namespace)


NO_CONTAINER = {"containers": [{"name": "none", "image": "none"}]}


async def _runs_jobs(cluster: Cluster, namespace: str) -> bool:
    """A Job controller sets the condition Suspended on a suspended Job."""
    pod = {"restartPolicy": "Never"} | NO_CONTAINER
    return await _gets_conditions(
        cluster, JOB, namespace, {"spec": {"suspend": True, "template": {"spec": pod}}}
    )


async def _schedules(cluster: Cluster, namespace: str) -> bool:
    """A scheduler sets PodScheduled to False on a pod that fits on no node."""
    nowhere = {
        "nodeSelector": {"aimlab.local/nowhere": "true"},
        "automountServiceAccountToken": False,
    }
    return await _gets_conditions(cluster, POD, namespace, {"spec": nowhere | NO_CONTAINER})


async def _serves(cluster: Cluster, namespace: str) -> bool:
    """KServe reports on an InferenceService that is to be stopped; one of any version, in a mode
    that needs nothing else."""
    stopped = {
        "labels": {"networking.kserve.io/visibility": "cluster-local"},
        "annotations": {
            "serving.kserve.io/deploymentMode": "RawDeployment",
            "serving.kserve.io/stop": "true",
            "serving.kserve.io/autoscalerClass": "none",
        },
    }
    try:
        return await _gets_conditions(
            cluster,
            INFERENCE_SERVICE,
            namespace,
            {"metadata": stopped, "spec": {"predictor": NO_CONTAINER}},
        )
    except NotFound:
        return False


async def _gets_conditions(
    cluster: Cluster, resource: Resource, namespace: str, body: Body
) -> bool:
    try:
        async with asyncio.timeout(CONTROLLERS_WITHIN_S):
            # Controllers make both conditions true.
            while not await _is_made(cluster, resource, namespace, body):  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
            while not await _has_conditions(cluster, resource, namespace):  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        return False
    else:
        return True
    finally:
        await _remove(cluster, resource, namespace)


async def _takes_loopback_endpoints(cluster: Cluster, namespace: str) -> bool:
    try:
        await _make(
            cluster,
            ENDPOINT_SLICE,
            namespace,
            {
                "addressType": "IPv4",
                "endpoints": [{"addresses": [node_object.ADDRESS]}],
                "ports": [],
            },
        )
    except Invalid:
        return False
    await _remove(cluster, ENDPOINT_SLICE, namespace)
    return True


async def _has_conditions(cluster: Cluster, resource: Resource, namespace: str) -> bool:
    status = (await cluster.get(resource, namespace, NAME)).get("status", {})
    return bool(status.get("conditions"))


async def _is_made(cluster: Cluster, resource: Resource, namespace: str, body: Body) -> bool:
    """A new namespace is without its `default` service account for a moment, and pods are
    rejected."""
    try:
        await _make(cluster, resource, namespace, body)
    except Forbidden:
        return False
    return True


async def _make(cluster: Cluster, resource: Resource, namespace: str, body: Body) -> None:
    metadata = {"name": NAME, "namespace": namespace} | body.get("metadata", {})
    with suppress(AlreadyExists):
        await cluster.create(
            {"apiVersion": resource.api_version, "kind": resource.kind}
            | body
            | {"metadata": metadata},
            resource=resource,
        )


async def _remove(cluster: Cluster, resource: Resource, namespace: str) -> None:
    with suppress(NotFound):
        await cluster.delete(resource, namespace, NAME)
