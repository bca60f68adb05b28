"""A recording: what happened in a namespace, as a file that can be replayed anywhere.

1. JSON, a line each. The first is the Header, every other one an event, in the order of their
   sequences.
2. It has objects, reports, actions and markers: of the namespace and of cluster-scoped kinds. Of
   other namespaces it has what these rest on: the Gateways that the namespace's configs and
   HTTPRoutes name, and what the control plane's own namespace says and keeps of model images.
   Secrets never were on the bus.
3. Events up to the header's `begins` say how things were when it begins: the latest of each
   subject, from before `since` or older than the log.
4. Literal values of environment variables are not in it, wherever they stand in an object.
"""

import asyncio
import contextlib
import datetime
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, structs

import aimbus
from aim_discovery.settings import DiscoverySettings
from aimbus import Bus, CaughtUp, Event, Undecodable
from aimbus.envelope import CAUSE, SOURCE, TRACEPARENT, open_event
from aimschema import subjects
from aimschema.credentials import DEFAULT_CONFIG
from aimschema.messages import ObjectChanged, ObjectDeleted, encode
from aimschema.names import image_config_map
from aimschema.reasons import DISCOVERY
from aimschema.resources import CONFIG, CONFIG_MAP, GATEWAY, MODEL, ROUTE, Key

VERSION = 1
REDACTED = "redacted"
WITHIN_S = 30.0
PACE = 50
"""After so many events it is looked whether they came too fast."""
T = TypeVar("T")


class BadRecording(ValueError):
    """A file that is no recording, or one of a later version; the message says which line."""


class Header(Struct, frozen=True, kw_only=True):
    """The first line. `until`: when it was made, so that what nobody said by then can be told
    from what was cut off."""

    recording: int
    origin: str
    namespace: str | None = None
    since: datetime.datetime | None = None
    until: datetime.datetime
    begins: int = 0


class _Line(Struct, frozen=True, kw_only=True):
    seq: int
    time: datetime.datetime
    subject: str
    source: str = ""
    cause: tuple[int, ...] = ()
    traceparent: str = ""
    message: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Recording:
    header: Header
    events: tuple[Event, ...]


_header_decoder = msgspec.json.Decoder(Header)
_line_decoder = msgspec.json.Decoder(_Line)


def save(recording: Recording, file: Path) -> None:
    lines = [
        msgspec.json.encode(recording.header),
        *(msgspec.json.encode(_line(event)) for event in recording.events),
    ]
    file.write_bytes(b"\n".join(lines) + b"\n")


def load(file: Path) -> Recording:
    """Raises BadRecording, or OSError where the file cannot be read."""
    first, *rest = file.read_bytes().split(b"\n")
    try:
        header = _header_decoder.decode(first)
    except (msgspec.DecodeError, ValueError) as error:
        raise BadRecording(f"{file}: line 1 is no header of a recording: {error}") from error
    if header.recording > VERSION:
        raise BadRecording(
            f"{file}: a recording of version {header.recording}; this aimctl reads up to {VERSION}"
        )
    return Recording(
        header,
        tuple(
            _open(file, number, line) for number, line in enumerate(rest, start=2) if line.strip()
        ),
    )


def _open(file: Path, number: int, raw: bytes) -> Event:
    try:
        line = _line_decoder.decode(raw)
    except (msgspec.DecodeError, ValueError) as error:
        raise BadRecording(f"{file}: line {number}: {error}") from error
    headers = {
        CAUSE: ",".join(map(str, line.cause)),
        SOURCE: line.source,
        TRACEPARENT: line.traceparent,
    }
    event = open_event(line.seq, line.subject, line.time, bytes(line.message), headers)
    if isinstance(event, Undecodable):
        raise BadRecording(f"{file}: line {number}: {event.error}")
    return event


def _line(event: Event) -> _Line:
    raw = msgspec.Raw(encode(event.message))
    return _Line(
        seq=event.seq,
        time=event.time,
        subject=event.subject,
        source=event.source,
        cause=event.cause,
        traceparent=event.traceparent,
        message=raw,
    )


async def record(
    bus: Bus, namespace: str, since: datetime.datetime | None, now: datetime.datetime
) -> Recording:
    """Everything that AIM_LOG and AIM_STATE have of a namespace, up to now. Raises RuntimeError
    where there is no stream to read."""
    before, logged = await history_of(bus, namespace)
    if since is not None:
        before, logged = split(before + logged, since)
    header = Header(
        recording=VERSION,
        origin="aimctl record",
        namespace=namespace,
        since=since,
        until=now,
        begins=max((event.seq for event in before), default=0),
    )
    return Recording(
        header, tuple(replace(event, message=redacted(event.message)) for event in before + logged)
    )


async def history_of(bus: Bus, namespace: str) -> tuple[list[Event], list[Event]]:
    """As `history`: a namespace, what is above it, and what of other namespaces these rest on."""
    before, logged = await history(bus, subjects.within(namespace))
    if elsewhere := rests_on([*before, *logged], namespace):
        more = await history(bus, elsewhere)
        before, logged = in_order(before + more[0]), in_order(logged + more[1])
    return before, logged


async def history(
    bus: Bus, filters: Sequence[str], *, most_per_s: float | None = None
) -> tuple[list[Event], list[Event]]:
    """What AIM_STATE still knows and the log has dropped, and the log. Raises RuntimeError where
    there is no stream to read.

    `most_per_s`: the log is read no faster, so that a running system does not feel it.
    """
    logged = [
        event
        async for event in _paced(aimbus.read_log(bus, filters), most_per_s)
        if isinstance(event, Event)
    ]
    known, last = (
        {event.seq for event in logged},
        max((event.seq for event in logged), default=None),
    )
    dropped = [
        event
        for event in await latest(bus, filters)
        if event.seq not in known and (last is None or event.seq < last)
    ]
    return in_order(dropped), logged


async def latest(bus: Bus, filters: Sequence[str]) -> list[Event]:
    """What AIM_STATE has. Raises RuntimeError where there is no stream to read."""
    found = []
    try:
        async with (
            asyncio.timeout(WITHIN_S),
            contextlib.aclosing(aimbus.follow(bus, filters)) as items,
        ):
            async for item in items:
                if isinstance(item, CaughtUp):
                    break
                if isinstance(item, Event):
                    found.append(item)
    except TimeoutError:
        raise RuntimeError(
            "the NATS server has no stream AIM_STATE, or does not answer: is the watcher running?"
        ) from None
    return found


async def _paced(items: AsyncIterator[T], most_per_s: float | None) -> AsyncIterator[T]:
    """The server sends no more than is taken (a batch ahead at most)."""
    started_s, count = time.monotonic(), 0
    async for item in items:
        yield item
        count += 1
        if most_per_s is not None and count % PACE == 0:
            await asyncio.sleep(max(0.0, started_s + count / most_per_s - time.monotonic()))


def in_order(events: Iterable[Event]) -> list[Event]:
    return sorted(events, key=lambda event: event.seq)


def rests_on(events: Iterable[Event], namespace: str) -> list[str]:
    """Subjects of what planners look at in other namespaces: Gateways, what model images say,
    and the config with their pull secrets."""
    changed = [event.message for event in events if isinstance(event.message, ObjectChanged)]
    gateways = {
        key
        for message in changed
        if message.namespace == namespace
        for key in _gateways(message, namespace)
    }
    own = DiscoverySettings().namespace
    images = {
        Key(CONFIG_MAP.kind, own, image_config_map(message.name))
        for message in changed
        if message.kind == MODEL.kind
    }
    objects = {
        key
        for key in (*gateways, *images, Key(CONFIG.kind, own, DEFAULT_CONFIG))
        if key.namespace != namespace
    }
    done = {subjects.of_action(DISCOVERY, key) for key in images if key.namespace != namespace}
    return sorted({*map(subjects.of_object, objects), *done})


def _gateways(message: ObjectChanged, namespace: str) -> Iterator[Key]:
    spec: dict[str, Any] = message.object.get("spec") or {}
    named = []
    if message.kind == CONFIG.kind:
        named = [(spec.get("routing") or {}).get("gateway") or {}]
    elif message.kind == ROUTE.kind:
        named = spec.get("parentRefs") or []
    for each in named:
        if each.get("name") and each.get("kind", GATEWAY.kind) == GATEWAY.kind:
            yield Key(GATEWAY.kind, str(each.get("namespace") or namespace), str(each["name"]))


def split(events: Iterable[Event], since: datetime.datetime) -> tuple[list[Event], list[Event]]:
    """Of what is older than `since` only the latest of every subject; and the rest."""
    events = list(events)
    latest = {event.subject: event for event in events if event.time < since}
    return in_order(latest.values()), [event for event in events if event.time >= since]


def redacted(message: Any) -> Any:
    """The message without literal values of environment variables."""
    return (
        structs.replace(message, object=_redacted(message.object))
        if isinstance(message, ObjectChanged | ObjectDeleted)
        else message
    )


def _redacted(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            name: (
                _variables(value) if name == "env" and isinstance(value, list) else _redacted(value)
            )
            for name, value in node.items()
        }
    return [_redacted(each) for each in node] if isinstance(node, list) else node


def _variables(env: list[Any]) -> list[Any]:
    return [
        {**each, "value": REDACTED} if isinstance(each, dict) and "value" in each else each
        for each in env
    ]
