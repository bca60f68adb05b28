"""Every fault is told, on the object a person looks at, and heals by itself once its cause is gone.

All cases are brought about beside each other on one laptop cluster, each in a namespace of its own.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from toldlab import caches, services, templates
from toldlab.case import Case, Told
from toldlab.place import Place

from aimctl.stack import Stack, control_plane_on_laptop
from aimschema.resources import NAMESPACE

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
CASES = (*templates.CASES, *caches.CASES, *services.CASES)
AT_ONCE = 8
"""As many services as the laptop's node has GPUs."""


@dataclass(frozen=True, slots=True)
class Result:
    """What went wrong, if anything did, and the seconds until it was told and until it had healed."""

    problem: str
    told_s: float = 0.0
    healed_s: float = 0.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with control_plane_on_laptop(tmp_path_factory.mktemp("told")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def results(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    folder, room = tmp_path_factory.mktemp("files"), asyncio.Semaphore(AT_ONCE)

    async def one(case: Case) -> Result:
        async with room:
            return await bring_about(stack, case, folder)

    return dict(zip([case.name for case in CASES], await asyncio.gather(*map(one, CASES)), strict=True))


async def bring_about(stack: Stack, case: Case, folder: Path) -> Result:
    """A whole case in a namespace of its own, which is gone afterwards."""
    place = Place(stack, case.name, folder)
    await stack.lab.cluster.create({"apiVersion": "v1", "kind": NAMESPACE.kind, "metadata": {"name": case.name}})
    started_s = time.monotonic()
    try:
        await case.cause(place)
        for told in case.told:
            await until(place, told)
        told_s = time.monotonic()
        if case.heal is not None:
            await case.heal(place)
        if case.healed is not None:
            await until(place, case.healed)
    except Exception as error:  # (each case is judged by its own test)
        return Result(repr(error))
    finally:
        await place.leave()
    return Result("", told_s - started_s, time.monotonic() - told_s)


async def until(place: Place, told: Told) -> None:
    await place.told(told.kind, told.name, told.condition, told.reason, *told.words)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_it_is_told_and_heals(results: dict[str, Result], case: Case) -> None:
    assert results[case.name].problem == ""
