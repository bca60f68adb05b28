"""Takes what has piled up in a watch at once.

1. Items keep their order, and none is lost: what the stream raises comes after the items before it.
2. While a batch is in work, at most as many items as a batch may have are read ahead.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from aimkube import Deleted, Modified, WatchEvent
from aimschema.resources import Key, key_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _End:
    error: Exception | None = None


async def batch(stream: AsyncIterator[T], most: int) -> AsyncGenerator[list[T], None]:
    """Lists of one to `most` items: those that came since the last list. Close it before the
    stream."""
    arrived: asyncio.Queue[T | _End] = asyncio.Queue(most)
    reader = asyncio.create_task(_read(stream, arrived))
    try:
        while True:
            items: list[T] = []
            item = await arrived.get()
            while not isinstance(item, _End):
                items.append(item)
                if len(items) == most or arrived.empty():
                    break
                item = arrived.get_nowait()
            if items:
                yield items
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
    finally:
        reader.cancel()
        await asyncio.wait([reader])


def independent(changes: Iterable[WatchEvent]) -> Iterator[list[WatchEvent]]:
    """The changes in order, in groups that can be planned from one state: changes of different
    objects, or one list."""
    group: list[WatchEvent] = []
    keys: set[Key] = set()
    for change in changes:
        key = key_of(change.body) if isinstance(change, Modified | Deleted) else None
        if group and (not keys or key is None or key in keys):
            yield group
            group, keys = [], set()
        group.append(change)
        if key is not None:
            keys.add(key)
    if group:
        yield group


async def _read(stream: AsyncIterator[T], arrived: "asyncio.Queue[T | _End]") -> None:
    end = _End()
    try:
        async for item in stream:
            await arrived.put(item)
    except Exception as error:  # (raised where the items are taken)
        end = _End(error)
    await arrived.put(end)
