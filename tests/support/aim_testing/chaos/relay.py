"""A second bus behind the first, on which the watcher's messages come twice, late, in another
order, and older versions once more after newer ones.

What is kept: the last message of a subject is the newest, and a sync marker comes after everything
it speaks for. That much a stream guarantees.
"""

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator, Coroutine

import nats
import nats.errors
from nats.aio.client import Client

import aimbus
from aimbus.envelope import MSG_ID, headers_for
from aimschema import subjects
from aimschema.messages import KindSynced, Message, encode, subject_of

TWICE = 0.5
OLD_ONE_AGAIN = 0.3
SLOWEST_S = 0.3
LATE = 0.15
LATEST_S = 1.2


class Relay:
    """`sent` counts the messages that went out, more than came in."""

    def __init__(self, rng: random.Random) -> None:
        self.came = 0
        self.sent = 0
        self._rng = rng
        self._lanes: dict[str, asyncio.Queue[Message]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, source: aimbus.Bus, target: Client) -> None:
        """Until cancelled."""
        try:
            async for item in aimbus.follow(
                source, [f"{subjects.OBJECT}.>", f"{subjects.SYNCED}.>"]
            ):
                if isinstance(item, aimbus.Event):
                    self.came += 1
                    self._take(item.subject, item.message, target)
        finally:
            for task in self._tasks:
                task.cancel()

    def _take(self, subject: str, message: Message, target: Client) -> None:
        if isinstance(message, KindSynced):
            before = [
                lane
                for name, lane in self._lanes.items()
                if subjects.parse(name).kind == message.kind
            ]
            self._start(self._after(before, message, target))
            return
        if subject not in self._lanes:
            self._lanes[subject] = asyncio.Queue()
            self._start(self._work(self._lanes[subject], target))
        self._lanes[subject].put_nowait(message)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _after(
        self, lanes: list[asyncio.Queue[Message]], marker: Message, target: Client
    ) -> None:
        for lane in lanes:
            await lane.join()
        await self._send(marker, target)

    async def _work(self, lane: asyncio.Queue[Message], target: Client) -> None:
        """One subject, in order, except that what has been sent may be sent again before the
        newest."""
        before: list[Message] = []
        while True:
            message = await lane.get()
            await asyncio.sleep(
                self._rng.uniform(0.0, LATEST_S if self._rng.random() < LATE else SLOWEST_S)
            )
            for again in self._mangled(before, message):
                await self._send(again, target)
            before.append(message)
            lane.task_done()

    def _mangled(self, before: list[Message], message: Message) -> list[Message]:
        sent = [message]
        if self._rng.random() < TWICE:
            sent.append(message)
        if before and self._rng.random() < OLD_ONE_AGAIN:
            sent += [self._rng.choice(before), message]
        return sent

    async def _send(self, message: Message, target: Client) -> None:
        headers = headers_for(message, source="aim-watcher") | {
            MSG_ID: uuid.uuid4().hex
        }  # (the stream would drop a repetition)
        while (
            True
        ):  # (a message that the relay itself lost would be no fault of the control plane's)
            with contextlib.suppress(nats.errors.Error):
                await target.jetstream().publish(
                    subject_of(message), encode(message), headers=headers
                )
                self.sent += 1
                return


@contextlib.asynccontextmanager
async def relaying(source_url: str, target_url: str, rng: random.Random) -> AsyncIterator[Relay]:
    """Runs for as long as the block lasts; the target's streams are made."""
    source = await aimbus.connect(source_url, name="relay")
    target_bus = await aimbus.connect(target_url, name="relay")
    target = await nats.connect(target_url)
    try:
        await aimbus.ensure_streams(target_bus)
        relay = Relay(rng)
        task = asyncio.create_task(relay.run(source, target))
        try:
            yield relay
        finally:
            task.cancel()
            await asyncio.wait([task])
    finally:
        await target.close()
        await target_bus.close()
        await source.close()
