"""What an AIMService is made from: template, model, config, discovery's answer, GPU, caches.
Pure and total."""

from dataclasses import dataclass

from aim_deployer.gpus import Gpu, GpuTable
from aimcontroller.projection import Projection, Seen
from aimcontroller.queries import caches_of, kept_answer, known_images, models_named
from aimcontroller.removal import removal
from aimschema import reasons
from aimschema.credentials import DEFAULT_CONFIG
from aimschema.discovery_result import IMAGE_KEY, Discovered, from_config_map
from aimschema.kinds import ConfigSpec, ServiceSpec, TemplateSpec
from aimschema.names import mount_path_of
from aimschema.resources import CONFIG, INFERENCE_SERVICE, TEMPLATE, Key


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why a service cannot be made: reason and message of Resolved."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Source:
    """A model source, its cache where there is one, and where the runtime looks for it: (org,
    model)."""

    uri: str
    path: tuple[str, str]
    cache: Seen | None

    @property
    def warm(self) -> bool:
        return self.cache is not None and self.cache.status.get("status") == reasons.AVAILABLE_STATE


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything a service is made from. `image` is the one discovery asked, so that a changed
    image rolls out only when it has answered."""

    service: Seen
    spec: ServiceSpec
    template: Seen
    template_spec: TemplateSpec
    image: str
    config: ConfigSpec | None
    found: Discovered
    gpu: Gpu
    sources: tuple[Source, ...]


def resolve(
    seen: Projection, service: Seen, gpus: GpuTable, own_namespace: str = ""
) -> Parts | Unresolved:
    """First match wins. `own_namespace`: the control plane's, where the images of the catalogue
    are recorded."""
    spec, namespace = ServiceSpec.model_validate(service.spec), service.key.namespace
    template = seen.get(Key(TEMPLATE.kind, namespace, spec.template_ref))
    if template is not None and template.deleting:
        return Unresolved(
            reasons.TEMPLATE_NOT_FOUND,
            f"{removal(template)}; create it again or change spec.templateRef",
        )
    if template is None:
        return Unresolved(
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
        return Unresolved(reasons.VALIDATION_FAILED, differs)
    if not models_named(seen, spec.model):
        return Unresolved(
            reasons.MODEL_NOT_FOUND,
            f"no AIMClusterModel has spec.name {spec.model}; create it or change spec.model",
        )
    config = seen.get(Key(CONFIG.kind, namespace, spec.config_ref))
    if config is None and spec.config_ref != DEFAULT_CONFIG:
        missing = (
            f"AIMNamespaceConfig {spec.config_ref} does not exist in this namespace; create it or"
            " change spec.configRef"
        )
        return Unresolved(reasons.RUNTIME_CONFIG_MISSING, missing)
    if template_spec.gpu_model not in gpus:
        known = ", ".join(sorted(gpus))
        unknown = (
            f"GPU model {template_spec.gpu_model} of template {spec.template_ref} is not in the GPU"
            f" table ({known}); make the template anew for one of these, or add it to the table"
            " (AIM_GPU_TABLE of aim-deployer)"
        )
        return Unresolved(reasons.UNKNOWN_GPU, unknown)
    images = known_images(seen, spec.model, own_namespace) | _running_images(seen, service)
    return _with_answer(seen, service, template, config, gpus[template_spec.gpu_model], images)


def _running_images(seen: Projection, service: Seen) -> frozenset[str]:
    """What the service runs goes on, also where the catalogue was replaced."""
    there = seen.get(Key(INFERENCE_SERVICE.kind, service.key.namespace, service.key.name))
    predictor = (
        None if there is None or service.uid not in there.owners else there.spec.get("predictor")
    )
    containers = predictor.get("containers") if isinstance(predictor, dict) else None
    found = containers if isinstance(containers, list) else []
    return frozenset(
        str(each["image"]) for each in found if isinstance(each, dict) and "image" in each
    )


def _discovery_failed(template: Seen) -> bool:
    """Of a template that is Failed the reason decides: a cache that cannot be filled is no
    failure of discovery."""
    ready = template.condition(reasons.READY) or {}
    failed = template.status.get("status") == reasons.FAILED_STATE
    return (
        failed
        and not template.holds(reasons.DISCOVERED)
        and ready.get("reason") != reasons.WARM_FAILED
    )


def _with_answer(
    seen: Projection,
    service: Seen,
    template: Seen,
    config: Seen | None,
    gpu: Gpu,
    images: frozenset[str],
) -> Parts | Unresolved:
    """`images`: those whose answer counts."""
    kept = kept_answer(seen, template)
    found = None if kept is None else from_config_map(kept.body)
    if kept is None or found is None:
        said = template.condition(reasons.DISCOVERED) or {}
        if _discovery_failed(template):
            return Unresolved(
                reasons.TEMPLATE_FAILED,
                f"template {template.key.name} failed: {said.get('message', '')}",
            )
        return Unresolved(
            reasons.TEMPLATE_NOT_READY,
            f"template {template.key.name} is not discovered yet:"
            f" {said.get('message', 'discovery has not begun')}",
        )
    image = (kept.body.get("data") or {}).get(IMAGE_KEY)
    if not image:
        return Unresolved(
            reasons.TEMPLATE_FAILED,
            f"ConfigMap {kept.key.name} does not say which image answered; delete it to ask again",
        )
    if image not in images:
        model = str(template.spec.get("model"))
        forged = (
            f"ConfigMap {kept.key.name} names image {image[:200]}, which AIMClusterModel with"
            f" spec.name {model} neither has nor had"
        )
        return Unresolved(
            reasons.TEMPLATE_NOT_READY,
            f"{forged}; discovery asks the image of the AIMClusterModel again",
        )
    paths = {uri: mount_path_of(uri) for uri in found.sources}
    wrong = next((uri for uri, path in paths.items() if path is None), None)
    if wrong is not None:
        return Unresolved(
            reasons.VALIDATION_FAILED,
            f"model source {wrong} does not end in <org>/<model>, where the runtime looks: correct"
            " what the image of the template answers",
        )
    if len(set(paths.values())) < len(paths):
        return Unresolved(
            reasons.VALIDATION_FAILED,
            f"two of the model sources have the same <org>/<model>: {', '.join(paths)}; correct"
            " what the image answers",
        )
    return Parts(
        service=service,
        spec=ServiceSpec.model_validate(service.spec),
        template=template,
        template_spec=TemplateSpec.model_validate(template.spec),
        image=image,
        config=None if config is None else ConfigSpec.model_validate(config.spec),
        found=found,
        gpu=gpu,
        sources=tuple(
            Source(uri, path, next(iter(caches_of(seen, service.key.namespace, uri)), None))
            for uri, path in paths.items()
            if path is not None
        ),
    )
