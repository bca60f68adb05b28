"""The route that a service and its config ask for. Pure.

The service wins field by field. A path begins with the namespace of its service, so that no
namespace can take the requests of another; the setting `any_path` lifts that.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from aim_router.projection import workload_id
from aimcontroller.projection import KubeObject
from aimschema import labels
from aimschema.kinds import GatewayReference, RouteSettings, Routing, ServiceRouting

LONGEST_PATH: Final = 200
NO_CONFIG: Final = ""
_DURATION = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_LABEL = re.compile(r"\.metadata\.labels\['([^']+)'\]")
_SEGMENT = re.compile(r"[A-Za-z0-9._~-]+")


@dataclass(frozen=True, slots=True)
class RouteOptions:
    """Settings of the router. `hosts`: the host names that services may ask for, as globs by a glob
    of their namespace; None: any."""

    any_path: bool = False
    hosts: Mapping[str, tuple[str, ...]] | None = None

    def allows(self, hostname: str, namespace: str) -> bool:
        """A wildcard is for all names below its domain, which only a `*` of a glob covers."""
        return self.hosts is None or any(
            fnmatchcase(hostname, glob) and hostname.startswith("*") <= glob.startswith("*")
            for place, globs in self.hosts.items()
            if fnmatchcase(namespace, place)
            for glob in globs
        )


@dataclass(frozen=True, slots=True)
class DesiredRoute:
    """`disabled_by`: why there shall be no route; None if there shall. `timeout` is a duration
    (GEP-2257)."""

    gateway: GatewayReference | None = None
    is_enabled_by_service: bool = False
    is_disabled_by_service: bool = False
    disabled_by: str | None = None
    hostnames: tuple[str, ...] = ()
    path_template: str | None = None
    timeout: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)


def routing_of(spec: Mapping[str, Any]) -> ServiceRouting | None:
    """`routing` of the spec of a service, whatever else the spec has."""
    routing = spec.get("routing")
    return ServiceRouting.model_validate(routing) if isinstance(routing, dict) else None


def desired_route(
    service: KubeObject, own: ServiceRouting | None, config: Routing | None, config_name: str
) -> DesiredRoute:
    """What the two ask for, unchecked. `config_name`: that of a config with routing, or
    NO_CONFIG."""
    record = {} if own is None else {labels.ANNOTATION_CONFIG: config_name}
    first, second = own or RouteSettings(), config or RouteSettings()
    gateways = (None if own is None else own.gateway, None if config is None else config.gateway)
    timeouts = (
        first.request_timeout,
        second.request_timeout,
        service.annotations.get(labels.ANNOTATION_ROUTE_TIMEOUT),
    )
    hostnames = first.hostnames if first.hostnames is not None else second.hostnames
    return DesiredRoute(
        gateway=next((each for each in gateways if each is not None), None),
        is_enabled_by_service=own is not None and own.enabled is True,
        is_disabled_by_service=own is not None and own.enabled is False,
        disabled_by=_disabled_by(own, config),
        hostnames=tuple(hostnames or ()),
        path_template=first.path_template or second.path_template,
        timeout=next((each for each in timeouts if each is not None), None),
        annotations={**(second.annotations or {}), **(first.annotations or {}), **record},
    )


def path_of(service: KubeObject, template: str | None = None, *, any_path: bool = False) -> str:
    """The path of the service on the gateway; the model's API is below it. Raises ValueError naming
    what is wrong with the template."""
    if template is None:
        return f"/{service.key.namespace}/{workload_id(service)}"
    path = _PLACEHOLDER.sub(lambda found: _value(service, found[1]), template).rstrip("/") or "/"
    problem = _problem(path, str(service.key.namespace), any_path=any_path)
    if len(path) > LONGEST_PATH:
        problem = f"is longer than {LONGEST_PATH} characters"
    if problem is not None:
        raise ValueError(f"routing.pathTemplate gives {path[:LONGEST_PATH]}, which {problem}")
    return path


def checked_timeout(timeout: str | None) -> str | None:
    """The request timeout; None means the gateway's default. Raises ValueError for another format,
    which only the annotation can have."""
    if timeout is not None and _DURATION.fullmatch(timeout) is None:
        raise ValueError(
            f"annotation {labels.ANNOTATION_ROUTE_TIMEOUT} is {timeout!r}: use a duration such as"
            " 90s, 2m30s, or 0s for no timeout"
        )
    return timeout


def forbidden_host(hostnames: Iterable[str], namespace: str, options: RouteOptions) -> str | None:
    """The first host name that this namespace may not have."""
    return next((each for each in hostnames if not options.allows(each, namespace)), None)


def is_below_namespace(path: str, namespace: str) -> bool:
    return path.split("/")[1:2] == [namespace]


def _disabled_by(own: ServiceRouting | None, config: Routing | None) -> str | None:
    if own is not None and own.enabled is not None:
        return None if own.enabled else "spec.routing.enabled is false"
    if config is None:
        return "the config has no routing"
    return None if config.auto_create_route else "autoCreateRoute is false"


def _value(service: KubeObject, placeholder: str) -> str:
    known = {
        ".metadata.namespace": str(service.key.namespace),
        ".metadata.name": service.key.name,
        ".metadata.uid": service.uid,
    }
    if placeholder in known:
        return known[placeholder]
    label = _LABEL.fullmatch(placeholder)
    if label is None:
        raise ValueError(
            f"routing.pathTemplate has {{{placeholder}}}; use {{.metadata.namespace}},"
            " {.metadata.name}, {.metadata.uid} or {.metadata.labels['key']}"
        )
    value = service.labels.get(label[1])
    if not value:
        raise ValueError(
            f"routing.pathTemplate needs label {label[1]}, which the service does not have; set the"
            " label, or change the template"
        )
    return value


def _problem(path: str, namespace: str, *, any_path: bool) -> str | None:
    for each in path.split("/")[1:] if path != "/" else []:
        if _SEGMENT.fullmatch(each) is None or each in {".", ".."}:
            return (
                f"has the segment {each!r}; use letters, digits, '-', '.', '_' and '~' between"
                " single slashes"
            )
    if not any_path and not is_below_namespace(path, namespace):
        return f"does not begin with /{namespace}; begin the template with /{{.metadata.namespace}}"
    return None
