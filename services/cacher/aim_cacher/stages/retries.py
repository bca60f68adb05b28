"""Jobs that are attempted until one succeeds: sizing and download. Pure.

1. A Job carries the number of its attempt. The attempt counts once `status.attempts` shows it, and
   only then is the Job deleted.
2. After a failure the next attempt waits, 30 seconds at first and at most ten minutes. Other inputs
   start a new attempt at once, counted from one.
3. A Job that is made from other inputs is replaced unless its pod is running.
"""

import datetime
from collections.abc import Callable
from dataclasses import dataclass

from aim_cacher.actions import FollowLog
from aim_cacher.downloader_output import (
    POD_STATUS_GRACE_S,
    DownloaderResult,
    is_result_final,
    read_result,
)
from aim_cacher.render import CONTAINER, Body, ca_config_map, requested_size
from aim_cacher.reporting import filled_condition, last_filled, percent, report_cache, with_removal
from aim_cacher.stages.eligibility import delete_objects
from aim_cacher.view import CacheView
from aimcontroller.action import ApplyObject, DeleteObject
from aimcontroller.plan import Plan, actions, requeue_after
from aimcontroller.projection import KubeObject
from aimcontroller.workloads import (
    attempt_of,
    diagnose_job,
    ended_at,
    failure,
    gated_left_s,
    has_not_started,
    is_running,
    last_end,
    outcome,
    pods_of,
    was_oom_killed,
)
from aimschema import labels, quantities, reasons
from aimschema.messages import ReportedCondition, timestamp
from aimschema.resources import CONFIG_MAP, JOB

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


@dataclass(frozen=True)
class RetryableJob:
    """A Job to attempt until it succeeds.

    `existing`: the Job of the current attempt. `inputs`: what a new Job is made from. `render`: the
    Job of the n-th attempt. `working`: Filled while an attempt is active. `outlives_failure`: a
    failed Job is deleted only when the next attempt is due, since no other object records its
    inputs.
    """

    existing: KubeObject | None
    inputs: str
    render: Callable[[int], Body]
    working: ReportedCondition
    outlives_failure: bool = False


@dataclass(frozen=True, slots=True)
class AttemptView:
    """The existing Job of an attempt. `gated_s`: seconds until the deadline of a Job whose pods a
    scheduling gate holds back; None for any other."""

    cache: CacheView
    task: RetryableJob
    job: KubeObject
    is_active: bool
    gated_s: float | None

    @classmethod
    def build(cls, cache: CacheView, task: RetryableJob, job: KubeObject) -> "AttemptView":
        is_active = outcome(cache.state, job, CONTAINER) == "active"
        gated_s = gated_left_s(cache.state, job, cache.now) if is_active else None
        return cls(cache, task, job, is_active, gated_s)

    @property
    def is_at_deadline(self) -> bool:
        return self.gated_s is not None and self.gated_s <= 0

    @property
    def is_replaceable(self) -> bool:
        """It has other inputs, and no pod of it runs."""
        if self.job.annotations.get(labels.ANNOTATION_INPUTS) == self.task.inputs:
            return False
        return not self.is_active or has_not_started(self.cache.state, self.job, self.cache.now)

    @property
    def is_final(self) -> bool:
        """The pod has reported how it ended, or the time for that is over."""
        return is_result_final(self.cache.state, self.job, self.cache.now)


def plan_attempt(view: CacheView, storage: ReportedCondition, task: RetryableJob) -> Plan:
    """The next step of a Job. A Job that succeeded with a usable result is the caller's."""
    if task.existing is None:
        return _start_when_due(view, storage, task)
    attempt = AttemptView.build(view, task, task.existing)
    return _plan_existing(attempt, storage)


def _plan_existing(attempt: AttemptView, storage: ReportedCondition) -> Plan:
    """First match wins."""
    view = attempt.cache
    task = attempt.task
    job = attempt.job
    last = last_filled(view) or task.working
    match attempt:
        case AttemptView(job=KubeObject(deleting=True)):
            return report_cache(view, storage, with_removal(last, job))
        case AttemptView(is_at_deadline=True):
            return delete_objects(job) | report_cache(view, storage, last)
        case AttemptView(is_replaceable=True):
            return delete_objects(job) | report_cache(
                view, storage, task.working, attempts=0, nextAttemptTime=None
            )
        case AttemptView(is_active=True, gated_s=None):
            return _follow(view, storage, task, job)
        case AttemptView(is_active=True, gated_s=float() as gated_s):
            return _follow(view, storage, task, job) | requeue_after(gated_s)
        case AttemptView(is_final=False):
            return report_cache(view, storage, last) | requeue_after(POD_STATUS_GRACE_S)
        case _:
            return _fail(view, storage, task, job)


def _start_when_due(view: CacheView, storage: ReportedCondition, task: RetryableJob) -> Plan:
    if view.config_missing is not None:
        missing = filled_condition(False, reasons.RUNTIME_CONFIG_MISSING, view.config_missing)
        return report_cache(view, storage, missing)
    due = view.next_attempt
    if due is not None and view.now < due:
        waiting = report_cache(view, storage, last_filled(view) or task.working)
        return waiting | requeue_after((due - view.now).total_seconds())
    starts = actions(*_mounted_objects(view), ApplyObject(task.render(view.attempts + 1)))
    working = _cannot_start(view, task.working) or task.working
    return starts | report_cache(
        view, storage, working, attempts=view.attempts, nextAttemptTime=None
    )


def _mounted_objects(view: CacheView) -> tuple[ApplyObject, ...]:
    """What the pods of the Jobs mount besides the claim."""
    ca = view.options.ca
    return (ApplyObject(ca_config_map(view.cache, ca)),) if ca else ()


def _cannot_start(view: CacheView, working: ReportedCondition) -> ReportedCondition | None:
    """The API server rejects the Job, or what it mounts; None otherwise."""
    rejection = view.rejection
    if rejection is None or rejection.target.kind not in {JOB.kind, CONFIG_MAP.kind}:
        return None
    target = (
        "the Job"
        if rejection.target.kind == JOB.kind
        else f"ConfigMap {rejection.target.name} for the Job"
    )
    return filled_condition(
        False,
        rejection.reason(working.reason),
        f"{target} cannot be created: {rejection.message}",
    )


def _follow(
    view: CacheView, storage: ReportedCondition, task: RetryableJob, job: KubeObject
) -> Plan:
    """Report the progress of an active Job, or why its pod does not run."""
    followed = [
        FollowLog(pod.key, pod.uid, CONTAINER, view.cache.key)
        for pod in pods_of(view.state, job)
        if is_running(pod)
    ]
    diagnosis = diagnose_job(view.state, job, view.now, CONTAINER)
    working = task.working
    if diagnosis.message is not None:
        working = filled_condition(False, working.reason, diagnosis.message)
    reported = report_cache(view, storage, working, progress=percent(view))
    return reported | actions(*followed) | diagnosis.follow_up


def _fail(view: CacheView, storage: ReportedCondition, task: RetryableJob, job: KubeObject) -> Plan:
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
    if task.outlives_failure and view.now < due:
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
