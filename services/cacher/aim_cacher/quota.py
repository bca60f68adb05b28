"""Which waiting caches get storage, and which caches make room for them. Pure and total.

1. Waiters are served by creation time, and none overtakes another. One that asks for more than the
   whole quota can never be served and delays no other.
2. Only the first waiter is admitted, and only if its storage is free now. Its claim is in the state
   before the next one is admitted, so a creation in flight counts.
3. Storage that is being deleted counts until it is gone.
4. Caches are evicted only for waiters that this serves, least recently used first, and no more of
   them than necessary. Caches that are marked already come first, so that a choice stays the same.
5. Caches of another namespace than the waiter's are never evicted for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aimschema.resources import Key


@dataclass(frozen=True, slots=True)
class Waiter:
    """A cache without a claim, and the storage that it asks for. `created` is an RFC 3339 time."""

    key: Key
    created: str
    asked_bytes: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A cache that may be evicted. `used_at`: an RFC 3339 time."""

    key: Key
    held_bytes: int
    used_at: str
    is_marked: bool


@dataclass(frozen=True, slots=True)
class Scope:
    """What one quota is about: a namespace, or with `namespace` None the cluster.

    `freed_bytes`: the part of `used_bytes` that is being deleted.
    """

    namespace: str | None
    limit_bytes: int
    used_bytes: int
    freed_bytes: int
    waiters: Sequence[Waiter]
    candidates: Sequence[Candidate]

    @property
    def queue(self) -> list[Waiter]:
        able = (waiter for waiter in self.waiters if waiter.asked_bytes <= self.limit_bytes)
        return sorted(able, key=lambda waiter: (waiter.created, waiter.key))


@dataclass(frozen=True, slots=True)
class Allocation:
    """`admitted`: the waiter whose claim may be created now. `served`: the waiters that what is
    being deleted, and the victims, make room for. `victims`: the caches to evict."""

    admitted: Key | None
    served: frozenset[Key]
    victims: frozenset[Key]


def allocate(scope: Scope) -> Allocation:
    queue = scope.queue
    free_bytes = scope.limit_bytes - scope.used_bytes
    is_room = bool(queue) and queue[0].asked_bytes <= free_bytes
    left = _in_order(scope.candidates)
    left_bytes = free_bytes + scope.freed_bytes
    victims: list[Candidate] = []
    served: list[Key] = []
    if scope.namespace is not None:
        over = _choose(left, scope.namespace, -left_bytes) or []
        victims += over
        left_bytes += sum(each.held_bytes for each in over)
    for waiter in queue:
        left_bytes -= waiter.asked_bytes
        unchosen = [each for each in left if each not in victims]
        chosen = _choose(unchosen, waiter.key.namespace, -left_bytes)
        if chosen is None:
            break
        victims += chosen
        served.append(waiter.key)
        left_bytes += sum(each.held_bytes for each in chosen)
    return Allocation(
        queue[0].key if is_room else None,
        frozenset(served),
        frozenset(each.key for each in victims),
    )


def choose_victims(
    candidates: Sequence[Candidate], namespace: str, needed_bytes: int
) -> list[Candidate] | None:
    """The candidates of a namespace that free so many bytes; None if all of them do not."""
    return _choose(_in_order(candidates), namespace, needed_bytes)


def _in_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda each: (not each.is_marked, each.used_at, each.key))


def _choose(
    ordered: Sequence[Candidate], namespace: str | None, needed_bytes: int
) -> list[Candidate] | None:
    """The candidates of a namespace that free so many bytes, in order; None if all of them do
    not."""
    chosen: list[Candidate] = []
    freed_bytes = 0
    for candidate in ordered:
        if freed_bytes >= needed_bytes:
            break
        if candidate.key.namespace == namespace:
            chosen.append(candidate)
            freed_bytes += candidate.held_bytes
    if freed_bytes < needed_bytes:
        return None
    for candidate in reversed(chosen[:]):
        if freed_bytes - candidate.held_bytes >= needed_bytes:
            chosen.remove(candidate)
            freed_bytes -= candidate.held_bytes
    return chosen
