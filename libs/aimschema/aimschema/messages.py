"""Messages on the bus: one frozen struct each, JSON, distinguished by their `type`.

1. A new field has a default. A changed meaning is a v2 beside v1. A reader ignores unknown fields.
2. The `type` is also the CloudEvents type in the headers, so a consumer can route without decoding.
3. Times are RFC 3339 in UTC; sizes are bytes.
4. `epoch` counts how often the cluster was restored from an older backup. Versions compare within
   an epoch; a later epoch is newer, whatever its versions.
"""

import datetime
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct, structs

from aimschema import subjects
from aimschema.resources import Key

MAX_DEAD_LETTER_DATA_BYTES = 1 << 18
"""Up to this size a DeadLetter has the data of its message: it must fit into one message, in
base64."""
BY_API_SERVER = "api-server"
BY_WEBHOOK = "webhook"
BY_OWNER = "owner"
"""Who rejects an object. BY_OWNER: it belongs to another owner, so the service does not overwrite
it."""


class ObjectChanged(
    Struct, frozen=True, kw_only=True, tag_field="type", tag="aim.object.changed.v1"
):
    """An object has a new version.

    Sent by: watcher, once per (uid, resourceVersion). Read by: every service. `object` has the
    published part of the body (aimschema.published). `truncated` has the dotted paths that are
    omitted because the message would be too large, and `hashes` if sha256 replaces literals.
    `manager`, `operation` (Apply or Update) and `time` are those of the newest change of the spec
    (aimschema.spec_change); empty if unknown. A manager is a program, not a person.
    """

    kind: str
    namespace: str | None = None
    name: str
    uid: str
    resource_version: str
    object: dict[str, Any]
    truncated: tuple[str, ...] = ()
    epoch: int = 0
    manager: str = ""
    operation: str = ""
    time: str = ""


class ObjectDeleted(
    Struct, frozen=True, kw_only=True, tag_field="type", tag="aim.object.deleted.v1"
):
    """An object was deleted; `object` identifies it: name, namespace, uid and the last known
    version.

    Sent by: watcher, once per uid. Read by: every service. Expires with the log's age.
    """

    kind: str
    namespace: str | None = None
    name: str
    uid: str
    resource_version: str
    object: dict[str, Any]
    epoch: int = 0


class KindSynced(Struct, frozen=True, kw_only=True, tag_field="type", tag="aim.kind.synced.v1"):
    """All objects of a kind at `resource_version` have been published before this message.

    Sent by: watcher, after every list. Read by: every service, which acts on a kind only after this
    message: an empty bus must not look like an empty cluster. `installed` is False if the API
    server does not serve the kind.
    """

    kind: str
    resource_version: str
    objects: int
    installed: bool = True
    epoch: int = 0


class Rejection(Struct, frozen=True, kw_only=True):
    """The object of this kind and name is rejected. `by` is BY_API_SERVER, BY_WEBHOOK or BY_OWNER.
    `message` is the response."""

    by: str
    kind: str
    namespace: str | None = None
    name: str
    message: str


class Conflict(Struct, frozen=True, kw_only=True):
    """Field managers keep changing the object of this kind and name. `field` is a path such as
    `spec.replicas`. Without a field, the object keeps being deleted."""

    kind: str
    namespace: str | None = None
    name: str
    field: str = ""
    managers: tuple[str, ...] = ()


class ReportedCondition(Struct, frozen=True, kw_only=True):
    """A condition without times and generations, which the statuswriter adds. `status`: True, False
    or Unknown.

    `message` is for people, and complete. The other fields are for programs:
    - `own_message`: the message without the notes that were added to it; empty where none was.
    - `rejection` and `conflict`: what the message reports of the API server and of other field
      managers.
    - `attempt` and `next_attempt_time` (RFC 3339): of a failed attempt, where the kind has no
      status fields for them (AIMClusterModel).
    """

    type: str
    status: str
    reason: str
    message: str = ""
    own_message: str = ""
    rejection: Rejection | None = None
    conflict: Conflict | None = None
    attempt: int = 0
    next_attempt_time: str = ""


class ReportedWarning(Struct, frozen=True, kw_only=True):
    """A Warning Event, sent once for each `since`: the time when this message was first reported
    without interruption (RFC 3339). On a kind with status it is sent after the write of a condition
    of the same report."""

    reason: str
    message: str
    since: str = ""


class StatusReported(
    Struct, frozen=True, kw_only=True, tag_field="type", tag="aim.status.reported.v1"
):
    """All conditions and fields that one service reports on one object; those of an earlier report
    that are missing here are withdrawn.

    Sent by: discovery, cacher, deployer, router. Read by: statuswriter.
    `fields` are top-level fields of status other than conditions.
    """

    kind: str
    namespace: str | None = None
    name: str
    uid: str
    service: str
    observed_generation: int
    conditions: tuple[ReportedCondition, ...] = ()
    fields: dict[str, Any] = {}
    warnings: tuple[ReportedWarning, ...] = ()


class Mark(Struct, frozen=True, kw_only=True):
    """Identifies an apply: digests of the object that was sent, of its fields in the response, and
    of the whole response without status."""

    sent: str
    ours: str
    whole: str


class Finding(Struct, frozen=True, kw_only=True):
    """What an action found out, if no other message has it. A replay reads it.

    - read-log: why the log has no result (`message`), and its `last_lines`. The result itself is in
      the ConfigMap that follows.
    - inspect-image: of a failed inspection `reason`, `message`, `remedy`, the number of the
      `attempt`, and how many seconds the registry asks to wait (`retry_after_s`).
    - read-events: `reason` and note (`message`) of the newest Warning Event, empty without any.
    """

    reason: str = ""
    message: str = ""
    remedy: str = ""
    last_lines: str = ""
    attempt: int = 0
    retry_after_s: float = 0.0


class ActionTaken(Struct, frozen=True, kw_only=True, tag_field="type", tag="aim.action.taken.v1"):
    """A service carried out an action on an object of the cluster, for the object `about`.

    Sent by: every service that acts. Read by: people (timeline, replay), and the sending service
    when it starts. `outcome` is one of:
    - done
    - retry: the API server keeps responding with an error (`detail`); the service retries.
    - refused: rejected (`detail`); a user must act.

    An apply that is done has a `mark`, and an action that reads a `finding`. `rejected_by` of the
    others is as in Rejection.
    """

    service: str
    verb: str
    kind: str
    namespace: str | None = None
    name: str
    about: Key
    outcome: str
    detail: str = ""
    resource_version: str = ""
    mark: Mark | None = None
    rejected_by: str = ""
    finding: Finding | None = None


class DeadLetter(Struct, frozen=True, kw_only=True, tag_field="type", tag="aim.dead.v1"):
    """A failure that a service cannot resolve, for people. The service continues with everything
    else.

    Sent by: every service. Read by: people, and the service that sent it. There are two kinds:
    - Work on an object keeps failing unexpectedly: `attempts` is the number of failures. Sent once
      per failure streak; the retries continue.
    - A message on the bus is undecodable: `subject`, `seq`, `headers` and `data` are those of the
      message (JSON has the data in base64). Sent once per service and message; kind, namespace and
      name are those of its subject, empty if it has none. If the message has more than
      MAX_DEAD_LETTER_DATA_BYTES, `data` is omitted; AIM_LOG has it.

    `handled`: a person has handled the previous dead letter on its subject. For work, the service
    reconciles the object immediately.
    """

    service: str
    kind: str
    namespace: str | None = None
    name: str
    error: str
    attempts: int
    subject: str = ""
    seq: int = 0
    headers: dict[str, str] = {}
    data: bytes = b""
    size_bytes: int = 0
    handled: bool = False


class Progress(Struct, frozen=True, kw_only=True, tag_field="type", tag="aim.progress.v1"):
    """The progress of a download. Core NATS, not stored. `rate` is bytes per second.

    Sent by: cacher, for each line the downloader prints. Read by: people.
    """

    kind: str
    namespace: str | None = None
    name: str
    phase: str
    bytes: int
    total: int
    rate: float = 0.0
    seconds_left: float | None = None
    file: str = ""


class SpecVersion(Struct, frozen=True, kw_only=True, tag_field="type", tag="aim.history.spec.v1"):
    """A version of the spec of an AIM object, in AIM_HISTORY.

    Sent by: watcher, once per uid and generation. Read by: people. Literal values of environment
    variables are `sha256:<hex>` (aimschema.env_literals). `annotations` are those with the AIM
    prefix. `truncated` has the dotted paths that are omitted because the message would be too
    large; a spec without one of its parts cannot be put back. The other fields are as in
    ObjectChanged.
    """

    kind: str
    namespace: str | None = None
    name: str
    uid: str
    generation: int
    resource_version: str
    spec: dict[str, Any]
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    manager: str = ""
    operation: str = ""
    time: str = ""
    truncated: tuple[str, ...] = ()
    epoch: int = 0


class SpecDeleted(
    Struct, frozen=True, kw_only=True, tag_field="type", tag="aim.history.deleted.v1"
):
    """An AIM object was deleted, in AIM_HISTORY. `generation` is that of its last recorded version.

    Sent by: watcher, once per uid. Read by: people.
    """

    kind: str
    namespace: str | None = None
    name: str
    uid: str
    generation: int
    resource_version: str
    epoch: int = 0


Message: TypeAlias = (
    ObjectChanged
    | ObjectDeleted
    | KindSynced
    | StatusReported
    | ActionTaken
    | DeadLetter
    | Progress
    | SpecVersion
    | SpecDeleted
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


def decode(data: bytes) -> Message:
    """Raises msgspec.DecodeError (a ValueError) for anything that is not one of the messages
    above."""
    return _decoder.decode(data)


def type_of(message: Message) -> str:
    """The CloudEvents type, such as `aim.object.changed.v1`."""
    return str(type(message).__struct_config__.tag)


def key_of(message: Message) -> Key | None:
    """The object a message is about; None for KindSynced, which is about a kind."""
    if isinstance(message, KindSynced):
        return None
    return Key(message.kind, message.namespace, message.name)


def subject_of(message: Message) -> str:
    """Where a message is published."""
    match message:
        case KindSynced(kind=kind):
            return subjects.of_synced(kind)
        case ObjectChanged() | ObjectDeleted():
            return subjects.of_object(Key(message.kind, message.namespace, message.name))
        case StatusReported():
            return subjects.of_report(
                Key(message.kind, message.namespace, message.name), message.service
            )
        case ActionTaken():
            return subjects.of_action(
                message.service, Key(message.kind, message.namespace, message.name)
            )
        case DeadLetter(subject=subject) if subject:
            return subjects.of_unreadable(message.service, subject)
        case DeadLetter():
            return subjects.of_dead(
                message.service, Key(message.kind, message.namespace, message.name)
            )
        case Progress():
            return subjects.of_progress(Key(message.kind, message.namespace, message.name))
        case SpecVersion() | SpecDeleted():
            return subjects.of_history(Key(message.kind, message.namespace, message.name))


def acknowledge(dead_letter: DeadLetter) -> DeadLetter:
    """The message on the dead letter's subject that marks it as handled."""
    return structs.replace(dead_letter, handled=True, data=b"", headers={})


def timestamp(moment: datetime.datetime) -> str:
    """RFC 3339 in whole seconds, as Kubernetes writes times (metav1.Time)."""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_timestamp(text: str) -> datetime.datetime:
    """The inverse of `timestamp`; raises ValueError."""
    return datetime.datetime.fromisoformat(text)
