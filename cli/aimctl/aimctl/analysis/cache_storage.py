"""What caches hold, who uses them, and which of them an eviction would delete. Pure."""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

from aim_cacher.cache_use import user_of, why_kept
from aim_cacher.job_options import JobOptions
from aim_cacher.quota import Candidate, choose_victims
from aim_cacher.storage_quota import Storage, claim_of, held_bytes
from aimcontroller.projection import KubeObject, Projection
from aimctl.analysis.cache_row import CacheRow
from aimschema import labels, quantities, reasons
from aimschema.resources import CACHE

YES = "yes"


@dataclass(frozen=True, slots=True)
class EvictionPlan:
    """`victims`: what would be deleted, in order; empty if all candidates together do not free
    enough. `evictable_bytes`: what all of them hold."""

    needed_bytes: int
    evictable_bytes: int
    victims: tuple[Candidate, ...]

    @property
    def is_enough(self) -> bool:
        return self.evictable_bytes >= self.needed_bytes


def cache_rows(state: Projection, namespace: str | None) -> list[CacheRow]:
    """The largest first; `namespace` None: of all."""
    caches: Iterable[KubeObject] = (
        state.in_all_namespaces(CACHE.kind)
        if namespace is None
        else state.in_namespace(CACHE.kind, namespace)
    )
    ordered = sorted(caches, key=lambda cache: (-_size_bytes(state, cache), cache.key))
    return [_row(state, cache) for cache in ordered]


def plan_eviction(
    state: Projection, namespace: str, needed_bytes: int, now: datetime.datetime
) -> EvictionPlan:
    """The caches of a namespace that would make room for so many bytes."""
    candidates = Storage(state, now, JobOptions("")).candidates(namespace)
    victims = choose_victims(candidates, namespace, needed_bytes) or []
    return EvictionPlan(needed_bytes, sum(each.held_bytes for each in candidates), tuple(victims))


def _row(state: Projection, cache: KubeObject) -> CacheRow:
    user = user_of(state, cache)
    why = why_kept(state, cache)
    is_marked = labels.ANNOTATION_EVICTING in cache.annotations
    evictable = YES if why is None else f"no: {why}"
    size_bytes = _size_bytes(state, cache)
    ready = cache.condition(reasons.READY) or {}
    return CacheRow(
        namespace=cache.key.namespace or "",
        cache=cache.key.name,
        size=f"{size_bytes / quantities.GI:.4g}Gi" if size_bytes else "",
        last_used=str(cache.status.get("lastUsed") or ""),
        used_by="" if user is None else f"{user.key.kind} {user.key.name}",
        evictable="evicting" if is_marked and why is None else evictable,
        state=str(cache.status.get("status") or ""),
        why=str(ready.get("message") or ""),
    )


def _size_bytes(state: Projection, cache: KubeObject) -> int:
    claim = claim_of(state, cache)
    return 0 if claim is None else held_bytes(claim)
