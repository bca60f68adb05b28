"""Pod settings of a service, merged with those of its config. Pure.

The config's come first. The service's override them: variables by name, node labels and amounts by
key, pull secrets by name, fields of a security context one by one. Tolerations add up. Without any
setting the rendered object is the same as before there were settings.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from aimcontroller.jobs import merge_resources
from aimschema.kinds import PodSettings, Resources

Body = dict[str, Any]
Model = TypeVar("Model", bound=BaseModel)
NOTHING: Final = PodSettings()


def merge(config: PodSettings | None, service: PodSettings) -> PodSettings:
    """All settings but resources, which depend on the defaults of the container (`amounts`)."""
    base = config or NOTHING
    own = {each.name for each in service.env}
    return PodSettings(
        env=[*(each for each in base.env if each.name not in own), *service.env],
        image_pull_secrets=[
            *{
                each.name: each for each in (*base.image_pull_secrets, *service.image_pull_secrets)
            }.values()
        ],
        service_account_name=service.service_account_name or base.service_account_name,
        priority_class_name=service.priority_class_name or base.priority_class_name,
        tolerations=[*dict.fromkeys((*base.tolerations, *service.tolerations))],
        node_selector=base.node_selector | service.node_selector,
        security_context=_overlay(base.security_context, service.security_context),
        pod_security_context=_overlay(base.pod_security_context, service.pod_security_context),
    )


def amounts(default: Body, *layers: Resources | None) -> Body:
    """The resources of a container: `default`, then each layer over what is before it."""
    for layer in layers:
        default = default if layer is None else merge_resources(default, dump(layer))
    return default


def pod_fields(settings: PodSettings) -> Body:
    """The fields of a pod spec that the settings set; env, tolerations and pull secrets have other
    sources too."""
    fields: Body = {
        "serviceAccountName": settings.service_account_name,
        "priorityClassName": settings.priority_class_name,
        "nodeSelector": settings.node_selector,
        "securityContext": settings.pod_security_context and dump(settings.pod_security_context),
    }
    return {name: value for name, value in fields.items() if value}


def has_settings(layer: PodSettings | None) -> bool:
    """Whether it has any setting; an empty object is none."""
    values = (getattr(layer, name, None) for name in PodSettings.model_fields)
    return any(dump(each) if isinstance(each, BaseModel) else each for each in values)


def dump(model: BaseModel) -> Body:
    return model.model_dump(by_alias=True, exclude_none=True, mode="json")


def _overlay(base: Model | None, own: Model | None) -> Model | None:
    """`base` with the fields that `own` sets."""
    if base is None or own is None:
        return own or base
    changes: Mapping[str, object] = {name: getattr(own, name) for name in own.model_fields_set}
    return base.model_copy(update=changes)
