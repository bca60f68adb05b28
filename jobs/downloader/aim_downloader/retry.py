"""Trying again inside a run: a few times, further apart each time, for as long as the other side
asks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from aim_downloader.exit_codes import Failure, Outcome, Retryable

_RETRY_AFTER_MAX_S = 60.0

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What a run may use. Memory is about `ranges_in_flight` × 2 × `write_bytes` over the bare
    interpreter with its clients."""

    range_bytes: int = 16 * 1024 * 1024
    write_bytes: int = 1024 * 1024
    ranges_in_flight: int = 12
    files_in_flight: int = 16
    stall_s: float = 120.0
    tries: int = 5
    backoff_s: float = 1.0


def pause_s(limits: Limits, failed_tries: int, retry_after_s: float) -> float:
    """Seconds before the next try: doubling, jittered by half, and at least what the other side
    asked for, within a minute."""
    backoff_s = limits.backoff_s * (1 << (failed_tries - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
    return max(backoff_s, min(retry_after_s, _RETRY_AFTER_MAX_S))


class GaveUp(Failure):
    """The last try failed too."""


async def with_tries(limits: Limits, attempt: Callable[[], Awaitable[T]]) -> T:
    """Call until it answers; a Failure passes, and the last Retryable or time-out becomes
    GaveUp(TRANSIENT)."""
    failed_tries = 0
    while True:
        try:
            async with asyncio.timeout(limits.stall_s):
                return await attempt()
        except (Retryable, TimeoutError) as error:
            failed_tries += 1
            problem = as_retryable(error, limits)
            if failed_tries >= limits.tries:
                raise GaveUp(
                    Outcome.TRANSIENT, f"gave up after {failed_tries} tries: {problem.message}"
                ) from error
        await asyncio.sleep(pause_s(limits, failed_tries, problem.retry_after_s))


def as_retryable(error: Retryable | TimeoutError, limits: Limits) -> Retryable:
    return error if isinstance(error, Retryable) else Retryable(f"no byte for {limits.stall_s:g} s")
