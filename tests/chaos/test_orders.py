"""State, plans and outcome do not depend on the order of events, on duplicates, or on kills."""

import datetime
from collections.abc import Iterable
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aim_testing.chaos.chance import chance
from aim_testing.chaos.history import Disturbance, History
from aim_testing.chaos.outcome import State, all_running, differences, wrong_runs
from aim_testing.chaos.sim import START, services
from aimcontroller.component import Component
from aimcontroller.plan import Plan
from aimcontroller.projection import Projection, fold
from aimschema.messages import Message

LATER = START + datetime.timedelta(minutes=2)
LAST_STEP = 1500
EVERY_SERVICE = st.sampled_from(services())
quickly = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
Published = tuple[int, Message]


@cache
def undisturbed() -> State:
    state = History(None).run()
    assert all_running(state)
    return state


@cache
def everything_published() -> tuple[Published, ...]:
    """All that was published while the fleet came up: objects by the watcher, reports by the
    services."""
    history = History(None)
    history.run()
    return tuple(history.bus.published)


def folded(messages: Iterable[Published]) -> Projection:
    state = Projection()
    for seq, message in messages:
        state = fold(state, message, seq)
    return state


def plans(service: Component, state: Projection) -> dict[str, Plan]:
    """For every key; actions and reports as they are, without the sequence numbers of who
    brought what."""
    return {
        str(each.key): service.plan(state, each.key, LATER)
        for kind in service.reconciles
        for each in state.in_all_namespaces(kind.kind)
    }


@given(
    service=EVERY_SERVICE,
    cut=st.integers(50, 2500),
    seed=st.integers(0, 10_000),
    twice=st.floats(0, 0.5),
    late=st.integers(0, 80),
)
@quickly
def test_repeated_late_reordered_events_lead_to_the_same_plans(
    service: Component, cut: int, seed: int, twice: float, late: int
) -> None:
    """`late`: by how many places a message may come after its turn, older versions after newer
    ones included."""
    rng = chance(seed)
    heard = list(everything_published()[:cut])
    again = [message for message in heard if rng.random() < twice]
    turns = [(place + rng.uniform(0, late), item) for place, item in enumerate(heard)] + [
        (rng.uniform(0, cut), item) for item in again
    ]
    mangled = [item for _, item in sorted(turns, key=lambda turn: turn[0])]
    assert plans(service, folded(mangled)) == plans(service, folded(heard))


WHATS = ("again", "skip", "kill", "kill-at-work", "reload", "wipe", "time")
disturbances = st.lists(
    st.builds(Disturbance, st.integers(1, LAST_STEP), st.sampled_from(WHATS), st.integers(0, 4)),
    max_size=40,
).map(tuple)


@given(seed=st.integers(0, 1_000_000), disturbed=disturbances)
@settings(quickly, max_examples=30)
def test_any_interleaving_and_crash_lead_to_the_same_end(
    seed: int, disturbed: tuple[Disturbance, ...]
) -> None:
    history = History(chance(seed))
    state = history.run(disturbed)
    assert history.cluster.violations == []
    assert wrong_runs(history.truth.runs) == []
    assert differences(undisturbed(), state) == []


@given(
    seed=st.integers(0, 1_000_000),
    steps=st.lists(st.integers(1, LAST_STEP), min_size=1, max_size=10),
)
@settings(quickly, max_examples=10)
def test_events_a_minute_late_cause_no_second_job_and_no_failure(
    seed: int, steps: list[int]
) -> None:
    """While the clock runs on nothing is delivered, so a Job may have ended a minute before its
    pod is heard of."""
    history = History(chance(seed))
    state = history.run(tuple(Disturbance(step, "lag", 0) for step in steps))
    assert history.cluster.violations == []
    assert wrong_runs(history.truth.runs) == []
    assert all_running(state)


@pytest.mark.parametrize("what", WHATS)
def test_every_disturbance_happens(what: str) -> None:
    """Guards the guards: each of them leads to another sequence of steps than the undisturbed
    run."""
    calm, disturbed = History(chance(1)), History(chance(1))
    calm.run()
    disturbed.run(tuple(Disturbance(step, what, step % 5) for step in range(200, 1400, 40)))
    assert (disturbed.steps, disturbed.bus.seq, disturbed.clock.now) != (
        calm.steps,
        calm.bus.seq,
        calm.clock.now,
    )
