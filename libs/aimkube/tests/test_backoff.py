import pytest

from aimkube import Throttled, backoff


@pytest.mark.parametrize(
    ("failures", "least_s", "most_s"),
    [(1, 0.25, 0.5), (2, 0.5, 1.0), (5, 4.0, 8.0), (7, 15.0, 30.0), (10_000, 15.0, 30.0)],
)
def test_waits_double_up_to_a_limit_and_are_spread(
    failures: int, least_s: float, most_s: float
) -> None:
    waits_s = [backoff.wait_s(failures) for _ in range(50)]
    assert all(least_s <= wait_s <= most_s for wait_s in waits_s)
    assert len(set(waits_s)) > 1


def test_the_server_s_wish_is_honoured_even_above_the_limit() -> None:
    assert 60 <= backoff.wait_s(1, Throttled("later", retry_after_s=60)) <= 75


def test_the_server_s_wish_does_not_shorten_the_wait() -> None:
    assert backoff.wait_s(8, Throttled("later", retry_after_s=1)) >= 15
