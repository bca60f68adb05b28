"""The state built from events: the same for any order, with duplicates and late events."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, reduce
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from aimcontroller.indexes import INDEXES, MOST_VALUES, TEMPLATES_BY_SOURCE, Index
from aimcontroller.projection import (
    MAX_TOMBSTONES,
    REJECTED,
    KubeObject,
    Observation,
    Projection,
    changed_from_response,
    drop_object,
    drop_reports,
    fold,
    reset_report_order,
)
from aimschema.discovery_result import digest
from aimschema.labels import ANNOTATION_DIGEST, COMPONENT, KSERVE_ISVC_LABEL, WORKLOAD_ID
from aimschema.messages import ActionTaken, KindSynced, ObjectChanged, ObjectDeleted, StatusReported
from aimschema.resources import Key

POD, JOB = Key("Pod", "ml", "p"), Key("Job", "ml", "j")
KEYS = [
    POD,
    JOB,
    Key("Pod", "ml", "q"),
    Key("Pod", "other", "p"),
    Key("AIMClusterModel", None, "m"),
]
OWNERS = ["owner-1", "owner-2"]


@dataclass(frozen=True)
class Numbered:
    seq: int
    event: ObjectChanged | ObjectDeleted


def body(
    key: Key, uid: str, version: int, owners: Sequence[str] = (), **more: Any
) -> dict[str, Any]:
    references = [
        {"apiVersion": "v1", "kind": "Job", "name": owner, "uid": owner} for owner in owners
    ]
    metadata = {
        "name": key.name,
        "uid": uid,
        "resourceVersion": str(version),
        "creationTimestamp": f"2026-01-01T00:00:{version:02}Z",
    }
    scope = {} if key.namespace is None else {"namespace": key.namespace}
    return {
        "apiVersion": "v1",
        "kind": key.kind,
        "metadata": metadata | scope | ({"ownerReferences": references} if references else {}),
        **more,
    }


def changed(
    key: Key, uid: str, version: int, owners: Sequence[str] = (), **more: Any
) -> ObjectChanged:
    return ObjectChanged(
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        uid=uid,
        resource_version=str(version),
        object=body(key, uid, version, owners, **more),
    )


def deleted(key: Key, uid: str, version: int) -> ObjectDeleted:
    return ObjectDeleted(
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        uid=uid,
        resource_version=str(version),
        object=body(key, uid, version),
    )


@st.composite
def histories(draw: st.DrawFn) -> list[Numbered]:
    """What a cluster went through: objects made, changed, deleted and made again, each step with
    the next resourceVersion."""
    living: dict[Key, str] = {}
    history: list[Numbered] = []
    steps = draw(
        st.lists(
            st.tuples(st.sampled_from(KEYS), st.booleans(), st.sets(st.sampled_from(OWNERS))),
            max_size=14,
        )
    )
    for version, (key, delete, owners) in enumerate(steps, start=1):
        if delete and key in living:
            history.append(Numbered(version, deleted(key, living.pop(key), version)))
        else:
            uid = living.setdefault(key, f"uid-{version}")
            history.append(Numbered(version, changed(key, uid, version, sorted(owners))))
    return history


def folded(events: Sequence[Numbered], start: Projection | None = None) -> Projection:
    state = Projection() if start is None else start
    for numbered in events:
        state = fold(state, numbered.event, numbered.seq)
    return state


def objects_of(state: Projection) -> dict[Key, KubeObject]:
    return {obj.key: obj for obj in state.all_objects()}


def living_in(history: Sequence[Numbered]) -> dict[Key, str]:
    """What the cluster has in the end, by plain bookkeeping."""
    living: dict[Key, str] = {}
    for numbered in history:
        event = numbered.event
        key = Key(event.kind, event.namespace, event.name)
        if isinstance(event, ObjectDeleted):
            del living[key]
        else:
            living[key] = event.resource_version
    return living


@given(histories())
def test_in_order_the_state_is_that_of_the_cluster(history: list[Numbered]) -> None:
    assert {key: str(obj.version) for key, obj in objects_of(folded(history)).items()} == living_in(
        history
    )


@given(histories().flatmap(lambda history: st.tuples(st.just(history), st.permutations(history))))
def test_in_any_order_the_state_is_the_same(both: tuple[list[Numbered], list[Numbered]]) -> None:
    history, shuffled = both
    assert objects_of(folded(shuffled)) == objects_of(folded(history))


@given(
    histories().flatmap(
        lambda history: st.tuples(
            st.just(history),
            st.lists(st.sampled_from(history or [Numbered(1, changed(POD, "u", 1))]), max_size=8),
        )
    )
)
def test_doubles_and_latecomers_change_nothing(both: tuple[list[Numbered], list[Numbered]]) -> None:
    history, again = both
    once = folded(history)
    late = [numbered for numbered in again if numbered in history]
    assert objects_of(folded(late, once)) == objects_of(once)


def flood(kind: str, first: int, count: int) -> list[ObjectDeleted]:
    """Deletions of foreign objects, from this version on."""
    return [
        deleted(Key(kind, "ci", f"job-{version}"), f"uid-{version}", version)
        for version in range(first, first + count)
    ]


@cache
def flooded() -> Projection:
    """As many deletions are remembered as can be: with the next the older half is forgotten."""
    return reduce(
        fold,
        [
            event
            for kind in ("Pod", "Job", "AIMClusterModel")
            for event in flood(kind, 1, 2 * MAX_TOMBSTONES)
        ],
        Projection(),
    )


def later(numbered: Numbered) -> Numbered:
    """The same after all that is in `flooded()`."""
    event, version = numbered.event, int(numbered.event.resource_version) + 2 * MAX_TOMBSTONES
    metadata = {**event.object["metadata"], "resourceVersion": str(version)}
    return Numbered(
        numbered.seq,
        structs.replace(
            event, resource_version=str(version), object={**event.object, "metadata": metadata}
        ),
    )


@settings(max_examples=25)
@given(histories().flatmap(lambda history: st.tuples(st.just(history), st.permutations(history))))
def test_order_does_not_matter_while_tombstones_expire(
    both: tuple[list[Numbered], list[Numbered]],
) -> None:
    history, shuffled = ([later(numbered) for numbered in events] for events in both)
    assert (
        objects_of(folded(shuffled, flooded()))
        == objects_of(folded(history, flooded()))
        == objects_of(folded(history))
    )
    assert objects_of(folded(shuffled[:5], folded(history, flooded()))) == objects_of(
        folded(history)
    )


def test_deletions_of_foreign_objects_do_not_grow_without_end() -> None:
    state = reduce(fold, flood("Job", 1, 7 * MAX_TOMBSTONES), Projection())
    assert (
        MAX_TOMBSTONES
        <= sum(len(of_a_kind) for of_a_kind in state._deletions.values())
        <= 2 * MAX_TOMBSTONES
    )


LAST = 4 * MAX_TOMBSTONES


@pytest.mark.parametrize(
    ("event", "seq", "known"),
    [
        pytest.param(changed(POD, "u", 1), 3, False, id="another-kinds-deletion-is-remembered"),
        pytest.param(
            changed(Key("Job", "ci", f"job-{LAST}"), "u", LAST - 1),
            3,
            False,
            id="the-newest-deletion-is-remembered",
        ),
        pytest.param(
            changed(Key("Job", "ci", f"job-{LAST - MAX_TOMBSTONES + 1}"), "u", 1),
            3,
            False,
            id="so-are-as-many-as-promised",
        ),
        pytest.param(
            changed_from_response(body(Key("Job", "ci", "job-5"), "u", 4)),
            0,
            False,
            id="the-late-response-to-a-write-of-a-deleted-object",
        ),
        pytest.param(changed(JOB, "u", 2), 3, True, id="a-quiet-object"),
        pytest.param(changed(JOB, "u", LAST + 1), 3, True, id="a-new-object"),
        pytest.param(
            changed_from_response(body(JOB, "u", LAST + 1)), 0, True, id="the-answer-to-a-write"
        ),
    ],
)
def test_what_is_known_after_many_deletions(event: ObjectChanged, seq: int, known: bool) -> None:
    state = reduce(fold, [deleted(POD, "u", 2), *flood("Job", 1, LAST)], Projection())
    assert (
        fold(state, event, seq).get(Key(event.kind, event.namespace, event.name)) is not None
    ) is known


@given(histories())
def test_the_end_of_a_history_gives_the_same_state(history: list[Numbered]) -> None:
    """A follower of AIM_STATE sees the last message of each subject only."""
    last = {(n.event.kind, n.event.namespace, n.event.name): n for n in history}
    assert objects_of(folded(list(last.values()))) == objects_of(folded(history))


@given(
    histories().flatmap(
        lambda history: st.tuples(
            st.permutations(history), st.lists(st.sampled_from(KEYS), max_size=3)
        )
    )
)
def test_an_object_owns_what_refers_to_it(both: tuple[list[Numbered], list[Key]]) -> None:
    shuffled, swept = both
    state = folded(shuffled)
    for key in swept:
        state = drop_object(state, key)
    for uid in OWNERS:
        for kind, namespace in {(key.kind, key.namespace) for key in KEYS}:
            expected = {obj.key for obj in state.in_namespace(kind, namespace) if uid in obj.owners}
            assert {obj.key for obj in state.owned(uid, kind, namespace)} == expected


@given(histories())
def test_the_views_agree(history: list[Numbered]) -> None:
    state = folded(history)
    for obj in state.all_objects():
        assert state.get(obj.key) == obj
        assert obj in list(state.in_namespace(obj.key.kind, obj.key.namespace))
        assert obj in list(state.in_all_namespaces(obj.key.kind))
    assert {
        p.key for kind in {key.kind for key in KEYS} for p in state.in_all_namespaces(kind)
    } == set(objects_of(state))


@given(histories())
def test_folding_leaves_the_projection_before_as_it_was(history: list[Numbered]) -> None:
    state = folded(history[: len(history) // 2])
    before = objects_of(state)
    folded(history[len(history) // 2 :], state)
    assert objects_of(state) == before


def test_owned_objects_come_oldest_first() -> None:
    young = changed(POD, "u1", 9, ["owner-1"])
    old = changed(Key("Pod", "ml", "z"), "u2", 3, ["owner-1"])
    assert [
        obj.uid
        for obj in folded([Numbered(1, young), Numbered(2, old)]).owned("owner-1", "Pod", "ml")
    ] == ["u2", "u1"]


def test_an_owner_is_in_the_same_namespace() -> None:
    own = changed(POD, "u1", 1, ["owner-1"])
    forged = changed(Key("Pod", "mallory", "p"), "u2", 2, ["owner-1"])
    assert [
        obj.uid
        for obj in folded([Numbered(1, own), Numbered(2, forged)]).owned("owner-1", "Pod", "ml")
    ] == ["u1"]


def test_an_object_that_moves_between_owners_is_with_the_new_one() -> None:
    state = folded(
        [
            Numbered(1, changed(POD, "u", 1, ["owner-1"])),
            Numbered(2, changed(POD, "u", 2, ["owner-2"])),
        ]
    )
    assert state.owned("owner-1", "Pod", "ml") == []
    assert [obj.uid for obj in state.owned("owner-2", "Pod", "ml")] == ["u"]


@pytest.mark.parametrize(
    ("events", "version"),
    [
        pytest.param(
            [deleted(POD, "old", 5), changed(POD, "old", 4)],
            None,
            id="late-version-of-a-deleted-object",
        ),
        pytest.param([deleted(POD, "old", 5), changed(POD, "new", 6)], 6, id="made-again"),
        pytest.param(
            [changed(POD, "new", 6), deleted(POD, "old", 5)], 6, id="late-delete-of-the-predecessor"
        ),
        pytest.param(
            [changed(POD, "new", 6), changed(POD, "old", 4)],
            6,
            id="late-version-of-the-predecessor",
        ),
        pytest.param(
            [changed(POD, "u", 6), deleted(POD, "u", 6)],
            None,
            id="deleted-at-the-version-last-known",
        ),
        pytest.param([changed(POD, "u", 9), changed(POD, "u", 10)], 10, id="versions-are-numbers"),
    ],
)
def test_latecomers(events: list[ObjectChanged | ObjectDeleted], version: int | None) -> None:
    obj = folded([Numbered(seq, event) for seq, event in enumerate(events, start=1)]).get(POD)
    assert (None if obj is None else obj.version) == version


def test_the_answer_to_a_write_counts_before_its_event() -> None:
    event = changed_from_response(body(POD, "u", 7))
    mine = fold(Projection(), event)
    confirmed = fold(mine, event, 42)
    assert [(s.version, s.seq) for s in (*mine.all_objects(), *confirmed.all_objects())] == [
        (7, 0),
        (7, 42),
    ]
    assert fold(confirmed, event) is confirmed


def listed(version: int, *, installed: bool = True, epoch: int = 0) -> KindSynced:
    return KindSynced(
        kind=POD.kind,
        resource_version=str(version) if installed else "",
        objects=0,
        installed=installed,
        epoch=epoch,
    )


@pytest.mark.parametrize(
    ("seq", "marker", "unconfirmed"),
    [
        pytest.param(0, listed(9), True, id="created-and-deleted-before-the-list"),
        pytest.param(0, listed(7), True, id="in-the-version-of-the-list"),
        pytest.param(0, listed(6), False, id="written-after-the-list"),
        pytest.param(5, listed(9), False, id="confirmed-by-an-event"),
        pytest.param(0, listed(0, installed=False), True, id="of-a-kind-that-is-not-served"),
        pytest.param(0, listed(1, epoch=1), True, id="before-the-cluster-went-back"),
    ],
)
def test_an_own_write_missing_from_a_later_list_is_deleted(
    seq: int, marker: KindSynced, unconfirmed: bool
) -> None:
    state = fold(Projection(), changed_from_response(body(POD, "u", 7)), seq)
    assert [own.key for own in state.unconfirmed_writes(marker)] == ([POD] if unconfirmed else [])


@pytest.mark.parametrize(
    ("version", "known"), [(7, False), (10, True)], ids=["before-the-list", "after-it"]
)
def test_the_late_answer_to_our_own_write_revives_nothing(version: int, known: bool) -> None:
    state = fold(fold(Projection(), listed(9)), changed_from_response(body(POD, "u", version)))
    assert (state.get(POD) is not None) is known


def test_an_event_without_news_returns_the_same_projection() -> None:
    state = fold(Projection(), changed(POD, "u", 3), 1)
    for event in (
        changed(POD, "u", 2),
        changed(POD, "u", 3),
        deleted(POD, "other", 2),
        Observation(POD, REJECTED, None),
    ):
        assert fold(state, event, 1) is state
    action = ActionTaken(service="x", verb="apply", kind="Job", name="j", about=POD, outcome="done")
    assert fold(state, action) is state


def test_what_a_reload_lacks_is_forgotten_and_may_return() -> None:
    state = drop_object(fold(Projection(), changed(POD, "u", 3, ["owner-1"]), 1), POD)
    assert objects_of(state) == {}
    assert state.owned("owner-1", "Pod", "ml") == []
    assert drop_object(state, POD) is state
    assert fold(state, changed(POD, "u", 3), 2).get(POD) is not None


OBSERVED = Observation(POD, "log", ("text", 3))


def test_an_observation_lasts_until_it_is_withdrawn() -> None:
    state = fold(fold(Projection(), changed(POD, "u", 3)), OBSERVED)
    assert state.observation(POD, "log") == ("text", 3)
    assert state.observation(POD, "other") is None
    assert fold(state, Observation(POD, "log", None)).observation(POD, "log") is None


@pytest.mark.parametrize(
    ("event", "stored"),
    [
        pytest.param(changed(POD, "u", 4), True, id="a-newer-version"),
        pytest.param(deleted(POD, "u", 4), False, id="deleted"),
        pytest.param(changed(POD, "successor", 4), False, id="replaced-by-a-successor"),
        pytest.param(deleted(POD, "predecessor", 2), True, id="late-delete-of-a-predecessor"),
    ],
)
def test_an_observation_goes_with_its_object(
    event: ObjectChanged | ObjectDeleted, stored: bool
) -> None:
    state = fold(fold(fold(Projection(), changed(POD, "u", 3)), OBSERVED), event)
    assert (state.observation(POD, "log") is not None) is stored


def test_an_observation_goes_with_a_swept_object() -> None:
    state = drop_object(fold(fold(Projection(), changed(POD, "u", 3)), OBSERVED), POD)
    assert state.observation(POD, "log") is None


def test_objects_whose_apply_is_under_way() -> None:
    state = fold(
        fold(Projection(), Observation(JOB, "creating", value=True)),
        Observation(POD, "creating", value=True),
    )
    assert state.pending_creates("Job") == {JOB}
    assert fold(state, Observation(JOB, "creating", None)).pending_creates("Job") == set()


def test_a_kind_is_installed_until_reported_missing() -> None:
    state = Projection()
    assert state.is_kind_served("Gateway")
    absent = fold(
        state, KindSynced(kind="Gateway", resource_version="", objects=0, installed=False)
    )
    assert not absent.is_kind_served("Gateway")
    assert absent.is_kind_served("Pod")
    assert fold(absent, KindSynced(kind="Gateway", resource_version="1", objects=0)).is_kind_served(
        "Gateway"
    )


def test_an_object_is_missing_once_its_kind_is_listed_without_it() -> None:
    assert not Projection().is_missing(POD)
    marker = KindSynced(kind=POD.kind, resource_version="1", objects=0)
    listed = fold(Projection(), marker)
    assert listed.is_missing(POD)
    assert not listed.is_missing(POD._replace(kind="Gateway"))
    assert not fold(listed, changed(POD, "u", 2), 1).is_missing(POD)


def reported(text: str, service: str = "cacher") -> StatusReported:
    return StatusReported(
        kind=POD.kind,
        namespace=POD.namespace,
        name=POD.name,
        uid="u",
        service=service,
        observed_generation=1,
        fields={"progress": text},
    )


def progress(state: Projection) -> Any:
    report = state.report(POD, "cacher")
    return None if report is None else report.fields["progress"]


@given(st.permutations([(1, "a"), (2, "b"), (3, "a"), (4, "c")]))
def test_of_reports_the_last_one_sent_counts(sent: list[tuple[int, str]]) -> None:
    state = Projection()
    for seq, text in sent:
        state = fold(state, reported(text), seq)
    assert progress(state) == "c"


def test_reports_of_services_are_separate_and_can_be_swept() -> None:
    state = fold(fold(Projection(), reported("a"), 1), reported("b", "deployer"), 2)
    assert set(state.report_keys()) == {(POD, "cacher"), (POD, "deployer")}
    assert set(drop_reports(state, [(POD, "cacher"), (JOB, "cacher")]).report_keys()) == {
        (POD, "deployer")
    }


def test_after_a_reload_report_numbers_may_restart() -> None:
    state = reset_report_order(fold(Projection(), reported("before the log was lost"), 900))
    assert progress(state) == "before the log was lost"
    assert progress(fold(state, reported("after"), 1)) == "after"


STATE = KubeObject(
    POD,
    "u",
    1,
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "p",
            "labels": None,
            "ownerReferences": [{"kind": "Job", "name": "j", "uid": "ju"}],
            "deletionTimestamp": "t",
        },
        "status": {
            "conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "False"}]
        },
    },
)


def test_what_can_be_read_off_an_object() -> None:
    assert (
        STATE.deleting,
        STATE.generation,
        STATE.labels,
        STATE.annotations,
        STATE.spec,
        STATE.creation_timestamp,
    ) == (True, 0, {}, {}, {}, "")
    assert (STATE.owners, STATE.owner("Job"), STATE.owner("Pod")) == (
        frozenset({"ju"}),
        Key("Job", "ml", "j"),
        None,
    )
    assert (
        STATE.is_condition_true("A"),
        STATE.is_condition_true("B"),
        STATE.is_condition_true("C"),
        STATE.condition("C"),
    ) == (
        True,
        False,
        False,
        None,
    )
    assert STATE.owner_reference() == {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": "p",
        "uid": "u",
        "controller": True,
    }


def test_an_owner_is_of_the_known_group_whatever_the_event_has() -> None:
    forged = replace(STATE, body={**STATE.body, "apiVersion": "unserved.example/v1"})
    assert forged.owner_reference() == STATE.owner_reference()


def stored_answer_of(sources: list[str]) -> dict[str, Any]:
    return {
        "data": {
            "result.json": json.dumps(
                {"models": [{"name": "m", "source": source} for source in sources]}
            )
        }
    }


TEXTS = st.sampled_from(["a", "b", "", "hf://org/a", "hf://org/b"])
ANYTHING = st.one_of(
    st.none(),
    st.integers(),
    TEXTS,
    st.lists(TEXTS, max_size=3),
    st.dictionaries(TEXTS, TEXTS, max_size=2),
)
VOLUMES = ANYTHING | st.lists(
    st.fixed_dictionaries(
        {"persistentVolumeClaim": ANYTHING | st.fixed_dictionaries({"claimName": TEXTS})}
    )
)

STATUSES = st.lists(
    ANYTHING
    | st.sampled_from(
        [
            {"state": {"waiting": {"reason": reason}}}
            for reason in ("CreateContainerConfigError", "ErrImagePull")
        ]
    )
)


def having(part: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects whose `part` has these fields, or is something else."""
    return st.fixed_dictionaries(
        {
            part: (
                ANYTHING
                | st.fixed_dictionaries(
                    {name: ANYTHING | values for name, values in fields.items()}
                )
            )
        }
    )


SHAPES = {
    "AIMService": having("spec", model=TEXTS, templateRef=TEXTS, configRef=TEXTS),
    "AIMServiceTemplate": (
        having("spec", model=TEXTS) | having("status", modelSources=st.lists(TEXTS))
    ),
    "AIMClusterModel": having("spec", name=TEXTS),
    "ModelCache": having("spec", sourceUri=TEXTS),
    "Pod": having("spec", volumes=VOLUMES) | having("status", containerStatuses=STATUSES),
    "Job": having("spec"),
    "ConfigMap": st.lists(TEXTS, max_size=3).map(stored_answer_of),
}
LABELS = st.dictionaries(st.sampled_from([WORKLOAD_ID, COMPONENT, KSERVE_ISVC_LABEL]), TEXTS)


@st.composite
def objects(draw: st.DrawFn) -> list[ObjectChanged]:
    """Versions of objects of every kind that has an index, with whatever fields."""
    found = []
    for version in range(1, draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(sorted(SHAPES)))
        namespace = None if kind == "AIMClusterModel" else draw(st.sampled_from(["ml", "other"]))
        key = Key(kind, namespace, draw(st.sampled_from(["t", "u"])))
        event = changed(key, f"{kind}-{namespace}-{key.name}", version, **draw(SHAPES[kind]))
        event.object["metadata"] |= {"labels": draw(LABELS)}
        if kind == "ConfigMap":
            event.object["metadata"] |= {
                "annotations": {ANNOTATION_DIGEST: digest(event.object["data"])}
            }
            event.object["metadata"] |= {
                "ownerReferences": [
                    {
                        "kind": draw(st.sampled_from(["AIMServiceTemplate", "Job"])),
                        "name": "t",
                        "uid": "o",
                    }
                ]
            }
        found.append(event)
    return found


def scanned(state: Projection, index: Index, value: str, namespace: str | None) -> list[KubeObject]:
    """The expected result of an index, by a scan of every object."""
    existing = (
        each
        for each in state.all_objects()
        if index.kind in {"", each.key.kind}
        and (index.everywhere or each.key.namespace == namespace)
    )
    return sorted(
        (each for each in existing if value in set(index.values(each.body))),
        key=lambda each: (each.creation_timestamp, each.key.name, each.key.namespace or ""),
    )


@given(objects(), st.data())
def test_an_index_gives_what_a_scan_gives(events: list[ObjectChanged], data: st.DataObject) -> None:
    state = Projection()
    shuffled = data.draw(st.permutations(events))
    doubled = [*shuffled, *data.draw(st.permutations(events))]
    for seq, event in enumerate(doubled, start=1):
        state = fold(state, event, seq)
    for deletion in data.draw(st.lists(st.sampled_from(events), max_size=3)) if events else []:
        state = drop_object(state, Key(deletion.kind, deletion.namespace, deletion.name))
    for index in INDEXES:
        values = {value for each in state.all_objects() for value in index.values(each.body)} | {
            "a",
            "without-an-owner",
        }
        for value, namespace in product(values, [None, "ml", "other"]):
            if index.kind:
                assert state.find(index, value, namespace) == scanned(
                    state, index, value, namespace
                )


def test_an_object_with_many_values_is_indexed_by_each() -> None:
    many = [f"hf://org/model-{number}" for number in range(3000)]
    key = Key("AIMServiceTemplate", "ml", "t")
    state = fold(Projection(), changed(key, "u", 2, status={"modelSources": many}), 1)
    few = fold(
        state,
        changed(Key("AIMServiceTemplate", "ml", "s"), "v", 1, status={"modelSources": many[:1]}),
        2,
    )
    assert [each.key.name for each in few.find(TEMPLATES_BY_SOURCE, many[0], "ml")] == ["s", "t"]
    assert [each.key.name for each in few.find(TEMPLATES_BY_SOURCE, many[-1], "ml")] == ["t"]
    assert few.find(TEMPLATES_BY_SOURCE, "hf://org/another", "ml") == []
    assert few.find(TEMPLATES_BY_SOURCE, many[-1], "other") == []
    assert len(few._indexed) < 2 * MOST_VALUES
    assert drop_object(few, key).find(TEMPLATES_BY_SOURCE, many[-1], "ml") == []
