"""A Job of a cache has failed: the reason, the message and the time of the next attempt. Pure."""

import datetime

from aim_cacher.downloader_output import DownloaderResult, read_result
from aim_cacher.render import CONTAINER, requested_size
from aim_cacher.reporting import filled_condition, report_cache
from aim_cacher.view import CacheView
from aimcontroller.action import DeleteObject
from aimcontroller.plan import Plan, actions, requeue_after
from aimcontroller.projection import KubeObject
from aimcontroller.workloads import attempt_of, ended_at, failure, last_end, was_oom_killed
from aimschema import quantities, reasons
from aimschema.messages import ReportedCondition, timestamp

FIRST_RETRY_S = 30.0
LONGEST_RETRY_S = 600.0
FAILED_FROM_ATTEMPT = 6
MORE_MEMORY = "raise limits.memory in setting AIM_JOB_RESOURCES of aim-cacher"
FATAL_EXITS = {
    10: reasons.SOURCE_NOT_FOUND,
    11: reasons.AUTH_ERROR,
    12: reasons.INSUFFICIENT_CAPACITY,
    13: reasons.CHECKSUM_MISMATCH,
}
"""Exit codes of the downloader that a retry is unlikely to change."""


def report_failure(
    view: CacheView, storage: ReportedCondition, job: KubeObject, *, outlives_failure: bool
) -> Plan:
    """Report how the attempt ended and when the next is due. Once the object shows it, the Job is
    deleted."""
    attempt = attempt_of(job)
    end = last_end(view.state, job, CONTAINER)
    result = read_result(view.state, job)
    reason, wait_s = classify_exit(None if end is None else end[1].exit_code, attempt)
    ended = ended_at(view.state, job, CONTAINER) or view.now
    due = ended + datetime.timedelta(seconds=wait_s)
    message = failure(view.state, job, CONTAINER, "the downloader", result.message)
    if was_oom_killed(view.state, job, CONTAINER):
        message += f"; {MORE_MEMORY}"
    if reason == reasons.INSUFFICIENT_CAPACITY:
        message += _advise_more_space(view, result)
    failed = filled_condition(
        False, reason, f"try {attempt}: {message}; next try at {timestamp(due)}"
    )
    reported = report_cache(view, storage, failed, attempts=attempt, nextAttemptTime=timestamp(due))
    is_recorded = int(view.cache.status.get("attempts", 0)) == attempt
    if not is_recorded:
        return reported
    if outlives_failure and view.now < due:
        return reported | requeue_after((due - view.now).total_seconds())
    return reported | actions(DeleteObject(job.key, job.uid))


def _advise_more_space(view: CacheView, result: DownloaderResult) -> str:
    """Both sizes, as far as they are known, and what to do."""
    sizes = []
    if result.bytes is not None:
        sizes.append(f"the source has {quantities.human(result.bytes)}")
    if view.claim is not None:
        sizes.append(f"PVC {view.claim.key.name} requests {requested_size(view.claim)}")
    known = f"; {' but '.join(sizes)}" if sizes else ""
    return f"{known}; expand the PVC, or re-create the cache with a larger spec.size"


def classify_exit(exit_code: int | None, attempt: int) -> tuple[str, float]:
    """Reason and seconds to the next attempt after the downloader ended with this code (None: the
    container was killed) at this attempt."""
    if exit_code in FATAL_EXITS:
        return FATAL_EXITS[exit_code], LONGEST_RETRY_S
    if attempt >= FAILED_FROM_ATTEMPT:
        return reasons.DOWNLOAD_FAILED, LONGEST_RETRY_S
    wait_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2 ** min(attempt - 1, 20))
    return reasons.RETRY_BACKOFF, wait_s
