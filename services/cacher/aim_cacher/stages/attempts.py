"""Jobs that are attempted until one succeeds: sizing and download. Pure.

1. A Job carries the number of its attempt. The attempt counts once `status.attempts` shows it, and
   only then is the Job deleted.
2. After a failure the next attempt waits, 30 seconds at first and at most ten minutes. Other inputs
   start a new attempt at once, counted from one.
3. A Job that is made from other inputs is replaced unless its pod is running.
"""

from collections.abc import Callable
from dataclasses import dataclass

from aim_cacher.actions import FollowLog
from aim_cacher.downloader_output import (
    POD_STATUS_GRACE_S,
    is_result_final,
)
from aim_cacher.passed_labels import with_passed_labels
from aim_cacher.render import CONTAINER, Body, ca_config_map
from aim_cacher.reporting import filled_condition, last_filled, percent, report_cache, with_removal
from aim_cacher.stages.eligibility import delete_objects
from aim_cacher.stages.job_failure import report_failure
from aim_cacher.view import CacheView
from aimcontroller.action import ApplyObject
from aimcontroller.plan import Plan, actions, requeue_after
from aimcontroller.projection import KubeObject
from aimcontroller.workloads import (
    diagnose_job,
    gated_left_s,
    has_not_started,
    is_running,
    outcome,
    pods_of,
)
from aimschema import labels, reasons
from aimschema.messages import ReportedCondition
from aimschema.resources import CONFIG_MAP, JOB


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
            return report_failure(view, storage, job, outlives_failure=task.outlives_failure)


def _start_when_due(view: CacheView, storage: ReportedCondition, task: RetryableJob) -> Plan:
    if view.config_missing is not None:
        missing = filled_condition(False, reasons.RUNTIME_CONFIG_MISSING, view.config_missing)
        return report_cache(view, storage, missing)
    due = view.next_attempt
    if due is not None and view.now < due:
        waiting = report_cache(view, storage, last_filled(view) or task.working)
        return waiting | requeue_after((due - view.now).total_seconds())
    job = with_passed_labels(task.render(view.attempts + 1), view.passed_labels)
    starts = actions(*_mounted_objects(view), ApplyObject(job))
    working = _cannot_start(view, task.working) or task.working
    return starts | report_cache(
        view, storage, working, attempts=view.attempts, nextAttemptTime=None
    )


def _mounted_objects(view: CacheView) -> tuple[ApplyObject, ...]:
    """What the pods of the Jobs mount besides the claim."""
    ca = view.options.ca
    if not ca:
        return ()
    return (ApplyObject(with_passed_labels(ca_config_map(view.cache, ca), view.passed_labels)),)


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
