"""What the handler of a component's own actions gets and returns.

1. A handler carries out the kinds of action that only its component has. It gets an ActionContext
   and returns an ActionResult; it never sees the controller.
2. It raises what `Cluster` raises. The controller treats that like the error of any other action:
   it retries with backoff, or reports a rejection.
3. Work that must not hold up the queue runs in the background (`ctx.start`). It ends with the term
   of leadership at the latest; its result and its KubeErrors count like the handler's own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from aimcontroller.action import Action
from aimcontroller.action_log import ActionRecord
from aimcontroller.projection import Observation
from aimkube import Cluster
from aimschema.messages import Progress

Body: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ActionResult:
    """The outcome of an action.

    `response`: the object as the API server returned it after a write; folded like an event.
    `observations`: facts to fold into the state. `requeue_after_s`: when the reconciled object is
    reconciled again (0: at once; None: with the next event on it). `record`: published as
    ActionTaken; None: the action changed nothing and is not published.
    """

    response: Body | None = None
    observations: tuple[Observation, ...] = ()
    requeue_after_s: float | None = None
    record: ActionRecord | None = None

    @classmethod
    def from_response(cls, response: Body) -> "ActionResult":
        """The result of an action that wrote the object in the response."""
        version = str(response["metadata"]["resourceVersion"])
        return cls(response, record=ActionRecord(resource_version=version))


@dataclass(frozen=True, slots=True)
class ActionContext:
    """What a handler may use.

    `publish_live`: publish progress, which is not stored. `observe`: fold an observation and
    reconcile the object again, before the action has ended. `start`: run work in the background.
    `is_new`: the reconciled object was created during this term of leadership, so no other process
    has acted for it.
    """

    cluster: Cluster
    publish_live: Callable[[Progress], Awaitable[None]]
    observe: Callable[[Observation], None]
    start: Callable[[Coroutine[Any, Any, ActionResult]], "asyncio.Task[None]"]
    is_new: bool = False


class Handler(Protocol):
    """Carries out the actions that only one component has."""

    async def __call__(self, action: Action, ctx: ActionContext, /) -> ActionResult: ...
