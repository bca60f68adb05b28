"""The diagnosis of a service's chain in each of its states."""

import datetime
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from aimcontroller.testing import (
    NAMESPACE,
    NOW,
    ago,
    claim,
    config_map,
    cr,
    ended_pod,
    held_by_finalizers,
    job,
    obj,
    pod,
    projection,
    status_condition,
)
from aimctl.analysis.diagnosis import diagnose, root_cause, running_downloads
from aimctl.analysis.lookups import unread_subjects
from aimctl.analysis.object_diagnosis import Diagnosis
from aimctl.commands.explain import tree_of
from aimschema import names, subjects
from aimschema.discovery_result import RESULT_KEY
from aimschema.messages import Progress, timestamp
from aimschema.resources import (
    CACHE,
    CLAIM,
    CONFIG,
    GATEWAY,
    INFERENCE_SERVICE,
    JOB,
    MODEL,
    POD,
    ROUTE,
    SERVICE,
    TEMPLATE,
    Key,
)

Body = dict[str, Any]
MOST_ROUNDS = 8
SOURCE = "s3://b/org/m"
CHAT = Key(SERVICE.kind, NAMESPACE, "chat")
WEIGHTS = ("ModelCache", "weights")
FOUND = config_map(
    "fast-discovery",
    ("AIMServiceTemplate", "fast"),
    {RESULT_KEY: '{"models": [{"name": "org/m", "source": "s3://b/org/m"}]}'},
)
MODEL_BODY = cr(
    MODEL.kind,
    "m",
    {"name": "org/m:1", "image": "i"},
    status={"conditions": [status_condition("Ready", True, "NotInspected", "in the catalogue")]},
)


def unready(reason: str, message: str, *, failed: bool = False) -> list[Body]:
    return [
        status_condition("Ready", False, reason, message),
        status_condition("Failure", failed, reason if failed else "NoFailure", message),
    ]


def service(reason: str, message: str, *conditions: Body, failed: bool = False) -> Body:
    return cr(
        SERVICE.kind,
        "chat",
        {"model": "org/m:1", "templateRef": "fast"},
        status={"conditions": [*unready(reason, message, failed=failed), *conditions]},
    )


def template(reason: str, message: str, discovered: Body, **status: object) -> Body:
    failed = bool(status.pop("failed", False))
    conditions = [*unready(reason, message, failed=failed), discovered]
    return cr(
        TEMPLATE.kind,
        "fast",
        {"model": "org/m:1", "warmCache": True},
        status={"conditions": conditions, **status},
    )


def cache(
    reason: str, message: str, *conditions: Body, failed: bool = False, **status: object
) -> Body:
    return cr(
        CACHE.kind,
        "weights",
        {"sourceUri": SOURCE},
        status={"conditions": [*unready(reason, message, failed=failed), *conditions], **status},
    )


RESOLVED = status_condition("Resolved", True)
CACHED = status_condition("CacheReady", True)
RUNS = status_condition("RuntimeReady", True)
DISCOVERED = template("Warming", "weights 43%", status_condition("Discovered", True))
WARMING = service(
    "CacheWarming",
    "43 % of the model is cached",
    RESOLVED,
    status_condition("CacheReady", False, "CacheWarming"),
)
DOWNLOADING = cache(
    "Downloading", "4.3 GB of 10.0 GB", status_condition("StorageReady", True), progress="43%"
)
DOWNLOAD = names.cache_download_job("weights")
JOB_AT_WORK = job(DOWNLOAD, WEIGHTS)
CLAIM_NAME = names.cache_claim("weights")
ISVC = obj(
    INFERENCE_SERVICE.kind,
    "chat",
    owner=("AIMService", "chat"),
    status={"conditions": [status_condition("Ready", False, "MinimumReplicasUnavailable")]},
)
PREDICTOR = {"labels": {"serving.kserve.io/inferenceservice": "chat"}}
STARTING = service(
    "CreatingRuntime",
    "the model server is starting",
    RESOLVED,
    CACHED,
    status_condition("RuntimeReady", False),
)
ROUTING = service(
    "ConfiguringRoute",
    "waiting for the gateway to take the route",
    RESOLVED,
    CACHED,
    RUNS,
    status_condition("RoutingReady", False),
)
CONFIG_BODY = cr(
    CONFIG.kind, "default", {"routing": {"gateway": {"name": "public", "namespace": "edge"}}}
)
ROUTE_BODY = obj(ROUTE.kind, "chat", owner=("AIMService", "chat"))
RUNNING = cr(
    SERVICE.kind,
    "chat",
    {},
    status={"conditions": [status_condition("Ready", True, "Running", "/team/chat on http://gw")]},
)
WAITING_POD = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
UNSCHEDULABLE = [
    {"type": "PodScheduled", "status": "False", "message": "0/3 nodes have amd.com/gpu"}
]

STATES = [
    pytest.param(
        [], "missing", "AIMService chat missing: does not exist", "create it", id="no-service"
    ),
    pytest.param(
        [cr(SERVICE.kind, "chat", {})],
        "waiting",
        "AIMService chat waiting: no service has reported yet",
        "",
        id="no-service-runs",
    ),
    pytest.param(
        [
            service(
                "TemplateNotFound",
                "no template",
                status_condition("Resolved", False, "TemplateNotFound"),
                failed=True,
            )
        ],
        "failed",
        "AIMServiceTemplate fast missing: does not exist",
        "create it in namespace team, or correct the name: no AIMServiceTemplate of this name is"
        " known",
        id="no-template",
    ),
    pytest.param(
        [
            service(
                "TemplateNotFound",
                "no template",
                status_condition("Resolved", False, "TemplateNotFound"),
                failed=True,
            ),
            cr(TEMPLATE.kind, "fast", {}, namespace="default"),
        ],
        "failed",
        "AIMServiceTemplate fast missing: does not exist",
        "create it in namespace team, or correct the name: there is one in default",
        id="template-in-another-namespace",
    ),
    pytest.param(
        [STARTING, held_by_finalizers(ISVC, "example.org/hold")],
        "waiting",
        "InferenceService chat working: is being deleted, held by finalizer example.org/hold",
        "check that the controller that set example.org/hold is running",
        id="held-by-a-finalizer",
    ),
    pytest.param(
        [
            service(
                "ModelNotFound",
                "no model",
                status_condition("Resolved", False, "ModelNotFound"),
                failed=True,
            )
        ],
        "failed",
        "AIMClusterModel org/m:1 missing: no AIMClusterModel has spec.name org/m:1",
        "create an AIMClusterModel",
        id="no-model",
    ),
    pytest.param(
        [
            service(
                "TemplateNotReady",
                "not discovered yet",
                status_condition("Resolved", False, "TemplateNotReady"),
            ),
            MODEL_BODY,
            template(
                "AwaitingDiscovery",
                "Job asks the image",
                status_condition("Discovered", None, "AwaitingDiscovery"),
            ),
            job("discover-fast", ("AIMServiceTemplate", "fast")),
            pod("discover-fast-x", ("Job", "discover-fast"), "discovery", WAITING_POD),
        ],
        "waiting",
        "Pod discover-fast-x failed: ImagePullBackOff: Back-off pulling image",
        "",
        id="image-cannot-be-pulled",
    ),
    pytest.param(
        [
            service(
                "TemplateFailed",
                "template fast failed",
                status_condition("Resolved", False, "TemplateFailed"),
                failed=True,
            ),
            template(
                "DiscoveryFailed",
                "try 5: no JSON",
                status_condition("Discovered", False, "DiscoveryFailed"),
                failed=True,
                nextAttemptTime=ago(-120),
            ),
        ],
        "failed",
        "AIMServiceTemplate fast failed: has failed: try 5: no JSON",
        "correct the image",
        id="discovery-failed",
    ),
    pytest.param(
        [
            WARMING,
            DISCOVERED,
            FOUND,
            DOWNLOADING,
            JOB_AT_WORK,
            pod(f"{DOWNLOAD}-x", ("Job", DOWNLOAD), "downloader"),
        ],
        "waiting",
        f"Pod {DOWNLOAD}-x working: runs",
        "",
        id="downloading",
    ),
    pytest.param(
        [
            WARMING,
            DISCOVERED,
            FOUND,
            cache(
                "PVCProvisioning", "waiting for its volume", status_condition("StorageReady", False)
            ),
            claim(CLAIM_NAME, WEIGHTS, "Pending"),
        ],
        "waiting",
        f"PersistentVolumeClaim {CLAIM_NAME} waiting: waits for a volume of class fast",
        "kubectl describe pvc",
        id="no-volume",
    ),
    pytest.param(
        [
            WARMING,
            DISCOVERED,
            FOUND,
            cache(
                "AuthError",
                "gated: accept its terms",
                status_condition("StorageReady", True),
                failed=True,
                nextAttemptTime=ago(-300),
            ),
        ],
        "waiting",
        "ModelCache weights failed: has failed: gated: accept its terms",
        "correct the credentials",
        id="no-access",
    ),
    pytest.param(
        [WARMING, DISCOVERED, FOUND],
        "waiting",
        f"ModelCache {names.cache_for(SOURCE)} waiting: is about to be created for {SOURCE}",
        "",
        id="cache-not-made-yet",
    ),
    pytest.param(
        [STARTING, ISVC],
        "waiting",
        "InferenceService chat waiting: is not ready yet: MinimumReplicasUnavailable",
        "",
        id="no-pod-yet",
    ),
    pytest.param(
        [
            STARTING,
            ISVC,
            obj(
                POD.kind,
                "chat-1",
                status={"phase": "Pending", "conditions": UNSCHEDULABLE},
                **PREDICTOR,
            ),
        ],
        "waiting",
        "Pod chat-1 failed: cannot be scheduled: 0/3 nodes have amd.com/gpu",
        "free or add nodes",
        id="no-gpu",
    ),
    pytest.param(
        [
            STARTING,
            ISVC,
            ended_pod("chat-1", ("Job", "x"), "kserve-container", 137)
            | {"metadata": obj(POD.kind, "chat-1", **PREDICTOR)["metadata"]},
        ],
        "waiting",
        "Pod chat-1 failed: container kserve-container ended with exit code 137; see kubectl logs"
        " -n team chat-1",
        "",
        id="crashed",
    ),
    pytest.param(
        [ROUTING, CONFIG_BODY, ROUTE_BODY],
        "waiting",
        "Gateway public missing: does not exist",
        "create it",
        id="no-gateway",
    ),
    pytest.param(
        [
            {**ROUTING, "spec": {**ROUTING["spec"], "routing": {"gateway": {"name": "own"}}}},
            CONFIG_BODY,
            ROUTE_BODY,
        ],
        "waiting",
        "Gateway own missing: does not exist",
        "create it",
        id="no-gateway-of-the-service",
    ),
    pytest.param(
        [ROUTING, CONFIG_BODY, ROUTE_BODY, obj(GATEWAY.kind, "public", namespace="edge")],
        "waiting",
        "Gateway public waiting: has no address yet",
        "ask the operator",
        id="gateway-without-address",
    ),
    pytest.param(
        [RUNNING],
        "ready",
        "AIMService chat ready: is ready: /team/chat on http://gw",
        "",
        id="runs",
    ),
    pytest.param(
        [{**RUNNING, "metadata": obj(SERVICE.kind, "chat", deleting=True)["metadata"]}],
        "working",
        "AIMService chat working: is being deleted",
        "",
        id="deleted",
    ),
]


@pytest.mark.parametrize(("bodies", "state", "last", "remedy"), STATES)
def test_the_chain_ends_with_the_root_cause_and_its_remedy(
    bodies: list[Body], state: str, last: str, remedy: str
) -> None:
    diagnosis = diagnose(projection(*bodies), CHAT, NOW, {})
    end = root_cause(diagnosis)
    assert diagnosis.state == state
    assert f"{end.key.kind} {end.key.name} {end.state}: {end.summary}".startswith(last)
    assert remedy in end.remedy
    assert bool(remedy) == bool(end.remedy)


@pytest.mark.parametrize(("bodies", "state", "last", "remedy"), STATES)
def test_the_diagnosis_of_what_it_needs_is_that_of_everything(
    bodies: list[Body], state: str, last: str, remedy: str
) -> None:
    """Beside the chain there are as many objects of all its kinds, of which none is needed."""
    others = [
        cr(body["kind"], f"{body['metadata']['name']}-other", {}, namespace="elsewhere")
        for body in bodies
        if body["metadata"].get("namespace")
    ]
    every = projection(*bodies, *others)
    known, rounds = projection(), 0
    read: frozenset[str] = frozenset()
    while filters := unread_subjects(known, CHAT, NOW, read):
        rounds += 1
        read |= filters
        found = [
            each.body
            for each in every.all_objects()
            if any(subjects.matches(one, subjects.of_object(each.key)) for one in read)
        ]
        known = projection(*found)
    assert diagnose(known, CHAT, NOW, {}) == diagnose(every, CHAT, NOW, {})
    assert rounds <= MOST_ROUNDS
    is_missing = root_cause(diagnose(known, CHAT, NOW, {})).state == "missing"
    assert is_missing or all(each.key.namespace != "elsewhere" for each in known.all_objects())


@pytest.mark.parametrize(
    ("reason", "behind"),
    [
        ("WaitingForPVC", [JOB_AT_WORK, pod(f"{DOWNLOAD}-x", ("Job", DOWNLOAD), "downloader")]),
        ("Downloading", []),
        ("Verifying", []),
    ],
)
def test_a_download_under_way_is_listened_to(reason: str, behind: list[Body]) -> None:
    filling = cache(reason, "", status_condition("StorageReady", True))
    state = projection(WARMING, DISCOVERED, FOUND, filling, *behind)
    weights = Key(CACHE.kind, NAMESPACE, "weights")
    assert running_downloads(diagnose(state, CHAT, NOW, {})) == {weights}


@pytest.mark.parametrize(
    "waiting",
    [
        cache("PVCProvisioning", "waiting", status_condition("StorageReady", False)),
        cache("AuthError", "gated", status_condition("StorageReady", True), failed=True),
    ],
    ids=["volume", "failed"],
)
def test_a_cache_without_a_download_is_not_listened_to(waiting: Body) -> None:
    state = projection(WARMING, DISCOVERED, FOUND, waiting, claim(CLAIM_NAME, WEIGHTS, "Pending"))
    assert running_downloads(diagnose(state, CHAT, NOW, {})) == frozenset()


def weights(diagnosis: Diagnosis) -> Diagnosis:
    return diagnosis if diagnosis.key.kind == CACHE.kind else weights(diagnosis.causes[0])


def test_download_progress_is_the_live_one_else_the_status() -> None:
    state = projection(WARMING, DISCOVERED, FOUND, DOWNLOADING)
    by_status = weights(diagnose(state, CHAT, NOW, {}))
    assert (by_status.percent, by_status.seconds_left) == (43, None)
    live_progress = Progress(
        kind=CACHE.kind,
        namespace=NAMESPACE,
        name="weights",
        phase="downloading",
        bytes=60,
        total=100,
        rate=4.0,
        seconds_left=10.0,
    )
    live = weights(
        diagnose(state, CHAT, NOW, {Key(CACHE.kind, NAMESPACE, "weights"): live_progress})
    )
    assert (live.percent, live.seconds_left, live.since) == (
        60,
        10.0,
        NOW - datetime.timedelta(seconds=60),
    )


def test_foreign_text_is_neither_markup_nor_control_sequence() -> None:
    out = StringIO()
    hostile = cr(
        SERVICE.kind,
        "chat",
        {},
        status={"conditions": unready("X", "[red]boo[/] \x1b[2Jgone", failed=True)},
    )
    Console(file=out, width=200).print(tree_of(diagnose(projection(hostile), CHAT, NOW, {}), NOW))
    assert (
        "AIMService/chat has failed: [red]boo[/]  [2Jgone (for 1 min, since"
        f" {timestamp(NOW - datetime.timedelta(seconds=60))})" in out.getvalue()
    )
    assert "\x1b" not in out.getvalue()


def test_a_claim_and_a_job_can_be_diagnosed_alone() -> None:
    state = projection(claim(CLAIM_NAME, WEIGHTS, "Bound"), job(DOWNLOAD, WEIGHTS, "failed"))
    assert diagnose(state, Key(CLAIM.kind, NAMESPACE, CLAIM_NAME), NOW, {}).summary == "is bound"
    assert diagnose(state, Key(JOB.kind, NAMESPACE, DOWNLOAD), NOW, {}).state == "failed"


@pytest.mark.parametrize("passed_s", [0, 60])
def test_the_time_to_the_next_attempt_is_a_field(passed_s: int) -> None:
    """The text stays the same, so that a watcher prints it once."""
    bodies: Any = next(case.values[0] for case in STATES if case.id == "no-access")
    now = NOW + datetime.timedelta(seconds=passed_s)
    end = root_cause(diagnose(projection(*bodies), CHAT, now, {}))
    assert (end.summary, end.seconds_left, end.percent) == (
        "has failed: gated: accept its terms",
        300 - passed_s,
        None,
    )
    label = tree_of(end, now).label
    assert isinstance(label, Text)
    assert f"next attempt in {5 - passed_s // 60} min" in label.plain
