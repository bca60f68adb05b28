"""Rejections and field conflicts in the reports of a plan."""

import pytest

from aimcontroller.action import ApplyObject, DeleteObject
from aimcontroller.failures import FailureConditions, with_api_error, with_failures
from aimcontroller.plan import Plan, actions, condition, report, with_warning_event
from aimcontroller.projection import ApplyRejected, Observation, Projection
from aimcontroller.testing import NAMESPACE, Body, cr, field_conflict, obj, projection, rejected
from aimschema import reasons
from aimschema.resources import CACHE, CLAIM, JOB, TEMPLATE, Key

C = Key(CACHE.kind, NAMESPACE, "c")
JOB_OF_C = Key(JOB.kind, NAMESPACE, "c-download")
CLAIM_OF_C = Key(CLAIM.kind, NAMESPACE, "c-cache")
CONDITIONS = {CACHE.kind: FailureConditions("Filled", {CLAIM.kind: "StorageReady"})}
REJECTED = rejected(C, JOB_OF_C, "no quota")
CONFLICT = field_conflict(CLAIM_OF_C)
CONFLICT_MESSAGE = str(CONFLICT.value)


def claim(**metadata: object) -> Body:
    body = obj(CLAIM.kind, "c-cache", owner=(CACHE.kind, "c"))
    return {**body, "metadata": {**body["metadata"], **metadata}}


def state(*bodies: Body, learned: list[Observation] | None = None) -> Projection:
    cache = cr(CACHE.kind, "c", {"sourceUri": "hf://org/model"})
    return projection(cache, *bodies, learned=learned or [])


def reported(state: Projection) -> Plan:
    cache = state.get(C)
    assert cache is not None
    return report(
        cache,
        condition("StorageReady", True, "PVCBound", "bound"),
        condition("Filled", False, "Downloading", "downloading"),
    )


def messages(plan: Plan) -> list[str]:
    return [found.message for each in plan.reports for found in each.conditions]


def events(plan: Plan) -> list[str]:
    return [warning.reason for each in plan.reports for warning in each.warnings]


def test_a_rejection_is_appended_to_its_condition() -> None:
    rejecting = state(learned=[REJECTED])
    plan = with_failures(reported(rejecting), rejecting, C, CONDITIONS)
    assert messages(plan) == ["bound", "downloading; rejected by the API server: no quota"]
    assert events(plan) == []
    assert with_failures(plan, rejecting, C, CONDITIONS) == plan


def test_without_a_failure_a_plan_stays_as_it_is() -> None:
    healthy = state(claim())
    plan = reported(healthy)
    assert with_failures(plan, healthy, C, CONDITIONS) == plan


def test_a_rejection_that_is_over_disappears() -> None:
    rejecting, healthy = state(learned=[REJECTED]), state()
    repeated = with_failures(reported(rejecting), rejecting, C, CONDITIONS)
    assert with_failures(repeated, healthy, C, CONDITIONS) == reported(healthy)


@pytest.mark.parametrize(
    ("bodies", "planned", "is_shown"),
    [
        pytest.param([claim()], [], True, id="owned"),
        pytest.param([claim()], [ApplyObject(claim())], True, id="owned and applied"),
        pytest.param([], [ApplyObject(claim())], True, id="re-created with backoff"),
        pytest.param([], [], False, id="missing and not requested"),
        pytest.param([claim(ownerReferences=[])], [], False, id="of another owner"),
        pytest.param(
            [claim(deletionTimestamp="2026-01-01T00:00:00Z")],
            [ApplyObject(claim())],
            False,
            id="being deleted",
        ),
        pytest.param([claim()], [DeleteObject(CLAIM_OF_C, "u")], False, id="deleted by the plan"),
    ],
)
def test_a_conflict_is_shown_while_the_object_is_needed(
    bodies: list[Body], planned: list[ApplyObject | DeleteObject], is_shown: bool
) -> None:
    contested = state(*bodies, learned=[CONFLICT])
    plan = with_failures(actions(*planned) | reported(contested), contested, C, CONDITIONS)
    storage = f"{CONFLICT_MESSAGE}; bound" if is_shown else "bound"
    assert messages(plan) == [storage, "downloading"]
    assert events(plan) == ([reasons.CONTESTED] if is_shown else [])
    assert plan.actions == tuple(planned)


def test_other_warnings_stay_beside_a_conflict() -> None:
    contested = state(claim(), learned=[CONFLICT])
    warned = with_warning_event(reported(contested), reasons.ENV_IGNORED, "PATH is ignored")
    plan = with_failures(warned, contested, C, CONDITIONS)
    assert events(plan) == [reasons.ENV_IGNORED, reasons.CONTESTED]


def test_no_event_without_a_condition_that_shows_it() -> None:
    contested = state(claim(), learned=[CONFLICT])
    cache = contested.get(C)
    assert cache is not None
    plan = report(cache, condition("Filled", False, "Downloading", "downloading"))
    assert with_failures(plan, contested, C, CONDITIONS) == plan


@pytest.mark.parametrize(
    ("key", "conditions"),
    [
        pytest.param(C, {}, id="kind without conditions"),
        pytest.param(C, {TEMPLATE.kind: FailureConditions("Filled")}, id="another kind"),
        pytest.param(C, {CACHE.kind: FailureConditions()}, id="nothing to show"),
        pytest.param(Key(CACHE.kind, NAMESPACE, "d"), CONDITIONS, id="another object"),
    ],
)
def test_other_reports_stay_as_they_are(key: Key, conditions: dict[str, FailureConditions]) -> None:
    failing = state(claim(), learned=[REJECTED, CONFLICT])
    plan = reported(failing)
    assert with_failures(plan, failing, key, conditions) == plan


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        pytest.param(
            "waiting", "no quota", "waiting; rejected by the API server: no quota", id="added"
        ),
        pytest.param(
            "waiting; rejected by the API server: no quota",
            "no right",
            "waiting; rejected by the API server: no right",
            id="another",
        ),
        pytest.param("waiting; rejected by the API server: no quota", None, "waiting", id="over"),
        pytest.param("no Job: no quota", "no quota", "no Job: no quota", id="in the message"),
        pytest.param(
            "waiting", "a\tb", "waiting; rejected by the API server: a b", id="control characters"
        ),
        pytest.param("x" * 1020, "no quota", "x" * 1020 + "; r…", id="cut"),
    ],
)
def test_a_condition_shows_the_present_rejection_only(
    text: str, error: str | None, message: str
) -> None:
    rejection = None if error is None else ApplyRejected(JOB_OF_C, error)
    assert with_api_error(condition("A", False, "Waiting", text), rejection) == condition(
        "A", False, "Waiting", message
    )
