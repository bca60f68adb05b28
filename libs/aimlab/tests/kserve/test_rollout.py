"""Pods are replaced one at a time, and never more than asked for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimlab.rollout import Replica, Rollout, decide


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
        pytest.param(3, [old(0, ready=True), old(1, ready=True), old(2, ready=True)], Rollout(delete=("old-0",), create=(0,)), id="first-of-three"),
        pytest.param(2, [old(0, ready=True), new(0)], Rollout(), id="wait-for-the-new-one"),
        pytest.param(2, [old(0, ready=True), new(0, ready=True)], Rollout(delete=("old-0",), create=(1,)), id="then-the-next"),
        pytest.param(1, [old(0, ready=True)], Rollout(delete=("old-0",), create=(0,)), id="a-single-one"),
        pytest.param(2, [old(0), old(1, ready=True)], Rollout(delete=("old-0",), create=(0,)), id="broken-old-ones-first"),
        pytest.param(2, [old(0, going=True), old(1, ready=True)], Rollout(create=(0,)), id="one-on-its-way-out"),
        pytest.param(1, [new(0, ready=True), new(1, ready=True)], Rollout(delete=("new-1",)), id="scale-down"),
        pytest.param(1, [new(0), new(1, ready=True)], Rollout(delete=("new-0",)), id="scale-down-keeps-the-ready"),
        pytest.param(0, [new(0, ready=True), old(0)], Rollout(delete=("new-0", "old-0")), id="stop"),
        pytest.param(1, [new(0, going=True)], Rollout(create=(1,)), id="a-name-in-use-is-not-taken"),
        pytest.param(1, [new(0, over=True)], Rollout(delete=("new-0",), create=(1,)), id="an-evicted-pod-is-replaced"),
    ],
)
def test_the_next_step(replicas: int, pods: list[Replica], step: Rollout) -> None:
    assert decide("new", replicas, pods) == step


REPLICAS = st.builds(Replica, name=st.uuids().map(str), revision=st.sampled_from(["new", "old"]), number=st.integers(0, 9), ready=st.booleans())


@settings(deadline=None)
@given(replicas=st.integers(0, 5), pods=st.lists(REPLICAS, max_size=6, unique_by=lambda pod: (pod.revision, pod.number)))
def test_never_more_than_asked_for_and_never_a_ready_one_too_few(replicas: int, pods: list[Replica]) -> None:
    step = decide("new", replicas, pods)
    left = [pod for pod in pods if pod.name not in step.delete]
    assert len(left) + len(step.create) >= replicas
    assert not step.create or len(left) + len(step.create) == replicas
    ready_before = sum(pod.ready for pod in pods)
    assert sum(pod.ready for pod in left) >= min(ready_before, replicas - 1)
