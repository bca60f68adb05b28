"""A recording: what happened in a namespace, as a file that can be replayed anywhere.

1. JSON, one document a line. The first is the Header; every other one is an event, in the order of
   the sequences.
2. It has the objects, reports, actions and markers of the namespace and of cluster-scoped kinds. Of
   other namespaces it has what these depend on: the Gateways that the namespace's configs and
   HTTPRoutes name, and the reports and ConfigMaps of model images in the control plane's namespace.
   Secrets are never on the bus.
3. Events up to the header's `begins` are the initial state: the latest of each subject, from before
   `since` or older than the log.
4. Literal values of environment variables are removed, wherever they are in an object.
"""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, structs

from aimbus import Bus, Event, Undecodable
from aimbus.envelope import CAUSE, SOURCE, TRACEPARENT, open_event
from aimctl.analysis.diff import REDACTED
from aimctl.event_log import history_of, in_order
from aimctl.parsing import BadFile
from aimschema.messages import ObjectChanged, ObjectDeleted, encode

VERSION = 1
T = TypeVar("T")


class BadRecording(BadFile):
    """A file that is no recording, or one of a later version; the message names the line."""


class Header(Struct, frozen=True, kw_only=True):
    """The first line. `until` is when the recording was made: it separates what was never reported
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


async def make_recording(
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
        header, tuple(replace(event, message=redact(event.message)) for event in before + logged)
    )


def split(events: Iterable[Event], since: datetime.datetime) -> tuple[list[Event], list[Event]]:
    """Of what is older than `since` only the latest of every subject; and the rest."""
    events = list(events)
    latest = {event.subject: event for event in events if event.time < since}
    return in_order(latest.values()), [event for event in events if event.time >= since]


def redact(message: Any) -> Any:
    """The message without literal values of environment variables."""
    return (
        structs.replace(message, object=_redact_node(message.object))
        if isinstance(message, ObjectChanged | ObjectDeleted)
        else message
    )


def _redact_node(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            name: (
                _variables(value)
                if name == "env" and isinstance(value, list)
                else _redact_node(value)
            )
            for name, value in node.items()
        }
    return [_redact_node(each) for each in node] if isinstance(node, list) else node


def _variables(env: list[Any]) -> list[Any]:
    return [
        {**each, "value": REDACTED} if isinstance(each, dict) and "value" in each else each
        for each in env
    ]
