"""What the downloader reports: its progress, and the result in its pod's termination message.
Pure.

Both are foreign text. Progress comes from the log (`action_handlers`); a result that cannot be
decoded counts as a plain message.
"""

import datetime

import msgspec

from aim_cacher.render import CONTAINER
from aimcontroller.projection import KubeObject, Projection
from aimcontroller.workloads import ended_at, is_over, is_pod_finished, job_state, last_end, pods_of
from aimschema.messages import Progress
from aimschema.resources import Key

PROGRESS = "progress"
"""Topic, of a cache: how far its download is (a Progress)."""
POD_STATUS_GRACE_S = 10.0
"""How long the planner waits for a finished Job's pod: its last state may come after the Job's."""
MISSING_POD_GRACE_S = 120.0
"""The same for a Job that succeeded and has no known pod: the watch of pods backs off for up to
30 s at a time, and without the pod's result the revision is unknown for good."""


class DownloaderResult(msgspec.Struct, frozen=True):
    """The downloader's last line and termination message; all of it may be missing."""

    message: str = ""
    bytes: int | None = None
    revision: str | None = None
    manifest_digest: str | None = None


def read_result(state: Projection, job: KubeObject) -> DownloaderResult:
    """The result of the pod of `job` that ended last. Total."""
    end = last_end(state, job, CONTAINER)
    if end is None:
        return DownloaderResult()
    message = end[1].message
    try:
        return msgspec.json.decode(message, type=DownloaderResult)
    except (msgspec.DecodeError, RecursionError):
        return DownloaderResult(message=message.strip().rsplit("\n", 1)[-1])


def is_result_final(state: Projection, job: KubeObject, now: datetime.datetime) -> bool:
    """Whether the pod of a finished Job has reported its end, or the time for that is over. The
    pod of a Job that succeeded has ended in any case: its event is late."""
    if is_over(state, job, CONTAINER):
        return True
    pods = pods_of(state, job)
    has_succeeded = job_state(job) == "succeeded"
    if has_succeeded and any(not is_pod_finished(pod) and not pod.deleting for pod in pods):
        return False
    finished = ended_at(state, job, CONTAINER)
    grace_s = MISSING_POD_GRACE_S if has_succeeded and not pods else POD_STATUS_GRACE_S
    return finished is None or (now - finished).total_seconds() >= grace_s


def progress_of(state: Projection, cache: Key) -> Progress | None:
    """The last progress of a download; None without one, or while the total is unknown."""
    progress: Progress | None = state.observation(cache, PROGRESS)
    return None if progress is None or not progress.total else progress
