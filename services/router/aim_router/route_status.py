"""RoutingReady of a rendered route, from the conditions that gateways set on it. Pure and total."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from aim_router.desired import DesiredRoute
from aim_router.listeners import address, find_gateway, is_gateway, objects, rejection
from aim_router.parents import answers, is_complete
from aimcontroller.indexes import value_at
from aimcontroller.plan import condition
from aimcontroller.projection import KubeObject, Projection
from aimschema import reasons
from aimschema.kinds import GatewayReference
from aimschema.messages import ReportedCondition

CHANGE_LISTENER = "name a listener that accepts HTTPRoutes in spec.routing.gateway.sectionName"
_BACKEND_NOT_FOUND = "BackendNotFound"
_TEMPORARY = (_BACKEND_NOT_FOUND, "Pending")
"""Reasons of a gateway for False that are temporary."""

routing_ready = partial(condition, reasons.ROUTING_READY)
_failed = partial(routing_ready, False, reasons.ROUTE_FAILED)
_waiting = partial(routing_ready, False, reasons.CONFIGURING_ROUTE)


@dataclass(frozen=True, slots=True)
class RouteView:
    """The route of a service, and its gateway. `gateway` is None if it does not exist, or is of a
    kind that is not watched. `address` is its `scheme://host[:port]`. `answers`: the current
    conditions of each gateway controller."""

    service: KubeObject
    route: KubeObject
    reference: GatewayReference
    path: str
    gateway: KubeObject | None
    address: str | None
    answers: list[dict[str, dict[str, Any]]]

    @classmethod
    def build(
        cls,
        state: Projection,
        service: KubeObject,
        route: KubeObject,
        desired: DesiredRoute,
        path: str,
    ) -> "RouteView":
        """`desired` names a gateway."""
        assert desired.gateway is not None
        namespace, reference = route.key.namespace, desired.gateway
        gateway = find_gateway(state, reference, namespace)
        at = None
        if gateway is not None:
            at = address(gateway, reference, namespace, desired.hostnames)
        found = answers(route, reference)
        return cls(service, route, reference, path, gateway, at, found)

    @property
    def unmet(self) -> dict[str, Any] | None:
        """The first condition that is not True. A stopped service has no backend."""
        return next(iter(self._unmet), None)

    @property
    def failed(self) -> dict[str, Any] | None:
        """The first condition that is False, and not for a while only."""
        failures = (
            each
            for each in self._unmet
            if each.get("status") == "False" and each.get("reason") not in _TEMPORARY
        )
        return next(failures, None)

    @property
    def is_answered(self) -> bool:
        return bool(self.answers)

    @property
    def is_accepted(self) -> bool:
        """A gateway has accepted this generation of the route."""
        return any(map(is_complete, self.answers))

    @property
    def is_gateway_watched(self) -> bool:
        return is_gateway(self.reference)

    @property
    def listener_rejection(self) -> str | None:
        """Why the route attaches to no listener of the gateway."""
        if self.gateway is None:
            return None
        return rejection(self.gateway, self.reference, self.route.key.namespace)

    @property
    def _unmet(self) -> list[dict[str, Any]]:
        is_stopped = self.service.spec.get("replicas", 1) == 0
        excused = _BACKEND_NOT_FOUND if is_stopped else None
        return [
            each
            for answer in self.answers
            for each in answer.values()
            if each.get("status") != "True" and (excused is None or each.get("reason") != excused)
        ]


def route_condition(view: RouteView) -> ReportedCondition:
    """First match wins."""
    match view:
        case RouteView(failed=dict() as unmet):
            return _failed(_gateway_failure(view, unmet))
        case RouteView(unmet=dict() as unmet):
            return _waiting(_quote(view, unmet))
        case RouteView(is_accepted=True):
            return routing_ready(True, reasons.ROUTE_READY, _ready_at(view))
        case RouteView(is_answered=True):
            return _waiting(
                f"waiting for gateway {view.reference.name} to accept HTTPRoute"
                f" {view.route.key.name}"
            )
        case RouteView(is_gateway_watched=False):
            return _waiting(_waiting_for_gateway(view))
        case RouteView(gateway=None):
            return _failed(
                f"{_gateway_name(view)} does not exist; create it, or change spec.routing.gateway"
                f" of {_holder(view)}"
            )
        case RouteView(listener_rejection=str() as why):
            return _failed(f"{why}; {CHANGE_LISTENER} of {_holder(view)}")
        case _:
            return _waiting(_waiting_for_gateway(view) + _not_programmed(view))


def _gateway_failure(view: RouteView, unmet: dict[str, Any]) -> str:
    key = view.route.key
    why = view.listener_rejection
    hint = f"see kubectl describe httproute -n {key.namespace} {key.name}"
    return "; ".join([_quote(view, unmet), *([] if why is None else [why]), hint])


def _quote(view: RouteView, unmet: dict[str, Any]) -> str:
    texts = [str(text) for text in (unmet.get("reason"), unmet.get("message")) if text]
    return f"gateway {view.reference.name} reports {': '.join(texts)}"


def _ready_at(view: RouteView) -> str:
    return view.path if view.address is None else f"{view.path} on {view.address}"


def _waiting_for_gateway(view: RouteView) -> str:
    return f"waiting for {_gateway_name(view)} to accept HTTPRoute {view.service.key.name}"


def _not_programmed(view: RouteView) -> str:
    conditions = [] if view.gateway is None else objects(view.gateway.status, "conditions")
    return "".join(
        f"; it is not programmed: {each.get('message') or ''}"
        for each in conditions
        if (each.get("type"), each.get("status")) == ("Programmed", "False")
    )


def _gateway_name(view: RouteView) -> str:
    reference = view.reference
    namespace = reference.namespace or view.service.key.namespace
    return f"{reference.kind} {namespace}/{reference.name}"


def _holder(view: RouteView) -> str:
    """The object that names the gateway."""
    if value_at(view.service.spec, "routing", "gateway") is not None:
        return f"AIMService {view.service.key.name}"
    return f"AIMNamespaceConfig {view.service.spec.get('configRef')}"
