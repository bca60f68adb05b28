"""How long a plan waits for a better one, by a clock that is moved by hand."""

import pytest

from aimcontroller.holds import LONGEST_S, Holds
from aimschema.resources import CACHE, Key

A, B = Key(CACHE.kind, "ml", "a"), Key(CACHE.kind, "ml", "b")
HOLD_S = 0.05


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def holds(clock: Clock) -> Holds:
    return Holds(clock)


def test_a_plan_that_may_not_wait_goes_at_once(holds: Holds) -> None:
    assert holds.left_s(A, 0.0) == 0.0


def test_a_plan_waits_from_the_first_that_could(holds: Holds, clock: Clock) -> None:
    assert holds.left_s(A, HOLD_S) == pytest.approx(HOLD_S)
    clock.now_s += 0.03
    assert holds.left_s(A, HOLD_S) == pytest.approx(0.02)
    clock.now_s += 0.02
    assert holds.left_s(A, HOLD_S) == 0.0


def test_a_better_plan_ends_the_wait_of_its_key_only(holds: Holds, clock: Clock) -> None:
    holds.left_s(A, HOLD_S)
    holds.left_s(B, HOLD_S)
    clock.now_s += 0.03
    assert holds.left_s(A, 0.0) == 0.0
    assert holds.left_s(A, HOLD_S) == pytest.approx(HOLD_S), "a new wait"
    assert holds.left_s(B, HOLD_S) == pytest.approx(0.02)


def test_after_its_wait_a_key_waits_again(holds: Holds, clock: Clock) -> None:
    holds.left_s(A, HOLD_S)
    clock.now_s += HOLD_S
    assert holds.left_s(A, HOLD_S) == 0.0
    assert holds.left_s(A, HOLD_S) == pytest.approx(HOLD_S)


def test_what_is_released_waits_no_longer(holds: Holds) -> None:
    holds.left_s(A, HOLD_S)
    holds.left_s(B, HOLD_S)
    assert holds.release() == [A, B]
    assert [holds.left_s(key, HOLD_S) for key in (A, B)] == [0.0, 0.0]
    assert holds.release() == []


@pytest.mark.parametrize(
    ("write_s", "waits_s"),
    [(0.001, HOLD_S), (0.005, HOLD_S), (0.03, 0.3), (0.5, LONGEST_S), (60.0, LONGEST_S)],
)
def test_a_plan_waits_longer_while_writes_are_slow(
    holds: Holds, clock: Clock, write_s: float, waits_s: float
) -> None:
    for _ in range(100):
        holds.write_took(write_s)
    assert holds.left_s(A, HOLD_S) == pytest.approx(waits_s, rel=0.01)
    assert holds.left_s(B, 0.0) == 0.0, "what may not wait never does"
    clock.now_s += waits_s
    assert holds.left_s(A, HOLD_S) == 0.0


def test_one_slow_write_among_fast_ones_changes_nothing(holds: Holds) -> None:
    for _ in range(100):
        holds.write_took(0.002)
    holds.write_took(0.02)
    assert holds.left_s(A, HOLD_S) == pytest.approx(HOLD_S)
