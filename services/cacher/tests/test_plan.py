"""Actions and conditions of the cacher, step by step."""

import datetime
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from aim_cacher.__main__ import service
from aim_cacher.projection import map_change_to_keys, map_to_keys
from aim_cacher.settings import CacherSettings
from aim_cacher.stages.job_failure import classify_exit
from aimcontroller.action import PatchObject
from aimcontroller.projection import REJECTED, ApplyRejected, Observation, drop_object, fold
from aimcontroller.testing import (
    NAMESPACE,
    NOW,
    Body,
    action_summaries,
    ago,
    applied,
    changed,
    condition_summary,
    field_conflict,
    fields,
    held_by_finalizers,
    job,
    message,
    obj,
    projection,
    rejected,
    status_condition,
    storage_class,
)
from aimschema import labels
from aimschema.messages import Progress, parse_timestamp
from aimschema.names import cache_for
from aimschema.resources import CACHE, Key, key_of

Setup = Callable[[Any], list[Body]]
CLASS = storage_class()
CLAIM = "apply PersistentVolumeClaim c-cache"
DOWNLOAD = "apply Job c-download"
PROBE = "apply Job c-size"
WAITING = "False WaitingForPVC"
DOWNLOADING = "False Downloading"
HOLD = "example.org/hold"
GIB = 1 << 30


def failed(attempts: int, next_s: float = 60, reason: str = "RetryBackoff") -> dict[str, Any]:
    """Status after this many failed attempts."""
    return {
        "attempts": attempts,
        "nextAttemptTime": ago(-next_s),
        "conditions": [status_condition("Filled", False, reason)],
        "status": "Progressing",
    }


def warm(**more: Any) -> dict[str, Any]:
    return {
        "status": "Available",
        "sizeBytes": 10 * GIB,
        "conditions": [status_condition("Filled", True, "Warm")],
        **more,
    }


HF_TOKEN = {"huggingFaceToken": {"name": "hf", "key": "t"}}
SUCCESS = '{"message": "done", "bytes": 10, "revision": "abc"}'

WAY = [
    pytest.param(
        lambda w: [CLASS, w.cache()], [CLAIM], "False PVCPending", WAITING, id="new-with-a-size"
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(None)],
        [PROBE],
        "False PVCPending",
        WAITING,
        id="new-without-a-size",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(None), w.probe()],
        ["read Events of Job c-size"],
        "False PVCPending",
        WAITING,
        id="size-is-being-probed",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(None), w.probe("succeeded"), w.ended(0, SUCCESS, "c-size")],
        [CLAIM],
        "False PVCPending",
        WAITING,
        id="size-is-known",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(None), w.probe("succeeded", ended_s=1)],
        [],
        "False PVCPending",
        WAITING,
        id="probe-ended-before-its-pod-was-known",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(None), w.probe("succeeded", ended_s=119)],
        [],
        "False PVCPending",
        WAITING,
        id="probe-ended-while-the-watch-of-pods-was-away",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(), w.claim("Pending")],
        [],
        "False PVCProvisioning",
        WAITING,
        id="claim-waits-for-its-volume",
    ),
    pytest.param(
        lambda w: [storage_class(waits=True), w.cache(), w.claim("Pending")],
        [CLAIM, DOWNLOAD],
        "False PVCProvisioning",
        DOWNLOADING,
        id="claim-waits-for-its-first-consumer",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(), w.claim()],
        [CLAIM, DOWNLOAD],
        "True PVCBound",
        DOWNLOADING,
        id="claim-is-bound",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(), w.claim(), w.download(), w.running()],
        ["follow log of c-download-x"],
        "True PVCBound",
        DOWNLOADING,
        id="downloading",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(), w.claim(), w.download("succeeded", ended_s=1)],
        [],
        "True PVCBound",
        DOWNLOADING,
        id="job-ended-before-its-pod-was-known",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(), w.claim(), w.download("succeeded", ended_s=119)],
        [],
        "True PVCBound",
        DOWNLOADING,
        id="job-ended-while-the-watch-of-pods-was-away",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(), w.claim(), w.download("succeeded"), w.ended(0, SUCCESS)],
        [CLAIM],
        "True PVCBound",
        "False Verifying",
        id="done",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(), w.claim(), w.download("succeeded", ended_s=120)],
        [CLAIM],
        "True PVCBound",
        "False Verifying",
        id="done-and-its-pod-deleted",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(), w.claim(filled="abc"), w.download("succeeded")],
        [CLAIM],
        "True PVCBound",
        "True Warm",
        id="marked-as-filled",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(status=warm()), w.claim(filled="abc"), w.download("succeeded")],
        [CLAIM, "delete Job c-download"],
        "True PVCBound",
        "True Warm",
        id="recorded-so-the-job-is-deleted",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(status=warm()), w.claim(filled="abc")],
        [CLAIM],
        "True PVCBound",
        "True Warm",
        id="job-deleted-stays-warm",
    ),
    pytest.param(
        lambda w: [
            CLASS,
            w.config(credentials=HF_TOKEN),
            w.cache(status=warm()),
            w.claim(cache=w.cache(), filled="abc"),
        ],
        [CLAIM],
        "True PVCBound",
        "True Warm",
        id="config-edited-stays-warm",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(status=warm()), w.claim()],
        [CLAIM, DOWNLOAD],
        "True PVCBound",
        DOWNLOADING,
        id="a-re-created-claim-is-empty",
    ),
    pytest.param(
        lambda w: [
            CLASS,
            w.cache(status=warm()),
            w.claim(),
            w.download("succeeded", claim="former-claim"),
            w.ended(0, SUCCESS),
        ],
        ["delete Job c-download"],
        "True PVCBound",
        DOWNLOADING,
        id="a-job-that-filled-a-former-claim-does-not-count",
    ),
]

TROUBLE = [
    pytest.param(
        lambda w: [w.cache()], [CLAIM], "False StorageClassMissing", WAITING, id="no-default-class"
    ),
    pytest.param(
        lambda w: [
            CLASS,
            w.cache(spec={"sourceUri": w.uri, "size": "1Gi", "storageClassName": "fast"}),
            w.claim("Pending", storage_class="typo"),
        ],
        ["delete PersistentVolumeClaim c-cache"],
        "False StorageClassMissing",
        WAITING,
        id="class-changed-since-the-former-does-not-exist",
    ),
    pytest.param(
        lambda w: [
            CLASS,
            w.config(cacheStorageClassName="fast"),
            w.cache(),
            w.claim("Pending", storage_class="typo"),
        ],
        ["delete PersistentVolumeClaim c-cache"],
        "False StorageClassMissing",
        WAITING,
        id="class-changed-in-the-config",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(), w.claim("Pending", storage_class="typo")],
        ["delete PersistentVolumeClaim c-cache"],
        "False StorageClassMissing",
        WAITING,
        id="no-class-named-any-more-and-there-is-a-default",
    ),
    pytest.param(
        lambda w: [
            CLASS,
            storage_class("slow"),
            w.config(cacheStorageClassName="fast"),
            w.cache(),
            w.claim("Pending", storage_class="slow"),
        ],
        ["delete PersistentVolumeClaim c-cache"],
        "False PVCProvisioning",
        WAITING,
        id="another-class-named-since-the-former-gives-no-volume",
    ),
    pytest.param(
        lambda w: [
            CLASS,
            storage_class("slow"),
            w.cache(),
            w.claim("Pending", storage_class="slow"),
        ],
        [],
        "False PVCProvisioning",
        WAITING,
        id="the-class-that-was-the-default",
    ),
    pytest.param(
        lambda w: [
            w.config(cacheStorageClassName="typo-too"),
            w.cache(),
            w.claim("Pending", storage_class="typo"),
        ],
        [],
        "False StorageClassMissing",
        WAITING,
        id="another-class-that-does-not-exist",
    ),
    pytest.param(
        lambda w: [w.cache(), w.claim("Pending")],
        [],
        "False StorageClassMissing",
        WAITING,
        id="class-deleted",
    ),
    pytest.param(
        lambda w: [w.cache(), w.claim(filled="a")],
        [CLAIM],
        "True PVCBound",
        "True Warm",
        id="class-deleted-after-binding",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(), w.claim("Lost")],
        [],
        "False PVCLost",
        WAITING,
        id="volume-lost",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(), w.claim("Lost", filled="a")],
        [CLAIM],
        "False PVCLost",
        "False PVCLost",
        id="filled-volume-lost",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache("30Gi"), w.claim(filled="a")],
        [CLAIM],
        "False InsufficientCapacity",
        "True Warm",
        id="size-raised-after-the-claim",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache("20480Mi"), w.claim(filled="a")],
        [CLAIM],
        "True PVCBound",
        "True Warm",
        id="same-size-in-another-notation",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(), w.claim(deleting=True)],
        [],
        "False PVCPending",
        WAITING,
        id="claim-is-being-deleted",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(), w.claim(deleting=True, filled="a")],
        [],
        "False PVCPending",
        WAITING,
        id="filled-claim-is-being-deleted",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(), w.claim(owner=("Job", "x"))],
        [],
        "False NameConflict",
        WAITING,
        id="claim-of-another-owner",
    ),
    pytest.param(
        lambda w: [
            CLASS,
            w.cache(),
            w.claim(),
            job("c-download", ("AIMService", "x"), "succeeded"),
        ],
        [],
        "False NameConflict",
        WAITING,
        id="job-of-another-owner",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(uid="second"), w.claim(filled="a")],
        [],
        "False PVCPending",
        WAITING,
        id="claim-of-the-former-cache-of-this-name",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(annotations={labels.ANNOTATION_CONFIG: "big"})],
        [],
        "False PVCPending",
        "False RuntimeConfigMissing",
        id="named-config-missing",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(annotations={labels.ANNOTATION_CONFIG: "big"}), w.claim()],
        [],
        "True PVCBound",
        "False RuntimeConfigMissing",
        id="named-config-deleted-before-the-download",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(), w.cache(name="b", age_s=7200)],
        [],
        "nothing",
        "False DuplicateSource",
        id="older-cache-of-the-source",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(), w.cache(name="d")],
        [CLAIM],
        "False PVCPending",
        WAITING,
        id="of-equal-age-the-first-by-name",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(deleting=True)],
        [],
        "nothing",
        "nothing",
        id="cache-is-being-deleted",
    ),
    pytest.param(lambda _: [CLASS], [], "nothing", "nothing", id="cache-deleted"),
]

CLASSES = [
    pytest.param("own", "of-config", "own", id="the-caches-own"),
    pytest.param(None, "of-config", "of-config", id="its-configs"),
    pytest.param(None, None, None, id="none-so-the-clusters-default"),
]

RETRIES = [
    pytest.param(
        lambda w: [w.cache(), w.claim(), w.download("failed"), w.ended(20)],
        [],
        "False RetryBackoff",
        id="transient",
    ),
    pytest.param(
        lambda w: [w.cache(), w.claim(), w.download("failed"), w.ended(137)],
        [],
        "False RetryBackoff",
        id="killed",
    ),
    pytest.param(
        lambda w: [w.cache(), w.claim(), w.download("failed")],
        [],
        "False RetryBackoff",
        id="pod-deleted",
    ),
    pytest.param(
        lambda w: [w.cache(), w.claim(), w.download("failed", ended_s=1)],
        [],
        DOWNLOADING,
        id="pod-not-known-yet",
    ),
    pytest.param(
        lambda w: [w.cache(), w.claim(), w.download("failed"), w.ended(10)],
        [],
        "False SourceNotFound",
        id="not-found",
    ),
    pytest.param(
        lambda w: [w.cache(), w.claim(), w.download("failed"), w.ended(11)],
        [],
        "False AuthError",
        id="no-access",
    ),
    pytest.param(
        lambda w: [w.cache(), w.claim(), w.download("failed"), w.ended(12)],
        [],
        "False InsufficientCapacity",
        id="no-space",
    ),
    pytest.param(
        lambda w: [w.cache(), w.claim(), w.download("failed"), w.ended(13)],
        [],
        "False ChecksumMismatch",
        id="checksum",
    ),
    pytest.param(
        lambda w: [w.cache(), w.claim(), w.download("failed", attempt=6), w.ended(20)],
        [],
        "False DownloadFailed",
        id="sixth-try",
    ),
    pytest.param(
        lambda w: [w.cache(status=failed(1)), w.claim(), w.download("failed"), w.ended(20)],
        ["delete Job c-download"],
        "False RetryBackoff",
        id="recorded-so-the-job-is-deleted",
    ),
    pytest.param(
        lambda w: [w.cache(status=failed(5)), w.claim(), w.download("failed"), w.ended(20)],
        [],
        "False RetryBackoff",
        id="an-older-count-records-nothing",
    ),
    pytest.param(
        lambda w: [w.cache(status=failed(2)), w.claim(cache=w.cache())],
        [],
        "False RetryBackoff",
        id="waits-by-status-alone",
    ),
    pytest.param(
        lambda w: [w.cache(status=failed(2, -1)), w.claim(cache=w.cache())],
        [CLAIM, DOWNLOAD],
        DOWNLOADING,
        id="its-time-has-come",
    ),
    pytest.param(
        lambda w: [w.cache("40Gi", status=failed(2)), w.claim(cache=w.cache())],
        [CLAIM, DOWNLOAD],
        DOWNLOADING,
        id="spec-changed-so-at-once",
    ),
    pytest.param(
        lambda w: [
            w.cache(status=failed(9), annotations={labels.ANNOTATION_RETRY: "1"}),
            w.claim(cache=w.cache()),
        ],
        [CLAIM, DOWNLOAD],
        DOWNLOADING,
        id="retry-requested-so-at-once",
    ),
    pytest.param(
        lambda w: [
            w.config(credentials=HF_TOKEN),
            w.cache(status=failed(9)),
            w.claim(cache=w.cache()),
        ],
        [CLAIM, DOWNLOAD],
        DOWNLOADING,
        id="config-changed-so-at-once",
    ),
    pytest.param(
        lambda w: [
            w.cache(annotations={labels.ANNOTATION_RETRY: "1"}),
            w.claim(),
            w.download("failed", cache=w.cache()),
            w.ended(11),
        ],
        ["delete Job c-download"],
        DOWNLOADING,
        id="retry-requested-while-the-failed-job-exists",
    ),
    pytest.param(
        lambda w: [
            w.config(credentials=HF_TOKEN),
            w.cache(),
            w.claim(),
            w.download(cache=w.cache()),
            w.running(phase="Pending"),
        ],
        ["delete Job c-download"],
        DOWNLOADING,
        id="config-changed-before-the-pod-could-start",
    ),
    pytest.param(
        lambda w: [
            w.config(credentials=HF_TOKEN),
            w.cache(),
            w.claim(),
            w.download(cache=w.cache()),
            w.running(),
        ],
        ["follow log of c-download-x"],
        DOWNLOADING,
        id="config-changed-while-the-pod-runs",
    ),
    pytest.param(
        lambda w: [
            w.config(credentials=HF_TOKEN),
            w.cache(None),
            w.probe(cache=w.cache(None)),
            w.running("c-size", phase="Pending"),
        ],
        ["delete Job c-size"],
        WAITING,
        id="config-changed-before-the-probe-could-start",
    ),
    pytest.param(
        lambda w: [w.cache(None), w.probe("failed"), w.ended(11, job="c-size")],
        [],
        "False AuthError",
        id="probe-without-access",
    ),
    pytest.param(
        lambda w: [w.cache(None), w.probe("succeeded"), w.ended(0, job="c-size")],
        [],
        "False RetryBackoff",
        id="probe-without-output",
    ),
    pytest.param(
        lambda w: [w.cache(None, status=failed(1)), w.probe("failed"), w.ended(11, job="c-size")],
        [],
        "False AuthError",
        id="failed-probe-stays-until-due",
    ),
    pytest.param(
        lambda w: [
            w.cache(None, status=failed(1, -1)),
            w.probe("failed", ended_s=900),
            w.ended(11, job="c-size"),
        ],
        ["delete Job c-size"],
        "False AuthError",
        id="failed-probe-deleted-when-due",
    ),
    pytest.param(
        lambda w: [
            w.cache(None, status=failed(1), annotations={labels.ANNOTATION_RETRY: "1"}),
            w.probe("failed", cache=w.cache(None)),
            w.ended(11, job="c-size"),
        ],
        ["delete Job c-size"],
        WAITING,
        id="retry-requested-while-the-failed-probe-exists",
    ),
]


@pytest.mark.parametrize(("setup", "actions", "storage", "filled"), [*WAY, *TROUBLE])
def test_a_cache(world: Any, setup: Setup, actions: list[str], storage: str, filled: str) -> None:
    plan = world.plan(projection(*setup(world)))
    assert (
        action_summaries(plan),
        condition_summary(plan, "StorageReady"),
        condition_summary(plan, "Filled"),
    ) == (
        actions,
        storage,
        filled,
    )


@pytest.mark.parametrize(("own", "of_config", "expected"), CLASSES)
def test_the_storage_class_is_the_most_specific_one(
    world: Any, own: str | None, of_config: str | None, expected: str | None
) -> None:
    spec = {"sourceUri": world.uri, "size": "1Gi"} | (
        {} if own is None else {"storageClassName": own}
    )
    config = world.config(**({} if of_config is None else {"cacheStorageClassName": of_config}))
    claim = applied(
        world.plan(projection(CLASS, world.cache(spec=spec), config)), "PersistentVolumeClaim"
    )
    assert claim["spec"].get("storageClassName") == expected


@pytest.mark.parametrize(("setup", "actions", "filled"), RETRIES)
def test_tries(world: Any, setup: Setup, actions: list[str], filled: str) -> None:
    plan = world.plan(projection(CLASS, *setup(world)))
    assert (action_summaries(plan), condition_summary(plan, "Filled")) == (actions, filled)


@pytest.mark.parametrize(
    ("exit_code", "attempt", "reason", "wait_s"),
    [
        (20, 1, "RetryBackoff", 30),
        (20, 2, "RetryBackoff", 60),
        (None, 3, "RetryBackoff", 120),
        (137, 4, "RetryBackoff", 240),
        (1, 5, "RetryBackoff", 480),
        (20, 6, "DownloadFailed", 600),
        (20, 5000, "DownloadFailed", 600),
        (10, 1, "SourceNotFound", 600),
        (11, 1, "AuthError", 600),
        (12, 7, "InsufficientCapacity", 600),
        (13, 1, "ChecksumMismatch", 600),
    ],
)
def test_how_a_try_is_judged(
    exit_code: int | None, attempt: int, reason: str, wait_s: float
) -> None:
    assert classify_exit(exit_code, attempt) == (reason, wait_s)


def test_the_next_try_is_counted_from_the_end_of_the_last(world: Any) -> None:
    plan = world.plan(
        projection(
            CLASS,
            world.cache(),
            world.claim(),
            world.download("failed", attempt=2, ended_s=45),
            world.ended(20, "reset by peer"),
        )
    )
    assert parse_timestamp(fields(plan)["nextAttemptTime"]) == NOW + datetime.timedelta(seconds=15)
    assert fields(plan)["attempts"] == 2
    assert "reset by peer" in message(plan, "Filled")


def test_a_waiting_attempt_is_requeued_when_it_is_due(world: Any) -> None:
    plan = world.plan(
        projection(CLASS, world.cache(status=failed(2, 60)), world.claim(cache=world.cache()))
    )
    assert plan.requeue_after_s == 60
    assert fields(plan)["attempts"] == 2


def test_a_changed_spec_starts_counting_from_one(world: Any) -> None:
    plan = world.plan(
        projection(CLASS, world.cache("40Gi", status=failed(5)), world.claim(cache=world.cache()))
    )
    assert applied(plan, "Job")["metadata"]["annotations"][labels.ANNOTATION_ATTEMPT] == "1"
    assert fields(plan)["attempts"] == 0


def test_the_next_try_has_the_next_number(world: Any) -> None:
    plan = world.plan(
        projection(CLASS, world.cache(status=failed(5, -1)), world.claim(cache=world.cache()))
    )
    assert applied(plan, "Job")["metadata"]["annotations"][labels.ANNOTATION_ATTEMPT] == "6"


def test_progress_is_reported(world: Any) -> None:
    progress = Progress(
        kind="ModelCache",
        namespace=NAMESPACE,
        name="c",
        phase="downloading",
        bytes=43 * 10**9,
        total=100 * 10**9,
        rate=1e9,
        seconds_left=57,
    )
    state = projection(
        CLASS,
        world.cache(),
        world.claim(),
        world.download(),
        world.running(),
        observations=[Observation(world.key, "progress", progress)],
    )
    plan = world.plan(state)
    assert fields(plan)["progress"] == "43%"
    assert message(plan, "Filled") == "43.0 GB of 100 GB at 1.0 GB/s, 57 s left"


def test_what_was_downloaded_is_recorded(world: Any) -> None:
    plan = world.plan(
        projection(
            CLASS,
            world.cache(),
            world.claim(),
            world.download("succeeded"),
            world.ended(0, SUCCESS),
        )
    )
    assert (
        applied(plan, "PersistentVolumeClaim")["metadata"]["annotations"][labels.ANNOTATION_FILLED]
        == "abc"
    )
    assert fields(plan) == {
        "persistentVolumeClaim": "c-cache",
        "size": "20Gi",
        "sizeBytes": 10,
        "revision": "abc",
    }


@pytest.mark.parametrize(
    ("setup", "type_", "texts"),
    [
        pytest.param(
            lambda w: [w.cache("30Gi"), w.claim(filled="a")],
            "StorageReady",
            ["30Gi", "20Gi", "expand", "delete"],
            id="both-sizes",
        ),
        pytest.param(
            lambda w: [
                w.cache(),
                w.claim(),
                w.download("failed"),
                w.ended(12, '{"message": "needs 9, has 4", "bytes": 30000000000}'),
            ],
            "Filled",
            [
                "needs 9, has 4",
                "the source has 30.0 GB",
                "PVC c-cache requests 20Gi",
                "expand",
                "re-create",
            ],
            id="source-turned-out-larger",
        ),
        pytest.param(
            lambda w: [w.cache(), w.claim(), w.download("failed"), w.ended(12)],
            "Filled",
            ["PVC c-cache requests 20Gi", "expand", "re-create"],
            id="source-turned-out-larger-without-a-message",
        ),
        pytest.param(
            lambda w: [
                w.cache(),
                w.claim(deleting=True),
                obj(
                    "Pod",
                    "user",
                    spec={"volumes": [{"persistentVolumeClaim": {"claimName": "c-cache"}}]},
                ),
            ],
            "StorageReady",
            ["pod user"],
            id="who-holds-the-claim",
        ),
        pytest.param(
            lambda w: [w.cache(), w.claim(deleting=True)],
            "StorageReady",
            ["kubernetes.io/pvc-protection"],
            id="what-holds-the-claim",
        ),
        pytest.param(
            lambda w: [
                w.cache(),
                w.claim(),
                w.download(),
                w.running(
                    status={
                        "containerStatuses": [
                            {
                                "name": "downloader",
                                "state": {"waiting": {"reason": "ImagePullBackOff"}},
                            }
                        ]
                    }
                ),
            ],
            "Filled",
            ["ImagePullBackOff"],
            id="pod-does-not-start",
        ),
        pytest.param(
            lambda w: [w.cache(), w.claim(), w.download(age_s=31)],
            "Filled",
            ["Job c-download has no pod;", "kubectl describe job -n team c-download", "quota"],
            id="job-gets-no-pod",
        ),
        pytest.param(
            lambda w: [w.cache(), w.claim(), w.download(age_s=5)],
            "Filled",
            ["downloading hf://org/model"],
            id="job-is-new",
        ),
        pytest.param(
            lambda w: [w.cache(), w.cache(name="b", age_s=9999)],
            "Filled",
            ["ModelCache b is older"],
            id="which-cache-counts",
        ),
    ],
)
def test_messages_name_the_remedy(world: Any, setup: Setup, type_: str, texts: list[str]) -> None:
    reported = message(world.plan(projection(CLASS, *setup(world))), type_)
    assert [text for text in texts if text not in reported] == []


@pytest.mark.parametrize(
    ("kind", "name", "setup", "type_"),
    [
        pytest.param(
            "PersistentVolumeClaim", "c-cache", lambda w: [w.cache()], "StorageReady", id="claim"
        ),
        pytest.param(
            "Job", "c-download", lambda w: [w.cache(), w.claim()], "Filled", id="download"
        ),
        pytest.param("Job", "c-size", lambda w: [w.cache(None)], "Filled", id="probe"),
    ],
)
def test_a_rejection_is_reported_and_retried(
    world: Any, kind: str, name: str, setup: Setup, type_: str
) -> None:
    plan = world.plan(
        projection(
            CLASS,
            *setup(world),
            observations=[rejected(world.key, Key(kind, NAMESPACE, name), "quota used up")],
        )
    )
    assert "quota used up" in message(plan, type_)
    assert f"apply {kind} {name}" in action_summaries(plan)
    taken = rejected(world.key, Key(kind, NAMESPACE, name), "exists", name_taken=True)
    assert (
        condition_summary(world.plan(projection(CLASS, *setup(world), observations=[taken])), type_)
        == "False NameConflict"
    )


def test_a_field_conflict_over_the_claim_is_reported(world: Any) -> None:
    fight = field_conflict(Key("PersistentVolumeClaim", NAMESPACE, "c-cache"))
    plan = world.plan(projection(CLASS, world.cache(), world.claim(), observations=[fight]))
    assert condition_summary(plan, "StorageReady") == "True PVCBound"
    assert "keeps being changed by bully" in message(plan, "StorageReady")
    assert [warning.reason for report in plan.reports for warning in report.warnings] == [
        "Contested"
    ]


def test_a_job_that_cannot_be_deleted_is_reported_with_its_end(world: Any) -> None:
    bodies = (
        world.cache(status=failed(1)),
        world.claim(),
        world.download("failed"),
        world.ended(20, "the connection was reset"),
    )
    plan = world.plan(
        projection(
            CLASS,
            *bodies,
            observations=[
                rejected(world.key, Key("Job", NAMESPACE, "c-download"), "no right to delete")
            ],
        )
    )
    assert action_summaries(plan) == ["delete Job c-download"]
    assert [
        text
        for text in ("the connection was reset", "no right to delete")
        if text not in message(plan, "Filled")
    ] == []


CREATED_BY_AIM = {labels.MANAGED_BY: "aim"}
ABSENT = {"labels": CREATED_BY_AIM, "annotations": {labels.ANNOTATION_CONFIG: "absent"}}


@pytest.mark.parametrize(
    ("setup", "actions"),
    [
        pytest.param(lambda _: [], ["delete ModelCache c"], id="no-requester"),
        pytest.param(
            lambda w: [w.template(warm=False), w.result()],
            ["delete ModelCache c"],
            id="service-deleted",
        ),
        pytest.param(
            lambda w: [w.template(warm=False), w.result(), w.service()],
            [CLAIM],
            id="requested-by-a-service",
        ),
        pytest.param(lambda w: [w.template(), w.result()], [CLAIM], id="requested-by-a-template"),
        pytest.param(
            lambda w: [w.template(status={"modelSources": [w.uri]})],
            [CLAIM],
            id="a-template-whose-image-is-discovered-again",
        ),
    ],
)
def test_a_failed_cache_without_requesters_is_deleted(
    world: Any, setup: Setup, actions: list[str]
) -> None:
    assert (
        action_summaries(
            world.plan(
                projection(
                    CLASS,
                    world.cache(labels=CREATED_BY_AIM, status={"status": "Failed"}),
                    *setup(world),
                )
            )
        )
        == actions
    )


def test_a_duplicate_without_requesters_is_deleted(world: Any) -> None:
    status = {
        "status": "Failed",
        "conditions": [status_condition("Ready", False, "DuplicateSource")],
    }
    setup = [
        CLASS,
        world.cache(name="b", age_s=7200),
        world.cache(labels=CREATED_BY_AIM, status=status),
    ]
    assert action_summaries(world.plan(projection(*setup))) == ["delete ModelCache c"]
    assert action_summaries(world.plan(projection(*setup, world.template(), world.result()))) == []


@pytest.mark.parametrize(
    "cache",
    [
        {"labels": CREATED_BY_AIM, "status": {"status": "Available"}},
        {"status": {"status": "Failed"}},
    ],
    ids=["available", "created-by-a-user"],
)
def test_other_caches_stay(world: Any, cache: dict[str, Any]) -> None:
    assert action_summaries(world.plan(projection(CLASS, world.cache(**cache)))) == [CLAIM]


CACHE_APPLY = "apply ModelCache org-model-13bef2a4"


@pytest.mark.parametrize(
    ("setup", "actions", "warmth"),
    [
        pytest.param(lambda w: [w.template()], [], "False WarmRequested", id="not-discovered"),
        pytest.param(
            lambda w: [w.template(), w.result()],
            [CACHE_APPLY],
            "False Warming",
            id="warm-cache-requested",
        ),
        pytest.param(
            lambda w: [w.template(warm=False), w.result()], [], "nothing", id="no-requester"
        ),
        pytest.param(
            lambda w: [w.template(warm=False), w.result(), w.service()],
            [CACHE_APPLY],
            "nothing",
            id="requested-by-a-service",
        ),
        pytest.param(
            lambda w: [w.template(warm=False), w.result(), w.service(cacheModel=False)],
            [],
            "nothing",
            id="a-service-without-cache",
        ),
        pytest.param(
            lambda w: [w.template(), w.result(), w.cache()],
            [],
            "False Warming",
            id="a-users-cache-is-used",
        ),
        pytest.param(
            lambda w: [w.template(), w.result(), w.cache(status={"status": "Available"})],
            [],
            "True Warm",
            id="warm",
        ),
        pytest.param(
            lambda w: [w.template(), w.result(), w.cache(status={"status": "Failed"})],
            [],
            "False WarmFailed",
            id="failed",
        ),
        pytest.param(
            lambda w: [
                w.template(),
                w.result(),
                w.cache(name=cache_for(w.uri), spec={"sourceUri": "hf://org/another"}),
            ],
            [],
            "False NameConflict",
            id="name-is-taken",
        ),
        pytest.param(
            lambda w: [w.template(), w.result(), w.cache(deleting=True)],
            [CACHE_APPLY],
            "False Warming",
            id="cache-is-being-deleted",
        ),
    ],
)
def test_a_template(world: Any, setup: Setup, actions: list[str], warmth: str) -> None:
    plan = world.plan(projection(*setup(world)), "t", "AIMServiceTemplate")
    assert (
        [a.split("-")[0] for a in action_summaries(plan)],
        condition_summary(plan, "CacheWarm"),
    ) == (
        [a.split("-")[0] for a in actions],
        warmth,
    )


@pytest.mark.parametrize(
    ("size_gb", "size"),
    [(10, "11Gi"), (10.1, "12Gi"), (0.01, "1Gi"), (0, None)],
    ids=["whole", "rounded-up", "small", "unknown"],
)
def test_a_cache_is_created_with_ten_percent_headroom(
    world: Any, size_gb: float, size: str | None
) -> None:
    result = world.result({"name": "m", "source": world.uri, "size_gb": size_gb})
    created = applied(
        world.plan(projection(world.template(), result), "t", "AIMServiceTemplate"), "ModelCache"
    )
    assert created["spec"].get("size") == size


def test_a_cache_remembers_the_config_of_its_first_requester(world: Any) -> None:
    first = world.service("a", configRef="one")
    second = world.service("b", configRef="two")
    created = applied(
        world.plan(
            projection(world.template(warm=False), world.result(), second, first),
            "t",
            "AIMServiceTemplate",
        ),
        "ModelCache",
    )
    assert created["metadata"]["annotations"] == {labels.ANNOTATION_CONFIG: "one"}
    assert "ownerReferences" not in created["metadata"]


def test_the_first_requester_counts_for_any_template(world: Any) -> None:
    other = world.template(name="u", warm=False), world.result(template="u")
    requester = (
        world.service("late", configRef="late", age_s=60),
        world.service("early", configRef="early", templateRef="u", age_s=120),
    )
    for name in ("t", "u"):
        plan = world.plan(
            projection(world.template(warm=False), world.result(), *other, *requester),
            name,
            "AIMServiceTemplate",
        )
        assert applied(plan, "ModelCache")["metadata"]["annotations"] == {
            labels.ANNOTATION_CONFIG: "early"
        }


def test_a_warm_template_uses_the_config_of_an_older_service(
    world: Any,
) -> None:
    for age_s, config in ((60, "default"), (7200, "one")):
        state = projection(
            world.template(), world.result(), world.service(configRef="one", age_s=age_s)
        )
        created = applied(world.plan(state, "t", "AIMServiceTemplate"), "ModelCache")
        assert created["metadata"]["annotations"] == {labels.ANNOTATION_CONFIG: config}


TWO = [
    {"name": "m", "source": "hf://org/model", "size_gb": 1},
    {"name": "d", "source": "s3://bucket/org/draft", "size_gb": 2},
]


@pytest.mark.parametrize(
    ("statuses", "created", "warmth"),
    [
        pytest.param(
            [], ["hf://org/model", "s3://bucket/org/draft"], "False Warming", id="both-are-missing"
        ),
        pytest.param([{}], ["s3://bucket/org/draft"], "False Warming", id="one-exists"),
        pytest.param([{"status": "Available"}, {}], [], "False Warming", id="one-is-warm"),
        pytest.param(
            [{"status": "Available"}, {"status": "Failed"}],
            [],
            "False WarmFailed",
            id="one-has-failed",
        ),
        pytest.param([{"status": "Available"}] * 2, [], "True Warm", id="both-are-warm"),
    ],
)
def test_a_template_with_several_sources_has_a_cache_for_each(
    world: Any, statuses: list[Body], created: list[str], warmth: str
) -> None:
    caches = [
        world.cache(name=f"c{n}", spec={"sourceUri": TWO[n]["source"]}, status=status)
        for n, status in enumerate(statuses)
    ]
    plan = world.plan(
        projection(world.template(), world.result(*TWO), *caches), "t", "AIMServiceTemplate"
    )
    assert (
        [action.body["spec"]["sourceUri"] for action in plan.actions],
        condition_summary(plan, "CacheWarm"),
    ) == (created, warmth)


def test_the_next_cache_of_a_source_replaces_a_deleted_one(world: Any) -> None:
    older = world.cache(name="b", age_s=7200)
    younger = world.cache()
    state = projection(CLASS, older, younger)
    assert condition_summary(world.plan(state), "Filled") == "False DuplicateSource"
    assert world.key in map_to_keys(state, Key(CACHE.kind, NAMESPACE, "b"))
    going = projection(CLASS, world.cache(name="b", age_s=7200, deleting=True), younger)
    assert action_summaries(world.plan(going)) == [CLAIM]


def test_a_rejected_cache_is_reported_on_the_template(world: Any) -> None:
    key = Key("AIMServiceTemplate", NAMESPACE, "t")
    state = projection(
        world.template(),
        world.result(),
        observations=[rejected(key, Key(CACHE.kind, NAMESPACE, "x"), "webhook says no")],
    )
    plan = world.plan(state, "t", "AIMServiceTemplate")
    assert condition_summary(plan, "CacheWarm") == "False WarmFailed"
    assert "webhook says no" in message(plan, "CacheWarm")
    requested_by_a_service = [world.template(warm=False), world.result(), world.service()]
    observations = [rejected(key, Key(CACHE.kind, NAMESPACE, "x"), "webhook says no")]
    assert (
        condition_summary(
            world.plan(
                projection(*requested_by_a_service, observations=observations),
                "t",
                "AIMServiceTemplate",
            ),
            "CacheWarm",
        )
        == "False WarmFailed"
    )


@pytest.mark.parametrize(
    ("kind", "name"),
    [("PersistentVolumeClaim", "c-cache"), ("Job", "c-download"), ("Job", "c-size")],
)
def test_a_freed_name_enqueues_the_cache_that_needs_it(world: Any, kind: str, name: str) -> None:
    state = projection(world.cache(), obj(kind, name))
    assert world.key in map_to_keys(state, Key(kind, NAMESPACE, name))


SIDECAR = [
    pytest.param(
        lambda w: [w.cache(), w.claim(), w.download(), w.ended(0, SUCCESS, sidecar=True)],
        [CLAIM],
        "False Verifying",
        id="filled",
    ),
    pytest.param(
        lambda w: [
            w.cache(status=warm()),
            w.claim(filled="abc"),
            w.download(),
            w.ended(0, SUCCESS, sidecar=True),
        ],
        [CLAIM, "delete Job c-download"],
        "True Warm",
        id="recorded-so-the-open-job-is-deleted",
    ),
    pytest.param(
        lambda w: [w.cache(), w.claim(), w.download(), w.ended(11, sidecar=True)],
        [],
        "False AuthError",
        id="no-access",
    ),
    pytest.param(
        lambda w: [w.cache(status=failed(1)), w.claim(), w.download(), w.ended(11, sidecar=True)],
        ["delete Job c-download"],
        "False AuthError",
        id="failure-recorded-so-the-open-job-is-deleted",
    ),
    pytest.param(
        lambda w: [
            w.cache(),
            w.claim(),
            w.download(),
            w.ended(137, reason="OOMKilled", sidecar=True),
        ],
        [],
        "False RetryBackoff",
        id="killed-for-its-memory",
    ),
    pytest.param(
        lambda w: [w.cache(None), w.probe(), w.ended(0, SUCCESS, "c-size", sidecar=True)],
        [CLAIM],
        WAITING,
        id="size-is-known",
    ),
    pytest.param(
        lambda w: [w.cache(None), w.probe(), w.ended(10, job="c-size", sidecar=True)],
        [],
        "False SourceNotFound",
        id="no-size",
    ),
    pytest.param(
        lambda w: [w.cache(), w.claim(), w.download("failed"), w.ended(0, SUCCESS, sidecar=True)],
        [CLAIM],
        "False Verifying",
        id="deadline-after-a-good-end",
    ),
    pytest.param(
        lambda w: [
            w.cache(),
            w.claim(),
            w.download("failed"),
            w.ended(0, SUCCESS, sidecar=True, deleting=True),
        ],
        [CLAIM],
        "False Verifying",
        id="deadline-after-a-good-end-takes-the-pod",
    ),
    pytest.param(
        lambda w: [w.cache(), w.claim(), w.download(), w.ended(143, deleting=True, sidecar=True)],
        ["follow log of c-download-x"],
        DOWNLOADING,
        id="a-pod-that-is-taken-away-is-no-end",
    ),
]


@pytest.mark.parametrize(("setup", "actions", "filled"), SIDECAR)
def test_the_downloaders_own_end_decides(
    world: Any, setup: Setup, actions: list[str], filled: str
) -> None:
    plan = world.plan(projection(CLASS, *setup(world)))
    assert (action_summaries(plan), condition_summary(plan, "Filled")) == (actions, filled)


def test_a_try_ends_when_the_downloader_ends(world: Any) -> None:
    ended = world.ended(20, finishedAt=ago(10), sidecar=True)
    plan = world.plan(projection(CLASS, world.cache(), world.claim(), world.download(), ended))
    assert fields(plan)["nextAttemptTime"] == ago(10 - 30)


EVICTION = {
    "phase": "Failed",
    "reason": "Evicted",
    "message": "The node was low on resource: ephemeral-storage.",
}
NO_DEVICE = {
    "phase": "Failed",
    "reason": "UnexpectedAdmissionError",
    "message": "no healthy devices present",
}
LIMITED = {"containers": [{"name": "downloader", "resources": {"limits": {"memory": "1Gi"}}}]}


OVER_FULL = '{"message": "/cache has too little space: 4096 bytes still needed, 0 free"}'


@pytest.mark.parametrize(
    ("pods", "texts"),
    [
        pytest.param(
            lambda w: [w.ended(137, reason="OOMKilled", spec=LIMITED)],
            [
                "OOMKilled",
                "its limit, 1Gi",
                "raise limits.memory in setting AIM_JOB_RESOURCES of aim-cacher",
            ],
            id="out-of-memory",
        ),
        pytest.param(
            lambda w: [w.running(status=EVICTION)],
            ["Evicted: The node was low on resource: ephemeral-storage."],
            id="evicted",
        ),
        pytest.param(
            lambda w: [w.running(status=NO_DEVICE)],
            ["UnexpectedAdmissionError: no healthy devices present"],
            id="not-admitted",
        ),
        pytest.param(
            lambda w: [w.running(status=EVICTION | w.ended(137)["status"] | {"phase": "Failed"})],
            ["Evicted", "exit code 137"],
            id="evicted-while-it-ran",
        ),
        pytest.param(
            lambda w: [w.ended(128, "no such file", reason="StartError")],
            ["StartError", "no such file"],
            id="not-executable",
        ),
        pytest.param(
            lambda _: [],
            [
                "BackoffLimitExceeded",
                "its pod no longer exists: evicted, deleted, or lost with its node",
            ],
            id="pod-deleted",
        ),
        pytest.param(
            lambda w: [w.ended(12, OVER_FULL)],
            ["4096 bytes still needed, 0 free; ", "PVC c-cache requests 20Gi"],
            id="disk-filled-up",
        ),
    ],
)
def test_a_failed_try_names_its_cause(world: Any, pods: Setup, texts: list[str]) -> None:
    reported = message(
        world.plan(
            projection(CLASS, world.cache(), world.claim(), world.download("failed"), *pods(world))
        ),
        "Filled",
    )
    assert [text for text in ["try 1", *texts] if text not in reported] == []


def test_a_pod_that_reports_its_end_is_not_waited_for(world: Any) -> None:
    evicted = world.running(status=EVICTION)
    plan = world.plan(
        projection(
            CLASS, world.cache(), world.claim(), world.download("failed", ended_s=1), evicted
        )
    )
    assert condition_summary(plan, "Filled") == "False RetryBackoff"


HELD_BACK = {"conditions": [{"type": "Suspended", "status": "True"}]}
QUEUED = {"kueue.x-k8s.io/queue-name": "gpus"}
GATED = {
    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}],
    "phase": "Pending",
}


@pytest.mark.parametrize(
    ("setup", "text"),
    [
        pytest.param(
            lambda w: [w.download(status=HELD_BACK, labels=QUEUED)],
            "queue gpus has not admitted it yet",
            id="suspended",
        ),
        pytest.param(
            lambda w: [w.download(), w.running(status=GATED)],
            "held by a scheduling gate",
            id="gated",
        ),
    ],
)
def test_a_queue_is_waited_for(world: Any, setup: Setup, text: str) -> None:
    plan = world.plan(projection(CLASS, world.cache(), world.claim(), *setup(world)))
    assert (condition_summary(plan, "Filled"), action_summaries(plan)) == (DOWNLOADING, [])
    assert text in message(plan, "Filled")


@pytest.mark.parametrize(
    ("started_s", "actions", "requeue_after_s"),
    [(86_300, [], 70), (86_371, ["delete Job c-download"], None)],
    ids=["in-time", "late"],
)
def test_no_deadline_ends_what_a_gate_holds_back(
    world: Any, started_s: float, actions: list[str], requeue_after_s: float | None
) -> None:
    job = world.download(
        spec={"activeDeadlineSeconds": 86_400}, status={"startTime": ago(started_s)}
    )
    plan = world.plan(
        projection(CLASS, world.cache(), world.claim(), job, world.running(status=GATED))
    )
    assert (action_summaries(plan), condition_summary(plan, "Filled"), plan.requeue_after_s) == (
        actions,
        DOWNLOADING,
        requeue_after_s,
    )
    assert "attempts" not in fields(plan)


TERMINATING = "False PVCTerminating"
GOING = "False PVCPending"
DELETED = ["delete Job c-download"]


def user(name: str = "user", **fields: Any) -> Body:
    """A pod that mounts the claim."""
    status = {"phase": fields.pop("phase", "Running")}
    return obj(
        "Pod",
        name,
        spec={"volumes": [{"persistentVolumeClaim": {"claimName": "c-cache"}}]},
        status=status,
        **fields,
    )


def predictor(service: str) -> Body:
    return user(f"{service}-predictor-x", labels={labels.KSERVE_ISVC_LABEL: service})


def deleted(age_s: float) -> Body:
    """The claim, deleted so long ago."""
    body = obj(
        "PersistentVolumeClaim",
        "c-cache",
        owner=("ModelCache", "c"),
        status={"phase": "Bound"},
        spec={},
        deleting=True,
    )
    body["metadata"]["deletionTimestamp"] = ago(age_s)
    return body


def own_pod(phase: str, **fields: Any) -> Body:
    return user("c-download-x", owner=("Job", "c-download"), phase=phase, **fields)


@pytest.mark.parametrize(
    ("setup", "actions", "storage"),
    [
        pytest.param(
            lambda w: [w.download(), own_pod("Pending")],
            DELETED,
            GOING,
            id="a-job-that-cannot-start",
        ),
        pytest.param(
            lambda w: [w.download(status=HELD_BACK)], DELETED, GOING, id="a-suspended-job"
        ),
        pytest.param(lambda w: [w.download(age_s=40)], DELETED, GOING, id="a-job-without-a-pod"),
        pytest.param(
            lambda w: [w.download(cache=w.cache("9Gi")), own_pod("Pending")],
            DELETED,
            GOING,
            id="a-job-for-other-inputs",
        ),
        pytest.param(
            lambda w: [w.download("failed"), own_pod("Failed")],
            DELETED,
            GOING,
            id="a-job-that-failed",
        ),
        pytest.param(
            lambda w: [w.download(), w.ended(0, sidecar=True)],
            DELETED,
            GOING,
            id="a-job-that-a-sidecar-holds-open",
        ),
        pytest.param(
            lambda w: [w.download(deleting=True), own_pod("Pending")],
            [],
            GOING,
            id="a-job-that-is-being-deleted",
        ),
        pytest.param(
            lambda w: [w.download(), own_pod("Running")], [], TERMINATING, id="a-download-that-runs"
        ),
        pytest.param(
            lambda w: [w.download(age_s=5)], [], GOING, id="a-job-whose-pod-may-be-on-its-way"
        ),
        pytest.param(lambda _: [user()], [], TERMINATING, id="another-pod"),
        pytest.param(lambda _: [user(deleting=True)], [], GOING, id="a-pod-that-is-being-deleted"),
        pytest.param(lambda _: [user(phase="Succeeded")], [], GOING, id="a-pod-that-has-ended"),
        pytest.param(lambda _: [], [], GOING, id="no-holder"),
    ],
)
def test_who_lets_go_of_a_claim_that_is_deleted(
    world: Any, setup: Setup, actions: list[str], storage: str
) -> None:
    plan = world.plan(projection(CLASS, world.cache(), deleted(5), *setup(world)))
    assert (
        action_summaries(plan),
        condition_summary(plan, "StorageReady"),
        condition_summary(plan, "Filled"),
    ) == (
        actions,
        storage,
        WAITING,
    )
    assert storage == TERMINATING or plan.requeue_after_s == 55


@pytest.mark.parametrize(
    ("setup", "text"),
    [
        pytest.param(
            lambda w: [w.service("chat"), predictor("chat")],
            "held by pod chat-predictor-x of AIMService chat; to free it, set spec.replicas of"
            " AIMService chat to 0 or delete it",
            id="a-service",
        ),
        pytest.param(
            lambda _: [predictor("other")],
            "of InferenceService other; to free it, delete InferenceService other",
            id="an-inference-service-that-is-not-ours",
        ),
        pytest.param(
            lambda w: [w.download(), own_pod("Running")],
            "of Job c-download; to free it, delete Job c-download",
            id="a-job",
        ),
        pytest.param(
            lambda _: [user()], "held by pod user; to free it, delete pod user", id="a-pod"
        ),
        pytest.param(
            lambda w: [w.service("a"), predictor("a"), user("b")],
            "set spec.replicas of AIMService a to 0 or delete it, and delete pod b",
            id="several",
        ),
        pytest.param(
            lambda _: [user(f"p{n}") for n in range(9)],
            "pod p0, pod p1, pod p2 and 6 more",
            id="many",
        ),
        pytest.param(
            lambda _: [],
            "kubectl describe pvc -n team c-cache names the pods that use it",
            id="unknown-holder",
        ),
        pytest.param(
            lambda _: [user(deleting=True)],
            "if its node is lost, delete the pod with --force",
            id="a-pod-that-does-not-go",
        ),
    ],
)
def test_a_held_claim_names_what_frees_it(world: Any, setup: Setup, text: str) -> None:
    plan = world.plan(projection(CLASS, world.cache(), deleted(61), *setup(world)))
    assert condition_summary(plan, "StorageReady") == TERMINATING
    assert text in message(plan, "StorageReady")
    assert text in message(plan, "Filled")


def test_a_claim_names_the_finalizer_that_holds_it(world: Any) -> None:
    existing = deleted(61)
    existing["metadata"]["finalizers"] = ["example.org/backup"]
    reported = message(world.plan(projection(CLASS, world.cache(), existing)), "StorageReady")
    assert (
        "held by example.org/backup; check that the controller that set example.org/backup is"
        in reported
    )


@pytest.mark.parametrize(
    "setup",
    [
        pytest.param(
            lambda w: [w.cache(), w.claim(), held_by_finalizers(w.download("failed"), HOLD)],
            id="its-own-job",
        ),
        pytest.param(
            lambda w: [w.cache(uid="second"), held_by_finalizers(w.download(), HOLD)],
            id="the-job-of-a-former-cache",
        ),
    ],
)
def test_a_finalizer_that_holds_a_job_is_named_meanwhile(world: Any, setup: Setup) -> None:
    plan = world.plan(projection(CLASS, *setup(world)))
    assert f"Job c-download is being deleted, held by finalizer {HOLD}" in message(plan, "Filled")
    (reported,) = [each.message("cacher") for each in plan.reports]
    again = projection(CLASS, *setup(world), reports=[reported])
    assert message(world.plan(again), "Filled") == message(plan, "Filled")
    without_job = projection(CLASS, world.cache(), world.claim(), reports=[reported])
    assert "held by" not in message(world.plan(without_job), "Filled")


def test_a_template_names_the_finalizer_that_holds_a_cache(world: Any) -> None:
    former = held_by_finalizers(world.cache(name=cache_for(world.uri)), HOLD)
    plan = world.plan(
        projection(world.template(), world.result(), former), "t", "AIMServiceTemplate"
    )
    assert condition_summary(plan, "CacheWarm") == "False Warming"
    assert (
        f"ModelCache {cache_for(world.uri)} is being deleted, held by finalizer {HOLD}"
        in message(plan, "CacheWarm")
    )


@pytest.mark.parametrize(
    ("setup", "config"),
    [
        pytest.param(
            lambda w: [w.cache(**ABSENT), w.service(configRef="big"), w.config("big")],
            "big",
            id="corrected",
        ),
        pytest.param(
            lambda w: [w.cache(**ABSENT), w.service(configRef="big")],
            "big",
            id="to-another-that-is-absent",
        ),
        pytest.param(
            lambda w: [w.cache(**ABSENT), w.claim(), w.service(configRef="big"), w.config("big")],
            "big",
            id="after-the-claim-was-created",
        ),
        pytest.param(
            lambda w: [w.cache(**ABSENT), w.service(configRef="absent")], None, id="not-corrected"
        ),
        pytest.param(lambda w: [w.cache(**ABSENT)], None, id="no-requester"),
        pytest.param(
            lambda w: [w.cache(**ABSENT), w.service(configRef="big"), w.config("absent")],
            None,
            id="it-exists",
        ),
        pytest.param(
            lambda w: [w.cache(annotations=ABSENT["annotations"]), w.service(configRef="big")],
            None,
            id="a-users-cache",
        ),
        pytest.param(
            lambda w: [
                w.cache(
                    **ABSENT, status={"conditions": [status_condition("Filled", True, "Warm")]}
                ),
                w.service(configRef="big"),
            ],
            None,
            id="filled",
        ),
    ],
)
def test_a_missing_config_is_replaced_by_the_one_named_now(
    world: Any, setup: Setup, config: str | None
) -> None:
    plan = world.plan(
        projection(world.template(warm=False), world.result(), *setup(world)),
        "t",
        "AIMServiceTemplate",
    )
    named = [
        action.patch["metadata"]["annotations"]
        for action in plan.actions
        if isinstance(action, PatchObject)
    ]
    assert named == ([] if config is None else [{labels.ANNOTATION_CONFIG: config}])


def test_the_claim_of_a_former_cache_names_who_holds_it(world: Any) -> None:
    plan = world.plan(
        projection(
            CLASS, world.cache(uid="second"), deleted(5), world.service("chat"), predictor("chat")
        )
    )
    assert condition_summary(plan, "StorageReady") == TERMINATING
    assert "AIMService chat to 0" in message(plan, "StorageReady")


@pytest.mark.parametrize("setup", [[], [CLASS]], ids=["no-default-class", "a-default-class"])
def test_the_class_of_a_claim_is_named_where_it_is_missing(world: Any, setup: list[Body]) -> None:
    plan = world.plan(
        projection(*setup, world.cache(), world.claim("Pending", storage_class="typo"))
    )
    assert "storage class typo does not exist" in message(plan, "StorageReady")


@pytest.mark.parametrize("uid", ["c", "second"], ids=["its-own", "of-a-former-cache"])
def test_a_held_claim_costs_no_reconcile(world: Any, uid: str) -> None:
    plan = world.plan(projection(CLASS, world.cache(uid=uid), deleted(61), user()))
    assert (condition_summary(plan, "StorageReady"), plan.requeue_after_s) == (TERMINATING, None)


def test_a_pod_that_goes_wakes_the_cache_whose_claim_it_held(world: Any) -> None:
    state = projection(world.cache(), deleted(5), user())
    assert world.key in map_to_keys(state, Key("Pod", NAMESPACE, "user"))


@pytest.mark.parametrize(
    ("setup", "actions"),
    [
        pytest.param(
            lambda w: [w.cache(), w.claim(), w.probe()],
            ["delete Job c-size", CLAIM, DOWNLOAD],
            id="the-size-is-set-by-now",
        ),
        pytest.param(
            lambda w: [
                w.cache("9Gi"),
                w.claim(cache=w.cache()),
                w.download(cache=w.cache(), age_s=40),
            ],
            DELETED,
            id="the-spec-has-changed",
        ),
        pytest.param(
            lambda w: [w.cache(name="b", age_s=7200), w.cache(), w.claim(), w.download()],
            DELETED,
            id="another-cache-is-older",
        ),
    ],
)
def test_jobs_for_other_inputs_go_at_once(world: Any, setup: Setup, actions: list[str]) -> None:
    assert action_summaries(world.plan(projection(CLASS, *setup(world)))) == actions


@pytest.mark.parametrize(
    "setup",
    [
        pytest.param(lambda w: [w.claim(cache=w.cache())], id="next-try"),
        pytest.param(
            lambda w: [w.claim(cache=w.cache()), w.download(cache=w.cache()), w.running()],
            id="the-former-try-still-runs",
        ),
        pytest.param(
            lambda w: [
                w.claim(cache=w.cache()),
                w.download("failed", cache=w.cache(), attempt=9),
                w.ended(20),
            ],
            id="it-failed",
        ),
        pytest.param(lambda w: [w.claim("Pending", cache=w.cache())], id="the-claim-waits"),
    ],
)
def test_new_inputs_start_counting_in_the_same_report(world: Any, setup: Setup) -> None:
    requested_retry = world.cache(status=failed(9), annotations={labels.ANNOTATION_RETRY: "1"})
    reported = fields(world.plan(projection(CLASS, requested_retry, *setup(world))))
    assert (reported["attempts"], "nextAttemptTime" in reported) == (0, False)


def test_being_second_once_is_no_failure_of_the_first(world: Any) -> None:
    was_second = {
        "status": "Failed",
        "conditions": [status_condition("Ready", False, "DuplicateSource", "cache b is older")],
    }
    state = projection(
        CLASS,
        world.template(),
        world.result(),
        world.cache(labels=CREATED_BY_AIM, status=was_second),
    )
    assert (
        condition_summary(world.plan(state, "t", "AIMServiceTemplate"), "CacheWarm")
        == "False Warming"
    )
    assert action_summaries(
        world.plan(projection(CLASS, world.cache(labels=CREATED_BY_AIM, status=was_second)))
    ) == [CLAIM]


@pytest.mark.parametrize(
    ("setup", "size"),
    [
        pytest.param(
            lambda w: [
                w.cache(None),
                w.claim(status={"phase": "Bound", "capacity": {"storage": "22Gi"}}),
            ],
            "22Gi",
            id="capacity",
        ),
        pytest.param(lambda w: [w.cache(None), w.claim("Pending")], "20Gi", id="request"),
        pytest.param(lambda w: [w.cache("9Gi")], "9Gi", id="spec"),
        pytest.param(lambda w: [w.cache(None)], None, id="unknown"),
    ],
)
def test_the_size_of_the_volume_is_reported(world: Any, setup: Setup, size: str | None) -> None:
    assert fields(world.plan(projection(CLASS, *setup(world)))).get("size") == size


DENIAL = "denied by webhook: no"


@pytest.mark.parametrize(
    ("setup", "target"),
    [
        pytest.param(
            lambda w: [w.cache(), w.cache(name="b", age_s=7200), w.claim(), w.download()],
            "Job c-download",
            id="second-cache",
        ),
        pytest.param(
            lambda w: [w.cache(labels=CREATED_BY_AIM, status=failed(9) | {"status": "Failed"})],
            "ModelCache c",
            id="removing-the-cache",
        ),
        pytest.param(
            lambda w: [w.cache(), deleted(5), w.download(), own_pod("Pending")],
            "Job c-download",
            id="letting-go",
        ),
        pytest.param(
            lambda w: [w.cache(status=warm()), w.claim(filled="a"), w.download("succeeded")],
            "Job c-download",
            id="clearing-up-when-warm",
        ),
        pytest.param(
            lambda w: [w.cache(), w.claim(), w.download(cache=w.cache("9Gi"), age_s=40)],
            "Job c-download",
            id="outdated",
        ),
        pytest.param(lambda w: [w.cache(), w.claim()], "ConfigMap c-ca", id="certificates"),
    ],
)
@pytest.mark.parametrize("transient", [False, True], ids=["for-good", "for-now"])
def test_every_rejection_is_reported(
    world: Any, setup: Setup, target: str, *, transient: bool
) -> None:
    kind, name = target.split()
    rejected = Observation(
        world.key, REJECTED, ApplyRejected(Key(kind, NAMESPACE, name), DENIAL, transient=transient)
    )
    plan = world.plan(projection(CLASS, *setup(world), observations=[rejected]))
    assert DENIAL in message(plan, "Filled")
    assert plan.actions


@pytest.mark.parametrize(
    ("change", "woken"),
    [
        pytest.param(
            lambda w: w.template(version=2, labels={"a": "b"}), set(), id="the-template-changes"
        ),
        pytest.param(
            lambda w: w.template(version=2, warm=False),
            {"mine"},
            id="the-template-requests-no-more",
        ),
        pytest.param(
            lambda w: w.template(version=2, deleting=True), {"mine"}, id="the-template-is-deleted"
        ),
        pytest.param(lambda w: w.result(version=2), set(), id="the-same-answer"),
        pytest.param(lambda w: w.result(TWO[1], version=2), {"mine"}, id="another-answer"),
        pytest.param(lambda w: w.service(), set(), id="requested-by-a-service-too"),
    ],
)
def test_failed_caches_are_enqueued_without_their_requesters(
    world: Any, change: Any, woken: set[str]
) -> None:
    """Only those of the requested sources."""
    failed = {"status": "Failed"}
    mine = world.cache(name="mine", spec={"sourceUri": TWO[0]["source"]}, status=failed)
    others = [
        world.cache(name=f"other{n}", spec={"sourceUri": f"hf://org/other{n}"}, status=failed)
        for n in range(3)
    ]
    before = projection(world.template(), world.result(TWO[0]), mine, *others)
    body = change(world)
    after = fold(before, changed(body), 9)
    assert {each.name for each in map_change_to_keys(before, after, key_of(body))} == woken


def test_a_failed_cache_is_enqueued_with_its_last_service(world: Any) -> None:
    service = world.service(templateRef="t")
    mine = world.cache(
        name="mine", spec={"sourceUri": TWO[0]["source"]}, status={"status": "Failed"}
    )
    before = projection(world.template(warm=False), world.result(TWO[0]), service, mine)
    assert [
        each.name
        for each in map_change_to_keys(
            before, drop_object(before, key_of(service)), key_of(service)
        )
    ] == ["mine"]
    existing = projection(world.template(), world.result(TWO[0]), service, mine)
    assert (
        list(map_change_to_keys(existing, drop_object(existing, key_of(service)), key_of(service)))
        == []
    )


def test_a_cache_enqueues_the_templates_of_its_source(world: Any) -> None:
    bodies = [
        world.template(),
        world.template(name="other"),
        world.result(TWO[0]),
        world.result(TWO[1], template="other"),
    ]
    mine = world.cache(name="mine", spec={"sourceUri": TWO[0]["source"]})
    in_the_way = world.cache(
        name=cache_for("s3://bucket/org/draft"), spec={"sourceUri": TWO[0]["source"]}
    )
    woken = [map_to_keys(projection(*bodies, cache), key_of(cache)) for cache in (mine, in_the_way)]
    assert [{key.name for key in keys if key.kind == "AIMServiceTemplate"} for keys in woken] == [
        {"t"},
        {"t", "other"},
    ]


OVERLOADED = ApplyRejected(
    Key(CACHE.kind, NAMESPACE, "x"), "upstream connect error", transient=True
)


def test_an_overloaded_server_takes_nothing_back_that_is_so(world: Any) -> None:
    claim = replace(OVERLOADED, target=Key("PersistentVolumeClaim", NAMESPACE, "c-cache"))
    bound = world.plan(
        projection(
            CLASS,
            world.cache(),
            world.claim(),
            observations=[Observation(world.key, REJECTED, claim)],
        )
    )
    assert condition_summary(bound, "StorageReady") == "True PVCBound"
    template = Key("AIMServiceTemplate", NAMESPACE, "t")
    requested_by_a_service = [world.template(warm=False), world.result(), world.service()]
    plan = world.plan(
        projection(
            *requested_by_a_service, observations=[Observation(template, REJECTED, OVERLOADED)]
        ),
        "t",
        "AIMServiceTemplate",
    )
    assert condition_summary(plan, "CacheWarm") == "nothing"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"status": {"status": "Running"}}, set(), id="its-status"),
        pytest.param({"spec": {"templateRef": "t", "cacheModel": False}}, {"t"}, id="its-request"),
        pytest.param({"spec": {"templateRef": "u"}}, {"t", "u"}, id="its-template"),
    ],
)
def test_an_updated_service_reconciles_its_templates(
    world: Any, change: Body, expected: set[str]
) -> None:
    cacher = service(CacherSettings(downloader_image="downloader"))
    first, then = world.service(), world.service() | change
    then["metadata"] = then["metadata"] | {"resourceVersion": "2"}
    before = fold(projection(world.template()), changed(first), 1)
    keys = cacher.keys_to_reconcile(before, fold(before, changed(then), 2), key_of(first))
    assert {key.name for key in keys} == expected
