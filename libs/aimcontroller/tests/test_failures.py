"""Rejections and field conflicts in the reports of a plan."""

import pytest

from aimcontroller.action import ApplyObject, DeleteObject
from aimcontroller.failures import FailureConditions, with_api_error, with_failures
from aimcontroller.plan import (
    Plan,
    actions,
    condition,
    report,
    with_warning_event,
    without_notes,
)
from aimcontroller.projection import ApplyRejected, Observation, Projection
from aimcontroller.testing import NAMESPACE, Body, cr, field_conflict, obj, projection, rejected
from aimschema import reasons
from aimschema.messages import Conflict, Rejection
from aimschema.resources import CACHE, CLAIM, JOB, TEMPLATE, Key

C = Key(CACHE.kind, NAMESPACE, "c")
JOB_OF_C = Key(JOB.kind, NAMESPACE, "c-download")
CLAIM_OF_C = Key(CLAIM.kind, NAMESPACE, "c-cache")
CONDITIONS = {CACHE.kind: FailureConditions("Filled", {CLAIM.kind: "StorageReady"})}
REJECTED = rejected(C, JOB_OF_C, "no quota")
CONFLICT = field_conflict(CLAIM_OF_C)
CONFLICT_MESSAGE = (
    "spec of PersistentVolumeClaim c-cache keeps being changed by bully; AIM restores it with"
    " backoff: leave the field to AIM"
)


def claim(**metadata: object) -> Body:
    body = obj(CLAIM.kind, "c-cache", owner=(CACHE.kind, "c"))
    return {**body, "metadata": {**body["metadata"], **metadata}}


def state(*bodies: Body, observations: list[Observation] | None = None) -> Projection:
    cache = cr(CACHE.kind, "c", {"sourceUri": "hf://org/model"})
    return projection(cache, *bodies, observations=observations or [])


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
    rejecting = state(observations=[REJECTED])
    plan = with_failures(reported(rejecting), rejecting, C, CONDITIONS)
    assert messages(plan) == ["bound", "downloading; rejected by the API server: no quota"]
    assert events(plan) == []
    assert with_failures(plan, rejecting, C, CONDITIONS) == plan


def test_without_a_failure_a_plan_stays_as_it_is() -> None:
    healthy = state(claim())
    plan = reported(healthy)
    assert with_failures(plan, healthy, C, CONDITIONS) == plan


def test_a_repeated_condition_has_no_former_failures() -> None:
    """However the failures are worded: nothing is cut out of a message."""
    own = "try 1: denied; rejected by the API server: policy x"
    failing = state(claim(), observations=[REJECTED, CONFLICT])
    cache = failing.get(C)
    assert cache is not None
    plan = report(
        cache,
        condition("StorageReady", True, "PVCBound", own),
        condition("Filled", False, "Downloading", own),
    )
    storage, files = with_failures(plan, failing, C, CONDITIONS).reports[0].conditions
    assert (storage.message, storage.own_message) == (f"{CONFLICT_MESSAGE}; {own}", own)
    assert (files.message, files.own_message) == (
        f"{own}; rejected by the API server: no quota",
        own,
    )
    assert (without_notes(storage), without_notes(files)) == plan.reports[0].conditions


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
    conflicting = state(*bodies, observations=[CONFLICT])
    plan = with_failures(actions(*planned) | reported(conflicting), conflicting, C, CONDITIONS)
    storage = f"{CONFLICT_MESSAGE}; bound" if is_shown else "bound"
    assert messages(plan) == [storage, "downloading"]
    assert events(plan) == ([reasons.CONTESTED] if is_shown else [])
    assert plan.actions == tuple(planned)


def test_other_warnings_stay_beside_a_conflict() -> None:
    conflicting = state(claim(), observations=[CONFLICT])
    warned = with_warning_event(reported(conflicting), reasons.ENV_IGNORED, "PATH is ignored")
    plan = with_failures(warned, conflicting, C, CONDITIONS)
    assert events(plan) == [reasons.ENV_IGNORED, reasons.CONTESTED]


def test_no_event_without_a_condition_that_shows_it() -> None:
    conflicting = state(claim(), observations=[CONFLICT])
    cache = conflicting.get(C)
    assert cache is not None
    plan = report(cache, condition("Filled", False, "Downloading", "downloading"))
    assert with_failures(plan, conflicting, C, CONDITIONS) == plan


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
    failing = state(claim(), observations=[REJECTED, CONFLICT])
    plan = reported(failing)
    assert with_failures(plan, failing, key, conditions) == plan


@pytest.mark.parametrize(
    ("own", "answer", "message"),
    [
        pytest.param(
            "waiting", "no quota", "waiting; rejected by the API server: no quota", id="added"
        ),
        pytest.param("no Job: no quota", "no quota", "no Job: no quota", id="in-own-message"),
        pytest.param(
            "waiting", "a\tb", "waiting; rejected by the API server: a b", id="foreign-text"
        ),
        pytest.param("x" * 1020, "no quota", "x" * 1020 + "; r…", id="cut"),
        pytest.param("{0} {x!r}", "{y}", "{0} {x!r}; rejected by the API server: {y}", id="braces"),
        pytest.param("waiting", None, "waiting", id="none"),
    ],
)
def test_a_condition_has_the_rejection_in_its_message(
    own: str, answer: str | None, message: str
) -> None:
    rejection = None if answer is None else ApplyRejected(JOB_OF_C, answer, by_webhook=True)
    noted = with_api_error(condition("A", False, "Waiting", own), rejection)
    assert noted.message == message
    assert noted.own_message == (own if message != own else "")
    assert noted.rejection == (
        None
        if answer is None
        else Rejection(
            by="webhook", kind=JOB.kind, namespace=NAMESPACE, name="c-download", message=answer
        )
    )


@pytest.mark.parametrize(
    ("rejection", "by"),
    [
        (ApplyRejected(JOB_OF_C, "no"), "api-server"),
        (ApplyRejected(JOB_OF_C, "no", transient=True), "api-server"),
        (ApplyRejected(JOB_OF_C, "no", by_webhook=True), "webhook"),
        (ApplyRejected(JOB_OF_C, "no", name_taken=True), "owner"),
    ],
)
def test_a_rejection_names_who_rejected(rejection: ApplyRejected, by: str) -> None:
    assert rejection.fact.by == by


def test_a_conflict_is_in_a_field_too() -> None:
    conflicting = state(claim(), observations=[CONFLICT])
    storage, _ = (
        with_failures(reported(conflicting), conflicting, C, CONDITIONS).reports[0].conditions
    )
    assert storage.conflict == Conflict(
        kind=CLAIM.kind, namespace=NAMESPACE, name="c-cache", field="spec", managers=("bully",)
    )


def test_a_note_is_not_added_twice() -> None:
    """A condition read from the object has only the text, notes included."""
    rejection = ApplyRejected(JOB_OF_C, "no quota")
    once = with_api_error(condition("A", False, "Waiting", "waiting"), rejection)
    from_object = condition("A", False, "Waiting", once.message)
    assert with_api_error(from_object, rejection).message == once.message
