"""Renders the HTTPRoute of a service (gateway.networking.k8s.io/v1). Pure."""

import re
from typing import Any

from aim_router.projection import workload_id
from aimcontroller.projection import KubeObject
from aimschema import labels
from aimschema.kinds import ConfigSpec, GatewayReference
from aimschema.names import predictor_service
from aimschema.propagation import passed_on
from aimschema.resources import ROUTE

Body = dict[str, Any]
BACKEND_PORT = 80
_DURATION = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")


def path_of(service: KubeObject) -> str:
    """The path of the service on the gateway; the model's API is below it."""
    return f"/{service.key.namespace}/{workload_id(service)}"


def timeout_of(service: KubeObject) -> str | None:
    """The request timeout in the annotation of the service (GEP-2257 duration); None means the
    gateway's default. Raises ValueError for another format."""
    text = service.annotations.get(labels.ANNOTATION_ROUTE_TIMEOUT)
    if text is not None and _DURATION.fullmatch(text) is None:
        raise ValueError(
            f"annotation {labels.ANNOTATION_ROUTE_TIMEOUT} is {text!r}: use a duration such as 90s,"
            " 2m30s, or 0s for no timeout"
        )
    return text


def route(
    service: KubeObject,
    gateway: GatewayReference,
    timeout: str | None,
    config: ConfigSpec | None = None,
) -> Body:
    own = labels.common_labels(
        labels.COMPONENT_ROUTING, model=str(service.spec.get("model")), service=service.key.name
    )
    return {
        "apiVersion": ROUTE.api_version,
        "kind": ROUTE.kind,
        "metadata": {
            "name": service.key.name,
            "namespace": service.key.namespace,
            "labels": passed_on(service.labels, config) | own,
            "ownerReferences": [service.owner_reference()],
        },
        "spec": {
            "parentRefs": [gateway.model_dump(by_alias=True, exclude_none=True)],
            "rules": [_rule(service, timeout)],
        },
    }


def _rule(service: KubeObject, timeout: str | None) -> Body:
    rule: Body = {
        "matches": [{"path": {"type": "PathPrefix", "value": path_of(service)}}],
        "filters": [
            {
                "type": "URLRewrite",
                "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}},
            }
        ],
        "backendRefs": [
            {
                "group": "",
                "kind": "Service",
                "name": predictor_service(service.key.name),
                "port": BACKEND_PORT,
                "weight": 1,
            }
        ],
    }
    if timeout is not None:
        rule["timeouts"] = {"request": timeout}
    return rule
