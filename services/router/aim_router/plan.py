"""Decide the next step for the route of one AIMService, or for the warnings of one config. Pure and
total: the time makes no difference.

A route follows its config. If the config is deleted, an existing route stays unchanged. A service
without template gets no route yet: nothing could run behind it.
"""

import datetime

from aim_router.config_warnings import plan_config
from aim_router.render import route, timeout_of
from aim_router.reporting import (
    NO_GATEWAY_API,
    report_config_deleted,
    report_config_missing,
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
from aimcontroller.plan import EMPTY_PLAN, Plan, actions
from aimcontroller.projection import KubeObject, Projection
from aimschema.kinds import GatewayReference
from aimschema.resources import CONFIG, Key


def plan(state: Projection, key: Key, _now: datetime.datetime) -> Plan:
    obj = state.get(key)
    if obj is None or obj.deleting or not obj.has_spec:
        return EMPTY_PLAN
    if key.kind == CONFIG.kind:
        return plan_config(state, obj)
    return plan_service(ServiceView.build(state, obj))


def plan_service(view: ServiceView) -> Plan:
    """First match wins."""
    match view:
        case ServiceView(config=None, owned=KubeObject()):
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
        case ServiceView(timeout_error=str() as error):
            return report_failure(view, error)
        case ServiceView(missing_template=str() as template):
            return report_template_missing(view, template)
        case _:
            desired = route(view.service, reference, timeout_of(view.service), view.config_spec)
            return actions(ApplyObject(desired)) | report_route(view, reference)


def remove_route(view: ServiceView, cause: str) -> Plan:
    """Delete the route of a service that requests none."""
    owned = view.owned
    if owned is None or owned.deleting:
        return report_disabled(view, cause)
    removal = actions(DeleteObject(owned.key, owned.uid))
    if view.rejection is not None:
        return removal | report_not_removed(view, cause, view.rejection)
    return removal | report_disabled(view, cause)
