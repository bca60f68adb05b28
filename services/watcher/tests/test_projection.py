"""The known state of the bus, from acknowledgements and from the bus itself, in any order."""

from itertools import permutations

import pytest

from aim_watcher.projection import NOTHING, PublishedObjects, fold, live_object
from aimschema.messages import ObjectChanged, ObjectDeleted
from aimschema.resources import Key

KEY = Key("ModelCache", "ns", "c")


def changed(version: int, uid: str = "u1") -> ObjectChanged:
    return ObjectChanged(
        kind=KEY.kind,
        namespace=KEY.namespace,
        name=KEY.name,
        uid=uid,
        resource_version=str(version),
        object={"v": version},
    )


def deleted(version: int, uid: str = "u1") -> ObjectDeleted:
    return ObjectDeleted(
        kind=KEY.kind,
        namespace=KEY.namespace,
        name=KEY.name,
        uid=uid,
        resource_version=str(version),
        object={"v": version},
    )


def known(*steps: tuple[ObjectChanged | ObjectDeleted, int]) -> PublishedObjects:
    result = NOTHING
    for message, seq in steps:
        result = fold(result, message, seq)
    return result


@pytest.mark.parametrize(
    ("steps", "version"),
    [
        pytest.param([(changed(5), 1)], 5, id="published"),
        pytest.param(
            [(changed(5), 1), (changed(6), 2), (changed(5), 1)], 6, id="echo-of-an-earlier-message"
        ),
        pytest.param([(changed(5), 1), (deleted(6), 2)], None, id="deleted"),
        pytest.param(
            [(changed(5), 1), (deleted(6), 2), (changed(5), 1)], None, id="echo-does-not-revive"
        ),
        pytest.param(
            [(changed(5), 1), (deleted(6), 2), (changed(7, "u2"), 3), (deleted(6), 2)],
            7,
            id="made-again",
        ),
        pytest.param(
            [(changed(9), 4), (deleted(10), 2)],
            9,
            id="a-delete-that-was-taken-for-a-repetition-did-not-happen",
        ),
        pytest.param([(deleted(6), 2)], None, id="a-delete-of-what-was-never-known"),
    ],
)
def test_the_bus_has(
    steps: list[tuple[ObjectChanged | ObjectDeleted, int]], version: int | None
) -> None:
    published = live_object(known(*steps), KEY)
    assert (None if published is None else published.version) == version


@pytest.mark.parametrize(
    "order", list(permutations([(changed(5), 1), (changed(6), 2), (changed(7, "u2"), 3)]))
)
def test_the_order_of_folding_does_not_matter(order: tuple[tuple[ObjectChanged, int], ...]) -> None:
    assert live_object(known(*order), KEY) == live_object(known((changed(7, "u2"), 3)), KEY)


def test_a_tombstone_is_dropped_after_its_delete_on_the_bus() -> None:
    assert KEY in known((changed(5), 1), (deleted(6), 2))
    assert KEY not in known((changed(5), 1), (deleted(6), 2), (deleted(6), 2))
