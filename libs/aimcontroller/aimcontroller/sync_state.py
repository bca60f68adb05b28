"""How far a component knows the cluster, and whether it may act. Pure.

1. LOADING: the state is being read from the bus. LOADED: it has been read, and sync markers of some
   kinds are missing: an empty bus is not an empty cluster. SYNCED: nothing is missing; the
   component only follows. LEADING: nothing is missing, and this process holds the lease.
2. A new load begins with nothing: all markers are required again. It does not end the term of
   leadership, but nothing is planned until the phase is LEADING again.
3. A marker counts also while the state is being read. A second end of a load changes nothing.
4. Only LEADING plans and acts. Everything is reconciled when it begins, and when a kind is
   installed or removed meanwhile.

| input | LOADING | LOADED | SYNCED | LEADING |
|---|---|---|---|---|
| load started | LOADING | LOADING | LOADING | LOADING |
| load ended | LOADED, or with all markers SYNCED or LEADING | - | - | - |
| last marker | LOADING | SYNCED or LEADING | - | - |
| term started | LOADING | LOADED | LEADING | - |
| term ended | LOADING | LOADED | SYNCED | SYNCED |
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum


class Phase(Enum):
    LOADING = "loading"
    LOADED = "loaded"
    SYNCED = "synced"
    LEADING = "leading"


@dataclass(frozen=True, slots=True)
class SyncState:
    """`kinds`: those that the component watches; `unsynced`: those without a sync marker."""

    kinds: frozenset[str]
    unsynced: frozenset[str]
    is_loading: bool = True
    has_lease: bool = False

    @classmethod
    def of(cls, kinds: Iterable[str]) -> "SyncState":
        """The state of a process that starts."""
        return cls(frozenset(kinds), frozenset(kinds))

    @property
    def phase(self) -> Phase:
        if self.is_loading:
            return Phase.LOADING
        if self.unsynced:
            return Phase.LOADED
        return Phase.LEADING if self.has_lease else Phase.SYNCED

    @property
    def is_synced(self) -> bool:
        return self.phase in {Phase.SYNCED, Phase.LEADING}

    def load_started(self) -> "SyncState":
        return replace(self, unsynced=self.kinds, is_loading=True)

    def load_ended(self) -> "SyncState":
        return replace(self, is_loading=False)

    def kind_synced(self, kind: str) -> "SyncState":
        return replace(self, unsynced=self.unsynced - {kind})

    def term_started(self) -> "SyncState":
        return replace(self, has_lease=True)

    def term_ended(self) -> "SyncState":
        return replace(self, has_lease=False)
