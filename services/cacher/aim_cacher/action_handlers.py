"""Follow download logs: publish progress live at most every `LIVE_EVERY_S`, and observe it for the
planner at most every `STATUS_EVERY_S`.

1. Each pod has one follower. A lost follower costs only progress: the result comes from the Job and
   its pod.
2. A tenant may control what the pod prints. A line with numbers that no download has is not
   progress.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Annotated

import msgspec
import structlog

from aim_cacher.actions import FollowLog
from aim_cacher.downloader_output import PROGRESS
from aim_cacher.metrics import DOWNLOAD_BYTES
from aimcontroller.action import Action
from aimcontroller.handler import ActionContext, ActionResult
from aimcontroller.projection import Observation
from aimcontroller.reconcile_tracing import detached_span
from aimkube import KubeError
from aimschema.messages import Progress
from aimschema.resources import Key

STATUS_EVERY_S = 10.0
LIVE_EVERY_S = 0.5
MAX_BYTES = 1 << 50
MAX_SECONDS = 1e15
MAX_RATE = 1e15
MAX_TEXT_LENGTH = 4096
DOWNLOADING = "downloading"
"""The downloader's phase in which bytes arrive; in the other phase, `verifying`, all of them have
arrived."""
log = structlog.get_logger()


_Bytes = Annotated[int, msgspec.Meta(ge=0, le=MAX_BYTES)]


class Line(msgspec.Struct, frozen=True, tag_field="event", tag="progress"):
    """A line of progress as the downloader prints it; rate in bytes per second."""

    phase: Annotated[str, msgspec.Meta(max_length=MAX_TEXT_LENGTH)]
    bytes: _Bytes
    total: _Bytes
    rate: Annotated[float, msgspec.Meta(ge=0, le=MAX_RATE)] = 0.0
    seconds_left: Annotated[float, msgspec.Meta(ge=0, le=MAX_SECONDS)] | None = None
    file: Annotated[str, msgspec.Meta(max_length=MAX_TEXT_LENGTH)] = ""


class Followers:
    """The handler of FollowLog actions."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[None]] = {}

    async def __call__(self, action: Action, ctx: ActionContext) -> ActionResult:
        assert isinstance(action, FollowLog), action
        if action.uid in self._running:
            return ActionResult()
        with detached_span():
            task = self._running[action.uid] = ctx.start(self._follow(action, ctx))
        task.add_done_callback(lambda _: self._running.pop(action.uid, None))
        return ActionResult(observations=(Observation(action.about, PROGRESS, None),))

    async def _follow(self, action: FollowLog, ctx: ActionContext) -> ActionResult:
        status = Pace(STATUS_EVERY_S)
        live = Pace(LIVE_EVERY_S)
        counted_bytes = 0
        unpublished: Progress | None = None
        try:
            async for raw in ctx.cluster.follow_log(
                action.pod.namespace or "", action.pod.name, action.container
            ):
                progress = parse(raw, action.about)
                if progress is None:
                    continue
                received_bytes = progress.bytes if progress.phase == DOWNLOADING else progress.total
                DOWNLOAD_BYTES.inc(max(0, received_bytes - counted_bytes))
                counted_bytes = max(counted_bytes, received_bytes)
                unpublished = progress
                if live.is_due(time.monotonic()):
                    unpublished = None
                    await ctx.publish_live(progress)
                if status.is_due(time.monotonic()):
                    ctx.observe(Observation(action.about, PROGRESS, progress))
            if unpublished is not None:
                await ctx.publish_live(unpublished)
        except KubeError as error:
            log.info("log-lost", pod=str(action.pod), error=str(error))
        return ActionResult()


@dataclass
class Pace:
    """A rate limit: one event every `every_s`."""

    every_s: float
    last_s: float = float("-inf")

    def is_due(self, now_s: float) -> bool:
        """Whether the next event may happen at `now_s`; if so, it counts as happened."""
        if now_s - self.last_s < self.every_s:
            return False
        self.last_s = now_s
        return True


def parse(raw: bytes, about: Key) -> Progress | None:
    """Progress of the cache `about`, from a line of the log; None for any other line."""
    try:
        line = msgspec.json.decode(raw, type=Line)
    except (ValueError, RecursionError):
        # Not JSON, another shape, a number out of range; or nested too deep.
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
