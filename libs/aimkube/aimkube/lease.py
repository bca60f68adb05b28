"""Leader election on Leases (coordination.k8s.io/v1), with the idea of client-go's leader election.

1. A lease changes its holder only by compare and swap: PUT with the resourceVersion that was read,
   or POST if there is none.
2. Clocks are never compared. The leader counts from before it sent the accepted renewal. A
   candidate counts from when it first read the current (holder, renewTime), so later. It takes the
   lease if it still finds that pair after the lease's duration.
3. A candidate watches the lease, and reads it before it takes it. It reads it too where the watch
   shows no renewal for `silence_s`, and every `poll_s` without a watch.
4. The leader's work is cancelled `margin_s` before another process could take the lease, even if
   requests hang: one task sends them, another watches the time.
5. Work may still be late (a stopped process, a blocked event loop, a suspended machine).
   `wait_until_held`, called before every write, blocks every write after that moment. The clock
   runs while a machine is suspended, if the system has such a clock.
6. Work that does not end when the lease is lost is cancelled again. After `end_s` WorkDoesNotEnd is
   raised, which ends the process. Otherwise it would hang as an apparently healthy standby.
7. The lease is released once the work has ended, not before, so that the next leader starts at
   once.

A request that has left the process cannot be recalled. Hence the margin, and guards (uid,
resourceVersion) on the writes themselves. If a person deletes a lease, its holder loses it within
`renew_s`. A candidate that knew the lease waits as for a dead holder.
"""

import asyncio
import datetime
import os
import random
import socket
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import structlog

from aimkube.errors import AlreadyExists, Conflict, KubeError, NotFound
from aimkube.transport import Body
from aimschema.resources import LEASE, Resource

log = structlog.get_logger(__name__)

NEVER_S = float("-inf")


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """All in seconds. A standby takes over from a killed leader within `duration_s` and a
    request, without a watch within `poll_s` more."""

    duration_s: int = (
        14  # how long a lease lives without being renewed; whole seconds, as the API has it
    )
    # how long before its end the work is cancelled: for what is under way, and for clocks of
    # different rates
    margin_s: float = 3.0
    renew_s: float = 7.0  # between renewals: at rest, most requests are these
    request_s: float = 1.8  # how long one request may take; two fit before the work is cancelled
    retry_s: float = 0.25  # after a renewal that failed
    silence_s: float = 9.0  # without a renewal, after which a candidate doubts its watch
    poll_s: float = 1.0  # how often a candidate without a watch reads the lease
    cancel_interval_s: float = (
        1.0  # between cancellations of work that does not end although the lease is lost
    )
    end_s: float = 15.0  # how long it may take to end


TIMING = LeaseTiming()


class Record(NamedTuple):
    """A lease as its holder wrote it. `holder` empty: free. `duration_s` 0: not stated."""

    holder: str
    renewed: str
    duration_s: float
    transitions: int


@dataclass(frozen=True, slots=True)
class Observation:
    """The state of a candidate: the record (None: there is no lease), and the time on its own clock
    since which (holder, renewTime) is unchanged.

    `grace_s` is the wait after a lease was deleted whose holder may still be active.
    """

    record: Record | None
    since_s: float
    grace_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LeadershipState:
    """The role of this process. `problem` is the reason why it can be neither leader nor standby;
    empty if it can."""

    leading: bool
    holder: str = ""
    problem: str = ""


class WorkDoesNotEnd(Exception):
    """The lease is lost, and the work takes no notice of being cancelled: the process has to
    end."""


class Leases(Protocol):
    """The required part of a Cluster. Use a separate connection: requests of the work must not
    delay renewals."""

    async def get(self, resource: Resource, namespace: str | None, name: str, /) -> Body: ...
    async def create(self, body: Body, /) -> Body: ...
    async def replace(self, body: Body, /) -> Body: ...
    def watch_object(
        self, resource: Resource, namespace: str | None, name: str, version: str, /
    ) -> AsyncGenerator[Body | None]: ...


def record_of(body: Body) -> Record:
    spec = body.get("spec") or {}
    return Record(
        holder=spec.get("holderIdentity") or "",
        renewed=spec.get("renewTime") or "",
        duration_s=spec.get("leaseDurationSeconds") or 0,
        transitions=spec.get("leaseTransitions") or 0,
    )


def observe(before: Observation | None, record: Record | None, now_s: float) -> Observation:
    """What is known after reading `record` at `now_s`, the time after the answer came."""
    if before is None:
        return Observation(record, now_s)
    if record is None:
        return (
            before
            if before.record is None
            else Observation(None, now_s, before.record.duration_s if before.record.holder else 0.0)
        )
    same = before.record is not None and (before.record.holder, before.record.renewed) == (
        record.holder,
        record.renewed,
    )
    return Observation(record, before.since_s if same else now_s)


def wait_s(observed: Observation, identity: str, now_s: float, duration_s: float) -> float:
    """How long until `identity` may try to take the lease; 0 or less: now. `duration_s` is for
    leases that do not state theirs."""
    if observed.record is None:
        return observed.since_s + observed.grace_s - now_s
    if observed.record.holder in {"", identity}:
        return 0.0
    return observed.since_s + (observed.record.duration_s or duration_s) - now_s


def new_identity() -> str:
    """Of this process and no other, before or after it: host, process id, chance."""
    return f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:8]}"


def boot_time_s() -> float:
    """Monotonic seconds that also count while the machine is suspended (Linux); elsewhere the usual
    monotonic clock."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """A candidate for the lease `namespace`/`name`. `on_change` hears of every change of its
    standing; it must not wait."""

    def __init__(
        self,
        leases: Leases,
        namespace: str,
        name: str,
        *,
        on_change: Callable[[LeadershipState], None] = lambda _: None,
        timing: LeaseTiming = TIMING,
    ) -> None:
        self.identity = new_identity()
        self.clock_s: Callable[[], float] = boot_time_s
        self._leases = leases
        self._namespace, self._name = namespace, name
        self._on_change = on_change
        self._timing = timing
        self._standing: LeadershipState | None = None
        self._observed: Observation | None = None
        self._body: Body = {}  # as we last wrote or read it, while we hold it
        self._stop_at_s = NEVER_S
        self._renewed = asyncio.Event()

    @property
    def held(self) -> bool:
        """Whether work may be done right now."""
        return self.clock_s() < self._stop_at_s

    @property
    def epoch(self) -> int:
        """leaseTransitions: grows with every new holder."""
        return record_of(self._body).transitions

    async def wait_until_held(self) -> None:
        """Returns at once while the lease is held; otherwise not before it is held again, because
        the caller is about to be cancelled."""
        while not self.held:
            self._renewed.clear()
            await self._renewed.wait()

    async def run_while_leading(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs `work()` whenever the lease is held, and as long; endless unless the work ends by
        itself.

        An exception of the work is raised here. When cancelled: cancels the work, waits for its
        end, releases the lease.
        """
        while True:
            await self._acquire()
            try:
                ended = await self._hold(work)
            finally:
                if self.held:
                    await self._release()
            if ended:
                return

    async def _acquire(self) -> None:
        while True:
            pause_s = self._timing.poll_s
            try:
                body = await self._read()
                if self._observe(body) <= 0:
                    await self._take(body)
                    return
                pause_s = await self._stand_by(body)
            except (Conflict, AlreadyExists):
                pause_s = self._timing.retry_s  # another process was faster
            except (KubeError, TimeoutError) as error:
                self._report(LeadershipState(leading=False, problem=self._problem(error)))
            await asyncio.sleep(pause_s * random.uniform(0.9, 1.0))  # noqa: S311 (jitter)

    def _observe(self, body: Body | None) -> float:
        """How long until this process may try to take the lease; 0 or less: now."""
        now_s = self.clock_s()
        record = None if body is None else record_of(body)
        self._observed = observe(self._observed, record, now_s)
        return wait_s(self._observed, self.identity, now_s, self._timing.duration_s)

    async def _stand_by(self, body: Body | None) -> float:
        """Wait until the lease must be read, because it may be free or its watch is silent.
        Returns how long to wait then: without a watch, nothing has been waited for."""
        remaining_s = self._observe(body)
        if body is None:
            return min(self._timing.poll_s, remaining_s)
        version = body["metadata"]["resourceVersion"]
        events = self._leases.watch_object(LEASE, self._namespace, self._name, version)
        try:
            async with aclosing(events):
                while remaining_s > 0:
                    holder = "" if body is None else record_of(body).holder
                    self._report(LeadershipState(leading=False, holder=holder))
                    async with asyncio.timeout(min(remaining_s, self._timing.silence_s)):
                        body = await anext(events)
                    remaining_s = self._observe(body)
        except TimeoutError:
            return 0.0
        except (KubeError, StopAsyncIteration) as error:
            log.debug("lease-watch-ended", lease=self._name, error=str(error))
            return min(self._timing.poll_s, remaining_s)
        return 0.0

    async def _read(self) -> Body | None:
        try:
            async with asyncio.timeout(self._timing.request_s):
                return await self._leases.get(LEASE, self._namespace, self._name)
        except NotFound:
            return None

    async def _take(self, body: Body | None) -> None:
        """Raises Conflict or AlreadyExists if another process was faster, NotFound without the
        namespace."""
        sent_s = self.clock_s()
        if body is None:
            metadata = {"name": self._name, "namespace": self._namespace}
            body = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata}
            write, transitions = self._leases.create, 0
        else:
            write, transitions = self._leases.replace, record_of(body).transitions + 1
        now = _micro_time()
        spec = {
            "holderIdentity": self.identity,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }
        async with asyncio.timeout(self._timing.request_s):
            answer = await write(
                body | {"spec": spec | {"leaseDurationSeconds": self._timing.duration_s}}
            )
        self._holds(sent_s, answer)

    def _holds(self, sent_s: float, answer: Body) -> None:
        self._body = answer
        self._stop_at_s = sent_s + self._timing.duration_s - self._timing.margin_s
        self._renewed.set()

    async def _hold(self, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Returns when the lease is lost and the work has ended (False), or when the work ended
        by itself (True)."""
        self._report(LeadershipState(leading=True, holder=self.identity))
        working = asyncio.create_task(work())
        renewing = asyncio.create_task(self._renew())
        try:
            while self.held and not working.done() and not renewing.done():
                await asyncio.wait(
                    {working, renewing},
                    timeout=self._stop_at_s - self.clock_s(),
                    return_when=asyncio.FIRST_COMPLETED,
                )
            if ended := working.done():
                working.result()
        finally:
            working.cancel()
            cancel_interval_s, limit_s = None, None
            if not self.held or renewing.done():
                # A renewal that comes through now must not let the work pass again that is about to
                # end.
                renewing.cancel()
                self._stop_at_s = NEVER_S
                self._on_lost(renewing)
                cancel_interval_s, limit_s = self._timing.cancel_interval_s, self._timing.end_s
            try:
                await _wait_for_end(working, cancel_interval_s, limit_s)
            finally:
                renewing.cancel()
                await _wait_for_end(renewing)
        if not ended and not working.cancelled():
            working.result()
        return ended

    def _on_lost(self, renewing: asyncio.Task[str]) -> None:
        why = (
            f"held by {renewing.result()}"
            if renewing.done() and renewing.exception() is None
            else "not renewed in time"
        )
        log.warning("lease-lost", lease=self._name, why=why)
        self._report(LeadershipState(leading=False))

    async def _renew(self) -> str:
        """Waits until another process holds the lease; returns its name."""
        pause_s, doubtful = self._timing.renew_s, False
        while True:
            await asyncio.sleep(pause_s)
            try:
                if doubtful:
                    existing = await self._read()
                    if existing is None or record_of(existing).holder != self.identity:
                        return record_of(existing or {}).holder or "no candidate"
                    self._body, doubtful = existing, False
                await self._renew_once()
                pause_s = self._timing.renew_s
            except (Conflict, NotFound):
                pause_s, doubtful = 0.0, True  # a renewal whose answer was lost, or another holder
            except (KubeError, TimeoutError) as error:
                pause_s = self._timing.retry_s
                log.info("lease-not-renewed", lease=self._name, error=_text(error))

    async def _renew_once(self) -> None:
        sent_s = self.clock_s()
        async with asyncio.timeout(self._timing.request_s):
            answer = await self._leases.replace(
                self._body | {"spec": self._body["spec"] | {"renewTime": _micro_time()}}
            )
        self._holds(sent_s, answer)

    async def _release(self) -> None:
        """So that the next one need not wait. Best effort: it takes two requests' time at most."""
        self._stop_at_s = NEVER_S
        try:
            existing = (
                await self._read()
            )  # a renewal may have been cut off between being stored and being answered
            if existing is None or record_of(existing).holder != self.identity:
                return
            async with asyncio.timeout(self._timing.request_s):
                await self._leases.replace(
                    existing
                    | {
                        "spec": existing["spec"]
                        | {"holderIdentity": "", "renewTime": _micro_time()}
                    }
                )
        except (KubeError, TimeoutError) as error:
            log.info("lease-not-released", lease=self._name, error=_text(error))
        else:
            log.info("lease-released", lease=self._name)

    def _report(self, standing: LeadershipState) -> None:
        if standing == self._standing:
            return
        self._standing = standing
        if standing.problem:
            log.warning("lease-waiting", lease=self._name, problem=standing.problem)
        elif standing.leading:
            log.info("leading", lease=self._name, epoch=self.epoch)
        elif standing.holder:
            log.info("standby", lease=self._name, holder=standing.holder)
        self._on_change(standing)

    def _problem(self, error: Exception) -> str:
        if isinstance(
            error, NotFound
        ):  # reading takes none as an answer, so it was the namespace that a create missed
            return (
                f"namespace {self._namespace} does not exist: kubectl create namespace"
                f" {self._namespace}, or set AIM_NAMESPACE"
            )
        return f"lease {self._namespace}/{self._name}: {_text(error)}"


async def _wait_for_end(
    task: asyncio.Task[Any], cancel_interval_s: float | None = None, limit_s: float | None = None
) -> None:
    """Waits for a cancelled task even when cancelled meanwhile: the task must not continue
    unobserved.

    It is cancelled again every `cancel_interval_s`; after `limit_s` WorkDoesNotEnd is raised.
    """
    cancelled: asyncio.CancelledError | None = None
    begun_s = asyncio.get_running_loop().time()
    while not task.done():
        if limit_s is not None and asyncio.get_running_loop().time() - begun_s >= limit_s:
            raise WorkDoesNotEnd(f"the work has not ended {limit_s:.0f} s after the lease was lost")
        try:
            await asyncio.wait({task}, timeout=cancel_interval_s)
        except asyncio.CancelledError as error:
            cancelled = error
        if cancel_interval_s is not None:
            task.cancel()
    if cancelled is not None:
        raise cancelled


def _text(error: Exception) -> str:
    return str(error) or "no answer in time"


def _micro_time() -> str:
    """MicroTime of the API: RFC 3339 with microseconds. For people only; no code computes with
    it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
