"""Faults of the whole cluster or bus: one after the other, without other activity."""

import asyncio
import contextlib
import datetime
import os
import shutil
import signal
from collections.abc import AsyncIterator

from aim_testing.fault_catalogue.case import Case, Expected, Step
from aim_testing.fault_catalogue.place import KEYS, Place
from aimctl.local.ports import free_ports
from aimlab.crds import bundled_crds
from aimschema import reasons
from aimschema.messages import timestamp
from aimschema.resources import (
    CACHE,
    CONFIG,
    CRD,
    INFERENCE_SERVICE,
    NODE,
    ROUTE,
    SERVICE,
    TEMPLATE,
    Resource,
)

RUNNING = Expected(SERVICE, "s", reasons.READY, reasons.RUNNING)


async def node_cordoned(place: Place) -> None:
    await cordon(place, unschedulable=True)
    await place.config()
    await place.model()
    await place.template()


async def cordon(place: Place, *, unschedulable: bool) -> None:
    [node] = (await place.stack.lab.cluster.list(NODE)).items
    await place.edit(NODE, node["metadata"]["name"], {"spec": {"unschedulable": unschedulable}})


async def node_goes_on(place: Place) -> None:
    os.kill(place.stack.lab.children.running["node"].pid, signal.SIGCONT)


async def cacher_stops(place: Place) -> None:
    await place.config()
    await place.put_source()
    await place.model()
    os.kill(place.stack.services.running[reasons.CACHER].pid, signal.SIGSTOP)
    await place.template()
    await place.service(cacheModel=True)


async def cacher_goes_on(place: Place) -> None:
    os.kill(place.stack.services.running[reasons.CACHER].pid, signal.SIGCONT)


async def node_stops_before_the_runtime(place: Place) -> None:
    await place.config()
    await place.model()
    await place.template()
    await place.until_reported(TEMPLATE, "t", reasons.DISCOVERED, reasons.PROFILES_DISCOVERED)
    os.kill(place.stack.lab.children.running["node"].pid, signal.SIGSTOP)
    await place.service()


def without(kind: Resource) -> Step:
    """The kind's CRD is not installed when a service is made."""

    async def cause(place: Place) -> None:
        await place.stack.lab.cluster.delete(CRD, None, f"{kind.plural}.{kind.group}")
        await place.until_deleted(CRD, f"{kind.plural}.{kind.group}")
        await place.config()
        await place.model()
        await place.template()
        await place.service()

    return cause


def installed(kind: Resource) -> Step:
    async def heal(place: Place) -> None:
        [crd] = [
            crd
            for crd in bundled_crds()
            if crd["metadata"]["name"] == f"{kind.plural}.{kind.group}"
        ]
        await place.stack.lab.cluster.create(crd)

    return heal


@contextlib.asynccontextmanager
async def standing_still(place: Place, *services: str) -> AsyncIterator[None]:
    """The services do nothing for as long as the block lasts."""
    pids = [place.stack.services.running[service].pid for service in services]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def tried_in_vain(place: Place) -> None:
    """Discovery has failed four times and a download five, as their statuses say after the bus
    was wiped; the next try of each is due."""
    store = {
        "endpointUrl": f"http://127.0.0.1:{free_ports(1)[0]}",
        "accessKeyId": {"name": KEYS, "key": "id"},
    }
    await place.config(
        credentials={"s3": [store | {"secretAccessKey": {"name": KEYS, "key": "secret"}}]}
    )
    await place.model("noise")
    await place.template()
    await place.service()
    await place.cache(size="1Gi")
    await place.until_reported(TEMPLATE, "t", reasons.DISCOVERED, reasons.DISCOVERY_FAILED, "try 1")
    await place.until_reported(CACHE, "c", reasons.FILLED, reasons.RETRY_BACKOFF, "try 1")
    await place.no_jobs()
    async with standing_still(place, reasons.DISCOVERY, reasons.CACHER):
        nats = place.stack.nats
        assert nats is not None
        await nats.kill()
        await asyncio.to_thread(shutil.rmtree, nats.store_dir)
        due = timestamp(datetime.datetime.now(datetime.UTC))
        for kind, name, attempts in ((TEMPLATE, "t", 4), (CACHE, "c", 5)):
            status = {"status": {"attempts": attempts, "nextAttemptTime": due}}
            await place.stack.lab.cluster.merge_patch(
                kind, place.name, name, status, subresource="status"
            )
        await nats.start()


async def all_is_well(place: Place) -> None:
    await place.put_source()
    await place.delete(CONFIG, "default")
    await place.config()
    await place.image()
    await place.retry(TEMPLATE, "t")


CASES = (
    Case(
        "cordoned",
        "no node accepts pods",
        node_cordoned,
        (
            Expected(
                TEMPLATE,
                "t",
                reasons.DISCOVERED,
                reasons.AWAITING_DISCOVERY,
                ("cannot be scheduled", "were unschedulable"),
            ),
        ),
        lambda place: cordon(place, unschedulable=False),
        Expected(TEMPLATE, "t", reasons.DISCOVERED, reasons.PROFILES_DISCOVERED),
    ),
    Case(
        "nodeless",
        "no kubelet starts the model server",
        node_stops_before_the_runtime,
        (
            Expected(SERVICE, "s", reasons.RUNTIME_READY, reasons.CREATING_RUNTIME),
            Expected(SERVICE, "s", reasons.FAILURE, reasons.NO_FAILURE),
        ),
        node_goes_on,
        RUNNING,
    ),
    Case(
        "cacherless",
        "the cacher does not run",
        cacher_stops,
        (Expected(SERVICE, "s", reasons.CACHE_READY, reasons.WAITING_FOR_CACHE, ("s3://",)),),
        cacher_goes_on,
        RUNNING,
    ),
    Case(
        "no-kserve",
        "KServe is not installed",
        without(INFERENCE_SERVICE),
        (
            Expected(
                SERVICE, "s", reasons.RUNTIME_READY, reasons.RUNTIME_FAILED, ("install KServe",)
            ),
        ),
        installed(INFERENCE_SERVICE),
        Expected(SERVICE, "s", reasons.RUNTIME_READY, reasons.RUNTIME_READY),
    ),
    Case(
        "no-gateway-api",
        "the Gateway API is not installed",
        without(ROUTE),
        (
            Expected(
                SERVICE,
                "s",
                reasons.ROUTING_READY,
                reasons.ROUTE_FAILED,
                ("install the Gateway API",),
            ),
        ),
        installed(ROUTE),
        Expected(SERVICE, "s", reasons.ROUTING_READY, reasons.CONFIGURING_ROUTE),
    ),
    Case(
        "keeps-failing",
        "discovery and a download keep failing",
        tried_in_vain,
        (
            Expected(TEMPLATE, "t", reasons.DISCOVERED, reasons.DISCOVERY_FAILED, ("try 5",)),
            Expected(
                SERVICE, "s", reasons.RESOLVED, reasons.TEMPLATE_FAILED, ("template t failed",)
            ),
            Expected(CACHE, "c", reasons.FILLED, reasons.DOWNLOAD_FAILED, ("try 6",)),
        ),
        all_is_well,
        Expected(CACHE, "c", reasons.FILLED, reasons.WARM),
    ),
)
