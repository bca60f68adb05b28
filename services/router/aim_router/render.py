"""Renders the HTTPRoute of a service (gateway.networking.k8s.io/v1). Pure."""

from collections.abc import Mapping
from typing import Any

from aim_router.desired import DesiredRoute
from aimcontroller.projection import KubeObject
from aimschema import labels
from aimschema.kinds import GatewayReference
from aimschema.names import predictor_service
from aimschema.resources import ROUTE

Body = dict[str, Any]
Labels = Mapping[str, str]
BACKEND_PORT = 80


def route(
    service: KubeObject, gateway: GatewayReference, desired: DesiredRoute, path: str, passed: Labels
) -> Body:
    """The HTTPRoute at `path` of `gateway`. `passed`: labels that it gets from its service."""
    own = labels.common_labels(
        labels.COMPONENT_ROUTING, model=str(service.spec.get("model")), service=service.key.name
    )
    return {
        "apiVersion": ROUTE.api_version,
        "kind": ROUTE.kind,
        "metadata": {
            "name": service.key.name,
            "namespace": service.key.namespace,
            "labels": {**passed, **own},
            **({"annotations": {**desired.annotations}} if desired.annotations else {}),
            "ownerReferences": [service.owner_reference()],
        },
        "spec": {
            "parentRefs": [gateway.model_dump(by_alias=True, exclude_none=True)],
            **({"hostnames": [*desired.hostnames]} if desired.hostnames else {}),
            "rules": [_rule(service, path, desired.timeout)],
        },
    }


def _rule(service: KubeObject, path: str, timeout: str | None) -> Body:
    rule: Body = {
        "matches": [{"path": {"type": "PathPrefix", "value": path}}],
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
