"""The listeners that take a route, the address that follows, and what is reported if none or too
many do."""

from typing import Any

import pytest
from hypothesis import given as holds_for
from hypothesis import strategies as st

from aim_router.listeners import address, attached_listeners, rejection
from aim_router.plan import plan as plan_key
from aimcontroller import testing
from aimcontroller.projection import KubeObject
from aimcontroller.testing import (
    NAMESPACE,
    NOW,
    Body,
    condition_summary,
    fields,
    message,
    projection,
    status_condition,
)
from aimschema.kinds import GatewayReference
from aimschema.resources import CONFIG, GATEWAY, Key

FAILED = "False RouteFailed"
WAITS = "False ConfiguringRoute"
READY = "True RouteReady"
TCP: Body = {"name": "tcp", "protocol": "TCP", "port": 9000}
UDP: Body = {"name": "udp", "protocol": "UDP", "port": 53}
HTTP: Body = {"name": "http", "protocol": "HTTP", "port": 80}
HTTPS: Body = {"name": "https", "protocol": "HTTPS", "port": 443, "tls": {"mode": "Terminate"}}
TLS: Body = {"name": "tls", "protocol": "TLS", "port": 8443, "tls": {"mode": "Terminate"}}
PASSTHROUGH: Body = {
    "name": "passthrough",
    "protocol": "TLS",
    "port": 6443,
    "tls": {"mode": "Passthrough"},
}
OWN: Body = {"name": "own", "protocol": "example.org/quic", "port": 4433}
GRPC_ONLY: Body = HTTPS | {"name": "grpc", "allowedRoutes": {"kinds": [{"kind": "GRPCRoute"}]}}


def supports(name: str, *kinds: str, **more: Any) -> Body:
    return {
        "name": name,
        "supportedKinds": [{"group": "gateway.networking.k8s.io", "kind": kind} for kind in kinds],
        **more,
    }


def from_(who: str | None, listener: Body = HTTP) -> Body:
    return listener | {
        "allowedRoutes": {
            "namespaces": (
                {"from": who}
                | ({"selector": {"matchLabels": {"a": "b"}}} if who == "Selector" else {})
            )
        }
    }


def kinds(*of: Body) -> Body:
    return HTTP | {"allowedRoutes": {"kinds": list(of)}}


@pytest.mark.parametrize(
    ("listeners", "reference", "url"),
    [
        pytest.param([TCP, HTTP], {}, "http://10.0.0.9", id="tcp-before-http"),
        pytest.param(
            [UDP, PASSTHROUGH, HTTP], {}, "http://10.0.0.9", id="udp-and-passthrough-before-http"
        ),
        pytest.param([HTTP, HTTPS], {}, "https://10.0.0.9", id="https-before-http"),
        pytest.param([HTTP, TLS], {}, "https://10.0.0.9:8443", id="terminated-tls-before-http"),
        pytest.param([TLS, HTTPS], {}, "https://10.0.0.9", id="https-before-tls"),
        pytest.param([HTTPS | {"tls": {}}], {}, "https://10.0.0.9", id="tls-terminates-by-default"),
        pytest.param([HTTPS | {"tls": None}], {}, "https://10.0.0.9", id="tls-null"),
        pytest.param(
            [HTTP, HTTPS | {"tls": {"mode": "Passthrough"}}],
            {},
            "http://10.0.0.9",
            id="https-that-passes-tls-through",
        ),
        pytest.param([TCP], {}, None, id="tcp-alone"),
        pytest.param([TCP, PASSTHROUGH], {}, None, id="nothing-for-http"),
        pytest.param(
            [HTTP, HTTPS], {"sectionName": "http"}, "http://10.0.0.9", id="the-one-that-is-named"
        ),
        pytest.param([HTTP, HTTPS], {"port": 80}, "http://10.0.0.9", id="the-one-with-the-port"),
        pytest.param(
            [HTTP, HTTPS],
            {"sectionName": "https", "port": 80},
            None,
            id="name-and-port-do-not-meet",
        ),
        pytest.param([TCP, HTTP], {"sectionName": "tcp"}, None, id="the-one-that-is-named-is-tcp"),
        pytest.param([GRPC_ONLY, HTTP], {}, "http://10.0.0.9", id="https-for-grpc-routes-only"),
        pytest.param(
            [kinds({"kind": "HTTPRoute"})], {}, "http://10.0.0.9", id="kind-allowed-by-name"
        ),
        pytest.param(
            [kinds({"group": "example.org", "kind": "HTTPRoute"})],
            {},
            None,
            id="http-routes-of-another-group",
        ),
        pytest.param(
            [HTTP | {"allowedRoutes": {"kinds": []}}], {}, "http://10.0.0.9", id="no-kinds-listed"
        ),
        pytest.param([from_("Same")], {}, "http://10.0.0.9", id="same-namespace"),
        pytest.param([from_("None")], {}, None, id="from-nowhere"),
        pytest.param([OWN], {}, None, id="a-protocol-of-its-own"),
        pytest.param([HTTP | {"port": 8080}], {}, "http://10.0.0.9:8080", id="another-port"),
        pytest.param(
            [HTTP | {"port": 443}], {}, "http://10.0.0.9:443", id="http-on-the-port-of-https"
        ),
        pytest.param(
            [HTTPS | {"port": 80}], {}, "https://10.0.0.9:80", id="https-on-the-port-of-http"
        ),
        pytest.param(
            [HTTPS | {"hostname": "ai.example.org", "port": 8443}],
            {},
            "https://ai.example.org:8443",
            id="host-name-and-port",
        ),
        pytest.param(
            [HTTPS | {"hostname": "*.example.org"}], {}, "https://10.0.0.9", id="wildcard-alone"
        ),
        pytest.param(
            [HTTPS | {"hostname": "*.example.org"}, HTTP],
            {},
            "http://10.0.0.9",
            id="any-host-before-a-wildcard",
        ),
        pytest.param([HTTPS | {"hostname": ""}], {}, "https://10.0.0.9", id="empty-host-name"),
    ],
)
def test_the_address_is_that_of_a_listener_that_takes_the_route(
    world: Any, listeners: list[Body], reference: Body, url: str | None
) -> None:
    bodies = [world.service(), world.config(reference), world.gateway_with(*listeners)]
    plan = world.plan(
        projection(*bodies, world.route(parents=[world.parent(*world.accepted(), **reference)]))
    )
    assert condition_summary(plan, "RoutingReady") == READY
    assert fields(plan).get("url") == (None if url is None else f"{url}/team/aimservice-s")


def gateway_object(*listeners: Body, namespace: str = NAMESPACE, **status: Any) -> KubeObject:
    body = testing.obj(
        GATEWAY.kind,
        "gw",
        namespace=namespace,
        spec={"listeners": list(listeners)},
        status={"addresses": [{"value": "10.0.0.9"}]} | status,
    )
    found = projection(body).get(Key(GATEWAY.kind, namespace, "gw"))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("addresses", "host"),
    [
        pytest.param([{"type": "IPAddress", "value": "10.0.0.1"}], "10.0.0.1", id="ipv4"),
        pytest.param([{"type": "IPAddress", "value": "fd00::1"}], "[fd00::1]", id="ipv6"),
        pytest.param(
            [{"type": "Hostname", "value": "lb.example.org"}], "lb.example.org", id="host-name"
        ),
        pytest.param(
            [{"type": "example.org/name", "value": "edge"}, {"value": "10.0.0.1"}],
            "10.0.0.1",
            id="named-address-is-none",
        ),
        pytest.param(
            [{}, {"value": None}, {"value": 1}, None, {"value": "10.0.0.1"}],
            "10.0.0.1",
            id="half-filled",
        ),
    ],
)
def test_hosts(addresses: list[Any], host: str) -> None:
    assert (
        address(gateway_object(HTTP, addresses=addresses), GatewayReference(name="gw"), NAMESPACE)
        == f"http://{host}"
    )


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        pytest.param(
            [supports("https", "GRPCRoute")],
            "http://10.0.0.9",
            id="https-supports-other-kinds-only",
        ),
        pytest.param(
            [supports("https", "GRPCRoute", "HTTPRoute")],
            "https://10.0.0.9",
            id="https-supports-both",
        ),
        pytest.param([supports("https")], "https://10.0.0.9", id="an-empty-list-decides-nothing"),
        pytest.param(
            [supports("http", "GRPCRoute")], "https://10.0.0.9", id="another-listeners-state"
        ),
        pytest.param(
            [{"name": "https", "conditions": [status_condition("Programmed", False)]}],
            "http://10.0.0.9",
            id="https-is-not-programmed",
        ),
        pytest.param(
            [{"name": "https", "conditions": [status_condition("Accepted", False)]}],
            "http://10.0.0.9",
            id="https-is-not-accepted",
        ),
    ],
)
def test_the_state_of_a_listener_counts(states: list[Body], expected: str) -> None:
    assert (
        address(
            gateway_object(HTTP, HTTPS, listeners=states), GatewayReference(name="gw"), NAMESPACE
        )
        == expected
    )


@pytest.mark.parametrize(
    ("listener", "open_"),
    [
        pytest.param(HTTP, False, id="same-is-the-default"),
        pytest.param(from_(None), False, id="null-is-the-default"),
        pytest.param(from_("Same"), False, id="same"),
        pytest.param(from_("All"), True, id="all"),
        pytest.param(from_("Selector"), True, id="a-selector-may-fit"),
        pytest.param(from_("All", TCP), False, id="all-but-tcp"),
    ],
)
def test_a_gateway_of_another_namespace_admits_named_ones(listener: Body, open_: bool) -> None:
    gateway = gateway_object(listener, namespace="infra")
    reference = GatewayReference(name="gw", namespace="infra")
    assert bool(attached_listeners(gateway, reference, NAMESPACE)) is open_
    assert (rejection(gateway, reference, NAMESPACE) is None) is open_


WAY_OUT = (
    "; name a listener that accepts HTTPRoutes in spec.routing.gateway.sectionName of"
    " AIMNamespaceConfig default"
)


@pytest.mark.parametrize(
    ("listeners", "reference", "text"),
    [
        pytest.param(
            [TCP, HTTP],
            {"sectionName": "tcp"},
            "Gateway team/gw: listener tcp has protocol TCP, which carries no HTTPRoutes",
            id="tcp",
        ),
        pytest.param(
            [PASSTHROUGH, HTTP],
            {"sectionName": "passthrough"},
            "Gateway team/gw: listener passthrough has protocol TLS passthrough, which carries no"
            " HTTPRoutes",
            id="passthrough",
        ),
        pytest.param(
            [TCP, UDP],
            {},
            "Gateway team/gw: listener tcp has protocol TCP, which carries no HTTPRoutes; listener"
            " udp has protocol UDP, which carries no HTTPRoutes",
            id="none-at-all",
        ),
        pytest.param(
            [GRPC_ONLY],
            {"port": 443},
            "Gateway team/gw: listener grpc (HTTPS) does not accept HTTPRoutes"
            " (allowedRoutes.kinds, supportedKinds)",
            id="kinds",
        ),
        pytest.param(
            [from_("None")],
            {},
            "Gateway team/gw: listener http does not accept routes from namespace team"
            " (allowedRoutes.namespaces)",
            id="namespaces",
        ),
        pytest.param(
            [HTTP, TCP],
            {"sectionName": "web"},
            "Gateway team/gw has no listener web; its listeners are http (HTTP 80), tcp (TCP 9000)",
            id="name",
        ),
        pytest.param(
            [HTTP],
            {"port": 8080},
            "Gateway team/gw has no listener with port 8080; its listeners are http (HTTP 80)",
            id="port",
        ),
        pytest.param(
            [HTTP],
            {"sectionName": "http", "port": 8080},
            "Gateway team/gw has no listener http with port 8080; its listeners are http (HTTP 80)",
            id="name-and-port",
        ),
    ],
)
def test_a_listener_that_cannot_take_the_route_is_named(
    world: Any, listeners: list[Body], reference: Body, text: str
) -> None:
    gateway = world.gateway_with(*listeners)
    config = world.config(reference)
    plan = world.plan(projection(world.service(), config, gateway, world.route()))
    assert condition_summary(plan, "RoutingReady") == FAILED
    assert message(plan, "RoutingReady") == text + WAY_OUT
    no = world.parent(
        status_condition("Accepted", False, "NotAllowedByListeners", "no"), **reference
    )
    answered = world.plan(projection(world.service(), config, gateway, world.route(parents=[no])))
    assert message(answered, "RoutingReady").startswith(
        f"gateway gw reports NotAllowedByListeners: no; {text}"
    )


@pytest.mark.parametrize(
    "listeners",
    [[], [HTTP], [OWN | {"protocol": "example.org/x"}, HTTP]],
    ids=["none-yet", "http", "one-of-two"],
)
def test_a_listener_that_may_take_the_route_is_waited_for(
    world: Any, listeners: list[Body]
) -> None:
    state = projection(
        world.service(), world.config(), world.gateway_with(*listeners), world.route()
    )
    assert condition_summary(world.plan(state), "RoutingReady") == WAITS


def advice(world: Any, reference: Body, *listeners: Body, **routing: Any) -> list[tuple[str, str]]:
    state = projection(world.config(reference, **routing), world.gateway_with(*listeners))
    plan = plan_key(state, Key(CONFIG.kind, NAMESPACE, "default"), NOW)
    return [
        (warning.reason, warning.message) for report in plan.reports for warning in report.warnings
    ]


def test_a_config_without_a_listener_lists_all_that_match(world: Any) -> None:
    assert advice(world, {}, TCP, HTTP, HTTPS, TLS, PASSTHROUGH, GRPC_ONLY) == [
        (
            "SeveralListeners",
            (
                "spec.routing.gateway has no sectionName, so routes attach to 3 listeners of"
                " Gateway team/gw: http (HTTP 80), https (HTTPS 443), tls (TLS 8443); set"
                " spec.routing.gateway.sectionName to one of them, or"
                " spec.routing.hostnames"
            ),
        )
    ]


@pytest.mark.parametrize(
    ("reference", "listeners"),
    [
        pytest.param({"sectionName": "http"}, [HTTP, HTTPS], id="a-listener-is-named"),
        pytest.param({"port": 443}, [HTTP, HTTPS], id="a-port-of-one-listener-is-named"),
        pytest.param({}, [HTTP], id="one-listener"),
        pytest.param({}, [HTTP, TCP, UDP, PASSTHROUGH, OWN], id="one-that-takes-http-routes"),
        pytest.param({}, [HTTP, from_("None", HTTPS)], id="one-that-lets-the-namespace-in"),
        pytest.param({"kind": "Service"}, [HTTP, HTTPS], id="no-gateway"),
        pytest.param({"group": "example.org"}, [HTTP, HTTPS], id="a-gateway-of-another-group"),
    ],
)
def test_a_config_with_one_listener_gets_no_warning(
    world: Any, reference: Body, listeners: list[Body]
) -> None:
    assert advice(world, reference, *listeners) == []


def test_a_config_that_requests_no_routes_gets_no_warning(world: Any) -> None:
    assert advice(world, {}, HTTP, HTTPS, autoCreateRoute=False) == []


def test_a_port_of_several_listeners_does_not_mean_one(world: Any) -> None:
    one = HTTPS | {"hostname": "a.example.org"}
    other = HTTPS | {"name": "b", "hostname": "b.example.org"}
    [(reason, text)] = advice(world, {"port": 443}, HTTP, one, other)
    assert (reason, "https (HTTPS 443), b (HTTPS 443)" in text) == ("SeveralListeners", True)


def test_a_listener_without_http_routes_is_reported(world: Any) -> None:
    [(reason, text)] = advice(world, {"sectionName": "tcp"}, TCP, HTTP)
    assert (reason, "listener tcp has protocol TCP" in text) == ("RouteFailed", True)


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, "", "x", 0, 1.5, True, [], [None], {}, {"a": 1}]
)
LISTENER = st.one_of(
    ODD,
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(
                (
                    "name",
                    "port",
                    "hostname",
                    "tls",
                    "allowedRoutes",
                    "conditions",
                    "supportedKinds",
                ),
                ODD,
            ),
            "protocol": st.one_of(ODD, st.sampled_from(["HTTP", "HTTPS", "TLS"])),
        },
    ),
)
LISTENERS = st.one_of(ODD, st.lists(LISTENER, max_size=3))


@holds_for(
    listeners=LISTENERS, states=LISTENERS, addresses=st.one_of(ODD, st.lists(ODD)), conditions=ODD
)
def test_malformed_gateways_raise_nothing(
    listeners: Any, states: Any, addresses: Any, conditions: Any
) -> None:
    status = {"listeners": states, "addresses": addresses, "conditions": conditions}
    gateway = testing.obj(GATEWAY.kind, "gw", spec={"listeners": listeners}, status=status)
    config = testing.cr(CONFIG.kind, "default", {"routing": {"gateway": {"name": "gw"}}})
    service = testing.cr(
        "AIMService", "s", {"model": "m", "templateRef": "t", "configRef": "default"}
    )
    route = testing.obj("HTTPRoute", "s", owner=("AIMService", "s"), spec={}, status={})
    state = projection(service, config, gateway, route)
    assert plan_key(state, Key("AIMService", NAMESPACE, "s"), NOW).reports
    plan_key(state, Key(CONFIG.kind, NAMESPACE, "default"), NOW)
