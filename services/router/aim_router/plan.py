"""Decide the next step for the route of one AIMService. Pure and total; `now` is aware UTC.

A route follows its config; when the config itself is gone, a route that is there is left as it is.
"""

import datetime
from functools import partial
from typing import Any

from aim_router.listeners import address, attached, objects, rejection
from aim_router.parents import answers, is_complete
from aim_router.projection import first_with_workload_id, workload_id
from aim_router.render import path_of, route, timeout_of
from aimcontroller.plan import (
    NOTHING,
    ApplyObject,
    DeleteObject,
    Plan,
    act,
    advise,
    condition,
    report,
    warn_of_contest,
    with_contest,
    with_refusal,
)
from aimcontroller.projection import REFUSED, Projection, Refusal, Seen
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
"""Reasons of a gateway for False that pass by themselves."""
routing_ready = partial(condition, reasons.ROUTING_READY)


def plan(seen: Projection, key: Key, now: datetime.datetime) -> Plan:
    present = seen.get(key)
    if present is None or present.deleting or not present.has_spec:
        return NOTHING
    return (
        plan_config(seen, present, now) if key.kind == CONFIG.kind else plan_service(seen, present)
    )


def plan_config(seen: Projection, config: Seen, now: datetime.datetime) -> Plan:
    """What keeps every service with this config from having a route, or attaches it to more than
    was meant, told on the config itself."""
    routing = ConfigSpec.model_validate(config.spec).routing
    found = (
        []
        if routing is None or not routing.auto_create_route
        else _advice(seen, config, routing.gateway)
    )
    return advise(seen, config, reasons.ROUTER, now, *found)


def _advice(
    seen: Projection, config: Seen, gateway: GatewayReference | None
) -> list[tuple[str, str]]:
    """Warnings as (reason, message); first match wins."""
    wrong = _wrong(seen, config, gateway)
    if wrong is not None:
        return [(reasons.ROUTE_FAILED, wrong)]
    there = None if gateway is None else _gateway(seen, gateway, config.key.namespace)
    if gateway is None or there is None or gateway.section_name is not None:
        return []
    open_to_all = attached(there, gateway, config.key.namespace)
    if len(open_to_all) < 2:
        return []
    words = (
        f"spec.routing.gateway has no sectionName, so routes attach to {len(open_to_all)} listeners"
        f" of Gateway {there.key.namespace}/{there.key.name}: {', '.join(map(str, open_to_all))};"
        " set spec.routing.gateway.sectionName to the one that is meant"
    )
    return [(reasons.SEVERAL_LISTENERS, words)]


def _wrong(seen: Projection, config: Seen, gateway: GatewayReference | None) -> str | None:
    if gateway is None:
        return (
            "spec.routing has no gateway, so no service gets a route; set spec.routing.gateway, or"
            " spec.routing.autoCreateRoute to false"
        )
    if not seen.installed(ROUTE.kind):
        return (
            f"spec.routing asks for routes, but {NO_GATEWAY_API}, or set"
            " spec.routing.autoCreateRoute to false"
        )
    if not _is_gateway(gateway):
        return None
    name = f"Gateway {gateway.namespace or config.key.namespace}/{gateway.name}"
    there = _gateway(seen, gateway, config.key.namespace)
    if there is None:
        return (
            f"spec.routing.gateway names {name}, which does not exist; create it, or change the"
            " field"
        )
    listeners = [str(listener.get("name")) for listener in objects(there.spec, "listeners")]
    if gateway.section_name is not None and gateway.section_name not in listeners:
        has = f"{name} has {', '.join(listeners) or 'none'}"
        return (
            f"spec.routing.gateway.sectionName names listener {gateway.section_name}, but {has};"
            " change the field"
        )
    why = rejection(there, gateway, config.key.namespace)
    return None if why is None else f"{why}; {CHANGE_LISTENER}"


def _is_gateway(reference: GatewayReference) -> bool:
    """A Gateway of the Gateway API, whose listeners are known; other kinds of parents are not
    watched."""
    return (reference.group, reference.kind) == (GATEWAY.group, GATEWAY.kind)


def _gateway(seen: Projection, reference: GatewayReference, namespace: str | None) -> Seen | None:
    """The Gateway that a reference in an object of this namespace names."""
    if not _is_gateway(reference):
        return None
    return seen.get(Key(GATEWAY.kind, reference.namespace or namespace, reference.name))


def plan_service(seen: Projection, service: Seen) -> Plan:
    """First match wins: config gone, not wanted, impossible, wanted."""
    key = service.key
    there = seen.get(Key(ROUTE.kind, key.namespace, key.name))
    ours = there is not None and service.uid in there.owners
    config = seen.get(Key(CONFIG.kind, key.namespace, str(service.spec.get("configRef"))))
    if config is None and there is not None and ours:
        gone = (
            f"AIMNamespaceConfig {service.spec.get('configRef')} is gone: create it again; the"
            " route is left as it is until then"
        )
        return report(service, routing_ready(False, reasons.ROUTE_FAILED, gone), **_kept(service))
    if config is None and service.spec.get("configRef", DEFAULT_CONFIG) != DEFAULT_CONFIG:
        missing = (
            f"AIMNamespaceConfig {service.spec['configRef']} does not exist in this namespace;"
            " create it or change spec.configRef"
        )
        return report(service, routing_ready(False, reasons.ROUTE_FAILED, missing))
    routing = None if config is None else ConfigSpec.model_validate(config.spec).routing
    if routing is None or not routing.auto_create_route:
        why = "the config has no routing" if routing is None else "autoCreateRoute is false"
        removed = (
            act(DeleteObject(there.key, there.uid))
            if there is not None and ours and not there.deleting
            else NOTHING
        )
        refusal: Refusal | None = seen.learned(key, REFUSED)
        if removed.actions and refusal is not None:
            stays = f"{why}, but HTTPRoute {key.name} cannot be removed: {refusal.message}"
            return removed | report(
                service, routing_ready(False, reasons.ROUTE_FAILED, stays), **_kept(service)
            )
        return removed | report(
            service,
            routing_ready(
                True,
                reasons.ROUTING_DISABLED,
                f"{why}: the service is reached inside the cluster only",
            ),
        )
    if there is not None and not ours:
        return report(service, _foreign(service, there))
    problem = _impossible(seen, service, routing.gateway)
    if problem is not None or routing.gateway is None:
        return report(service, routing_ready(False, reasons.ROUTE_FAILED, problem or ""))
    try:
        timeout = timeout_of(service)
    except ValueError as error:
        return report(service, routing_ready(False, reasons.ROUTE_FAILED, str(error)))
    return act(ApplyObject(route(service, routing.gateway, timeout))) | _state(
        seen, service, there, routing.gateway
    )


def _foreign(service: Seen, there: Seen) -> ReportedCondition:
    """An HTTPRoute of our name is not ours; what a former service of this name left goes by
    itself."""
    if is_of_former(service, there):
        return routing_ready(False, reasons.CONFIGURING_ROUTE, of_former(service, there))
    return routing_ready(False, reasons.NAME_CONFLICT, of_another(service, there))


def _kept(service: Seen) -> dict[str, Any]:
    return {name: service.status.get(name) for name in ("path", "url")}


def _impossible(seen: Projection, service: Seen, gateway: GatewayReference | None) -> str | None:
    """Why there can be no route; None where there can."""
    if gateway is None:
        return (
            f"AIMNamespaceConfig {service.spec.get('configRef')} has routing without a gateway; set"
            " spec.routing.gateway or autoCreateRoute: false"
        )
    if not seen.installed(ROUTE.kind):
        return NO_GATEWAY_API
    first = first_with_workload_id(seen, service)
    if first.key != service.key:
        return (
            f"service {first.key.name} is older and has the same workload id"
            f" {workload_id(service)}; change the label of one of them"
        )
    return None


def _state(
    seen: Projection, service: Seen, there: Seen | None, reference: GatewayReference
) -> Plan:
    """RoutingReady as the gateway sees the route."""
    refusal: Refusal | None = seen.learned(service.key, REFUSED)
    path = path_of(service)
    if refusal is not None and not refusal.passes:
        refused = f"HTTPRoute {service.key.name} is rejected by the API server: {refusal.message}"
        return report(
            service, routing_ready(False, refusal.reason(reasons.ROUTE_FAILED), refused), path=path
        )
    if there is None:
        creating = with_refusal(
            routing_ready(
                False, reasons.CONFIGURING_ROUTE, f"HTTPRoute {service.key.name} is being created"
            ),
            refusal,
        )
        return report(
            service,
            with_contest(seen, Key(ROUTE.kind, service.key.namespace, service.key.name), creating),
            path=path,
        )
    if there.deleting:
        going = f"{removal(there)}; it is created again once it is gone"
        return report(
            service, routing_ready(False, reasons.CONFIGURING_ROUTE, going), **_kept(service)
        )
    gateway = _gateway(seen, reference, service.key.namespace)
    where = None if gateway is None else address(gateway, reference, there.key.namespace)
    given = answers(there, reference)
    if given:
        ready = path if where is None else f"{path} on {where}"
        routed = _answered(seen, service, there, reference, given) or routing_ready(
            True, reasons.ROUTE_READY, ready
        )
    else:
        routed = _unanswered(seen, service, reference)
    url = None if where is None else f"{where}{path}"
    told = report(
        service, with_contest(seen, there.key, with_refusal(routed, refusal)), path=path, url=url
    )
    return warn_of_contest(seen, there.key, told)


def _unanswered(seen: Projection, service: Seen, reference: GatewayReference) -> ReportedCondition:
    """No gateway has answered: it has not got to the route yet, or cannot take it, or there is
    none."""
    name = f"{reference.kind} {reference.namespace or service.key.namespace}/{reference.name}"
    waiting = f"waiting for {name} to take HTTPRoute {service.key.name}"
    if not _is_gateway(reference):
        return routing_ready(False, reasons.CONFIGURING_ROUTE, waiting)
    config = f"AIMNamespaceConfig {service.spec.get('configRef')}"
    there = _gateway(seen, reference, service.key.namespace)
    if there is None:
        missing = f"{name} does not exist; create it, or change spec.routing.gateway of {config}"
        return routing_ready(False, reasons.ROUTE_FAILED, missing)
    why = rejection(there, reference, service.key.namespace)
    if why is not None:
        return routing_ready(False, reasons.ROUTE_FAILED, f"{why}; {CHANGE_LISTENER} of {config}")
    for found in objects(there.status, "conditions"):
        if (found.get("type"), found.get("status")) == ("Programmed", "False"):
            waiting += f"; it is not programmed: {found.get('message') or ''}"
    return routing_ready(False, reasons.CONFIGURING_ROUTE, waiting)


def _answered(
    seen: Projection,
    service: Seen,
    there: Seen,
    reference: GatewayReference,
    given: list[dict[str, Any]],
) -> ReportedCondition | None:
    """What is not as it should be; None where a gateway has accepted this generation of the route
    and nothing speaks against it.

    A stopped service has no backend.
    """
    excused = ["BackendNotFound"] if service.spec.get("replicas", 1) == 0 else []
    found = [each for answer in given for each in answer.values()]
    unmet = [
        each for each in found if each.get("status") != "True" and each.get("reason") not in excused
    ]
    failed = [
        each
        for each in unmet
        if each.get("status") == "False" and each.get("reason") not in _PASSING
    ]
    if failed:
        gateway = _gateway(seen, reference, there.key.namespace)
        why = None if gateway is None else rejection(gateway, reference, there.key.namespace)
        look = f"see kubectl describe httproute -n {there.key.namespace} {there.key.name}"
        words = [_quoted(reference, failed[0]), *([] if why is None else [why]), look]
        return routing_ready(False, reasons.ROUTE_FAILED, "; ".join(words))
    if unmet:
        return routing_ready(False, reasons.CONFIGURING_ROUTE, _quoted(reference, unmet[0]))
    if any(map(is_complete, given)):
        return None
    waiting = f"waiting for gateway {reference.name} to accept HTTPRoute {there.key.name}"
    return routing_ready(False, reasons.CONFIGURING_ROUTE, waiting)


def _quoted(reference: GatewayReference, found: dict[str, Any]) -> str:
    return (
        f"gateway {reference.name} says"
        f" {': '.join(str(text) for text in (found.get('reason'), found.get('message')) if text)}"
    )
