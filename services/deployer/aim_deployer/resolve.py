"""Resolved of one service: template, model, config, GPU, discovery result, caches. Pure and total.

The InferenceService gets the image of the discovery result: a changed image rolls out only after
its discovery.
"""

from dataclasses import dataclass

from aim_deployer import resolution_errors as errors
from aim_deployer.gpus import Gpu, GpuTable
from aim_deployer.inputs import DiscoveryResult, ServiceInputs
from aim_deployer.resolution_errors import ResolutionError
from aimcontroller.projection import KubeObject, Projection
from aimcontroller.queries import caches_of
from aimschema import labels, reasons
from aimschema.discovery_result import Discovered
from aimschema.kinds import ConfigSpec, ServiceSpec, TemplateSpec

__all__ = ["ResolutionError", "ResolvedService", "Source", "resolve"]


@dataclass(frozen=True, slots=True)
class Source:
    """A model source, its cache if one exists, and its path for the runtime: (org, model)."""

    uri: str
    path: tuple[str, str]
    cache: KubeObject | None

    @property
    def warm(self) -> bool:
        return (
            self.cache is not None
            and not self.is_evicting
            and self.cache.status.get("status") == reasons.AVAILABLE_STATE
        )

    @property
    def is_evicting(self) -> bool:
        """The cacher is about to delete the cache unless its mark is removed."""
        return self.cache is not None and labels.ANNOTATION_EVICTING in self.cache.annotations


@dataclass(frozen=True, slots=True)
class ResolvedService:
    """All inputs of a service. `image` is the image of the discovery result."""

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
    """`own_namespace` is the control plane's, which has the records of catalogue images."""
    inputs = ServiceInputs.build(state, service, gpus, own_namespace)
    match inputs.template:
        case None:
            return errors.template_missing(inputs)
        case KubeObject(deleting=True) as template:
            return errors.template_deleted(template)
        case template:
            return resolve_template(inputs, template, template.spec_as(TemplateSpec.model_validate))


def resolve_template(
    inputs: ServiceInputs, template: KubeObject, spec: TemplateSpec
) -> ResolvedService | ResolutionError:
    """First match wins."""
    match inputs:
        case ServiceInputs(model=model) if model != spec.model:
            return errors.other_model(inputs, spec)
        case ServiceInputs(is_model_known=False):
            return errors.model_missing(inputs)
        case ServiceInputs(is_config_missing=True):
            return errors.config_missing(inputs)
        case ServiceInputs(gpus=gpus) if spec.gpu_model not in gpus:
            return errors.gpu_unknown(inputs, spec)
        case ServiceInputs(result=DiscoveryResult() as result):
            return resolve_result(inputs, template, result)
        case ServiceInputs(has_discovery_failed=True):
            return errors.discovery_failed(template)
        case _:
            return errors.not_discovered(template)


def resolve_result(
    inputs: ServiceInputs, template: KubeObject, result: DiscoveryResult
) -> ResolvedService | ResolutionError:
    """First match wins."""
    match result:
        case DiscoveryResult(image=None):
            return errors.image_unnamed(result)
        case DiscoveryResult(image=image) if image not in inputs.allowed_images:
            return errors.image_not_allowed(inputs, result)
        case DiscoveryResult(source_without_path=str() as uri):
            return errors.source_without_path(uri)
        case DiscoveryResult(has_equal_paths=True):
            return errors.equal_paths(result)
        case _ if inputs.config is None and inputs.is_config_in_use:
            return errors.config_deleted(inputs)
        case _:
            return _resolved_service(inputs, template, result)


def _resolved_service(
    inputs: ServiceInputs, template: KubeObject, result: DiscoveryResult
) -> ResolvedService:
    template_spec = template.spec_as(TemplateSpec.model_validate)
    config = inputs.config
    return ResolvedService(
        service=inputs.service,
        spec=inputs.spec,
        template=template,
        template_spec=template_spec,
        image=str(result.image),
        config=None if config is None else config.spec_as(ConfigSpec.model_validate),
        found=result.found,
        gpu=inputs.gpus[template_spec.gpu_model],
        sources=tuple(
            Source(
                uri, path, next(iter(caches_of(inputs.state, template.key.namespace, uri)), None)
            )
            for uri, path in result.paths.items()
            if path is not None
        ),
    )
