"""What happened to an object and its dependencies, in causal order: who did what, why, and how much
later. Pure.

1. A step comes after its cause, whatever the order in which both were stored: the watcher may
   publish a version before the service that wrote it publishes its action.
2. An object that no service of ours wrote, such as a Job's pod, belongs to its owner.
3. A version that one of our actions wrote is shown with the action. A version without a relevant
   change is left out; its effects belong to its cause.
4. A cluster that was restored from a backup begins a new epoch. Only what differs from before the
   restore is shown.
"""

import datetime
import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aimbus import Event
from aimctl.analysis.causality import (
    WRITE_STATUS,
    Link,
    author_of,
    epochs,
    links,
    state_of,
)
from aimctl.analysis.diff import differing
from aimschema import labels
from aimschema.discovery_result import from_config_map
from aimschema.messages import ActionTaken, Message, ObjectChanged, ObjectDeleted, StatusReported
from aimschema.names import DEFAULT_CONFIG
from aimschema.resources import (
    AIM_GROUP,
    CACHE,
    CONFIG,
    CONFIG_MAP,
    GATEWAY,
    INFERENCE_SERVICE,
    MODEL,
    POD,
    RESOURCES,
    ROUTE,
    SERVICE,
    TEMPLATE,
    Key,
)

EDITED = ("annotations", "labels", "deletionTimestamp")
"""What people change in metadata."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A step. `cause` is the sequence of the step that led to it; None if no service of ours did.
    `after_s` is the time since that step.

    `epoch` is how often the cluster had been restored by then.
    """

    seq: int
    time: datetime.datetime
    who: str
    key: Key
    what: str
    why: str
    cause: int | None
    after_s: float
    epoch: int = 0


def build_timeline(events: Sequence[Event], key: Key) -> list[Entry]:
    """The steps of an object's story, in causal order."""
    about = related_keys(events, key)
    ours = [
        event
        for event in events
        if (event_key := key_of_message(event.message)) is not None and event_key in about
    ]
    epoch_at = epochs(events)
    linked = links(ours, epoch_at)
    parents = {seq: _parents(link, linked) for seq, link in linked.items()}
    versions = {
        (m.epoch, key_of_message(m), m.resource_version): m
        for m in (event.message for event in ours)
        if isinstance(m, ObjectChanged)
    }
    story = _Story(versions)
    for seq in _causal(parents):
        story.add(linked[seq], parents[seq], epoch_at[seq])
    return list(story.entries.values())


class _Story:
    """The steps so far, and what the next one is compared with. `versions` are by epoch, object
    and resourceVersion."""

    def __init__(self, versions: Mapping[tuple[int, Key | None, str], ObjectChanged]) -> None:
        self.entries: dict[int, Entry] = {}
        self._versions = versions
        self._shown_by: dict[int, int | None] = {}
        """By the sequence of each event: the entry that its effects belong to."""
        self._latest_entry: dict[Key, int] = {}
        self._latest_text: dict[tuple[str, Key], str] = {}
        self._latest_version: dict[Key, ObjectChanged] = {}
        self._latest_report: dict[tuple[str, Key], StatusReported] = {}

    def add(self, link: Link, parents: Iterable[int], epoch: int) -> None:
        """Add the step of an event that comes after all before it. One without news adds none."""
        seq, subject = link.event.seq, key_of_message(link.event.message)
        assert subject is not None
        cause = self._cause(link.event.message, subject, parents)
        who, what, why = self._describe(link.event.message, epoch)
        if link.written or not what or self._latest_text.get((who, subject)) == what + why:
            self._shown_by[seq] = cause
            return
        self._latest_text[who, subject] = what + why
        self._shown_by[seq] = self._latest_entry[subject] = seq
        time = link.event.time
        after_s = 0.0
        if cause is not None:
            after_s = max(0.0, (time - self.entries[cause].time).total_seconds())
        self.entries[seq] = Entry(seq, time, who, subject, what, why, cause, after_s, epoch)

    def _cause(self, message: Message, subject: Key, parents: Iterable[int]) -> int | None:
        """The latest entry that led to it; for a version that none did, that of its owner."""
        shown = (self._shown_by.get(parent) for parent in parents)
        cause = max((seq for seq in shown if seq is not None), default=None)
        if cause is None and isinstance(message, ObjectChanged):
            owners = (self._latest_entry.get(key) for key in owners_of(subject, message.object))
            cause = max((seq for seq in owners if seq is not None), default=None)
        return cause

    def _describe(self, message: Message, epoch: int) -> tuple[str, str, str]:
        """Who, what and why."""
        match message:
            case StatusReported(service=service):
                place = (service, Key(message.kind, message.namespace, message.name))
                last = self._latest_report.get(place)
                self._latest_report[place] = message
                return (service, *_news(last, message))
            case ActionTaken(verb=verb, service=service) if verb == WRITE_STATUS:
                version = self._versions.get(
                    (epoch, key_of_message(message), message.resource_version)
                )
                state = verb if version is None else f"is now {state_of(version)}"
                return service, state, _ready_message(version)
            case ActionTaken(verb=verb, service=service, outcome=outcome):
                what = verb if outcome == "done" else f"{verb} {outcome}"
                return service, what, message.detail
            case ObjectDeleted():
                return "cluster", "is deleted", ""
            case ObjectChanged():
                return self._describe_version(message)
            case _:
                return "", "", ""

    def _describe_version(self, message: ObjectChanged) -> tuple[str, str, str]:
        here = Key(message.kind, message.namespace, message.name)
        before = self._latest_version.get(here)
        self._latest_version[here] = message
        edit = _describe_edit(None if before is None else before.object, message.object)
        news = edit or state_of(message)
        if before is None or message.epoch <= before.epoch:
            return author_of(message), news, ""
        if message.object == before.object:
            return "cluster", "", ""
        return "cluster", f"went back in time: {news}", ""


def without_unconfirmed_writes(events: Sequence[Event], key: Key) -> list[Entry]:
    """The steps without status writes whose version has not arrived yet: only the version has the
    content, and it may arrive later."""
    return [entry for entry in build_timeline(events, key) if entry.what != WRITE_STATUS]


def _parents(link: Link, linked: dict[int, Link]) -> set[int]:
    """The known causes, without the version that the action itself wrote, in case the watcher
    published that first."""
    found = {parent for parent in link.parents if parent in linked and parent != link.event.seq}
    if isinstance(link.event.message, ActionTaken):
        found = {
            parent
            for parent in found
            if not (linked[parent].written and linked[parent].parents == (link.event.seq,))
        }
    return found


def owners_of(here: Key, body: dict[str, Any]) -> list[Key]:
    """The objects that an object belongs to."""
    return [owner for owner, below in _edges(here, body) if below == here]


def _causal(parents: dict[int, set[int]]) -> Iterator[int]:
    """Sequences in order, but none before what led to it."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    waits = {}
    for seq, before in parents.items():
        waits[seq] = len(before)
        for parent in before:
            children[parent].append(seq)
    ready = sorted(seq for seq, count in waits.items() if not count)
    heapq.heapify(ready)
    while ready:
        seq = heapq.heappop(ready)
        del waits[seq]
        yield seq
        for child in children[seq]:
            waits[child] -= 1
            if not waits[child]:
                heapq.heappush(ready, child)
    yield from sorted(waits)  # (a circle: only a forged cause can make one)


def key_of_message(message: Message) -> Key | None:
    """The object that a message is about; None for one about a whole kind."""
    match message:
        case ObjectChanged() | ObjectDeleted() | StatusReported() | ActionTaken():
            return Key(message.kind, message.namespace, message.name)
        case _:
            return None


def _news(before: StatusReported | None, now: StatusReported) -> tuple[str, str]:
    """The conditions that are new or have changed."""
    known = (
        {condition.type: condition for condition in before.conditions} if before is not None else {}
    )
    news = [condition for condition in now.conditions if condition != known.get(condition.type)]
    withdrawn = [
        type_ for type_ in known if type_ not in {condition.type for condition in now.conditions}
    ]
    what = [f"{condition.type}={condition.status} ({condition.reason})" for condition in news] + [
        f"{type_} withdrawn" for type_ in withdrawn
    ]
    return ", ".join(what), "; ".join(condition.message for condition in news if condition.message)


def _describe_edit(before: dict[str, Any] | None, now: dict[str, Any]) -> str:
    """What a person changed of an AIM object; empty for other objects and the first version."""
    if before is None or not str(now.get("apiVersion", "")).startswith(f"{AIM_GROUP}/"):
        return ""
    then, after = (
        {"spec": body.get("spec"), **{part: body["metadata"].get(part) for part in EDITED}}
        for body in (before, now)
    )
    at = ", ".join(f"{path} {was} → {is_}" for path, was, is_ in differing(then, after))
    return f"changed: {at}" if at else ""


def _ready_message(version: ObjectChanged | None) -> str:
    conditions = ((version.object.get("status") or {}) if version is not None else {}).get(
        "conditions"
    ) or ()
    return next((str(c.get("message", "")) for c in conditions if c.get("type") == "Ready"), "")


def related_keys(events: Iterable[Event], key: Key) -> set[Key]:
    """The object, what it owns, what it depends on, and so on, as named by any version of them."""
    leads_to: defaultdict[Key, set[Key]] = defaultdict(set)
    named: defaultdict[tuple[str, str], set[Key]] = defaultdict(set)
    wants: defaultdict[Key, set[tuple[str, str]]] = defaultdict(set)
    for event in events:
        message = event.message
        if isinstance(message, ObjectChanged | ObjectDeleted):
            body = message.object
            here = Key(message.kind, message.namespace, message.name)
            for other, below in _edges(here, body):
                leads_to[other].add(below)
            for name in _referenced_names(here, body):
                named[name].add(here)
            for of, name in _wants(here, body):
                wants[of].add(name)
    found, open_ = set(), [key]
    while open_:
        each = open_.pop()
        if each not in found:
            found.add(each)
            open_ += leads_to[each] | {target for name in wants[each] for target in named[name]}
    return found


def _edges(here: Key, body: dict[str, Any]) -> Iterator[tuple[Key, Key]]:
    """(object, what belongs to its story) by names."""
    metadata, spec = body.get("metadata") or {}, body.get("spec") or {}
    for owner in metadata.get("ownerReferences") or ():
        resource = RESOURCES.get(str(owner.get("kind")))
        namespace = here.namespace if resource is None or resource.namespaced else None
        yield Key(str(owner.get("kind")), namespace, str(owner.get("name"))), here
    match here.kind:
        case SERVICE.kind:
            yield here, Key(TEMPLATE.kind, here.namespace, str(spec.get("templateRef")))
            yield here, Key(CONFIG.kind, here.namespace, str(spec.get("configRef", DEFAULT_CONFIG)))
        case TEMPLATE.kind:
            yield here, Key(CONFIG.kind, here.namespace, DEFAULT_CONFIG)
        case CACHE.kind:
            annotations = metadata.get("annotations") or {}
            config = annotations.get(labels.ANNOTATION_CONFIG, DEFAULT_CONFIG)
            yield here, Key(CONFIG.kind, here.namespace, str(config))
        case POD.kind if service := (metadata.get("labels") or {}).get(labels.KSERVE_ISVC_LABEL):
            yield Key(INFERENCE_SERVICE.kind, here.namespace, str(service)), here
        case ROUTE.kind:
            for parent in spec.get("parentRefs") or ():
                namespace = parent.get("namespace") or here.namespace
                yield here, Key(GATEWAY.kind, namespace, str(parent.get("name")))


def _referenced_names(here: Key, body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What an object is found by other than its own name."""
    spec = body.get("spec") or {}
    if here.kind == MODEL.kind:
        yield MODEL.kind, str(spec.get("name"))
    elif here.kind == CACHE.kind:
        yield f"{CACHE.kind}/{here.namespace}", str(spec.get("sourceUri"))


def _wants(here: Key, body: dict[str, Any]) -> Iterator[tuple[Key, tuple[str, str]]]:
    if here.kind == TEMPLATE.kind:
        yield here, (MODEL.kind, str((body.get("spec") or {}).get("model")))
    elif here.kind == CONFIG_MAP.kind and (found := from_config_map(body)) is not None:
        yield from ((here, (f"{CACHE.kind}/{here.namespace}", source)) for source in found.sources)
