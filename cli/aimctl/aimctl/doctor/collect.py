"""Reads a cluster and its bus. What does not answer in time is Unknown and hides nothing else."""

import asyncio
import datetime
import os
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from aim_deployer.gpus import load
from aim_deployer.settings import DeployerSettings
from aimbus import BusError, BusStats, read_bus_stats
from aimctl.cluster import cluster_at
from aimctl.connect import connected_bus
from aimctl.doctor.requirements import hosts
from aimctl.doctor.snapshot import LISTED, LISTED_TOO, Access, Body, Checked, Facts, Unknown
from aimctl.manifests import rbac
from aimkube import Cluster, Forbidden, KubeError, NotFound, describe_error
from aimkube.rbac import Grant, list_grants
from aimschema.labels import MANAGED_BY, MANAGED_BY_AIM
from aimschema.names import DEFAULT_CONFIG, SYSTEM_NAMESPACE
from aimschema.reasons import WATCHER
from aimschema.resources import (
    AIM_KINDS,
    CLAIM,
    CONFIG,
    CRD,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    GATEWAY,
    INFERENCE_SERVICE,
    LEASE,
    MODEL,
    NETWORK_POLICY,
    ROUTE,
    SECRET,
    SERVICE_ACCOUNT,
    STORAGE_CLASS,
    Resource,
)

T = TypeVar("T")
WITHIN_S = 10.0
NATS_WITHIN_S = 6.0
REGISTRY_WITHIN_S = 3.0
AT_ONCE = 8
DEFINED = (*AIM_KINDS, INFERENCE_SERVICE, GATEWAY, ROUTE)
ACCOUNTS = "system:serviceaccounts"
SELECTED = {
    DEPLOYMENT.kind: "control-plane=kserve-controller-manager",
    CLAIM.kind: f"{MANAGED_BY}={MANAGED_BY_AIM}",
    ENDPOINT_SLICE.kind: "kubernetes.io/service-name=kubernetes",
}
"""By label: a cluster has too many Deployments and claims to list all."""


async def value_or_unknown(request: Awaitable[T]) -> T | Unknown:
    try:
        async with asyncio.timeout(WITHIN_S):
            return await request
    except TimeoutError:
        return Unknown(f"no answer within {WITHIN_S:g} s")
    except KubeError as error:
        return Unknown(describe_error(error))
    except (BusError, RuntimeError, OSError) as error:
        return Unknown(str(error) or type(error).__name__)


async def gather(kubeconfig: Path | None) -> Facts:
    """Everything that there is to know. Raises ValueError or OSError for a GPU table that cannot
    be read."""
    namespace = os.environ.get("AIM_NAMESPACE", SYSTEM_NAMESPACE)
    bus = asyncio.ensure_future(value_or_unknown(_survey()))
    facts = Facts(
        namespace=namespace,
        now=datetime.datetime.now(datetime.UTC),
        nats_url=os.environ.get("AIM_NATS_URL", ""),
        server=Unknown(""),
        crds={},
        objects={},
        access=Unknown(""),
        bus=Unknown(""),
        gpus=load(DeployerSettings().gpu_table),
        registries={},
    )
    try:
        async with cluster_at(kubeconfig) as cluster:
            facts = replace(facts, server=await value_or_unknown(cluster.version()))
            if not isinstance(facts.server, Unknown):
                facts = await _in_cluster(cluster, facts)
    except RuntimeError as error:
        facts = replace(facts, server=Unknown(str(error)))
    return replace(facts, bus=await bus, now=datetime.datetime.now(datetime.UTC))


async def _survey() -> BusStats:
    async with connected_bus(NATS_WITHIN_S) as bus:
        return await read_bus_stats(bus)


async def _in_cluster(cluster: Cluster, facts: Facts) -> Facts:
    kinds = (*LISTED, *LISTED_TOO)
    access = asyncio.ensure_future(value_or_unknown(_access(cluster, facts.namespace)))
    crds = asyncio.ensure_future(value_or_unknown(_definitions(cluster)))
    lists = await asyncio.gather(
        *(value_or_unknown(_list(cluster, resource, facts.namespace)) for resource in kinds)
    )
    facts = replace(
        facts, objects={resource.kind: found for resource, found in zip(kinds, lists, strict=True)}
    )
    return replace(
        facts, registries=await _registries(facts.of(MODEL)), crds=await crds, access=await access
    )


async def _definitions(cluster: Cluster) -> dict[str, Body | None]:
    async def one(name: str) -> Body | None:
        try:
            return await cluster.get(CRD, None, name)
        except NotFound:
            return None

    names = [f"{resource.plural}.{resource.group}" for resource in DEFINED]
    return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))


async def _list(cluster: Cluster, resource: Resource, namespace: str) -> tuple[Body, ...]:
    """All of a kind, none where it is not installed; of some, those of the control plane or of
    the API server alone."""
    where = namespace if resource in (LEASE, SERVICE_ACCOUNT, NETWORK_POLICY) else None
    where = "default" if resource == ENDPOINT_SLICE else where
    try:
        return tuple(
            (
                await cluster.list(resource, where, label_selector=SELECTED.get(resource.kind, ""))
            ).items
        )
    except NotFound:
        return ()


async def _access(cluster: Cluster, namespace: str) -> Access:
    """Whether each account is granted what deploy/rbac grants it. Raises RuntimeError outside a
    checkout, and KubeError."""
    served = await _served_namespaces(cluster, namespace)
    secrets = await _pull_secrets(cluster, namespace)
    grants = [
        each
        for grant in list_grants(rbac())
        for each in needed_grants(replace_namespace(grant, namespace), served, secrets)
    ]
    service_accounts = await value_or_unknown(_list(cluster, SERVICE_ACCOUNT, namespace))
    names = (
        {grant.account for grant in grants}
        if isinstance(service_accounts, Unknown)
        else {body["metadata"]["name"] for body in service_accounts}
    )
    try:
        accounts: tuple[Checked, ...] | Unknown = await _reviews(
            cluster, [grant for grant in grants if grant.account in names], namespace
        )
    except Forbidden as error:
        accounts = Unknown(describe_error(error))
    if accounts and not isinstance(accounts, Unknown):
        return Access(accounts)
    return Access(
        accounts,
        await _reviews(
            cluster, list(dict.fromkeys(grant._replace(account="") for grant in grants)), namespace
        ),
    )


async def _served_namespaces(cluster: Cluster, namespace: str) -> list[str]:
    """The chart value `namespaces`, as the watcher has it; none: all namespaces are served."""
    try:
        body = await cluster.get(DEPLOYMENT, namespace, f"aim-{WATCHER}")
    except (NotFound, Forbidden):
        return []
    names = [
        str(variable.get("value", ""))
        for container in body["spec"]["template"]["spec"]["containers"]
        for variable in container.get("env") or ()
        if variable["name"] == "AIM_NAMESPACES"
    ]
    return [name.strip() for text in names for name in text.split(",") if name.strip()]


async def _pull_secrets(cluster: Cluster, namespace: str) -> tuple[str, ...]:
    """Of the catalogue."""
    try:
        body = await cluster.get(CONFIG, namespace, DEFAULT_CONFIG)
    except (NotFound, Forbidden):
        return ()
    return tuple((body["spec"].get("images") or {}).get("imagePullSecrets") or ())


def needed_grants(grant: Grant, served: Sequence[str], secrets: tuple[str, ...]) -> list[Grant]:
    """What is needed of a grant of deploy/rbac where these namespaces are served (none: all) and
    the catalogue has these pull Secrets."""
    if grant.resource == SECRET.plural:
        return [grant._replace(names=secrets)] if secrets else []
    across = {resource.plural for resource in (MODEL, GATEWAY, STORAGE_CLASS)}
    if grant.namespace or not served or grant.resource.partition("/")[0] in across:
        return [grant]
    return [grant._replace(namespace=name) for name in served]


def replace_namespace(grant: Grant, namespace: str) -> Grant:
    """As with AIM_NAMESPACE: deploy/rbac has the usual one."""
    return grant._replace(namespace=namespace) if grant.namespace else grant


async def _reviews(
    cluster: Cluster, grants: Iterable[Grant], namespace: str
) -> tuple[Checked, ...]:
    """A review for each grant: of its account, or without one of who asks."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def review(grant: Grant) -> Checked:
        answers = []
        for body in _review_bodies(grant, namespace):
            kind = body["kind"]
            where = Resource(
                kind, "authorization.k8s.io", "v1", f"{kind.lower()}s", namespaced=False
            )
            async with turns:
                answers.append(await cluster.create(body, resource=where))
        return Checked(grant, all(answer["status"]["allowed"] for answer in answers))

    return tuple(await asyncio.gather(*map(review, grants)))


def _review_bodies(grant: Grant, namespace: str) -> Iterator[dict[str, Any]]:
    """One for each name that the grant is limited to."""
    resource, _, subresource = grant.resource.partition("/")
    reviewed = {
        "verb": grant.verb,
        "group": grant.group,
        "resource": resource,
        "subresource": subresource,
        "namespace": grant.namespace,
    }
    account = {
        "user": f"system:serviceaccount:{namespace}:{grant.account}",
        "groups": [ACCOUNTS, f"{ACCOUNTS}:{namespace}", "system:authenticated"],
    }
    for name in grant.names or ("",):
        attributes = {key: value for key, value in (reviewed | {"name": name}).items() if value}
        yield {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview" if grant.account else "SelfSubjectAccessReview",
            "metadata": {},
            "spec": {"resourceAttributes": attributes} | (account if grant.account else {}),
        }


async def _registries(models: tuple[Body, ...]) -> dict[str, str]:
    """Whether the registries of images answer from here: GET /v2/ gives 200, or 401 where it
    wants to know who asks (OCI distribution spec)."""
    timeout = aiohttp.ClientTimeout(total=REGISTRY_WITHIN_S)

    async def probe(url: str) -> str:
        try:
            async with (
                aiohttp.ClientSession(trust_env=False, timeout=timeout) as client,
                client.get(url) as answer,
            ):
                return "" if answer.status in {200, 401} else f"HTTP {answer.status} at {url}"
        except TimeoutError:
            return f"nothing within {REGISTRY_WITHIN_S:g} s at {url}"
        except (aiohttp.ClientError, OSError) as error:
            return str(error)

    found = hosts(models)
    return dict(zip(found, await asyncio.gather(*map(probe, found.values())), strict=True))
