"""Conditions, messages and status fields of a cache. Pure.

1. Every report carries both conditions, StorageReady and Filled, and all fields: what a report
   leaves out disappears from the status.
2. The controller adds a rejection by the API server to the message of Filled, and field conflicts
   to that of StorageReady (aimcontroller.failures).
"""

from typing import Any

from aim_cacher.downloader_output import progress_of
from aim_cacher.view import CacheView
from aimcontroller.failures import with_api_error
from aimcontroller.plan import Plan, condition, report, with_note
from aimcontroller.projection import KubeObject
from aimcontroller.removal import removal
from aimschema import quantities, reasons
from aimschema.messages import ReportedCondition

_AFTER_REMOVAL = "{message}; the next attempt starts once the last Job is deleted: {note}"


def filled_condition(status: bool, reason: str, message: str) -> ReportedCondition:
    return condition(reasons.FILLED, status, reason, message)


def storage_not_ready(reason: str, message: str) -> ReportedCondition:
    return condition(reasons.STORAGE_READY, False, reason, message)


def report_cache(
    view: CacheView, storage: ReportedCondition, files: ReportedCondition, **fields: Any
) -> Plan:
    """Report both conditions, and the fields as last reported with the changed ones."""
    return report(view.cache, storage, files, **report_fields(view, **fields))


def repeat_report(view: CacheView) -> Plan:
    """Repeat the last report; both conditions show what the API server rejects."""
    conditions = (with_api_error(each, view.rejection) for each in view.reported_conditions)
    return report(view.cache, *conditions, **report_fields(view))


def report_fields(view: CacheView, **changed: Any) -> dict[str, Any]:
    """Status fields as last reported, with the changed ones; None removes a field. Attempts that
    were made from other inputs no longer count."""
    claim = None if view.claim is None else view.claim.key.name
    fields = dict(view.reported_fields)
    if not view.is_same_attempt:
        fields["nextAttemptTime"] = None
        if fields.get("attempts"):
            fields["attempts"] = 0
    return {**fields, "persistentVolumeClaim": claim, "size": view.volume_size, **changed}


def last_filled(view: CacheView) -> ReportedCondition | None:
    """Filled as last reported, without notes."""
    return next((each for each in view.reported_conditions if each.type == reasons.FILLED), None)


def with_removal(files: ReportedCondition, job: KubeObject) -> ReportedCondition:
    """`files`, with a note about a Job that is being deleted, where a finalizer holds it."""
    if not job.body["metadata"].get("finalizers"):
        return files
    return with_note(
        filled_condition(False, files.reason, files.message), removal(job), _AFTER_REMOVAL
    )


def downloading(view: CacheView) -> ReportedCondition:
    """How far the download is."""
    progress = progress_of(view.state, view.cache.key)
    if progress is None:
        return filled_condition(False, reasons.DOWNLOADING, f"downloading {view.spec.source_uri}")
    done = f"{quantities.human(progress.bytes)} of {quantities.human(progress.total)}"
    if progress.phase == "verifying":
        return filled_condition(False, reasons.VERIFYING, f"checking {done}")
    left = "" if progress.seconds_left is None else f", {progress.seconds_left:.0f} s left"
    rate = quantities.human(progress.rate)
    return filled_condition(False, reasons.DOWNLOADING, f"{done} at {rate}/s{left}")


def percent(view: CacheView) -> str | None:
    progress = progress_of(view.state, view.cache.key)
    return None if progress is None else f"{100 * progress.bytes // progress.total}%"
