"""Actions and conditions of the deployer."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given as holds_for
from hypothesis import settings
from hypothesis import strategies as st

from aim_deployer import gpus
from aim_deployer.plan import plan as plan_key
from aim_deployer.projection import map_to_keys
from aimcontroller import testing
from aimcontroller.projection import drop_object
from aimcontroller.testing import (
    NAMESPACE,
    NOW,
    Body,
    action_summaries,
    ago,
    applied,
    condition_summary,
    field_conflict,
    fields,
    held_by_finalizers,
    message,
    obj,
    pod,
    projection,
    rejected,
    status_condition,
)
from aimschema.names import cache_for
from aimschema.resources import CACHE, CONFIG_MAP, INFERENCE_SERVICE, SERVICE, TEMPLATE, Key

Setup = Callable[[Any], list[Body]]
HOLD = "example.org/hold"
APPLY = ["apply InferenceService s"]
FAILED_CACHE = {"conditions": [status_condition("Ready", False, "AuthError", "gated")]}
LOST_CACHE = {"conditions": [status_condition("Ready", False, "PVCLost", "no volume")]}
HELD_CACHE = {
    "conditions": [
        status_condition("Ready", False, "PVCTerminating", "held by pod p of AIMService s")
    ]
}
SECOND_CACHE = {
    "conditions": [status_condition("Ready", False, "DuplicateSource", "another one is older")]
}

UNRESOLVED = [
    pytest.param(
        lambda w: w.parts("AIMServiceTemplate"), "False TemplateNotFound", id="no-template"
    ),
    pytest.param(
        lambda w: [*w.parts("AIMServiceTemplate"), w.template(deleting=True)],
        "False TemplateNotFound",
        id="template-is-being-deleted",
    ),
    pytest.param(
        lambda w: [*w.parts("AIMServiceTemplate"), w.template({"model": "other"})],
        "False ValidationFailed",
        id="template-of-another-model",
    ),
    pytest.param(lambda w: w.parts("AIMClusterModel"), "False ModelNotFound", id="no-model"),
    pytest.param(
        lambda w: w.parts(configRef="big"), "False RuntimeConfigMissing", id="no-named-config"
    ),
    pytest.param(
        lambda w: [*w.parts("AIMServiceTemplate"), w.template({"gpuModel": "TPU"})],
        "False UnknownGPU",
        id="gpu-not-in-the-table",
    ),
    pytest.param(lambda w: w.parts("ConfigMap"), "False TemplateNotReady", id="not-discovered"),
    pytest.param(
        lambda w: [
            *w.parts("ConfigMap", "AIMServiceTemplate"),
            w.template(status={"status": "Failed"}),
        ],
        "False TemplateFailed",
        id="template-failed",
    ),
    pytest.param(
        lambda w: [*w.parts("ConfigMap"), w.result("s3://bucket")],
        "False ValidationFailed",
        id="source-without-org-and-model",
    ),
    pytest.param(
        lambda w: [*w.parts("ConfigMap"), w.result("hf://a/b", "s3://x/a/b")],
        "False ValidationFailed",
        id="two-sources-one-path",
    ),
]


@pytest.mark.parametrize(("setup", "resolved"), UNRESOLVED)
def test_a_missing_input_is_reported(world: Any, setup: Setup, resolved: str) -> None:
    plan = world.plan(projection(*setup(world)))
    assert (
        action_summaries(plan),
        condition_summary(plan, "Resolved"),
        condition_summary(plan, "RuntimeReady"),
    ) == (
        [],
        resolved,
        "nothing",
    )


@pytest.mark.parametrize(("setup", "resolved"), UNRESOLVED)
def test_a_running_service_stays_while_an_input_is_missing(
    world: Any, setup: Setup, resolved: str
) -> None:
    plan = world.plan(projection(*setup(world), *world.runs()))
    assert (
        action_summaries(plan),
        condition_summary(plan, "Resolved"),
        condition_summary(plan, "RuntimeReady"),
    ) == (
        [],
        resolved,
        "True RuntimeReady",
    )


@pytest.mark.parametrize(
    ("setup", "actions", "cache", "runtime"),
    [
        pytest.param(
            lambda w: w.parts(), APPLY, "True CacheWarm", "False CreatingRuntime", id="warm"
        ),
        pytest.param(
            lambda w: w.parts("ModelCache"),
            [],
            "False WaitingForCache",
            "nothing",
            id="no-cache-yet",
        ),
        pytest.param(
            lambda w: [*w.parts("ModelCache"), w.cache("Progressing")],
            [],
            "False CacheWarming",
            "nothing",
            id="warming",
        ),
        pytest.param(
            lambda w: [*w.parts("ModelCache"), w.cache("Failed", **FAILED_CACHE)],
            [],
            "False CacheFailed",
            "nothing",
            id="cache-failed",
        ),
        pytest.param(
            lambda w: [*w.parts("ModelCache"), w.cache("Failed", **LOST_CACHE)],
            [],
            "False CacheLost",
            "nothing",
            id="volume-lost",
        ),
        pytest.param(
            lambda w: [*w.parts("ModelCache"), w.cache("Failed", **HELD_CACHE)],
            [],
            "False CacheFailed",
            "nothing",
            id="volume-held",
        ),
        pytest.param(
            lambda w: [*w.parts("ModelCache"), w.cache("Failed", **SECOND_CACHE)],
            [],
            "False CacheWarming",
            "nothing",
            id="cache-was-the-second-once",
        ),
        pytest.param(
            lambda w: w.parts("ModelCache", cacheModel=False),
            APPLY,
            "True CacheNotRequested",
            "False CreatingRuntime",
            id="cache-not-requested",
        ),
        pytest.param(
            lambda w: w.parts(cacheModel=False),
            APPLY,
            "True CacheWarm",
            "False CreatingRuntime",
            id="warm-cache-used-though-not-requested",
        ),
        pytest.param(
            lambda w: [*w.parts(cacheModel=False), *w.runs(cached=False)],
            APPLY,
            "True CacheNotRequested",
            "True RuntimeReady",
            id="as-first-rendered",
        ),
        pytest.param(
            lambda w: [*w.parts(), *w.runs()],
            APPLY,
            "True CacheWarm",
            "True RuntimeReady",
            id="runs",
        ),
        pytest.param(
            lambda w: [*w.parts("ModelCache"), *w.runs()],
            [],
            "False CacheLost",
            "True RuntimeReady",
            id="cache-deleted-while-it-runs",
        ),
        pytest.param(
            lambda w: [*w.parts("ModelCache"), w.cache("Failed", **HELD_CACHE), *w.runs()],
            [],
            "False CacheLost",
            "True RuntimeReady",
            id="it-holds-the-volume-that-is-deleted",
        ),
        pytest.param(
            lambda w: [*w.parts("ModelCache"), w.cache("Pending"), *w.runs()],
            [],
            "False CacheLost",
            "True RuntimeReady",
            id="cache-being-refilled",
        ),
        pytest.param(
            lambda w: [*w.parts("ModelCache"), w.cache("Failed", **FAILED_CACHE), *w.runs()],
            [],
            "False CacheFailed",
            "True RuntimeReady",
            id="cache-failed-while-it-runs",
        ),
        pytest.param(
            lambda w: [
                *w.parts("ConfigMap"),
                w.result("hf://org/model@v2"),
                w.cache("Progressing", "c2", "hf://org/model@v2"),
                *w.runs(),
            ],
            [],
            "False CacheWarming",
            "True RuntimeReady",
            id="no-roll-out-onto-a-cache-that-is-not-warm",
        ),
        pytest.param(
            lambda w: [*w.parts("AIMService"), w.service(uid="second"), w.runtime()],
            [],
            "nothing",
            "False CreatingRuntime",
            id="left-by-the-former-service-of-this-name",
        ),
        pytest.param(
            lambda w: [*w.parts(), obj(INFERENCE_SERVICE.kind, "s")],
            [],
            "nothing",
            "False NameConflict",
            id="of-another-owner",
        ),
        pytest.param(lambda _: [], [], "nothing", "nothing", id="service-deleted"),
    ],
)
def test_caches_and_roll_out(
    world: Any, setup: Setup, actions: list[str], cache: str, runtime: str
) -> None:
    plan = world.plan(projection(*setup(world)))
    assert (
        action_summaries(plan),
        condition_summary(plan, "CacheReady"),
        condition_summary(plan, "RuntimeReady"),
    ) == (
        actions,
        cache,
        runtime,
    )


@pytest.mark.parametrize(
    ("cache", "expected"),
    [
        pytest.param(lambda w: [w.cache()], "True CacheWarm", id="warm"),
        pytest.param(lambda _: [], "False CacheLost", id="deleted"),
        pytest.param(lambda w: [w.cache("Pending")], "False CacheLost", id="being-filled-again"),
        pytest.param(
            lambda w: [w.cache("Failed", **HELD_CACHE)],
            "False CacheLost",
            id="its-volume-is-deleted",
        ),
    ],
)
@pytest.mark.parametrize("missing", ["AIMServiceTemplate", "AIMClusterModel"])
def test_caches_are_reported_while_something_else_is_missing(
    world: Any, missing: str, cache: Setup, expected: str
) -> None:
    warm = {
        "conditions": [
            status_condition("CacheReady", True, "CacheWarm", "1 of 1 model sources are cached")
        ]
    }
    setup = [
        *world.parts("ModelCache", "AIMService", missing),
        world.service(status=warm),
        *cache(world),
        *world.runs(),
    ]
    plan = world.plan(projection(*setup))
    assert (
        action_summaries(plan),
        condition_summary(plan, "CacheReady"),
        condition_summary(plan, "RuntimeReady"),
    ) == (
        [],
        expected,
        "True RuntimeReady",
    )
    assert ("c-cache" in message(plan, "CacheReady")) is (expected == "False CacheLost")


def test_a_generation_of_kserve_is_not_compared(world: Any) -> None:
    runtime = world.runtime(observedGeneration=1)
    runtime["metadata"]["generation"] = 7
    assert (
        condition_summary(
            world.plan(projection(*world.parts(), runtime, world.ready_pod())), "RuntimeReady"
        )
        == "True RuntimeReady"
    )


def test_without_kserve_the_missing_kind_is_named(world: Any) -> None:
    plan = world.plan(projection(*world.parts(), unserved=[INFERENCE_SERVICE.kind]))
    assert (action_summaries(plan), condition_summary(plan, "RuntimeReady")) == (
        [],
        "False RuntimeFailed",
    )
    assert "inferenceservices.serving.kserve.io" in message(plan, "RuntimeReady")


def test_a_rejection_is_reported(world: Any) -> None:
    state = projection(
        *world.parts(),
        observations=[
            rejected(world.key, Key(INFERENCE_SERVICE.kind, NAMESPACE, "s"), "webhook says no")
        ],
    )
    assert "webhook says no" in message(world.plan(state), "RuntimeReady")
    taken = rejected(
        world.key, Key(INFERENCE_SERVICE.kind, NAMESPACE, "s"), "exists", name_taken=True
    )
    assert (
        condition_summary(
            world.plan(projection(*world.parts(), observations=[taken])), "RuntimeReady"
        )
        == "False NameConflict"
    )


def test_a_field_conflict_is_reported(world: Any) -> None:
    fight = field_conflict(Key(INFERENCE_SERVICE.kind, NAMESPACE, "s"))
    plan = world.plan(projection(*world.parts(), *world.runs(), observations=[fight]))
    assert condition_summary(plan, "RuntimeReady") == "True RuntimeReady"
    assert "keeps being changed by bully" in message(plan, "RuntimeReady")
    assert [
        warning.reason
        for report in plan.reports
        for warning in report.warnings
        if report.key == world.key
    ] == ["Contested"]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("NameConflict", "False NameConflict"),
        ("WarmFailed", "False CacheFailed"),
        ("Warming", "False WaitingForCache"),
    ],
)
def test_the_reason_for_a_missing_cache_is_reported(world: Any, reason: str, expected: str) -> None:
    template = world.template(
        status={"conditions": [status_condition("CacheWarm", False, reason, "the cacher's words")]}
    )
    plan = world.plan(projection(*world.parts("ModelCache", "AIMServiceTemplate"), template))
    assert condition_summary(plan, "CacheReady") == expected
    assert ("the cacher's words" in message(plan, "CacheReady")) is (reason != "Warming")


@pytest.mark.parametrize(
    ("setup", "type_", "expected"),
    [
        pytest.param(
            lambda w: [
                *w.parts("AIMService"),
                w.service(uid="second"),
                held_by_finalizers(w.runtime(), HOLD),
            ],
            "RuntimeReady",
            ("False CreatingRuntime", "InferenceService s is being deleted"),
            id="the-runtime-of-a-former-service",
        ),
        pytest.param(
            lambda w: [*w.parts(), held_by_finalizers(w.runtime(), HOLD)],
            "RuntimeReady",
            ("False CreatingRuntime", "InferenceService s is being deleted"),
            id="its-own-runtime",
        ),
        pytest.param(
            lambda w: [
                *w.parts("ModelCache", cacheModel=True),
                held_by_finalizers(w.cache(name=cache_for(w.uri)), HOLD),
            ],
            "CacheReady",
            ("False WaitingForCache", "ModelCache org-model-759d2c8a is being deleted"),
            id="a-former-cache",
        ),
        pytest.param(
            lambda w: [*w.parts("AIMServiceTemplate"), held_by_finalizers(w.template(), HOLD)],
            "Resolved",
            ("False TemplateNotFound", "AIMServiceTemplate t is being deleted"),
            id="the-template",
        ),
    ],
)
def test_a_finalizer_that_blocks_deletion_is_named(
    world: Any, setup: Setup, type_: str, expected: tuple[str, str]
) -> None:
    plan = world.plan(projection(*setup(world)))
    assert condition_summary(plan, type_) == expected[0]
    assert f"{expected[1]}, held by finalizer {HOLD}" in message(plan, type_)


def test_zero_replicas_stop_the_service(world: Any) -> None:
    plan = world.plan(projection(*world.parts(replicas=0), world.runtime(False)))
    assert (
        applied(plan, INFERENCE_SERVICE.kind)["metadata"]["annotations"]["serving.kserve.io/stop"]
        == "true"
    )
    assert condition_summary(plan, "RuntimeReady") == "True Stopped"


def test_deleting_a_config_in_use_changes_nothing(world: Any) -> None:
    plan = world.plan(projection(*world.parts(), *world.runs(config=True)))
    assert (
        action_summaries(plan),
        condition_summary(plan, "Resolved"),
        condition_summary(plan, "RuntimeReady"),
    ) == (
        [],
        "False RuntimeConfigMissing",
        "True RuntimeReady",
    )


@pytest.mark.parametrize(
    ("caches", "percent"),
    [
        pytest.param([("Progressing", "40%", 100), ("Available", "100%", 300)], 85, id="by-bytes"),
        pytest.param(
            [("Progressing", "40%", 0), ("Available", "100%", 300)],
            70,
            id="by-sources-where-a-size-is-unknown",
        ),
        pytest.param([("Progressing", "", 1), ("Pending", "odd", 1)], 0, id="nothing-reported"),
    ],
)
def test_how_much_is_cached(world: Any, caches: list[tuple[str, str, int]], percent: int) -> None:
    uris = [f"hf://org/{index}" for index in range(len(caches))]
    bodies = [
        world.cache(s, f"c{i}", uris[i], progress=p, sizeBytes=size)
        for i, (s, p, size) in enumerate(caches)
    ]
    plan = world.plan(
        projection(*world.parts("ConfigMap", "ModelCache"), world.result(*uris), *bodies)
    )
    assert message(plan, "CacheReady").startswith(f"{percent} % of the model is cached")


def test_what_a_cache_waits_for_is_reported(world: Any) -> None:
    waiting = world.cache(
        "Pending", conditions=[status_condition("Ready", False, "WaitingForPVC", "held by pod old")]
    )
    expected = message(world.plan(projection(*world.parts("ModelCache"), waiting)), "CacheReady")
    assert expected == "0 % of the model is cached; ModelCache c: held by pod old"


def test_a_rejected_cache_is_reported(world: Any) -> None:
    template = world.template(
        status={
            "conditions": [
                status_condition(
                    "CacheWarm", False, "WarmFailed", "ModelCache c is rejected: quota"
                )
            ]
        }
    )
    plan = world.plan(projection(*world.parts("ModelCache", TEMPLATE.kind), template))
    assert (condition_summary(plan, "CacheReady"), message(plan, "CacheReady")) == (
        "False CacheFailed",
        "ModelCache c is rejected: quota",
    )


@pytest.mark.parametrize(
    ("last", "expected"),
    [(None, True), (ago(3600), True), (ago(3599), False)],
    ids=["first-use", "an-hour-later", "within-the-hour"],
)
def test_last_used_is_reported_at_most_hourly(
    world: Any, last: str | None, *, expected: bool
) -> None:
    cache = world.cache(**({} if last is None else {"lastUsed": last}))
    plan = world.plan(projection(*world.parts("ModelCache"), cache))
    assert [r.fields for r in plan.reports if r.key.kind == CACHE.kind] == (
        [{"lastUsed": ago(0)}] if expected else []
    )
    assert plan.requeue_after_s == 3600


def test_last_used_counts_as_soon_as_it_is_reported(world: Any) -> None:
    first = world.plan(projection(*world.parts()))
    reports = [r.message("deployer") for r in first.reports if r.key.kind == CACHE.kind]
    assert [
        r.key.kind for r in world.plan(projection(*world.parts(), reports=reports)).reports
    ] == [SERVICE.kind]


def test_fields_name_template_and_ready_replicas(world: Any) -> None:
    ready = world.pod(status={"conditions": [status_condition("Ready", True)]})
    assert fields(
        world.plan(
            projection(
                *world.parts("ModelCache", cacheModel=False), world.runtime(cached=False), ready
            )
        )
    ) == {
        "resolvedTemplate": "t",
        "readyReplicas": 1,
    }


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('amd: {resource: "r", label: "l", models: {X: [738]}}', "must be quoted"),
        ("amd: {models: {X: ['a']}}", "not a GPU table"),
        ("- a", "not a GPU table"),
        ("[", "not a GPU table"),
    ],
    ids=["unquoted-number", "no-resource", "a-list", "no-yaml"],
)
def test_a_malformed_table_is_rejected(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        gpus.read(text, "mine.yaml")


def test_the_table_is_all_text_and_can_be_extended(tmp_path: Any) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        'x: {resource: "x.io/gpu", label: "x.io/card", models: {X1: ["one"], L4: ["mine"]}}'
    )
    table = gpus.load(str(mine))
    assert (table["X1"].resource, table["L4"].values, table["MI100"].values) == (
        "x.io/gpu",
        ("mine",),
        ("738c", "738e"),
    )
    assert all(isinstance(value, str) for gpu in table.values() for value in gpu.values)


LOOSE: st.SearchStrategy[Body] = st.fixed_dictionaries(
    {},
    optional={
        "conditions": st.sampled_from(
            [
                None,
                [],
                [{}],
                "x",
                [None, {"type": "Ready"}],
                [{"type": "Ready", "status": "True"}],
                [{"type": "CacheReady"}],
            ]
        ),
        "containerStatuses": st.sampled_from(
            [None, [], [{}], [None], [{"name": "kserve-container", "state": {"terminated": {}}}]]
        ),
        "modelStatus": st.sampled_from([None, {}, {"transitionStatus": "InvalidSpec"}]),
        "status": st.sampled_from(["Available", "Failed", "Pending"]),
    },
)


@settings(max_examples=200, deadline=None)
@holds_for(
    status=LOOSE,
    other=LOOSE,
    spec=st.sampled_from(
        [
            {},
            {"predictor": None},
            {"predictor": {"containers": [{}], "volumes": [{}]}},
            {
                "predictor": {
                    "containers": [None, {"env": None, "volumeMounts": [None]}],
                    "volumes": [None, {"persistentVolumeClaim": None}],
                }
            },
            {"predictor": {"containers": "x", "volumes": {"a": 1}}},
        ]
    ),
    data=st.sampled_from(
        [
            None,
            {},
            {"result.json": "x"},
            {"result.json": '{"models": [{"name": "m", "source": "hf://a/b"}]}', "image": "i"},
        ]
    ),
    kinds=st.sets(
        st.sampled_from(
            [
                TEMPLATE.kind,
                "AIMClusterModel",
                CACHE.kind,
                INFERENCE_SERVICE.kind,
                "Pod",
                "ConfigMap",
            ]
        )
    ),
)
def test_malformed_objects_raise_nothing(
    status: Body, other: Body, spec: Body, data: Body | None, kinds: set[str]
) -> None:
    template = {
        "model": "m",
        "metric": "latency",
        "gpusPerReplica": 1,
        "gpuModel": "L4",
        "tensorParallelism": 1,
    }
    bodies = [
        testing.cr(TEMPLATE.kind, "t", template, status=status),
        testing.cr("AIMClusterModel", "m", {"name": "m", "image": "i"}, status=status),
        testing.cr(CACHE.kind, "c", {"sourceUri": "hf://a/b"}, status=other),
        testing.obj(
            INFERENCE_SERVICE.kind, "s", owner=(SERVICE.kind, "s"), spec=spec, status=other
        ),
        testing.obj("ConfigMap", "t-discovery", owner=(TEMPLATE.kind, "t"), data=data),
        pod(
            "p",
            ("Job", "j"),
            "kserve-container",
            labels={"serving.kserve.io/inferenceservice": "s"},
            status=other,
        ),
    ]
    service = testing.cr(SERVICE.kind, "s", {"model": "m", "templateRef": "t"}, status=status)
    state = projection(service, *(body for body in bodies if body["kind"] in kinds))
    assert plan_key(state, Key(SERVICE.kind, NAMESPACE, "s"), NOW, gpus=gpus.load(None)).reports


EVIL = "evil.example/miner:1"
ROLLS_OUT: list[str] = ["apply InferenceService s"]
HOLDS: list[str] = []


@pytest.mark.parametrize(
    ("image", "setup", "actions"),
    [
        pytest.param("example.org/m:1", lambda w: [w.model()], ROLLS_OUT, id="the-model-has-it"),
        pytest.param(
            "example.org/m:1",
            lambda w: [w.model("example.org/m:2"), w.record("example.org/m:1")],
            ROLLS_OUT,
            id="the-model-had-it",
        ),
        pytest.param(
            "example.org/m:1",
            lambda w: [w.model("example.org/m:2"), w.record(image="example.org/m:1")],
            ROLLS_OUT,
            id="recorded-by-a-release-before",
        ),
        pytest.param(
            "example.org/m:1",
            lambda w: [w.model("example.org/m:2"), *w.runs()],
            ROLLS_OUT,
            id="the-service-runs-it",
        ),
        pytest.param(EVIL, lambda w: [w.model()], HOLDS, id="an-unknown-image"),
        pytest.param(EVIL, lambda w: [w.model(), *w.runs()], HOLDS, id="another-one-runs"),
        pytest.param(
            EVIL,
            lambda w: [w.model(), w.record(EVIL, namespace=NAMESPACE)],
            HOLDS,
            id="recorded-in-the-namespace-of-the-service",
        ),
        pytest.param(
            EVIL,
            lambda w: [w.model(), w.record(EVIL, owner="other")],
            HOLDS,
            id="recorded-for-another-model",
        ),
        pytest.param(
            EVIL,
            lambda w: [
                w.model(),
                testing.cr("AIMClusterModel", "o", {"name": "o:1", "image": EVIL}),
            ],
            HOLDS,
            id="another-model-has-it",
        ),
        pytest.param(
            EVIL,
            lambda w: [w.model(), w.record() | {"data": {"images.json": "no json", "image": 7}}],
            HOLDS,
            id="an-unreadable-record",
        ),
    ],
)
def test_an_image_outside_the_catalogue_is_never_rolled_out(
    world: Any, image: str, setup: Setup, actions: list[str]
) -> None:
    state = projection(
        *world.parts("AIMClusterModel", "ConfigMap"), world.result(image=image), *setup(world)
    )
    planned = world.plan(state)
    assert [
        action for action in action_summaries(planned) if "InferenceService" in action
    ] == actions
    if actions == HOLDS:
        assert condition_summary(planned, "Resolved") == "False TemplateNotReady"
        assert message(planned, "Resolved").startswith(
            f"ConfigMap t-discovery names image {EVIL}, which AIMClusterModel with spec.name m:1"
            " neither"
        )


def test_a_change_of_known_images_enqueues_its_services(world: Any) -> None:
    state = projection(*world.parts(), world.record())
    key = Key(CONFIG_MAP.kind, "aim-system", world.record()["metadata"]["name"])
    assert list(map_to_keys(state, key, namespace="aim-system")) == [world.key]
    assert list(map_to_keys(state, key, namespace="other")) == []


def test_a_cache_enqueues_the_services_of_its_source(world: Any) -> None:
    other = world.service("other", templateRef="another", uid="other")
    mounting = world.service("mounting", templateRef="missing", uid="mounting")
    runtime = world.runtime() | {"metadata": {**world.runtime()["metadata"], "name": "mounting"}}
    state = projection(*world.parts(), other, mounting, runtime)
    key = Key(CACHE.kind, NAMESPACE, "c")
    expected = {world.key, Key(SERVICE.kind, NAMESPACE, "mounting")}
    assert set(map_to_keys(state, key)) == expected
    assert set(map_to_keys(drop_object(state, key), key)) == expected - {world.key}
