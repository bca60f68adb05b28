"""The objects that an AIMService names, gathered once. Pure.

Nothing here decides: a property answers what is true, `resolve` what follows from it.
"""

from dataclasses import dataclass

from aim_deployer.existing import images, is_running, uses_config
from aim_deployer.gpus import GpuTable
from aim_deployer.projection import predictor_pods
from aimcontroller.projection import KubeObject, Projection
from aimcontroller.queries import known_images, models_named, previous_discovery
from aimschema import reasons
from aimschema.discovery_result import IMAGE_KEY, Discovered, from_config_map
from aimschema.kinds import ServiceSpec
from aimschema.names import DEFAULT_CONFIG, mount_path_of
from aimschema.resources import CONFIG, INFERENCE_SERVICE, TEMPLATE, Key


@dataclass(frozen=True, slots=True)
class DiscoveryResult:
    """The discovery result of a template, `found`, and the ConfigMap that has it."""

    config_map: KubeObject
    found: Discovered

    @property
    def image(self) -> str | None:
        """The image that the result is of."""
        return (self.config_map.body.get("data") or {}).get(IMAGE_KEY) or None

    @property
    def paths(self) -> dict[str, tuple[str, str] | None]:
        """The path of each model source for the runtime, (org, model); None where it has none."""
        return {uri: mount_path_of(uri) for uri in self.found.sources}

    @property
    def source_without_path(self) -> str | None:
        return next((uri for uri, path in self.paths.items() if path is None), None)

    @property
    def has_equal_paths(self) -> bool:
        return len(set(self.paths.values())) < len(self.paths)


@dataclass(frozen=True, slots=True)
class ServiceInputs:
    """What a service names; None for what does not exist.

    `own_namespace` is the control plane's, which has the records of catalogue images. `existing` is
    the InferenceService of the service.
    """

    state: Projection
    service: KubeObject
    spec: ServiceSpec
    gpus: GpuTable
    own_namespace: str
    template: KubeObject | None
    result: DiscoveryResult | None
    config: KubeObject | None
    existing: KubeObject | None

    @classmethod
    def build(
        cls, state: Projection, service: KubeObject, gpus: GpuTable, own_namespace: str
    ) -> "ServiceInputs":
        namespace = service.key.namespace
        spec = service.spec_as(ServiceSpec.model_validate)
        template = state.get(Key(TEMPLATE.kind, namespace, spec.template_ref))
        runtime = state.get(Key(INFERENCE_SERVICE.kind, namespace, service.key.name))
        is_own = runtime is not None and service.uid in runtime.owners
        return cls(
            state=state,
            service=service,
            spec=spec,
            gpus=gpus,
            own_namespace=own_namespace,
            template=template,
            result=None if template is None else _discovery_result(state, template),
            config=state.get(Key(CONFIG.kind, namespace, spec.config_ref)),
            existing=runtime if is_own else None,
        )

    @property
    def model(self) -> str:
        return self.spec.model

    @property
    def is_model_known(self) -> bool:
        return bool(models_named(self.state, self.spec.model))

    @property
    def is_config_missing(self) -> bool:
        """The default config may be missing."""
        return self.config is None and self.spec.config_ref != DEFAULT_CONFIG

    @property
    def has_discovery_failed(self) -> bool:
        """The reason of a Failed template decides: a cache that cannot be filled is no failure of
        discovery."""
        if self.template is None or self.template.status.get("status") != reasons.FAILED_STATE:
            return False
        ready = self.template.condition(reasons.READY) or {}
        is_cache_failure = ready.get("reason") == reasons.WARM_FAILED
        return not is_cache_failure and not self.template.is_condition_true(reasons.DISCOVERED)

    @property
    def allowed_images(self) -> frozenset[str]:
        """The image that the service runs stays allowed, even if the catalogue was replaced."""
        running = frozenset[str]() if self.existing is None else images(self.existing)
        return known_images(self.state, self.spec.model, self.own_namespace) | running

    @property
    def is_config_in_use(self) -> bool:
        """Pods run with pull secrets or credentials of a config."""
        return (
            self.existing is not None
            and is_running(predictor_pods(self.state, self.service.key))
            and uses_config(self.existing)
        )


def _discovery_result(state: Projection, template: KubeObject) -> DiscoveryResult | None:
    config_map = previous_discovery(state, template)
    found = None if config_map is None else config_map.body_as(from_config_map)
    return None if config_map is None or found is None else DiscoveryResult(config_map, found)
