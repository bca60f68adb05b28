"""How long to wait before asking again."""

import random

from aimkube.errors import KubeError

SHORTEST_S = 0.5
LONGEST_S = 30.0


def wait_s(
    failures: int, error: KubeError | None = None, *, shortest_s: float = SHORTEST_S
) -> float:
    """Seconds to wait after the `failures`-th failure in a row (from 1): doubling, jittered,
    never less than the server asked for."""
    longest_s = min(LONGEST_S, shortest_s * 2.0 ** min(failures - 1, 16))
    own_s = longest_s * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)
    if error is None or error.retry_after_s is None:
        return own_s
    return max(own_s, error.retry_after_s * random.uniform(1.0, 1.25))  # noqa: S311 (jitter)
