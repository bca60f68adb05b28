"""The sorted sequence of an index, compared with a sorted list."""

from collections.abc import Sequence
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from aimcontroller.ordered import (
    EMPTY,
    MOST_IN_CHUNK,
    Entry,
    Ordered,
    entries,
    with_entry,
    without_entry,
)

ENTRIES = st.integers(0, 400).map(lambda number: (f"{number:03}", "name", "ns"))
CHANGES = st.lists(st.tuples(st.booleans(), ENTRIES), max_size=600)


def changed(ordered: Ordered, changes: Sequence[tuple[bool, Entry]]) -> Ordered:
    return reduce(
        lambda so_far, change: (with_entry if change[0] else without_entry)(so_far, change[1]),
        changes,
        ordered,
    )


@given(CHANGES)
def test_it_has_what_a_sorted_set_has(changes: list[tuple[bool, Entry]]) -> None:
    expected: set[Entry] = set()
    for is_added, entry in changes:
        (expected.add if is_added else expected.discard)(entry)
    assert list(entries(changed(EMPTY, changes))) == sorted(expected)


@given(CHANGES, CHANGES)
def test_a_change_leaves_the_old_sequence_as_it_was(
    first: list[tuple[bool, Entry]], then: list[tuple[bool, Entry]]
) -> None:
    ordered = changed(EMPTY, first)
    before = list(entries(ordered))
    changed(ordered, then)
    assert list(entries(ordered)) == before


def test_no_chunk_gets_longer_than_the_limit() -> None:
    numbers = [f"{number * 7919 % 5000:04}" for number in range(5000)]
    ordered = changed(EMPTY, [(True, (number, "name", "ns")) for number in numbers])
    assert [entry[0] for entry in entries(ordered)] == sorted(numbers)
    assert max(map(len, ordered)) <= MOST_IN_CHUNK
    assert len(ordered) < 5000 // MOST_IN_CHUNK * 3
