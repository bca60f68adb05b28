"""Bringing all cases about: beside each other in namespaces of their own, then those that
concern the whole cluster."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aim_testing.fault_catalogue import caches, everywhere, models, services, templates
from aim_testing.fault_catalogue.case import EVENT, Case, Expected
from aim_testing.fault_catalogue.described import DESCRIBED, describe
from aim_testing.fault_catalogue.place import Place
from aimlab.cli.environment import Stack
from aimschema.resources import NAMESPACE

IN_TURN = everywhere.CASES
TOGETHER = (*models.CASES, *templates.CASES, *caches.CASES, *services.CASES)
CASES = (*TOGETHER, *IN_TURN)
IMPATIENT = {"AIM_DISCOVERY_RETRY_S": "10"}
"""Settings for the cases together, of which one waits for discovery's next try."""
AT_ONCE = 8
"""As many services as the laptop's node has GPUs."""


@dataclass(frozen=True, slots=True)
class Result:
    """What went wrong, if anything did, and the seconds from cause to report and from healing
    to health. `described`: what kubectl prints."""

    problem: str
    reported_s: float = 0.0
    healed_s: float = 0.0
    described: str = ""


async def together(stack: Stack, cases: Sequence[Case], folder: Path) -> dict[str, Result]:
    """By name of the case. `folder` takes the files of the cases."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case) -> Result:
        async with room:
            return await bring_about(stack, case, folder)

    return dict(
        zip([case.name for case in cases], await asyncio.gather(*map(one, cases)), strict=True)
    )


async def in_turn(stack: Stack, cases: Sequence[Case], folder: Path) -> dict[str, Result]:
    """The same of cases that concern everything."""
    return {case.name: await bring_about(stack, case, folder) for case in cases}


async def bring_about(stack: Stack, case: Case, folder: Path) -> Result:
    """A whole case in a new namespace, which is deleted afterwards."""
    place = Place(stack, case.name, folder)
    await stack.lab.cluster.create(
        {"apiVersion": "v1", "kind": NAMESPACE.kind, "metadata": {"name": case.name}}
    )
    try:
        await case.cause(place)
        caused_s = time.monotonic()
        for expected in case.expected:
            await _until(place, expected)
        reported_s = time.monotonic()
        described = await describe(place) if case.name in DESCRIBED else ""
        if case.heal is not None:
            await case.heal(place)
        heals_s = time.monotonic()
        if case.healed is not None:
            await _until(place, case.healed)
    except Exception as error:  # (each case is judged by itself)
        return Result(repr(error))
    finally:
        await place.leave()
    return Result("", reported_s - caused_s, time.monotonic() - heals_s, described)


async def _until(place: Place, expected: Expected) -> None:
    if expected.condition == EVENT:
        await place.warned(expected.kind, expected.name, expected.reason, *expected.fragments)
    else:
        await place.until_reported(
            expected.kind, expected.name, expected.condition, expected.reason, *expected.fragments
        )
