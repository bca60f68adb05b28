"""Keys to look at again: once each, one worker a key, at the earliest time asked for."""

import asyncio

import pytest

from aimschema.resources import Key
from aimservice.queue import FIRST_BACKOFF_S, LONGEST_BACKOFF_S, MOST_CAUSES, WorkQueue

A, B = Key("Pod", "ml", "a"), Key("Pod", "ml", "b")
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


async def test_keys_come_in_the_order_they_were_added() -> None:
    queue = WorkQueue()
    for key in (B, A, CLUSTER_WIDE, B):
        queue.add(key)
    assert [(await queue.take())[0] for _ in range(3)] == [B, A, CLUSTER_WIDE]


async def test_a_key_is_with_one_worker_and_comes_again_when_that_is_done() -> None:
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


async def test_a_waiting_worker_is_woken_when_a_key_is_given_back() -> None:
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


async def test_idle_means_nothing_waits_and_nobody_works() -> None:
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
    assert len((await queue.take())[1]) == MOST_CAUSES


@pytest.mark.parametrize("delays_s", [(SOON_S, 60.0), (60.0, SOON_S)], ids=["earlier-first", "later-first"])
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


def scheduled_s(queue: WorkQueue, key: Key) -> float:
    return queue.due_s(key) - now()


async def test_backoff_doubles_with_jitter_up_to_a_bound() -> None:
    for failures in range(1, 40):
        queue = WorkQueue()
        for _ in range(failures - 1):
            queue.failed(A)
        fresh = queue.with_failures_of(A)
        assert fresh.failed(A) == failures
        bound_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (failures - 1))
        assert bound_s / 2 - 0.1 <= scheduled_s(fresh, A) <= bound_s
