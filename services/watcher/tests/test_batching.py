"""Changes of a watch that are published together."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_watcher.batching import batch, independent
from aimkube import Deleted, KindNotServed, Modified, Snapshot, WatchEvent


def pod(name: str) -> dict[str, Any]:
    return {"kind": "Pod", "metadata": {"name": name, "namespace": "ml"}}


A = Modified(pod("a"))
B = Modified(pod("b"))
DELETED = Deleted(pod("a"))
LIST = Snapshot((), "7")
UNSERVED = KindNotServed()
CHANGES = st.lists(st.sampled_from([A, B, DELETED, LIST, UNSERVED]))


@pytest.mark.parametrize(
    ("changes", "groups"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([A, B], [[A, B]], id="different-objects"),
        pytest.param([A, B, A], [[A, B], [A]], id="the-same-object"),
        pytest.param([A, DELETED], [[A], [DELETED]], id="its-deletion"),
        pytest.param([A, LIST, B], [[A], [LIST], [B]], id="a-list"),
        pytest.param([LIST, UNSERVED], [[LIST], [UNSERVED]], id="lists"),
    ],
)
def test_a_group_has_different_objects_or_a_list(
    changes: list[WatchEvent], groups: list[list[WatchEvent]]
) -> None:
    assert list(independent(changes)) == groups


@given(CHANGES)
def test_groups_have_all_changes_in_order(changes: list[WatchEvent]) -> None:
    assert [change for group in independent(changes) for change in group] == changes


async def numbers(count: int, *, more: asyncio.Event | None = None) -> AsyncGenerator[int, None]:
    for number in range(count):
        yield number
    if more is not None:
        await more.wait()
        raise ValueError("torn")


async def test_what_has_piled_up_comes_in_one_batch() -> None:
    more = asyncio.Event()
    async with contextlib.aclosing(batch(numbers(7, more=more), 5)) as batches:
        assert await anext(batches) == [0, 1, 2, 3, 4]
        assert await anext(batches) == [5, 6]
        more.set()
        with pytest.raises(ValueError, match="torn"):
            await anext(batches)


@given(count=st.integers(0, 30), most=st.integers(1, 8))
async def test_no_item_is_lost(count: int, most: int) -> None:
    async with contextlib.aclosing(batch(numbers(count), most)) as batches:
        found = [items async for items in batches]
    assert [item for items in found for item in items] == list(range(count))
    assert all(len(items) <= most for items in found)


async def test_a_closed_batch_leaves_its_stream_to_be_closed() -> None:
    stream = numbers(1, more=asyncio.Event())
    async with contextlib.aclosing(stream), contextlib.aclosing(batch(stream, 5)) as batches:
        assert await anext(batches) == [0]
    assert [item async for item in stream] == []
