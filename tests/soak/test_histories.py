"""Random histories on the simulated cluster: nothing is left that only a person's delete can end,
unless a message asks for it.

Planners, fold and a cluster that is a dict, in one thread. `HYPOTHESIS_PROFILE=search` looks for
new histories.
"""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aim_testing.soak.histories import Did, run

DID = st.builds(Did, seed=st.integers(0, 1 << 30), steps=st.sampled_from([0, 3, 20, 100, 400]))


@given(seed=st.integers(0, 1_000_000), history=st.lists(DID, min_size=1, max_size=8))
@settings(
    deadline=None,
    max_examples=12,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_whatever_users_do_status_is_true_and_repair_works(seed: int, history: list[Did]) -> None:
    assert run(seed, history).findings == []
