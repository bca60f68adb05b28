"""The envelope of a message: CloudEvents headers, trace, cause and the id by which the stream
discards duplicates.

1. Headers follow the CloudEvents NATS binding's binary mode, in lower case only: the client returns
   them case-sensitively.
2. An id identifies the message, not the attempt to send it. It is created once per publication and
   repeated by retries. Objects and deletes have the id of the object version, so that the same
   event from two watchers is one message. Everything else has a unique id, so that a return to an
   earlier content within the duplicate window is not discarded. A message that is published again
   because another one came on its subject `supersedes_seq` that one, and its id contains it.
3. A delete expires with the messages before it in the log (`Nats-TTL`, ADR-43 of NATS). So does a
   handled dead letter.
4. A message is an event only if readers may trust it: it belongs on its subject, and versions and
   metadata of its object are valid. Everything else is Undecodable.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from aimschema import subjects
from aimschema.messages import (
    ActionTaken,
    DeadLetter,
    KindSynced,
    Message,
    ObjectChanged,
    ObjectDeleted,
    Progress,
    SpecDeleted,
    SpecVersion,
    StatusReported,
    decode,
    key_of,
    subject_of,
    type_of,
)

MAX_AGE_S = 7 * 24 * 3600
"""How long AIM_LOG keeps a message, and a delete is known."""

MSG_ID = "Nats-Msg-Id"
TTL = "Nats-TTL"
BATCH_ID = "Nats-Batch-Id"
BATCH_SEQUENCE = "Nats-Batch-Sequence"
BATCH_COMMIT = "Nats-Batch-Commit"
CAUSE = "aim-cause"
TRACEPARENT = "traceparent"
SOURCE = "ce-source"
_NAMES = frozenset(
    {
        "ce-specversion",
        "ce-id",
        "ce-type",
        "ce-subject",
        "ce-time",
        "ce-datacontenttype",
        SOURCE,
        TRACEPARENT,
        CAUSE,
        MSG_ID,
        TTL,
        BATCH_ID,
        BATCH_SEQUENCE,
        BATCH_COMMIT,
    }
)
_FIRST_LINE = b"NATS/1.0\r\n"
_END = b"\r\n\r\n"
ERROR_LENGTH = 1024
"""What is quoted of a message that is wrong may be as long as the message."""
_VERSION = re.compile(r"[0-9]{1,20}")
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Event:
    """A message as it was stored: `seq` in AIM_LOG and AIM_STATE alike, `time` of storing (aware
    UTC), `cause` the sequences that led here.

    `pending`: how many messages the reader had still to be sent when it was sent this one.
    """

    seq: int
    subject: str
    message: Message
    time: datetime
    cause: tuple[int, ...]
    source: str
    traceparent: str = ""
    pending: int = 0


@dataclass(frozen=True, slots=True)
class Undecodable:
    """An undecodable message, such as one of a later version. The caller counts it, publishes a
    dead letter and continues."""

    seq: int
    subject: str
    error: str
    data: bytes
    headers: Mapping[str, str]


class _Owner(msgspec.Struct):
    uid: str


class _Metadata(msgspec.Struct):
    """What of ObjectMeta everybody reads without looking twice."""

    name: str = ""
    uid: str = ""
    creationTimestamp: str = ""  # noqa: N815 (as Kubernetes writes it)
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    ownerReferences: list[_Owner] | None = None  # noqa: N815


def headers_for(
    message: Message,
    *,
    source: str,
    cause: Sequence[int] = (),
    traceparent: str | None = None,
    supersedes_seq: int | None = None,
) -> dict[str, str]:
    """The headers of one publication; for a retry use them again. A given `traceparent` (W3C Trace
    Context) is handed on as it is.

    `supersedes_seq` is the sequence of a message that hides an earlier publication of this one.
    """
    message_id = (
        _id_of(message) if supersedes_seq is None else f"{_id_of(message)}:over:{supersedes_seq}"
    )
    headers = {
        "ce-specversion": "1.0",
        "ce-id": message_id,
        "ce-type": type_of(message),
        SOURCE: source,
        "ce-subject": str(key_of(message) or message.kind),
        "ce-time": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "ce-datacontenttype": "application/json",
        TRACEPARENT: traceparent or _new_traceparent(),
        MSG_ID: message_id,
    }
    if cause:
        headers[CAUSE] = _cause_text(cause)
    if isinstance(message, ObjectDeleted) or (isinstance(message, DeadLetter) and message.handled):
        headers[TTL] = str(MAX_AGE_S)
    return headers


def encode_headers(headers: Mapping[str, str]) -> bytes | None:
    """Headers with names and values of the envelope as they go over the wire; None for others,
    which may need more care."""
    if not headers.keys() <= _NAMES or not "".join(headers.values()).isprintable():
        return None
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return f"NATS/1.0\r\n{lines}\r\n".encode()


def decode_headers(raw: bytes) -> dict[str, str] | None:
    """The inverse of `encode_headers`; None for other headers, and where the server adds a
    status."""
    if not raw.startswith(_FIRST_LINE) or not raw.isascii():
        return None
    headers: dict[str, str] = {}
    for line in raw[len(_FIRST_LINE) : -len(_END)].decode().split("\r\n"):
        name, colon, value = line.partition(": ")
        if not colon or name not in _NAMES or name in headers:
            return None
        headers[name] = value.strip()
    return headers


def open_event(
    seq: int,
    subject: str,
    time: datetime,
    data: bytes,
    headers: Mapping[str, str],
    pending: int = 0,
) -> Event | Undecodable:
    """The stored message as an event. Never raises: headers that make no sense are left out, a
    body that makes none is an Undecodable."""
    try:
        message = decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        return Undecodable(seq, subject, str(error)[:ERROR_LENGTH], data, headers)
    if flaw := _flaw(message, subject):
        return Undecodable(seq, subject, flaw[:ERROR_LENGTH], data, headers)
    traceparent = headers.get(TRACEPARENT, "")
    return Event(
        seq=seq,
        subject=subject,
        message=message,
        time=time,
        cause=_cause_of(headers.get(CAUSE, "")),
        source=headers.get(SOURCE, ""),
        traceparent=traceparent if _TRACEPARENT.fullmatch(traceparent) else "",
        pending=pending,
    )


def _flaw(message: Message, subject: str) -> str | None:
    """Why a message must not be folded although it could be decoded."""
    if subject_of(message) != subject:
        return f"a message for {subject_of(message)}"
    if len(subject) > subjects.LONGEST:
        return f"a subject of more than {subjects.LONGEST} characters"
    if (
        isinstance(message, KindSynced)
        and message.resource_version
        and not _VERSION.fullmatch(message.resource_version)
    ):
        return f"resource_version is no number: {message.resource_version!r}"
    if isinstance(
        message, ObjectChanged | ObjectDeleted | SpecVersion | SpecDeleted
    ) and not _VERSION.fullmatch(message.resource_version):
        return f"resource_version is no number: {message.resource_version!r}"
    if isinstance(message, ObjectChanged | ObjectDeleted):
        try:
            msgspec.convert(message.object.get("metadata"), _Metadata)
        except msgspec.ValidationError as error:
            return f"metadata of the object: {error}"
    return None


def _id_of(message: Message) -> str:
    match message:
        case DeadLetter(seq=seq, handled=False) if seq:
            return f"dead:{message.service}:{seq}"
        case ObjectChanged():
            return f"{message.uid}:{message.resource_version}{_epoch(message)}"
        case ObjectDeleted():
            return f"{message.uid}:deleted:{message.resource_version}{_epoch(message)}"
        case SpecVersion():
            return f"{message.uid}:{message.generation}{_epoch(message)}"
        case SpecDeleted():
            return f"{message.uid}:deleted:{message.resource_version}{_epoch(message)}"
        case StatusReported() | KindSynced() | ActionTaken() | DeadLetter() | Progress():
            return secrets.token_hex(16)


def _epoch(message: ObjectChanged | ObjectDeleted | SpecVersion | SpecDeleted) -> str:
    """A restored cluster gives the same versions to other contents."""
    return f":epoch:{message.epoch}" if message.epoch else ""


def _cause_text(cause: Sequence[int]) -> str:
    return ",".join(map(str, cause))


def _cause_of(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        return ()


def _new_traceparent() -> str:
    random = secrets.token_hex(24)
    return f"00-{random[:32]}-{random[32:]}-01"
