"""One AIMService with everything its route depends on, gathered once. Pure.

Nothing here decides: a property answers what is true, `plan` what follows from it.
"""

from dataclasses import dataclass

from aim_router.projection import first_with_workload_id
from aim_router.render import timeout_of
from aimcontroller.projection import REJECTED, ApplyRejected, KubeObject, Projection
from aimschema.kinds import ConfigSpec, GatewayReference, Routing
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
    existing: KubeObject | None
    rejection: ApplyRejected | None

    @classmethod
    def build(cls, state: Projection, service: KubeObject) -> "ServiceView":
        key = service.key
        config = state.get(Key(CONFIG.kind, key.namespace, str(service.spec.get("configRef"))))
        return cls(
            state=state,
            service=service,
            config=config,
            config_spec=None if config is None else config.spec_as(ConfigSpec.model_validate),
            existing=state.get(Key(ROUTE.kind, key.namespace, key.name)),
            rejection=state.observation(key, REJECTED),
        )

    @property
    def routing(self) -> Routing | None:
        return None if self.config_spec is None else self.config_spec.routing

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
    def uses_default_config(self) -> bool:
        """The default config may be missing."""
        return bool(self.service.spec.get("configRef", DEFAULT_CONFIG) == DEFAULT_CONFIG)

    @property
    def disabled_by(self) -> str | None:
        """Why the config requests no route; None if it requests one."""
        if self.routing is None:
            return "the config has no routing"
        return None if self.routing.auto_create_route else "autoCreateRoute is false"

    @property
    def reference(self) -> GatewayReference | None:
        """The gateway that the config names."""
        return None if self.routing is None else self.routing.gateway

    @property
    def is_gateway_api_installed(self) -> bool:
        return self.state.is_kind_served(ROUTE.kind)

    @property
    def older_service(self) -> KubeObject | None:
        """The service that gets the route of this workload id, if it is another one."""
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
    def timeout_error(self) -> str | None:
        """What is wrong with the annotation of the request timeout."""
        try:
            timeout_of(self.service)
        except ValueError as error:
            return str(error)
        return None
