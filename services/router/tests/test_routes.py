"""Routes as services and configs ask for them: who wins, which path, which host, and whose
requests."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from aim_router.desired import RouteOptions, path_of
from aim_router.listeners import hosts_overlap
from aim_router.plan import plan
from aim_router.projection import map_change_to_keys
from aim_router.settings import RouterSettings
from aimcontroller import testing
from aimcontroller.plan import Plan
from aimcontroller.projection import KubeObject
from aimcontroller.testing import (
    NOW,
    Body,
    action_summaries,
    applied,
    condition_summary,
    golden,
    message,
    projection,
)
from aimschema import labels
from aimschema.resources import ROUTE, SERVICE, Key

GATEWAY = {"name": "gw"}
OTHER = {"name": "edge", "namespace": "infra"}


def service(world: Any, routing: Body | None = None, **fields: Any) -> Body:
    body: Body = world.service(**fields)
    return body if routing is None else {**body, "spec": {**body["spec"], "routing": routing}}


def planned(world: Any, *objects: Body, **options: Any) -> Plan:
    return plan(projection(*objects), world.key, NOW, options=RouteOptions(**options))


def route_of(found: Plan) -> Body:
    return dict(applied(found, ROUTE.kind))


def test_all_fields_are_as_recorded(world: Any) -> None:
    config = world.config(
        hostnames=["models.example.org"],
        pathTemplate="/{.metadata.namespace}/models/{.metadata.name}/",
        requestTimeout="10m",
        annotations={"example.org/a": "config", "example.org/b": "config"},
    )
    own = {
        "gateway": OTHER,
        "hostnames": ["chat.example.org", "*.chat.example.org"],
        "requestTimeout": "90s",
        "annotations": {"example.org/b": "service"},
    }
    golden(__file__, "route.settings", route_of(planned(world, service(world, own), config)))


@pytest.mark.parametrize(
    ("own", "config", "condition", "has_route"),
    [
        ({"enabled": True}, {}, "False ConfiguringRoute", True),
        ({"enabled": True}, {"autoCreateRoute": False}, "False ConfiguringRoute", True),
        ({"enabled": False}, {}, "True RoutingDisabled", False),
        ({}, {"autoCreateRoute": False}, "True RoutingDisabled", False),
        ({"enabled": True, "gateway": OTHER}, None, "False ConfiguringRoute", True),
        ({"enabled": True}, None, "False RouteFailed", False),
        ({"gateway": OTHER}, None, "True RoutingDisabled", False),
    ],
)
def test_enabled_decides_over_the_config(
    world: Any, own: Body, config: Body | None, condition: str, has_route: bool
) -> None:
    configs = [] if config is None else [world.config(**config)]
    found = planned(world, service(world, own), *configs)
    assert condition_summary(found, "RoutingReady") == condition
    assert bool(action_summaries(found)) is has_route


def test_without_any_gateway_the_message_names_both_fields(world: Any) -> None:
    found = planned(world, service(world, {"enabled": True}))
    assert message(found, "RoutingReady") == (
        "spec.routing.enabled is true, but neither the service nor AIMNamespaceConfig default names"
        " a gateway; set spec.routing.gateway"
    )


def test_a_route_without_config_stays_its_own(world: Any) -> None:
    """It is not taken for the route of a config that was deleted."""
    body = service(world, {"enabled": True, "gateway": OTHER})
    own = world.route(annotations={labels.ANNOTATION_CONFIG: ""})
    assert action_summaries(planned(world, body, own)) == ["apply HTTPRoute s"]
    theirs = world.route(annotations={labels.ANNOTATION_CONFIG: "default"})
    assert action_summaries(planned(world, body, theirs)) == []
    assert "was deleted" in message(planned(world, body, theirs), "RoutingReady")


def test_a_config_without_routing_is_not_needed(world: Any) -> None:
    """Its deletion leaves a route that has everything from its service."""
    body = service(world, {"enabled": True, "gateway": OTHER})
    config = {**world.config(), "spec": {"labelPropagation": {"match": ["team"]}}}
    annotations = route_of(planned(world, body, config))["metadata"]["annotations"]
    assert annotations == {labels.ANNOTATION_CONFIG: ""}
    own = world.route(annotations=annotations)
    assert action_summaries(planned(world, body, own)) == ["apply HTTPRoute s"]


def test_a_service_removes_its_route_without_a_config(world: Any) -> None:
    """The route of a deleted config stays only while the service does not disable it."""
    found = planned(world, service(world, {"enabled": False}), world.route())
    assert action_summaries(found) == ["delete HTTPRoute s"]
    assert condition_summary(found, "RoutingReady") == "True RoutingDisabled"


def test_messages_name_the_object_that_has_the_gateway(world: Any) -> None:
    route = world.route()
    theirs = planned(world, service(world), world.config(), route)
    assert message(theirs, "RoutingReady").endswith("of AIMNamespaceConfig default")
    own = planned(world, service(world, {"gateway": OTHER}), world.config(), route)
    assert message(own, "RoutingReady").endswith("of AIMService s")


WRONG: list[Body] = [
    {"pathTemplate": "/elsewhere"},
    {"hostnames": ["forbidden.example.org"]},
]


@pytest.mark.parametrize("routing", WRONG)
def test_a_route_that_stays_keeps_its_fields(world: Any, routing: Body) -> None:
    fields = {"path": "/team/s", "url": "http://10.0.0.9/team/s"}
    body = service(world, routing, status=fields)
    existing = world.route(*world.accepted(), spec={"hostnames": ["a.example.org"]})
    hosts = {"*": ("a.example.org",)}
    found = planned(world, body, world.config(), existing, hosts=hosts)
    assert (action_summaries(found), found.reports[0].fields) == ([], fields)
    absent = planned(world, body, world.config(), hosts=hosts)
    assert absent.reports[0].fields == {}


@pytest.mark.parametrize(
    "routing", [{"pathTemplate": "/{.metadata.namespace}/x"}, {"enabled": False}]
)
def test_only_services_with_the_default_path_share_an_id(world: Any, routing: Body) -> None:
    same = {labels.WORKLOAD_ID: "chat"}
    blocking = world.service("older", labels=same, age_s=9999)
    older = {**blocking, "spec": {**blocking["spec"], "routing": routing}}
    own = service(world, labels=same)
    assert action_summaries(planned(world, own, older, world.config())) == ["apply HTTPRoute s"]
    before, after = projection(own, blocking), projection(own, older)
    keys = map_change_to_keys(before, after, Key(SERVICE.kind, "team", "older"))
    assert world.key in set(keys)


@pytest.mark.parametrize(
    ("routing", "spec"),
    [
        ({"hostnames": ["b.example.org"]}, {"hostnames": ["b.example.org"]}),
        ({"pathTemplate": "/chat"}, {"rules": [{"matches": [{"path": {"value": "/chat"}}]}]}),
        ({"pathTemplate": "/"}, {"rules": [{"matches": [{"path": {"value": "/"}}]}]}),
    ],
)
def test_a_route_that_new_limits_forbid_is_removed(world: Any, routing: Body, spec: Body) -> None:
    """It would go on to take requests of others."""
    existing = world.route(*world.accepted(), spec=spec)
    body, hosts = service(world, routing), {"*": ("a.example.org",)}
    found = planned(world, body, world.config(), existing, hosts=hosts)
    assert action_summaries(found) == ["delete HTTPRoute s"]
    assert condition_summary(found, "RoutingReady") == "False RouteFailed"
    assert action_summaries(planned(world, body, world.config(), existing, any_path=True)) == [
        "apply HTTPRoute s"
    ]


def test_with_a_template_the_path_decides_not_the_workload_id(world: Any) -> None:
    same = {labels.WORKLOAD_ID: "chat"}
    older = world.service("older", labels=same, age_s=9999)
    config = world.config()
    found = planned(world, service(world, labels=same), older, config)
    assert "has the same workload id" in message(found, "RoutingReady")
    own = service(world, {"pathTemplate": "/{.metadata.namespace}/s"}, labels=same)
    assert action_summaries(planned(world, own, older, config)) == ["apply HTTPRoute s"]


# --- paths ---


def kube(world: Any, **fields: Any) -> KubeObject:
    found = projection(service(world, **fields)).get(world.key)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("template", "path"),
    [
        (None, "/team/aimservice-s"),
        ("/{.metadata.namespace}/{.metadata.name}", "/team/s"),
        ("/{.metadata.namespace}/{.metadata.name}/", "/team/s"),
        ("/{.metadata.namespace}", "/team"),
        ("/team/v1/{.metadata.uid}", "/team/v1/aimservice-s"),
        ("/{.metadata.namespace}/{.metadata.labels['example.org/tier']}", "/team/gold"),
        ("/{.metadata.namespace}/{.metadata.labels['tier']}-{.metadata.name}", "/team/a-s"),
    ],
)
def test_templates(world: Any, template: str | None, path: str) -> None:
    own = {"example.org/tier": "gold", "tier": "a"}
    assert path_of(kube(world, labels=own), template) == path


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("/", "does not begin with /team"),
        ("/chat", "does not begin with /team"),
        ("/teams/chat", "does not begin with /team"),
        ("/{.metadata.name}", "does not begin with /team"),
        ("/{.metadata.namespace}/{.spec.model}", "{.spec.model}; use"),
        ("/{.metadata.namespace}/{}", "{}; use"),
        ("/{.metadata.namespace}/{.metadata.labels['none']}", "needs label none"),
        ("/{.metadata.namespace}//x", "segment ''"),
        ("/{.metadata.namespace}/../other", "segment '..'"),
        ("/{.metadata.namespace}/./x", "segment '.'"),
        ("/{.metadata.namespace}/%2e%2e/other", "segment '%2e%2e'"),
        ("/{.metadata.namespace}/a b", "segment 'a b'"),
        ("/{.metadata.namespace}/a?b", "segment 'a?b'"),
        ("/{.metadata.namespace}/a#b", "segment 'a#b'"),
        ("/{.metadata.namespace}/{.metadata.name", "segment '{.metadata.name'"),
        ("/{.metadata.namespace}/" + "x" * 200, "longer than 200 characters"),
    ],
)
def test_bad_templates(world: Any, template: str, text: str) -> None:
    found = planned(world, service(world, {"pathTemplate": template}), world.config())
    assert action_summaries(found) == []
    assert condition_summary(found, "RoutingReady") == "False RouteFailed"
    assert text in message(found, "RoutingReady")
    assert "routing.pathTemplate" in message(found, "RoutingReady")


@pytest.mark.parametrize("template", ["/", "/chat", "/{.metadata.name}/v1"])
def test_a_setting_allows_any_path(world: Any, template: str) -> None:
    found = planned(
        world, service(world, {"pathTemplate": template}), world.config(), any_path=True
    )
    path = route_of(found)["spec"]["rules"][0]["matches"][0]["path"]["value"]
    assert path == template.replace("{.metadata.name}", "s")


# --- host names ---


@pytest.mark.parametrize(
    ("hostname", "is_allowed"),
    [
        ("x.one.example.org", True),
        ("*.one.example.org", False),
        ("chat.team.example.org", True),
        ("*.team.example.org", True),
        ("shared.example.org", True),
        ("team.example.org", False),
        ("chat.other.example.org", False),
        ("*.example.org", False),
    ],
)
def test_host_names_are_those_of_the_namespace(world: Any, hostname: str, is_allowed: bool) -> None:
    hosts = {
        "te*": ("*.team.example.org", "?.one.example.org"),
        "*": ("shared.example.org",),
        "other": ("*",),
    }
    found = planned(world, service(world, {"hostnames": [hostname]}), world.config(), hosts=hosts)
    assert bool(action_summaries(found)) is is_allowed
    if not is_allowed:
        assert message(found, "RoutingReady") == (
            f"routing.hostnames has {hostname}, which namespace team may not use; change it, or"
            " allow it in AIM_ROUTE_HOSTS of aim-router"
        )


def test_the_url_has_the_host_name(world: Any) -> None:
    found = planned(
        world,
        service(world, {"hostnames": ["*.example.org", "chat.example.org"]}),
        world.config(),
        world.gateway("10.0.0.9"),
        world.route(*world.accepted()),
    )
    assert found.reports[0].fields["url"].startswith("http://chat.example.org")


@pytest.mark.parametrize(
    ("hostnames", "listener", "url"),
    [
        ([], None, "http://10.0.0.9/"),
        ([], "*.b.org", "http://10.0.0.9/"),
        ([], "x.b.org", "http://x.b.org/"),
        (["*.a.org"], None, None),
        (["*.a.org"], "*.a.org", None),
        (["*.a.org"], "x.a.org", "http://x.a.org/"),
        (["a.org", "x.b.org"], "*.b.org", "http://x.b.org/"),
        (["a.org"], "*.b.org", None),
        (["a.org"], "x.b.org", None),
        (["*.a.org", "a.org"], None, "http://a.org/"),
    ],
)
def test_the_url_reaches_the_route(
    world: Any, hostnames: list[str], listener: str | None, url: str | None
) -> None:
    host = {} if listener is None else {"hostname": listener}
    body = service(world, {"hostnames": hostnames})
    gateway = world.gateway("10.0.0.9", **host)
    found = planned(world, body, world.config(), gateway, world.route(*world.accepted()))
    actual = found.reports[0].fields.get("url")
    assert actual == (url and f"{url}team/aimservice-s")


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("a.example.org", "a.example.org", True),
        ("a.example.org", "A.Example.org", True),
        ("a.example.org", "b.example.org", False),
        ("*.example.org", "a.example.org", True),
        ("*.example.org", "a.b.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "*.b.example.org", True),
        ("*.example.org", "badexample.org", False),
        ("*.a.example.org", "*.b.example.org", False),
    ],
)
def test_host_names_overlap(one: str, other: str, overlap: bool) -> None:
    assert hosts_overlap(one, other) is hosts_overlap(other, one) is overlap


LABEL = st.sampled_from(["a", "b", "example"])
NAMES = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
HOSTS = st.one_of(NAMES, NAMES.map(lambda name: f"*.{name}"))


def matches(host: str, request: str) -> bool:
    return request.endswith(host[1:]) if host.startswith("*") else request == host


@given(HOSTS, HOSTS, NAMES)
def test_hosts_overlap_if_a_request_reaches_both(one: str, other: str, request: str) -> None:
    if matches(one, request) and matches(other, request):
        assert hosts_overlap(one, other)


# --- whose requests ---


def theirs(path: str, namespace: str = "other", age_s: int = 9999, **spec: Any) -> Body:
    """A route of ours in another namespace."""
    match = {"path": {"type": "PathPrefix", "value": path}}
    whole = {"parentRefs": [{"name": "gw", "namespace": "team"}], "rules": [{"matches": [match]}]}
    body = testing.obj(
        ROUTE.kind,
        "x",
        namespace=namespace,
        owner=(SERVICE.kind, "x"),
        spec=whole | spec,
        age_s=age_s,
    )
    return dict(body)


CONFLICTS = [
    pytest.param("/chat", {}, True, id="equal"),
    pytest.param("/chat/v1", {}, True, id="below"),
    pytest.param("/", {}, True, id="above"),
    pytest.param("/chatter", {}, False, id="another-element"),
    pytest.param("/other", {}, False, id="beside"),
    pytest.param("/chat", {"hostnames": ["a.example.org"]}, True, id="every-host"),
    pytest.param("/chat", {"parentRefs": [{"name": "edge"}]}, False, id="another-gateway"),
    pytest.param("/chat", {"parentRefs": [{"name": "gw"}]}, False, id="its-own-gateway"),
    pytest.param(
        "/chat",
        {"parentRefs": [{"name": "gw", "namespace": "team", "sectionName": "http"}]},
        True,
        id="a-listener-of-it",
    ),
]


@pytest.mark.parametrize(("path", "spec", "conflicts"), CONFLICTS)
def test_an_older_route_of_another_namespace_wins(
    world: Any, path: str, spec: Body, conflicts: bool
) -> None:
    own = service(world, {"pathTemplate": "/chat"})
    found = planned(world, own, world.config(), theirs(path, **spec), any_path=True)
    assert bool(action_summaries(found)) is not conflicts
    if conflicts:
        assert message(found, "RoutingReady") == (
            "path /chat would take requests of an HTTPRoute of namespace other, which is older;"
            " change routing.pathTemplate or routing.hostnames"
        )
        assert found.requeue_after_s == 60


@pytest.mark.parametrize(
    ("own", "other", "conflicts"),
    [
        (["a.example.org"], ["a.example.org"], True),
        (["a.example.org"], ["*.example.org"], True),
        (["a.example.org"], ["b.example.org"], False),
        (["a.example.org", "b.example.org"], ["b.example.org"], True),
    ],
)
def test_only_on_a_common_host(
    world: Any, own: list[str], other: list[str], conflicts: bool
) -> None:
    body = service(world, {"pathTemplate": "/chat", "hostnames": own})
    found = planned(world, body, world.config(), theirs("/chat", hostnames=other), any_path=True)
    assert bool(action_summaries(found)) is not conflicts


@pytest.mark.parametrize(
    ("age_s", "actions"), [(9999, ["delete HTTPRoute s"]), (1, ["apply HTTPRoute s"])]
)
def test_the_younger_route_is_removed(world: Any, age_s: int, actions: list[str]) -> None:
    own = service(world, {"pathTemplate": "/chat"})
    existing = world.route(age_s=100)
    found = planned(
        world, own, world.config(), existing, theirs("/chat", age_s=age_s), any_path=True
    )
    assert action_summaries(found) == actions


@pytest.mark.parametrize(("path", "conflicts"), [("/team/chat", True), ("/team/chat/v1", False)])
def test_in_one_namespace_only_equal_paths_conflict(world: Any, path: str, conflicts: bool) -> None:
    own = service(world, {"pathTemplate": "/{.metadata.namespace}/chat"})
    beside = theirs(path, namespace="team", parentRefs=[{"name": "gw"}])
    found = planned(world, own, world.config(), beside)
    assert bool(action_summaries(found)) is not conflicts


def test_a_config_with_host_names_needs_no_listener(world: Any) -> None:
    """Its routes attach to the listeners of these hosts."""
    listeners = [{"name": name, "port": 80, "protocol": "HTTP"} for name in ("a", "b")]
    for hostnames, warned in ([], ["SeveralListeners"]), (["chat.example.org"], []):
        config = world.config(hostnames=hostnames)
        state = projection(config, world.gateway_with(*listeners))
        found = plan(state, Key("AIMNamespaceConfig", "team", "default"), NOW)
        assert [each.reason for report in found.reports for each in report.warnings] == warned


# --- settings ---


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("", None),
        (
            '{"team-*": ["*.team.example.org"], "*": []}',
            {"team-*": ("*.team.example.org",), "*": ()},
        ),
    ],
)
def test_hosts_are_read_from_json(text: str, hosts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIM_ROUTE_HOSTS", text)
    monkeypatch.setenv("AIM_ROUTE_ANY_PATH", "true")
    assert RouterSettings().options == RouteOptions(any_path=True, hosts=hosts)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": "b"}', '{"a": [1]}'])
def test_other_texts_are_errors(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIM_ROUTE_HOSTS", text)
    with pytest.raises(ValidationError, match="object of lists"):
        RouterSettings()
