"""The reason and message of Resolved=False: an input is missing or does not fit. Pure."""

from dataclasses import dataclass

from aim_deployer.inputs import DiscoveryResult, ServiceInputs
from aimcontroller.projection import KubeObject
from aimcontroller.removal import removal
from aimschema import reasons
from aimschema.kinds import TemplateSpec


@dataclass(frozen=True, slots=True)
class ResolutionError:
    """The reason and message of Resolved=False."""

    reason: str
    message: str


def template_missing(inputs: ServiceInputs) -> ResolutionError:
    return ResolutionError(
        reasons.TEMPLATE_NOT_FOUND,
        f"AIMServiceTemplate {inputs.spec.template_ref} does not exist in this namespace; create it"
        " or change spec.templateRef",
    )


def template_deleted(template: KubeObject) -> ResolutionError:
    return ResolutionError(
        reasons.TEMPLATE_NOT_FOUND,
        f"{removal(template)}; re-create it or change spec.templateRef",
    )


def other_model(inputs: ServiceInputs, template_spec: TemplateSpec) -> ResolutionError:
    return ResolutionError(
        reasons.VALIDATION_FAILED,
        f"spec.model is {inputs.spec.model}, but template {inputs.spec.template_ref} is for"
        f" {template_spec.model}; change one of them",
    )


def model_missing(inputs: ServiceInputs) -> ResolutionError:
    return ResolutionError(
        reasons.MODEL_NOT_FOUND,
        f"no AIMClusterModel has spec.name {inputs.spec.model}; create it or change spec.model",
    )


def config_missing(inputs: ServiceInputs) -> ResolutionError:
    return ResolutionError(
        reasons.RUNTIME_CONFIG_MISSING,
        f"AIMNamespaceConfig {inputs.spec.config_ref} does not exist in this namespace; create it"
        " or change spec.configRef",
    )


def config_deleted(inputs: ServiceInputs) -> ResolutionError:
    return ResolutionError(
        reasons.RUNTIME_CONFIG_MISSING,
        f"AIMNamespaceConfig {inputs.spec.config_ref} was deleted; re-create it. Until then the"
        " running InferenceService is left unchanged",
    )


def gpu_unknown(inputs: ServiceInputs, template_spec: TemplateSpec) -> ResolutionError:
    return ResolutionError(
        reasons.UNKNOWN_GPU,
        f"GPU model {template_spec.gpu_model} of template {inputs.spec.template_ref} is not in"
        f" the GPU table ({', '.join(sorted(inputs.gpus))}); re-create the template for one of"
        " these, or add it to the table (AIM_GPU_TABLE of aim-deployer)",
    )


def discovery_failed(template: KubeObject) -> ResolutionError:
    discovered = template.condition(reasons.DISCOVERED) or {}
    return ResolutionError(
        reasons.TEMPLATE_FAILED,
        f"template {template.key.name} failed: {discovered.get('message', '')}",
    )


def not_discovered(template: KubeObject) -> ResolutionError:
    discovered = template.condition(reasons.DISCOVERED) or {}
    return ResolutionError(
        reasons.TEMPLATE_NOT_READY,
        f"template {template.key.name} is not discovered yet:"
        f" {discovered.get('message', 'discovery has not started')}",
    )


def image_unnamed(result: DiscoveryResult) -> ResolutionError:
    return ResolutionError(
        reasons.TEMPLATE_FAILED,
        f"ConfigMap {result.config_map.key.name} does not name the image of the discovery"
        " result; delete it to run discovery again",
    )


def image_not_allowed(inputs: ServiceInputs, result: DiscoveryResult) -> ResolutionError:
    return ResolutionError(
        reasons.TEMPLATE_NOT_READY,
        f"ConfigMap {result.config_map.key.name} names image {str(result.image)[:200]}, which"
        f" AIMClusterModel with spec.name {inputs.spec.model} neither has nor had; discovery"
        " runs again with the image of the AIMClusterModel",
    )


def source_without_path(uri: str) -> ResolutionError:
    return ResolutionError(
        reasons.VALIDATION_FAILED,
        f"model source {uri} does not end in <org>/<model>, as the runtime requires; correct the"
        " discovery output of the template's image",
    )


def equal_paths(result: DiscoveryResult) -> ResolutionError:
    return ResolutionError(
        reasons.VALIDATION_FAILED,
        f"two of the model sources have the same <org>/<model>: {', '.join(result.paths)};"
        " correct the discovery output of the image",
    )
