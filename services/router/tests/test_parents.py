"""Which entries of status.parents are the answer of the gateway that the config names."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given as holds_for
from hypothesis import strategies as st

from aim_router.parents import answers
from aimcontroller import testing
from aimcontroller.testing import (
    NAMESPACE,
    Body,
    condition_summary,
    message,
    projection,
    status_condition,
)
from aimschema.kinds import GatewayReference
from aimschema.resources import ROUTE, Key

Parents = Callable[[Any], list[Body]]
WAITS = "False ConfiguringRoute"
FAILED = "False RouteFailed"
READY = "True RouteReady"
POLICY = "example.org/policy-controller"
HTTPS = {"sectionName": "https", "port": 443}
CLOSED = status_condition("Accepted", False, "NotAllowedByListeners", "closed")


def affected() -> Body:
    return status_condition("example.org/AuthPolicyAffected", True)


def routed(
    world: Any,
    parents: Any,
    reference: Body | None = None,
    *,
    generation: int = 1,
    replicas: int = 1,
) -> str:
    """RoutingReady with these entries on the route, by a config with this reference."""
    listeners = [
        {"name": name, "protocol": "HTTP", "port": port}
        for name, port in (("http", 80), ("https", 443))
    ]
    route = world.route(parents=parents, generation=generation)
    config = world.config(reference or {})
    service = world.service(replicas=replicas)
    return condition_summary(
        world.plan(projection(service, config, route, world.gateway_with(*listeners))),
        "RoutingReady",
    )


BOTH = (status_condition("Accepted", True), status_condition("ResolvedRefs", True))


@pytest.mark.parametrize(
    ("parents", "ready"),
    [
        pytest.param(
            lambda w: [w.parent(*BOTH), w.parent(affected(), controller=POLICY)],
            READY,
            id="policy-after-the-gateway",
        ),
        pytest.param(
            lambda w: [w.parent(affected(), controller=POLICY), w.parent(*BOTH)],
            READY,
            id="policy-before-the-gateway",
        ),
        pytest.param(
            lambda w: [w.parent(*BOTH), w.parent(controller=POLICY)],
            READY,
            id="policy-without-conditions",
        ),
        pytest.param(lambda w: [w.parent(affected(), controller=POLICY)], WAITS, id="policy-alone"),
        pytest.param(
            lambda w: [w.parent(CLOSED), w.parent(*BOTH, controller=POLICY)],
            FAILED,
            id="no-policy-hides-the-gateways-no",
        ),
        pytest.param(
            lambda w: [
                w.parent(*BOTH, controller=POLICY),
                w.parent(BOTH[0], status_condition("ResolvedRefs", False, "RefNotPermitted")),
            ],
            FAILED,
            id="nor-references-that-are-not-resolved",
        ),
        pytest.param(
            lambda w: [
                w.parent(*BOTH),
                w.parent(status_condition("Accepted", True), controller=POLICY),
            ],
            READY,
            id="one-controller-only-accepts",
        ),
        pytest.param(
            lambda w: [w.parent(status_condition("Accepted", True))],
            WAITS,
            id="accepted-references-not-yet-looked-up",
        ),
        pytest.param(
            lambda w: [w.parent(status_condition("ResolvedRefs", True))],
            WAITS,
            id="resolved-not-yet-accepted",
        ),
        pytest.param(
            lambda w: [w.parent(BOTH[0], controller="a"), w.parent(BOTH[1], controller="b")],
            WAITS,
            id="two-halves-are-no-answer",
        ),
        pytest.param(
            lambda w: [w.parent(status_condition("Accepted", None, "Pending"), BOTH[1])],
            WAITS,
            id="unknown",
        ),
        pytest.param(
            lambda w: [w.parent(status_condition("Accepted", False, "Pending"), BOTH[1])],
            WAITS,
            id="pending",
        ),
        pytest.param(
            lambda w: [
                w.parent(CLOSED),
                w.parent(status_condition("Accepted", None, "Pending"), controller="b"),
            ],
            FAILED,
            id="no-before-pending",
        ),
        pytest.param(lambda w: [w.parent(*BOTH, name="former")], WAITS, id="another-gateway"),
        pytest.param(
            lambda w: [w.parent(*BOTH, namespace="infra")],
            WAITS,
            id="a-gateway-of-another-namespace",
        ),
        pytest.param(
            lambda w: [w.parent(*BOTH, group="", kind="Service")],
            WAITS,
            id="a-service-of-that-name",
        ),
        pytest.param(lambda w: [w.parent(*BOTH, kind="XListenerSet")], WAITS, id="another-kind"),
        pytest.param(lambda w: [w.parent(*BOTH, group="")], WAITS, id="another-group"),
        pytest.param(
            lambda w: [w.parent(*BOTH, sectionName="http")],
            WAITS,
            id="only-a-listener-that-is-not-named",
        ),
        pytest.param(
            lambda w: [w.parent(*BOTH, port=80)], WAITS, id="only-a-port-that-is-not-named"
        ),
        pytest.param(
            lambda w: [
                w.parent(
                    *BOTH, group="gateway.networking.k8s.io", kind="Gateway", namespace=NAMESPACE
                )
            ],
            READY,
            id="defaults-written-out",
        ),
        pytest.param(
            lambda w: [
                w.parent(*BOTH, group=None, kind=None, namespace=None, sectionName=None, port=None)
            ],
            READY,
            id="defaults-as-nulls",
        ),
    ],
)
def test_the_answer_of_a_gateway_differs_from_other_entries(
    world: Any, parents: Parents, ready: str
) -> None:
    assert routed(world, parents(world)) == ready


@pytest.mark.parametrize(
    ("parents", "ready"),
    [
        pytest.param(lambda w: [w.parent(*BOTH, **HTTPS)], READY, id="its-own"),
        pytest.param(
            lambda w: [w.parent(*BOTH, sectionName="http"), w.parent(*BOTH, **HTTPS)],
            READY,
            id="beside-the-former-listener",
        ),
        pytest.param(
            lambda w: [w.parent(CLOSED, sectionName="http"), w.parent(*BOTH, **HTTPS)],
            READY,
            id="former-listener-rejected",
        ),
        pytest.param(
            lambda w: [w.parent(*BOTH, sectionName="https", port=8443)], WAITS, id="former-port"
        ),
        pytest.param(
            lambda w: [w.parent(*BOTH, sectionName="https")], WAITS, id="before-a-port-was-named"
        ),
        pytest.param(lambda w: [w.parent(*BOTH)], WAITS, id="before-a-listener-was-named"),
        pytest.param(
            lambda w: [w.parent(*BOTH, name="former", **HTTPS)], WAITS, id="former-gateway"
        ),
    ],
)
def test_entries_of_a_former_listener_neither_block_nor_count(
    world: Any, parents: Parents, ready: str
) -> None:
    assert routed(world, parents(world), HTTPS) == ready


NEW = tuple(condition | {"observedGeneration": 2} for condition in BOTH)


@pytest.mark.parametrize(
    ("parents", "ready"),
    [
        pytest.param(lambda w: [w.parent(*BOTH)], WAITS, id="only-of-the-former-route"),
        pytest.param(lambda w: [w.parent(CLOSED)], WAITS, id="a-no-to-the-former-route"),
        pytest.param(lambda w: [w.parent(NEW[0], BOTH[1])], WAITS, id="half-of-the-former-route"),
        pytest.param(lambda w: [w.parent(*NEW)], READY, id="of-this-route"),
        pytest.param(
            lambda w: [w.parent(CLOSED, controller="former"), w.parent(*NEW)],
            READY,
            id="former-controller-beside-the-new",
        ),
        pytest.param(lambda w: [w.parent(*BOTH), w.parent(*NEW)], READY, id="one-controller-twice"),
        pytest.param(
            lambda w: [
                w.parent(
                    *({"type": type_, "status": "True"} for type_ in ("Accepted", "ResolvedRefs"))
                )
            ],
            READY,
            id="no-generation",
        ),
        pytest.param(
            lambda w: [w.parent(*(each | {"observedGeneration": None} for each in BOTH))],
            READY,
            id="null-generation",
        ),
        pytest.param(
            lambda w: [w.parent(*(each | {"observedGeneration": 3} for each in BOTH))],
            READY,
            id="a-later-generation",
        ),
    ],
)
def test_an_entry_for_a_former_route_is_no_answer(world: Any, parents: Parents, ready: str) -> None:
    assert routed(world, parents(world), generation=2) == ready


def test_a_stopped_service_has_no_backend_on_any_gateway(world: Any) -> None:
    parents = [
        world.parent(BOTH[0], status_condition("ResolvedRefs", False, "BackendNotFound")),
        world.parent(affected(), controller=POLICY),
    ]
    assert routed(world, parents, replicas=0) == READY
    assert routed(world, parents) == WAITS


def test_a_rejection_is_quoted_with_a_command(world: Any) -> None:
    parents = [world.parent(*BOTH, controller=POLICY), world.parent(CLOSED)]
    plan = world.plan(projection(world.service(), world.config(), world.route(parents=parents)))
    assert message(plan, "RoutingReady") == (
        "gateway gw reports NotAllowedByListeners: closed; see kubectl describe httproute -n team s"
    )


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, "", "x", 0, 1.5, True, [], [None], {}, {"a": 1}]
)
CONDITION = st.one_of(
    ODD,
    st.fixed_dictionaries(
        {"type": st.one_of(ODD, st.sampled_from(["Accepted", "ResolvedRefs"]))},
        optional=dict.fromkeys(("status", "reason", "message", "observedGeneration"), ODD),
    ),
)
ENTRY = st.one_of(
    ODD,
    st.fixed_dictionaries(
        {
            "parentRef": st.one_of(
                ODD,
                st.just({"name": "gw"}),
                st.fixed_dictionaries({"name": ODD, "group": ODD, "port": ODD}),
            )
        },
        optional={
            "controllerName": ODD,
            "conditions": st.one_of(ODD, st.lists(CONDITION, max_size=3)),
        },
    ),
)


@holds_for(parents=st.one_of(ODD, st.lists(ENTRY, max_size=4)))
def test_malformed_entries_raise_nothing_and_are_no_answer(parents: Any) -> None:
    body = testing.obj(ROUTE.kind, "s", spec={}, status={"parents": parents})
    route = projection(body).get(Key(ROUTE.kind, NAMESPACE, "s"))
    assert route is not None
    assert [
        each
        for each in answers(route, GatewayReference(name="gw"))
        if not each.keys() <= {"Accepted", "ResolvedRefs"}
    ] == []
