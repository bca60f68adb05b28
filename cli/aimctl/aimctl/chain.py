"""What led to an event: its causes, and theirs, back to what nobody in the control plane did. Pure.

1. A report or an action names the events that led to it (`aim-cause`).
2. A new version of an object was caused by the action that wrote it; where none did, somebody else changed the object, and the story goes on
   with the version before.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from aimbus import Event
from aimschema.messages import ActionTaken, DeadLetter, KindSynced, ObjectChanged, ObjectDeleted, Progress, StatusReported
from aimschema.reasons import READY
from aimschema.resources import Key


@dataclass(frozen=True, slots=True)
class Link:
    """An event and the events right before it in the story."""

    event: Event
    parents: tuple[int, ...]


def story(events: Iterable[Event], ends: Callable[[Event], bool]) -> list[Link]:
    """Everything that led to the last event for which `ends` is true, oldest first; empty where there is none."""
    known = {event.seq: event for event in events}
    last = max((seq for seq, event in known.items() if ends(event)), default=None)
    if last is None:
        return []
    writes, before = _index(known)
    found: dict[int, Link] = {}
    open_ = [last]
    while open_:
        seq = open_.pop()
        if seq in found or seq not in known:
            continue
        parents = _parents(known[seq], writes, before)
        found[seq] = Link(known[seq], parents)
        open_ += parents
    return [found[seq] for seq in sorted(found)]


Version = tuple[Key, str]


def _index(known: dict[int, Event]) -> tuple[dict[Version, int], dict[int, int]]:
    """Which action wrote a version, and which version of the object came before an event."""
    writes: dict[Version, int] = {}
    before: dict[int, int] = {}
    latest: dict[Key, int] = {}
    for seq in sorted(known):
        message = known[seq].message
        match message:
            case ActionTaken() if message.resource_version:
                writes[Key(message.kind, message.namespace, message.name), message.resource_version] = seq
            case ObjectChanged() | ObjectDeleted():
                key = Key(message.kind, message.namespace, message.name)
                if key in latest:
                    before[seq] = latest[key]
                latest[key] = seq
            case _:
                pass
    return writes, before


def _parents(event: Event, writes: dict[Version, int], before: dict[int, int]) -> tuple[int, ...]:
    message = event.message
    match message:
        case ObjectChanged() | ObjectDeleted():
            version = (Key(message.kind, message.namespace, message.name), message.resource_version)
            if version in writes:
                return (writes[version],)
            return (before[event.seq],) if event.seq in before else ()
        case _:
            return event.cause


def describe(link: Link) -> tuple[str, str]:
    """Who, and what, in words."""
    message = link.event.message
    match message:
        case ObjectChanged():
            who = "you" if not link.parents else "cluster"
            return who, f"{message.kind} {message.name}: {_state(message)}"
        case ObjectDeleted():
            return "cluster", f"{message.kind} {message.name} is gone"
        case StatusReported():
            said = ", ".join(f"{condition.type}={condition.status} ({condition.reason})" for condition in message.conditions)
            return message.service, f"reports on {message.kind} {message.name}: {said or 'nothing more'}"
        case ActionTaken():
            return (
                message.service,
                f"{message.verb} {message.kind} {message.name}{'' if message.outcome == 'done' else f' {message.outcome}: {message.detail}'}",
            )
        case KindSynced() | DeadLetter() | Progress():
            return link.event.source, link.event.subject


def _state(message: ObjectChanged) -> str:
    """The state of an object in a word or two, as kinds say it."""
    status = message.object.get("status") or {}
    conditions = {condition.get("type"): condition for condition in status.get("conditions") or ()}
    if READY in conditions:
        return f"{status.get('status', READY)} ({conditions[READY].get('reason') or conditions[READY].get('status')})"
    for type_ in ("Complete", "Failed"):
        if conditions.get(type_, {}).get("status") == "True":
            return type_.lower()
    if "parents" in status:
        return "seen by the gateway"
    return str(status.get("phase") or ("there" if status else "created"))


def worth_telling(link: Link) -> bool:
    """Without the versions that our own writes made: the write says it."""
    message = link.event.message
    if isinstance(message, ObjectChanged):
        return not link.parents or (len(link.parents) == 1 and _is_foreign(message))
    return True


def _is_foreign(message: ObjectChanged) -> bool:
    return not message.kind.startswith("AIM") and message.kind != "ModelCache"
