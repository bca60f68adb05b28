"""A recorded run fails the replay of a planner with a fault, and passes that of the fixed planner.

The run is the quickstart with a wrong S3 key, which a person then corrects. With the fault, the
cacher takes "no access" for a temporary failure, as if its table of exit codes had lost a line. It
then reports RetryBackoff instead of a failure that requires manual action.
"""

import datetime
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from aimcontroller.action import ApplyObject, DeleteObject
from aimcontroller.component import Component
from aimcontroller.plan import Plan
from aimcontroller.projection import Projection
from aimctl.component_registry import planner
from aimctl.replay.check import check
from aimctl.replay.recording import load
from aimschema.reasons import AUTH_ERROR, CACHER, DEPLOYER, RETRY_BACKOFF
from aimschema.resources import CACHE, JOB, Key

RECORDING = load(Path(__file__).parent / "wrong-s3-key.jsonl")
Change = Callable[[Plan], Plan]


def changed(service: Component, change: Change) -> Component:
    def plan(state: Projection, key: Key, now: datetime.datetime) -> Plan:
        return change(service.planner(state, key, now))

    return replace(service, planner=plan)


def takes_no_access_for_passing(plan: Plan) -> Plan:
    changed_reports = tuple(
        replace(
            report,
            conditions=tuple(
                structs.replace(c, reason=RETRY_BACKOFF) if c.reason == AUTH_ERROR else c
                for c in report.conditions
            ),
        )
        for report in plan.reports
    )
    return replace(plan, reports=changed_reports)


def test_a_replay_finds_the_event_object_and_field() -> None:
    [found] = check(
        changed(planner(CACHER, RECORDING.events), takes_no_access_for_passing), RECORDING
    ).differences
    assert (found.seq, found.key.kind, found.what) == (
        117,
        CACHE.kind,
        "was reported then, would not be now",
    )
    assert found.at == (("conditions.Filled.reason", AUTH_ERROR, RETRY_BACKOFF),)
    assert "Filled=False (AuthError)" in found.then
    assert "Filled=False (RetryBackoff)" in found.now


def test_put_right_nothing_differs() -> None:
    assert check(planner(CACHER, RECORDING.events), RECORDING).differences == ()


def never_deletes(plan: Plan) -> Plan:
    return replace(
        plan,
        actions=tuple(action for action in plan.actions if not isinstance(action, DeleteObject)),
    )


def gives_jobs_a_minute(plan: Plan) -> Plan:
    def shorter(body: dict[str, object]) -> dict[str, object]:
        spec = body["spec"]
        assert isinstance(spec, dict)
        return {**body, "spec": {**spec, "activeDeadlineSeconds": 60}}

    actions = (
        ApplyObject(shorter(a.body)) if isinstance(a, ApplyObject) and a.key.kind == JOB.kind else a
        for a in plan.actions
    )
    return replace(plan, actions=tuple(actions))


def deletes_the_service(plan: Plan) -> Plan:
    made = [action for action in plan.actions if isinstance(action, ApplyObject)]
    return replace(
        plan, actions=(*plan.actions, *(DeleteObject(action.key, "uid") for action in made))
    )


def without_reports(plan: Plan) -> Plan:
    return replace(plan, reports=())


def fails(_plan: Plan) -> Plan:
    raise KeyError("spec")


@pytest.mark.parametrize(
    ("service", "change", "what", "count"),
    [
        pytest.param(
            CACHER, never_deletes, "was done then, would not be now", 2, id="forgets-to-delete"
        ),
        pytest.param(
            CACHER, gives_jobs_a_minute, "would be applied otherwise now", 2, id="renders-otherwise"
        ),
        pytest.param(
            DEPLOYER,
            deletes_the_service,
            "would be done now, was not then",
            1,
            id="deletes-too-much",
        ),
        pytest.param(
            DEPLOYER,
            without_reports,
            "was reported then, would not be now",
            15,
            id="reports-nothing",
        ),
        pytest.param(CACHER, fails, "the planner fails", 3, id="planner-fails"),
    ],
)
def test_other_faults_are_found(service: str, change: Change, what: str, count: int) -> None:
    found = check(changed(planner(service, RECORDING.events), change), RECORDING).differences
    assert [each.what for each in found].count(what) == count, [
        (each.seq, each.what) for each in found
    ]
