"""The claim can be mounted and the volume is not filled: a download Job fills it. Pure."""

from aim_cacher.render import download_inputs, download_job
from aim_cacher.reporting import downloading
from aim_cacher.stages.attempts import RetryableJob, plan_attempt
from aim_cacher.stages.storage import apply_claim, storage_condition
from aim_cacher.view import CacheView
from aimcontroller.action import ApplyObject
from aimcontroller.plan import Plan, actions
from aimcontroller.projection import KubeObject
from aimschema import labels


def download(view: CacheView, claim: KubeObject) -> Plan:
    """With a new Job the claim is marked with its inputs, so that other inputs are noticed."""
    inputs = download_inputs(view.inputs, claim)
    task = RetryableJob(
        existing=view.download_job,
        inputs=inputs,
        render=lambda attempt: download_job(view.cache, view.options, view.env, inputs, attempt),
        working=downloading(view),
    )
    attempt = plan_attempt(view, storage_condition(view), task)
    if not any(isinstance(action, ApplyObject) for action in attempt.actions):
        return attempt
    return actions(apply_claim(view, claim, **{labels.ANNOTATION_TRIED: view.inputs})) | attempt
