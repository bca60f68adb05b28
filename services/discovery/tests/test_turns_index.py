"""The templates that wait for a turn are found without a scan of all, and are those that a scan
finds."""

import datetime
from collections import Counter, defaultdict
from itertools import chain, zip_longest
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_discovery.catalogue import INSPECTION, Inspection, missing_image
from aim_discovery.projection import map_to_keys
from aim_discovery.render import CONTAINER
from aim_discovery.turns import (
    MOST_AT_ONCE,
    MOST_OF_A_NAMESPACE,
    WOKEN_AT_ONCE,
    at_work_by_namespace,
    blocking_reason,
    is_ours,
    next_turns,
)
from aim_testing.steps import counted_steps
from aimcontroller import testing
from aimcontroller.indexes import JOBS_BY_COMPONENT
from aimcontroller.projection import (
    REJECTED,
    KubeObject,
    Observation,
    Projection,
    clear_observations,
    drop_object,
    drop_reports,
    fold,
)
from aimcontroller.queries import models_named, previous_discovery
from aimcontroller.testing import NOW, Body, ago, projection, rejected
from aimcontroller.workloads import outcome
from aimschema import labels
from aimschema.messages import ObjectChanged, ReportedCondition, StatusReported, parse_timestamp
from aimschema.reasons import DISCOVERY, IMAGE_NOT_FOUND
from aimschema.resources import CONFIG_MAP, JOB, MODEL, TEMPLATE, Key

OURS = {labels.COMPONENT: "discovery", labels.MANAGED_BY: "aim"}
NAMESPACES = ["a", "b", "c", "d"]
NAMES = ["p", "q", "r", "s", "t"]
MODELS = ["m:1", "m:2", "unknown"]
IMAGES = ["example.org/m:1", "example.org/m:2"]
PAST_AND_FUTURE = [None, ago(60), ago(-60), "soon", "2026-01-01T00:00:00"]


def template(namespace: str, name: str, model: str = "m:1", **fields: Any) -> Body:
    spec = {
        "model": model,
        "metric": "latency",
        "precision": "auto",
        "gpusPerReplica": 8,
        "gpuModel": "MI300X",
        "tensorParallelism": 8,
    }
    uid = f"template-{namespace}-{name}"
    return testing.cr(TEMPLATE.kind, name, spec, namespace=namespace, uid=uid, **fields)


def owned(kind: str, namespace: str, of: str, name: str, **fields: Any) -> Body:
    body = testing.obj(kind, name, namespace=namespace, owner=(TEMPLATE.kind, of), **fields)
    body["metadata"]["ownerReferences"][0]["uid"] = f"template-{namespace}-{of}"
    return body


def job(namespace: str, of: str, **fields: Any) -> Body:
    name = f"discover-{of}-0123abcd"
    uid = f"job-{namespace}-{of}"
    return owned(JOB.kind, namespace, of, name, uid=uid, labels=OURS, age_s=20, **fields)


def answer(namespace: str, of: str, image: object = IMAGES[0]) -> Body:
    return owned(CONFIG_MAP.kind, namespace, of, f"{of}-discovery", data={"image": image})


def model(name: str, image: str = IMAGES[0], **fields: Any) -> Body:
    spec = {"name": name, "image": image}
    return testing.cr(MODEL.kind, name.replace(":", "-"), spec, **fields)


def reported(namespace: str, name: str, reason: str, due: str | None = None) -> StatusReported:
    status = "True" if reason == "ProfilesDiscovered" else "False"
    return StatusReported(
        kind=TEMPLATE.kind,
        namespace=namespace,
        name=name,
        uid=f"template-{namespace}-{name}",
        service=DISCOVERY,
        observed_generation=1,
        conditions=(ReportedCondition(type="Discovered", status=status, reason=reason),),
        fields={} if due is None else {"nextAttemptTime": due},
    )


def scanned_waits(
    state: Projection, template: KubeObject, now: datetime.datetime | None = None
) -> bool:
    """Whether a template would start a discovery in its turn. Without `now`, one that has failed
    before does not count."""
    if template.deleting or state.observation(template.key, REJECTED) is not None:
        return False
    if any(not each.deleting for each in state.owned(template.uid, JOB.kind, template.key[1])):
        return False
    report = state.report(template.key, DISCOVERY)
    due = (template.status if report is None else report.fields).get("nextAttemptTime")
    if due is not None and (now is None or not is_past(due, now)):
        return False
    entry = next(iter(models_named(state, str(template.spec.get("model")))), None)
    if entry is not None and missing_image(state, entry):
        return False
    is_asking = report is not None and report.conditions[0].reason == "AwaitingDiscovery"
    record = previous_discovery(state, template)
    image = None if record is None else (record.body.get("data") or {}).get("image")
    return is_asking or (entry is not None and image != entry.spec["image"])


def is_past(text: str, now: datetime.datetime) -> bool:
    try:
        return parse_timestamp(text) <= now
    except (ValueError, TypeError):
        return True


def scanned_block(state: Projection, of: KubeObject) -> bool:
    """Whether a template has to wait."""
    at_work = at_work_by_namespace(state, NOW)
    own = of.key.namespace
    mine, total = at_work.get(own, 0), sum(at_work.values())
    others = [each for each in state.in_all_namespaces(TEMPLATE.kind) if each.key.namespace != own]
    waiting = {each.key.namespace for each in others if scanned_waits(state, each, NOW)}
    fewer = [each for each in waiting if at_work.get(each, 0) < mine]
    is_share_used = mine > 0 and bool(waiting) and mine >= MOST_OF_A_NAMESPACE
    return (
        total >= MOST_AT_ONCE or is_share_used or (mine > 0 and MOST_AT_ONCE - total <= len(fewer))
    )


def scanned_turns(state: Projection) -> list[Key]:
    waiting: dict[str, list[KubeObject]] = defaultdict(list)
    for each in state.in_all_namespaces(TEMPLATE.kind):
        if scanned_waits(state, each):
            waiting[each.key.namespace or ""].append(each)
    found = state.find(JOBS_BY_COMPONENT, labels.COMPONENT_DISCOVERY)
    jobs = [each for each in found if is_ours(state, each)]
    active = Counter(
        each.key.namespace
        for each in jobs
        if not each.deleting and outcome(state, each, CONTAINER) == "active"
    )
    last = (jobs[-1].key.namespace or "") if jobs else ""
    order = sorted(waiting, key=lambda each: (active[each], each <= last, each))
    lanes = (
        sorted(waiting[namespace], key=lambda each: (each.creation_timestamp, each.key))
        for namespace in order
    )
    turns = (each.key for each in chain.from_iterable(zip_longest(*lanes)) if each is not None)
    return list(turns)[:WOKEN_AT_ONCE]


CELL = st.tuples(st.sampled_from(NAMESPACES), st.sampled_from(NAMES))
KEYS = CELL.map(lambda cell: Key(TEMPLATE.kind, *cell))
EDITS = st.builds(
    lambda cell, of, **fields: template(cell[0], cell[1], of, **fields),
    CELL,
    st.sampled_from(MODELS),
    age_s=st.integers(0, 90),
    deleting=st.booleans(),
    status=st.sampled_from([{}, {"nextAttemptTime": ago(60)}, {"nextAttemptTime": ago(-60)}]),
)
COMPLETE = {"conditions": [{"type": "Complete", "status": "True"}]}
JOBS = st.builds(
    job,
    st.sampled_from([*"aaaa", *NAMESPACES]),
    st.sampled_from(NAMES),
    deleting=st.sampled_from([False, False, False, True]),
    status=st.sampled_from([{}, {}, {}, COMPLETE]),
)
ANSWERS = st.builds(
    lambda cell, image: answer(cell[0], cell[1], image),
    CELL,
    st.sampled_from([*IMAGES, "", None, 7]),
)
CATALOGUE = st.builds(
    model, st.sampled_from(MODELS[:2]), st.sampled_from(IMAGES), deleting=st.booleans()
)
REPORTS = st.builds(
    lambda cell, reason, due: reported(cell[0], cell[1], reason, due),
    CELL,
    st.sampled_from(["AwaitingDiscovery", "ProfilesDiscovered", "DiscoveryFailed"]),
    st.sampled_from(PAST_AND_FUTURE),
)
REJECTIONS = st.one_of(
    KEYS.map(lambda key: rejected(key, key)), KEYS.map(lambda key: Observation(key, REJECTED, None))
)
INSPECTIONS = st.builds(
    lambda name, image: Observation(
        Key(MODEL.kind, None, name),
        INSPECTION,
        Inspection(image, "", 1, NOW, reason=IMAGE_NOT_FOUND),
    ),
    st.sampled_from(["m-1", "m-2"]),
    st.sampled_from(IMAGES),
)
BEGINNINGS = st.lists(CELL, min_size=10, max_size=20, unique=True).map(
    lambda cells: [model("m:1"), model("m:2"), *(template(*cell) for cell in cells)]
)
CHANGES = st.builds(
    lambda *parts: [change for part in parts for change in part],
    BEGINNINGS,
    *(st.lists(each, max_size=8) for each in (ANSWERS, REPORTS, REJECTIONS)),
    st.lists(JOBS, max_size=10) | st.lists(JOBS, min_size=6, max_size=20),
    *(st.lists(each, max_size=2) for each in (EDITS, CATALOGUE, ANSWERS, INSPECTIONS)),
)
"""Of a cluster with templates, in the order in which they happen."""


def versioned(body: Body, version: int) -> ObjectChanged:
    metadata = body["metadata"] | {"resourceVersion": str(version)}
    return testing.changed(body | {"metadata": metadata})


def after(changes: list[Any], dropped: list[Key], *, is_new_term: bool) -> Projection:
    """`dropped`: templates whose last report and answer are forgotten, some with their object."""
    state = Projection()
    for version, change in enumerate(changes, start=1):
        event = versioned(change, version) if isinstance(change, dict) else change
        state = fold(state, event, version)
    state = drop_reports(state, [(key, DISCOVERY) for key in dropped])
    for key in dropped:
        record = Key(CONFIG_MAP.kind, key.namespace, f"{key.name}-discovery")
        state = drop_object(drop_object(state, record), key if key.name in "pqr" else record)
    return clear_observations(state) if is_new_term else state


@settings(max_examples=300)
@given(CHANGES, st.lists(KEYS, max_size=6), st.booleans())
def test_the_index_gives_what_a_scan_gives(
    changes: list[Any], dropped: list[Key], is_new_term: bool
) -> None:
    state = after(changes, dropped, is_new_term=is_new_term)
    assert next_turns(state) == scanned_turns(state)
    assert len(state.unanswered) <= len(list(state.in_all_namespaces(TEMPLATE.kind)))
    for each in state.in_all_namespaces(TEMPLATE.kind):
        assert bool(blocking_reason(state, each, NOW)) == scanned_block(state, each)


def answered(namespace: str) -> list[Body]:
    return [template(namespace, "t"), answer(namespace, "t")]


def waiting(namespace: str) -> list[Body]:
    return [template(namespace, "t")]


def failed(namespace: str) -> list[Body]:
    due = {"attempts": 1, "nextAttemptTime": ago(-60)}
    return [template(namespace, "t", status=due), answer(namespace, "t", "")]


def of_a_missing_image(namespace: str) -> list[Body]:
    return [template(namespace, "t", "m:2")]


def steps_of_a_turn(others: list[list[Body]], observations: list[Observation]) -> int:
    """Of the end of a discovery, while all turns of a namespace are taken and another waits."""
    running = [
        body
        for number in range(MOST_OF_A_NAMESPACE)
        for body in (template("r", f"r{number}"), job("r", f"r{number}"))
    ]
    missing = {
        "conditions": [
            {"type": "ImageInspected", "reason": IMAGE_NOT_FOUND, "observedGeneration": 1}
        ]
    }
    catalogue = [model("m:1"), model("m:2", IMAGES[1], status=missing)]
    bodies = [*catalogue, *running, template("r", "next"), *chain.from_iterable(others)]
    state = projection(*bodies, observations=observations)
    blocked = state.get(Key(TEMPLATE.kind, "r", "next"))
    assert blocked is not None
    with counted_steps() as steps:
        list(map_to_keys(state, Key(JOB.kind, "r", "discover-r0-0123abcd"), namespace="aim-system"))
        blocking_reason(state, blocked, NOW)
    return steps.count


@pytest.mark.parametrize("of", [answered, waiting, failed, of_a_missing_image])
def test_a_turn_costs_the_same_with_more_namespaces(of: Any) -> None:
    few, many = (
        steps_of_a_turn([of(f"n{number:03}") for number in range(count)], []) for count in (40, 200)
    )
    assert many <= few * 1.05


def test_rejected_templates_cost_nothing() -> None:
    few, many = (
        steps_of_a_turn(
            [waiting(f"n{number:03}") for number in range(count)],
            [
                rejected(
                    Key(TEMPLATE.kind, f"n{number:03}", "t"), Key(JOB.kind, None, "j"), "quota"
                )
                for number in range(count)
            ],
        )
        for count in (40, 200)
    )
    assert many <= few * 1.05
