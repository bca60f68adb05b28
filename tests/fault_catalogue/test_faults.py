"""Every fault is reported on the affected object, and recovers once its cause is removed."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from aim_testing.fault_catalogue.case import Case
from aim_testing.fault_catalogue.described import PAGE
from aim_testing.fault_catalogue.run import IMPATIENT, TOGETHER, Result, together
from aimlab.cli.environment import control_plane_on_laptop

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(420)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def results(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Result]]:
    async with control_plane_on_laptop(
        tmp_path_factory.mktemp("faults"), settings=IMPATIENT
    ) as stack:
        yield await together(stack, TOGETHER, tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize("case", TOGETHER, ids=lambda case: case.name)
async def test_it_is_reported_and_heals(results: dict[str, Result], case: Case) -> None:
    assert results[case.name].problem == ""


async def test_the_page_shows_what_kubectl_describe_prints(results: dict[str, Result]) -> None:
    """Of an object without other activity; the others are cases, so `make fault-docs` rewrites
    them."""
    conditions, _, _ = results["duplicate-source"].described.partition("Events:")
    assert conditions.startswith("  Conditions:")
    assert conditions in PAGE.read_text()
