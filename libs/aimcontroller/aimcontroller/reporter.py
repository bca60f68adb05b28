"""Publish reports, each only if it differs from the last one on its object."""

import datetime
from collections.abc import Awaitable, Callable, Sequence

from aimbus import Bus
from aimcontroller.plan import Report, with_start_times
from aimcontroller.store import StateStore
from aimschema.messages import StatusReported
from aimschema.resources import Key


class Reporter:
    """For one event loop. A report is folded as soon as it is published, so that the next plan is
    made with it."""

    def __init__(self, component: str, bus: Bus, store: StateStore) -> None:
        self._component = component
        self._bus = bus
        self._store = store
        self._publishing: set[Key] = set()

    async def publish(
        self,
        report: Report,
        causes: Sequence[int],
        confirm_lease: Callable[[], Awaitable[None]] | None,
    ) -> None:
        """`confirm_lease` returns while this process is the leader; None: there is no lease."""
        last = self._store.state.report(report.key, self._component)
        now = datetime.datetime.now(datetime.UTC)
        message = with_start_times(report.message(self._component), last, now)
        if message == last:
            return
        if confirm_lease is not None:
            await confirm_lease()
        self._publishing.add(report.key)
        try:
            seq = await self._bus.publisher.publish(message, cause=causes)
            self._store.fold(message, seq)
        finally:
            self._publishing.discard(report.key)

    def is_from_another_process(self, message: StatusReported, key: Key) -> bool:
        """A report of this component that this process did not publish. Sent before a pause or on a
        slow way, it may come after ours."""
        return (
            message.service == self._component
            and key not in self._publishing
            and self._store.state.report(key, message.service) != message
        )
