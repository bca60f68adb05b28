"""What the cacher does and says, step by step."""

import datetime
from collections.abc import Callable
from typing import Any

import pytest

from aim_cacher.plan import verdict
from aim_cacher.projection import affected
from aimschema import labels
from aimschema.messages import Progress, parse_timestamp
from aimschema.resources import CACHE, Key
from aimservice.projection import Learned
from aimservice.testing import (
    NAMESPACE,
    NOW,
    Body,
    ago,
    applied,
    does,
    fields,
    job,
    message,
    obj,
    projection,
    refused,
    said,
    says,
    storage_class,
)

Given = Callable[[Any], list[Body]]
CLASS = storage_class()
CLAIM, DOWNLOAD, PROBE = "apply PersistentVolumeClaim c-cache", "apply Job c-download", "apply Job c-size"
WAITING, DOWNLOADING = "False WaitingForPVC", "False Downloading"
GIB = 1 << 30


def failed(attempts: int, next_s: float = 60, reason: str = "RetryBackoff") -> dict[str, Any]:
    """Status after so many tries."""
    return {"attempts": attempts, "nextAttemptTime": ago(-next_s), "conditions": [said("Filled", False, reason)], "status": "Progressing"}


def warm(**more: Any) -> dict[str, Any]:
    return {"status": "Available", "sizeBytes": 10 * GIB, "conditions": [said("Filled", True, "Warm")], **more}


SUCCESS = '{"message": "done", "bytes": 10, "revision": "abc"}'

WAY = [
    pytest.param(lambda w: [CLASS, w.cache()], [CLAIM], "False PVCPending", WAITING, id="new-with-a-size"),
    pytest.param(lambda w: [CLASS, w.cache(None)], [PROBE], "False PVCPending", WAITING, id="new-without-a-size"),
    pytest.param(lambda w: [CLASS, w.cache(None), w.probe()], [], "False PVCPending", WAITING, id="size-is-being-probed"),
    pytest.param(
        lambda w: [CLASS, w.cache(None), w.probe("succeeded"), w.ended(0, SUCCESS, "c-size")],
        [CLAIM],
        "False PVCPending",
        WAITING,
        id="size-is-known",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(None), w.probe("succeeded", ended_s=1)], [], "False PVCPending", WAITING, id="probe-ended-before-its-pod-was-heard"
    ),
    pytest.param(lambda w: [CLASS, w.cache(), w.claim("Pending")], [], "False PVCProvisioning", WAITING, id="claim-waits-for-its-volume"),
    pytest.param(
        lambda w: [storage_class(waits=True), w.cache(), w.claim("Pending")],
        [CLAIM, DOWNLOAD],
        "False PVCProvisioning",
        DOWNLOADING,
        id="claim-waits-for-its-first-consumer",
    ),
    pytest.param(lambda w: [CLASS, w.cache(), w.claim()], [CLAIM, DOWNLOAD], "True PVCBound", DOWNLOADING, id="claim-is-bound"),
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
        id="job-ended-before-its-pod-was-heard",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(), w.claim(), w.download("succeeded"), w.ended(0, SUCCESS)], [CLAIM], "True PVCBound", "False Verifying", id="done"
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(), w.claim(), w.download("succeeded")], [CLAIM], "True PVCBound", "False Verifying", id="done-and-its-pod-gone"
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(), w.claim(filled="abc"), w.download("succeeded")], [CLAIM], "True PVCBound", "True Warm", id="marked-as-filled"
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(status=warm()), w.claim(filled="abc"), w.download("succeeded")],
        [CLAIM, "delete Job c-download"],
        "True PVCBound",
        "True Warm",
        id="recorded-so-the-job-goes",
    ),
    pytest.param(lambda w: [CLASS, w.cache(status=warm()), w.claim(filled="abc")], [CLAIM], "True PVCBound", "True Warm", id="job-gone-stays-warm"),
    pytest.param(
        lambda w: [CLASS, w.cache(status=warm()), w.claim()], [CLAIM, DOWNLOAD], "True PVCBound", DOWNLOADING, id="claim-made-anew-is-empty"
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(status=warm()), w.claim(), w.download("succeeded", claim="former-claim"), w.ended(0, SUCCESS)],
        ["delete Job c-download"],
        "True PVCBound",
        DOWNLOADING,
        id="a-job-that-filled-a-former-claim-says-nothing-of-this-one",
    ),
]

TROUBLE = [
    pytest.param(lambda w: [w.cache()], [CLAIM], "False StorageClassMissing", WAITING, id="no-default-class"),
    pytest.param(
        lambda w: [CLASS, w.cache(spec={"sourceUri": w.uri, "size": "1Gi", "storageClassName": "fast"}), w.claim("Pending", storage_class="typo")],
        ["delete PersistentVolumeClaim c-cache"],
        "False StorageClassMissing",
        WAITING,
        id="class-named-anew-since-the-former-does-not-exist",
    ),
    pytest.param(lambda w: [w.cache(), w.claim("Pending")], [], "False StorageClassMissing", WAITING, id="class-has-gone"),
    pytest.param(lambda w: [w.cache(), w.claim(filled="a")], [CLAIM], "True PVCBound", "True Warm", id="class-has-gone-after-binding"),
    pytest.param(lambda w: [CLASS, w.cache(), w.claim("Lost")], [], "False PVCLost", WAITING, id="volume-lost"),
    pytest.param(lambda w: [CLASS, w.cache(), w.claim("Lost", filled="a")], [CLAIM], "False PVCLost", "False PVCLost", id="filled-volume-lost"),
    pytest.param(
        lambda w: [CLASS, w.cache("30Gi"), w.claim(filled="a")], [CLAIM], "False InsufficientCapacity", "True Warm", id="size-raised-after-the-claim"
    ),
    pytest.param(lambda w: [CLASS, w.cache("20480Mi"), w.claim(filled="a")], [CLAIM], "True PVCBound", "True Warm", id="same-size-in-other-words"),
    pytest.param(lambda w: [CLASS, w.cache(), w.claim(deleting=True)], [], "False PVCPending", WAITING, id="claim-is-going"),
    pytest.param(lambda w: [CLASS, w.cache(), w.claim(deleting=True, filled="a")], [], "False PVCPending", WAITING, id="filled-claim-is-going"),
    pytest.param(lambda w: [CLASS, w.cache(), w.claim(owner=("Job", "x"))], [], "False NameConflict", WAITING, id="claim-of-somebody-else"),
    pytest.param(
        lambda w: [CLASS, w.cache(), w.claim(), job("c-download", ("AIMService", "x"), "succeeded")],
        [],
        "False NameConflict",
        WAITING,
        id="job-of-somebody-else",
    ),
    pytest.param(
        lambda w: [CLASS, w.cache(uid="second"), w.claim(filled="a")], [], "False PVCPending", WAITING, id="claim-of-the-former-cache-of-this-name"
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
        id="named-config-gone-before-the-download",
    ),
    pytest.param(lambda w: [CLASS, w.cache(), w.cache(name="b", age_s=7200)], [], "nothing", "False DuplicateSource", id="older-cache-of-the-source"),
    pytest.param(lambda w: [CLASS, w.cache(), w.cache(name="d")], [CLAIM], "False PVCPending", WAITING, id="of-equal-age-the-first-by-name"),
    pytest.param(lambda w: [CLASS, w.cache(deleting=True)], [], "nothing", "nothing", id="cache-is-going"),
    pytest.param(lambda _: [CLASS], [], "nothing", "nothing", id="cache-is-gone"),
]

RETRIES = [
    pytest.param(lambda w: [w.cache(), w.claim(), w.download("failed"), w.ended(20)], [], "False RetryBackoff", id="transient"),
    pytest.param(lambda w: [w.cache(), w.claim(), w.download("failed"), w.ended(137)], [], "False RetryBackoff", id="killed"),
    pytest.param(lambda w: [w.cache(), w.claim(), w.download("failed")], [], "False RetryBackoff", id="pod-gone"),
    pytest.param(lambda w: [w.cache(), w.claim(), w.download("failed", ended_s=1)], [], DOWNLOADING, id="pod-not-heard-yet"),
    pytest.param(lambda w: [w.cache(), w.claim(), w.download("failed"), w.ended(10)], [], "False SourceNotFound", id="not-found"),
    pytest.param(lambda w: [w.cache(), w.claim(), w.download("failed"), w.ended(11)], [], "False AuthError", id="no-access"),
    pytest.param(lambda w: [w.cache(), w.claim(), w.download("failed"), w.ended(12)], [], "False InsufficientCapacity", id="no-space"),
    pytest.param(lambda w: [w.cache(), w.claim(), w.download("failed"), w.ended(13)], [], "False ChecksumMismatch", id="checksum"),
    pytest.param(lambda w: [w.cache(), w.claim(), w.download("failed", attempt=6), w.ended(20)], [], "False DownloadFailed", id="sixth-try"),
    pytest.param(
        lambda w: [w.cache(status=failed(1)), w.claim(), w.download("failed"), w.ended(20)],
        ["delete Job c-download"],
        "False RetryBackoff",
        id="recorded-so-the-job-goes",
    ),
    pytest.param(
        lambda w: [w.cache(status=failed(5)), w.claim(), w.download("failed"), w.ended(20)],
        [],
        "False RetryBackoff",
        id="an-older-count-records-nothing",
    ),
    pytest.param(lambda w: [w.cache(status=failed(2)), w.claim(cache=w.cache())], [], "False RetryBackoff", id="waits-by-status-alone"),
    pytest.param(lambda w: [w.cache(status=failed(2, -1)), w.claim(cache=w.cache())], [CLAIM, DOWNLOAD], DOWNLOADING, id="its-time-has-come"),
    pytest.param(
        lambda w: [w.cache("40Gi", status=failed(2)), w.claim(cache=w.cache())], [CLAIM, DOWNLOAD], DOWNLOADING, id="spec-changed-so-at-once"
    ),
    pytest.param(
        lambda w: [w.cache(status=failed(9), annotations={labels.ANNOTATION_RETRY: "1"}), w.claim(cache=w.cache())],
        [CLAIM, DOWNLOAD],
        DOWNLOADING,
        id="asked-to-retry-so-at-once",
    ),
    pytest.param(
        lambda w: [
            w.config(credentials={"huggingFaceToken": {"name": "hf", "key": "t"}}),
            w.cache(status=failed(9)),
            w.claim(cache=w.cache()),
        ],
        [CLAIM, DOWNLOAD],
        DOWNLOADING,
        id="config-changed-so-at-once",
    ),
    pytest.param(
        lambda w: [w.cache(annotations={labels.ANNOTATION_RETRY: "1"}), w.claim(), w.download("failed", cache=w.cache()), w.ended(11)],
        ["delete Job c-download"],
        DOWNLOADING,
        id="asked-to-retry-while-the-failed-job-is-there",
    ),
    pytest.param(lambda w: [w.cache(None), w.probe("failed"), w.ended(11, job="c-size")], [], "False AuthError", id="probe-without-access"),
    pytest.param(lambda w: [w.cache(None), w.probe("succeeded"), w.ended(0, job="c-size")], [], "False RetryBackoff", id="probe-without-a-word"),
    pytest.param(
        lambda w: [w.cache(None, status=failed(1)), w.probe("failed"), w.ended(11, job="c-size")],
        [],
        "False AuthError",
        id="failed-probe-stays-until-due",
    ),
    pytest.param(
        lambda w: [w.cache(None, status=failed(1, -1)), w.probe("failed", ended_s=900), w.ended(11, job="c-size")],
        ["delete Job c-size"],
        "False AuthError",
        id="failed-probe-goes-when-due",
    ),
    pytest.param(
        lambda w: [
            w.cache(None, status=failed(1), annotations={labels.ANNOTATION_RETRY: "1"}),
            w.probe("failed", cache=w.cache(None)),
            w.ended(11, job="c-size"),
        ],
        ["delete Job c-size"],
        WAITING,
        id="asked-to-retry-while-the-failed-probe-is-there",
    ),
]


@pytest.mark.parametrize(("given", "actions", "storage", "filled"), [*WAY, *TROUBLE])
def test_a_cache(world: Any, given: Given, actions: list[str], storage: str, filled: str) -> None:
    plan = world.plan(projection(*given(world)))
    assert (does(plan), says(plan, "StorageReady"), says(plan, "Filled")) == (actions, storage, filled)


@pytest.mark.parametrize(("given", "actions", "filled"), RETRIES)
def test_tries(world: Any, given: Given, actions: list[str], filled: str) -> None:
    plan = world.plan(projection(CLASS, *given(world)))
    assert (does(plan), says(plan, "Filled")) == (actions, filled)


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
def test_how_a_try_is_judged(exit_code: int | None, attempt: int, reason: str, wait_s: float) -> None:
    assert verdict(exit_code, attempt) == (reason, wait_s)


def test_the_next_try_is_counted_from_the_end_of_the_last(world: Any) -> None:
    plan = world.plan(
        projection(CLASS, world.cache(), world.claim(), world.download("failed", attempt=2, ended_s=45), world.ended(20, "reset by peer"))
    )
    assert parse_timestamp(fields(plan)["nextAttemptTime"]) == NOW + datetime.timedelta(seconds=15)
    assert fields(plan)["attempts"] == 2
    assert "reset by peer" in message(plan, "Filled")


def test_a_waiting_try_looks_again_when_its_time_has_come(world: Any) -> None:
    plan = world.plan(projection(CLASS, world.cache(status=failed(2, 60)), world.claim(cache=world.cache())))
    assert plan.requeue_after_s == 60
    assert fields(plan)["attempts"] == 2


def test_a_changed_spec_starts_counting_anew(world: Any) -> None:
    plan = world.plan(projection(CLASS, world.cache("40Gi", status=failed(5)), world.claim(cache=world.cache())))
    assert applied(plan, "Job")["metadata"]["annotations"][labels.ANNOTATION_ATTEMPT] == "1"
    assert fields(plan)["attempts"] == 0


def test_the_next_try_has_the_next_number(world: Any) -> None:
    plan = world.plan(projection(CLASS, world.cache(status=failed(5, -1)), world.claim(cache=world.cache())))
    assert applied(plan, "Job")["metadata"]["annotations"][labels.ANNOTATION_ATTEMPT] == "6"


def test_progress_is_told(world: Any) -> None:
    progress = Progress(
        kind="ModelCache", namespace=NAMESPACE, name="c", phase="downloading", bytes=43 * 10**9, total=100 * 10**9, rate=1e9, seconds_left=57
    )
    seen = projection(CLASS, world.cache(), world.claim(), world.download(), world.running(), learned=[Learned(world.key, "progress", progress)])
    plan = world.plan(seen)
    assert fields(plan)["progress"] == "43%"
    assert message(plan, "Filled") == "43.0 GB of 100 GB at 1.0 GB/s, 57 s left"


def test_what_was_downloaded_is_recorded(world: Any) -> None:
    plan = world.plan(projection(CLASS, world.cache(), world.claim(), world.download("succeeded"), world.ended(0, SUCCESS)))
    assert applied(plan, "PersistentVolumeClaim")["metadata"]["annotations"][labels.ANNOTATION_FILLED] == "abc"
    assert fields(plan) == {"persistentVolumeClaim": "c-cache", "sizeBytes": 10, "revision": "abc"}


@pytest.mark.parametrize(
    ("given", "type_", "words"),
    [
        pytest.param(lambda w: [w.cache("30Gi"), w.claim(filled="a")], "StorageReady", ["30Gi", "20Gi", "expand", "delete"], id="both-sizes"),
        pytest.param(
            lambda w: [w.cache(), w.claim(), w.download("failed"), w.ended(12, '{"message": "needs 9, has 4"}')],
            "Filled",
            ["needs 9, has 4", "expand", "delete"],
            id="source-turned-out-larger",
        ),
        pytest.param(
            lambda w: [
                w.cache(),
                w.claim(deleting=True),
                obj("Pod", "user", spec={"volumes": [{"persistentVolumeClaim": {"claimName": "c-cache"}}]}),
            ],
            "StorageReady",
            ["pod user"],
            id="who-holds-the-claim",
        ),
        pytest.param(lambda w: [w.cache(), w.claim(deleting=True)], "StorageReady", ["kubernetes.io/pvc-protection"], id="what-holds-the-claim"),
        pytest.param(
            lambda w: [
                w.cache(),
                w.claim(),
                w.download(),
                w.running(status={"containerStatuses": [{"name": "downloader", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}),
            ],
            "Filled",
            ["ImagePullBackOff"],
            id="pod-does-not-start",
        ),
        pytest.param(lambda w: [w.cache(), w.cache(name="b", age_s=9999)], "Filled", ["ModelCache b is older"], id="which-cache-counts"),
    ],
)
def test_messages_say_what_to_do(world: Any, given: Given, type_: str, words: list[str]) -> None:
    told = message(world.plan(projection(CLASS, *given(world))), type_)
    assert [word for word in words if word not in told] == []


@pytest.mark.parametrize(
    ("kind", "name", "given", "type_"),
    [
        pytest.param("PersistentVolumeClaim", "c-cache", lambda w: [w.cache()], "StorageReady", id="claim"),
        pytest.param("Job", "c-download", lambda w: [w.cache(), w.claim()], "Filled", id="download"),
        pytest.param("Job", "c-size", lambda w: [w.cache(None)], "Filled", id="probe"),
    ],
)
def test_a_refusal_is_told_and_tried_again(world: Any, kind: str, name: str, given: Given, type_: str) -> None:
    plan = world.plan(projection(CLASS, *given(world), learned=[refused(world.key, Key(kind, NAMESPACE, name), "quota used up")]))
    assert "quota used up" in message(plan, type_)
    assert f"apply {kind} {name}" in does(plan)


MADE = {labels.MANAGED_BY: "aim"}


@pytest.mark.parametrize(
    ("given", "actions"),
    [
        pytest.param(lambda _: [], ["delete ModelCache c"], id="nobody-asks"),
        pytest.param(lambda w: [w.template(warm=False), w.result()], ["delete ModelCache c"], id="the-service-is-gone"),
        pytest.param(lambda w: [w.template(warm=False), w.result(), w.service()], [CLAIM], id="a-service-asks"),
        pytest.param(lambda w: [w.template(), w.result()], [CLAIM], id="a-template-asks"),
    ],
)
def test_a_failed_cache_that_nobody_asks_for_is_removed(world: Any, given: Given, actions: list[str]) -> None:
    assert does(world.plan(projection(CLASS, world.cache(labels=MADE, status={"status": "Failed"}), *given(world)))) == actions


@pytest.mark.parametrize(
    "cache", [{"labels": MADE, "status": {"status": "Available"}}, {"status": {"status": "Failed"}}], ids=["available", "made-by-a-user"]
)
def test_other_caches_stay(world: Any, cache: dict[str, Any]) -> None:
    assert does(world.plan(projection(CLASS, world.cache(**cache)))) == [CLAIM]


CACHE_APPLY = "apply ModelCache org-model-13bef2a4"


@pytest.mark.parametrize(
    ("given", "actions", "warmth"),
    [
        pytest.param(lambda w: [w.template()], [], "False WarmRequested", id="not-discovered"),
        pytest.param(lambda w: [w.template(), w.result()], [CACHE_APPLY], "False Warming", id="warm-cache-wanted"),
        pytest.param(lambda w: [w.template(warm=False), w.result()], [], "nothing", id="nobody-asks"),
        pytest.param(lambda w: [w.template(warm=False), w.result(), w.service()], [CACHE_APPLY], "nothing", id="a-service-asks"),
        pytest.param(lambda w: [w.template(warm=False), w.result(), w.service(cacheModel=False)], [], "nothing", id="a-service-without-cache"),
        pytest.param(lambda w: [w.template(), w.result(), w.cache()], [], "False Warming", id="a-users-cache-is-used"),
        pytest.param(lambda w: [w.template(), w.result(), w.cache(status={"status": "Available"})], [], "True Warm", id="warm"),
        pytest.param(lambda w: [w.template(), w.result(), w.cache(status={"status": "Failed"})], [], "False WarmFailed", id="failed"),
        pytest.param(lambda w: [w.template(), w.result(), w.cache(deleting=True)], [CACHE_APPLY], "False Warming", id="cache-is-going"),
    ],
)
def test_a_template(world: Any, given: Given, actions: list[str], warmth: str) -> None:
    plan = world.plan(projection(*given(world)), "t", "AIMServiceTemplate")
    assert ([a.split("-")[0] for a in does(plan)], says(plan, "CacheWarm")) == ([a.split("-")[0] for a in actions], warmth)


@pytest.mark.parametrize(
    ("size_gb", "size"), [(10, "11Gi"), (10.1, "12Gi"), (0.01, "1Gi"), (0, None)], ids=["whole", "rounded-up", "small", "unknown"]
)
def test_a_cache_is_made_with_ten_percent_more(world: Any, size_gb: float, size: str | None) -> None:
    result = world.result({"name": "m", "source": world.uri, "size_gb": size_gb})
    made = applied(world.plan(projection(world.template(), result), "t", "AIMServiceTemplate"), "ModelCache")
    assert made["spec"].get("size") == size


def test_a_cache_remembers_the_config_of_the_first_asker(world: Any) -> None:
    first, second = world.service("a", configRef="one"), world.service("b", configRef="two")
    made = applied(world.plan(projection(world.template(warm=False), world.result(), second, first), "t", "AIMServiceTemplate"), "ModelCache")
    assert made["metadata"]["annotations"] == {labels.ANNOTATION_CONFIG: "one"}
    assert "ownerReferences" not in made["metadata"]


def test_a_refused_cache_is_told_on_the_template(world: Any) -> None:
    key = Key("AIMServiceTemplate", NAMESPACE, "t")
    seen = projection(world.template(), world.result(), learned=[refused(key, Key(CACHE.kind, NAMESPACE, "x"), "webhook says no")])
    plan = world.plan(seen, "t", "AIMServiceTemplate")
    assert says(plan, "CacheWarm") == "False WarmFailed"
    assert "webhook says no" in message(plan, "CacheWarm")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("PersistentVolumeClaim", "c-cache"), ("Job", "c-download"), ("Job", "c-size")],
)
def test_a_foreign_object_that_goes_wakes_the_cache_that_needs_its_name(world: Any, kind: str, name: str) -> None:
    seen = projection(world.cache(), obj(kind, name))
    assert world.key in affected(seen, Key(kind, NAMESPACE, name))
