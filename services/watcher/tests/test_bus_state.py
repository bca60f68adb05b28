"""What the bus has: the scopes of a kind, and the age of its newest message."""

import pytest

from aim_watcher.bus_state import BusState
from aimschema.messages import KindSynced, ObjectChanged, ObjectDeleted
from aimschema.resources import GATEWAY, JOB, STORAGE_CLASS, Key, Resource


def changed(version: int, namespace: str = "ml", epoch: int = 0) -> ObjectChanged:
    return ObjectChanged(
        kind=JOB.kind,
        namespace=namespace,
        name="j",
        uid="u",
        resource_version=str(version),
        object={},
        epoch=epoch,
    )


@pytest.mark.parametrize(
    ("namespaces", "resource", "scopes"),
    [
        pytest.param((), JOB, (None,), id="all-namespaces"),
        pytest.param(("ml", "aim-system"), JOB, ("ml", "aim-system"), id="named-namespaces"),
        pytest.param(("ml",), STORAGE_CLASS, (None,), id="cluster-scoped-kind"),
        pytest.param(("ml",), GATEWAY, (None,), id="gateways-are-used-by-other-namespaces"),
    ],
)
def test_the_scopes_of_a_kind(
    namespaces: tuple[str, ...], resource: Resource, scopes: tuple[str | None, ...]
) -> None:
    assert tuple(BusState(namespaces).scopes(resource)) == scopes


@pytest.mark.parametrize(
    ("namespaces", "scope", "version", "is_newer"),
    [
        pytest.param((), None, "6", True, id="older-list"),
        pytest.param((), None, "7", False, id="list-at-the-same-version"),
        pytest.param(("ml", "b"), "ml", "6", True, id="older-list-of-the-namespace"),
        pytest.param(("ml", "b"), "b", "6", False, id="list-of-another-namespace"),
    ],
)
def test_an_older_list_is_noticed(
    namespaces: tuple[str, ...], scope: str | None, version: str, *, is_newer: bool
) -> None:
    state = BusState(namespaces)
    state.fold(changed(7), 1)
    assert state.is_newer_than(JOB.kind, scope, version) is is_newer


def test_a_marker_counts_for_every_namespace_of_its_kind() -> None:
    state = BusState(("ml", "b"))
    state.note_age(KindSynced(kind=JOB.kind, resource_version="9", objects=0))
    assert [state.is_newer_than(JOB.kind, scope, "8") for scope in ("ml", "b")] == [True, True]


def test_a_new_epoch_is_taken_from_messages() -> None:
    state = BusState()
    state.fold(changed(7, epoch=2), 1)
    assert (state.epoch, state.is_newer_than(JOB.kind, None, "6")) == (2, True)


def test_a_new_load_begins_with_nothing() -> None:
    state = BusState()
    state.fold(changed(7, epoch=2), 1)
    state.hidden[Key(JOB.kind, "ml", "j")] = 1
    state.loaded_seq = 1
    state.reset()
    assert (state.epoch, state.loaded_seq, state.hidden, dict(state.known)) == (0, 0, {}, {})
    assert not state.is_newer_than(JOB.kind, None, "1")


def deleted(version: int, epoch: int = 0) -> ObjectDeleted:
    return ObjectDeleted(
        kind=JOB.kind,
        namespace="ml",
        name="j",
        uid="u",
        resource_version=str(version),
        object={},
        epoch=epoch,
    )


@pytest.mark.parametrize(
    ("messages", "version", "hides"),
    [
        pytest.param([deleted(7)], 7, True, id="same-version"),
        pytest.param([deleted(7)], 8, False, id="created-after-the-delete"),
        pytest.param([deleted(7), changed(1, epoch=1)], 7, False, id="former-epoch"),
        pytest.param([changed(7)], 7, False, id="no-delete"),
    ],
)
def test_a_delete_that_hides_an_object_is_noticed(
    messages: list[ObjectChanged | ObjectDeleted], version: int, *, hides: bool
) -> None:
    item = {
        "kind": JOB.kind,
        "metadata": {"namespace": "ml", "name": "j", "resourceVersion": str(version)},
    }
    state = BusState()
    for seq, message in enumerate(messages, start=1):
        state.fold(message, seq)
    assert state.hides(JOB.kind, [item]) is hides
    state.forget_deletes(JOB.kind)
    assert not state.hides(JOB.kind, [item])


def delete(version: int) -> ObjectDeleted:
    body = changed(version)
    return ObjectDeleted(
        kind=body.kind,
        namespace=body.namespace,
        name=body.name,
        uid=body.uid,
        resource_version=str(version),
        object={},
    )


@pytest.mark.parametrize(
    ("acknowledged", "delivered", "known"),
    [
        pytest.param([3], [3], [3], id="own"),
        pytest.param([], [3], [], id="of-another-process"),
        pytest.param([4, 3], [3, 4], [3, 4], id="acknowledged-in-another-order"),
        pytest.param([3, 4, 5], [5], [5], id="superseded-before-the-delivery"),
        pytest.param([3], [3, 3], [3, 3], id="delivered-twice"),
        pytest.param([5], [3, 4, 5], [5], id="between-others"),
    ],
)
def test_own_messages_are_known(
    acknowledged: list[int], delivered: list[int], known: list[int]
) -> None:
    state = BusState()
    for seq in acknowledged:
        state.fold_acknowledged(changed(seq), seq)
    assert [seq for seq in delivered if state.is_known(seq)] == known


def test_a_message_that_comes_before_its_acknowledgement_is_read() -> None:
    """It leaves nothing behind."""
    state = BusState()
    assert not state.is_known(3)
    state.fold_acknowledged(changed(3), 3)
    assert not state.is_known(3)


def test_the_delete_of_an_own_object_is_read() -> None:
    """The tombstone goes with it."""
    state = BusState()
    state.fold_acknowledged(changed(3), 3)
    state.fold_acknowledged(delete(4), 4)
    assert [state.is_known(3), state.is_known(4)] == [True, False]


def test_after_a_load_no_message_is_known() -> None:
    state = BusState()
    state.fold_acknowledged(changed(3), 3)
    state.reset()
    assert not state.is_known(3)
