"""How soon a status follows a create: of the control plane, of a client that only watches and
patches, and where the time between goes."""

import asyncio
import datetime
import statistics
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

import aimbus
from aimbus import Event
from aimschema import subjects
from aimschema.resources import SERVICE, Key
from support.load import decode_change
from support.world import Space, World

MISSING_TEMPLATE = "missing"
BETWEEN_S = 0.1
"""So that the work of one try is over before the next."""
WITHIN_S = 30.0
HOPS = (
    "API server and watch",
    "watcher: stored",
    "mirrored, delivered",
    "deployer begins",
    "report of the deployer delivered",
    "statuswriter begins",
    "status visible",
    "last work for the service done",
)


@dataclass
class Try:
    """Times are of time.time(), in s; None for what did not come."""

    name: str
    sent: float
    times: dict[str, float] = field(default_factory=dict)

    def ms(self, what: str) -> float:
        return (self.times[what] - self.sent) * 1000


@dataclass
class Quantiles:
    """In ms."""

    least: float
    p50: float
    p95: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Quantiles":
        ordered = sorted(values)
        return cls(ordered[0], statistics.median(ordered), ordered[int(len(ordered) * 0.95)])


class StatusWatch:
    """Arrival of each service, and of its first status."""

    def __init__(self) -> None:
        self.arrived: dict[str, dict[str, float]] = {}
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def running(self, space: Space) -> AsyncIterator["StatusWatch"]:
        version = await space.api.version_of(space.path(SERVICE))
        task = asyncio.create_task(self._run(space, version))
        try:
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self, space: Space, version: str) -> None:
        async with aclosing(space.api.watch(space.path(SERVICE), version)) as lines:
            async for line in lines:
                now = time.time()
                change = decode_change(line)
                times = self.arrived.setdefault(change.object.metadata.name, {})
                times.setdefault("API server and watch", now)
                if change.object.status.status:
                    times.setdefault("status visible", now)
                    self._changed.set()

    async def until_status(self, name: str) -> dict[str, float]:
        async with asyncio.timeout(WITHIN_S):
            while "status visible" not in self.arrived.get(name, {}):
                self._changed.clear()
                await self._changed.wait()
        return self.arrived[name]


async def tries(space: Space, count: int, prefix: str) -> list[Try]:
    """One at a time."""
    found = []
    async with StatusWatch().running(space) as watch:
        for number in range(count):
            name = f"{prefix}-{number}"
            one = Try(name, time.time())
            await space.create_service(name, MISSING_TEMPLATE)
            one.times = await watch.until_status(name)
            found.append(one)
            await asyncio.sleep(BETWEEN_S)
    return found


async def traced_tries(world: World, count: int, logs: Path) -> list[Try]:
    """With the times between: services must log with AIM_LOG_LEVEL=DEBUG into `logs`."""
    deliveries: dict[str, float] = {}
    ready = asyncio.Event()
    following = asyncio.create_task(_follow(world, deliveries, ready))
    await ready.wait()
    found = await tries(world.space, count, "hop")
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
    stored = await _stored(world)
    passes = _passes(logs)
    for one in found:
        _complete(one, Key(SERVICE.kind, world.space.name, one.name), deliveries, stored, passes)
    return found


async def _follow(world: World, deliveries: dict[str, float], ready: asyncio.Event) -> None:
    """First arrival of each subject, for a reader of AIM_STATE as services are."""
    async with aclosing(aimbus.follow(world.bus, [subjects.ALL])) as items:
        async for item in items:
            if isinstance(item, Event):
                deliveries.setdefault(item.subject, time.time())
            elif isinstance(item, aimbus.CaughtUp):
                ready.set()


async def _stored(world: World) -> dict[str, list[float]]:
    """By subject, when JetStream stored its messages."""
    times: dict[str, list[float]] = {}
    async with aclosing(aimbus.read_stored(world.bus, [subjects.ALL])) as messages:
        async for message in messages:
            times.setdefault(message.subject, []).append(message.time.timestamp())
    return times


@dataclass(frozen=True, slots=True)
class Pass:
    """One reconcile, from the log."""

    begin: float
    end: float


def _passes(logs: Path) -> dict[tuple[str, str], list[Pass]]:
    """By service and key."""
    found: dict[tuple[str, str], list[Pass]] = {}
    for file in logs.glob("*.log"):
        for line in file.read_bytes().splitlines():
            if b'"reconciled"' in line:
                entry = msgspec.json.decode(line)
                end = parse_timestamp_us(entry["timestamp"])
                found.setdefault((file.stem, entry["key"]), []).append(
                    Pass(end - entry["duration_s"], end)
                )
    return found


def parse_timestamp_us(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def _complete(
    one: Try,
    key: Key,
    deliveries: dict[str, float],
    stored: dict[str, list[float]],
    passes: dict[tuple[str, str], list[Pass]],
) -> None:
    subject = f"{subjects.OBJECT}.{key.kind}.{key.namespace}.{key.name}"
    report = f"{subjects.REPORT}.{key.kind}.{key.namespace}.{key.name}.deployer"
    one.times["watcher: stored"] = stored[subject][0]
    one.times["mirrored, delivered"] = deliveries[subject]
    one.times["report of the deployer delivered"] = deliveries[report]
    one.times["deployer begins"] = passes["deployer", str(key)][0].begin
    visible = one.times["status visible"]
    writes = [each.begin for each in passes["statuswriter", str(key)] if each.begin < visible]
    one.times["statuswriter begins"] = max(writes)
    ends = [each.end for (_, other), all_ in passes.items() if other == str(key) for each in all_]
    about = [time_ for name, times in stored.items() if f".{key.name}" in name for time_ in times]
    one.times["last work for the service done"] = max(*ends, *about)


def hop_rows(found: list[Try]) -> list[tuple[str, float]]:
    """The median of each hop, in ms after the create was sent."""
    return [(hop, statistics.median(one.ms(hop) for one in found)) for hop in HOPS]


def quantiles(found: list[Try]) -> Quantiles:
    return Quantiles.of(one.ms("status visible") for one in found)
