"""Decide the next step for the route of one AIMService. Pure and total; `now` is aware UTC.

A route follows its config; when the config itself is gone, a route that is there is left as it is.
"""

import datetime
from functools import partial
from typing import Any

from aim_router.projection import with_workload_id, workload_id
from aim_router.render import path_of, route, timeout_of
from aimschema import reasons
from aimschema.kinds import ConfigSpec, GatewayReference
from aimschema.messages import ReportedCondition
from aimschema.resources import CONFIG, GATEWAY, ROUTE, SERVICE, Key
from aimservice.plan import NOTHING, ApplyObject, DeleteObject, Plan, act, advise, condition, report, warn_of_contest, with_contest
from aimservice.projection import REFUSED, Projection, Refusal, Seen

NO_GATEWAY_API = "the cluster has no HTTPRoute kind (httproutes.gateway.networking.k8s.io): install the Gateway API"
routing_ready = partial(condition, reasons.ROUTING_READY)


def plan(seen: Projection, key: Key, now: datetime.datetime) -> Plan:
    present = seen.get(key)
    if present is None or present.deleting:
        return NOTHING
    return plan_config(seen, present, now) if key.kind == CONFIG.kind else plan_service(seen, present)


def plan_config(seen: Projection, config: Seen, now: datetime.datetime) -> Plan:
    """What keeps every service with this config from having a route, told on the config itself."""
    routing = ConfigSpec.model_validate(config.spec).routing
    wrong = None if routing is None or not routing.auto_create_route else _wrong(seen, config, routing.gateway)
    return advise(seen, config, reasons.ROUTER, now, *([] if wrong is None else [(reasons.ROUTE_FAILED, wrong)]))


def _wrong(seen: Projection, config: Seen, gateway: GatewayReference | None) -> str | None:
    if gateway is None:
        return "spec.routing has no gateway, so no service gets a route; set spec.routing.gateway, or spec.routing.autoCreateRoute to false"
    if not seen.installed(ROUTE.kind):
        return f"spec.routing asks for routes, but {NO_GATEWAY_API}, or set spec.routing.autoCreateRoute to false"
    if gateway.kind != GATEWAY.kind:
        return None
    key = Key(GATEWAY.kind, gateway.namespace or config.key.namespace, gateway.name)
    there = seen.get(key)
    if there is None:
        return f"spec.routing.gateway names Gateway {key.namespace}/{key.name}, which does not exist; create it, or change the field"
    listeners = [str(listener.get("name")) for listener in there.spec.get("listeners") or ()]
    if gateway.section_name is not None and gateway.section_name not in listeners:
        has = f"Gateway {key.namespace}/{key.name} has {', '.join(listeners) or 'none'}"
        return f"spec.routing.gateway.sectionName names listener {gateway.section_name}, but {has}; change the field"
    return None


def plan_service(seen: Projection, service: Seen) -> Plan:
    """First match wins: config gone, not wanted, impossible, wanted."""
    key = service.key
    there = seen.get(Key(ROUTE.kind, key.namespace, key.name))
    ours = there is not None and service.uid in there.owners
    config = seen.get(Key(CONFIG.kind, key.namespace, str(service.spec.get("configRef"))))
    if config is None and there is not None and ours:
        gone = f"AIMNamespaceConfig {service.spec.get('configRef')} is gone: create it again; the route is left as it is until then"
        return report(service, routing_ready(False, reasons.ROUTE_FAILED, gone), **_kept(service))
    routing = None if config is None else ConfigSpec.model_validate(config.spec).routing
    if routing is None or not routing.auto_create_route:
        why = "the config has no routing" if routing is None else "autoCreateRoute is false"
        removed = act(DeleteObject(there.key, there.uid)) if there is not None and ours and not there.deleting else NOTHING
        refusal: Refusal | None = seen.learned(key, REFUSED)
        if removed.actions and refusal is not None:
            stays = f"{why}, but HTTPRoute {key.name} cannot be removed: {refusal.message}"
            return removed | report(service, routing_ready(False, reasons.ROUTE_FAILED, stays), **_kept(service))
        return removed | report(service, routing_ready(True, reasons.ROUTING_DISABLED, f"{why}: the service is reached inside the cluster only"))
    if there is not None and not ours:
        return report(service, _foreign(service, there))
    problem = _impossible(seen, service, routing.gateway)
    if problem is not None or routing.gateway is None:
        return report(service, routing_ready(False, reasons.ROUTE_FAILED, problem or ""))
    try:
        timeout = timeout_of(service)
    except ValueError as error:
        return report(service, routing_ready(False, reasons.ROUTE_FAILED, str(error)))
    return act(ApplyObject(route(service, routing.gateway, timeout))) | _state(seen, service, there, routing.gateway)


def _foreign(service: Seen, there: Seen) -> ReportedCondition:
    """An HTTPRoute of our name is not ours; what a former service of this name left goes by itself."""
    if there.owner(SERVICE.kind) == service.key:
        return routing_ready(False, reasons.CONFIGURING_ROUTE, "the HTTPRoute of the former service of this name is being removed")
    foreign = f"HTTPRoute {there.key.name} exists and was not made for this service; rename or delete one of them"
    return routing_ready(False, reasons.NAME_CONFLICT, foreign)


def _kept(service: Seen) -> dict[str, Any]:
    return {name: service.status.get(name) for name in ("path", "url")}


def _impossible(seen: Projection, service: Seen, gateway: GatewayReference | None) -> str | None:
    """Why there can be no route; None where there can."""
    if gateway is None:
        return f"AIMNamespaceConfig {service.spec.get('configRef')} has routing without a gateway; set spec.routing.gateway or autoCreateRoute: false"
    if not seen.installed(ROUTE.kind):
        return NO_GATEWAY_API
    first = with_workload_id(seen, service)[0]
    if first.key != service.key:
        return f"service {first.key.name} is older and has the same workload id {workload_id(service)}; change the label of one of them"
    return None


def _state(seen: Projection, service: Seen, there: Seen | None, gateway: GatewayReference) -> Plan:
    """RoutingReady as the gateway sees the route."""
    refusal: Refusal | None = seen.learned(service.key, REFUSED)
    path = path_of(service)
    if refusal is not None:
        refused = f"HTTPRoute {service.key.name} is refused: {refusal.message}"
        return report(service, routing_ready(False, refusal.reason(reasons.ROUTE_FAILED), refused), path=path)
    if there is None:
        creating = routing_ready(False, reasons.CONFIGURING_ROUTE, f"HTTPRoute {service.key.name} is being created")
        return report(service, with_contest(seen, Key(ROUTE.kind, service.key.namespace, service.key.name), creating), path=path)
    address = _address(seen, service, gateway)
    parents = [parent for parent in there.status.get("parents") or () if _speaks_for(parent.get("parentRef") or {}, gateway, there.key.namespace)]
    if parents:
        where = f"{path} on {address}" if address is not None else path
        said = _accepted(there, parents, where, stopped=service.spec.get("replicas", 1) == 0)
    else:
        said = _untaken(seen, service, gateway)
    told = report(service, with_contest(seen, there.key, said), path=path, url=None if address is None else f"{address}{path}")
    return warn_of_contest(seen, there.key, told)


def _untaken(seen: Projection, service: Seen, gateway: GatewayReference) -> ReportedCondition:
    """Nobody has said anything of the route: its gateway has not got to it yet, or there is none."""
    key = Key(GATEWAY.kind, gateway.namespace or service.key.namespace, gateway.name)
    name = f"{gateway.kind} {key.namespace}/{key.name}"
    if gateway.kind != GATEWAY.kind:
        return routing_ready(False, reasons.CONFIGURING_ROUTE, f"waiting for {name} to take HTTPRoute {service.key.name}")
    there = seen.get(key)
    if there is None:
        missing = f"{name} does not exist; create it, or change spec.routing.gateway of AIMNamespaceConfig {service.spec.get('configRef')}"
        return routing_ready(False, reasons.ROUTE_FAILED, missing)
    programmed = there.condition("Programmed") or {}
    why = f"; it is not programmed: {programmed.get('message', '')}" if programmed.get("status") == "False" else ""
    return routing_ready(False, reasons.CONFIGURING_ROUTE, f"waiting for {name} to take HTTPRoute {service.key.name}{why}")


def _accepted(there: Seen, parents: list[dict[str, Any]], where: str, *, stopped: bool) -> ReportedCondition:
    """RouteReady when every parent has accepted this generation of the route and resolved its references; a stopped service has no backend.

    What a gateway said that the route named before does not count: nobody may be there to take it back.
    """
    for parent in parents:
        conditions = {c.get("type"): c for c in parent.get("conditions") or ()}
        for type_ in ("Accepted", "ResolvedRefs"):
            found = conditions.get(type_)
            if found is None or int(found.get("observedGeneration", there.generation)) < there.generation:
                words = f"waiting for gateway {(parent.get('parentRef') or {}).get('name')} to look at HTTPRoute {there.key.name}"
                return routing_ready(False, reasons.CONFIGURING_ROUTE, words)
            waits = found.get("reason") == "BackendNotFound"
            if found.get("status") == "True" or (waits and stopped):
                continue
            name, look = (parent.get("parentRef") or {}).get("name"), f"; see kubectl describe httproute -n {there.key.namespace} {there.key.name}"
            words = f"gateway {name} says {found.get('reason')}: {found.get('message', '')}{'' if waits else look}"
            return routing_ready(False, reasons.CONFIGURING_ROUTE if waits else reasons.ROUTE_FAILED, words)
    return routing_ready(True, reasons.ROUTE_READY, where)


def _speaks_for(parent: dict[str, Any], gateway: GatewayReference, namespace: str | None) -> bool:
    return parent.get("name") == gateway.name and (parent.get("namespace") or namespace) == (gateway.namespace or namespace)


def _address(seen: Projection, service: Seen, reference: GatewayReference) -> str | None:
    """`scheme://host[:port]` of the gateway's listener; None while the Gateway has no address."""
    gateway = seen.get(Key(GATEWAY.kind, reference.namespace or service.key.namespace, reference.name))
    if gateway is None:
        return None
    listeners = gateway.spec.get("listeners") or []
    named = [each for each in listeners if reference.section_name in {None, each.get("name")} and reference.port in {None, each.get("port")}]
    hosts = [address.get("value") for address in gateway.status.get("addresses") or () if address.get("value")]
    if not named or not hosts:
        return None
    scheme, port = ("https", 443) if named[0].get("protocol") == "HTTPS" else ("http", 80)
    hostname = str(named[0].get("hostname") or "")
    host = hostname if hostname and not hostname.startswith("*") else f"[{hosts[0]}]" if ":" in hosts[0] else hosts[0]
    return f"{scheme}://{host}" if named[0].get("port", port) == port else f"{scheme}://{host}:{named[0]['port']}"
