"""Following download logs: each line of progress goes out live, and into the projection at most every `STATUS_EVERY_S`.

One follower a pod. Losing one costs nothing but progress: what counts is read off the Job and its pod.
"""

import asyncio
import time
from collections.abc import Sequence

import msgspec
import structlog

from aim_cacher.metrics import DOWNLOAD_BYTES
from aim_cacher.plan import PROGRESS
from aimkube import KubeError
from aimschema.messages import Progress
from aimschema.resources import Key
from aimservice.loop import Loop
from aimservice.passes import apart
from aimservice.plan import Action, FollowLog
from aimservice.projection import Learned

STATUS_EVERY_S = 10.0
DOWNLOADING = "downloading"
"""The downloader's word for the phase in which bytes come; in the other, `verifying`, all of them are there."""
log = structlog.get_logger()


class Line(msgspec.Struct, frozen=True, tag_field="event", tag="progress"):
    """A line of progress as the downloader prints it; rate in bytes per second."""

    phase: str
    bytes: int
    total: int
    rate: float = 0.0
    seconds_left: float | None = None
    file: str = ""


class Followers:
    """The handler of FollowLog actions."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[None]] = {}

    async def __call__(self, loop: Loop, action: Action, _about: Key, causes: Sequence[int]) -> None:
        assert isinstance(action, FollowLog), action
        if action.uid not in self._running:
            loop.fold(Learned(action.about, PROGRESS, None))
            with apart():
                task = self._running[action.uid] = loop.start(self._follow(loop, action, causes))
            task.add_done_callback(lambda _: self._running.pop(action.uid, None))

    async def _follow(self, loop: Loop, action: FollowLog, causes: Sequence[int]) -> None:
        told_s, had_bytes = float("-inf"), 0
        try:
            async for raw in loop.cluster.follow_log(action.pod.namespace or "", action.pod.name, action.container):
                progress = parse(raw, action.about)
                if progress is None:
                    continue
                has_bytes = progress.bytes if progress.phase == DOWNLOADING else progress.total
                DOWNLOAD_BYTES.inc(max(0, has_bytes - had_bytes))
                had_bytes = max(had_bytes, has_bytes)
                await loop.bus.publisher.publish_live(progress)
                if time.monotonic() - told_s >= STATUS_EVERY_S:
                    told_s = time.monotonic()
                    loop.learn(Learned(action.about, PROGRESS, progress), action.about, causes)
        except KubeError as error:
            log.info("log-lost", pod=str(action.pod), error=str(error))


def parse(raw: bytes, about: Key) -> Progress | None:
    """A line of the log as progress of a cache; None for any other line."""
    try:
        line = msgspec.json.decode(raw, type=Line)
    except msgspec.DecodeError:
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
