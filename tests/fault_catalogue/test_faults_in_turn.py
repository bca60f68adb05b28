"""The same for faults of the whole cluster or bus, one after the other (a separate file, so that
another worker can run it)."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from aim_testing.fault_catalogue.case import Case
from aim_testing.fault_catalogue.run import IN_TURN, Result, in_turn
from aimlab.cli.environment import control_plane_on_laptop

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(420)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def results(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Result]]:
    async with control_plane_on_laptop(tmp_path_factory.mktemp("faults")) as stack:
        yield await in_turn(stack, IN_TURN, tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize("case", IN_TURN, ids=lambda case: case.name)
async def test_it_is_reported_and_heals(results: dict[str, Result], case: Case) -> None:
    assert results[case.name].problem == ""
