"""How long a plan waits for a better one, by a clock that is moved by hand."""

import pytest

from aimcontroller.holds import Holds
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
