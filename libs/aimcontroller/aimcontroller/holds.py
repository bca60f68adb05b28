"""How long a plan may still wait for a better one: counted from the first plan of its key that
could wait.

A plan waits at least as long as it may, and TIMES as long as a write has taken of late, but not
longer than LONGEST_S: the busier the API server is, the fewer writes it gets that a better plan
makes needless.
"""

from collections.abc import Callable

from aimschema.resources import Key

TIMES = 10
LONGEST_S = 5.0
WEIGHT = 0.1
"""Of the last write in the average."""


class Holds:
    """`clock_s` is monotonic."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._since_s: dict[Key, float] = {}
        self._write_s = 0.0

    def write_took(self, duration_s: float) -> None:
        self._write_s += WEIGHT * (duration_s - self._write_s)

    def left_s(self, key: Key, hold_s: float) -> float:
        """How long the actions of a plan wait, if they may wait `hold_s`. 0: no longer."""
        now_s = self._clock_s()
        longest_s = min(LONGEST_S, TIMES * self._write_s)
        until_s = self._since_s.setdefault(key, now_s) + (hold_s and max(hold_s, longest_s))
        if until_s <= now_s:
            del self._since_s[key]
        return max(0.0, until_s - now_s)

    def release(self) -> list[Key]:
        """The keys whose plans wait; they wait no longer."""
        keys = list(self._since_s)
        self._since_s = dict.fromkeys(keys, float("-inf"))
        return keys

    def clear(self) -> None:
        self._since_s.clear()
