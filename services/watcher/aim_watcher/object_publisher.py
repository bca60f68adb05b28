"""Publishes messages on objects, one after another or in batches.

1. Each publication awaits `fence` first, so that a paused process never publishes after its
   successor has started.
2. If the last message on an object cannot be decoded, or AIM_STATE lacks one that AIM_LOG has, the
   object is republished.
3. A message that is too large is truncated until it fits.
"""

import contextlib
from collections.abc import Sequence

import structlog

from aim_watcher import plan
from aim_watcher.bus_state import BusState
from aim_watcher.plan import ObjectMessage
from aimbus import Bus, OversizedMessage
from aimkube import Fence
from aimschema.messages import KindSynced, key_of, subject_of
from aimschema.resources import Key

BATCH = 500
log = structlog.get_logger()


class ObjectPublisher:
    def __init__(self, bus: Bus, fence: Fence, state: BusState) -> None:
        self._bus = bus
        self._fence = fence
        self._state = state

    async def publish_in_batches(self, messages: Sequence[ObjectMessage]) -> None:
        for start in range(0, len(messages), BATCH):
            await self._publish_batch(messages[start : start + BATCH])

    async def publish_marker(self, marker: KindSynced) -> None:
        """Publish a KindSynced, after the hidden objects of its kind."""
        await self.republish_hidden(marker.kind)
        await self._bus.publisher.publish(marker)

    async def republish_hidden(self, kind: str) -> None:
        """Republish the objects of a kind whose last message cannot be decoded."""
        for key in [key for key in self._state.hidden if key.kind == kind]:
            await self._publish(plan.plan_hidden(self._state.known[kind], key))
            log.info("republished", key=str(key))

    async def _publish_batch(self, messages: Sequence[ObjectMessage]) -> None:
        """Publish in order; as one batch unless a message needs special handling."""
        await self._fence()
        hidden = self._state.hidden
        sequences: Sequence[int] = ()
        if len(messages) > 1 and not any(key_of(message) in hidden for message in messages):
            with contextlib.suppress(OversizedMessage):
                sequences = await self._bus.publisher.publish_many(messages)
        for place, message in enumerate(messages):
            if place < len(sequences) and sequences[place] > self._state.loaded_seq:
                self._state.fold_acknowledged(message, sequences[place])
            else:
                await self._publish(message)

    async def _publish(self, message: ObjectMessage) -> None:
        """Publish until this is the last message on its object."""
        key = Key(message.kind, message.namespace, message.name)
        superseded = self._state.hidden.pop(key, None)
        smaller: ObjectMessage | None = message
        while smaller is not None:
            await self._fence()
            try:
                seq = await self._publish_once(smaller, superseded)
            except OversizedMessage as error:
                log.warning(
                    "object-truncated",
                    subject=error.subject,
                    size_bytes=error.size_bytes,
                    limit_bytes=error.limit_bytes,
                )
                smaller = plan.truncated_message(smaller)
            else:
                self._state.fold_acknowledged(smaller, seq)
                return
        log.error("object-too-large", subject=subject_of(message))

    async def _publish_once(self, message: ObjectMessage, superseded: int | None) -> int:
        """Returns the sequence number. If AIM_LOG dropped the message as a duplicate of one that
        AIM_STATE lacks, it is published once more."""
        seq = await self._bus.publisher.publish(message, supersedes_seq=superseded)
        loaded_seq = self._state.loaded_seq
        if seq > loaded_seq:
            return seq
        return await self._bus.publisher.publish(message, supersedes_seq=loaded_seq)
