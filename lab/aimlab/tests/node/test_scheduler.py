"""Which pods fit the node, and the messages for those that do not."""

from datetime import UTC, datetime
from typing import Any

import pytest

from aimlab.controller_loop import Create, Patch
from aimlab.informer import Objects
from aimlab.node import node_object
from aimlab.node.pv_binder import STORAGE_CLASSES
from aimlab.node.scheduler import DoesNotFit, Fits, decide, free_of, plan, requests_of

Body = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NODE: Body = node_object.node_object() | {"status": node_object.node_status(10250, NOW)}


def pod(name: str = "pod", *, gpus: int = 0, **spec: Any) -> Body:
    container = {
        "name": "main",
        "image": "x",
        "resources": {"limits": {"amd.com/gpu": str(gpus)}} if gpus else {},
    }
    metadata = {
        "name": name,
        "namespace": "demo",
        "uid": f"uid-{name}",
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return {"kind": "Pod", "metadata": metadata, "spec": {"containers": [container]} | spec}


def using(claim: str) -> Body:
    return {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]}


def claim(
    name: str, *, storage_class: str = "lab", phase: str = "Pending", **metadata: Any
) -> Body:
    meta = {"name": name, "namespace": "demo", "uid": f"uid-{name}"} | metadata
    return {
        "kind": "PersistentVolumeClaim",
        "metadata": meta,
        "spec": {"storageClassName": storage_class},
        "status": {"phase": phase},
    }


def affinity(operator: str, *values: str, key: str = "amd.com/gpu.device-id") -> Body:
    terms = [{"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}]
    return {
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}
            }
        }
    }


STATE = Objects(
    [
        NODE,
        *STORAGE_CLASSES,
        claim("bound", phase="Bound"),
        claim("pending"),
        claim("waits", storage_class="lab-wait"),
        claim("going", phase="Bound", deletionTimestamp="2026-01-01T00:00:00Z"),
    ]
)


def tolerating(**toleration: str) -> Body:
    return pod(tolerations=[toleration])


TAINT = {"key": "amd.com/gpu", "value": "yes", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("pod_to_place", "taint", "fits"),
    [
        pytest.param(pod(), TAINT, False, id="no-toleration"),
        pytest.param(
            tolerating(key="amd.com/gpu", operator="Exists", effect="NoSchedule"),
            TAINT,
            True,
            id="exists",
        ),
        pytest.param(
            tolerating(key="amd.com/gpu", operator="Exists"), TAINT, True, id="any-effect"
        ),
        pytest.param(tolerating(operator="Exists"), TAINT, True, id="any-taint"),
        pytest.param(tolerating(key="amd.com/gpu", value="yes"), TAINT, True, id="equal"),
        pytest.param(tolerating(key="amd.com/gpu", value="no"), TAINT, False, id="another-value"),
        pytest.param(
            tolerating(key="nvidia.com/gpu", operator="Exists"), TAINT, False, id="another-key"
        ),
        pytest.param(
            tolerating(key="amd.com/gpu", operator="Exists", effect="NoExecute"),
            TAINT,
            False,
            id="another-effect",
        ),
        pytest.param(pod(), TAINT | {"effect": "PreferNoSchedule"}, True, id="only-preferred"),
    ],
)
def test_a_taint_keeps_off_what_does_not_tolerate_it(
    pod_to_place: Body, taint: Body, fits: bool
) -> None:
    tainted = NODE | {"spec": {"taints": [taint]}}
    decided = decide(pod_to_place, tainted, free_of(NODE, []), STATE)
    assert decided == Fits() if fits else "1 node(s) had untolerated taint(s)" in decided.message  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("pod_to_place", "message"),
    [
        pytest.param(pod(), None, id="nothing-asked"),
        pytest.param(pod(gpus=8), None, id="all-gpus"),
        pytest.param(pod(gpus=9), "1 Insufficient amd.com/gpu", id="one-gpu-too-many"),
        pytest.param(pod(**affinity("In", "74a9", "74a1")), None, id="the-right-gpu"),
        pytest.param(
            pod(**affinity("In", "74a5")),
            "didn't match Pod's node affinity/selector",
            id="another-gpu",
        ),
        pytest.param(
            pod(**affinity("In", "H100", key="nvidia.com/gpu.product")),
            "didn't match Pod's node affinity",
            id="another-vendor",
        ),
        pytest.param(pod(**affinity("NotIn", "74a5")), None, id="any-but"),
        pytest.param(pod(**affinity("Exists")), None, id="has-a-gpu"),
        pytest.param(pod(**affinity("DoesNotExist")), "didn't match", id="has-none"),
        pytest.param(pod(nodeSelector={"kubernetes.io/os": "linux"}), None, id="selector"),
        pytest.param(
            pod(nodeSelector={"kubernetes.io/os": "plan9"}), "didn't match", id="wrong-selector"
        ),
        pytest.param(pod(**using("bound")), None, id="bound-claim"),
        pytest.param(
            pod(**using("pending")),
            "pod has unbound immediate PersistentVolumeClaims",
            id="pending-claim",
        ),
        pytest.param(
            pod(**using("nowhere")), 'persistentvolumeclaim "nowhere" not found', id="missing-claim"
        ),
        pytest.param(
            pod(**using("going")),
            'persistentvolumeclaim "going" is being deleted',
            id="claim-going",
        ),
    ],
)
def test_a_pod_fits_or_the_message_names_the_obstacle(
    pod_to_place: Body, message: str | None
) -> None:
    decided = decide(pod_to_place, NODE, free_of(NODE, []), STATE)
    if message is None:
        assert decided == Fits()
    else:
        assert isinstance(decided, DoesNotFit)
        assert decided.message.startswith("0/1 nodes are available: ")
        assert message in decided.message


def test_a_cordoned_node_takes_nothing() -> None:
    cordoned = {**NODE, "spec": {"unschedulable": True}}
    assert decide(pod(), cordoned, free_of(NODE, []), STATE) == DoesNotFit(
        "0/1 nodes are available: 1 node(s) were unschedulable. preemption: 0/1 nodes are"
        " available: 1 Preemption is not helpful for scheduling."
    )


def test_a_claim_that_waits_for_its_pod_is_placed_first() -> None:
    decided = decide(pod(**using("waits")), NODE, free_of(NODE, []), STATE)
    assert isinstance(decided, Fits)
    assert [found["metadata"]["name"] for found in decided.claims_to_place] == ["waits"]


@pytest.mark.parametrize(
    ("others", "free_gpus"),
    [
        pytest.param([], 8, id="empty-node"),
        pytest.param([pod(gpus=3, nodeName="lab")], 5, id="a-bound-pod"),
        pytest.param([pod(gpus=3)], 8, id="an-unbound-pod"),
        pytest.param(
            [pod(gpus=3, nodeName="lab") | {"status": {"phase": "Succeeded"}}],
            8,
            id="a-pod-that-ended",
        ),
    ],
)
def test_what_live_pods_request_is_not_free(others: list[Body], free_gpus: int) -> None:
    assert free_of(NODE, others)["amd.com/gpu"] == free_gpus * 1000


def test_a_request_wins_over_the_limit() -> None:
    pod_to_place = pod()
    pod_to_place["spec"]["containers"][0]["resources"] = {
        "limits": {"cpu": "2", "memory": "1Gi"},
        "requests": {"cpu": "500m"},
    }
    assert requests_of(pod_to_place) == {"cpu": 500, "memory": 1024**3 * 1000, "pods": 1000}


def test_the_older_pod_gets_the_last_gpus() -> None:
    younger = pod("a-younger", gpus=6)
    younger["metadata"]["creationTimestamp"] = "2026-01-01T00:00:01Z"
    step = plan(Objects([NODE, younger, pod("older", gpus=6)]), NOW)
    bound, unschedulable = step.writes
    assert isinstance(bound, Create)
    assert bound.resource.path("demo").endswith("/pods/older/binding")
    assert isinstance(unschedulable, Patch)
    assert unschedulable.name == "a-younger"
    assert unschedulable.body["status"]["conditions"][0]["reason"] == "Unschedulable"


def test_an_unchanged_condition_is_not_written_again() -> None:
    unschedulable = plan(Objects([NODE, pod(gpus=9)]), NOW).writes[0]
    assert isinstance(unschedulable, Patch)
    assert (
        plan(Objects([NODE, pod(gpus=9) | {"status": unschedulable.body["status"]}]), NOW).writes
        == []
    )
