"""Checks every version of every object as the API serves it.

1. Generations never decrease, times change only with `status`, and at most one summary condition is
   True.
2. No Job runs again for the same inputs once it has succeeded, unless a user acted since.
3. No service writes a dead letter.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from aim_testing.chaos.observer import contradictions, moved_back
from aim_testing.soak.state import Body, State, annotation, holds, owners, where
from aimbus import Bus, Event, connect, follow
from aimkube import Cluster, Deleted, KindNotServed, Modified, Snapshot
from aimschema import labels, subjects
from aimschema.messages import DeadLetter
from aimschema.resources import (
    AIM_KINDS,
    NAMESPACE,
    OTHER_KINDS,
    POD,
    SECRET,
    Key,
    Resource,
    key_of,
)

WATCHED = (*AIM_KINDS, *OTHER_KINDS, SECRET, NAMESPACE)
OURS = frozenset(kind.kind for kind in AIM_KINDS)
PASSING = frozenset({POD.kind})
"""Kinds that others write all the time, such as a container that is started again and again."""


class Watcher:
    """A context manager. `findings` in order; `writes`: the last thousand writes of AIM objects,
    with their times."""

    def __init__(self, cluster: Cluster, nats_url: str) -> None:
        self.objects: dict[Key, Body] = {}
        self.findings: list[str] = []
        self.writes: deque[tuple[float, str]] = deque(maxlen=1000)
        self.changed = asyncio.Event()
        self.jobs = 0
        self.last_operation_s: dict[str | None, float] = {}
        self._cluster, self._nats_url = cluster, nats_url
        self._succeeded: dict[tuple[str, ...], float] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._bus: Bus | None = None

    @property
    def state(self) -> State:
        return State(dict(self.objects))

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._watch(kind)) for kind in WATCHED]
        self._bus = await connect(self._nats_url, name="soak")
        self._tasks.append(asyncio.create_task(self._dead_letters(self._bus)))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._bus is not None:
            await self._bus.close()

    def operated(self, namespace: str | None) -> None:
        """A user did something there; None: to the whole cluster."""
        self.last_operation_s[namespace] = time.monotonic()

    async def settled(self, holds_: Callable[[], bool], within_s: float, quiet_s: float) -> bool:
        """Waits until a condition holds and stays; returns whether it does."""
        give_up_s, since_s = time.monotonic() + within_s, float("inf")
        while True:
            now_s = time.monotonic()
            held = holds_()
            since_s = min(since_s, now_s) if held else float("inf")
            if now_s - since_s >= quiet_s:
                return True
            if now_s > give_up_s and not held:
                return False
            self.changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), min(1.0, quiet_s))

    async def _watch(self, kind: Resource) -> None:
        async with contextlib.aclosing(self._cluster.list_and_watch(kind)) as stream:
            async for item in stream:
                match item:
                    case Snapshot(items=items):
                        keys = {key_of(body | {"kind": kind.kind}) for body in items}
                        for body in items:
                            self._put(body | {"kind": kind.kind})
                        for key in [
                            k for k in self.objects if k.kind == kind.kind and k not in keys
                        ]:
                            self._drop(key)
                    case Modified(body=body):
                        self._put(body | {"kind": kind.kind})
                    case Deleted(body=body):
                        self._drop(key_of(body | {"kind": kind.kind}))
                    case KindNotServed():
                        pass
                self.changed.set()

    def _put(self, body: Body) -> None:
        key = key_of(body)
        before = self.objects.get(key)
        if (
            before is not None
            and before["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]
        ):
            return
        self.objects[key] = body
        if key.kind in OURS:
            problems = (*moved_back(before, body), *contradictions(body))
            self.findings += [f"{where(body)}: {each}" for each in problems]
        if key.kind == "Job":
            self._judge_job(before, body)
        if _is_written_by_us(before, body):
            self.writes.append((time.monotonic(), str(key)))

    def _drop(self, key: Key) -> None:
        if self.objects.pop(key, None) is not None and key.kind not in PASSING:
            self.writes.append((time.monotonic(), f"delete of {key}"))

    def _judge_job(self, before: Body | None, job: Body) -> None:
        inputs = annotation(job, labels.ANNOTATION_INPUTS)
        tried = annotation(job, labels.ANNOTATION_TRIED)
        metadata = job["metadata"]
        run = (metadata["namespace"], metadata["name"], *owners(job), inputs, tried)
        new = before is None or before["metadata"]["uid"] != metadata["uid"]
        self.jobs += new
        succeeded_s = self._succeeded.get(run)
        if new and succeeded_s is not None:
            operated = [
                self.last_operation_s.get(place, 0.0) for place in (None, metadata["namespace"])
            ]
            if max(operated) < succeeded_s:
                self.findings.append(
                    f"{where(job)} runs again though it had succeeded and nothing changed"
                )
        if holds(job, "Complete") and not _answers_nothing(job):
            self._succeeded.setdefault(run, time.monotonic())

    async def _dead_letters(self, bus: Bus) -> None:
        async for item in follow(bus, [subjects.dead_letters()]):
            if (
                isinstance(item, Event)
                and isinstance(item.message, DeadLetter)
                and not item.message.handled
            ):
                message = item.message
                self.findings.append(
                    f"dead letter of aim-{message.service} on {message.kind} {message.name}:"
                    f" {message.error}"
                )


def _answers_nothing(job: Body) -> bool:
    """A discovery whose image ends well without an answer is a failed try, and is tried again."""
    images = [each["image"] for each in job["spec"]["template"]["spec"]["containers"]]
    return any(image.endswith(":mute") for image in images)


def _is_written_by_us(before: Body | None, after: Body) -> bool:
    """Of kinds that others write as well: whether more than their status is new."""
    if after["kind"] in PASSING:
        return False
    return after["kind"] in OURS or before is None or _apart(before) != _apart(after)


def _apart(body: Body) -> Body:
    metadata = {
        name: value
        for name, value in body["metadata"].items()
        if name not in {"resourceVersion", "managedFields", "generation"}
    }
    return {name: value for name, value in body.items() if name not in {"status", "metadata"}} | {
        "metadata": metadata
    }
