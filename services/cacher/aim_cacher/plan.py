"""Decide the next step for a cache, a template or a config. Pure and total; `now` is aware UTC.

A cache goes through these stages: eligible, sized, claim created, claim bound, downloaded, filled.
The planner reads the stage off the objects alone, so a restart at any moment loses nothing:

1. The claim's annotation `filled` marks that the volume holds the files. A re-created claim has no
   mark.
2. A Job carries the number of its attempt and the claim it fills. The attempt counts once
   status.attempts shows it, and only then is the Job deleted.
3. The claim's annotation `tried` holds the inputs of the last attempt. Other inputs start a new
   attempt at once, counted from one.
4. A claim that is being deleted waits for no Job of the cache that has not started or has ended.
   The message names every other holder.
"""

import datetime

from aim_cacher.config_warnings import plan_config
from aim_cacher.environment import warn_of_ignored
from aim_cacher.job_options import JobOptions
from aim_cacher.stages import allocation, download, eligibility, settled, sizing, storage
from aim_cacher.stages.eviction import with_eviction
from aim_cacher.templates import plan_template
from aim_cacher.view import CacheView
from aimcontroller.plan import EMPTY_PLAN, Plan
from aimcontroller.projection import KubeObject, Projection
from aimschema.kinds import CacheSpec
from aimschema.resources import CONFIG, TEMPLATE, Key


def plan(
    state: Projection,
    key: Key,
    now: datetime.datetime,
    *,
    options: JobOptions,
) -> Plan:
    """`options`: settings for the Jobs of every cache."""
    obj = state.get(key)
    if obj is None or obj.deleting or not obj.has_spec:
        return EMPTY_PLAN
    if key.kind == TEMPLATE.kind:
        return plan_template(state, obj)
    if key.kind == CONFIG.kind:
        return plan_config(state, obj)
    view = CacheView.build(state, obj, now, options)
    return warn_of_ignored(obj.spec_as(CacheSpec.model_validate).env, plan_cache(view))


def plan_cache(view: CacheView) -> Plan:
    """The stage of a cache without a claim; first match wins."""
    match view:
        case CacheView(is_disposable=True):
            return eligibility.delete_unrequested(view)
        case CacheView(duplicate_of=KubeObject() as original):
            return eligibility.report_duplicate(view, original)
        case CacheView(name_conflict=KubeObject() as other):
            return eligibility.report_name_conflict(view, other)
        case CacheView(claim=KubeObject() as claim):
            return eligibility.delete_objects(view.size_job) | with_eviction(
                view, plan_claimed(view, claim)
            )
        case CacheView(config_missing=str() as message):
            return eligibility.report_missing_config(view, message)
        case CacheView(claim_size=None):
            return sizing.measure_source(view)
        case _:
            return allocation.create_claim(view)


def plan_claimed(view: CacheView, claim: KubeObject) -> Plan:
    """The stage of a cache that has its claim; first match wins."""
    match view:
        case CacheView(claim=KubeObject(deleting=True)):
            return storage.await_removal(view, claim)
        case CacheView(is_claim_misplaced=True):
            return storage.replace_claim(view, claim)
        case CacheView(is_filled=True):
            return settled.report_warm(view, claim)
        case CacheView(is_downloaded=True, download_job=KubeObject() as job):
            return settled.mark_filled(view, claim, job)
        case CacheView(is_claim_mountable=False):
            return storage.await_volume(view)
        case _:
            return download.download(view, claim)
