"""The summary of each kind, one row a reason, and what holds for every summary."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_statuswriter.summary import (
    SUMMARIES,
    summarize_cache,
    summarize_model,
    summarize_service,
    summarize_template,
)
from aimschema import reasons
from aimschema.kinds import KINDS
from aimschema.messages import ReportedCondition
from aimschema.resources import CACHE, MODEL, SERVICE, TEMPLATE

Conditions = dict[str, ReportedCondition]


def reported(type_: str, status: str, reason: str) -> ReportedCondition:
    return ReportedCondition(type=type_, status=status, reason=reason, message=f"about {reason}")


def conditions_of(*found: ReportedCondition) -> Conditions:
    return {condition.type: condition for condition in found}


def verdict(
    kind: str,
    conditions: Conditions,
    fields: dict[str, Any] | None = None,
    spec: dict[str, Any] | None = None,
) -> str:
    """`state reason`, and after it what is True of Ready, Progressing and Failure."""
    summary = SUMMARIES[kind](conditions, fields or {}, spec or {})
    true = [
        condition.type
        for condition in summary.conditions
        if condition.status == "True" and condition.type in reasons.SUMMARY
    ]
    return " ".join([summary.state or "-", summary.reason, *true])


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        ("True", reasons.INSPECTED, "- Inspected Ready"),
        ("False", reasons.IMAGE_NOT_FOUND, "- ImageNotFound Failure"),
        ("False", reasons.AUTH_ERROR, "- AuthError Failure"),
        ("False", reasons.REGISTRY_UNREACHABLE, "- RegistryUnreachable Failure"),
        ("False", reasons.METADATA_MISSING, "- MetadataMissing Failure"),
        ("False", reasons.DUPLICATE_NAME, "- DuplicateName Failure"),
        ("Unknown", reasons.NOT_INSPECTED, "- NotInspected Progressing"),
    ],
)
def test_a_model(status: str, reason: str, expected: str) -> None:
    assert (
        verdict(MODEL.kind, conditions_of(reported(reasons.IMAGE_INSPECTED, status, reason)))
        == expected
    )


@pytest.mark.parametrize(
    ("discovered", "warm", "more", "expected"),
    [
        pytest.param(
            ("Unknown", reasons.AWAITING_DISCOVERY),
            None,
            {},
            "Progressing AwaitingDiscovery Progressing",
            id="job-runs",
        ),
        pytest.param(
            ("False", reasons.AWAITING_DISCOVERY),
            None,
            {},
            "Pending AwaitingDiscovery Progressing",
            id="waits-its-turn",
        ),
        pytest.param(
            ("False", reasons.MODEL_NOT_FOUND),
            None,
            {},
            "Pending ModelNotFound",
            id="model-not-found",
        ),
        pytest.param(
            ("False", reasons.NAME_CONFLICT),
            None,
            {},
            "Failed NameConflict Failure",
            id="name-taken",
        ),
        pytest.param(
            ("False", reasons.DISCOVERY_FAILED),
            None,
            {"attempts": 1},
            "Progressing DiscoveryFailed Progressing",
            id="first-failure",
        ),
        pytest.param(
            ("False", reasons.DISCOVERY_FAILED),
            None,
            {"attempts": 4},
            "Progressing DiscoveryFailed Progressing",
            id="fourth-failure",
        ),
        pytest.param(
            ("False", reasons.DISCOVERY_FAILED),
            None,
            {"attempts": 5},
            "Failed DiscoveryFailed Failure",
            id="fifth-failure",
        ),
        pytest.param(
            ("True", reasons.PROFILES_DISCOVERED),
            None,
            {},
            "Available ProfilesDiscovered Ready",
            id="discovered",
        ),
        pytest.param(
            ("True", reasons.PROFILES_DISCOVERED),
            ("False", reasons.WARM_FAILED),
            {},
            "Available ProfilesDiscovered Ready",
            id="not-to-be-warmed",
        ),
        pytest.param(
            ("True", reasons.PROFILES_DISCOVERED),
            None,
            {"warm": True},
            "Progressing Pending Progressing",
            id="to-be-warmed",
        ),
        pytest.param(
            ("True", reasons.PROFILES_DISCOVERED),
            ("False", reasons.WARM_REQUESTED),
            {"warm": True},
            "Progressing WarmRequested Progressing",
            id="warm-requested",
        ),
        pytest.param(
            ("True", reasons.PROFILES_DISCOVERED),
            ("False", reasons.WARMING),
            {"warm": True},
            "Progressing Warming Progressing",
            id="warming",
        ),
        pytest.param(
            ("True", reasons.PROFILES_DISCOVERED),
            ("True", reasons.WARM),
            {"warm": True},
            "Available Warm Ready",
            id="warm",
        ),
        pytest.param(
            ("True", reasons.PROFILES_DISCOVERED),
            ("False", reasons.WARM_FAILED),
            {"warm": True},
            "Failed WarmFailed Failure",
            id="warm-failed",
        ),
        pytest.param(
            ("True", reasons.PROFILES_DISCOVERED),
            ("False", reasons.NAME_CONFLICT),
            {"warm": True},
            "Failed NameConflict Failure",
            id="cache-name-taken",
        ),
        pytest.param(
            ("False", reasons.MODEL_NOT_FOUND),
            ("True", reasons.WARM),
            {"warm": True},
            "Pending ModelNotFound",
            id="warm-alone-is-nothing",
        ),
    ],
)
def test_a_template(
    discovered: tuple[str, str], warm: tuple[str, str] | None, more: dict[str, Any], expected: str
) -> None:
    found = [
        reported(reasons.DISCOVERED, *discovered),
        *([] if warm is None else [reported(reasons.CACHE_WARM, *warm)]),
    ]
    fields = {name: value for name, value in more.items() if name == "attempts"}
    assert (
        verdict(
            TEMPLATE.kind, conditions_of(*found), fields, {"warmCache": more.get("warm", False)}
        )
        == expected
    )


BOUND = ("True", reasons.PVC_BOUND)


@pytest.mark.parametrize(
    ("filled", "storage", "expected"),
    [
        pytest.param(
            ("False", reasons.WAITING_FOR_PVC),
            ("False", reasons.PVC_PENDING),
            "Pending WaitingForPVC Progressing",
            id="claim-pending",
        ),
        pytest.param(
            ("False", reasons.WAITING_FOR_PVC),
            ("False", reasons.PVC_PROVISIONING),
            "Pending WaitingForPVC Progressing",
            id="provisioning",
        ),
        pytest.param(
            ("False", reasons.WAITING_FOR_PVC),
            ("False", reasons.STORAGE_CLASS_MISSING),
            "Failed StorageClassMissing Failure",
            id="class-missing",
        ),
        pytest.param(
            ("False", reasons.DOWNLOADING),
            BOUND,
            "Progressing Downloading Progressing",
            id="downloading",
        ),
        pytest.param(
            ("False", reasons.VERIFYING), BOUND, "Progressing Verifying Progressing", id="verifying"
        ),
        pytest.param(
            ("False", reasons.RETRY_BACKOFF),
            BOUND,
            "Progressing RetryBackoff Progressing",
            id="retry",
        ),
        pytest.param(("True", reasons.WARM), BOUND, "Available Warm Ready", id="warm"),
        pytest.param(
            ("True", reasons.WARM),
            ("False", reasons.INSUFFICIENT_CAPACITY),
            "Available Warm Ready",
            id="warm-but-size-was-raised",
        ),
        pytest.param(
            ("True", reasons.WARM),
            ("False", reasons.PVC_LOST),
            "Failed PVCLost Failure",
            id="lost-after-warm",
        ),
        pytest.param(
            ("False", reasons.WAITING_FOR_PVC),
            ("False", reasons.NAME_CONFLICT),
            "Failed NameConflict Failure",
            id="claim-of-another",
        ),
        pytest.param(
            ("False", reasons.DOWNLOAD_FAILED), BOUND, "Failed DownloadFailed Failure", id="gave-up"
        ),
        pytest.param(("False", reasons.AUTH_ERROR), BOUND, "Failed AuthError Failure", id="gated"),
        pytest.param(
            ("False", reasons.SOURCE_NOT_FOUND),
            BOUND,
            "Failed SourceNotFound Failure",
            id="not-found",
        ),
        pytest.param(
            ("False", reasons.INSUFFICIENT_CAPACITY),
            BOUND,
            "Failed InsufficientCapacity Failure",
            id="no-space",
        ),
        pytest.param(
            ("False", reasons.CHECKSUM_MISMATCH),
            BOUND,
            "Failed ChecksumMismatch Failure",
            id="checksum",
        ),
        pytest.param(
            ("False", reasons.QUOTA_EXCEEDED),
            ("False", reasons.PVC_PENDING),
            "Pending QuotaExceeded Failure",
            id="quota",
        ),
        pytest.param(
            ("True", reasons.WARM),
            ("False", reasons.EVICTING),
            "Progressing Evicting Progressing",
            id="evicting",
        ),
        pytest.param(
            ("False", reasons.DUPLICATE_SOURCE),
            None,
            "Failed DuplicateSource Failure",
            id="duplicate",
        ),
        pytest.param(
            ("False", reasons.RUNTIME_CONFIG_MISSING),
            None,
            "Failed RuntimeConfigMissing Failure",
            id="config-missing",
        ),
        pytest.param(
            None, ("False", reasons.PVC_PENDING), "Pending Pending Progressing", id="only-storage"
        ),
        pytest.param(
            ("False", reasons.WAITING_FOR_PVC),
            ("False", reasons.PVC_TERMINATING),
            "Failed PVCTerminating Failure",
            id="held-until-someone-acts",
        ),
        pytest.param(
            None,
            ("False", reasons.PVC_LOST),
            "Failed PVCLost Failure",
            id="lost-and-nothing-else-reported",
        ),
    ],
)
def test_a_cache(
    filled: tuple[str, str] | None, storage: tuple[str, str] | None, expected: str
) -> None:
    found = [
        reported(type_, *what)
        for type_, what in ((reasons.FILLED, filled), (reasons.STORAGE_READY, storage))
        if what is not None
    ]
    assert verdict(CACHE.kind, conditions_of(*found)) == expected


RUNNING = {
    reasons.RESOLVED: ("True", "Resolved"),
    reasons.CACHE_READY: ("True", reasons.CACHE_WARM_REASON),
    reasons.RUNTIME_READY: ("True", "RuntimeReady"),
    reasons.ROUTING_READY: ("True", reasons.ROUTE_READY),
}


def running_but(**changed: tuple[str, str] | None) -> Conditions:
    found = {**RUNNING, **changed}
    return conditions_of(
        *(reported(type_, *what) for type_, what in found.items() if what is not None)
    )


@pytest.mark.parametrize(
    ("type_", "reason", "expected"),
    [
        (reasons.RESOLVED, reasons.VALIDATION_FAILED, "Failed ValidationFailed Failure"),
        (reasons.RESOLVED, reasons.TEMPLATE_FAILED, "Failed TemplateFailed Failure"),
        (reasons.RESOLVED, reasons.TEMPLATE_NOT_FOUND, "Degraded TemplateNotFound Failure"),
        (reasons.RESOLVED, reasons.MODEL_NOT_FOUND, "Degraded ModelNotFound Failure"),
        (reasons.RESOLVED, reasons.RUNTIME_CONFIG_MISSING, "Degraded RuntimeConfigMissing Failure"),
        (reasons.RESOLVED, reasons.UNKNOWN_GPU, "Degraded UnknownGPU Failure"),
        (reasons.RESOLVED, reasons.TEMPLATE_NOT_READY, "Pending TemplateNotReady Progressing"),
        (reasons.CACHE_READY, reasons.WAITING_FOR_CACHE, "Starting WaitingForCache Progressing"),
        (reasons.CACHE_READY, reasons.CACHE_WARMING, "Starting CacheWarming Progressing"),
        (reasons.CACHE_READY, reasons.CACHE_FAILED, "Degraded CacheFailed Failure"),
        (reasons.CACHE_READY, reasons.CACHE_LOST, "Degraded CacheLost Failure"),
        (reasons.RUNTIME_READY, reasons.CREATING_RUNTIME, "Starting CreatingRuntime Progressing"),
        (reasons.RUNTIME_READY, reasons.RUNTIME_FAILED, "Degraded RuntimeFailed Failure"),
        (reasons.RUNTIME_READY, reasons.NAME_CONFLICT, "Degraded NameConflict Failure"),
        (reasons.ROUTING_READY, reasons.CONFIGURING_ROUTE, "Starting ConfiguringRoute Progressing"),
        (reasons.ROUTING_READY, reasons.ROUTE_FAILED, "Degraded RouteFailed Failure"),
        (reasons.ROUTING_READY, "NeverHeardOf", "Starting NeverHeardOf Progressing"),
    ],
)
def test_a_service_with_one_unmet_condition(type_: str, reason: str, expected: str) -> None:
    assert verdict(SERVICE.kind, running_but(**{type_: ("False", reason)})) == expected


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        pytest.param(running_but(), "Running Running Ready", id="all-hold"),
        pytest.param(
            running_but(RoutingReady=("True", reasons.ROUTING_DISABLED)),
            "Running Running Ready",
            id="not-routed",
        ),
        pytest.param(
            running_but(CacheReady=("True", reasons.CACHE_NOT_REQUESTED)),
            "Running Running Ready",
            id="not-cached",
        ),
        pytest.param(
            running_but(RuntimeReady=("True", reasons.STOPPED)),
            "Running Running Ready",
            id="stopped",
        ),
        pytest.param(
            running_but(RoutingReady=None),
            "Starting Starting Progressing",
            id="router-has-not-reported",
        ),
        pytest.param(
            running_but(CacheReady=None, RuntimeReady=None, RoutingReady=None),
            "Starting Starting Progressing",
            id="only-resolved",
        ),
        pytest.param(
            running_but(
                Resolved=("False", reasons.TEMPLATE_NOT_READY),
                RoutingReady=("False", reasons.CONFIGURING_ROUTE),
            ),
            "Pending TemplateNotReady Progressing",
            id="pending-before-starting",
        ),
        pytest.param(
            running_but(
                Resolved=("False", reasons.VALIDATION_FAILED),
                RuntimeReady=("False", reasons.RUNTIME_FAILED),
            ),
            "Failed ValidationFailed Failure",
            id="failed-before-degraded",
        ),
        pytest.param(
            running_but(
                CacheReady=("False", reasons.CACHE_WARMING),
                RoutingReady=("False", reasons.ROUTE_FAILED),
            ),
            "Degraded RouteFailed Failure",
            id="degraded-before-starting",
        ),
        pytest.param(
            running_but(
                CacheReady=("False", reasons.CACHE_LOST),
                RuntimeReady=("False", reasons.RUNTIME_FAILED),
            ),
            "Degraded CacheLost Failure",
            id="of-equals-the-earlier-on-the-way",
        ),
    ],
)
def test_a_service(conditions: Conditions, expected: str) -> None:
    assert verdict(SERVICE.kind, conditions) == expected


def test_a_running_service_reports_its_address() -> None:
    assert summarize_service(running_but(), {}, {}).message == f"about {reasons.ROUTE_READY}"


def test_a_service_without_a_report_is_named() -> None:
    assert "aim-router" in summarize_service(running_but(RoutingReady=None), {}, {}).message
    assert "aim-deployer and aim-router" in summarize_service({}, {}, {}).message


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (MODEL.kind, "- Pending Progressing"),
        (TEMPLATE.kind, "Pending Pending Progressing"),
        (CACHE.kind, "Pending Pending Progressing"),
        (SERVICE.kind, "Pending Pending Progressing"),
    ],
)
def test_before_the_first_report(kind: str, expected: str) -> None:
    assert verdict(kind, {}) == expected


TYPES = [
    reasons.IMAGE_INSPECTED,
    reasons.DISCOVERED,
    reasons.CACHE_WARM,
    reasons.STORAGE_READY,
    reasons.FILLED,
    *RUNNING,
]
MESSAGES = sorted(
    {
        value
        for name, value in vars(reasons).items()
        if name.isupper() and isinstance(value, str) and value[0].isupper()
    }
)
WAITS_FOR_OTHERS = {reasons.MODEL_NOT_FOUND}
ANY_CONDITIONS = st.dictionaries(
    st.sampled_from(TYPES),
    st.tuples(st.sampled_from(["True", "False", "Unknown"]), st.sampled_from(MESSAGES)),
    max_size=6,
).map(lambda found: conditions_of(*(reported(type_, *what) for type_, what in found.items())))
ANY_FIELDS = st.fixed_dictionaries({}, optional={"attempts": st.integers(0, 9)})
ANY_SPEC = st.fixed_dictionaries({}, optional={"warmCache": st.booleans()})
STATES = {kind.__name__: kind.model_json_schema(by_alias=True).get("$defs", {}) for kind in KINDS}


@given(st.sampled_from(sorted(SUMMARIES)), ANY_CONDITIONS, ANY_FIELDS, ANY_SPEC)
def test_any_reports_give_a_consistent_summary(
    kind: str, conditions: Conditions, fields: dict[str, Any], spec: dict[str, Any]
) -> None:
    summary = SUMMARIES[kind](conditions, fields, spec)
    by_type = {condition.type: condition for condition in summary.conditions}
    ready, progressing, failure = (by_type[type_] for type_ in reasons.SUMMARY)
    extra = {type_: each.status for type_, each in by_type.items() if type_ in reasons.KSTATUS}
    assert set(by_type) == {*reasons.SUMMARY, *extra}
    assert set(extra.values()) <= {"True"}
    assert (reasons.RECONCILING in extra) is (progressing.status == "True")
    assert reasons.STALLED not in extra or failure.status == "True"
    assert [ready.status, progressing.status, failure.status].count("True") <= 1
    assert (
        failure.status == "True"
        or ready.status == "True"
        or progressing.status == "True"
        or ready.reason in WAITS_FOR_OTHERS
    )
    assert all(condition.message for condition in by_type.values())
    assert failure.reason == (ready.reason if failure.status == "True" else reasons.NO_FAILURE)
    assert all(condition.reason for condition in by_type.values())
    if kind == MODEL.kind:
        assert summary.state is None
    else:
        states = STATES[kind]["ServiceState" if kind == SERVICE.kind else "TemplateState"]["enum"]
        assert summary.state in states
        assert (summary.state in {"Available", "Running"}) is summary.ready
        assert (summary.state in {"Failed", "Degraded"}) is summary.failed
        assert (reasons.STALLED in extra) is (summary.state == "Failed")


@given(ANY_CONDITIONS)
def test_running_means_that_all_four_hold(conditions: Conditions) -> None:
    held = {
        type_ for type_ in RUNNING if type_ in conditions and conditions[type_].status == "True"
    }
    assert (summarize_service(conditions, {}, {}).state == "Running") is (held == set(RUNNING))


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        ("True", reasons.INSPECTED, []),
        ("Unknown", reasons.NOT_INSPECTED, [reasons.RECONCILING]),
        ("False", reasons.REGISTRY_UNREACHABLE, []),
        ("False", reasons.IMAGE_NOT_FOUND, [reasons.STALLED]),
        ("False", reasons.AUTH_ERROR, [reasons.STALLED]),
        ("False", reasons.METADATA_MISSING, [reasons.STALLED]),
        ("False", reasons.DUPLICATE_NAME, [reasons.STALLED]),
    ],
)
def test_a_model_stalls_on_what_does_not_pass(
    status: str, reason: str, expected: list[str]
) -> None:
    inspected = reported(reasons.IMAGE_INSPECTED, status, reason)
    summary = SUMMARIES[MODEL.kind](conditions_of(inspected), {}, {})
    assert [each.type for each in summary.conditions if each.type in reasons.KSTATUS] == expected


def test_every_kind_with_a_status_has_a_table() -> None:
    assert {
        MODEL.kind: summarize_model,
        TEMPLATE.kind: summarize_template,
        CACHE.kind: summarize_cache,
        SERVICE.kind: summarize_service,
    } == SUMMARIES
    assert set(SUMMARIES) == set(reasons.STATUS_OWNERSHIP)
