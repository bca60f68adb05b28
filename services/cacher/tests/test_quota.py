"""The allocation of storage to waiting caches, by properties and by a table of cases."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_cacher.quota import Allocation, Candidate, Scope, Waiter, allocate
from aimschema.resources import CACHE, Key

NAMESPACES = ("a", "b")


def key(name: str, namespace: str = "a") -> Key:
    return Key(CACHE.kind, namespace, name)


def waiter(name: str, size: int, created: int = 0, namespace: str = "a") -> Waiter:
    return Waiter(key(name, namespace), f"2026-01-01T00:00:{created:02}Z", size)


def candidate(
    name: str, held: int, used: int = 0, namespace: str = "a", *, marked: bool = False
) -> Candidate:
    return Candidate(key(name, namespace), held, f"2026-01-01T00:00:{used:02}Z", marked)


@st.composite
def scopes(draw: st.DrawFn) -> Scope:
    """Candidates hold a part of what is used; a part of the rest is being deleted."""
    namespace = draw(st.sampled_from(["a", None]))
    places = st.sampled_from(NAMESPACES if namespace is None else ("a",))
    numbers = st.integers(1, 12)
    candidates = [
        candidate(f"c{n}", draw(numbers), draw(numbers), draw(places), marked=draw(st.booleans()))
        for n in range(draw(st.integers(0, 6)))
    ]
    waiters = [
        waiter(f"w{n}", draw(numbers), draw(numbers), draw(places))
        for n in range(draw(st.integers(0, 5)))
    ]
    freed, rest = draw(st.integers(0, 10)), draw(st.integers(0, 20))
    used = rest + freed + sum(each.held_bytes for each in candidates)
    return Scope(namespace, draw(st.integers(1, 60)), used, freed, waiters, candidates)


def evicted_bytes(scope: Scope, found: Allocation) -> int:
    return sum(each.held_bytes for each in scope.candidates if each.key in found.victims)


@given(scopes())
def test_the_admitted_waiter_fits_now(scope: Scope) -> None:
    found = allocate(scope)
    if found.admitted is not None:
        (admitted,) = [each for each in scope.waiters if each.key == found.admitted]
        assert scope.used_bytes + admitted.asked_bytes <= scope.limit_bytes


@given(scopes())
def test_no_waiter_overtakes_another(scope: Scope) -> None:
    """Those that are admitted or served are the first of the queue."""
    found = allocate(scope)
    queue = [each.key for each in scope.queue]
    assert found.admitted in {None, *queue[:1]}
    assert found.served == frozenset(queue[: len(found.served)])


@given(scopes())
def test_the_first_waiter_that_fits_is_admitted(scope: Scope) -> None:
    first = next(iter(scope.queue), None)
    fits = first is not None and scope.used_bytes + first.asked_bytes <= scope.limit_bytes
    assert (allocate(scope).admitted is not None) is fits


@given(scopes())
def test_victims_are_candidates_that_make_room(scope: Scope) -> None:
    """Their storage with what is being deleted is enough for those that it serves."""
    found = allocate(scope)
    assert found.victims <= {each.key for each in scope.candidates}
    if found.victims:
        requested = sum(each.asked_bytes for each in scope.waiters if each.key in found.served)
        left = scope.used_bytes - scope.freed_bytes - evicted_bytes(scope, found)
        assert left + requested <= scope.limit_bytes


@given(scopes())
def test_nothing_is_evicted_for_another_namespace(scope: Scope) -> None:
    found = allocate(scope)
    asking = {each.namespace for each in found.served} | {scope.namespace}
    assert {each.namespace for each in found.victims} <= asking


@given(scopes())
def test_the_first_waiter_is_served_if_it_can_be(scope: Scope) -> None:
    first = next(iter(scope.queue), None)
    if first is None:
        return
    own = sum(
        each.held_bytes for each in scope.candidates if each.key.namespace == first.key.namespace
    )
    left = scope.used_bytes - scope.freed_bytes - own
    can_be_served = left + first.asked_bytes <= scope.limit_bytes
    assert (first.key in allocate(scope).served) is can_be_served


@given(scopes(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(scope: Scope, rng: random.Random) -> None:
    waiters, candidates = list(scope.waiters), list(scope.candidates)
    rng.shuffle(waiters)
    rng.shuffle(candidates)
    shuffled = Scope(
        scope.namespace,
        scope.limit_bytes,
        scope.used_bytes,
        scope.freed_bytes,
        waiters,
        candidates,
    )
    assert allocate(shuffled) == allocate(scope)


@given(scopes())
def test_a_choice_stays_once_it_is_marked(scope: Scope) -> None:
    """Else caches would be marked and unmarked for ever."""
    found = allocate(scope)
    marked = [
        Candidate(each.key, each.held_bytes, each.used_at, each.key in found.victims)
        for each in scope.candidates
    ]
    again = allocate(
        Scope(
            scope.namespace,
            scope.limit_bytes,
            scope.used_bytes,
            scope.freed_bytes,
            scope.waiters,
            marked,
        )
    )
    assert again.victims <= found.victims
    assert again.served == found.served


NOTHING: Allocation = Allocation(None, frozenset(), frozenset())


@pytest.mark.parametrize(
    ("scope", "admitted", "served", "victims"),
    [
        pytest.param(Scope("a", 10, 10, 0, [], []), None, [], [], id="full-without-a-waiter"),
        pytest.param(Scope("a", 10, 4, 0, [waiter("w", 6)], []), "w", ["w"], [], id="it-just-fits"),
        pytest.param(
            Scope("a", 10, 5, 5, [waiter("w", 6)], []), None, ["w"], [], id="after-a-deletion"
        ),
        pytest.param(
            Scope(
                "a", 10, 9, 0, [waiter("w", 5)], [candidate("old", 4, 1), candidate("new", 4, 2)]
            ),
            None,
            ["w"],
            ["old"],
            id="the-least-recently-used",
        ),
        pytest.param(
            Scope(
                "a",
                22,
                22,
                0,
                [waiter("w", 15)],
                [candidate("a", 1, 1), candidate("b", 1, 2), candidate("c", 20, 3)],
            ),
            None,
            ["w"],
            ["c"],
            id="no-more-than-necessary",
        ),
        pytest.param(
            Scope("a", 10, 10, 0, [waiter("w", 8)], [candidate("c", 4)]),
            None,
            [],
            [],
            id="nothing-if-it-does-not-help",
        ),
        pytest.param(
            Scope("a", 10, 5, 0, [waiter("old", 6, 1), waiter("new", 1, 2)], []),
            None,
            [],
            [],
            id="the-younger-one-waits-too",
        ),
        pytest.param(
            Scope("a", 10, 5, 0, [waiter("huge", 11, 1), waiter("new", 1, 2)], []),
            "new",
            ["new"],
            [],
            id="one-that-never-fits-delays-no-other",
        ),
        pytest.param(
            Scope("a", 10, 14, 0, [], [candidate("c", 6)]), None, [], ["c"], id="a-lowered-quota"
        ),
        pytest.param(
            Scope(None, 10, 14, 0, [], [candidate("c", 6)]),
            None,
            [],
            [],
            id="a-lowered-quota-of-the-cluster",
        ),
        pytest.param(
            Scope(None, 10, 10, 0, [waiter("w", 4, namespace="b")], [candidate("c", 6)]),
            None,
            [],
            [],
            id="only-caches-of-the-asking-namespace",
        ),
    ],
)
def test_a_case(scope: Scope, admitted: str | None, served: list[str], victims: list[str]) -> None:
    found = allocate(scope)
    assert (None if found.admitted is None else found.admitted.name) == admitted
    assert sorted(each.name for each in found.served) == served
    assert sorted(each.name for each in found.victims) == victims
