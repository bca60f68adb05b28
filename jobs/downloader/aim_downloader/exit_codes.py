"""The outcomes of a run, their exit codes, and the exceptions that lead to them.

Each failure that the control plane distinguishes is one `Outcome`. Anything else is `TRANSIENT`.
"""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """The name of an exit code."""

    DONE = "done"
    NOT_FOUND = "not_found"
    NO_ACCESS = "no_access"
    NO_SPACE = "no_space"
    CHECKSUM = "checksum"
    TRANSIENT = "transient"


EXIT_CODE: dict[Outcome, int] = {
    Outcome.DONE: 0,
    Outcome.NOT_FOUND: 10,
    Outcome.NO_ACCESS: 11,
    Outcome.NO_SPACE: 12,
    Outcome.CHECKSUM: 13,
    Outcome.TRANSIENT: 20,
}


class Failure(Exception):
    """Ends the run with `outcome`. `message` is for the user and says what to do."""

    def __init__(
        self,
        outcome: Outcome,
        message: str,
        *,
        needed_bytes: int | None = None,
        free_bytes: int | None = None,
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.message = message
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes


class Retryable(Exception):
    """This request may be repeated, after `retry_after_s` seconds at the earliest if the server
    asked for a delay."""

    def __init__(self, message: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class RangesIgnored(Exception):
    """The server ignores or rejects ranges of this file; it only sends the whole file."""
