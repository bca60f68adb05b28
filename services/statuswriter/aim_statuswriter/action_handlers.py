"""Handlers that write status and send Events.

A status is applied as a whole with one field manager and the resourceVersion that it was computed
from. After a conflict the statuswriter waits for the newer object and reconciles it. The Event
follows the write, at most one per object and reason a minute. That also holds across a change of
the leader: the name of an Event contains its minute, so the API server rejects a second one. A
process that has sent nothing for a minute reads the Event of the minute before by name, unless
the object is new.

Recorders of Kubernetes drop Events too, but more coarsely. client-go's EventCorrelator
(tools/record/events_cache.go) allows 25 Events of a source and object, then one every 5 minutes.
Its events.k8s.io recorder (tools/events/event_broadcaster.go) counts equal Events into a `series`.
Here Events of other reasons are never dropped, and nothing is counted: the condition on the object
has the current state.
"""

import datetime
import socket
import time
from collections.abc import Callable

from aim_statuswriter.actions import SendEvent, WriteStatus
from aim_statuswriter.metrics import STATUS_WRITES
from aim_statuswriter.render import event, event_name, event_namespace
from aimcontroller.action import Action
from aimcontroller.handler import ActionContext, ActionResult
from aimkube import AlreadyExists, Cluster, Forbidden, NotFound
from aimschema.names import short_hash
from aimschema.reasons import STATUSWRITER
from aimschema.resources import EVENT, RESOURCES

EVENT_EVERY_S = 60.0
EVENT_TTL_S = 3600.0
"""How long an API server keeps an Event, by default (kube-apiserver --event-ttl)."""
MAX_EXISTING = 10_000
Kind = tuple[str, str]
"""uid of the object and reason."""


class Writer:
    """The handler of WriteStatus and SendEvent actions."""

    def __init__(
        self, clock_s: Callable[[], float] = time.time, *, has_predecessor: bool = False
    ) -> None:
        """`clock_s` is a wall clock, the same for all processes. `has_predecessor`: another process
        may have sent Events before this one."""
        self._clock_s = clock_s
        self._has_predecessor = has_predecessor
        self._sent: dict[Kind, float] = {}
        self._existing: dict[str, float] = {}
        self._last_s = self._alone_s = float("-inf")

    async def __call__(self, action: Action, ctx: ActionContext) -> ActionResult:
        match action:
            case WriteStatus():
                return await _write_status(action, ctx.cluster)
            case SendEvent():
                return await self._send_event(action, ctx)
            case _:
                raise TypeError(f"not an action of the statuswriter: {action}")

    async def _send_event(self, action: SendEvent, ctx: ActionContext) -> ActionResult:
        """Send the Event. A requested Event is requeued if it is too soon; another is dropped."""
        kind = (action.uid, action.reason)
        now_s = self._clock_s()
        if action.since:
            suffix = short_hash([action.uid, action.reason, action.note, action.since])
            if now_s - self._existing.get(suffix, float("-inf")) < EVENT_TTL_S:
                return ActionResult()
            wait_s = self._sent.get(kind, float("-inf")) + EVENT_EVERY_S - now_s
            if wait_s > 0:
                return ActionResult(requeue_after_s=wait_s)
        else:
            if await self._is_too_soon(ctx, action, now_s):
                return ActionResult()
            suffix = suffix_of(kind, minute_of(now_s))
        try:
            await ctx.cluster.create(
                event(action, datetime.datetime.now(datetime.UTC), suffix, socket.gethostname())
            )
        except AlreadyExists:
            self._note_existing(suffix, now_s)
            return ActionResult()
        self._note_existing(suffix, now_s)
        self._note(kind, now_s, now_s)
        return ActionResult()

    async def _is_too_soon(self, ctx: ActionContext, action: SendEvent, now_s: float) -> bool:
        kind = (action.uid, action.reason)
        if now_s - self._last_s >= EVENT_EVERY_S:
            # Until then an earlier process may have sent an Event that this one does not know.
            self._alone_s = now_s + EVENT_EVERY_S
        may_be_sent = self._has_predecessor and now_s < self._alone_s and not ctx.is_new
        if kind not in self._sent and may_be_sent:
            sent_s = await _sent_before(ctx.cluster, action, suffix_of(kind, minute_of(now_s) - 1))
            if sent_s is not None:
                self._note(kind, sent_s, now_s)
        self._last_s = now_s
        return now_s - self._sent.get(kind, float("-inf")) < EVENT_EVERY_S

    def _note_existing(self, suffix: str, now_s: float) -> None:
        """Forget the oldest if there are too many."""
        self._existing.pop(suffix, None)
        self._existing[suffix] = now_s
        if len(self._existing) > MAX_EXISTING:
            del self._existing[next(iter(self._existing))]

    def _note(self, kind: Kind, sent_s: float, now_s: float) -> None:
        """The oldest come first: those that count no more are forgotten."""
        self._sent.pop(kind, None)
        self._sent[kind] = sent_s
        while self._sent and now_s - next(iter(self._sent.values())) >= EVENT_EVERY_S:
            del self._sent[next(iter(self._sent))]


async def _write_status(action: WriteStatus, cluster: Cluster) -> ActionResult:
    """A deleted object needs no status."""
    resource = RESOURCES[action.key.kind]
    key = action.key
    metadata = {
        "name": key.name,
        "resourceVersion": action.resource_version,
        **({} if key.namespace is None else {"namespace": key.namespace}),
    }
    body = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": metadata,
        "status": action.status,
    }
    try:
        answer = await cluster.apply_status(body, manager=f"aim-{STATUSWRITER}")
    except NotFound:
        return ActionResult()
    STATUS_WRITES.labels(key.kind).inc()
    answer["metadata"].pop("managedFields", None)
    return ActionResult.from_response(answer)


def minute_of(time_s: float) -> int:
    return int(time_s // EVENT_EVERY_S)


def suffix_of(kind: Kind, minute: int) -> str:
    """The end of the name of the only Event of a kind in a minute."""
    return short_hash([*kind, str(minute)])


async def _sent_before(cluster: Cluster, action: SendEvent, suffix: str) -> float | None:
    """The time of the Event with that name; None without one."""
    try:
        found = await cluster.get(
            EVENT, event_namespace(action.regarding), event_name(action.regarding, suffix)
        )
        return datetime.datetime.fromisoformat(str(found.get("eventTime"))).timestamp()
    except (NotFound, Forbidden, ValueError):
        return None
