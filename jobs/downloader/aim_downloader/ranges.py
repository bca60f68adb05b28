"""Cutting a file into the ranges that are fetched, recorded and resumed one by one. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Bytes `start` to `end` (exclusive) of a file; `index` counts from 0."""

    index: int
    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        return self.end - self.start


def cut(size_bytes: int, range_bytes: int) -> tuple[Range, ...]:
    """Cover the file exactly, in order, without overlap; an empty file has no ranges."""
    starts = range(0, size_bytes, range_bytes)
    return tuple(Range(index, start, min(start + range_bytes, size_bytes)) for index, start in enumerate(starts))
