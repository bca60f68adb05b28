"""Resolves the inputs of an AIMService: template, model, config, discovery result, GPU, caches.
Pure and total."""

from dataclasses import dataclass

from aim_deployer.gpus import Gpu, GpuTable
from aimcontroller.projection import KubeObject, Projection
from aimcontroller.queries import caches_of, known_images, models_named, previous_discovery
from aimcontroller.removal import removal
from aimschema import reasons
from aimschema.credentials import DEFAULT_CONFIG
from aimschema.discovery_result import IMAGE_KEY, Discovered, from_config_map
from aimschema.kinds import ConfigSpec, ServiceSpec, TemplateSpec
from aimschema.names import mount_path_of
from aimschema.resources import CONFIG, INFERENCE_SERVICE, TEMPLATE, Key


@dataclass(frozen=True, slots=True)
class ResolutionError:
    """The reason and message of Resolved=False."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Source:
    """A model source, its cache if one exists, and its path for the runtime: (org, model)."""

    uri: str
    path: tuple[str, str]
    cache: KubeObject | None

    @property
    def warm(self) -> bool:
        return self.cache is not None and self.cache.status.get("status") == reasons.AVAILABLE_STATE


@dataclass(frozen=True, slots=True)
class ResolvedService:
    """All inputs of a service. `image` is the image of the discovery result: a changed image rolls
    out only after its discovery."""

    service: KubeObject
    spec: ServiceSpec
    template: KubeObject
    template_spec: TemplateSpec
    image: str
    config: ConfigSpec | None
    found: Discovered
    gpu: Gpu
    sources: tuple[Source, ...]


def resolve(
    state: Projection, service: KubeObject, gpus: GpuTable, own_namespace: str = ""
) -> ResolvedService | ResolutionError:
    """Resolve the inputs; the first error wins. `own_namespace` is the control plane's, which has
    the records of catalogue images."""
    spec, namespace = ServiceSpec.model_validate(service.spec), service.key.namespace
    template = state.get(Key(TEMPLATE.kind, namespace, spec.template_ref))
    if template is not None and template.deleting:
        return ResolutionError(
            reasons.TEMPLATE_NOT_FOUND,
            f"{removal(template)}; create it again or change spec.templateRef",
        )
    if template is None:
        return ResolutionError(
            reasons.TEMPLATE_NOT_FOUND,
            f"AIMServiceTemplate {spec.template_ref} does not exist in this namespace; create it or"
            " change spec.templateRef",
        )
    template_spec = TemplateSpec.model_validate(template.spec)
    if template_spec.model != spec.model:
        differs = (
            f"spec.model is {spec.model}, but template {spec.template_ref} is for"
            f" {template_spec.model}; change one of them"
        )
        return ResolutionError(reasons.VALIDATION_FAILED, differs)
    if not models_named(state, spec.model):
        return ResolutionError(
            reasons.MODEL_NOT_FOUND,
            f"no AIMClusterModel has spec.name {spec.model}; create it or change spec.model",
        )
    config = state.get(Key(CONFIG.kind, namespace, spec.config_ref))
    if config is None and spec.config_ref != DEFAULT_CONFIG:
        missing = (
            f"AIMNamespaceConfig {spec.config_ref} does not exist in this namespace; create it or"
            " change spec.configRef"
        )
        return ResolutionError(reasons.RUNTIME_CONFIG_MISSING, missing)
    if template_spec.gpu_model not in gpus:
        known = ", ".join(sorted(gpus))
        unknown = (
            f"GPU model {template_spec.gpu_model} of template {spec.template_ref} is not in the GPU"
            f" table ({known}); make the template anew for one of these, or add it to the table"
            " (AIM_GPU_TABLE of aim-deployer)"
        )
        return ResolutionError(reasons.UNKNOWN_GPU, unknown)
    images = known_images(state, spec.model, own_namespace) | _running_images(state, service)
    return _with_answer(state, service, template, config, gpus[template_spec.gpu_model], images)


def _running_images(state: Projection, service: KubeObject) -> frozenset[str]:
    """The image that the service runs stays allowed, even if the catalogue was replaced."""
    existing = state.get(Key(INFERENCE_SERVICE.kind, service.key.namespace, service.key.name))
    predictor = (
        None
        if existing is None or service.uid not in existing.owners
        else existing.spec.get("predictor")
    )
    containers = predictor.get("containers") if isinstance(predictor, dict) else None
    found = containers if isinstance(containers, list) else []
    return frozenset(
        str(each["image"]) for each in found if isinstance(each, dict) and "image" in each
    )


def _discovery_failed(template: KubeObject) -> bool:
    """The reason of a Failed template decides: a cache that cannot be filled is no failure of
    discovery."""
    ready = template.condition(reasons.READY) or {}
    failed = template.status.get("status") == reasons.FAILED_STATE
    return (
        failed
        and not template.holds(reasons.DISCOVERED)
        and ready.get("reason") != reasons.WARM_FAILED
    )


def _with_answer(
    state: Projection,
    service: KubeObject,
    template: KubeObject,
    config: KubeObject | None,
    gpu: Gpu,
    images: frozenset[str],
) -> ResolvedService | ResolutionError:
    """The discovery result. `images` are the images that it may come from."""
    answer = previous_discovery(state, template)
    found = None if answer is None else from_config_map(answer.body)
    if answer is None or found is None:
        discovered = template.condition(reasons.DISCOVERED) or {}
        if _discovery_failed(template):
            return ResolutionError(
                reasons.TEMPLATE_FAILED,
                f"template {template.key.name} failed: {discovered.get('message', '')}",
            )
        return ResolutionError(
            reasons.TEMPLATE_NOT_READY,
            f"template {template.key.name} is not discovered yet:"
            f" {discovered.get('message', 'discovery has not begun')}",
        )
    image = (answer.body.get("data") or {}).get(IMAGE_KEY)
    if not image:
        return ResolutionError(
            reasons.TEMPLATE_FAILED,
            f"ConfigMap {answer.key.name} does not say which image answered; delete it to ask"
            " again",
        )
    if image not in images:
        model = str(template.spec.get("model"))
        forged = (
            f"ConfigMap {answer.key.name} names image {image[:200]}, which AIMClusterModel with"
            f" spec.name {model} neither has nor had"
        )
        return ResolutionError(
            reasons.TEMPLATE_NOT_READY,
            f"{forged}; discovery asks the image of the AIMClusterModel again",
        )
    paths = {uri: mount_path_of(uri) for uri in found.sources}
    wrong = next((uri for uri, path in paths.items() if path is None), None)
    if wrong is not None:
        return ResolutionError(
            reasons.VALIDATION_FAILED,
            f"model source {wrong} does not end in <org>/<model>, where the runtime looks: correct"
            " what the image of the template answers",
        )
    if len(set(paths.values())) < len(paths):
        return ResolutionError(
            reasons.VALIDATION_FAILED,
            f"two of the model sources have the same <org>/<model>: {', '.join(paths)}; correct"
            " what the image answers",
        )
    return ResolvedService(
        service=service,
        spec=ServiceSpec.model_validate(service.spec),
        template=template,
        template_spec=TemplateSpec.model_validate(template.spec),
        image=image,
        config=None if config is None else ConfigSpec.model_validate(config.spec),
        found=found,
        gpu=gpu,
        sources=tuple(
            Source(uri, path, next(iter(caches_of(state, service.key.namespace, uri)), None))
            for uri, path in paths.items()
            if path is not None
        ),
    )
