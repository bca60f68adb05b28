"""Finds the answer of a model image in its log, which may contain any other text too.

The answer is the whole log as JSON, else the last non-empty JSON array of objects in it; the first
element counts.

A log is untrusted text of up to 4 MiB. It is parsed once, in a thread of the handler that reads it.
Little of it remains: the answer as the ConfigMap has it, or the cause of its absence, and the last
lines.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from aimschema.discovery_result import Discovered, check

LOG = "log"
"""Topic: the log of a pod, or of the pod of a Job (a ReadLogResult)."""
LARGEST_LOG_BYTES = 4 << 20
LAST_LINES = 5
SEARCH_BUDGET = 1 << 26
"""How long an array is searched for, in characters passed over; some tens of milliseconds.
Beginnings inside one another would otherwise take time by the square of the log's length."""
_PER_CHAR_READ = 32
_NESTED_TOO_DEEP = 1 << 21
_WINDOW = 1 << 18
"""What has been searched is cut off from time to time: an error of the decoder costs time by its
place in the text."""
_ARRAY_START = re.compile(r"\[\s*\{\s*[\"}]")
_decoder = json.JSONDecoder()


class BadOutputError(ValueError):
    """The log has no usable answer; the message has the cause and the last lines."""


@dataclass(frozen=True, slots=True)
class ReadLogResult:
    """The result of reading a log.

    `answer`: JSON as the ConfigMap has it, empty without one; then `problem` is the cause.
    `last_lines`: empty if the log could not be read.
    """

    answer: str = ""
    problem: str = ""
    last_lines: str = ""


def digest_log(raw: bytes) -> ReadLogResult:
    """What is worth knowing of a log; total. Takes up to some tenths of a second, and memory of
    many times the log."""
    if len(raw) > LARGEST_LOG_BYTES:
        return ReadLogResult(
            problem=f"the log is longer than {LARGEST_LOG_BYTES >> 20} MiB", last_lines="(too long)"
        )
    log = raw.decode(errors="replace")
    lines = last_lines(log)
    try:
        return ReadLogResult(
            msgspec.json.encode(parse(log), order="deterministic").decode(), last_lines=lines
        )
    except BadOutputError as error:
        return ReadLogResult(problem=str(error), last_lines=lines)


def parse(log: str) -> Discovered:
    """The profile that counts. Raises BadOutputError."""
    answer = _whole(log)
    if answer is None:
        answer = _last_array(log)
    if answer is None:
        raise BadOutputError(f"the image printed no JSON array; its last lines: {last_lines(log)}")
    if not answer:
        raise BadOutputError(
            "the image printed an empty list: no profile for these GPUs, metric and precision;"
            " re-create the template, or change the image"
        )
    try:
        return check(answer[0])
    except (ValueError, OverflowError, RecursionError) as error:
        raise BadOutputError(f"{error}; last lines of the log: {last_lines(log)}") from error


def last_lines(log: str) -> str:
    return (
        " | ".join(
            line.strip()[:200] for line in log.strip().rsplit("\n", LAST_LINES)[-LAST_LINES:]
        )
        or "(empty)"
    )


def _whole(log: str) -> list[Any] | None:
    if not log.lstrip().startswith("["):
        return None
    try:
        found = json.loads(log)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _last_array(log: str) -> list[Any] | None:
    found = None
    rest = log
    position = 0
    left = SEARCH_BUDGET
    while left > 0 and (start := _ARRAY_START.search(rest, position)) is not None:
        begin = start.start()
        if begin > _WINDOW:
            rest = rest[begin:]
            begin = 0
        try:
            found, position = _decoder.raw_decode(rest, begin)
        except json.JSONDecodeError as error:
            left -= error.pos + _PER_CHAR_READ * (
                error.pos - begin
            )  # (the error counts the lines before it)
            position = begin + 1
        except (
            ValueError,
            RecursionError,
        ):  # The number is too long or the nesting too deep: the parser reports no position.
            left -= _NESTED_TOO_DEEP
            position = begin + 1
    return found
