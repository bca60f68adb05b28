"""Composing a status from the one on the object and the reports of services, in any order."""

import dataclasses
import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from aim_statuswriter.actions import SendEvent, WriteStatus
from aim_statuswriter.plan import plan
from aim_statuswriter.status import compose
from aimcontroller.plan import EMPTY_PLAN
from aimcontroller.projection import KubeObject, Projection, fold
from aimschema import reasons
from aimschema.messages import (
    ObjectChanged,
    ReportedCondition,
    ReportedWarning,
    StatusReported,
    timestamp,
)
from aimschema.reasons import CACHER, DEPLOYER, DISCOVERY, ROUTER, STATUS_OWNERSHIP
from aimschema.resources import CACHE, CONFIG, MODEL, SERVICE, TEMPLATE, Key

Body = dict[str, Any]
Reports = dict[str, StatusReported]

FIRST = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
THEN = FIRST + datetime.timedelta(hours=1)
LATER = FIRST + datetime.timedelta(hours=2)
FOREIGN: Body = {
    "type": "example.com/Approved",
    "status": "True",
    "reason": "ByHand",
    "message": "",
    "lastTransitionTime": timestamp(FIRST),
    "observedGeneration": 1,
}
MESSAGES = [
    "Warm",
    "Downloading",
    reasons.AUTH_ERROR,
    reasons.ROUTE_FAILED,
    reasons.DISCOVERY_FAILED,
]


def key_of(kind: str) -> Key:
    return Key(kind, None if kind == MODEL.kind else "ml", "a")


def object_with(
    kind: str,
    status: Body | None = None,
    *,
    generation: int = 4,
    spec: Body | None = None,
    **metadata: Any,
) -> KubeObject:
    key = key_of(kind)
    meta = {
        "name": key.name,
        "namespace": key.namespace,
        "uid": "u",
        "resourceVersion": "7",
        "generation": generation,
        **metadata,
    }
    body = {
        "apiVersion": "aim.silogen.ai/v1alpha1",
        "kind": kind,
        "metadata": meta,
        "spec": spec or {},
    }
    return KubeObject(key, "u", 7, body | ({} if status is None else {"status": status}))


def report_of(
    kind: str,
    service: str,
    *conditions: ReportedCondition,
    generation: int = 1,
    uid: str = "u",
    **fields: Any,
) -> StatusReported:
    key = key_of(kind)
    return StatusReported(
        kind=kind,
        namespace=key.namespace,
        name=key.name,
        uid=uid,
        service=service,
        observed_generation=generation,
        conditions=conditions,
        fields=fields,
    )


def condition(type_: str, status: str, reason: str, message: str = "") -> ReportedCondition:
    return ReportedCondition(type=type_, status=status, reason=reason, message=message)


def by_type(status: Body) -> dict[str, Body]:
    found = {c["type"]: c for c in status.get("conditions", [])}
    assert len(found) == len(status.get("conditions", []))
    return found


def projection(obj: KubeObject, *reports: StatusReported) -> Projection:
    changed = ObjectChanged(
        kind=obj.key.kind,
        namespace=obj.key.namespace,
        name=obj.key.name,
        uid=obj.uid,
        resource_version=str(obj.version),
        object=obj.body,
        truncated=() if obj.has_spec else ("spec",),
    )
    state = fold(Projection(), changed, 1)
    for seq, report in enumerate(reports, start=2):
        state = fold(state, report, seq)
    return state


@st.composite
def reports_on(draw: st.DrawFn, kind: str) -> Reports:
    """Reports of some services of a kind; at least one."""
    found: Reports = {}
    for service in draw(st.sets(st.sampled_from(sorted(STATUS_OWNERSHIP[kind])), min_size=1)):
        types, fields = STATUS_OWNERSHIP[kind][service]
        conditions = [
            condition(
                type_,
                draw(st.sampled_from(["True", "False", "Unknown"])),
                draw(st.sampled_from(MESSAGES)),
                draw(st.sampled_from(["", "why"])),
            )
            for type_ in sorted(types)
            if draw(st.booleans())
        ]
        fields_of: Body = {
            name: draw(st.integers(0, 9)) for name in sorted(fields) if draw(st.booleans())
        }
        found[service] = report_of(
            kind, service, *conditions, generation=draw(st.integers(1, 4)), **fields_of
        )
    return found


@st.composite
def situations(draw: st.DrawFn) -> tuple[KubeObject, Reports]:
    """An object, perhaps with a status that was composed before and changed by others, and the
    current reports."""
    kind = draw(st.sampled_from(sorted(STATUS_OWNERSHIP)))
    spec = {"warmCache": draw(st.booleans())}
    status: Body = {"conditions": [FOREIGN], "foreignField": 1} if draw(st.booleans()) else {}
    if draw(st.booleans()):
        status = compose(object_with(kind, status, spec=spec), draw(reports_on(kind)), FIRST)
    return object_with(kind, status, spec=spec), draw(reports_on(kind))


@given(situations())
def test_composing_twice_changes_nothing(situation: tuple[KubeObject, Reports]) -> None:
    obj, reports = situation
    once = compose(obj, reports, THEN)
    written = object_with(obj.key.kind, once, spec=obj.spec)
    assert compose(written, reports, LATER) == once
    assert plan(projection(written, *reports.values()), written.key, LATER) == EMPTY_PLAN


@given(situations())
def test_the_order_of_reports_does_not_matter(situation: tuple[KubeObject, Reports]) -> None:
    obj, reports = situation
    assert compose(obj, dict(reversed(reports.items())), THEN) == compose(obj, reports, THEN)


@given(situations())
def test_transition_times_move_with_the_status_alone(situation: tuple[KubeObject, Reports]) -> None:
    obj, reports = situation
    before = by_type(obj.status)
    after = by_type(compose(obj, reports, THEN))
    for type_, now in after.items():
        same = type_ in before and before[type_]["status"] == now["status"]
        assert now["lastTransitionTime"] == (
            before[type_]["lastTransitionTime"] if same else timestamp(THEN)
        )


@given(situations())
def test_generations_never_go_back(situation: tuple[KubeObject, Reports]) -> None:
    obj, reports = situation
    status = compose(obj, reports, THEN)
    before = by_type(obj.status)
    after = by_type(status)
    assert status["observedGeneration"] >= obj.status.get("observedGeneration", 0)
    assert status["observedGeneration"] <= obj.generation
    for type_ in before.keys() & after.keys():
        assert after[type_]["observedGeneration"] >= before[type_]["observedGeneration"]


@given(situations())
def test_the_status_fits_the_schema_of_its_kind(situation: tuple[KubeObject, Reports]) -> None:
    obj, reports = situation
    status = compose(obj, reports, THEN)
    assert set(reasons.SUMMARY) <= set(by_type(status))
    for found in by_type(status).values():
        assert found["status"] in {"True", "False", "Unknown"}
        assert found["reason"]
        assert {
            "type",
            "status",
            "reason",
            "message",
            "lastTransitionTime",
            "observedGeneration",
        } == set(found)


@given(situations())
def test_a_report_of_an_earlier_generation_changes_nothing(
    situation: tuple[KubeObject, Reports],
) -> None:
    obj, reports = situation
    status = compose(obj, reports, THEN)
    written = object_with(obj.key.kind, status, spec=obj.spec)
    on_object = by_type(status)
    for service, (types, _) in STATUS_OWNERSHIP[obj.key.kind].items():
        answered = max(
            (on_object[type_]["observedGeneration"] for type_ in types if type_ in on_object),
            default=0,
        )
        for late in (
            (report_of(obj.key.kind, service, generation=answered - 1),) if answered > 0 else ()
        ):
            assert compose(written, {**reports, service: late}, LATER) == status


@given(situations())
def test_a_report_on_a_former_object_changes_nothing(
    situation: tuple[KubeObject, Reports],
) -> None:
    obj, reports = situation
    earlier = [
        report_of(obj.key.kind, service, *report.conditions, uid="earlier")
        for service, report in reports.items()
    ]
    assert plan(projection(obj, *earlier), obj.key, THEN) == EMPTY_PLAN


@given(situations())
def test_only_withdrawn_conditions_are_removed(
    situation: tuple[KubeObject, Reports],
) -> None:
    obj, reports = situation
    kind = obj.key.kind
    status = compose(obj, reports, THEN)
    written = object_with(kind, status, spec=obj.spec)
    for service in reports:
        types, fields = STATUS_OWNERSHIP[kind][service]
        nothing = report_of(kind, service, generation=obj.generation)
        after = compose(written, {**reports, service: nothing}, LATER)
        assert not types & set(by_type(after))
        assert not fields & set(after)
        others = set(by_type(status)) - types - set(reasons.DERIVED)
        assert {type_: by_type(after)[type_] for type_ in others} == {
            type_: by_type(status)[type_] for type_ in others
        }
        assert {
            name: after[name]
            for name in set(status) - fields - {"conditions", "observedGeneration", "status"}
        }.items() <= status.items()


WARM = report_of(
    CACHE.kind,
    CACHER,
    condition("Filled", "True", "Warm", "all there"),
    condition("StorageReady", "True", "PVCBound"),
    progress="100%",
)


def test_a_first_status_is_written_with_its_resource_version() -> None:
    write, event = plan(projection(object_with(CACHE.kind), WARM), key_of(CACHE.kind), THEN).actions
    assert isinstance(write, WriteStatus)
    assert (write.uid, write.resource_version) == ("u", "7")
    assert write.status == {
        "observedGeneration": 1,
        "status": "Available",
        "progress": "100%",
        "conditions": [
            {
                "type": type_,
                "status": status,
                "reason": reason,
                "message": message,
                "observedGeneration": 1,
                "lastTransitionTime": timestamp(THEN),
            }
            for type_, status, reason, message in [
                ("Ready", "True", "Warm", "all there"),
                ("Progressing", "False", "Warm", "all there"),
                ("Failure", "False", "NoFailure", "no failure"),
                ("Filled", "True", "Warm", "all there"),
                ("StorageReady", "True", "PVCBound", ""),
            ]
        ],
    }
    assert event == SendEvent(key_of(CACHE.kind), "u", "Normal", "Warm", "all there")


@pytest.mark.parametrize(
    ("obj", "reports"),
    [
        pytest.param(object_with(CACHE.kind), [], id="without-a-report"),
        pytest.param(
            object_with(CACHE.kind, deletionTimestamp="2026-01-01T00:00:00Z"),
            [WARM],
            id="being-deleted",
        ),
        pytest.param(
            object_with(CACHE.kind),
            [report_of(CACHE.kind, ROUTER, condition("Filled", "True", "Warm"))],
            id="a-service-that-reports-nothing",
        ),
    ],
)
def test_nothing_is_written(obj: KubeObject, reports: list[StatusReported]) -> None:
    assert plan(projection(obj, *reports), obj.key, THEN) == EMPTY_PLAN


def test_nothing_is_written_for_a_deleted_object() -> None:
    assert plan(fold(Projection(), WARM, 1), key_of(CACHE.kind), THEN) == EMPTY_PLAN


def test_another_order_of_conditions_is_no_change() -> None:
    status = compose(object_with(CACHE.kind), {CACHER: WARM}, FIRST)
    turned = object_with(CACHE.kind, {**status, "conditions": status["conditions"][::-1]})
    assert plan(projection(turned, WARM), turned.key, THEN) == EMPTY_PLAN


def test_a_condition_of_others_stays_and_blocks_nothing() -> None:
    by_hand = {name: value for name, value in FOREIGN.items() if name != "observedGeneration"}
    report = report_of(CACHE.kind, CACHER, condition("Filled", "True", "Warm"), generation=4)
    for foreign in (FOREIGN, by_hand):
        status = compose(object_with(CACHE.kind, {"conditions": [foreign]}), {CACHER: report}, THEN)
        assert by_type(status)[FOREIGN["type"]] == foreign
        assert status["observedGeneration"] == 4


def test_a_service_reports_only_its_own_conditions() -> None:
    report = report_of(
        SERVICE.kind,
        ROUTER,
        condition("RuntimeReady", "True", "Forged"),
        condition("Ready", "True", "Forged"),
        readyReplicas=9,
        path="/a",
    )
    status = compose(object_with(SERVICE.kind), {ROUTER: report}, THEN)
    assert "RuntimeReady" not in by_type(status)
    assert by_type(status)["Ready"]["status"] == "False"
    assert (status["path"], status.get("readyReplicas")) == ("/a", None)


def test_the_status_has_the_generation_of_the_oldest_report() -> None:
    deployer = report_of(
        SERVICE.kind, DEPLOYER, condition("Resolved", "True", "Resolved"), generation=3
    )
    router = report_of(
        SERVICE.kind, ROUTER, condition("RoutingReady", "True", "RouteReady"), generation=2
    )
    status = compose(object_with(SERVICE.kind), {DEPLOYER: deployer, ROUTER: router}, THEN)
    assert status["observedGeneration"] == by_type(status)["Ready"]["observedGeneration"] == 2
    assert by_type(status)["Resolved"]["observedGeneration"] == 3


def test_without_conditions_only_the_reported_generation_counts() -> None:
    status = compose(
        object_with(CACHE.kind, generation=4),
        {DEPLOYER: report_of(CACHE.kind, DEPLOYER, generation=2, lastUsed="t")},
        THEN,
    )
    assert (status["observedGeneration"], status["lastUsed"], status["status"]) == (
        2,
        "t",
        "Pending",
    )


def cache_report(filled: tuple[str, str], message: str = "", **fields: Any) -> StatusReported:
    return report_of(
        CACHE.kind,
        CACHER,
        condition("Filled", *filled, message),
        condition("StorageReady", "True", "PVCBound"),
        **fields,
    )


def template_report(discovered: tuple[str, str], attempts: int = 0) -> StatusReported:
    return report_of(
        TEMPLATE.kind, DISCOVERY, condition("Discovered", *discovered, "why"), attempts=attempts
    )


def model_report(inspected: tuple[str, str]) -> StatusReported:
    return report_of(MODEL.kind, DISCOVERY, condition("ImageInspected", *inspected, "why"))


@pytest.mark.parametrize(
    ("before", "after", "event"),
    [
        pytest.param(
            None,
            cache_report(("False", "WaitingForPVC")),
            ("Normal", "WaitingForPVC"),
            id="first-word",
        ),
        pytest.param(
            cache_report(("False", "WaitingForPVC")),
            cache_report(("False", "Downloading"), "starts"),
            ("Normal", "Downloading"),
            id="next-step",
        ),
        pytest.param(
            cache_report(("False", "Downloading"), "1%", progress="1%"),
            cache_report(("False", "Downloading"), "2%", progress="2%"),
            None,
            id="progress-alone",
        ),
        pytest.param(
            cache_report(("False", "Downloading")),
            cache_report(("True", "Warm")),
            ("Normal", "Warm"),
            id="done",
        ),
        pytest.param(
            cache_report(("False", "Downloading")),
            cache_report(("False", "AuthError")),
            ("Warning", "AuthError"),
            id="failure",
        ),
        pytest.param(
            cache_report(("False", "AuthError")),
            cache_report(("False", "SourceNotFound")),
            ("Warning", "SourceNotFound"),
            id="another-failure",
        ),
        pytest.param(
            cache_report(("False", "Downloading")),
            cache_report(("False", "RetryBackoff")),
            ("Warning", "RetryBackoff"),
            id="will-be-retried",
        ),
        pytest.param(
            cache_report(("False", "AuthError")),
            cache_report(("False", "Downloading")),
            ("Normal", "Downloading"),
            id="recovers",
        ),
        pytest.param(
            None,
            template_report(("False", "DiscoveryFailed"), 1),
            ("Warning", "DiscoveryFailed"),
            id="first-failed-discovery",
        ),
        pytest.param(
            template_report(("False", "DiscoveryFailed"), 1),
            template_report(("False", "DiscoveryFailed"), 2),
            None,
            id="second-failed-discovery",
        ),
        pytest.param(
            template_report(("False", "DiscoveryFailed"), 4),
            template_report(("False", "DiscoveryFailed"), 5),
            ("Warning", "DiscoveryFailed"),
            id="same-reason-another-state",
        ),
        pytest.param(
            None,
            model_report(("False", "DuplicateName")),
            ("Warning", "DuplicateName"),
            id="cluster-scoped",
        ),
    ],
)
def test_events_of_transitions(
    before: StatusReported | None, after: StatusReported, event: tuple[str, str] | None
) -> None:
    kind = after.kind
    service = after.service
    status = None if before is None else compose(object_with(kind), {service: before}, FIRST)
    write, *events = plan(projection(object_with(kind, status), after), key_of(kind), THEN).actions
    assert isinstance(write, WriteStatus)
    assert [(e.type, e.reason) for e in events if isinstance(e, SendEvent)] == (
        [] if event is None else [event]
    )
    assert all(e.note for e in events if isinstance(e, SendEvent))


UNSUPPORTED = ReportedWarning(
    reason="UnsupportedProfile", message="no such GPU", since="2030-01-01T00:00:00Z"
)


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        pytest.param("why; no such GPU", True, id="condition-changes"),
        pytest.param("found; no such GPU", False, id="condition-is-written"),
    ],
)
@pytest.mark.parametrize("since", [UNSUPPORTED.since, ""], ids=["dated", "of-a-former-release"])
def test_a_warning_goes_out_with_a_condition(message: str, since: str, *, sent: bool) -> None:
    """Its text decides nothing: the Event's name is made from `since`, and the API server rejects
    a second one."""
    before = report_of(
        TEMPLATE.kind, DISCOVERY, condition("Discovered", "True", "ProfilesDiscovered", message)
    )
    after = structs.replace(
        report_of(
            TEMPLATE.kind,
            DISCOVERY,
            condition("Discovered", "True", "ProfilesDiscovered", "found; no such GPU"),
        ),
        fields={"attempts": 3},
        warnings=(structs.replace(UNSUPPORTED, since=since),),
    )
    obj = object_with(
        TEMPLATE.kind, compose(object_with(TEMPLATE.kind), {DISCOVERY: before}, FIRST)
    )
    write, *events = plan(projection(obj, after), obj.key, THEN).actions
    assert isinstance(write, WriteStatus)
    assert [event for event in events if isinstance(event, SendEvent)] == [
        SendEvent(obj.key, obj.uid, "Warning", "UnsupportedProfile", "no such GPU", since or "-")
        for _ in range(sent)
    ]


def test_the_event_comes_after_the_write() -> None:
    actions = plan(projection(object_with(CACHE.kind), WARM), key_of(CACHE.kind), THEN).actions
    assert [type(action) for action in actions] == [WriteStatus, SendEvent]


def test_a_kind_without_status_gets_only_warning_events() -> None:
    config = object_with(CONFIG.kind)
    since = timestamp(FIRST)
    gateway = ReportedWarning(
        reason=reasons.ROUTE_FAILED, message="create the Gateway", since=since
    )
    secret = ReportedWarning(
        reason=reasons.SECRET_MISSING, message="create the Secret", since=since
    )
    expected = [
        structs.replace(report_of(CONFIG.kind, ROUTER), warnings=(gateway,)),
        structs.replace(report_of(CONFIG.kind, CACHER), warnings=(secret,)),
    ]
    sent = plan(projection(config, *expected), config.key, LATER)
    assert sent.actions == (
        SendEvent(config.key, "u", "Warning", reasons.SECRET_MISSING, "create the Secret", since),
        SendEvent(config.key, "u", "Warning", reasons.ROUTE_FAILED, "create the Gateway", since),
    )
    former = structs.replace(expected[0], uid="former")
    assert plan(projection(config, former), config.key, LATER) == EMPTY_PLAN


def literals(*env: Any, kind: str = CACHE.kind, status: Body | None = None) -> list[SendEvent]:
    obj = object_with(kind, status, spec={"sourceUri": "hf://a/b", "env": list(env)})
    actions = plan(projection(obj, structs.replace(WARM, kind=kind)), obj.key, THEN).actions
    return [
        each
        for each in actions
        if isinstance(each, SendEvent) and each.reason == reasons.LITERAL_SECRET
    ]


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "TOKEN", "AWS_SECRET_ACCESS_KEY", "CLIENT_SECRET", "PROXY_PASSWORD", "hf_token"],
)
def test_a_warning_on_a_literal_secret_omits_its_value(name: str) -> None:
    (event,) = literals(
        {"name": "HF_ENDPOINT", "value": "http://hub"}, {"name": name, "value": "hunter2"}
    )
    assert (event.type, name in event.note, "secretKeyRef" in event.note) == ("Warning", True, True)
    assert "hunter2" not in event.note
    assert "HF_ENDPOINT" not in event.note


@pytest.mark.parametrize(
    "variable",
    [
        pytest.param(
            {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            id="reference",
        ),
        pytest.param({"name": "HF_TOKEN", "value": ""}, id="empty"),
        pytest.param({"name": "HF_TOKEN"}, id="no-value"),
        pytest.param({"name": "TOKENIZERS_PARALLELISM", "value": "false"}, id="another-name"),
        pytest.param({"value": "x"}, id="no-name"),
        pytest.param("HF_TOKEN", id="no-variable"),
        pytest.param(None, id="null"),
    ],
)
def test_other_values_cause_no_warning(variable: Any) -> None:
    assert literals(variable) == []


def test_literal_secrets_are_warned_of_once_for_each_generation() -> None:
    variable = {"name": "HF_TOKEN", "value": "hunter2"}
    written = compose(object_with(CACHE.kind), {CACHER: WARM}, FIRST)
    assert literals(variable, status={**written, "progress": "1%"}) == []
    older = compose(
        object_with(CACHE.kind, generation=0),
        {CACHER: structs.replace(WARM, observed_generation=0)},
        FIRST,
    )
    assert len(literals(variable, status=older)) == 1


def test_many_and_long_names_fit_into_the_event() -> None:
    (event,) = literals(
        *({"name": "x" * 5000 + f"{number}_KEY", "value": "v"} for number in range(100))
    )
    assert len(event.note) <= 1024


@pytest.mark.parametrize("kind", [CACHE.kind, SERVICE.kind, CONFIG.kind, TEMPLATE.kind, MODEL.kind])
def test_a_spec_too_large_for_the_bus_is_only_reported(kind: str) -> None:
    obj = dataclasses.replace(object_with(kind, generation=9), has_spec=False)
    (event,) = plan(projection(obj, *([WARM] if kind == CACHE.kind else [])), obj.key, THEN).actions
    assert isinstance(event, SendEvent)
    assert (event.type, event.reason, event.since) == ("Warning", reasons.SPEC_TOO_LARGE, "9")


def service_reports(runtime: tuple[str, str], routing: tuple[str, str] | None) -> Reports:
    deployer = report_of(
        SERVICE.kind,
        DEPLOYER,
        condition("Resolved", "True", "Resolved", "template t"),
        condition("CacheReady", "True", "CacheNotRequested", "no cache"),
        condition("RuntimeReady", *runtime, "why"),
    )
    router = routing and report_of(SERVICE.kind, ROUTER, condition("RoutingReady", *routing, "why"))
    return {DEPLOYER: deployer} | ({ROUTER: router} if router else {})


CREATING, UP = ("False", "CreatingRuntime"), ("True", "RuntimeReady")
CONFIGURING, ROUTED = ("False", "ConfiguringRoute"), ("True", "RouteReady")
STARTS = [(CREATING, None), (CREATING, CONFIGURING), (CREATING, ROUTED), (UP, CONFIGURING)]
FAILS = (("False", "RuntimeFailed"), CONFIGURING)


def service_plan(
    before: tuple[Any, Any] | None, after: tuple[Any, Any], *, generation: int = 4
) -> tuple[list[tuple[str, str]], bool]:
    """The Events of a change of reports, and whether its write may wait."""
    status = (
        None
        if before is None
        else compose(object_with(SERVICE.kind), service_reports(*before), FIRST)
    )
    obj = object_with(SERVICE.kind, status, generation=generation)
    planned = plan(projection(obj, *service_reports(*after).values()), obj.key, THEN)
    _, *events = planned.actions
    sent = [(each.type, each.reason) for each in events if isinstance(each, SendEvent)]
    return sent, planned.hold_s > 0


@pytest.mark.parametrize("step", range(1, len(STARTS)))
def test_a_step_of_a_start_waits_and_sends_no_event(step: int) -> None:
    assert service_plan(STARTS[step - 1], STARTS[step]) == ([], True)


def test_the_first_status_never_waits() -> None:
    assert service_plan(None, STARTS[0]) == ([], False)


@pytest.mark.parametrize(
    ("kind", "service", "reported"),
    [
        (SERVICE.kind, ROUTER, condition("RoutingReady", *CONFIGURING, "why")),
        (TEMPLATE.kind, CACHER, condition("CacheWarm", "False", "WarmRequested", "why")),
    ],
)
def test_a_first_status_waits_for_what_resolves_the_object(
    kind: str, service: str, reported: ReportedCondition
) -> None:
    obj = object_with(kind)
    early = plan(projection(obj, report_of(kind, service, reported)), obj.key, THEN)
    assert (type(early.actions[0]), early.hold_s > 0) == (WriteStatus, True)


def test_a_route_that_failed_is_written_without_waiting() -> None:
    obj = object_with(SERVICE.kind)
    failed = condition("RoutingReady", "False", "RouteFailed", "why")
    assert plan(projection(obj, report_of(SERVICE.kind, ROUTER, failed)), obj.key, THEN).hold_s == 0


@pytest.mark.parametrize("before", [*STARTS, FAILS, None])
def test_the_end_of_a_start_never_waits_and_sends_one_event(before: Any) -> None:
    assert service_plan(before, (UP, ROUTED)) == ([("Normal", "Running")], False)


@pytest.mark.parametrize("before", [*STARTS, (UP, ROUTED), None])
def test_a_failure_never_waits_and_sends_a_warning(before: Any) -> None:
    assert service_plan(before, FAILS) == ([("Warning", "RuntimeFailed")], False)


def test_another_message_of_a_final_status_does_not_wait() -> None:
    running = service_reports(UP, ROUTED)
    status = compose(object_with(SERVICE.kind), running, FIRST)
    obj = object_with(SERVICE.kind, status, generation=1)
    more = structs.replace(running[DEPLOYER], fields={"readyReplicas": 2})
    assert plan(projection(obj, more, running[ROUTER]), obj.key, THEN).hold_s == 0.0


def test_a_status_waits_for_the_last_report_on_a_generation() -> None:
    """The router has not reported on the new one yet."""
    running = service_reports(UP, ROUTED)
    status = compose(object_with(SERVICE.kind), running, FIRST)
    obj = object_with(SERVICE.kind, status, generation=5)
    newer = [structs.replace(report, observed_generation=5) for report in running.values()]
    first = plan(projection(obj, newer[0], running[ROUTER]), obj.key, THEN)
    both = plan(projection(obj, *newer), obj.key, THEN)
    assert (len(first.actions), first.hold_s > 0) == (1, True)
    assert (len(both.actions), both.hold_s) == (1, 0.0)
