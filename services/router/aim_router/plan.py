"""Decide the next step for the route of one AIMService. Pure and total; `now` is aware UTC.

A route follows its config. If the config is deleted, an existing route stays unchanged.
"""

import datetime
from functools import partial
from typing import Any

from aim_router.listeners import address, attached, objects, rejection
from aim_router.parents import answers, is_complete
from aim_router.projection import first_with_workload_id, workload_id
from aim_router.render import path_of, route, timeout_of
from aimcontroller.plan import (
    EMPTY_PLAN,
    ApplyObject,
    DeleteObject,
    Plan,
    actions,
    condition,
    report,
    report_warnings,
)
from aimcontroller.projection import REJECTED, ApplyRejected, KubeObject, Projection
from aimcontroller.removal import is_of_former, of_another, of_former, removal
from aimschema import reasons
from aimschema.credentials import DEFAULT_CONFIG
from aimschema.kinds import ConfigSpec, GatewayReference
from aimschema.messages import ReportedCondition
from aimschema.resources import CONFIG, GATEWAY, ROUTE, Key

NO_GATEWAY_API = (
    "the cluster has no HTTPRoute kind (httproutes.gateway.networking.k8s.io): install the"
    " Gateway API"
)
CHANGE_LISTENER = "name a listener that takes HTTPRoutes in spec.routing.gateway.sectionName"
_PASSING = ("BackendNotFound", "Pending")
"""Reasons of a gateway for False that are temporary."""
routing_ready = partial(condition, reasons.ROUTING_READY)


def plan(state: Projection, key: Key, now: datetime.datetime) -> Plan:
    obj = state.get(key)
    if obj is None or obj.deleting or not obj.has_spec:
        return EMPTY_PLAN
    return plan_config(state, obj, now) if key.kind == CONFIG.kind else plan_service(state, obj)


def plan_config(state: Projection, config: KubeObject, now: datetime.datetime) -> Plan:
    """Warn on the config about a fault that gives no service a route, or attaches routes to too
    many listeners."""
    routing = ConfigSpec.model_validate(config.spec).routing
    found = (
        []
        if routing is None or not routing.auto_create_route
        else _advice(state, config, routing.gateway)
    )
    return report_warnings(state, config, reasons.ROUTER, now, *found)


def _advice(
    state: Projection, config: KubeObject, gateway: GatewayReference | None
) -> list[tuple[str, str]]:
    """Warnings as (reason, message); first match wins."""
    wrong = _wrong(state, config, gateway)
    if wrong is not None:
        return [(reasons.ROUTE_FAILED, wrong)]
    existing = None if gateway is None else _gateway(state, gateway, config.key.namespace)
    if gateway is None or existing is None or gateway.section_name is not None:
        return []
    open_to_all = attached(existing, gateway, config.key.namespace)
    if len(open_to_all) < 2:
        return []
    message = (
        f"spec.routing.gateway has no sectionName, so routes attach to {len(open_to_all)} listeners"
        f" of Gateway {existing.key.namespace}/{existing.key.name}:"
        f" {', '.join(map(str, open_to_all))};"
        " set spec.routing.gateway.sectionName to the one that is meant"
    )
    return [(reasons.SEVERAL_LISTENERS, message)]


def _wrong(state: Projection, config: KubeObject, gateway: GatewayReference | None) -> str | None:
    if gateway is None:
        return (
            "spec.routing has no gateway, so no service gets a route; set spec.routing.gateway, or"
            " spec.routing.autoCreateRoute to false"
        )
    if not state.installed(ROUTE.kind):
        return (
            f"spec.routing asks for routes, but {NO_GATEWAY_API}, or set"
            " spec.routing.autoCreateRoute to false"
        )
    if not _is_gateway(gateway):
        return None
    name = f"Gateway {gateway.namespace or config.key.namespace}/{gateway.name}"
    existing = _gateway(state, gateway, config.key.namespace)
    if existing is None:
        return (
            f"spec.routing.gateway names {name}, which does not exist; create it, or change the"
            " field"
        )
    listeners = [str(listener.get("name")) for listener in objects(existing.spec, "listeners")]
    if gateway.section_name is not None and gateway.section_name not in listeners:
        has = f"{name} has {', '.join(listeners) or 'none'}"
        return (
            f"spec.routing.gateway.sectionName names listener {gateway.section_name}, but {has};"
            " change the field"
        )
    why = rejection(existing, gateway, config.key.namespace)
    return None if why is None else f"{why}; {CHANGE_LISTENER}"


def _is_gateway(reference: GatewayReference) -> bool:
    """A Gateway of the Gateway API, whose listeners are known; other kinds of parents are not
    watched."""
    return (reference.group, reference.kind) == (GATEWAY.group, GATEWAY.kind)


def _gateway(
    state: Projection, reference: GatewayReference, namespace: str | None
) -> KubeObject | None:
    """The Gateway that a reference in an object of this namespace names."""
    if not _is_gateway(reference):
        return None
    return state.get(Key(GATEWAY.kind, reference.namespace or namespace, reference.name))


def plan_service(state: Projection, service: KubeObject) -> Plan:
    """First match wins: config missing, no route requested, name conflict, no route possible."""
    key = service.key
    existing = state.get(Key(ROUTE.kind, key.namespace, key.name))
    owned = existing if existing is not None and service.uid in existing.owners else None
    config = state.get(Key(CONFIG.kind, key.namespace, str(service.spec.get("configRef"))))
    uses_default = service.spec.get("configRef", DEFAULT_CONFIG) == DEFAULT_CONFIG
    if config is None and (owned is not None or not uses_default):
        return _without_config(service, owned)
    routing = None if config is None else ConfigSpec.model_validate(config.spec).routing
    if routing is None or not routing.auto_create_route:
        why = "the config has no routing" if routing is None else "autoCreateRoute is false"
        return _without_route(state, service, owned, why)
    if existing is not None and owned is None:
        return report(service, _name_conflict(service, existing))
    problem = _impossible(state, service, routing.gateway)
    if problem is not None or routing.gateway is None:
        return report(service, routing_ready(False, reasons.ROUTE_FAILED, problem or ""))
    try:
        timeout = timeout_of(service)
    except ValueError as error:
        return report(service, routing_ready(False, reasons.ROUTE_FAILED, str(error)))
    return actions(ApplyObject(route(service, routing.gateway, timeout))) | _state(
        state, service, existing, routing.gateway
    )


def _without_config(service: KubeObject, owned: KubeObject | None) -> Plan:
    """Leave an existing route of the service unchanged."""
    if owned is not None:
        message = (
            f"AIMNamespaceConfig {service.spec.get('configRef')} is gone: create it again; the"
            " route is left as it is until then"
        )
        return report(
            service,
            routing_ready(False, reasons.ROUTE_FAILED, message),
            **_previous_fields(service),
        )
    missing = (
        f"AIMNamespaceConfig {service.spec['configRef']} does not exist in this namespace;"
        " create it or change spec.configRef"
    )
    return report(service, routing_ready(False, reasons.ROUTE_FAILED, missing))


def _without_route(
    state: Projection, service: KubeObject, owned: KubeObject | None, why: str
) -> Plan:
    """Delete the route of a service that requests none."""
    removed = (
        EMPTY_PLAN
        if owned is None or owned.deleting
        else actions(DeleteObject(owned.key, owned.uid))
    )
    rejected: ApplyRejected | None = state.learned(service.key, REJECTED)
    if removed.actions and rejected is not None:
        stays = f"{why}, but HTTPRoute {service.key.name} cannot be removed: {rejected.message}"
        return removed | report(
            service,
            routing_ready(False, reasons.ROUTE_FAILED, stays),
            **_previous_fields(service),
        )
    disabled = f"{why}: the service is reached inside the cluster only"
    return removed | report(service, routing_ready(True, reasons.ROUTING_DISABLED, disabled))


def _name_conflict(service: KubeObject, existing: KubeObject) -> ReportedCondition:
    """An HTTPRoute with this name has another owner. One of a former service with this name is
    garbage collected."""
    if is_of_former(service, existing):
        return routing_ready(False, reasons.CONFIGURING_ROUTE, of_former(service, existing))
    return routing_ready(False, reasons.NAME_CONFLICT, of_another(service, existing))


def _previous_fields(service: KubeObject) -> dict[str, Any]:
    return {name: service.status.get(name) for name in ("path", "url")}


def _impossible(
    state: Projection, service: KubeObject, gateway: GatewayReference | None
) -> str | None:
    """Why no route is possible; None if one is."""
    if gateway is None:
        return (
            f"AIMNamespaceConfig {service.spec.get('configRef')} has routing without a gateway; set"
            " spec.routing.gateway or autoCreateRoute: false"
        )
    if not state.installed(ROUTE.kind):
        return NO_GATEWAY_API
    first = first_with_workload_id(state, service)
    if first.key != service.key:
        return (
            f"service {first.key.name} is older and has the same workload id"
            f" {workload_id(service)}; change the label of one of them"
        )
    return None


def _state(
    state: Projection, service: KubeObject, existing: KubeObject | None, reference: GatewayReference
) -> Plan:
    """RoutingReady from the conditions that the gateway sets on the route."""
    rejected: ApplyRejected | None = state.learned(service.key, REJECTED)
    path = path_of(service)
    if rejected is not None and not rejected.passes:
        message = f"HTTPRoute {service.key.name} is rejected by the API server: {rejected.message}"
        return report(
            service, routing_ready(False, rejected.reason(reasons.ROUTE_FAILED), message), path=path
        )
    if existing is None:
        creating = f"HTTPRoute {service.key.name} is being created"
        return report(service, routing_ready(False, reasons.CONFIGURING_ROUTE, creating), path=path)
    if existing.deleting:
        going = f"{removal(existing)}; it is created again once it is gone"
        return report(
            service,
            routing_ready(False, reasons.CONFIGURING_ROUTE, going),
            **_previous_fields(service),
        )
    gateway = _gateway(state, reference, service.key.namespace)
    where = None if gateway is None else address(gateway, reference, existing.key.namespace)
    parent_answers = answers(existing, reference)
    if parent_answers:
        ready = path if where is None else f"{path} on {where}"
        routed = _answered(state, service, existing, reference, parent_answers) or routing_ready(
            True, reasons.ROUTE_READY, ready
        )
    else:
        routed = _unanswered(state, service, reference)
    url = None if where is None else f"{where}{path}"
    return report(service, routed, path=path, url=url)


def _unanswered(
    state: Projection, service: KubeObject, reference: GatewayReference
) -> ReportedCondition:
    """No gateway has answered: it has not got to the route yet, or cannot take it, or there is
    none."""
    name = f"{reference.kind} {reference.namespace or service.key.namespace}/{reference.name}"
    waiting = f"waiting for {name} to take HTTPRoute {service.key.name}"
    if not _is_gateway(reference):
        return routing_ready(False, reasons.CONFIGURING_ROUTE, waiting)
    config = f"AIMNamespaceConfig {service.spec.get('configRef')}"
    existing = _gateway(state, reference, service.key.namespace)
    if existing is None:
        missing = f"{name} does not exist; create it, or change spec.routing.gateway of {config}"
        return routing_ready(False, reasons.ROUTE_FAILED, missing)
    why = rejection(existing, reference, service.key.namespace)
    if why is not None:
        return routing_ready(False, reasons.ROUTE_FAILED, f"{why}; {CHANGE_LISTENER} of {config}")
    for found in objects(existing.status, "conditions"):
        if (found.get("type"), found.get("status")) == ("Programmed", "False"):
            waiting += f"; it is not programmed: {found.get('message') or ''}"
    return routing_ready(False, reasons.CONFIGURING_ROUTE, waiting)


def _answered(
    state: Projection,
    service: KubeObject,
    existing: KubeObject,
    reference: GatewayReference,
    parent_answers: list[dict[str, Any]],
) -> ReportedCondition | None:
    """What is not as it should be; None where a gateway has accepted this generation of the route
    and nothing speaks against it.

    A stopped service has no backend.
    """
    excused = ["BackendNotFound"] if service.spec.get("replicas", 1) == 0 else []
    found = [each for answer in parent_answers for each in answer.values()]
    unmet = [
        each for each in found if each.get("status") != "True" and each.get("reason") not in excused
    ]
    failed = [
        each
        for each in unmet
        if each.get("status") == "False" and each.get("reason") not in _PASSING
    ]
    if failed:
        gateway = _gateway(state, reference, existing.key.namespace)
        why = None if gateway is None else rejection(gateway, reference, existing.key.namespace)
        hint = f"see kubectl describe httproute -n {existing.key.namespace} {existing.key.name}"
        parts = [_quoted(reference, failed[0]), *([] if why is None else [why]), hint]
        return routing_ready(False, reasons.ROUTE_FAILED, "; ".join(parts))
    if unmet:
        return routing_ready(False, reasons.CONFIGURING_ROUTE, _quoted(reference, unmet[0]))
    if any(map(is_complete, parent_answers)):
        return None
    waiting = f"waiting for gateway {reference.name} to accept HTTPRoute {existing.key.name}"
    return routing_ready(False, reasons.CONFIGURING_ROUTE, waiting)


def _quoted(reference: GatewayReference, found: dict[str, Any]) -> str:
    return (
        f"gateway {reference.name} says"
        f" {': '.join(str(text) for text in (found.get('reason'), found.get('message')) if text)}"
    )
