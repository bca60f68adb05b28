"""Ranges of a file: each is fetched, recorded and resumed alone. Checks of responses to range
requests. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_CONTENT_RANGE = re.compile(r"bytes\s+(\d+)-(\d+)/(\d+|\*)")


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
    return tuple(
        Range(index, start, min(start + range_bytes, size_bytes))
        for index, start in enumerate(starts)
    )


@dataclass(frozen=True)
class Answered:
    """Status, Content-Range and Content-Length of a response; empty or None if the header is
    missing."""

    status: int
    content_range: str = ""
    content_length: int | None = None


def fault_of(answer: Answered, requested: tuple[int, int], size_bytes: int) -> str:
    """The fault of a response to a request for bytes `requested` (end exclusive) of a file; empty
    without a fault. The text continues a sentence that begins with the server's name. A response
    with fewer bytes is fine if it begins at the start: the next request gets the rest.
    """
    start, end = requested
    if answer.status == 200:
        whole = answer.content_length in {None, size_bytes} and requested == (0, size_bytes)
        return (
            "" if whole else f"offers {answer.content_length} bytes of a file that has {size_bytes}"
        )
    if match := _CONTENT_RANGE.fullmatch(answer.content_range.strip()):
        first = int(match[1])
        last = int(match[2])
        total = match[3]
        if total not in {"*", str(size_bytes)}:
            return f"offers a part of {total} bytes, but listed {size_bytes}: the file has changed"
        if first != start or last >= end:
            return f"offers bytes {first} to {last} where {start} to {end - 1} were asked for"
        end = last + 1
    fits = answer.content_length in {None, end - start}
    return (
        "" if fits else f"offers {answer.content_length} bytes where {end - start} were asked for"
    )
