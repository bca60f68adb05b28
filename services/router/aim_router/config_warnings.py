"""Warnings on an AIMNamespaceConfig about routing that gives no service a route, or attaches routes
to too many listeners. Pure."""

from dataclasses import dataclass

from aim_router.listeners import attached_listeners, find_gateway, is_gateway, objects, rejection
from aim_router.reporting import NO_GATEWAY_API
from aim_router.route_status import CHANGE_LISTENER
from aimcontroller.plan import Plan, report_warnings
from aimcontroller.projection import KubeObject, Projection
from aimschema import reasons
from aimschema.kinds import ConfigSpec, GatewayReference, Routing
from aimschema.resources import ROUTE


@dataclass(frozen=True, slots=True)
class ConfigView:
    """A config that requests routes, and its gateway. `gateway` is None if it does not exist, or is
    of a kind that is not watched."""

    state: Projection
    config: KubeObject
    reference: GatewayReference
    gateway: KubeObject | None
    has_hostnames: bool

    @property
    def is_gateway_api_installed(self) -> bool:
        return self.state.is_kind_served(ROUTE.kind)

    @property
    def is_gateway_watched(self) -> bool:
        return is_gateway(self.reference)

    @property
    def missing_listener(self) -> str | None:
        """The sectionName, if the gateway has no such listener."""
        section = self.reference.section_name
        return section if section not in self.listener_names else None

    @property
    def listener_names(self) -> list[str]:
        listeners = [] if self.gateway is None else objects(self.gateway.spec, "listeners")
        return [str(listener.get("name")) for listener in listeners]

    @property
    def rejection(self) -> str | None:
        """Why routes attach to no listener of the gateway."""
        if self.gateway is None:
            return None
        return rejection(self.gateway, self.reference, self.config.key.namespace)

    @property
    def gateway_name(self) -> str:
        namespace = self.reference.namespace or self.config.key.namespace
        return f"Gateway {namespace}/{self.reference.name}"


def plan_config(state: Projection, config: KubeObject) -> Plan:
    routing = config.spec_as(ConfigSpec.model_validate).routing
    warnings = []
    if routing is not None and routing.auto_create_route:
        warnings = _warnings(state, config, routing)
    return report_warnings(state, config, reasons.ROUTER, *warnings)


def _warnings(state: Projection, config: KubeObject, routing: Routing) -> list[tuple[str, str]]:
    """Warnings as (reason, message)."""
    reference = routing.gateway
    if reference is None:
        message = (
            "spec.routing has no gateway, so no service gets a route; set spec.routing.gateway, or"
            " spec.routing.autoCreateRoute to false"
        )
        return [(reasons.ROUTE_FAILED, message)]
    gateway = find_gateway(state, reference, config.key.namespace)
    view = ConfigView(state, config, reference, gateway, bool(routing.hostnames))
    failure = _routing_failure(view)
    if failure is not None:
        return [(reasons.ROUTE_FAILED, failure)]
    too_many = _several_listeners(view)
    return [] if too_many is None else [(reasons.SEVERAL_LISTENERS, too_many)]


def _routing_failure(view: ConfigView) -> str | None:
    """Why no service gets a route; first match wins."""
    match view:
        case ConfigView(is_gateway_api_installed=False):
            return (
                f"spec.routing requests routes, but {NO_GATEWAY_API}, or set"
                " spec.routing.autoCreateRoute to false"
            )
        case ConfigView(is_gateway_watched=False):
            return None
        case ConfigView(gateway=None):
            return (
                f"spec.routing.gateway names {view.gateway_name}, which does not exist; create it,"
                " or change the field"
            )
        case ConfigView(missing_listener=str() as section):
            return (
                f"spec.routing.gateway.sectionName names listener {section}, but"
                f" {view.gateway_name} has {', '.join(view.listener_names) or 'none'}; change the"
                " field"
            )
        case ConfigView(rejection=str() as why):
            return f"{why}; {CHANGE_LISTENER}"
        case _:
            return None


def _several_listeners(view: ConfigView) -> str | None:
    gateway = view.gateway
    if gateway is None or view.reference.section_name is not None or view.has_hostnames:
        return None
    listeners = attached_listeners(gateway, view.reference, view.config.key.namespace)
    if len(listeners) < 2:
        return None
    return (
        f"spec.routing.gateway has no sectionName, so routes attach to {len(listeners)}"
        f" listeners of Gateway {gateway.key.namespace}/{gateway.key.name}:"
        f" {', '.join(map(str, listeners))}; set spec.routing.gateway.sectionName to one of them,"
        " or spec.routing.hostnames"
    )
