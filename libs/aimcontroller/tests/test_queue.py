"""The work queue: each key once, one worker per key, at the earliest requested time."""

import asyncio
import selectors

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimcontroller.queue import (
    FIRST_BACKOFF_S,
    LONGEST_BACKOFF_S,
    MAX_CAUSES,
    MOST_BEFORE_RETRY,
    WorkQueue,
)
from aimschema.resources import Key

A, B = Key("Pod", "ml", "a"), Key("Pod", "ml", "b")
C, ELSEWHERE = Key("Pod", "ml", "c"), Key("Pod", "other", "a")
CLUSTER_WIDE = Key("AIMClusterModel", None, "m")
SOON_S = 0.02


async def nothing_comes(queue: WorkQueue) -> bool:
    try:
        await asyncio.wait_for(queue.take(), timeout=0.01)
    except TimeoutError:
        return True
    return False


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_key_added_twice_comes_once_with_both_causes() -> None:
    queue = WorkQueue()
    queue.add(A, 7)
    queue.add(A, 5)
    queue.add(A)
    assert len(queue) == 1
    assert await queue.take() == (A, (5, 7))
    assert len(queue) == 0


async def test_keys_of_a_namespace_come_in_the_order_they_were_added() -> None:
    queue = WorkQueue()
    for key in (B, A, C, B):
        queue.add(key)
    assert [(await queue.take())[0] for _ in range(3)] == [B, A, C]


async def test_namespaces_take_turns() -> None:
    queue = WorkQueue()
    for key in (B, A, CLUSTER_WIDE, ELSEWHERE, C):
        queue.add(key)
    assert [(await queue.take())[0] for _ in range(5)] == [B, CLUSTER_WIDE, ELSEWHERE, A, C]


async def test_a_key_has_one_worker_and_is_requeued_after_it() -> None:
    queue = WorkQueue()
    queue.add(A, 1)
    await queue.take()
    queue.add(A, 2)
    assert await nothing_comes(queue)
    queue.done(A)
    assert await queue.take() == (A, (2,))


async def test_another_key_does_not_wait_for_a_worker() -> None:
    queue = WorkQueue()
    queue.add(A)
    await queue.take()
    queue.add(B)
    assert (await queue.take())[0] == B


async def test_a_waiting_worker_is_woken_when_a_key_is_done() -> None:
    queue = WorkQueue()
    queue.add(A)
    await queue.take()
    queue.add(A)
    waiting = asyncio.ensure_future(queue.take())
    await asyncio.sleep(0)
    queue.done(A)
    assert (await asyncio.wait_for(waiting, 1))[0] == A


async def test_as_many_workers_as_keys_are_woken() -> None:
    queue = WorkQueue()
    workers = [asyncio.ensure_future(queue.take()) for _ in range(3)]
    await asyncio.sleep(0)
    for key in (A, B, CLUSTER_WIDE):
        queue.add(key)
    async with asyncio.timeout(1):
        assert {(await worker)[0] for worker in workers} == {A, B, CLUSTER_WIDE}


async def test_idle_means_that_no_key_waits_or_runs() -> None:
    queue = WorkQueue()
    assert queue.idle
    queue.add(A)
    await queue.take()
    assert not queue.idle
    queue.done(A)
    assert queue.idle
    assert await nothing_comes(queue)


async def test_causes_are_bounded() -> None:
    queue = WorkQueue()
    for seq in range(1, 1000):
        queue.add(A, seq)
    assert len((await queue.take())[1]) == MAX_CAUSES


@pytest.mark.parametrize(
    "delays_s", [(SOON_S, 60.0), (60.0, SOON_S)], ids=["earlier-first", "later-first"]
)
async def test_of_two_times_the_earlier_counts_once(delays_s: tuple[float, float]) -> None:
    queue = WorkQueue()
    started_s = now()
    for delay_s in delays_s:
        queue.add_after(A, delay_s)
    key, causes = await asyncio.wait_for(queue.take(), 1)
    assert (key, causes) == (A, ())
    assert now() - started_s >= SOON_S
    queue.done(A)
    assert await nothing_comes(queue)


async def test_a_timer_set_while_a_worker_waits_wakes_it_in_time() -> None:
    queue = WorkQueue()
    waiting = asyncio.ensure_future(queue.take())
    await asyncio.sleep(0)
    queue.add_after(A, SOON_S)
    assert (await asyncio.wait_for(waiting, 1))[0] == A


async def test_timers_of_one_moment_do_not_disturb_each_other() -> None:
    queue = WorkQueue()
    for key in (A, B, CLUSTER_WIDE):
        queue.add_after(key, 0.0)
    async with asyncio.timeout(1):
        assert {(await queue.take())[0] for _ in range(3)} == {A, B, CLUSTER_WIDE}


async def test_a_timer_that_fires_while_the_key_is_worked_on_is_kept() -> None:
    queue = WorkQueue()
    queue.add(A)
    await queue.take()
    queue.add_after(A, 0.0)
    assert await nothing_comes(queue)
    queue.done(A)
    assert (await asyncio.wait_for(queue.take(), 1))[0] == A


class Skipping(selectors.DefaultSelector):
    """Never waits: what a loop would have slept is added up."""

    skipped_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.skipped_s += timeout or 0.0
        return super().select(0)


class SkippingLoop(asyncio.SelectorEventLoop):
    """Time passes when there is nothing to do, and takes none."""

    def __init__(self) -> None:
        self.selector = Skipping()
        super().__init__(self.selector)

    def time(self) -> float:
        return super().time() + self.selector.skipped_s


def waits_s(*at_least_s: float, succeeds_before: int = -1) -> list[float]:
    """How long a key that fails again and again is away, failure by failure."""

    async def fail() -> list[float]:
        queue, waited_s = WorkQueue(), []
        for number, least_s in enumerate(at_least_s):
            if number == succeeds_before:
                queue.forget(A)
            failures = queue.add_rate_limited(A, at_least_s=least_s)
            assert (
                failures == number + 1
                if succeeds_before < 0 or number < succeeds_before
                else number + 1 - succeeds_before
            )
            started_s = now()
            await queue.take()
            waited_s.append(now() - started_s)
            queue.done(A)
        return waited_s

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        return runner.run(fail())


def test_backoff_doubles_with_jitter_up_to_a_bound() -> None:
    for failures, waited_s in enumerate(waits_s(*[0.0] * 30)):
        longest_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2**failures)
        assert longest_s / 2 <= waited_s <= longest_s + 0.5


def test_what_the_server_asks_for_is_waited() -> None:
    (waited_s,) = waits_s(30.0)
    assert waited_s == pytest.approx(30.0, abs=0.5)


def test_a_success_resets_the_backoff() -> None:
    waited_s = waits_s(*[0.0] * 8, succeeds_before=7)
    assert waited_s[6] > 10
    assert waited_s[7] <= FIRST_BACKOFF_S + 0.5


def test_failures_of_one_key_are_not_those_of_another() -> None:
    async def fail() -> list[int]:
        queue = WorkQueue()
        return [queue.add_rate_limited(A), queue.add_rate_limited(A), queue.add_rate_limited(B)]

    assert asyncio.run(fail()) == [1, 2, 1]


async def test_a_key_that_failed_comes_back_for_the_same_causes() -> None:
    queue = WorkQueue()
    queue.add_after(A, 0.0, (3, 4))
    queue.add_after(A, 60.0, range(5, 1000))
    assert await queue.take() == (A, tuple(range(3, 3 + MAX_CAUSES)))


async def test_keys_that_failed_come_after_those_that_did_not() -> None:
    queue = WorkQueue()
    queue.add_rate_limited(A, at_least_s=60.0)
    queue.add(A)
    queue.add(B)
    assert [(await queue.take())[0] for _ in range(2)] == [B, A]
    queue.forget(A)
    queue.done(A)
    queue.add(A)
    queue.add(CLUSTER_WIDE)
    assert [(await queue.take())[0] for _ in range(2)] == [A, CLUSTER_WIDE]


MINUTE_S = 60.0
MOST_FIRST_MINUTE = 8
MOST_LATER_MINUTE = 0.5


def test_a_thousand_failing_keys_do_not_delay_a_healthy_one() -> None:
    """At most eight times each in the first minute; every other minute on average once they have
    failed for a quarter of an hour."""
    failing = [Key("ModelCache", "ml", f"c{number}") for number in range(1000)]

    async def storm() -> tuple[list[float], bool]:
        queue = WorkQueue()
        tries: list[float] = []
        for key in failing:
            queue.add(key)
        started_s = now()
        while now() - started_s < 30 * MINUTE_S:
            key, _ = await queue.take()
            tries.append(now() - started_s)
            queue.add_rate_limited(key)
            queue.done(key)
        for key in failing:
            queue.add(key)
        queue.add(A)
        first, _ = await queue.take()
        return tries, first == A

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        tries, healthy_first = runner.run(storm())
    assert len([at for at in tries if at < MINUTE_S]) <= MOST_FIRST_MINUTE * len(failing)
    later = [at for at in tries if at >= 15 * MINUTE_S]
    assert len(later) / 15 <= MOST_LATER_MINUTE * len(failing)
    assert healthy_first


def turns_until(key: Key, busy: dict[str, int], *, failed: bool, failing: frozenset[str]) -> int:
    """How many keys are taken before this one while every other comes again at once; those of
    the namespaces `failing` have failed before."""

    async def take() -> int:
        queue = WorkQueue()
        others = [
            Key("Pod", namespace, str(number))
            for namespace, count in busy.items()
            for number in range(count)
        ]
        for retried in [other for other in others if other.namespace in failing] + (
            [key] if failed else []
        ):
            queue.add_rate_limited(retried, at_least_s=1e9)
        for each in [*others, key]:
            queue.add(each)
        for turn in range(100_000):
            taken, _ = await queue.take()
            if taken == key:
                return turn
            queue.add(taken)
            queue.done(taken)
        raise AssertionError("never taken")

    with asyncio.Runner() as runner:
        return runner.run(take())


BUSY = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(1, 100), min_size=1)
FAILING = st.frozensets(st.sampled_from(["a", "b", "c", "d"]))


@given(BUSY, FAILING)
def test_a_fresh_key_waits_one_turn_of_each_namespace(
    busy: dict[str, int], failing: frozenset[str]
) -> None:
    fresh = len(busy.keys() - failing)
    assert (
        turns_until(A, busy, failed=False, failing=failing)
        <= fresh + fresh // MOST_BEFORE_RETRY + 1
    )


@given(BUSY, FAILING)
def test_a_retry_waits_for_a_bounded_number_of_turns(
    busy: dict[str, int], failing: frozenset[str]
) -> None:
    """However many keys of other namespaces are ready again and again, whether they fail or not."""
    retries = len(busy.keys() & failing)
    assert turns_until(A, busy, failed=True, failing=failing) <= (retries + 1) * (
        MOST_BEFORE_RETRY + 1
    )


def test_busy_keys_of_a_namespace_delay_no_other() -> None:
    assert turns_until(A, {"busy": 100}, failed=False, failing=frozenset()) == 1
    assert turns_until(A, {"busy": 100}, failed=True, failing=frozenset()) == MOST_BEFORE_RETRY
