"""The sync state of a running component: shown on /readyz, and awaited before anything is planned.

Every transition of sync_state.py goes through here, so that /readyz, the log and the reconcile of
everything cannot disagree with it.
"""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from aimcontroller.health import Health
from aimcontroller.store import StateStore
from aimcontroller.sync_state import Phase, SyncState

log = structlog.get_logger()


class Readiness:
    """For one event loop. `on_leading`: called when everything must be reconciled."""

    def __init__(
        self,
        kinds: Iterable[str],
        health: Health,
        store: StateStore,
        on_leading: Callable[[], None],
    ) -> None:
        self._store = store
        self._state = SyncState.of(kinds)
        self._health = health
        self._on_leading = on_leading
        self._synced = asyncio.Event()

    @property
    def is_loading(self) -> bool:
        return self._state.is_loading

    @property
    def is_leading(self) -> bool:
        return self._state.phase is Phase.LEADING

    async def wait_until_synced(self) -> None:
        await self._synced.wait()

    def load_started(self) -> None:
        self._enter(self._state.load_started())
        self._health.set_not_ready("state", "loading from AIM_STATE")
        self._health.set_ready("start")

    def load_ended(self) -> None:
        self._health.set_ready("state")
        self._enter(self._state.load_ended())

    def load_stalled(self, why: str) -> None:
        self._health.set_not_ready("state", why)

    def kind_synced(self, kind: str, *, is_changed: bool) -> None:
        """`is_changed`: the kind has been installed or removed since the last marker."""
        self._enter(self._state.kind_synced(kind), is_restarted=is_changed)

    def term_started(self) -> None:
        self._enter(self._state.term_started())

    def term_ended(self) -> None:
        self._enter(self._state.term_ended())

    def _enter(self, state: SyncState, *, is_restarted: bool = False) -> None:
        before, self._state = self._state, state
        if state.is_synced:
            self._health.set_ready("sync")
            self._synced.set()
        else:
            self._synced.clear()
        if state.phase is Phase.LOADED:
            kinds = ", ".join(sorted(state.unsynced))
            self._health.set_not_ready("sync", f"the watcher has not yet published: {kinds}")
        if state.is_synced and (is_restarted or not before.is_synced):
            log.info("caught-up", objects=sum(1 for _ in self._store.state.all_objects()))
        is_new = before.phase is not Phase.LEADING or is_restarted
        if state.phase is Phase.LEADING and is_new:
            self._on_leading()
