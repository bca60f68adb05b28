"""The files are on the volume: mark the claim as filled, then report the cache as warm. Pure.

1. The mark is written before the status shows it, and the Job is deleted only after that: whichever
   write is lost, the next reconcile repeats it.
2. Size and revision come from the Job's result while the Job exists, afterwards from the status.
"""

from typing import Any

from aim_cacher.downloader_output import POD_STATUS_GRACE_S, is_result_final, read_result
from aim_cacher.reporting import downloading, filled_condition, last_filled, report_cache
from aim_cacher.stages.eligibility import delete_objects
from aim_cacher.stages.storage import apply_claim, storage_condition
from aim_cacher.view import CacheView
from aimcontroller.plan import EMPTY_PLAN, Plan, actions, requeue_after
from aimcontroller.projection import KubeObject
from aimschema import labels, quantities, reasons

NO_REVISION = "unknown"


def mark_filled(view: CacheView, claim: KubeObject, job: KubeObject) -> Plan:
    """The download Job succeeded: write the revision on the claim."""
    storage = storage_condition(view)
    if not is_result_final(view.state, job, view.now):
        waiting = report_cache(view, storage, last_filled(view) or downloading(view))
        return waiting | requeue_after(POD_STATUS_GRACE_S)
    revision = read_result(view.state, job).revision or NO_REVISION
    marking = filled_condition(False, reasons.VERIFYING, "download verified; recording completion")
    verifying = report_cache(view, storage, marking, **_download_facts(view))
    return actions(apply_claim(view, claim, **{labels.ANNOTATION_FILLED: revision})) | verifying


def report_warm(view: CacheView, claim: KubeObject) -> Plan:
    """The claim is marked as filled. The Job is deleted once the object's status shows it."""
    storage = storage_condition(view)
    facts = _download_facts(view)
    revision = None if view.filled_revision == NO_REVISION else view.filled_revision
    size_bytes = facts.get("sizeBytes", view.reported_fields.get("sizeBytes"))
    message = quantities.human(size_bytes) if size_bytes is not None else "all files"
    if revision is not None:
        message += f" at revision {revision}"
    files = filled_condition(True, reasons.WARM, message)
    if claim.status.get("phase") == "Lost":
        files = filled_condition(False, reasons.PVC_LOST, storage.message)
    changed = facts | {
        "progress": "100%",
        "revision": revision,
        "attempts": 0,
        "nextAttemptTime": None,
    }
    reported = report_cache(view, storage, files, **changed)
    is_recorded = view.cache.is_condition_true(reasons.FILLED)
    cleanup = delete_objects(view.download_job) if is_recorded else EMPTY_PLAN
    return actions(apply_claim(view, claim)) | reported | cleanup


def _download_facts(view: CacheView) -> dict[str, Any]:
    """Size, revision and digest as the download reported them, while its Job exists: a report may
    be lost
    before the object shows it."""
    if view.download_job is None or not view.is_downloaded:
        return {}
    result = read_result(view.state, view.download_job)
    facts = {
        "sizeBytes": result.bytes,
        "revision": result.revision or None,
        "manifestDigest": result.manifest_digest or None,
    }
    return {name: value for name, value in facts.items() if value is not None}
