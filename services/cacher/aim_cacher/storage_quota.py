"""The storage of all caches, held against the quotas of namespaces and cluster. Pure and total.

1. Every claim of a ModelCache counts, also one that is being deleted or of a former cache, with the
   larger of its request and its capacity.
2. Both quotas have to admit a cache. One that its namespace holds back is not in the queue of the
   cluster: it would delay other namespaces.
3. A waiter whose claim the API server rejects delays no other.
"""

import datetime
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from aim_cacher.cache_use import caching_of, deleted_at, used_at, why_kept
from aim_cacher.job_options import JobOptions
from aim_cacher.quota import Allocation, Candidate, Scope, Waiter, allocate
from aim_cacher.render import requested_size
from aim_cacher.view import CacheView
from aimcontroller.indexes import PODS_BY_CLAIM
from aimcontroller.projection import KubeObject, Projection
from aimcontroller.workloads import is_pod_finished
from aimschema import labels, names, quantities
from aimschema.resources import CACHE, CLAIM, Key

LEAVES_WITHIN_S = 300.0


@dataclass(frozen=True)
class Verdict:
    """Of one waiter. `scope` and `allocation` are those of the first quota that holds it back."""

    scope: Scope
    allocation: Allocation
    is_admitted: bool

    def is_served(self, key: Key) -> bool:
        """Enough storage is being freed for it."""
        return key in self.allocation.served


@dataclass(frozen=True)
class Storage:
    """`asking`: a cache that counts as a waiter even if its claim was rejected."""

    state: Projection
    now: datetime.datetime
    options: JobOptions
    asking: Key | None = None
    _known: dict[str | None, tuple[Scope, Allocation] | None] = field(default_factory=dict)

    def verdict(self, key: Key) -> Verdict | None:
        """Whether the claim of a waiter may be created; None without a quota."""
        verdicts = (self._in_scope(key, scope) for scope in (key.namespace, None))
        found = [verdict for verdict in verdicts if verdict is not None]
        return next((each for each in found if not each.is_admitted), found[0] if found else None)

    def is_victim(self, cache: KubeObject) -> bool:
        """Whether a quota requires that it makes room."""
        allocations = (self.of_namespace(cache.key.namespace), self.of_cluster)
        return any(each is not None and cache.key in each[1].victims for each in allocations)

    def of_namespace(self, namespace: str | None) -> tuple[Scope, Allocation] | None:
        if namespace not in self._known:
            quota = caching_of(self.state, namespace).quota
            self._known[namespace] = None if quota is None else self._allocate(namespace, quota)
        return self._known[namespace]

    @cached_property
    def of_cluster(self) -> tuple[Scope, Allocation] | None:
        limit_bytes = self.options.quota_bytes
        if limit_bytes is None:
            return None
        namespaces = {cache.key.namespace for cache in self.state.in_all_namespaces(CACHE.kind)}
        waiters = [
            waiter
            for each in sorted(namespaces, key=str)
            for waiter in self._admissible_waiters(each)
        ]
        asking = {waiter.key.namespace for waiter in waiters}
        candidates = [each for name in sorted(asking, key=str) for each in self.candidates(name)]
        scope = self._scope(None, limit_bytes, waiters, candidates)
        return scope, allocate(scope)

    def waiters(self, namespace: str | None) -> list[Waiter]:
        """Caches that would get a claim now, were there no quota."""
        return [
            Waiter(cache.key, cache.creation_timestamp, quantities.parse(size))
            for cache in self.state.in_namespace(CACHE.kind, namespace)
            if (size := self._asked_size(cache)) is not None
        ]

    def candidates(self, namespace: str | None) -> list[Candidate]:
        return [
            Candidate(
                cache.key,
                held_bytes(claim),
                used_at(cache),
                labels.ANNOTATION_EVICTING in cache.annotations,
            )
            for cache in self.state.in_namespace(CACHE.kind, namespace)
            if (claim := claim_of(self.state, cache)) is not None
            and not claim.deleting
            and not cache.deleting
            and why_kept(self.state, cache) is None
        ]

    def _allocate(self, namespace: str | None, quota: str | int) -> tuple[Scope, Allocation]:
        waiters, candidates = self.waiters(namespace), self.candidates(namespace)
        scope = self._scope(namespace, quantities.parse(quota), waiters, candidates)
        return scope, allocate(scope)

    def _in_scope(self, key: Key, namespace: str | None) -> Verdict | None:
        found = self.of_cluster if namespace is None else self.of_namespace(namespace)
        if found is None:
            return None
        scope, allocation = found
        return Verdict(scope, allocation, allocation.admitted == key)

    def _admissible_waiters(self, namespace: str | None) -> list[Waiter]:
        """The waiters that the quota of their namespace admits."""
        found = self.of_namespace(namespace)
        waiters = self.waiters(namespace)
        if found is None:
            return waiters
        return [waiter for waiter in waiters if waiter.key == found[1].admitted]

    def _scope(
        self,
        namespace: str | None,
        limit_bytes: int,
        waiters: list[Waiter],
        candidates: list[Candidate],
    ) -> Scope:
        claims = list(claims_of_caches(self.state, namespace))
        used_bytes = sum(map(held_bytes, claims))
        leaving = (each for each in claims if _is_leaving(self.state, each, self.now))
        freed_bytes = sum(map(held_bytes, leaving))
        return Scope(namespace, limit_bytes, used_bytes, freed_bytes, waiters, candidates)

    def _asked_size(self, cache: KubeObject) -> str | int | None:
        if cache.deleting or not cache.has_spec or claim_of(self.state, cache) is not None:
            return None
        view = CacheView.build(self.state, cache, self.now, self.options)
        if not view.is_waiting_for_claim:
            return None
        rejection = view.rejection
        is_rejected = rejection is not None and rejection.target.kind == CLAIM.kind
        return None if is_rejected and cache.key != self.asking else view.claim_size


def claims_of_caches(state: Projection, namespace: str | None) -> Iterator[KubeObject]:
    """Of a namespace; with None of all."""
    claims: Iterable[KubeObject] = (
        state.in_all_namespaces(CLAIM.kind)
        if namespace is None
        else state.in_namespace(CLAIM.kind, namespace)
    )
    return (claim for claim in claims if claim.owner(CACHE.kind) is not None)


def held_bytes(claim: KubeObject) -> int:
    """The larger of request and capacity."""
    capacity = claim.status.get("capacity")
    storage = capacity.get("storage") if isinstance(capacity, dict) else None
    return max(_bytes(requested_size(claim)), _bytes(storage))


def _bytes(quantity: object) -> int:
    """0 for a text that is no quantity."""
    try:
        return max(0, quantities.parse(str(quantity)))
    except ValueError:
        return 0


def claim_of(state: Projection, cache: KubeObject) -> KubeObject | None:
    """The claim of a cache, if it is its own."""
    claim = state.get(Key(CLAIM.kind, cache.key.namespace, names.cache_claim(cache.key.name)))
    return claim if claim is not None and cache.uid in claim.owners else None


def _is_leaving(state: Projection, claim: KubeObject, now: datetime.datetime) -> bool:
    """It, or its cache, is being deleted, and nothing is known to hold it. One that is still there
    after `LEAVES_WITHIN_S` is held by something that is not known."""
    owner = claim.owner(CACHE.kind)
    cache = None if owner is None else state.get(owner)
    is_kept = cache is not None and cache.uid in claim.owners and not cache.deleting
    if is_kept and not claim.deleting:
        return False
    since = deleted_at(claim) or (None if cache is None else deleted_at(cache))
    if since is not None and (now - since).total_seconds() > LEAVES_WITHIN_S:
        return False
    pods = state.find_lazily(PODS_BY_CLAIM, claim.key.name, claim.key.namespace)
    return all(is_pod_finished(pod) for pod in pods)
