"""Decide the next step for one AIMService. Pure and total; `now` is aware UTC.

1. A running service (at least one ready pod) is never stopped because an input was deleted. Then
   nothing is applied, and Resolved reports it.
2. A service that does not run blocks nothing (scaling.py).
3. Nothing is rolled out onto a cache that is not warm (caches.py).
4. The InferenceService records its deployment mode (modes.py) and its render version (versions.py).
5. Each condition has a table of its own: Resolved in resolve.py, CacheReady in caches.py,
   RuntimeReady in runtime.py.
"""

import datetime

from aim_deployer.caches import keep_caches, mounts_caches, report_last_used
from aim_deployer.gpus import GpuTable
from aim_deployer.modes import AUTO, mode_of
from aim_deployer.reporting import (
    report_applied,
    report_missing_kserve,
    report_name_conflict,
    report_unapplied,
)
from aim_deployer.resolve import ResolvedService
from aim_deployer.scaling import plan_budget, stop_or_start, stop_rejected
from aim_deployer.versions import render_versioned
from aim_deployer.view import Options, ServiceView
from aimcontroller.action import ApplyObject
from aimcontroller.plan import EMPTY_PLAN, Plan, actions
from aimcontroller.projection import KubeObject, Projection
from aimschema.resources import Key


def plan(
    state: Projection,
    key: Key,
    now: datetime.datetime,
    *,
    gpus: GpuTable,
    mode: str = AUTO,
    namespace: str = "",
) -> Plan:
    """The next step for the service at `key`. `namespace` is the control plane's own."""
    service = state.get(key)
    if service is None or service.deleting or not service.has_spec:
        return EMPTY_PLAN
    view = ServiceView.build(state, service, now, Options(gpus, mode, namespace))
    planned = plan_service(view)
    if isinstance(view.resolution, ResolvedService):
        return keep_caches(view.resolution, view.existing) | planned
    return planned


def plan_service(view: ServiceView) -> Plan:
    """First match wins."""
    match view:
        case ServiceView(name_conflict=KubeObject() as other):
            return report_name_conflict(view, other)
        case ServiceView(is_cache_ready=True, is_kserve_installed=False):
            return report_missing_kserve(view)
        case ServiceView(is_cache_ready=True, resolution=ResolvedService() as parts):
            return apply_service(view, parts)
        case _:
            return scale_existing(view) | report_unapplied(view)


def scale_existing(view: ServiceView) -> Plan:
    """What can be done without a render: the service is not resolved, or its caches are not
    ready."""
    return stop_or_start(view) | plan_budget(view, has_runtime=view.existing is not None)


def apply_service(view: ServiceView, parts: ResolvedService) -> Plan:
    cached = mounts_caches(parts, view.existing)
    mode = mode_of(view.existing, view.rejection, view.options.mode)
    desired = ApplyObject(render_versioned(parts, view.existing, mode, cached=cached))
    applied = stop_rejected(view) | actions(desired) | plan_budget(view, has_runtime=True)
    reported = applied | report_applied(view, parts)
    if not cached or parts.spec.replicas == 0:
        return reported
    return reported | report_last_used(view.state, parts, view.now)
