"""Work that a reconcile does not wait for."""

import asyncio
import contextlib

import pytest

from aimcontroller.background import BackgroundQueue
from aimschema.resources import CACHE, Key

A, B = Key(CACHE.kind, "ml", "a"), Key(CACHE.kind, "ml", "b")


class Bench:
    """Pieces of work by name, each of which ends when it is stopped."""

    def __init__(self, limit: int) -> None:
        self.queue = BackgroundQueue(limit)
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}

    async def put(self, key: Key, name: str) -> None:
        self.ends[name] = asyncio.Event()

        async def work() -> None:
            self.begun.append(name)
            await self.ends[name].wait()
            self.ended.append(name)

        await self.queue.put(key, work)


@pytest.fixture
def bench() -> Bench:
    return Bench(limit=2)


async def test_work_has_begun_when_put_returns(bench: Bench) -> None:
    await bench.put(A, "one")
    await bench.put(B, "two")
    assert (bench.begun, bench.ended) == (["one", "two"], [])


async def test_the_work_of_a_key_is_done_in_order(bench: Bench) -> None:
    await bench.put(A, "one")
    await bench.put(A, "two")
    assert bench.begun == ["one"]
    bench.ends["two"].set()
    bench.ends["one"].set()
    await bench.queue.wait(A)
    assert bench.ended == ["one", "two"]


async def test_a_full_queue_holds_up_what_comes_next(bench: Bench) -> None:
    await bench.put(A, "one")
    await bench.put(B, "two")
    third = asyncio.ensure_future(bench.put(B, "three"))
    done, _ = await asyncio.wait({third}, timeout=0)
    assert not done
    bench.ends["one"].set()
    await third
    assert bench.begun == ["one", "two"]


async def test_only_the_work_of_a_key_is_waited_for(bench: Bench) -> None:
    await bench.put(A, "one")
    await bench.put(B, "two")
    bench.ends["two"].set()
    await bench.queue.wait(B)
    assert bench.ended == ["two"]
    await bench.queue.wait(Key(CACHE.kind, "ml", "without-work"))


async def test_a_flush_ends_with_the_last_work(bench: Bench) -> None:
    await bench.put(A, "one")
    await bench.put(A, "two")
    for end in bench.ends.values():
        end.set()
    await bench.queue.flush()
    assert bench.ended == ["one", "two"]
    await bench.queue.flush()


async def test_work_that_fails_stops_nothing(bench: Bench) -> None:
    async def fail() -> None:
        raise RuntimeError("unexpected")

    await bench.queue.put(A, fail)
    await bench.put(A, "one")
    bench.ends["one"].set()
    await bench.queue.flush()
    assert bench.ended == ["one"]


async def test_cancelled_work_leaves_room_for_more(bench: Bench) -> None:
    await bench.put(A, "one")
    await bench.put(A, "two")
    await bench.queue.cancel_all()
    await bench.put(B, "three")
    await bench.put(B, "four")
    bench.ends["three"].set()
    bench.ends["four"].set()
    await bench.queue.flush()
    assert bench.ended == ["three", "four"]
    with contextlib.suppress(asyncio.CancelledError):
        await bench.queue.wait(A)
