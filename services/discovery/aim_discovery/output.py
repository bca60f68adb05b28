"""Reading a model image's answer out of its log, which may hold anything else as well.

The whole log as JSON, else the last non-empty JSON array of objects in it; the first element counts.
"""

import json
import re
from typing import Any

from aimschema.discovered import Discovered, check

LARGEST_LOG_BYTES = 4 << 20
LAST_LINES = 5
SEARCH_BUDGET = 1 << 31
"""How long an array is searched for: beginnings inside one another would otherwise take time by the square of the log's length."""
_PER_CHAR_READ = 32
_NESTED_TOO_DEEP = 1 << 21
_ARRAY_START = re.compile(r"\[\s*\{\s*[\"}]")
_decoder = json.JSONDecoder()


class BadOutputError(ValueError):
    """The log holds no usable answer; the message says why and shows its last lines."""


def parse(log: str) -> Discovered:
    """The profile that counts. Raises BadOutputError."""
    answer = _whole(log)
    if answer is None:
        answer = _last_array(log)
    if answer is None:
        raise BadOutputError(f"the image printed no JSON array; its last lines: {last_lines(log)}")
    if not answer:
        raise BadOutputError(
            "the image printed an empty list: no profile for these GPUs, metric and precision; make the template anew, or change the image"
        )
    try:
        return check(answer[0])
    except (ValueError, OverflowError, RecursionError) as error:
        raise BadOutputError(f"{error}; last lines of the log: {last_lines(log)}") from error


def last_lines(log: str) -> str:
    return " | ".join(line.strip()[:200] for line in log.strip().splitlines()[-LAST_LINES:]) or "(empty)"


def _whole(log: str) -> list[Any] | None:
    try:
        found = json.loads(log)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _last_array(log: str) -> list[Any] | None:
    found, position, left = None, 0, SEARCH_BUDGET
    while left > 0 and (start := _ARRAY_START.search(log, position)) is not None:
        try:
            found, position = _decoder.raw_decode(log, start.start())
        except json.JSONDecodeError as error:
            left -= error.pos + _PER_CHAR_READ * (error.pos - start.start())  # (the error counts the lines before it)
            position = start.start() + 1
        except (ValueError, RecursionError):  # a number too long, or nested too deep: how far it got is not said
            left -= _NESTED_TOO_DEEP
            position = start.start() + 1
    return found
