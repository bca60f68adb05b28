"""Decide the next step for the route of one AIMService, or for the warnings of one config. Pure and
total: the time makes no difference.

A route follows its config. If the config is deleted, an existing route stays unchanged. A service
without template gets no route yet: nothing could run behind it.
"""

import datetime

from aim_router.config_warnings import plan_config
from aim_router.desired import RouteOptions
from aim_router.render import route
from aim_router.reporting import (
    NO_GATEWAY_API,
    report_config_deleted,
    report_config_missing,
    report_conflict,
    report_disabled,
    report_failure,
    report_gateway_unnamed,
    report_name_conflict,
    report_not_removed,
    report_older_service,
    report_route,
    report_template_missing,
)
from aim_router.view import ServiceView
from aimcontroller.action import ApplyObject, DeleteObject
from aimcontroller.plan import EMPTY_PLAN, Plan, actions, requeue_after
from aimcontroller.projection import KubeObject, Projection
from aimschema.kinds import GatewayReference
from aimschema.propagation import passed_on
from aimschema.resources import CONFIG, Key

ANY = RouteOptions()
CONFLICT_RETRY_S = 60.0


def plan(
    state: Projection, key: Key, _now: datetime.datetime, *, options: RouteOptions = ANY
) -> Plan:
    obj = state.get(key)
    if obj is None or obj.deleting or not obj.has_spec:
        return EMPTY_PLAN
    if key.kind == CONFIG.kind:
        return plan_config(state, obj)
    return plan_service(ServiceView.build(state, obj, options))


def plan_service(view: ServiceView) -> Plan:
    """First match wins."""
    match view:
        case ServiceView(is_config_deleted=True):
            return report_config_deleted(view)
        case ServiceView(config=None, uses_default_config=False):
            return report_config_missing(view)
        case ServiceView(disabled_by=str() as cause):
            return remove_route(view, cause)
        case ServiceView(name_conflict=KubeObject() as other):
            return report_name_conflict(view, other)
        case ServiceView(reference=GatewayReference() as reference):
            return plan_route(view, reference)
        case _:
            return report_gateway_unnamed(view)


def plan_route(view: ServiceView, reference: GatewayReference) -> Plan:
    """The step of a service that requests a route; first match wins."""
    match view:
        case ServiceView(is_gateway_api_installed=False):
            return report_failure(view, NO_GATEWAY_API)
        case ServiceView(older_service=KubeObject() as older):
            return report_older_service(view, older)
        case ServiceView(invalid=str() as error, exceeds_limits=True):
            return delete_route(view) | report_failure(view, error)
        case ServiceView(invalid=str() as error):
            return report_failure(view, error)
        case ServiceView(conflicting_route=KubeObject() as other):
            return give_way(view, other)
        case ServiceView(missing_template=str() as template):
            return report_template_missing(view, template)
        case _:
            passed = passed_on(view.service.labels, view.config_spec)
            desired = route(view.service, reference, view.desired, view.path, passed)
            return actions(ApplyObject(desired)) | report_route(view)


def give_way(view: ServiceView, other: KubeObject) -> Plan:
    """The younger of two routes is removed, since it could take requests of the older one. An event
    of the other route does not concern this service, so it is reconciled again after a while."""
    return delete_route(view) | report_conflict(view, other) | requeue_after(CONFLICT_RETRY_S)


def delete_route(view: ServiceView) -> Plan:
    owned = view.owned
    if owned is None or owned.deleting:
        return EMPTY_PLAN
    return actions(DeleteObject(owned.key, owned.uid))


def remove_route(view: ServiceView, cause: str) -> Plan:
    """Delete the route of a service that requests none."""
    removal = delete_route(view)
    if removal.actions and view.rejection is not None:
        return removal | report_not_removed(view, cause, view.rejection)
    return removal | report_disabled(view, cause)
