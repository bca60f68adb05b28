"""Publish what a component has done: an ActionTaken for each action."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aimbus import Bus
from aimcontroller.action import Action, ApplyObject
from aimcontroller.dead_letters import truncate_error
from aimschema.messages import ActionTaken, Finding, Mark
from aimschema.resources import Key

DONE = "done"


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

    async def publish(
        self, action: Action, key: Key, causes: Sequence[int], record: ActionRecord
    ) -> None:
        """`key` is the reconciled object."""
        target = action.target or key
        is_applied = isinstance(action, ApplyObject) and record.outcome == DONE
        await self._bus.publisher.publish(
            ActionTaken(
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
            ),
            cause=causes,
        )
