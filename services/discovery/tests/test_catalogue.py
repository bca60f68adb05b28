"""Actions and conditions for the image of a catalogue entry, and what follows for its templates."""

import datetime
import json
from typing import Any

import msgspec
import pytest

from aim_discovery.actions import InspectImage
from aim_discovery.catalogue import (
    INSPECTION,
    UNSUPPORTED_WAY_OUT,
    WAYS_OUT,
    Inspection,
    plan_model,
)
from aim_discovery.image_labels import Deployment, ImageLabels
from aim_discovery.projection import map_to_keys
from aimcontroller import testing
from aimcontroller.plan import Plan
from aimcontroller.projection import Observation, Projection
from aimcontroller.testing import (
    NAMESPACE,
    NOW,
    Body,
    action_summaries,
    ago,
    applied,
    condition_summary,
    message,
    plain,
    projection,
    rejected,
    status_condition,
)
from aimschema import labels
from aimschema.names import image_config_map
from aimschema.resources import CONFIG, CONFIG_MAP, MODEL, TEMPLATE, Key

OWN = "aim-system"
IMAGE = "example.org/m:1"
KEY = Key(MODEL.kind, None, "m")
FOUND = ImageLabels(
    "m:1", recommended=(Deployment("MI300X", 8, "fp8", "latency"),), title="A model"
)


def model(image: str = IMAGE, name: str = "m", **fields: Any) -> Body:
    return testing.cr(MODEL.kind, name, {"name": "m:1", "image": image}, **fields)


def own_config(*secrets: str) -> Body:
    return testing.cr(
        CONFIG.kind, "default", {"images": {"imagePullSecrets": list(secrets)}}, namespace=OWN
    )


def planned(state: Projection, key: Key = KEY) -> Plan:
    obj = state.get(key)
    assert obj is not None
    return plan_model(state, obj, NOW, OWN)


def inspection_of(*bodies: Body) -> InspectImage:
    """The inspection that the plan for these objects starts."""
    [action] = planned(projection(*bodies)).actions
    assert isinstance(action, InspectImage)
    return action


def inspected(
    action: InspectImage, *, ended_s: float = 1, attempt: int = 1, **outcome: Any
) -> Observation:
    at = NOW - datetime.timedelta(seconds=ended_s)
    return Observation(
        action.model, INSPECTION, Inspection(action.image, action.inputs, attempt, at, **outcome)
    )


def record_of(found: ImageLabels = FOUND, **metadata: Any) -> Body:
    """The ConfigMap that the plan applies after an inspection."""
    entry = model()
    body = plain(
        applied(
            planned(
                projection(
                    entry,
                    observations=[inspected(inspection_of(entry), found=found, digest="sha256:d")],
                )
            ),
            CONFIG_MAP.kind,
        )
    )
    body["metadata"] |= {
        "uid": "kept",
        "resourceVersion": "1",
        "creationTimestamp": ago(60),
        **metadata,
    }
    return body


def test_the_image_of_a_new_entry_is_inspected() -> None:
    plan = planned(projection(model()))
    assert plan.actions == (InspectImage(KEY, IMAGE, (), inspection_of(model()).inputs, 1),)
    assert condition_summary(plan, "ImageInspected") == "Unknown NotInspected"


def test_with_the_pull_secrets_of_the_control_planes_own_config() -> None:
    elsewhere = testing.cr(CONFIG.kind, "default", {"images": {"imagePullSecrets": ["x"]}})
    other = testing.cr(CONFIG.kind, "other", {"images": {"imagePullSecrets": ["y"]}}, namespace=OWN)
    assert inspection_of(model(), elsewhere, other, own_config("a", "b")).pull_secrets == ("a", "b")


def test_the_labels_found_are_recorded_and_reported() -> None:
    plan = planned(
        projection(
            model(),
            observations=[inspected(inspection_of(model()), found=FOUND, digest="sha256:d")],
        )
    )
    assert action_summaries(plan) == [f"apply ConfigMap {image_config_map('m')}"]
    assert condition_summary(plan, "ImageInspected") == "True Inspected"
    assert (
        message(plan, "ImageInspected")
        == "A model: the image recommends MI300X × 8 latency fp8 (sha256:d)"
    )
    body = applied(plan, CONFIG_MAP.kind)
    assert body["metadata"]["namespace"] == OWN
    assert body["metadata"]["ownerReferences"][0]["uid"] == "aimclustermodel-m"
    assert msgspec.json.decode(body["data"]["labels.json"], type=ImageLabels) == FOUND


def test_a_recorded_image_is_not_inspected_again() -> None:
    plan = planned(projection(model(), record_of()))
    assert (action_summaries(plan), condition_summary(plan, "ImageInspected")) == (
        [],
        "True Inspected",
    )
    assert message(plan, "ImageInspected").endswith("(sha256:d)")


@pytest.mark.parametrize(
    "bodies",
    [
        pytest.param([model("example.org/m:2")], id="another-image"),
        pytest.param([model(annotations={labels.ANNOTATION_RETRY: "1"})], id="retry-requested"),
        pytest.param([model(), own_config("a")], id="another-pull-secret"),
    ],
)
def test_other_inputs_are_inspected_at_once(bodies: list[Body]) -> None:
    failed = inspected(inspection_of(model()), attempt=9, reason="ImageNotFound", message="no")
    [action] = planned(projection(*bodies, record_of(), observations=[failed])).actions
    assert isinstance(action, InspectImage)
    assert (action.image, action.attempt) == (bodies[0]["spec"]["image"], 1)


@pytest.mark.parametrize("data", [{}, None, {"labels.json": "{"}], ids=str)
def test_a_spoilt_note_counts_for_nothing(data: Body | None) -> None:
    assert isinstance(
        planned(projection(model(), record_of() | {"data": data})).actions[0], InspectImage
    )


def test_a_record_of_another_owner_does_not_count() -> None:
    assert isinstance(
        planned(projection(model(), record_of(ownerReferences=[]))).actions[0], InspectImage
    )


def test_nor_one_of_another_namespace() -> None:
    assert isinstance(
        planned(projection(model(), record_of(namespace=NAMESPACE))).actions[0], InspectImage
    )


@pytest.mark.parametrize(
    ("reason", "attempt", "retry_after_s", "wait_s"),
    [
        ("ImageNotFound", 1, 0, 600),
        ("ImageNotFound", 9, 0, 600),
        ("AuthError", 1, 0, 5),
        ("RegistryUnreachable", 2, 0, 10),
        ("RegistryUnreachable", 2, 120, 120),
        ("MetadataMissing", 5, 0, 80),
        ("AuthError", 8, 0, 600),
        ("AuthError", 500, 0, 600),
    ],
)
def test_a_failure_is_reported_with_its_next_attempt(
    reason: str, attempt: int, retry_after_s: float, wait_s: float
) -> None:
    outcome: dict[str, Any] = {
        "reason": reason,
        "message": "because",
        "attempt": attempt,
        "retry_after_s": retry_after_s,
    }
    action = inspection_of(model())
    waiting = planned(projection(model(), observations=[inspected(action, **outcome)]))
    assert (action_summaries(waiting), waiting.requeue_after_s) == ([], wait_s - 1)
    assert condition_summary(waiting, "ImageInspected") == f"False {reason}"
    assert (
        message(waiting, "ImageInspected")
        == f"try {attempt}, next at {ago(1 - wait_s)}: because{WAYS_OUT.get(reason, '')}"
    )
    due = planned(projection(model(), observations=[inspected(action, ended_s=wait_s, **outcome)]))
    assert due.actions == (InspectImage(KEY, IMAGE, (), action.inputs, attempt + 1),)
    assert condition_summary(due, "ImageInspected") == f"False {reason}", (
        "it is reported until the next attempt has ended"
    )


def test_a_known_cause_comes_before_general_advice() -> None:
    failed = inspected(
        inspection_of(model()),
        reason="RegistryUnreachable",
        message="the certificate of r does not verify",
        way_out="; set AIM_CA_BUNDLE",
    )
    reported = message(planned(projection(model(), observations=[failed])), "ImageInspected")
    assert reported.endswith(": the certificate of r does not verify; set AIM_CA_BUNDLE")


NOT_FOUND = status_condition("ImageInspected", False, "ImageNotFound", "try 3")


@pytest.mark.parametrize(
    ("condition", "generation", "expected"),
    [
        pytest.param(NOT_FOUND, 1, "False ImageNotFound", id="of-this-image"),
        pytest.param(NOT_FOUND, 2, "Unknown NotInspected", id="of-a-former-image"),
        pytest.param(
            status_condition("ImageInspected", False, "DuplicateName"),
            1,
            "Unknown NotInspected",
            id="no-longer-a-duplicate",
        ),
        pytest.param({"type": "ImageInspected"}, 1, "Unknown NotInspected", id="half-filled"),
    ],
)
def test_after_a_restart_the_previous_condition_is_repeated(
    condition: Body, generation: int, expected: str
) -> None:
    assert (
        condition_summary(
            planned(projection(model(status={"conditions": [condition]}, generation=generation))),
            "ImageInspected",
        )
        == expected
    )


@pytest.mark.parametrize(
    ("name", "inspected"), [("m", "Unknown NotInspected"), ("younger", "False DuplicateName")]
)
def test_of_two_entries_of_one_name_the_older_counts(name: str, inspected: str) -> None:
    plan = planned(
        projection(model(), model(name="younger", age_s=10)), Key(MODEL.kind, None, name)
    )
    assert condition_summary(plan, "ImageInspected") == inspected
    assert bool(plan.actions) is (name == "m"), "the image of the newer one is not inspected"


def test_a_rejected_record_is_reported() -> None:
    found = inspected(inspection_of(model()), found=FOUND, digest="sha256:d")
    plan = planned(
        projection(
            model(), observations=[found, rejected(KEY, Key(CONFIG_MAP.kind, OWN, "image-m"))]
        )
    )
    assert condition_summary(plan, "ImageInspected") == "True Inspected"
    assert (
        "cannot be stored: ConfigMap image-m is rejected by the API server: quota exceeded"
        in message(plan, "ImageInspected")
    )


def missing(image: str = IMAGE) -> Observation:
    return inspected(inspection_of(model(image)), reason="ImageNotFound", message="no")


def tried(due_s: float) -> Body:
    """The status after a failed attempt, with the next one due since this many seconds."""
    return {
        "attempts": 1,
        "nextAttemptTime": ago(due_s),
        "conditions": [status_condition("Discovered", False, "DiscoveryFailed", "it broke")],
    }


TEMPLATE_STEPS = [
    pytest.param(
        lambda w: ([w.template(), w.model()], [missing()]),
        [],
        "False AwaitingDiscovery",
        id="not-begun",
    ),
    pytest.param(
        lambda w: ([w.template(status=tried(-60)), w.model(), w.note()], [missing()]),
        [],
        "False DiscoveryFailed",
        id="a-failed-try-waits-as-it-would",
    ),
    pytest.param(
        lambda w: ([w.template(status=tried(1)), w.model(), w.note()], [missing()]),
        [],
        "False AwaitingDiscovery",
        id="a-try-is-due",
    ),
    pytest.param(
        lambda w: ([w.template(), w.model(), w.job()], [missing()]),
        ["delete Job"],
        "False AwaitingDiscovery",
        id="job-without-a-pod-is-deleted",
    ),
    pytest.param(
        lambda w: ([w.template(), w.model(), w.job(), w.pod("Pending")], [missing()]),
        ["delete Job"],
        "False AwaitingDiscovery",
        id="pod-cannot-start",
    ),
    pytest.param(
        lambda w: ([w.template(), w.model(), w.job(), w.pod("Running")], [missing()]),
        [],
        "Unknown AwaitingDiscovery",
        id="running-stays",
    ),
    pytest.param(
        lambda w: ([w.template(), w.model(), w.job(), w.pod("Succeeded", 0)], [missing()]),
        ["read log of"],
        "Unknown AwaitingDiscovery",
        id="just-answered-stays",
    ),
    pytest.param(
        lambda w: ([w.template(), w.model(), w.note(answered=True)], [missing()]),
        ["apply ConfigMap"],
        "True ProfilesDiscovered",
        id="answered-already",
    ),
    pytest.param(
        lambda w: (
            [w.template(), w.model("example.org/m:2"), w.note(answered=True)],
            [missing("example.org/m:2")],
        ),
        [],
        "True ProfilesDiscovered",
        id="earlier-answer-in-force",
    ),
    pytest.param(
        lambda w: ([w.template(), w.model("example.org/m:2")], [missing()]),
        ["apply ConfigMap", "apply Job"],
        "Unknown AwaitingDiscovery",
        id="other-image",
    ),
    pytest.param(
        lambda w: (
            [w.template(), w.model()],
            [inspected(inspection_of(model()), reason="AuthError", message="no")],
        ),
        ["apply ConfigMap", "apply Job"],
        "Unknown AwaitingDiscovery",
        id="any-other-failure-blocks-nothing",
    ),
    pytest.param(
        lambda w: ([w.template(), w.model(status={"conditions": [NOT_FOUND]})], []),
        [],
        "False AwaitingDiscovery",
        id="by-status-alone",
    ),
    pytest.param(
        lambda w: ([w.template(), w.model(status={"conditions": [NOT_FOUND]}, generation=2)], []),
        ["apply ConfigMap", "apply Job"],
        "Unknown AwaitingDiscovery",
        id="by-status-of-another-image",
    ),
]


@pytest.mark.parametrize(("setup", "actions", "discovered"), TEMPLATE_STEPS)
def test_a_missing_image_stops_templates_without_a_result(
    world: Any, setup: Any, actions: list[str], discovered: str
) -> None:
    bodies, observations = setup(world)
    plan = world.plan(projection(*bodies, observations=observations))
    assert (
        [action.rpartition(" ")[0] for action in action_summaries(plan)],
        condition_summary(plan, "Discovered"),
    ) == (
        actions,
        discovered,
    )


def test_the_template_names_entry_and_image(world: Any) -> None:
    reported = message(
        world.plan(projection(world.template(), world.model(), observations=[missing()])),
        "Discovered",
    )
    assert "image example.org/m:1 of AIMClusterModel m is not found" in reported


def warned(plan: Plan) -> list[tuple[str, str]]:
    return [(each.reason, each.message) for report in plan.reports for each in report.warnings]


@pytest.mark.parametrize(
    ("recommended", "fits"),
    [
        pytest.param((Deployment("MI300X", 8, "fp8", "latency"),), True, id="supported"),
        pytest.param((Deployment("MI325X"), Deployment("MI300X", 8)), True, id="one-of-two"),
        pytest.param((Deployment("MI325X", 8, "fp8", "latency"),), False, id="another-gpu"),
        pytest.param((Deployment("MI300X", 1, "fp8", "latency"),), False, id="another-count"),
        pytest.param((), True, id="none-recommended"),
    ],
)
def test_an_unsupported_template_gets_a_warning(
    world: Any, recommended: tuple[Deployment, ...], *, fits: bool
) -> None:
    """In whatever state it is, and with the words in the condition, by which the statuswriter
    knows that they have been sent."""
    note = record_of(ImageLabels("m:1", recommended=recommended))
    for bodies in ([], [world.note(), world.job("failed")], [world.note(answered=True)]):
        plan = world.plan(projection(world.template(), world.model(), note, *bodies))
        assert [reason for reason, _ in warned(plan)] == ([] if fits else ["UnsupportedProfile"])
        assert all(text in message(plan, "Discovered") for _, text in warned(plan))


def test_the_warning_names_the_profile_and_the_supported_ones(world: Any) -> None:
    plan = world.plan(
        projection(
            world.template(),
            world.model(),
            record_of(ImageLabels("m:1", recommended=(Deployment("MI325X", 1, "fp8", "latency"),))),
        )
    )
    text = "the image does not recommend MI300X × 8 latency auto, but MI325X × 1 latency fp8"
    assert warned(plan) == [("UnsupportedProfile", text + UNSUPPORTED_WAY_OUT)]


def test_labels_of_a_former_image_cause_no_warning(world: Any) -> None:
    note = record_of(ImageLabels("m:1", recommended=(Deployment("MI325X"),)))
    assert (
        warned(world.plan(projection(world.template(), world.model("example.org/m:2"), note))) == []
    )


def test_a_failed_discovery_of_a_changed_image_is_worth_an_event(world: Any) -> None:
    changed = world.model("example.org/m:2")
    name = applied(world.plan(projection(world.template(), changed)), "Job")["metadata"]["name"]
    failed = testing.job(name, world.owner, "failed")
    plan = world.plan(projection(world.template(), changed, world.note(answered=True), failed))
    assert condition_summary(plan, "Discovered") == "True ProfilesDiscovered"
    [(reason, text)] = warned(plan)
    assert reason == "DiscoveryFailed"
    assert text in message(plan, "Discovered")


def test_which_keys_are_enqueued(world: Any) -> None:
    state = projection(world.model(), world.template(), record_of(), own_config("a"))
    template = Key(TEMPLATE.kind, NAMESPACE, "t")
    assert set(
        map_to_keys(state, Key(CONFIG_MAP.kind, OWN, image_config_map("m")), namespace=OWN)
    ) == {
        KEY,
        template,
    }
    assert set(map_to_keys(state, Key(CONFIG.kind, OWN, "default"), namespace=OWN)) == {KEY}
    assert set(map_to_keys(state, Key(CONFIG.kind, NAMESPACE, "default"), namespace=OWN)) == {
        template
    }


def recorded(body: Body) -> list[str]:
    images: list[str] = json.loads(body["data"]["images.json"])
    return images


def as_existing(body: Body) -> Body:
    """What was applied, as the API serves it."""
    return {
        **plain(body),
        "metadata": {
            **body["metadata"],
            "uid": "kept",
            "resourceVersion": "1",
            "creationTimestamp": ago(60),
        },
    }


def test_the_images_that_a_model_had_are_recorded() -> None:
    """The first is the image whose labels are recorded, as an earlier release recorded them. Of
    too many images the oldest are dropped."""
    record = record_of()
    assert "images.json" not in record["data"]
    for number in range(2, 40):
        changed = model(f"example.org/m:{number}")
        action = inspection_of(changed, record)
        record = as_existing(
            applied(
                planned(projection(changed, record, observations=[inspected(action, found=FOUND)])),
                CONFIG_MAP.kind,
            )
        )
        assert recorded(record) == [
            f"example.org/m:{each}" for each in range(max(1, number - 31), number + 1)
        ]


def test_a_changed_image_is_recorded_without_an_inspection() -> None:
    failed = inspected(inspection_of(model()), reason="AuthError", message="no")
    plan = planned(projection(model("example.org/m:2"), observations=[failed]))
    assert action_summaries(plan)[1:] == [f"apply ConfigMap {image_config_map('m')}"]
    record = as_existing(applied(plan, CONFIG_MAP.kind))
    assert recorded(record) == [IMAGE, "example.org/m:2"]
    assert (
        len(planned(projection(model("example.org/m:2"), record, observations=[failed])).actions)
        == 1
    )


def test_recording_an_image_leaves_the_labels_of_another() -> None:
    record = record_of()
    failed = inspected(inspection_of(model("example.org/m:2")), reason="AuthError", message="no")
    body = applied(
        planned(projection(model("example.org/m:3"), record, observations=[failed])),
        CONFIG_MAP.kind,
    )
    assert recorded(body) == [IMAGE, "example.org/m:2", "example.org/m:3"]
    assert body["data"] | {"images.json": ""} == record["data"] | {"images.json": ""}
    assert body["metadata"]["annotations"] == record["metadata"]["annotations"]
