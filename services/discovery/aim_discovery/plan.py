"""Decide the next step for a template's discovery (for a catalogue entry: see catalogue). Pure and
total; `now` is aware UTC.

1. The template's ConfigMap holds the answer with the inputs it is valid for. The same inputs are
   never discovered twice.
2. An older answer stays in force until a newer one exists.
3. A Job carries the number of its attempt. The attempt counts once status.attempts shows it, and
   only then is the Job deleted.
4. Attempts after a failure wait, unless their inputs have changed since the last (annotation
   `tried`).
5. After a failure the condition reports it until an answer exists, also while the next attempt
   runs.
6. Discovery does not wait for the image's inspection. Only an image that is missing in its registry
   gets no Job.
"""

import datetime

from aim_discovery.attempts import plan_attempt
from aim_discovery.catalogue import plan_model
from aim_discovery.reporting import report_answer
from aim_discovery.view import DiscoveryOptions, TemplateView, last_reported_fields
from aimcontroller.action import DeleteObject
from aimcontroller.jobs import DEFAULT_RULES, JobRules
from aimcontroller.plan import EMPTY_PLAN, Plan, actions, condition, report
from aimcontroller.projection import KubeObject, Projection
from aimcontroller.queries import models_named
from aimcontroller.removal import is_of_former, of_another, of_former
from aimschema import reasons
from aimschema.messages import ReportedCondition
from aimschema.resources import JOB, MODEL, Key

FIRST_RETRY_S = 60.0


def plan(
    state: Projection,
    key: Key,
    now: datetime.datetime,
    *,
    namespace: str,
    first_retry_s: float = FIRST_RETRY_S,
    rules: JobRules = DEFAULT_RULES,
) -> Plan:
    """`namespace`: the control plane's own. `first_retry_s`: how long a template waits after its
    first failure."""
    obj = state.get(key)
    if obj is None or obj.deleting or not obj.has_spec:
        return EMPTY_PLAN
    if key.kind == MODEL.kind:
        return plan_model(state, obj, now, namespace)
    return plan_template(state, obj, now, DiscoveryOptions(namespace, first_retry_s, rules))


def plan_template(
    state: Projection, template: KubeObject, now: datetime.datetime, options: DiscoveryOptions
) -> Plan:
    """Jobs for other inputs are deleted in any case."""
    models = models_named(state, str(template.spec["model"]))
    if not models:
        missing = (
            f"no AIMClusterModel has spec.name {template.spec['model']}; create it, or re-create"
            " the template with another model"
        )
        unknown = condition(reasons.DISCOVERED, False, reasons.MODEL_NOT_FOUND, missing)
        return _delete_jobs(state, template) | report(
            template,
            unknown,
            **last_reported_fields(state, template),
        )
    view = TemplateView.build(state, template, models[0], options)
    superseded = _delete_jobs(state, template, except_for=view.job_key)
    return superseded | plan_discovery(state, view, now)


def plan_discovery(state: Projection, view: TemplateView, now: datetime.datetime) -> Plan:
    """First match wins."""
    match view:
        case TemplateView(name_conflict=KubeObject() as other):
            return report(view.template, _name_conflict(view.template, other))
        case TemplateView(is_answered=True):
            return report_answer(view)
        case _:
            return plan_attempt(state, view, now)


def _delete_jobs(state: Projection, template: KubeObject, except_for: Key | None = None) -> Plan:
    """The Jobs of a template that are not being deleted yet."""
    jobs = (
        job
        for job in state.owned(template.uid, JOB.kind, template.key.namespace)
        if job.key != except_for and not job.deleting
    )
    return actions(*(DeleteObject(job.key, job.uid) for job in jobs))


def _name_conflict(template: KubeObject, other: KubeObject) -> ReportedCondition:
    """Another object has a name the template needs. What a former template of this name left
    disappears by itself (garbage collection)."""
    if is_of_former(template, other):
        return condition(
            reasons.DISCOVERED, False, reasons.AWAITING_DISCOVERY, of_former(template, other)
        )
    return condition(reasons.DISCOVERED, False, reasons.NAME_CONFLICT, of_another(template, other))
