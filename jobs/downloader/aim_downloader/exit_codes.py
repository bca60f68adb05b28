"""How a run can end, and the exceptions that carry an end, another try or another way through the
code.

Every failure a person or the control plane can tell apart is one `Outcome`; anything else is
`TRANSIENT`.
"""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """What the exit code says in a word."""

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
    """Ends the run with `outcome`; `message` is for a person and says the way out."""

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
    """This request may be sent again, `retry_after_s` from now at the earliest where the other
    side said so."""

    def __init__(self, message: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class RangesIgnored(Exception):
    """The server does not answer with a part of this file: it gives all of it or nothing."""
