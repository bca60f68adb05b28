"""The six services as processes, brought up while things go wrong. One world for all faults, one
seed each; `make chaos` runs more of both.

`aim_testing.chaos.observer` checks the invariants at every write. At the end there are
the same objects as in the undisturbed run, and no Job has run twice.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from aim_testing.chaos.faults import QUICK
from aim_testing.chaos.fleet import SMALL
from aim_testing.chaos.outcome import State
from aim_testing.chaos.world import World, bring_up, clear, world

SEED = 7
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("faults"),
    pytest.mark.timeout(120),
]


@dataclass(frozen=True, slots=True)
class Reference:
    """A world, and what the end should be in it."""

    world: World
    expected: State


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reference(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Reference]:
    async with world(tmp_path_factory.mktemp("world"), SEED) as running:
        expected, outcome = await bring_up(running, SMALL, None, None, SEED)
        assert outcome.problems == ()
        yield Reference(running, expected)


@pytest.mark.parametrize("name", QUICK)
async def test_the_outcome_is_the_same(reference: Reference, name: str) -> None:
    await clear(reference.world)
    _, outcome = await bring_up(
        reference.world,
        SMALL,
        reference.expected,
        QUICK[name].strike,
        SEED,
        over_s=QUICK[name].over_s,
    )
    assert outcome.problems == ()


async def test_a_bus_that_repeats_delays_and_reorders_everything(
    reference: Reference, tmp_path: Path
) -> None:
    async with world(tmp_path, SEED, unruly=True) as unruly:
        _, outcome = await bring_up(unruly, SMALL, reference.expected, None, SEED)
        assert outcome.problems == ()
        assert unruly.relay is not None
        assert unruly.relay.sent > unruly.relay.came
