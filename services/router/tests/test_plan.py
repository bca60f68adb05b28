"""Actions and conditions of the router."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given as holds_for
from hypothesis import settings
from hypothesis import strategies as st

from aim_router.__main__ import service
from aim_router.desired import checked_timeout
from aim_router.plan import plan as plan_key
from aim_router.projection import map_change_to_keys, map_to_keys
from aim_router.settings import RouterSettings
from aimcontroller import testing
from aimcontroller.projection import (
    REJECTED,
    ApplyRejected,
    Observation,
    Projection,
    drop_object,
    fold,
)
from aimcontroller.testing import (
    NAMESPACE,
    NOW,
    Body,
    action_summaries,
    applied,
    condition_summary,
    field_conflict,
    fields,
    golden,
    message,
    projection,
    rejected,
    status_condition,
)
from aimschema import labels
from aimschema.messages import KindSynced
from aimschema.resources import CONFIG, GATEWAY, ROUTE, SERVICE, TEMPLATE, Key, key_of

Setup = Callable[[Any], list[Body]]
APPLY = ["apply HTTPRoute s"]
REMOVE = ["delete HTTPRoute s"]
DISABLED = "True RoutingDisabled"
WAITS = "False ConfiguringRoute"
FAILED = "False RouteFailed"
READY = "True RouteReady"
SHARED = {labels.WORKLOAD_ID: "w"}


@pytest.mark.parametrize(
    ("setup", "actions", "ready"),
    [
        pytest.param(lambda w: [w.service()], [], DISABLED, id="no-config"),
        pytest.param(
            lambda w: [w.service(configRef="absent")], [], FAILED, id="named-config-missing"
        ),
        pytest.param(
            lambda w: [w.service(), testing.cr("AIMNamespaceConfig", "default", {})],
            [],
            DISABLED,
            id="no-routing",
        ),
        pytest.param(
            lambda w: [w.service(), w.config(autoCreateRoute=False)],
            [],
            DISABLED,
            id="no-auto-route",
        ),
        pytest.param(
            lambda w: [w.service(), w.config(autoCreateRoute=False), w.route()],
            REMOVE,
            DISABLED,
            id="auto-route-switched-off",
        ),
        pytest.param(
            lambda w: [
                w.service(),
                w.config(autoCreateRoute=False),
                w.route(owner=(SERVICE.kind, "x")),
            ],
            [],
            DISABLED,
            id="switched-off-not-our-route",
        ),
        pytest.param(
            lambda w: [w.service(), testing.cr("AIMNamespaceConfig", "default", {"routing": {}})],
            [],
            FAILED,
            id="routing-without-a-gateway",
        ),
        pytest.param(lambda w: [w.service(), w.config()], APPLY, WAITS, id="new"),
        pytest.param(
            lambda w: [w.service(), w.config(), w.gateway(), w.route()],
            APPLY,
            WAITS,
            id="not-looked-at",
        ),
        pytest.param(
            lambda w: [w.service(), w.config(), w.route()], APPLY, FAILED, id="no-such-gateway"
        ),
        pytest.param(
            lambda w: [w.service(), w.config({"kind": "Service"}), w.route()],
            APPLY,
            WAITS,
            id="not-looked-at-by-a-mesh",
        ),
        pytest.param(
            lambda w: [w.service(), w.config(), w.route(*w.accepted())], APPLY, READY, id="ready"
        ),
        pytest.param(
            lambda w: [w.service(), w.config(), w.route(status_condition("Accepted", True))],
            APPLY,
            WAITS,
            id="half-looked-at",
        ),
        pytest.param(
            lambda w: [w.service(), w.config(), w.route(*w.accepted(), generation=2)],
            APPLY,
            WAITS,
            id="only-the-former-generation-looked-at",
        ),
        pytest.param(
            lambda w: [
                w.service(),
                w.config(),
                w.route(
                    {"type": "Accepted", "status": "True"},
                    {"type": "ResolvedRefs", "status": "True"},
                ),
            ],
            APPLY,
            READY,
            id="a-gateway-that-names-no-generation",
        ),
        pytest.param(
            lambda w: [
                w.service(),
                w.config(),
                w.gateway(),
                w.route(*w.accepted(), gateway="former"),
            ],
            APPLY,
            WAITS,
            id="only-the-former-spoke",
        ),
        pytest.param(
            lambda w: [
                w.service(),
                w.config(),
                w.route(
                    status_condition("Accepted", True),
                    status_condition("ResolvedRefs", False, "BackendNotFound"),
                ),
            ],
            APPLY,
            WAITS,
            id="runtime-not-up",
        ),
        pytest.param(
            lambda w: [
                w.service(replicas=0),
                w.config(),
                w.route(
                    status_condition("Accepted", True),
                    status_condition("ResolvedRefs", False, "BackendNotFound"),
                ),
            ],
            APPLY,
            READY,
            id="a-stopped-service-has-no-backend",
        ),
        pytest.param(
            lambda w: [
                w.service(),
                w.config(),
                w.route(
                    status_condition("Accepted", False, "NotAllowedByListeners", "closed"),
                    status_condition("ResolvedRefs", True),
                ),
            ],
            APPLY,
            FAILED,
            id="not-accepted",
        ),
        pytest.param(
            lambda w: [w.service(), w.route(*w.accepted())],
            [],
            FAILED,
            id="config-deleted-route-left",
        ),
        pytest.param(
            lambda w: [w.service(), w.config(), w.route(owner=(SERVICE.kind, "x"))],
            [],
            "False NameConflict",
            id="route-of-another-owner",
        ),
        pytest.param(
            lambda w: [w.service(uid="second"), w.config(), w.route()],
            [],
            WAITS,
            id="left-by-the-former-service-of-this-name",
        ),
        pytest.param(
            lambda w: [w.service(), w.config(), w.route(*w.accepted(), deleting=True)],
            APPLY,
            WAITS,
            id="route-is-being-deleted",
        ),
        pytest.param(
            lambda w: [w.service(deleting=True), w.config()],
            [],
            "nothing",
            id="service-is-being-deleted",
        ),
        pytest.param(
            lambda w: [
                w.service(labels=SHARED),
                w.service("older", labels=SHARED, age_s=9999),
                w.config(),
            ],
            [],
            FAILED,
            id="workload-id-taken",
        ),
        pytest.param(
            lambda w: [
                w.service(labels=SHARED),
                w.service("younger", labels=SHARED, age_s=1),
                w.config(),
            ],
            APPLY,
            WAITS,
            id="the-older-keeps-it",
        ),
        pytest.param(
            lambda w: [
                w.service(annotations={labels.ANNOTATION_ROUTE_TIMEOUT: "soon"}),
                w.config(),
            ],
            [],
            FAILED,
            id="malformed-timeout",
        ),
    ],
)
def test_a_route(world: Any, setup: Setup, actions: list[str], ready: str) -> None:
    plan = world.plan(projection(*setup(world)))
    assert (action_summaries(plan), condition_summary(plan, "RoutingReady")) == (actions, ready)


def test_without_the_gateway_api_the_missing_kind_is_named(world: Any) -> None:
    plan = world.plan(projection(world.service(), world.config(), unserved=[ROUTE.kind]))
    assert (action_summaries(plan), condition_summary(plan, "RoutingReady")) == ([], FAILED)
    assert "httproutes.gateway.networking.k8s.io" in message(plan, "RoutingReady")


def test_the_message_of_the_gateway_is_quoted(world: Any) -> None:
    route = world.route(
        status_condition("Accepted", False, "NotAllowedByListeners", "closed on Sundays")
    )
    expected = message(
        world.plan(projection(world.service(), world.config(), route)), "RoutingReady"
    )
    assert "NotAllowedByListeners: closed on Sundays" in expected


def test_a_missing_gateway_is_named_with_the_remedy(world: Any) -> None:
    expected = message(
        world.plan(
            projection(world.service(), world.config({"namespace": "infra"}), world.route())
        ),
        "RoutingReady",
    )
    assert (
        expected == "Gateway infra/gw does not exist; create it, or change spec.routing.gateway of"
        " AIMNamespaceConfig default"
    )


def test_a_gateway_that_is_not_programmed_is_reported(world: Any) -> None:
    gateway = world.gateway()
    gateway["status"]["conditions"] = [
        status_condition("Programmed", False, "AddressNotAssigned", "no address left")
    ]
    assert "no address left" in message(
        world.plan(projection(world.service(), world.config(), gateway, world.route())),
        "RoutingReady",
    )


def test_a_rejection_is_reported(world: Any) -> None:
    state = projection(
        world.service(),
        world.config(),
        observations=[rejected(world.key, Key(ROUTE.kind, NAMESPACE, "s"), "webhook says no")],
    )
    assert condition_summary(world.plan(state), "RoutingReady") == FAILED
    assert "webhook says no" in message(world.plan(state), "RoutingReady")
    taken = rejected(world.key, Key(ROUTE.kind, NAMESPACE, "s"), "exists", name_taken=True)
    assert (
        condition_summary(
            world.plan(projection(world.service(), world.config(), observations=[taken])),
            "RoutingReady",
        )
        == "False NameConflict"
    )


@pytest.mark.parametrize(
    ("by_webhook", "ready"), [(False, "False ConfiguringRoute"), (True, "False RouteFailed")]
)
def test_only_a_webhook_that_fails_is_a_failure_of_the_route(
    world: Any, ready: str, *, by_webhook: bool
) -> None:
    rejection = ApplyRejected(
        Key(ROUTE.kind, NAMESPACE, "s"), "no answer", transient=True, by_webhook=by_webhook
    )
    plan = world.plan(
        projection(
            world.service(),
            world.config(),
            observations=[Observation(world.key, REJECTED, rejection)],
        )
    )
    assert condition_summary(plan, "RoutingReady") == ready
    assert "rejected by the API server: no answer" in message(plan, "RoutingReady")


def test_a_field_conflict_is_reported(world: Any) -> None:
    bodies = [world.service(), world.config(), world.route(*world.accepted())]
    plan = world.plan(
        projection(*bodies, observations=[field_conflict(Key(ROUTE.kind, NAMESPACE, "s"))])
    )
    assert condition_summary(plan, "RoutingReady") == "True RouteReady"
    assert "keeps being changed by bully" in message(plan, "RoutingReady")
    assert [warning.reason for warning in plan.reports[0].warnings] == ["Contested"]


def advice(state: Projection) -> list[tuple[str, str]]:
    plan = plan_key(state, Key(CONFIG.kind, NAMESPACE, "default"), NOW)
    return [
        (warning.reason, warning.message) for report in plan.reports for warning in report.warnings
    ]


@pytest.mark.parametrize(
    ("setup", "text"),
    [
        pytest.param(lambda _: [testing.cr(CONFIG.kind, "default", {})], [], id="no-routing"),
        pytest.param(lambda w: [w.config(autoCreateRoute=False)], [], id="no-auto-route"),
        pytest.param(lambda w: [w.config(), w.gateway()], [], id="all-there"),
        pytest.param(
            lambda w: [w.config({"kind": "Service"})], [], id="what-is-not-watched-is-not-judged"
        ),
        pytest.param(
            lambda _: [testing.cr(CONFIG.kind, "default", {"routing": {}})],
            ["set spec.routing.gateway"],
            id="no-gateway-named",
        ),
        pytest.param(
            lambda w: [w.config()],
            ["spec.routing.gateway names Gateway team/gw", "create it"],
            id="gateway-missing",
        ),
        pytest.param(
            lambda w: [w.config({"namespace": "infra"}), w.gateway()],
            ["Gateway infra/gw"],
            id="gateway-in-another-namespace",
        ),
        pytest.param(
            lambda w: [w.config({"sectionName": "tls"}), w.gateway()],
            ["sectionName names listener tls", "has web"],
            id="no-such-listener",
        ),
    ],
)
def test_an_invalid_config_is_reported_with_its_field(
    world: Any, setup: Setup, text: list[str]
) -> None:
    expected = advice(projection(*setup(world)))
    assert [reason for reason, _ in expected] == (["RouteFailed"] if text else [])
    assert [text for text in text if text not in expected[0][1]] == []


def test_a_config_needs_the_gateway_api(world: Any) -> None:
    [(_, text)] = advice(
        fold(
            projection(world.config()),
            KindSynced(kind=ROUTE.kind, resource_version="1", objects=0, installed=False),
        )
    )
    assert "install the Gateway API" in text


def test_a_route_that_may_not_be_removed_is_reported(world: Any) -> None:
    bodies = (world.service(), world.config(autoCreateRoute=False), world.route())
    plan = world.plan(
        projection(
            *bodies,
            observations=[
                rejected(world.key, Key(ROUTE.kind, NAMESPACE, "s"), "no right to delete")
            ],
        )
    )
    assert (action_summaries(plan), condition_summary(plan, "RoutingReady")) == (REMOVE, FAILED)
    assert "no right to delete" in message(plan, "RoutingReady")


PATH = "/team/aimservice-s"


@pytest.mark.parametrize(
    ("gateway", "reference", "url"),
    [
        pytest.param(lambda w: w.gateway("10.0.0.1"), {}, "http://10.0.0.1", id="address"),
        pytest.param(
            lambda w: w.gateway("10.0.0.1", port=8080), {}, "http://10.0.0.1:8080", id="port"
        ),
        pytest.param(
            lambda w: w.gateway("10.0.0.1", hostname="ai.example.org"),
            {},
            "http://ai.example.org",
            id="host-name",
        ),
        pytest.param(
            lambda w: w.gateway("10.0.0.1", hostname="*.example.org"),
            {},
            "http://10.0.0.1",
            id="wildcard",
        ),
        pytest.param(lambda w: w.gateway("fd00::1"), {}, "http://[fd00::1]", id="ipv6"),
        pytest.param(
            lambda w: w.gateway("10.0.0.1", protocol="HTTPS", port=443),
            {},
            "https://10.0.0.1",
            id="https",
        ),
        pytest.param(
            lambda w: w.gateway("10.0.0.1"),
            {"sectionName": "web"},
            "http://10.0.0.1",
            id="its-listener",
        ),
        pytest.param(
            lambda w: w.gateway("10.0.0.1"),
            {"sectionName": "web", "port": 80},
            "http://10.0.0.1",
            id="its-port",
        ),
        pytest.param(lambda w: w.gateway(), {}, None, id="no-address-yet"),
        pytest.param(
            lambda _: testing.obj(GATEWAY.kind, "unrelated"), {}, None, id="no-such-gateway"
        ),
    ],
)
def test_the_path_and_url_of_a_service(
    world: Any, gateway: Callable[[Any], Body], reference: Body, url: str | None
) -> None:
    route = world.route(parents=[world.parent(*world.accepted(), **reference)])
    plan = world.plan(projection(world.service(), world.config(reference), route, gateway(world)))
    assert fields(plan) == {"path": PATH} | ({} if url is None else {"url": url + PATH})
    assert message(plan, "RoutingReady") == (PATH if url is None else f"{PATH} on {url}")


@pytest.mark.parametrize("text", ["90s", "2m30s", "0s", "1h1m1s1ms", "99999ms"])
def test_durations(world: Any, text: str) -> None:
    state = projection(
        world.service(annotations={labels.ANNOTATION_ROUTE_TIMEOUT: text}), world.config()
    )
    assert applied(world.plan(state), ROUTE.kind)["spec"]["rules"][0]["timeouts"] == {
        "request": text
    }


@pytest.mark.parametrize("text", ["", "1", "1.5s", "-1s", "1d", "100000s", "1s1s1s1s1s", "1s "])
def test_malformed_durations(world: Any, text: str) -> None:
    with pytest.raises(ValueError, match=labels.ANNOTATION_ROUTE_TIMEOUT):
        checked_timeout(text)
    state = projection(
        world.service(annotations={labels.ANNOTATION_ROUTE_TIMEOUT: text}), world.config()
    )
    assert labels.ANNOTATION_ROUTE_TIMEOUT in message(world.plan(state), "RoutingReady")


def test_the_objects_are_as_recorded(world: Any) -> None:
    """AIM_WRITE_GOLDEN=1 rewrites the files in golden/."""
    golden(
        __file__,
        "route.plain",
        applied(world.plan(projection(world.service(), world.config())), ROUTE.kind),
    )
    gateway = {"name": "edge", "namespace": "infra", "sectionName": "https", "port": 443}
    service = world.service(
        labels={labels.WORKLOAD_ID: "chat.v1"}, annotations={labels.ANNOTATION_ROUTE_TIMEOUT: "0s"}
    )
    golden(
        __file__,
        "route.everything-set",
        applied(world.plan(projection(service, world.config(gateway))), ROUTE.kind),
    )


LOOSE: st.SearchStrategy[Body] = st.fixed_dictionaries(
    {},
    optional={
        "parents": st.sampled_from(
            [
                None,
                [],
                [{}],
                [{"parentRef": {"name": "gw"}}],
                [{"parentRef": {"name": "gw"}, "conditions": [{}]}],
            ]
        ),
        "addresses": st.sampled_from([None, [], [{}], [{"value": "h"}]]),
    },
)


@pytest.mark.parametrize("uid", ["aimservice-s", "second"], ids=["its-own", "of-a-former-service"])
def test_the_finalizer_of_a_route_is_named(world: Any, uid: str) -> None:
    state = projection(
        world.service(uid=uid),
        world.config(),
        testing.held_by_finalizers(world.route(*world.accepted()), "example.org/hold"),
    )
    assert condition_summary(world.plan(state), "RoutingReady") == WAITS
    assert "HTTPRoute s is being deleted, held by finalizer example.org/hold" in message(
        world.plan(state), "RoutingReady"
    )


@settings(max_examples=200, deadline=None)
@holds_for(
    status=LOOSE,
    routing=st.sampled_from([{}, {"routing": {}}, {"routing": {"gateway": {"name": "gw"}}}]),
    listeners=st.sampled_from([{}, {"listeners": None}, {"listeners": [{}]}]),
    kinds=st.sets(st.sampled_from(["AIMNamespaceConfig", ROUTE.kind, GATEWAY.kind])),
)
def test_malformed_objects_raise_nothing(
    status: Body, routing: Body, listeners: Body, kinds: set[str]
) -> None:
    bodies = [
        testing.cr("AIMNamespaceConfig", "default", routing),
        testing.obj(ROUTE.kind, "s", owner=(SERVICE.kind, "s"), status=status),
        testing.obj(GATEWAY.kind, "gw", spec=listeners, status=status),
    ]
    service = testing.cr(
        SERVICE.kind, "s", {"model": "m", "templateRef": "t", "configRef": "default"}
    )
    state = projection(service, *(body for body in bodies if body["kind"] in kinds))
    assert plan_key(state, Key(SERVICE.kind, NAMESPACE, "s"), NOW).reports


@pytest.mark.parametrize(
    ("change", "woken"),
    [
        pytest.param(
            lambda w: w.service("younger", labels=SHARED, replicas=2, version=2),
            set(),
            id="the-younger-changes",
        ),
        pytest.param(
            lambda w: w.service("older", labels=SHARED, age_s=9999, replicas=2, version=2),
            set(),
            id="the-older-changes",
        ),
        pytest.param(
            lambda w: w.service("youngest", labels=SHARED, age_s=1), set(), id="a-third-comes"
        ),
        pytest.param(
            lambda w: w.service("oldest", labels=SHARED, age_s=99999),
            {"oldest", "older", "younger"},
            id="an-older-one-comes",
        ),
        pytest.param(
            lambda w: w.service("older", age_s=9999, version=2),
            {"older", "younger"},
            id="the-older-takes-another-id",
        ),
        pytest.param(
            lambda w: w.service("older", labels=SHARED, age_s=9999, version=2, deleting=True),
            {"older", "younger"},
            id="the-older-is-deleted",
        ),
        pytest.param(
            lambda w: w.service("younger", version=2),
            {"younger"},
            id="the-younger-takes-another-id",
        ),
    ],
)
def test_services_of_a_workload_id_are_enqueued_on_a_change(
    world: Any, change: Callable[[Any], Body], woken: set[str]
) -> None:
    before = projection(
        world.service("older", labels=SHARED, age_s=9999), world.service("younger", labels=SHARED)
    )
    after = fold(before, testing.changed(change(world)), 9)
    assert {each.name for each in map_change_to_keys(before, after, key_of(change(world)))} == woken


def test_services_of_a_workload_id_are_enqueued_on_a_delete(world: Any) -> None:
    before = projection(
        world.service("older", labels=SHARED, age_s=9999), world.service("younger", labels=SHARED)
    )
    key = Key(SERVICE.kind, NAMESPACE, "older")
    assert Key(SERVICE.kind, NAMESPACE, "younger") in set(
        map_change_to_keys(before, drop_object(before, key), key)
    )


LISTENER = {"name": "web", "attachedRoutes": 1, "supportedKinds": [{"kind": "HTTPRoute"}]}
LISTENED = {"listeners": [LISTENER]}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param({"listeners": [LISTENER | {"attachedRoutes": 2}]}, False, id="a-route-more"),
        pytest.param({"listeners": [LISTENER | {"supportedKinds": []}]}, True, id="its-kinds"),
        pytest.param({"listeners": []}, True, id="no-listener"),
        pytest.param({"listeners": ["web"]}, True, id="a-listener-that-is-no-object"),
        pytest.param({"listeners": "web"}, True, id="listeners-that-are-no-list"),
        pytest.param(LISTENED | {"addresses": [{"value": "a"}]}, True, id="its-addresses"),
        pytest.param("up", True, id="a-status-that-is-no-object"),
    ],
)
def test_a_gateway_that_counts_routes_reconciles_nothing(
    world: Any, status: Any, expected: bool
) -> None:
    router = service(RouterSettings())
    others = projection(world.service(status={"path": "/s"}), world.config())
    gateways = [world.gateway() | {"status": each} for each in (LISTENED, status)]
    gateways[1]["metadata"]["resourceVersion"] = "2"
    before = fold(others, testing.changed(gateways[0]), 1)
    keys = router.keys_to_reconcile(
        before, fold(before, testing.changed(gateways[1]), 2), key_of(gateways[0])
    )
    assert (world.key in keys) is expected


TEMPLATES_LISTED = KindSynced(kind=TEMPLATE.kind, resource_version="9", objects=1, installed=True)


def template(name: str = "t") -> Body:
    return testing.cr(TEMPLATE.kind, name, {}, version=3)


@pytest.mark.parametrize(
    ("setup", "is_listed", "actions"),
    [
        pytest.param(lambda w: [w.service(), w.config()], True, [], id="missing"),
        pytest.param(
            lambda w: [w.service(), w.config(), template("another")], True, [], id="another"
        ),
        pytest.param(lambda w: [w.service(), w.config(), template()], True, APPLY, id="exists"),
        pytest.param(lambda w: [w.service(), w.config()], False, APPLY, id="not-listed-yet"),
        pytest.param(
            lambda w: [w.service(), w.config(), w.route()], True, APPLY, id="deleted-behind-a-route"
        ),
    ],
)
def test_without_its_template_a_service_gets_no_route(
    world: Any, setup: Setup, is_listed: bool, actions: list[str]
) -> None:
    state = projection(*setup(world))
    plan = world.plan(fold(state, TEMPLATES_LISTED) if is_listed else state)
    assert action_summaries(plan) == actions
    if not actions:
        assert condition_summary(plan, "RoutingReady") == WAITS
        assert "AIMServiceTemplate t" in message(plan, "RoutingReady")


@pytest.mark.parametrize("value", [None, 7, ["t"]], ids=str)
def test_a_malformed_template_name_is_no_missing_template(world: Any, value: Any) -> None:
    service = world.service()
    service["spec"]["templateRef"] = value
    plan = world.plan(fold(projection(service, world.config()), TEMPLATES_LISTED))
    assert action_summaries(plan) == APPLY


def test_a_template_concerns_services_without_a_route(world: Any) -> None:
    objects = [world.service(), world.service("other"), world.route(), template()]
    keys = list(map_to_keys(projection(*objects), Key(TEMPLATE.kind, NAMESPACE, "t")))
    assert [key.name for key in keys] == ["other"]


def test_labels_of_a_service_are_passed_on_to_its_route(world: Any) -> None:
    own = {"team": "vision", "other": "stays", labels.LABEL_SERVICE: "x"}
    config = world.config()
    config["spec"]["labelPropagation"] = {"match": ["team", "aim.*"]}
    route = applied(world.plan(projection(world.service(labels=own), config)), ROUTE.kind)
    assert route["metadata"]["labels"]["team"] == "vision"
    assert route["metadata"]["labels"][labels.LABEL_SERVICE] == "s"
    assert "other" not in route["metadata"]["labels"]
