"""Retries within a run: a few tries with exponential backoff that honour Retry-After."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from aim_downloader.exit_codes import Failure, Outcome, Retryable

RETRY_AFTER_MAX_S = 300.0
"""The window of the hub's rate limits is five minutes."""

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """The limits of a run. Memory use is at most `ranges_in_flight` × `range_bytes` above the bare
    interpreter with its clients. A buffer of `buffer_bytes` fits into the cache of a core while it
    is received, hashed and written. The lock of DEST is renewed every `beat_s`, and is of a dead
    owner after `stale_beats` without that."""

    range_bytes: int = 16 * 1024 * 1024
    write_bytes: int = 1024 * 1024
    buffer_bytes: int = 128 * 1024
    ranges_in_flight: int = 8
    files_in_flight: int = 16
    stall_s: float = 120.0
    tries: int = 5
    backoff_s: float = 1.0
    beat_s: float = 5.0
    stale_beats: int = 6
    lock_poll_s: float = 1.0


def pause_s(limits: Limits, failed_tries: int, retry_after_s: float) -> float:
    """Seconds before the next try: doubled each time, jittered by half, and at least the delay that
    the server asked for, up to five minutes."""
    backoff_s = limits.backoff_s * (1 << (failed_tries - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
    return max(backoff_s, min(retry_after_s, RETRY_AFTER_MAX_S))


class RetriesExhausted(Failure):
    """The last try failed."""


async def retry(limits: Limits, attempt: Callable[[], Awaitable[T]]) -> T:
    """Call `attempt` until it returns. A Failure passes through. The last Retryable or time-out
    becomes RetriesExhausted(TRANSIENT)."""
    failed_tries = 0
    while True:
        try:
            async with asyncio.timeout(limits.stall_s):
                return await attempt()
        except (Retryable, TimeoutError) as error:
            failed_tries += 1
            problem = as_retryable(error, limits)
            if failed_tries >= limits.tries:
                raise RetriesExhausted(
                    Outcome.TRANSIENT, f"gave up after {failed_tries} tries: {problem.message}"
                ) from error
        await asyncio.sleep(pause_s(limits, failed_tries, problem.retry_after_s))


def as_retryable(error: Retryable | TimeoutError, limits: Limits) -> Retryable:
    return error if isinstance(error, Retryable) else Retryable(f"no byte for {limits.stall_s:g} s")
