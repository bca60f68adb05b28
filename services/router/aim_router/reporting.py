"""The reports of a service: RoutingReady, and the fields `path` and `url`. Pure.

What a report leaves out disappears from the status. While an existing route stays unchanged, so do
the fields.
"""

from typing import Any

from aim_router.projection import workload_id
from aim_router.route_status import RouteView, route_condition, routing_ready
from aim_router.view import ServiceView
from aimcontroller.plan import Plan, report
from aimcontroller.projection import ApplyRejected, KubeObject
from aimcontroller.removal import is_of_former, of_another, of_former, removal
from aimschema import reasons

NO_GATEWAY_API = (
    "the cluster has no HTTPRoute kind (httproutes.gateway.networking.k8s.io): install the"
    " Gateway API"
)


def report_failure(view: ServiceView, message: str) -> Plan:
    """A failure that leaves an existing route as it is."""
    failed = routing_ready(False, reasons.ROUTE_FAILED, message)
    return report(view.service, failed, **_previous_fields(view))


def report_config_deleted(view: ServiceView) -> Plan:
    message = (
        f"AIMNamespaceConfig {view.service.spec.get('configRef')} was deleted; the existing"
        " route is kept until it is re-created"
    )
    return report_failure(view, message)


def report_config_missing(view: ServiceView) -> Plan:
    message = (
        f"AIMNamespaceConfig {view.service.spec.get('configRef')} does not exist in this namespace;"
        " create it or change spec.configRef"
    )
    return report_failure(view, message)


def report_gateway_unnamed(view: ServiceView) -> Plan:
    config = f"AIMNamespaceConfig {view.service.spec.get('configRef')}"
    if view.desired.is_enabled_by_service:
        message = (
            f"spec.routing.enabled is true, but neither the service nor {config} names a gateway;"
            " set spec.routing.gateway"
        )
    else:
        message = (
            f"{config} has routing without a gateway; set spec.routing.gateway or"
            " autoCreateRoute: false"
        )
    return report_failure(view, message)


def report_older_service(view: ServiceView, older: KubeObject) -> Plan:
    message = (
        f"service {older.key.name} is older and has the same workload id"
        f" {workload_id(view.service)}; change the label of one of them"
    )
    return report_failure(view, message)


def report_conflict(view: ServiceView, other: KubeObject) -> Plan:
    if other.key.namespace == view.service.key.namespace:
        owner = f"HTTPRoute {other.key.name}"
    else:
        owner = f"an HTTPRoute of namespace {other.key.namespace}"
    message = (
        f"path {view.path} would take requests of {owner}, which is older; change"
        " routing.pathTemplate or routing.hostnames"
    )
    return report(view.service, routing_ready(False, reasons.ROUTE_FAILED, message))


def report_disabled(view: ServiceView, cause: str) -> Plan:
    message = f"{cause}: the service is reachable inside the cluster only"
    return report(view.service, routing_ready(True, reasons.ROUTING_DISABLED, message))


def report_not_removed(view: ServiceView, cause: str, rejection: ApplyRejected) -> Plan:
    message = (
        f"{cause}, but HTTPRoute {view.service.key.name} cannot be deleted: {rejection.message}"
    )
    return report_failure(view, message)


def report_name_conflict(view: ServiceView, other: KubeObject) -> Plan:
    """An HTTPRoute with this name has another owner. One of a former service with this name is
    garbage collected."""
    if is_of_former(view.service, other):
        message = of_former(view.service, other)
        return report(view.service, routing_ready(False, reasons.CONFIGURING_ROUTE, message))
    message = of_another(view.service, other)
    return report(view.service, routing_ready(False, reasons.NAME_CONFLICT, message))


def report_route(view: ServiceView) -> Plan:
    """The report on an applied route; first match wins."""
    match view:
        case ServiceView(rejection=ApplyRejected(passes=False) as rejection):
            return _report_rejected(view, rejection)
        case ServiceView(existing=KubeObject(deleting=True) as existing):
            message = f"{removal(existing)}; it is re-created once it is deleted"
            deleted = routing_ready(False, reasons.CONFIGURING_ROUTE, message)
            return report(view.service, deleted, **_previous_fields(view))
        case ServiceView(existing=KubeObject() as existing):
            return _report_existing(view, existing)
        case _:
            return _report_creating(view)


def report_template_missing(view: ServiceView, template: str) -> Plan:
    message = (
        f"HTTPRoute {view.service.key.name} is created once AIMServiceTemplate {template} exists in"
        " this namespace"
    )
    return report(view.service, routing_ready(False, reasons.CONFIGURING_ROUTE, message))


def _report_rejected(view: ServiceView, rejection: ApplyRejected) -> Plan:
    name = view.service.key.name
    message = f"HTTPRoute {name} is rejected by the API server: {rejection.message}"
    rejected = routing_ready(False, rejection.reason(reasons.ROUTE_FAILED), message)
    return report(view.service, rejected, path=view.path)


def _report_creating(view: ServiceView) -> Plan:
    message = f"HTTPRoute {view.service.key.name} is being created"
    creating = routing_ready(False, reasons.CONFIGURING_ROUTE, message)
    return report(view.service, creating, path=view.path)


def _report_existing(view: ServiceView, existing: KubeObject) -> Plan:
    path = view.path
    route = RouteView.build(view.state, view.service, existing, view.desired, path)
    url = None if route.address is None else f"{route.address}{path}"
    return report(view.service, route_condition(route), path=path, url=url)


def _previous_fields(view: ServiceView) -> dict[str, Any]:
    if view.owned is None:
        return {}
    return {name: view.service.status.get(name) for name in ("path", "url")}
