"""What the rules of a cluster keep from the control plane and its models: NetworkPolicies, Pod
Security. Pure."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

from aimctl.doctor.snapshot import Body, Facts, Finding, name_of
from aimschema.resources import (
    CACHE,
    CONFIG,
    ENDPOINT_SLICE,
    NAMESPACE,
    NETWORK_POLICY,
    SERVICE,
    TEMPLATE,
)

ENFORCE = "pod-security.kubernetes.io/enforce"
SERVICES_POLICY = "aim-services"
"""The chart's NetworkPolicy for the six services."""


def pod_security(facts: Facts) -> Iterator[Finding]:
    """Namespaces that models are in or may come to, and that admit no model pods."""
    used = {
        body["metadata"].get("namespace")
        for resource in (SERVICE, TEMPLATE, CACHE, CONFIG)
        for body in facts.of(resource)
    }
    for namespace in facts.of(NAMESPACE):
        name, labels = namespace["metadata"]["name"], namespace["metadata"].get("labels") or {}
        models = (
            name in used
            if name != facts.namespace
            else any(body["metadata"].get("namespace") == name for body in facts.of(SERVICE))
        )
        if models and labels.get(ENFORCE) == "restricted":
            message = (
                f"namespace {name} enforces the Pod Security Standard restricted, which rejects"
                " model pods: they set no runAsNonRoot, no seccompProfile, no"
                " allowPrivilegeEscalation: false and drop no capabilities"
            )
            yield Finding(
                "kubernetes",
                "warning",
                message,
                f"kubectl label namespace {name} {ENFORCE}=baseline --overwrite",
            )


def api_server(facts: Facts) -> Iterator[Finding]:
    """Whether the policy for the services lets them reach the API server, where it really is
    (after kube-proxy)."""
    policy = next(
        (body for body in facts.of(NETWORK_POLICY) if body["metadata"]["name"] == SERVICES_POLICY),
        None,
    )
    if policy is None or "egress" not in policy["spec"]:
        return
    for address, port in _api_servers(facts):
        if not any(_lets_out(rule, address, port) for rule in policy["spec"]["egress"] or ()):
            where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            message = (
                f"NetworkPolicy {name_of(policy)} blocks the services from the API server at"
                f" {where}: if it is enforced, no service becomes ready"
            )
            fix = (
                f"set networkPolicy.apiServer.ports={{443,{port}}} in the chart, and {address}"
                " among networkPolicy.apiServer.cidrs"
            )
            yield Finding("services", "warning", message, fix)


def _api_servers(facts: Facts) -> list[tuple[str, int]]:
    """Addresses and ports of the endpoints of the Service `kubernetes`."""
    found = [
        (str(address), int(port["port"]))
        for endpoints in facts.of(ENDPOINT_SLICE)
        for endpoint in endpoints.get("endpoints") or ()
        for address in endpoint.get("addresses") or ()
        for port in endpoints.get("ports") or ()
        if port.get("port")
    ]
    return list(dict.fromkeys(found))


def _lets_out(rule: Body, address: str, port: int) -> bool:
    """An egress rule: without peers everywhere, without ports on all of them. Peers by label
    never are the API server."""
    peers, ports = rule.get("to") or (), rule.get("ports") or ()
    to = not peers or any(_has(peer.get("ipBlock") or {}, address) for peer in peers)
    return to and (not ports or any(_is_port(each, port) for each in ports))


def _has(block: Body, address: str) -> bool:
    inside = "cidr" in block and _within(address, block["cidr"])
    return inside and not any(_within(address, cidr) for cidr in block.get("except") or ())


def _within(address: str, cidr: str) -> bool:
    try:
        return ip_address(address) in ip_network(cidr, strict=False)
    except ValueError:
        return False


def _is_port(rule: Body, port: int) -> bool:
    """TCP, by number or a range of numbers; a port by name is one of a pod."""
    first: Any = rule.get("port")
    if rule.get("protocol", "TCP") != "TCP" or isinstance(first, str):
        return False
    return first is None or int(first) <= port <= int(rule.get("endPort") or first)
