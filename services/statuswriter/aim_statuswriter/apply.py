"""Writing status and sending Events.

A status is applied whole with one field manager; the resourceVersion it was computed from is the guard, and a conflict
means: wait for the newer object and compute again. The Event follows the write, at most one of a kind (object and reason) a minute.

Recorders of Kubernetes hold events back too, more coarsely: client-go's EventCorrelator (tools/record/events_cache.go) lets 25 of a
source and object through and then one every 5 minutes, and its events.k8s.io recorder (tools/events/event_broadcaster.go) counts equal ones into a
`series`. Here nothing of another reason is held back, and nothing is counted: the condition on the object says how it stands.
"""

import datetime
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from typing import assert_never

from aim_statuswriter.metrics import STATUS_WRITES
from aim_statuswriter.render import event
from aimkube import AlreadyExists, NotFound
from aimschema.names import short_hash
from aimschema.reasons import STATUSWRITER
from aimschema.resources import RESOURCES, Key
from aimservice.loop import Loop
from aimservice.plan import Action, ApplyObject, DeleteObject, FollowLog, InspectImage, ReadLog, SendEvent, WriteStatus
from aimservice.projection import written

EVENT_EVERY_S = 60.0


class Writer:
    """The handler of WriteStatus and SendEvent actions."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._sent: dict[tuple[str, str], float] = {}

    async def __call__(self, loop: Loop, action: Action, about: Key, causes: Sequence[int]) -> None:
        match action:
            case WriteStatus():
                await self._write(loop, action, about, causes)
            case SendEvent():
                await self._send(loop, action, about)
            case ApplyObject() | DeleteObject() | ReadLog() | InspectImage() | FollowLog():
                raise TypeError(f"not an action of the statuswriter: {action}")
            case _:
                assert_never(action)

    async def _write(self, loop: Loop, action: WriteStatus, about: Key, causes: Sequence[int]) -> None:
        resource, key = RESOURCES[action.key.kind], action.key
        metadata = {"name": key.name, "resourceVersion": action.resource_version, **({} if key.namespace is None else {"namespace": key.namespace})}
        body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "status": action.status}
        try:
            answer = await loop.cluster.apply_status(body, manager=f"aim-{STATUSWRITER}")
        except NotFound:
            return
        STATUS_WRITES.labels(key.kind).inc()
        answer["metadata"].pop("managedFields", None)
        loop.fold(written(answer))
        await loop.record(action, about, causes, resource_version=answer["metadata"]["resourceVersion"])

    async def _send(self, loop: Loop, action: SendEvent, about: Key) -> None:
        """Of one that nothing but Events tells, what is held back is looked at again."""
        kind, now_s = (action.uid, action.reason), self._clock_s()
        wait_s = self._sent.get(kind, float("-inf")) + EVENT_EVERY_S - now_s
        if wait_s > 0:
            if action.since:
                loop.queue.add_after(about, wait_s)
            return
        suffix = short_hash([action.uid, action.reason, action.note, action.since]) if action.since else uuid.uuid4().hex[:10]
        try:
            await loop.cluster.create(event(action, datetime.datetime.now(datetime.UTC), suffix, socket.gethostname()))
        except AlreadyExists:
            return
        self._sent = {sent: at for sent, at in self._sent.items() if now_s - at < EVENT_EVERY_S} | {kind: now_s}
