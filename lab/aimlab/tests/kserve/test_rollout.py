"""Pods are replaced by the strategy, never more than it allows."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimlab.rollout import Replica, Rollout, Strategy, decide, strategy_of

ONE_AT_A_TIME = Strategy(surge=0, unavailable=1)
ONE_MORE = Strategy(surge=1, unavailable=0)
RECREATE = Strategy(surge=0, unavailable=0, recreate=True)


def new(number: int, **state: bool) -> Replica:
    return Replica(f"new-{number}", "new", number, **state)


def old(number: int, **state: bool) -> Replica:
    return Replica(f"old-{number}", "old", number, **state)


@pytest.mark.parametrize(
    ("replicas", "pods", "step"),
    [
        pytest.param(2, [], Rollout(create=(0, 1)), id="from-nothing"),
        pytest.param(2, [new(0), new(1)], Rollout(), id="waiting-to-be-ready"),
        pytest.param(2, [new(0, ready=True), new(1, ready=True)], Rollout(), id="done"),
        pytest.param(
            3,
            [old(0, ready=True), old(1, ready=True), old(2, ready=True)],
            Rollout(delete=("old-0",), create=(0,)),
            id="first-of-three",
        ),
        pytest.param(2, [old(0, ready=True), new(0)], Rollout(), id="wait-for-the-new-one"),
        pytest.param(
            2,
            [old(0, ready=True), new(0, ready=True)],
            Rollout(delete=("old-0",), create=(1,)),
            id="then-the-next",
        ),
        pytest.param(
            1, [old(0, ready=True)], Rollout(delete=("old-0",), create=(0,)), id="a-single-one"
        ),
        pytest.param(
            2,
            [old(0), old(1, ready=True)],
            Rollout(delete=("old-0",), create=(0,)),
            id="broken-old-ones-first",
        ),
        pytest.param(
            2,
            [old(0, going=True), old(1, ready=True)],
            Rollout(create=(0,)),
            id="one-on-its-way-out",
        ),
        pytest.param(
            1, [new(0, ready=True), new(1, ready=True)], Rollout(delete=("new-1",)), id="scale-down"
        ),
        pytest.param(
            1,
            [new(0), new(1, ready=True)],
            Rollout(delete=("new-0",)),
            id="scale-down-keeps-the-ready",
        ),
        pytest.param(
            0, [new(0, ready=True), old(0)], Rollout(delete=("new-0", "old-0")), id="stop"
        ),
        pytest.param(
            1, [new(0, going=True)], Rollout(create=(1,)), id="a-name-in-use-is-not-taken"
        ),
        pytest.param(
            1, [new(0, over=True)], Rollout(create=(1,)), id="an-evicted-pod-is-replaced-and-stays"
        ),
    ],
)
def test_the_next_step(replicas: int, pods: list[Replica], step: Rollout) -> None:
    assert decide("new", ONE_AT_A_TIME, replicas, pods) == step


@pytest.mark.parametrize(
    ("strategy", "pods", "step"),
    [
        pytest.param(ONE_MORE, [old(0, ready=True)], Rollout(create=(0,)), id="the-new-one-first"),
        pytest.param(ONE_MORE, [old(0, ready=True), new(0)], Rollout(), id="until-it-is-ready"),
        pytest.param(
            ONE_MORE,
            [old(0, ready=True), new(0, ready=True)],
            Rollout(delete=("old-0",)),
            id="then-the-old-one-goes",
        ),
        pytest.param(
            ONE_MORE, [old(0)], Rollout(create=(0,)), id="a-broken-one-is-kept-until-then"
        ),
        pytest.param(
            RECREATE, [old(0, ready=True)], Rollout(delete=("old-0",)), id="recreate-deletes-first"
        ),
        pytest.param(
            RECREATE,
            [old(0, ready=True, going=True)],
            Rollout(),
            id="and-waits-until-it-is-deleted",
        ),
        pytest.param(RECREATE, [], Rollout(create=(0,)), id="then-makes-the-new-one"),
        pytest.param(RECREATE, [new(0)], Rollout(), id="recreate-done"),
    ],
)
def test_one_pod_is_replaced_by_strategy(
    strategy: Strategy, pods: list[Replica], step: Rollout
) -> None:
    assert decide("new", strategy, 1, pods) == step


@pytest.mark.parametrize(
    ("spec", "strategy"),
    [
        pytest.param({}, Strategy(1, 0), id="the-default-for-one"),
        pytest.param({"replicas": 4}, Strategy(1, 1), id="the-default-for-four"),
        pytest.param({"replicas": 10}, Strategy(3, 2), id="surge-rounds-up-and-unavailable-down"),
        pytest.param(
            {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}},
            ONE_AT_A_TIME,
            id="in-pods",
        ),
        pytest.param(
            {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "25%"}}},
            ONE_AT_A_TIME,
            id="never-none-at-all",
        ),
        pytest.param(
            {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 3}}},
            ONE_AT_A_TIME,
            id="no-more-than-there-are",
        ),
        pytest.param({"strategy": {"type": "Recreate"}}, RECREATE, id="recreate"),
    ],
)
def test_a_strategy_is_counted_in_pods(spec: dict[str, Any], strategy: Strategy) -> None:
    assert strategy_of({"replicas": 1} | spec) == strategy


REPLICAS = st.builds(
    Replica,
    name=st.uuids().map(str),
    revision=st.sampled_from(["new", "old"]),
    number=st.integers(0, 9),
    ready=st.booleans(),
)


STRATEGIES = st.sampled_from([ONE_AT_A_TIME, ONE_MORE, Strategy(2, 2)])


@settings(deadline=None)
@given(
    strategy=STRATEGIES,
    replicas=st.integers(0, 5),
    pods=st.lists(REPLICAS, max_size=6, unique_by=lambda pod: (pod.revision, pod.number)),
)
def test_a_rollout_respects_surge_and_unavailable(
    strategy: Strategy, replicas: int, pods: list[Replica]
) -> None:
    step = decide("new", strategy, replicas, pods)
    left = [pod for pod in pods if pod.name not in step.delete]
    assert not step.create or len(left) + len(step.create) <= replicas + strategy.surge
    ready_before = sum(pod.ready for pod in pods)
    assert sum(pod.ready for pod in left) >= min(ready_before, replicas - strategy.unavailable)
