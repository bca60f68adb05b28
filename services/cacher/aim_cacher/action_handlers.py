"""Following download logs: progress goes out live at most every `LIVE_EVERY_S`, and into the
projection at most every `STATUS_EVERY_S`.

One follower a pod. Losing one costs nothing but progress: what counts is read off the Job and its
pod. The pod may belong to somebody who prints whatever they like: a line with numbers that no
download has is no progress.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
import structlog

from aim_cacher.metrics import DOWNLOAD_BYTES
from aim_cacher.plan import PROGRESS
from aimcontroller.controller import Loop
from aimcontroller.plan import Action, FollowLog
from aimcontroller.projection import Learned
from aimcontroller.reconcile_tracing import apart
from aimkube import KubeError
from aimschema.messages import Progress
from aimschema.resources import Key

STATUS_EVERY_S = 10.0
LIVE_EVERY_S = 0.5
MOST_BYTES = 1 << 50
MOST_SECONDS = 1e15
MOST_BYTES_A_SECOND = 1e15
LONGEST_TEXT = 4096
DOWNLOADING = "downloading"
"""The downloader's word for the phase in which bytes come; in the other, `verifying`, all of
them are there."""
log = structlog.get_logger()


_Bytes = Annotated[int, msgspec.Meta(ge=0, le=MOST_BYTES)]


class Line(msgspec.Struct, frozen=True, tag_field="event", tag="progress"):
    """A line of progress as the downloader prints it; rate in bytes per second."""

    phase: Annotated[str, msgspec.Meta(max_length=LONGEST_TEXT)]
    bytes: _Bytes
    total: _Bytes
    rate: Annotated[float, msgspec.Meta(ge=0, le=MOST_BYTES_A_SECOND)] = 0.0
    seconds_left: Annotated[float, msgspec.Meta(ge=0, le=MOST_SECONDS)] | None = None
    file: Annotated[str, msgspec.Meta(max_length=LONGEST_TEXT)] = ""


class Followers:
    """The handler of FollowLog actions."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[None]] = {}

    async def __call__(
        self, loop: Loop, action: Action, _about: Key, causes: Sequence[int]
    ) -> None:
        assert isinstance(action, FollowLog), action
        if action.uid not in self._running:
            loop.fold(Learned(action.about, PROGRESS, None))
            with apart():
                task = self._running[action.uid] = loop.start(self._follow(loop, action, causes))
            task.add_done_callback(lambda _: self._running.pop(action.uid, None))

    async def _follow(self, loop: Loop, action: FollowLog, causes: Sequence[int]) -> None:
        status, live = Pace(STATUS_EVERY_S), Pace(LIVE_EVERY_S)
        had_bytes, held_back = 0, None
        try:
            async for raw in loop.cluster.follow_log(
                action.pod.namespace or "", action.pod.name, action.container
            ):
                progress = parse(raw, action.about)
                if progress is None:
                    continue
                has_bytes = progress.bytes if progress.phase == DOWNLOADING else progress.total
                DOWNLOAD_BYTES.inc(max(0, has_bytes - had_bytes))
                had_bytes = max(had_bytes, has_bytes)
                held_back = progress
                if live.is_due(time.monotonic()):
                    held_back = None
                    await loop.bus.publisher.publish_live(progress)
                if status.is_due(time.monotonic()):
                    loop.learn(Learned(action.about, PROGRESS, progress), action.about, causes)
            if held_back is not None:
                await loop.bus.publisher.publish_live(held_back)
        except KubeError as error:
            log.info("log-lost", pod=str(action.pod), error=str(error))


@dataclass
class Pace:
    """Lets something happen at most every `every_s`."""

    every_s: float
    last_s: float = float("-inf")

    def is_due(self, now_s: float) -> bool:
        """Whether it may happen at `now_s`; if so, it does."""
        if now_s - self.last_s < self.every_s:
            return False
        self.last_s = now_s
        return True


def parse(raw: bytes, about: Key) -> Progress | None:
    """A line of the log as progress of a cache; None for any other line."""
    try:
        line = msgspec.json.decode(raw, type=Line)
    except (
        ValueError,
        RecursionError,
    ):  # (no JSON, another shape, numbers out of range; or nested without end)
        return None
    return Progress(
        kind=about.kind,
        namespace=about.namespace,
        name=about.name,
        phase=line.phase,
        bytes=line.bytes,
        total=line.total,
        rate=line.rate,
        seconds_left=line.seconds_left,
        file=line.file,
    )
