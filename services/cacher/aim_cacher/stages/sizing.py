"""The size of the source is unknown: a size Job measures it. Pure."""

from aim_cacher.render import size_job
from aim_cacher.reporting import filled_condition, storage_not_ready
from aim_cacher.stages.attempts import RetryableJob, plan_attempt
from aim_cacher.view import CacheView
from aimcontroller.plan import Plan
from aimschema import reasons


def measure_source(view: CacheView) -> Plan:
    inputs = view.inputs
    task = RetryableJob(
        existing=view.size_job,
        inputs=inputs,
        render=lambda attempt: size_job(view.cache, view.options, view.env, inputs, attempt),
        working=filled_condition(False, reasons.WAITING_FOR_PVC, "determining the source size"),
        outlives_failure=True,
    )
    storage = storage_not_ready(reasons.PVC_PENDING, "determining the source size")
    return plan_attempt(view, storage, task)
