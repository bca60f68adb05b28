"""Which listeners of a Gateway an HTTPRoute attaches to, and at which address they answer. Pure and
total.

1. HTTP, HTTPS and TLS listeners that terminate TLS can carry HTTPRoutes; TCP, UDP and TLS
   passthrough never do.
2. `allowedRoutes` and the listener's `supportedKinds` narrow that down. A namespace selector may
   fit: the labels of namespaces are not known here.
3. A malformed part of a Gateway counts as absent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aimcontroller.projection import KubeObject, Projection
from aimschema.kinds import GatewayReference
from aimschema.resources import GATEWAY, ROUTE, Key

Body = dict[str, Any]
_SCHEMES = {"HTTPS": ("https", 443), "TLS": ("https", 443), "HTTP": ("http", 80)}
"""By protocol, those to prefer first: the scheme and its default port."""
_PREFERENCE = list(_SCHEMES)


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener of `spec.listeners`, with its entry in `status.listeners`; empty without one."""

    spec: Body
    status: Body

    @property
    def name(self) -> str:
        return str(self.spec.get("name"))

    @property
    def protocol(self) -> str:
        """For messages: `TLS passthrough` where TLS is not terminated."""
        protocol = _text(self.spec.get("protocol"))
        return f"{protocol} passthrough" if _passes_tls_through(self.spec) else protocol

    def __str__(self) -> str:
        return f"{self.name} ({self.protocol} {self.spec.get('port')})"

    @property
    def hostname(self) -> str:
        return _text(self.spec.get("hostname"))

    def rejects(self, namespace: str | None, gateway_namespace: str | None) -> str | None:
        """Why no HTTPRoute of this namespace attaches to it; None where one may."""
        if not _can_carry(self.spec):
            return f"listener {self.name} has protocol {self.protocol}, which carries no HTTPRoutes"
        if not takes_http_routes(self.spec, self.status):
            kinds = "allowedRoutes.kinds, supportedKinds"
            return f"listener {self.name} ({self.protocol}) does not accept HTTPRoutes ({kinds})"
        if not _lets_in(self.spec, namespace, gateway_namespace):
            return (
                f"listener {self.name} does not accept routes from namespace {namespace}"
                " (allowedRoutes.namespaces)"
            )
        return None

    def rank(self) -> tuple[bool, bool, int]:
        """Sorts the listener with the best address first: it works, any host reaches it, it
        encrypts."""
        broken = any(
            condition.get("type") in {"Accepted", "Programmed"}
            and condition.get("status") == "False"
            for condition in objects(self.status, "conditions")
        )
        preference = _PREFERENCE.index(_text(self.spec.get("protocol")))
        return broken, self.hostname.startswith("*"), preference


def is_gateway(reference: GatewayReference) -> bool:
    """Whether it refers to a Gateway of the Gateway API. Other kinds of parents are not watched."""
    return (reference.group, reference.kind) == (GATEWAY.group, GATEWAY.kind)


def find_gateway(
    state: Projection, reference: GatewayReference, namespace: str | None
) -> KubeObject | None:
    """The Gateway that a reference in an object of this namespace names."""
    if not is_gateway(reference):
        return None
    return state.get(Key(GATEWAY.kind, reference.namespace or namespace, reference.name))


def referenced_listeners(gateway: KubeObject, reference: GatewayReference) -> list[Listener]:
    """The listeners that a reference names by sectionName and port; all where it gives neither."""
    states = {_text(each.get("name")): each for each in objects(gateway.status, "listeners")}
    return [
        Listener(each, states.get(_text(each.get("name")), {}))
        for each in objects(gateway.spec, "listeners")
        if reference.section_name in (None, each.get("name"))
        and reference.port in (None, each.get("port"))
    ]


def attached_listeners(
    gateway: KubeObject, reference: GatewayReference, namespace: str | None
) -> list[Listener]:
    """The listeners that an HTTPRoute of this namespace with this reference attaches to."""
    return [
        each
        for each in referenced_listeners(gateway, reference)
        if each.rejects(namespace, gateway.key.namespace) is None
    ]


def rejection(
    gateway: KubeObject, reference: GatewayReference, namespace: str | None
) -> str | None:
    """Why an HTTPRoute of this namespace attaches to no listener of the Gateway; None where it
    attaches to one."""
    name = f"Gateway {gateway.key.namespace}/{gateway.key.name}"
    chosen = referenced_listeners(gateway, reference)
    reasons = [
        why
        for each in chosen
        if (why := each.rejects(namespace, gateway.key.namespace)) is not None
    ]
    if chosen and len(reasons) == len(chosen):
        return f"{name}: {'; '.join(reasons)}"
    if chosen or (reference.section_name is None and reference.port is None):
        return None
    all_ = [str(Listener(each, {})) for each in objects(gateway.spec, "listeners")]
    missing = f"listener {reference.section_name}" if reference.section_name else "listener"
    port = f" with port {reference.port}" if reference.port is not None else ""
    return f"{name} has no {missing}{port}; its listeners are {', '.join(all_) or 'none'}"


def address(
    gateway: KubeObject,
    reference: GatewayReference,
    namespace: str | None,
    hostnames: Sequence[str] = (),
) -> str | None:
    """`scheme://host[:port]` of the best listener; None while the Gateway has no address.
    `hostnames`: those of the route; the first that reaches the listener is the host."""
    addresses = [at for each in objects(gateway.status, "addresses") if (at := _host(each))]
    if not addresses:
        return None
    hosts = [
        (each, host)
        for each in attached_listeners(gateway, reference, namespace)
        if _text(each.spec.get("protocol")) in _SCHEMES
        and (host := _host_at(each, hostnames, addresses[0])) is not None
    ]
    if not hosts:
        return None
    best, host = min(hosts, key=lambda pair: pair[0].rank())
    scheme, default_port = _SCHEMES[_text(best.spec.get("protocol"))]
    port = best.spec.get("port", default_port)
    return f"{scheme}://{host}" if port == default_port else f"{scheme}://{host}:{port}"


def _host_at(listener: Listener, hostnames: Sequence[str], at: str) -> str | None:
    """The host of a request that a listener passes to a route; None if there is none without a
    wildcard."""
    own = listener.hostname
    named = [each for each in (*hostnames, own) if each and not each.startswith("*")]
    reached = (
        each
        for each in named
        if (not own or hosts_overlap(own, each))
        and (not hostnames or any(hosts_overlap(each, other) for other in hostnames))
    )
    return next(reached, None if hostnames else at)


def hosts_overlap(one: str, other: str) -> bool:
    """Whether a request can be for both host names. A wildcard covers every name below its domain,
    other wildcards included (Gateway API, Hostname)."""
    one, other = one.lower(), other.lower()
    if one == other:
        return True
    return (one.startswith("*.") and other.removeprefix("*").endswith(one[1:])) or (
        other.startswith("*.") and one.removeprefix("*").endswith(other[1:])
    )


def takes_http_routes(listener: Body, status: Body) -> bool:
    """Whether its protocol, `allowedRoutes.kinds` and `supportedKinds` (if any) let HTTPRoutes
    attach.

    A protocol of the implementation's own carries them only where `supportedKinds` has them.
    """
    kinds = objects(_object(listener.get("allowedRoutes")), "kinds")
    if not _can_carry(listener) or (kinds and not any(map(_is_http_route, kinds))):
        return False
    supported = objects(status, "supportedKinds")
    if supported:
        return any(map(_is_http_route, supported))
    return _text(listener.get("protocol")) in _SCHEMES


def objects(holder: Body, field: str) -> list[Body]:
    """The objects in a list of `holder`; nothing else of it, and nothing of what is no list."""
    value = holder.get(field)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _can_carry(listener: Body) -> bool:
    return listener.get("protocol") not in ("TCP", "UDP") and not _passes_tls_through(listener)


def _passes_tls_through(listener: Body) -> bool:
    return _object(listener.get("tls")).get("mode") == "Passthrough"


def _is_http_route(kind: Body) -> bool:
    return kind.get("kind") == ROUTE.kind and kind.get("group") in (None, ROUTE.group)


def _lets_in(listener: Body, namespace: str | None, gateway_namespace: str | None) -> bool:
    """`from` is Same where it is absent."""
    match _object(_object(listener.get("allowedRoutes")).get("namespaces")).get("from") or "Same":
        case "Same":
            return namespace == gateway_namespace
        case "All" | "Selector":
            return True
        case _:
            return False


def _host(entry: Body) -> str:
    """An address as a URL has it; empty for one that no URL can have, such as a named address."""
    value = _text(entry.get("value"))
    if entry.get("type") not in (None, "IPAddress", "Hostname"):
        return ""
    return f"[{value}]" if ":" in value else value


def _object(value: object) -> Body:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
