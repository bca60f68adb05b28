"""Publish what a component has done: an ActionTaken for each action.

1. A reconcile does not wait for the acknowledgement, unless MAX_UNACKNOWLEDGED records wait for it.
2. The records of one reconciled object are stored in order, and before any later report on it
   (reconciler.py): the log never has an effect before its cause.
3. A term of leadership ends when all are stored, or FLUSH_S later. A process that is killed loses
   the records on their way. Without its mark an object is applied once more by the next process,
   which records that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from aimbus import Bus
from aimcontroller.action import Action, ApplyObject
from aimcontroller.background import BackgroundQueue
from aimcontroller.dead_letters import truncate_error
from aimschema.messages import ActionTaken, Finding, Mark
from aimschema.resources import Key

DONE = "done"
MAX_UNACKNOWLEDGED = 64


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """The outcome of an action, as ActionTaken has it; its fields are described there."""

    outcome: str = DONE
    detail: str = ""
    rejected_by: str = ""
    resource_version: str = ""
    finding: Finding | None = None


class ActionLog:
    """`mark_of`: the mark of the last apply of an object, which later processes need to recognise
    drift."""

    def __init__(self, component: str, bus: Bus, mark_of: Callable[[Key], Mark | None]) -> None:
        self._component = component
        self._bus = bus
        self._mark_of = mark_of
        self._queue = BackgroundQueue(MAX_UNACKNOWLEDGED)

    async def publish(
        self, action: Action, key: Key, causes: Sequence[int], record: ActionRecord
    ) -> None:
        """Returns when the record is on its way. `key` is the reconciled object."""
        target = action.target or key
        is_applied = isinstance(action, ApplyObject) and record.outcome == DONE
        message = ActionTaken(
            service=self._component,
            verb=action.verb,
            kind=target.kind,
            namespace=target.namespace,
            name=target.name,
            about=key,
            outcome=record.outcome,
            detail=truncate_error(record.detail),
            resource_version=record.resource_version,
            mark=self._mark_of(target) if is_applied else None,
            rejected_by=record.rejected_by,
            finding=record.finding,
        )
        await self._queue.put(key, partial(self._bus.publisher.publish, message, cause=causes))

    async def wait(self, key: Key) -> None:
        """Until the records of this reconciled object are stored."""
        await self._queue.wait(key)

    async def flush(self) -> None:
        """Until all records are stored."""
        await self._queue.flush()

    async def cancel_all(self) -> None:
        await self._queue.cancel_all()
