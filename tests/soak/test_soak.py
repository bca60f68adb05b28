"""The quick form of `make soak`: one round of random operations and faults on real processes."""

from pathlib import Path

import pytest

from aim_testing.soak.cluster import on_laptop
from aim_testing.soak.run import quick

pytestmark = pytest.mark.timeout(300)
SEED = 5


async def test_random_operations_leave_nothing_untrue_or_stuck(tmp_path: Path) -> None:
    async with on_laptop(tmp_path, SEED) as cluster:
        done = await quick(cluster, SEED, print)
    assert done.findings == []
