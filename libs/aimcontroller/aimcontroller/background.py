"""Work that runs beside the queue and ends with the term of leadership at the latest."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from aimschema.resources import Key

log = structlog.get_logger()


class BackgroundTasks:
    """For one event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def cancel_all(self) -> None:
        """Returns when all have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class BackgroundQueue:
    """Work that a reconcile does not wait for, unless there are `limit` pieces of it already. The
    work of one key is done in order. For one event loop."""

    def __init__(self, limit: int) -> None:
        self._room = asyncio.Semaphore(limit)
        self._tasks = BackgroundTasks()
        self._last: dict[Key, asyncio.Task[None]] = {}

    async def put(self, key: Key, work: Callable[[], Awaitable[object]]) -> None:
        """Returns when the work has begun, or waits for earlier work of its key only."""
        await self._room.acquire()
        task = self._tasks.start(self._run(self._last.get(key), work))
        self._last[key] = task
        task.add_done_callback(lambda _: self._on_end(key, task))
        await asyncio.sleep(0)

    async def wait(self, key: Key) -> None:
        """Until all work of the key has ended."""
        if (task := self._last.get(key)) is not None:
            await asyncio.wait({task})

    async def flush(self) -> None:
        """Until all work has ended."""
        while self._last:
            await asyncio.wait(set(self._last.values()))

    async def cancel_all(self) -> None:
        await self._tasks.cancel_all()

    async def _run(
        self, before: "asyncio.Task[None] | None", work: Callable[[], Awaitable[object]]
    ) -> None:
        if before is not None:
            await asyncio.wait({before})
        try:
            await work()
        except Exception as error:  # (what goes wrong with one must not stop the others)
            log.exception("background-failed", error=repr(error))

    def _on_end(self, key: Key, task: "asyncio.Task[None]") -> None:
        self._room.release()
        if self._last.get(key) is task:
            del self._last[key]
