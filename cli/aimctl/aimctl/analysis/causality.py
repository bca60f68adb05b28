"""The causes of an event, back to what no service of the control plane did. Pure.

1. A report or an action names the events that led to it (`aim-cause`). It was made for an object in
   the version of that time.
2. The action that wrote a new version of an object is its cause. If no action wrote it, the change
   came from outside, and the story continues with the version before.
3. A cluster that was restored from a backup reuses versions for other content: a version belongs to
   an epoch (docs/adr/0018).
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from aimbus import Event
from aimschema.messages import (
    ActionTaken,
    DeadLetter,
    KindSynced,
    ObjectChanged,
    ObjectDeleted,
    Progress,
    SpecDeleted,
    SpecVersion,
    StatusReported,
)
from aimschema.reasons import READY
from aimschema.resources import AIM_GROUP, Key

WRITE_STATUS = "write-status"


@dataclass(frozen=True, slots=True)
class Link:
    """An event and the events right before it in the story. `written`: a version that one of our
    own actions made."""

    event: Event
    parents: tuple[int, ...]
    written: bool = False


def story(events: Iterable[Event], ends: Callable[[Event], bool]) -> list[Link]:
    """Everything that led to the last event for which `ends` is true, oldest first; empty where
    there is none."""
    known = {event.seq: event for event in events}
    last = max((seq for seq, event in known.items() if ends(event)), default=None)
    if last is None:
        return []
    index = _Index(known, epochs(known.values()))
    found: dict[int, Link] = {}
    open_ = [last]
    while open_:
        seq = open_.pop()
        if seq not in found and seq in known:
            found[seq] = index.link(known[seq])
            open_ += found[seq].parents
    return [found[seq] for seq in sorted(found)]


class _Index:
    """Which action wrote a version, and which version of an object was the latest at a time."""

    def __init__(self, known: dict[int, Event], epoch_at: Mapping[int, int]) -> None:
        self._writes: dict[tuple[int, Key, str], int] = {}
        self._versions: defaultdict[Key, list[int]] = defaultdict(list)
        for seq in sorted(known):
            message = known[seq].message
            match message:
                case ActionTaken() if message.resource_version:
                    self._writes.setdefault(
                        (
                            epoch_at[seq],
                            Key(message.kind, message.namespace, message.name),
                            message.resource_version,
                        ),
                        seq,
                    )
                case ObjectChanged() | ObjectDeleted():
                    self._versions[Key(message.kind, message.namespace, message.name)].append(seq)
                case _:
                    pass

    def link(self, event: Event) -> Link:
        message = event.message
        match message:
            case ObjectChanged() | ObjectDeleted():
                key = Key(message.kind, message.namespace, message.name)
                writer = self._writes.get((message.epoch, key, message.resource_version))
                return (
                    Link(event, self._before(key, event.seq))
                    if writer is None
                    else Link(event, (writer,), written=True)
                )
            case ActionTaken():
                return Link(event, event.cause + self._before(message.about, event.seq))
            case StatusReported():
                return Link(
                    event,
                    event.cause
                    + self._before(Key(message.kind, message.namespace, message.name), event.seq),
                )
            case _:
                return Link(event, event.cause)

    def _before(self, key: Key, seq: int) -> tuple[int, ...]:
        versions = self._versions.get(key, [])
        place = bisect_left(versions, seq)
        return (versions[place - 1],) if place else ()


def describe(link: Link) -> tuple[str, str]:
    """Who did what, as text."""
    message = link.event.message
    match message:
        case ObjectChanged():
            return author_of(message), f"{message.kind} {message.name}: {state_of(message)}"
        case ObjectDeleted():
            return "cluster", f"{message.kind} {message.name} is deleted"
        case StatusReported():
            conditions = ", ".join(
                f"{condition.type}={condition.status} ({condition.reason})"
                for condition in message.conditions
            )
            return (
                message.service,
                f"reports on {message.kind} {message.name}: {conditions or 'nothing more'}",
            )
        case ActionTaken():
            ended = "" if message.outcome == "done" else f" {message.outcome}: {message.detail}"
            return message.service, f"{message.verb} {message.kind} {message.name}{ended}"
        case KindSynced() | DeadLetter() | Progress() | SpecVersion() | SpecDeleted():
            return link.event.source, link.event.subject


def author_of(message: ObjectChanged) -> str:
    """The author of a version that no AIM action wrote: people change objects of the AIM kinds."""
    ours = str(message.object.get("apiVersion", "")).startswith(f"{AIM_GROUP}/")
    return "you" if ours else "cluster"


def state_of(message: ObjectChanged) -> str:
    """The state of an object in a word or two, in the terms of its kind."""
    status = message.object.get("status") or {}
    conditions = {condition.get("type"): condition for condition in status.get("conditions") or ()}
    if READY in conditions:
        ready = conditions[READY]
        state = status.get("status") or f"{READY}={ready.get('status')}"
        return f"{state} ({ready['reason']})" if ready.get("reason") else str(state)
    for type_ in ("Complete", "Failed"):
        if conditions.get(type_, {}).get("status") == "True":
            return type_.lower()
    if "parents" in status:
        return "reported by the gateway"
    return str(status.get("phase") or ("there" if status else "created"))


def notable_links(links: Iterable[Link]) -> list[tuple[Link, str, str]]:
    """The links worth showing, with who and what. Omits versions that our own writes made, status
    writes but the last, and repeated news."""
    notable: list[tuple[Link, str, str]] = []
    descriptions: set[tuple[str, str]] = set()
    links = list(links)
    for link in links:
        message, description = link.event.message, describe(link)
        is_status_write = (
            isinstance(message, ActionTaken)
            and message.verb == WRITE_STATUS
            and link is not links[-1]
        )
        if not link.written and not is_status_write and description not in descriptions:
            descriptions.add(description)
            notable.append((link, *description))
    return notable


def links(events: Iterable[Event], epoch_at: Mapping[int, int]) -> dict[int, Link]:
    """Every event with those right before it, by sequence; `epoch_at` as `epochs` gives it."""
    known = {event.seq: event for event in events}
    index = _Index(known, epoch_at)
    return {seq: index.link(event) for seq, event in known.items()}


def epochs(events: Iterable[Event]) -> dict[int, int]:
    """The epoch of each event, by sequence. An event without an epoch belongs to the latest epoch
    so far."""
    found, latest = {}, 0
    for event in sorted(events, key=lambda each: each.seq):
        message = event.message
        own = (
            message.epoch
            if isinstance(message, ObjectChanged | ObjectDeleted | KindSynced)
            else latest
        )
        latest = max(latest, own)
        found[event.seq] = own
    return found
