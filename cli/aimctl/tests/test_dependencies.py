"""Rows of `aimctl get`, pods of `aimctl logs`, and what `aimctl retry` tries again."""

from typing import Any

import pytest

from aimcontroller.testing import (
    NAMESPACE,
    NOW,
    ago,
    config_map,
    cr,
    ended_pod,
    job,
    obj,
    pod,
    projection,
    status_condition,
)
from aimctl.analysis.dependencies import (
    NO_PROGRESS,
    Row,
    containers,
    in_trouble,
    pods_behind,
    rows,
    to_retry,
)
from aimctl.analysis.diagnosis import diagnose
from aimschema.discovery_result import RESULT_KEY
from aimschema.resources import CACHE, JOB, MODEL, POD, SERVICE, TEMPLATE, Key, Resource

SOURCE = "s3://b/org/m"
CHAT = Key(SERVICE.kind, NAMESPACE, "chat")
FOUND = config_map(
    "fast-discovery",
    ("AIMServiceTemplate", "fast"),
    {RESULT_KEY: '{"models": [{"name": "org/m", "source": "s3://b/org/m"}]}'},
)
Body = dict[str, Any]


def conditions(reason: str, *more: Body, ready: bool = False, failed: bool = False) -> Body:
    return {
        "conditions": [
            status_condition("Ready", ready, reason, "words"),
            status_condition("Failure", failed, reason if failed else "NoFailure", "words"),
            *more,
        ]
    }


def cache(
    name: str = "weights", source: str = SOURCE, *, failed: bool = False, **status: Any
) -> Body:
    return cr(
        CACHE.kind,
        name,
        {"sourceUri": source},
        status={"status": "Failed" if failed else "Progressing", **status},
    )


MODEL_BODY = cr(
    MODEL.kind, "m", {"name": "org/m:1", "image": "i"}, status=conditions("Inspected", ready=True)
)
TEMPLATE_BODY = cr(
    TEMPLATE.kind,
    "fast",
    {"model": "org/m:1"},
    status={"status": "Available", **conditions("Warming", status_condition("Discovered", True))},
)
CACHED_FAILED = cache(failed=True, **conditions("AuthError", failed=True))
SERVICE_BODY = cr(
    SERVICE.kind,
    "chat",
    {"model": "org/m:1", "templateRef": "fast"},
    status={
        "status": "Degraded",
        **conditions(
            "CacheFailed",
            status_condition("Resolved", True),
            status_condition("CacheReady", False, "CacheFailed"),
            failed=True,
        ),
    },
)
UNUSED = cache("unused", "s3://b/o/else", **conditions("Downloading"))
EVERYTHING = projection(MODEL_BODY, TEMPLATE_BODY, SERVICE_BODY, FOUND, CACHED_FAILED, UNUSED)


def test_a_service_is_a_row_with_what_it_depends_on() -> None:
    assert rows(EVERYTHING, None, None, NOW) == [
        Row(
            NAMESPACE,
            "chat",
            "fast",
            "m",
            "weights",
            "Degraded",
            "ModelCache/weights has failed: words",
        ),
        Row(NAMESPACE, "", "", "", "unused", "Progressing", "is being filled: words"),
    ]


@pytest.mark.parametrize(
    ("root", "names"),
    [(SERVICE, ["chat"]), (TEMPLATE, ["fast"]), (CACHE, ["unused", "weights"]), (MODEL, ["m"])],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_rows_of_one_kind_begin_with_each_object_of_it(root: Resource, names: list[str]) -> None:
    found = rows(EVERYTHING, root, None, NOW)
    column = {SERVICE: "service", TEMPLATE: "template", CACHE: "cache", MODEL: "model"}[root]
    assert [getattr(row, column) for row in found] == names


def test_other_namespaces_are_hidden_and_models_are_shared() -> None:
    assert rows(EVERYTHING, None, "elsewhere", NOW) == [
        Row("", "", "", "m", "", "ready", "is ready: words")
    ]


def test_a_missing_template_is_named_all_the_same() -> None:
    [row] = rows(projection(SERVICE_BODY), None, None, NOW)
    assert (row.template, row.model) == ("fast", "org/m:1")


WAITING = {"waiting": {"reason": "ImagePullBackOff", "message": "no"}}
AGAIN = pod("again", ("Job", "x"), "c", restarts=2)


@pytest.mark.parametrize(
    ("body", "trouble"),
    [
        pytest.param(pod("p", ("Job", "x"), "c"), False, id="runs"),
        pytest.param(
            pod("p", ("Job", "x"), "c", WAITING, phase="Pending"), True, id="does-not-start"
        ),
        pytest.param(AGAIN, True, id="was-started-again"),
        pytest.param(ended_pod("p", ("Job", "x"), "c", 1), True, id="failed"),
        pytest.param(ended_pod("p", ("Job", "x"), "c", 0), False, id="succeeded"),
    ],
)
def test_which_pods_are_in_trouble(body: Body, *, trouble: bool) -> None:
    [pod] = projection(body).in_all_namespaces(POD.kind)
    assert in_trouble(pod) is trouble


def test_pods_of_a_service_come_from_its_chain_failed_first() -> None:
    predictor = obj(
        POD.kind,
        "chat-1",
        labels={"serving.kserve.io/inferenceservice": "chat"},
        age_s=10,
        status={"phase": "Running"},
    )
    jobs = [
        job("discover-fast", ("AIMServiceTemplate", "fast")),
        job("weights-download", ("ModelCache", "weights")),
    ]
    asking = pod("discover-fast-x", ("Job", "discover-fast"), "discovery", age_s=99)
    failed = ended_pod("weights-download-x", ("Job", "weights-download"), "downloader", 11)
    stranger = obj(POD.kind, "other-1", labels={"serving.kserve.io/inferenceservice": "other"})
    state = projection(
        SERVICE_BODY,
        TEMPLATE_BODY,
        FOUND,
        CACHED_FAILED,
        predictor,
        asking,
        failed,
        stranger,
        *jobs,
    )
    assert [found.key.name for found in pods_behind(state, CHAT)] == [
        "weights-download-x",
        "discover-fast-x",
        "chat-1",
    ]
    assert [
        found.key.name for found in pods_behind(state, Key(JOB.kind, NAMESPACE, "weights-download"))
    ] == ["weights-download-x"]
    assert [
        found.key.name for found in pods_behind(state, Key(POD.kind, NAMESPACE, "other-1"))
    ] == ["other-1"]
    assert pods_behind(state, Key(SERVICE.kind, NAMESPACE, "missing")) == []


def test_init_containers_have_logs_too() -> None:
    body = obj(
        POD.kind,
        "p",
        spec={"initContainers": [{"name": "first"}], "containers": [{"name": "main"}]},
    )
    [pod] = projection(body).in_all_namespaces(POD.kind)
    assert containers(pod) == ["first", "main"]


BACKING_OFF = cache(nextAttemptTime=ago(-30), **conditions("RetryBackoff"))
GAVE_UP = cr(
    TEMPLATE.kind,
    "fast",
    {},
    status=conditions(
        "DiscoveryFailed", status_condition("Discovered", False, "DiscoveryFailed"), failed=True
    ),
)


@pytest.mark.parametrize(
    ("bodies", "of", "again"),
    [
        pytest.param(
            [SERVICE_BODY, TEMPLATE_BODY, FOUND, CACHED_FAILED],
            CHAT,
            [(CACHE.kind, "weights")],
            id="the-cache-of-a-service",
        ),
        pytest.param(
            [BACKING_OFF],
            Key(CACHE.kind, NAMESPACE, "weights"),
            [(CACHE.kind, "weights")],
            id="waits-for-its-next-try",
        ),
        pytest.param(
            [GAVE_UP],
            Key(TEMPLATE.kind, NAMESPACE, "fast"),
            [(TEMPLATE.kind, "fast")],
            id="a-template-that-gave-up",
        ),
        pytest.param([UNUSED], Key(CACHE.kind, NAMESPACE, "unused"), [], id="at-work"),
        pytest.param([MODEL_BODY], Key(MODEL.kind, None, "m"), [], id="is-well"),
        pytest.param([], CHAT, [], id="does-not-exist"),
    ],
)
def test_what_has_failed_is_tried_again_and_nothing_else(
    bodies: list[Body], of: Key, again: list[tuple[str, str]]
) -> None:
    found = to_retry(diagnose(projection(*bodies), of, NOW, NO_PROGRESS))
    assert [(key.kind, key.name) for key in found] == again
