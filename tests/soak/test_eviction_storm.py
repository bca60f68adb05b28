"""The quick form of `make eviction-storm`: few models, some simulated minutes."""

import pytest

from aim_testing.soak.eviction_storm import SHORT, run


@pytest.mark.parametrize("seed", [1, 2])
def test_a_storm_evicts_nothing_that_is_used(seed: int) -> None:
    found = run(seed, SHORT, minutes=10)
    assert found.findings == []
    assert found.evicted > 10
