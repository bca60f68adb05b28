"""The rule by which a replay is compared with what was recorded, one sentence a test."""

import datetime
from collections.abc import Sequence

import pytest

from aim_cacher.actions import CreateClaim, EvictCache
from aim_discovery.actions import InspectImage
from aimbus import Event
from aimcontroller.action import ApplyObject, DeleteObject
from aimcontroller.plan import EMPTY_PLAN, Plan, Report, actions, condition
from aimcontroller.projection import Projection, fold
from aimcontroller.testing import NOW, obj, projection
from aimctl.analysis.diff import CLOCK_S, alike, differing
from aimctl.replay.comparator import GRACE_S, SETTLES_S, Comparator
from aimctl.replay.engine import OwnEvent, Reconciliation, Step
from aimschema.messages import ActionTaken, ObjectChanged, StatusReported, subject_of
from aimschema.reasons import CACHER, ROUTER, ROUTING_READY
from aimschema.resources import CACHE, CLAIM, JOB, SERVICE, Key

CHAT = Key(SERVICE.kind, "team", "chat")
ROUTE: dict[str, object] = {
    "kind": "HTTPRoute",
    "metadata": {"name": "chat", "namespace": "team"},
    "spec": {"hostnames": ["a"]},
}


def saying(word: str) -> Plan:
    return Plan(
        reports=(Report(CHAT, "uid", 1, (condition(ROUTING_READY, False, "Because", word),)),)
    )


def reconciled(at_s: float, plan: Plan, reported: str | None = None) -> Reconciliation:
    """The router reconciles the service; its last report is `reported`."""
    state = (
        Projection()
        if reported is None
        else fold(Projection(), saying(reported).reports[0].message(ROUTER), 1)
    )
    return Reconciliation(
        ROUTER, int(at_s * 10), NOW + datetime.timedelta(seconds=at_s), "", CHAT, state, plan
    )


def own(
    at_s: float, message: StatusReported | ActionTaken, wrote: ObjectChanged | None = None
) -> OwnEvent:
    return OwnEvent(
        Event(
            int(at_s * 10),
            subject_of(message),
            message,
            NOW + datetime.timedelta(seconds=at_s),
            (),
            "test",
        ),
        wrote,
    )


def reported(at_s: float, word: str) -> OwnEvent:
    return own(at_s, saying(word).reports[0].message(ROUTER))


def did(at_s: float, verb: str, wrote: ObjectChanged | None = None) -> OwnEvent:
    taken = ActionTaken(
        service=ROUTER,
        verb=verb,
        kind="HTTPRoute",
        namespace="team",
        name="chat",
        about=CHAT,
        outcome="done",
    )
    return own(at_s, taken, wrote)


def found(steps: Sequence[Step], end_s: float = 100.0) -> list[str]:
    judge = Comparator()
    differences = [each for step in steps for each in judge.take(step)]
    return [
        each.what for each in (*differences, *judge.end(NOW + datetime.timedelta(seconds=end_s)))
    ]


NOT_NOW, NOT_THEN = "was reported then, would not be now", "would be reported now, was not then"


@pytest.mark.parametrize(
    ("steps", "differs"),
    [
        pytest.param(
            [reconciled(0, saying("a")), reported(1, "a"), reconciled(1, saying("a"), "a")],
            [],
            id="the-same",
        ),
        pytest.param(
            [
                reconciled(0, saying("a")),
                reconciled(1, saying("b")),
                reported(2, "b"),
                reconciled(2, saying("b"), "b"),
            ],
            [],
            id="live-skipped-one",
        ),
        pytest.param(
            [reconciled(0, saying("a")), reported(1, "b"), reconciled(9, saying("a"), "b")],
            [NOT_NOW, NOT_THEN],
            id="something-else",
        ),
        pytest.param(
            [
                reconciled(0, saying("a")),
                reconciled(1, saying("b")),
                reported(2, "b"),
                reported(3, "a"),
                reconciled(4, saying("b"), "a"),
                reconciled(5, saying("b"), "b"),
            ],
            [NOT_NOW],
            id="in-another-order",
        ),
        pytest.param(
            [reported(0, "a"), reconciled(GRACE_S, saying("a"), "a")],
            [],
            id="own-write-observed-before-its-record",
        ),
        pytest.param(
            [reported(0, "a"), reconciled(GRACE_S + 0.1, saying("a"), "a")],
            [NOT_NOW],
            id="reported-before-its-cause",
        ),
        pytest.param(
            [
                reconciled(0, saying("a")),
                reconciled(SETTLES_S, saying("b")),
                reported(6, "b"),
                reconciled(6, saying("b"), "b"),
            ],
            [],
            id="passing-state-not-reported",
        ),
        pytest.param(
            [
                reconciled(0, saying("a")),
                reconciled(SETTLES_S + 1, saying("b")),
                reported(7, "b"),
                reconciled(7, saying("b"), "b"),
            ],
            [NOT_THEN],
            id="lasting-state-not-reported",
        ),
        pytest.param([reconciled(96, saying("a"))], [], id="recording-ends-before-the-report"),
        pytest.param([reconciled(90, saying("a"))], [NOT_THEN], id="never-reported"),
        pytest.param(
            [reconciled(0, saying("a")), reconciled(9, EMPTY_PLAN)],
            [NOT_THEN],
            id="unsaid-until-the-object-went",
        ),
    ],
)
def test_reports_are_compared(steps: list[Step], differs: list[str]) -> None:
    assert found(steps) == differs


def route(hostname: str) -> dict[str, object]:
    return {
        **ROUTE,
        "metadata": {"name": "chat", "namespace": "team", "uid": "u", "resourceVersion": "7"},
        "spec": {"hostnames": [hostname], "x": 1},
    }


def wrote(hostname: str) -> ObjectChanged:
    return ObjectChanged(
        kind="HTTPRoute",
        namespace="team",
        name="chat",
        uid="u",
        resource_version="7",
        object=route(hostname),
    )


APPLY = actions(ApplyObject(ROUTE))
DELETE = actions(DeleteObject(Key("HTTPRoute", "team", "chat"), "u"))


@pytest.mark.parametrize(
    ("steps", "differs"),
    [
        pytest.param(
            [reconciled(0, APPLY), did(1, "apply", wrote("a")), reconciled(1, EMPTY_PLAN)],
            [],
            id="applied",
        ),
        pytest.param(
            [reconciled(0, APPLY), did(1, "apply", wrote("b")), reconciled(1, EMPTY_PLAN)],
            ["would be applied otherwise now"],
            id="applied-otherwise",
        ),
        pytest.param(
            [reconciled(0, EMPTY_PLAN), did(1, "delete")],
            ["was done then, would not be now"],
            id="deleted-for-no-reason",
        ),
        pytest.param(
            [reconciled(0, DELETE), did(1, "delete"), reconciled(2, EMPTY_PLAN)], [], id="deleted"
        ),
        pytest.param(
            [reconciled(0, DELETE), reconciled(9, EMPTY_PLAN)],
            ["would be done now, was not then"],
            id="not-deleted",
        ),
        pytest.param([reconciled(0, DELETE), reconciled(2, EMPTY_PLAN)], [], id="no-longer-needed"),
        pytest.param(
            [reconciled(0, DELETE), did(1, "delete"), reconciled(2, EMPTY_PLAN), did(3, "delete")],
            ["was done then, would not be now"],
            id="twice",
        ),
    ],
)
def test_what_is_done(steps: list[Step], differs: list[str]) -> None:
    assert found(steps) == differs


def test_an_apply_that_would_change_nothing_need_not_be_done() -> None:
    existing = fold(Projection(), wrote("a"), 1)
    assert found([Reconciliation(ROUTER, 1, NOW, "", CHAT, existing, APPLY)]) == []


def test_a_create_only_object_is_not_applied_again() -> None:
    job = obj(JOB.kind, "fill", spec={"backoffLimit": 1})
    plans = [
        actions(ApplyObject(obj(JOB.kind, "fill", spec={"backoffLimit": limit})))
        for limit in (1, 2)
    ]
    assert (
        found(
            [
                Reconciliation(CACHER, at, NOW, "", CHAT, projection(job), plan)
                for at, plan in enumerate(plans)
            ]
        )
        == []
    )


def test_an_inspection_that_was_not_done_is_a_difference() -> None:
    inspect = actions(InspectImage(CHAT, "registry/image:1", (), "inputs", 1))
    assert found([reconciled(0, inspect), reconciled(9, EMPTY_PLAN)]) == [
        "would be done now, was not then"
    ]
    assert found([reconciled(0, inspect), own(9, inspected()), reconciled(9, EMPTY_PLAN)]) == []


def inspected() -> ActionTaken:
    return ActionTaken(
        service=ROUTER,
        verb="inspect-image",
        kind=CHAT.kind,
        namespace="team",
        name="chat",
        about=CHAT,
        outcome="done",
    )


def test_times_within_a_reconcile_are_equal() -> None:
    assert alike({"at": "next at 2030-01-01T00:00:00Z"}, {"at": "next at 2030-01-01T00:00:02Z"})
    assert not alike(
        {"at": "next at 2030-01-01T00:00:00Z"},
        {"at": f"next at 2030-01-01T00:00:0{CLOCK_S + 1:.0f}Z"},
    )
    assert not alike({"at": "next at 2030-01-01T00:00:00Z"}, {"at": "last at 2030-01-01T00:00:00Z"})


@pytest.mark.parametrize(
    ("then", "now", "at"),
    [
        pytest.param({"a": 1, "b": 2}, {"a": 1}, [], id="fields-of-others"),
        pytest.param(
            {"size": "1Gi"}, {"size": "1024Mi"}, [], id="quantity-as-the-server-writes-it"
        ),
        pytest.param(
            {"env": [{"name": "T"}]},
            {"env": [{"name": "T", "value": "x"}]},
            [],
            id="value-not-published",
        ),
        pytest.param(
            {"env": [{"name": "T", "value": "redacted"}]},
            {"env": [{"name": "T", "value": "x"}]},
            [],
            id="value-not-recorded",
        ),
        pytest.param(
            {"c": [{"name": "a"}, {"name": "b", "n": 1}]},
            {"c": [{"name": "b", "n": 2}, {"name": "a"}]},
            [("c.b.n", "1", "2")],
            id="by-name",
        ),
        pytest.param({}, {"a": None}, [], id="null"),
        pytest.param({}, {"a": "x"}, [("a", "nothing", "x")], id="missing"),
    ],
)
def test_only_fields_known_to_a_replay_are_compared(
    then: object, now: object, at: list[tuple[str, str, str]]
) -> None:
    assert list(differing(then, now, applied=True)) == at


def test_how_far_a_download_was_is_not_compared() -> None:
    cache = Key(CACHE.kind, "team", "c")

    def report(message: str, reason: str = "Downloading", **fields: object) -> Report:
        return Report(cache, "uid", 1, (condition("Filled", False, reason, message),), fields)

    then = report("4 MB of 8 MB at 1 MB/s", progress="50%").message(CACHER)
    now = Reconciliation(
        CACHER, 1, NOW, "", cache, Projection(), Plan(reports=(report("downloading s3://b/p"),))
    )
    judge = Comparator()
    assert [*judge.take(now), *judge.take(own(1, then)), *judge.end(NOW)] == []


WEIGHTS = Key(CACHE.kind, "team", "weights")
CLAIM_BODY: dict[str, object] = {
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "weights-cache", "namespace": "team"},
}
CREATES = actions(CreateClaim(CLAIM_BODY, 1, None, ("team",)))
EVICTS = actions(EvictCache(WEIGHTS, "uid", "mark", "s3://b/m", frozenset(), "not used"))


def of_the_cacher(at_s: float, plan: Plan) -> Reconciliation:
    now = NOW + datetime.timedelta(seconds=at_s)
    return Reconciliation(CACHER, int(at_s * 10), now, "", WEIGHTS, Projection(), plan)


def taken(verb: str, target: Key) -> OwnEvent:
    """The record of an action of the cacher for the cache."""
    kind, namespace, name = target
    return own(
        1,
        ActionTaken(
            service=CACHER,
            verb=verb,
            kind=kind,
            namespace=namespace,
            name=name,
            about=WEIGHTS,
            outcome="done",
        ),
    )


@pytest.mark.parametrize(
    ("plan", "record"),
    [
        (CREATES, taken("create-claim", Key(CLAIM.kind, "team", "weights-cache"))),
        (EVICTS, taken("evict", WEIGHTS)),
    ],
    ids=["create-claim", "evict"],
)
def test_what_a_quota_makes_the_cacher_do_is_compared(plan: Plan, record: OwnEvent) -> None:
    assert found([of_the_cacher(0, plan), record, of_the_cacher(2, EMPTY_PLAN)]) == []
    assert found([of_the_cacher(0, EMPTY_PLAN), record]) == ["was done then, would not be now"]
