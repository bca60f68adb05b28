"""Stop and start a service, and its PodDisruptionBudget. Pure.

1. Stopping and starting only need the InferenceService: if it cannot be rendered, it is patched.
2. A service that does not run blocks nothing: pods that mount the volume of a deleted cache are
   stopped, so that the volume can be deleted.
"""

from aim_deployer.existing import is_stopped, lost_claims
from aim_deployer.render import disruption_budget
from aim_deployer.view import ServiceView
from aimcontroller.action import ApplyObject, DeleteObject, PatchObject
from aimcontroller.plan import EMPTY_PLAN, Plan, actions
from aimschema import labels


def stop_or_start(view: ServiceView) -> Plan:
    """Stop or start an existing InferenceService that cannot be rendered."""
    existing = view.existing
    if existing is None or existing.deleting:
        return EMPTY_PLAN
    holds_lost_volume = not view.is_running and bool(lost_claims(view.state, existing))
    stop = view.replicas == 0 or holds_lost_volume
    if stop == is_stopped(existing):
        return EMPTY_PLAN
    replicas = 0 if stop else view.replicas
    patch = {
        "metadata": {"annotations": {labels.KSERVE_STOP: "true" if stop else None}},
        "spec": {"predictor": {"minReplicas": replicas, "maxReplicas": replicas}},
    }
    return actions(PatchObject(existing.key, existing.uid, patch))


def stop_rejected(view: ServiceView) -> Plan:
    """Stop a service whose spec the API server rejects."""
    must_stop = view.rejection is not None and view.replicas == 0
    return stop_or_start(view) if must_stop else EMPTY_PLAN


def plan_budget(view: ServiceView, *, has_runtime: bool) -> Plan:
    """A PodDisruptionBudget for two or more replicas. `has_runtime`: the InferenceService exists,
    or the same plan applies it."""
    budget = view.budget
    if view.replicas >= 2:
        desired = disruption_budget(view.service)
        return actions(ApplyObject(desired)) if has_runtime else EMPTY_PLAN
    if budget is None or budget.deleting or view.service.uid not in budget.owners:
        return EMPTY_PLAN
    return actions(DeleteObject(budget.key, budget.uid))
