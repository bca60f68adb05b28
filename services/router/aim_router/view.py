"""One AIMService with everything its route depends on, gathered once. Pure.

Nothing here decides: a property answers what is true, `plan` what follows from it.
"""

from dataclasses import dataclass

from aim_router.conflicts import host_names, older_route
from aim_router.desired import (
    NO_CONFIG,
    DesiredRoute,
    RouteOptions,
    checked_timeout,
    desired_route,
    forbidden_host,
    is_below_namespace,
    path_of,
    routing_of,
)
from aim_router.projection import first_with_workload_id
from aimcontroller.indexes import route_path
from aimcontroller.projection import REJECTED, ApplyRejected, KubeObject, Projection
from aimschema import labels
from aimschema.kinds import ConfigSpec, GatewayReference
from aimschema.names import DEFAULT_CONFIG
from aimschema.resources import CONFIG, ROUTE, TEMPLATE, Key


@dataclass(frozen=True, slots=True)
class ServiceView:
    """One service, its config and its route.

    `existing` is the HTTPRoute with the name of the service, of any owner. `rejection` is the last
    error of the API server.
    """

    state: Projection
    service: KubeObject
    config: KubeObject | None
    config_spec: ConfigSpec | None
    desired: DesiredRoute
    options: RouteOptions
    existing: KubeObject | None
    rejection: ApplyRejected | None

    @classmethod
    def build(cls, state: Projection, service: KubeObject, options: RouteOptions) -> "ServiceView":
        key = service.key
        own = service.spec_as(routing_of)
        config_name = str(service.spec.get("configRef"))
        config = state.get(Key(CONFIG.kind, key.namespace, config_name))
        config_spec = None if config is None else config.spec_as(ConfigSpec.model_validate)
        routing = None if config_spec is None else config_spec.routing
        return cls(
            state=state,
            service=service,
            config=config,
            config_spec=config_spec,
            desired=desired_route(
                service, own, routing, NO_CONFIG if routing is None else config_name
            ),
            options=options,
            existing=state.get(Key(ROUTE.kind, key.namespace, key.name)),
            rejection=state.observation(key, REJECTED),
        )

    @property
    def owned(self) -> KubeObject | None:
        """The route, if this service owns it."""
        existing = self.existing
        is_own = existing is not None and self.service.uid in existing.owners
        return existing if is_own else None

    @property
    def name_conflict(self) -> KubeObject | None:
        """The route, if this service does not own it."""
        return self.existing if self.owned is None else None

    @property
    def is_config_deleted(self) -> bool:
        """The route was made with a config that does not exist any more. A route with settings of
        its service records whether a config had routing."""
        if self.config is not None or self.owned is None or self.desired.is_disabled_by_service:
            return False
        return self.owned.annotations.get(labels.ANNOTATION_CONFIG) != NO_CONFIG

    @property
    def uses_default_config(self) -> bool:
        """The default config may be missing."""
        return bool(self.service.spec.get("configRef", DEFAULT_CONFIG) == DEFAULT_CONFIG)

    @property
    def disabled_by(self) -> str | None:
        """Why no route is requested; None if one is."""
        return self.desired.disabled_by

    @property
    def reference(self) -> GatewayReference | None:
        """The gateway that the service or its config names."""
        return self.desired.gateway

    @property
    def path(self) -> str:
        """The path on the gateway. Raises ValueError if `invalid` says so."""
        any_path = self.options.any_path
        return path_of(self.service, self.desired.path_template, any_path=any_path)

    @property
    def conflicting_route(self) -> KubeObject | None:
        """An older route that has the requests of this one."""
        return older_route(self.state, self.service, self.desired, self.path)

    @property
    def is_gateway_api_installed(self) -> bool:
        return self.state.is_kind_served(ROUTE.kind)

    @property
    def older_service(self) -> KubeObject | None:
        """The service that gets the route of this workload id, if it is another one. With a path
        template, the path decides."""
        if self.desired.path_template is not None:
            return None
        first = first_with_workload_id(self.state, self.service)
        return None if first.key == self.service.key else first

    @property
    def missing_template(self) -> str | None:
        """The template of the service, if it does not exist and there is no route yet."""
        name = self.service.spec.get("templateRef")
        if not isinstance(name, str) or self.existing is not None:
            return None
        key = Key(TEMPLATE.kind, self.service.key.namespace, name)
        return name if self.state.is_missing(key) else None

    @property
    def exceeds_limits(self) -> bool:
        """The existing route has a host name or a path that its namespace may not have (any
        more)."""
        if self.owned is None:
            return False
        namespace, path = str(self.service.key.namespace), route_path(self.owned.body)
        host = forbidden_host(host_names(self.owned), namespace, self.options)
        is_outside = path is not None and not is_below_namespace(path, namespace)
        return host is not None or (is_outside and not self.options.any_path)

    @property
    def invalid(self) -> str | None:
        """What is wrong with the routing of the service or of its config."""
        namespace = str(self.service.key.namespace)
        host = forbidden_host(self.desired.hostnames, namespace, self.options)
        if host is not None:
            return (
                f"routing.hostnames has {host}, which namespace {namespace} may not use; change it,"
                " or allow it in AIM_ROUTE_HOSTS of aim-router"
            )
        try:
            checked_timeout(self.desired.timeout)
            _ = self.path
        except ValueError as error:
            return str(error)
        return None
