"""An update that is not reconciled gives the same plan, whatever else the cluster has."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aim_deployer.reads import PREDICATES
from aimcontroller import testing
from aimcontroller.projection import KubeObject, Projection, fold
from aimcontroller.testing import Body, ago, projection
from aimschema.messages import StatusReported
from aimschema.published import published_part
from aimschema.resources import key_of

REASONS = {
    "AIMService": ["RuntimeFailed", "CreatingRuntime", "CacheWarming", "CacheWarm"],
    "InferenceService": ["FailedCreate", "ProgressDeadlineExceeded", "MinimumReplicasUnavailable"],
    "Pod": ["Unschedulable", "ContainersNotReady", "SchedulingGated"],
    "AIMServiceTemplate": ["WarmFailed", "NameConflict", "Warming", "AwaitingDiscovery"],
    "ModelCache": ["DuplicateSource", "PVCLost", "PVCTerminating", "Downloading"],
    "AIMClusterModel": ["Inspected", "ImageNotFound"],
}
TYPES = {
    "AIMService": ["RuntimeReady", "CacheReady", "Ready"],
    "InferenceService": ["Ready", "PredictorReady", "IngressReady"],
    "Pod": ["Ready", "PodScheduled", "ContainersReady"],
    "AIMServiceTemplate": ["Discovered", "CacheWarm", "Ready"],
    "ModelCache": ["Ready", "Filled"],
    "AIMClusterModel": ["Ready"],
}
WAITING = [{}, {"reason": "ContainerCreating"}, {"reason": "ErrImagePull", "message": "no"}]
ENDED = [{"exitCode": 0}, {"exitCode": 137, "reason": "OOMKilled"}, {"exitCode": 1, "message": "x"}]
CONTAINERS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["kserve-container", "sidecar"]),
        "state": st.one_of(
            st.sampled_from(WAITING).map(lambda waiting: {"waiting": waiting}),
            st.sampled_from(ENDED).map(lambda ended: {"terminated": ended}),
            st.just({"running": {}}),
            st.just({}),
        ),
    },
    optional={
        "started": st.booleans(),
        "ready": st.booleans(),
        "restartCount": st.integers(0, 2),
        "lastState": st.sampled_from(ENDED).map(lambda ended: {"terminated": ended}),
    },
)
TEXTS = st.sampled_from(["", "a", "b"])
FIELDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "AIMService": {
        "resolvedTemplate": st.sampled_from(["t", "u"]),
        "status": TEXTS,
        "readyReplicas": st.integers(0, 2),
        "url": TEXTS,
    },
    "InferenceService": {
        "deploymentMode": st.sampled_from(["Standard", "RawDeployment", "Serverless"]),
        "modelStatus": st.fixed_dictionaries(
            {
                "transitionStatus": st.sampled_from(["InProgress", "BlockedByFailedLoad"]),
                "copies": st.fixed_dictionaries({"totalCopies": st.integers(0, 1)}),
                "lastFailureInfo": st.fixed_dictionaries({"message": TEXTS}),
            }
        ),
    },
    "Pod": {
        "phase": st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]),
        "reason": st.sampled_from(["Evicted", "NodeLost"]),
        "message": TEXTS,
        "startTime": st.just(ago(5)),
        "containerStatuses": st.lists(CONTAINERS, max_size=2),
    },
    "AIMServiceTemplate": {
        "status": st.sampled_from(["Pending", "Progressing", "Available", "Failed"]),
        "attempts": st.integers(0, 2),
    },
    "ModelCache": {
        "status": st.sampled_from(["Pending", "Progressing", "Available", "Failed"]),
        "progress": st.sampled_from(["10%", "90%"]),
        "sizeBytes": st.integers(1, 2),
        "lastUsed": st.sampled_from([ago(5), ago(9000)]),
        "revision": TEXTS,
    },
    "AIMClusterModel": {},
}


def condition(kind: str) -> st.SearchStrategy[Body]:
    return st.fixed_dictionaries(
        {
            "type": st.sampled_from(TYPES[kind]),
            "status": st.sampled_from(["True", "False", "Unknown"]),
            "reason": st.sampled_from(REASONS[kind]),
            "message": TEXTS,
            "lastTransitionTime": st.sampled_from([ago(1), ago(2)]),
        }
    )


def status(kind: str) -> st.SearchStrategy[Body]:
    conditions = st.lists(condition(kind), max_size=3, unique_by=lambda each: str(each["type"]))
    return st.fixed_dictionaries({}, optional={"conditions": conditions, **FIELDS[kind]})


NODES = st.sampled_from([{}, {"nodeName": "n"}, {"schedulerName": "s"}])


@st.composite
def setups(draw: st.DrawFn, world: Any) -> list[Body]:
    """A service with everything, with or without a part that is missing."""
    missing = draw(st.sampled_from(["", "AIMServiceTemplate", "AIMClusterModel", "ConfigMap"]))
    replicas = draw(st.integers(0, 2))
    pods = [world.pod()] if draw(st.booleans()) else []
    bodies = [*world.parts(missing, replicas=replicas), world.runtime(), *pods]
    return [
        body | ({"status": draw(status(body["kind"]))} if body["kind"] in FIELDS else {})
        for body in bodies
    ]


@st.composite
def changed_status(draw: st.DrawFn, kind: str, old: Body) -> Body:
    """One field of the status is another one, is gone, or one field of a condition is."""
    drawn = draw(status(kind) | condition(kind).map(lambda each: {"conditions": [each]}))
    name = draw(st.sampled_from(sorted({*old, *drawn, "conditions"})))
    conditions = [dict(each) for each in old.get("conditions", [])]
    if name != "conditions" or not conditions or draw(st.booleans()):
        return {
            **{n: value for n, value in old.items() if n != name},
            **{n: value for n, value in drawn.items() if n == name},
        }
    one = draw(st.sampled_from(conditions))
    one |= draw(
        condition(kind).flatmap(
            lambda each: st.sampled_from([{n: value} for n, value in each.items() if n != "type"])
        )
    )
    return old | {"conditions": conditions}


@st.composite
def updates(draw: st.DrawFn, world: Any) -> tuple[list[Body], Body]:
    """The cluster before an update of an object, and the object after it."""
    before = draw(setups(world))
    old = draw(st.sampled_from([body for body in before if body["kind"] in FIELDS]))
    new = old | {"status": draw(changed_status(str(old["kind"]), old["status"]))}
    if old["kind"] == "Pod" and draw(st.booleans()):
        new = new | {"spec": old.get("spec", {}) | draw(NODES)}
    return before, new


def with_update(state: Projection, body: Body) -> Projection:
    metadata = body["metadata"] | {"resourceVersion": "1000"}
    return fold(state, testing.changed(published_part(body | {"metadata": metadata})), 1000)


def existing(state: Projection, body: Body) -> KubeObject:
    found = state.get(key_of(body))
    assert found is not None
    return found


def used(cache: KubeObject) -> StatusReported:
    """The deployer has reported when the cache was last used."""
    return StatusReported(
        kind="ModelCache",
        namespace="team",
        name="c",
        uid=cache.uid,
        service="deployer",
        observed_generation=1,
        fields={"lastUsed": ago(10)},
    )


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_an_update_that_is_left_out_changes_no_plan(world: Any, data: st.DataObject) -> None:
    """The world only makes bodies."""
    before, new = data.draw(updates(world))
    state = projection(*before)
    state = fold(state, used(existing(state, world.cache())), 1)
    after = with_update(state, new)
    kind = str(new["kind"])
    if not PREDICATES[kind](existing(state, new), existing(after, new)):
        assert world.plan(after) == world.plan(state)


def changed(old: Body, change: Any) -> Any:
    """`change`: fields of the status, or a condition, or a malformed status."""
    if isinstance(change, dict):
        return old | change
    type_, _, reason = change.partition(" ")
    if not reason:
        return change
    new = {"type": type_, "status": "False", "reason": reason, "message": "why"}
    return old | {"conditions": [*old.get("conditions", []), new]}


CONDITIONS = [
    ("AIMService", "RuntimeReady RuntimeFailed", True),
    ("AIMService", "RuntimeReady CreatingRuntime", False),
    ("AIMService", "CacheReady CacheWarming", True),
    ("AIMService", "RoutingReady RouteFailed", False),
    ("InferenceService", "PredictorReady FailedCreate", True),
    ("InferenceService", "PredictorReady ProgressDeadlineExceeded", True),
    ("InferenceService", "PredictorReady MinimumReplicasUnavailable", False),
    ("AIMServiceTemplate", "Discovered DiscoveryFailed", True),
    ("AIMServiceTemplate", "CacheWarm WarmFailed", True),
    ("AIMServiceTemplate", "CacheWarm NameConflict", True),
    ("AIMServiceTemplate", "CacheWarm Warming", False),
    ("AIMServiceTemplate", "Ready WarmFailed", True),
    ("AIMServiceTemplate", "Ready Warming", False),
    ("ModelCache", "Ready Warm", False),
    ("AIMClusterModel", "Ready Inspected", False),
]
"""Kind, type and reason of a condition that is False and new, and whether it is reconciled."""


@pytest.mark.parametrize(
    ("kind", "change", "reconciled"),
    [
        pytest.param("Pod", {"startTime": ago(3)}, False, id="start-time-of-a-pod"),
        pytest.param("Pod", {"phase": "Failed", "reason": "Evicted"}, True, id="evicted-pod"),
        pytest.param(
            "InferenceService",
            {"modelStatus": {"transitionStatus": "InProgress", "copies": {"totalCopies": 1}}},
            False,
            id="copies-of-a-model",
        ),
        pytest.param("InferenceService", {"deploymentMode": "Serverless"}, True, id="mode"),
        pytest.param("InferenceService", {"conditions": []}, True, id="no-ready"),
        pytest.param("AIMService", {"readyReplicas": 1, "status": "Running"}, False, id="own-news"),
        pytest.param("AIMService", {"resolvedTemplate": "t"}, True, id="resolved-template"),
        pytest.param("ModelCache", {"lastUsed": ago(1), "revision": "x"}, False, id="last-used"),
        pytest.param("ModelCache", {"status": "Failed"}, True, id="failed-cache"),
        pytest.param("AIMServiceTemplate", {"attempts": 1}, False, id="attempts"),
        pytest.param("AIMClusterModel", {"conditions": []}, False, id="inspection-of-a-model"),
        pytest.param("Pod", "odd", True, id="malformed-status"),
        *(
            pytest.param(kind, each, expected, id=f"{kind}-{each}")
            for kind, each, expected in CONDITIONS
        ),
    ],
)
def test_which_updates_are_reconciled(
    world: Any, kind: str, change: Any, *, reconciled: bool
) -> None:
    bodies = [*world.parts(), *world.runs()]
    old = next(body for body in bodies if body["kind"] == kind)
    new = old | {"status": changed(old.get("status", {}), change)}
    state = projection(*bodies)
    before = existing(state, old)
    after = KubeObject(before.key, before.uid, 2, published_part(new), 2)
    assert PREDICATES[kind](before, after) is reconciled
