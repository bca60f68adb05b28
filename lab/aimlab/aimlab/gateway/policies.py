"""Entries in `status.parents` of real clusters beside the gateway's: those of a policy controller,
and of a controller that is no longer installed.

A policy controller (such as Kuadrant's) has an entry for the route's own parentRef, with only its
own condition types. A former gateway controller has left a rejection of the parentRef's former
listener, and one of an older generation of the route.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from aimkube import Cluster
from aimlab.controller_loop import Patch, ReconcileResult, control
from aimlab.informer import Informer, Objects
from aimlab.kinds import Body, stamp
from aimschema.resources import ROUTE

POLICY_CONTROLLER = "policies.example.org/controller"
FORMER_CONTROLLER = "example.org/former-gateway-controller"
FORMER_LISTENER = "former"


@asynccontextmanager
async def other_entries(cluster: Cluster) -> AsyncIterator[None]:
    """Keeps the entries on every HTTPRoute for as long as the block lasts."""
    mirror = Informer(cluster, [ROUTE])
    tasks = [asyncio.create_task(mirror.run()), asyncio.create_task(control(cluster, mirror, plan))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


def plan(objects: Objects, now: datetime) -> ReconcileResult:
    return ReconcileResult(
        [
            write
            for route in objects.all(ROUTE)
            if (write := _complete_status(route, now)) is not None
        ]
    )


def _complete_status(route: Body, now: datetime) -> Patch | None:
    """The route with all entries; None if it has them. The list is written whole, without
    overwriting entries of other controllers."""
    metadata = route["metadata"]
    existing = (route.get("status") or {}).get("parents") or []
    theirs = [
        each
        for each in existing
        if each.get("controllerName") not in {POLICY_CONTROLLER, FORMER_CONTROLLER}
    ]
    ours = [
        entry
        for parent in route["spec"].get("parentRefs") or []
        for entry in _entries(parent, metadata["generation"], now)
    ]
    if _without_times(existing) == _without_times([*ours, *theirs]):
        return None
    guard = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
    body = {"metadata": guard, "status": {"parents": [*ours, *theirs]}}
    return Patch(ROUTE, metadata["namespace"], metadata["name"], body, subresource="status")


def _entries(parent: Body, generation: int, now: datetime) -> list[Body]:
    """Before the gateway's own entry, where a reader that takes the first one finds them."""

    def entry(controller: str, parent_ref: Body, type_: str, status: str, observed: int) -> Body:
        found = {
            "type": type_,
            "status": status,
            "reason": "Lab",
            "message": "",
            "lastTransitionTime": stamp(now),
        }
        return {
            "parentRef": parent_ref,
            "controllerName": controller,
            "conditions": [found | {"observedGeneration": observed}],
        }

    return [
        entry(
            POLICY_CONTROLLER, parent, "policies.example.org/AuthPolicyAffected", "True", generation
        ),
        entry(
            FORMER_CONTROLLER,
            parent | {"sectionName": FORMER_LISTENER},
            "Accepted",
            "False",
            generation,
        ),
        entry(FORMER_CONTROLLER, parent, "Accepted", "False", generation - 1),
    ]


def _without_times(entries: list[Body]) -> list[Body]:
    def bare(condition: Body) -> Body:
        return {name: value for name, value in condition.items() if name != "lastTransitionTime"}

    return [
        each | {"conditions": [bare(one) for one in each.get("conditions") or []]}
        for each in entries
    ]
