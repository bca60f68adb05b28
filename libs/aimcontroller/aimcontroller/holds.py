"""How long a plan may still wait for a better one: counted from the first plan of its key that
could wait."""

from collections.abc import Callable

from aimschema.resources import Key


class Holds:
    """`clock_s` is monotonic."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._until_s: dict[Key, float] = {}

    def left_s(self, key: Key, hold_s: float) -> float:
        """How long the actions of a plan wait, if they may wait `hold_s`. 0: no longer."""
        now_s = self._clock_s()
        until_s = self._until_s.setdefault(key, now_s + hold_s) if hold_s else now_s
        if until_s <= now_s:
            self._until_s.pop(key, None)
        return max(0.0, until_s - now_s)

    def release(self) -> list[Key]:
        """The keys whose plans wait; they wait no longer."""
        keys, now_s = list(self._until_s), self._clock_s()
        self._until_s = dict.fromkeys(keys, now_s)
        return keys

    def clear(self) -> None:
        self._until_s.clear()
