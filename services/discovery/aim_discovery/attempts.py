"""The discovery Job of a template: start it, follow it, read its log, retry it. Pure.

1. A Job carries the number of its attempt. The attempt counts once status.attempts shows it, and
   only then is the Job deleted.
2. After a failure the next attempt waits, unless its inputs have changed since (annotation
   `tried`).
"""

import datetime

from aim_discovery.actions import ReadLog
from aim_discovery.dry_run_output import LOG, ReadLogResult
from aim_discovery.render import CONTAINER, discovery_job, result_config_map, result_data
from aim_discovery.reporting import repeat_report, report_attempt, report_running
from aim_discovery.turns import UNSTARTED_COUNTS_S, blocking_reason
from aim_discovery.view import TemplateView
from aimcontroller.action import ApplyObject, DeleteObject
from aimcontroller.plan import EMPTY_PLAN, Plan, actions, requeue_after, with_warning_event
from aimcontroller.projection import KubeObject, Projection
from aimcontroller.removal import removal
from aimcontroller.workloads import (
    HELD_BACK,
    attempt_of,
    diagnose_job,
    ended_at,
    failure,
    gated_left_s,
    has_not_started,
    has_succeeded,
    is_over,
    is_pending,
    last_end,
    outcome,
    pods_of,
    was_oom_killed,
)
from aimschema import labels, reasons
from aimschema.messages import parse_timestamp, timestamp

POD_STATUS_GRACE_S = 10.0
"""How long the planner waits for a finished Job's pod: its last state may come after the Job's."""
LONGEST_RETRY_S = 3600.0
MORE_MEMORY = "raise limits.memory in setting AIM_JOB_RESOURCES of aim-discovery"


def plan_attempt(state: Projection, view: TemplateView, now: datetime.datetime) -> Plan:
    if view.job is None:
        return _start_when_due(state, view, now)
    match outcome(state, view.job, CONTAINER):
        case "active" if view.image_missing and all(
            is_pending(pod) for pod in pods_of(state, view.job)
        ):
            return _delete_job(view.job) | report_attempt(
                view, False, reasons.AWAITING_DISCOVERY, view.image_missing
            )
        case "active" if _is_outdated(view, view.job) and has_not_started(state, view.job, now):
            return _delete_job(view.job) | report_running(
                view, "the Job is re-created, since its inputs have changed"
            )
        case "active":
            return _follow_job(state, view, now, view.job)
        case "succeeded":
            return _read_log(state, view, now, view.job)
        case _:
            return _report_failure(state, view, now, view.job)


def _is_outdated(view: TemplateView, job: KubeObject) -> bool:
    """The Job has other pull secrets, or is older than the annotation that requests a retry. (A
    Job for other inputs has another name.)"""
    return job.annotations.get(labels.ANNOTATION_TRIED, view.attempt_inputs) != view.attempt_inputs


def _delete_job(job: KubeObject) -> Plan:
    return EMPTY_PLAN if job.deleting else actions(DeleteObject(job.key, job.uid))


def _follow_job(
    state: Projection, view: TemplateView, now: datetime.datetime, job: KubeObject
) -> Plan:
    """Report what blocks the Job, where something does. A Job that a queue holds back does not
    run yet."""
    diagnosis = diagnose_job(state, job, now, CONTAINER)
    message = diagnosis.message or f"Job {job.key.name} is querying the image"
    trouble = diagnosis.trouble
    left_s = gated_left_s(state, job, now)
    if left_s is not None and left_s <= 0:
        return _delete_job(job) | report_running(
            view, f"{message}; the Job is re-created, since its deadline counts while it waits"
        )
    requeue = EMPTY_PLAN if left_s is None else requeue_after(left_s)
    if trouble is not None and trouble.reason in HELD_BACK and not view.attempts:
        return (
            report_attempt(view, False, reasons.AWAITING_DISCOVERY, message)
            | diagnosis.follow_up
            | requeue
        )
    return report_running(view, message) | diagnosis.follow_up | requeue


def _start_when_due(state: Projection, view: TemplateView, now: datetime.datetime) -> Plan:
    due = view.reported_fields.get("nextAttemptTime")
    if view.attempts and due is not None and now < parse_timestamp(due):
        return repeat_report(view) | requeue_after((parse_timestamp(due) - now).total_seconds())
    if view.image_missing:
        return report_attempt(view, False, reasons.AWAITING_DISCOVERY, view.image_missing)
    if blocked := blocking_reason(state, view.template, now):
        return report_attempt(view, False, reasons.AWAITING_DISCOVERY, blocked) | requeue_after(
            UNSTARTED_COUNTS_S
        )
    job = discovery_job(
        view.template,
        view.image,
        view.config,
        view.attempt_inputs,
        view.attempts + 1,
        view.options.rules,
    )
    message = (
        "the discovery Job is being created"
        if view.rejection is None
        else f"discovery cannot start: {view.rejection.message}"
    )
    config_map = result_config_map(
        view.template, view.data, _answer_inputs(view), view.attempt_inputs, view.config
    )
    starts = actions(ApplyObject(config_map), ApplyObject(job))
    return starts | (
        report_running(view, message)
        if view.rejection is None
        else report_attempt(view, False, view.rejection.reason(reasons.AWAITING_DISCOVERY), message)
    )


def _read_log(
    state: Projection, view: TemplateView, now: datetime.datetime, job: KubeObject
) -> Plan:
    """Read the log of the newest pod that succeeded, then store its answer. The event of the pod
    may be late, so only the API server knows that the pod is deleted."""
    pods = [pod for pod in pods_of(state, job) if has_succeeded(pod, CONTAINER)]
    if not pods and _just_ended(state, job, now):
        return report_running(view, "the image has printed its result") | requeue_after(
            POD_STATUS_GRACE_S
        )
    source = pods[-1] if pods else job
    log: ReadLogResult | None = state.observation(source.key, LOG)
    earlier: ReadLogResult | None = state.observation(job.key, LOG)
    if log is None and earlier is not None and earlier.last_lines:  # read before the pod was known
        log = earlier
    if log is None:
        return actions(ReadLog(source.key, source.uid, CONTAINER)) | report_running(
            view, "reading the result of the image"
        )
    if log.problem:
        return _fail(view, ended_at(state, job, CONTAINER) or now, job, log.problem)
    data = result_data(log.answer, view.image)
    config_map = result_config_map(
        view.template, data, view.inputs, view.attempt_inputs, view.config
    )
    stores = actions(ApplyObject(config_map))
    return (
        stores
        if view.rejection is None
        else stores | report_running(view, "the image has printed its result")
    )


def _report_failure(
    state: Projection, view: TemplateView, now: datetime.datetime, job: KubeObject
) -> Plan:
    """Report the exit code and the last lines of the log, where a container of the image ran."""
    if not is_over(state, job, CONTAINER) and _just_ended(state, job, now):
        return report_running(view, "the Job failed") | requeue_after(POD_STATUS_GRACE_S)
    why = failure(state, job, CONTAINER, "the image")
    end = last_end(state, job, CONTAINER)
    if was_oom_killed(state, job, CONTAINER):
        why += f"; {MORE_MEMORY}"
    at = ended_at(state, job, CONTAINER) or now
    if end is None:
        return _fail(view, at, job, why)
    pod, _ = end
    log: ReadLogResult | None = state.observation(pod.key, LOG)
    if log is None and not job.deleting:
        return actions(ReadLog(pod.key, pod.uid, CONTAINER)) | report_running(
            view, "the Job failed; reading its log"
        )
    last_lines = (log.last_lines if log is not None else "") or "(not available)"
    return _fail(view, at, job, f"{why}; last lines of the log: {last_lines}")


def _just_ended(state: Projection, job: KubeObject, now: datetime.datetime) -> bool:
    finished = ended_at(state, job, CONTAINER)
    return finished is not None and (now - finished).total_seconds() < POD_STATUS_GRACE_S


def _fail(view: TemplateView, at: datetime.datetime, job: KubeObject, why: str) -> Plan:
    """Report how the attempt ended (`at`) and when the next is due. Once the object shows it, the
    Job is deleted."""
    if job.deleting:
        return report_running(view, f"waiting for the removal of the last try: {removal(job)}")
    attempt = attempt_of(job)
    if _is_outdated(view, job):
        message = (
            f"try {attempt} failed; its inputs have changed since, so another one starts: image"
            f" {view.image}: {why}"
        )
        return _delete_job(job) | report_attempt(
            view, False, reasons.DISCOVERY_FAILED, message, attempts=0, nextAttemptTime=None
        )
    wait_s = min(LONGEST_RETRY_S, view.options.first_retry_s * 2 ** min(attempt - 1, 20))
    due = timestamp(at + datetime.timedelta(seconds=wait_s))
    message = (
        f"try {attempt}, next at {due}, at once with annotation {labels.ANNOTATION_RETRY}: image"
        f" {view.image}: {why}"
    )
    failed = report_attempt(
        view, False, reasons.DISCOVERY_FAILED, message, attempts=attempt, nextAttemptTime=due
    )
    if view.answer is not None:
        failed = with_warning_event(failed, reasons.DISCOVERY_FAILED, message)
    is_recorded = int(view.template.status.get("attempts", 0)) == attempt
    return failed | (actions(DeleteObject(job.key, job.uid)) if is_recorded else EMPTY_PLAN)


def _answer_inputs(view: TemplateView) -> str | None:
    """The inputs that the answer is valid for."""
    return (
        None
        if view.result is None or view.answer is None
        else view.result.annotations.get(labels.ANNOTATION_INPUTS)
    )
