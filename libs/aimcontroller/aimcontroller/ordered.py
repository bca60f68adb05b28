"""A sorted sequence that is a value: a change copies one chunk of it, not the whole.

1. `with_entry` and `without_entry` return a new sequence and leave the old one as it is.
2. A change costs the length of a chunk and the number of chunks, also with thousands of entries.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import chain
from typing import Final, TypeAlias

Entry: TypeAlias = tuple[str, str, str]
Ordered: TypeAlias = tuple[tuple[Entry, ...], ...]
"""Chunks in order; none is empty."""
EMPTY: Final[Ordered] = ()
MOST_IN_CHUNK: Final = 128


def entries(ordered: Ordered) -> Iterator[Entry]:
    return chain.from_iterable(ordered)


def entries_from(ordered: Ordered, entry: Entry) -> Iterator[Entry]:
    """The entries that are not before this one."""
    place = _place(ordered, entry)
    for chunk in ordered[place : place + 1]:
        yield from chunk[bisect_left(chunk, entry) :]
    for chunk in ordered[place + 1 :]:
        yield from chunk


def with_entry(ordered: Ordered, entry: Entry) -> Ordered:
    """An entry that is there already is not added a second time."""
    if not ordered:
        return ((entry,),)
    place = _place(ordered, entry)
    chunk = ordered[place]
    at = bisect_left(chunk, entry)
    if chunk[at : at + 1] == (entry,):
        return ordered
    grown = (*chunk[:at], entry, *chunk[at:])
    half = len(grown) // 2
    parts = (grown,) if len(grown) <= MOST_IN_CHUNK else (grown[:half], grown[half:])
    return (*ordered[:place], *parts, *ordered[place + 1 :])


def without_entry(ordered: Ordered, entry: Entry) -> Ordered:
    """The same sequence if the entry is not there."""
    if not ordered:
        return ordered
    place = _place(ordered, entry)
    chunk = ordered[place]
    at = bisect_left(chunk, entry)
    if chunk[at : at + 1] != (entry,):
        return ordered
    left = (*chunk[:at], *chunk[at + 1 :])
    return (*ordered[:place], *((left,) if left else ()), *ordered[place + 1 :])


def _place(ordered: Ordered, entry: Entry) -> int:
    """The chunk that has the entry, or gets it."""
    return max(0, bisect_right(ordered, entry, key=_first) - 1)


def _first(chunk: tuple[Entry, ...]) -> Entry:
    return chunk[0]
