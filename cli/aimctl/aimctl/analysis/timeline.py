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
from collections.abc import Iterable, Iterator, Sequence
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
from aimschema.credentials import DEFAULT_CONFIG
from aimschema.discovery_result import from_config_map
from aimschema.messages import ActionTaken, Message, ObjectChanged, ObjectDeleted, StatusReported
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
        if (event_key := _key(event.message)) is not None and event_key in about
    ]
    epoch_at = epochs(events)
    linked = links(ours, epoch_at)
    parents = {seq: _parents(link, linked) for seq, link in linked.items()}
    versions = {
        (m.epoch, _key(m), m.resource_version): m
        for m in (event.message for event in ours)
        if isinstance(m, ObjectChanged)
    }
    entries: dict[int, Entry] = {}
    latest: dict[Key, int] = {}
    before: dict[Key, ObjectChanged] = {}
    instead: dict[int, int | None] = {}
    last: dict[tuple[str, Key], str] = {}
    last_reports: dict[tuple[str, Key], StatusReported] = {}
    for seq in _causal(parents):
        link = linked[seq]
        subject = _key(link.event.message)
        assert subject is not None
        cause = max(
            (found for parent in parents[seq] if (found := instead.get(parent)) is not None),
            default=None,
        )
        if cause is None and isinstance(link.event.message, ObjectChanged):
            cause = max(
                (
                    latest[owner]
                    for owner in _owners(subject, link.event.message.object)
                    if owner in latest
                ),
                default=None,
            )
        who, what, why = _describe(link, epoch_at[seq], last_reports, versions, before)
        if link.written or not what or last.get((who, subject)) == what + why:
            instead[seq] = cause
            continue
        last[who, subject] = what + why
        instead[seq] = latest[subject] = seq
        after_s = (
            0.0
            if cause is None
            else max(0.0, (link.event.time - entries[cause].time).total_seconds())
        )
        entries[seq] = Entry(
            seq, link.event.time, who, subject, what, why, cause, after_s, epoch_at[seq]
        )
    return list(entries.values())


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


def _owners(here: Key, body: dict[str, Any]) -> list[Key]:
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


def _key(message: Message) -> Key | None:
    match message:
        case ObjectChanged() | ObjectDeleted() | StatusReported() | ActionTaken():
            return Key(message.kind, message.namespace, message.name)
        case _:
            return None


def _describe(
    link: Link,
    epoch: int,
    last_reports: dict[tuple[str, Key], StatusReported],
    versions: dict[tuple[int, Key | None, str], ObjectChanged],
    before: dict[Key, ObjectChanged],
) -> tuple[str, str, str]:
    """Who, what and why. Updates `last_reports` and `before`, which have the latest report and
    version of each object."""
    message = link.event.message
    match message:
        case StatusReported():
            place = (message.service, Key(message.kind, message.namespace, message.name))
            last, last_reports[place] = last_reports.get(place), message
            return (message.service, *_news(last, message))
        case ActionTaken(verb=verb) if verb == WRITE_STATUS:
            version = versions.get((epoch, _key(message), message.resource_version))
            state = verb if version is None else f"is now {state_of(version)}"
            return message.service, state, _ready_message(version)
        case ActionTaken():
            return (
                message.service,
                f"{message.verb}{'' if message.outcome == 'done' else f' {message.outcome}'}",
                message.detail,
            )
        case ObjectDeleted():
            return "cluster", "is gone", ""
        case ObjectChanged():
            here = Key(message.kind, message.namespace, message.name)
            then, before[here] = before.get(here), message
            who = author_of(message)
            news = _describe_edit(
                None if then is None else then.object, message.object
            ) or state_of(message)
            if then is not None and message.epoch > then.epoch:
                return (
                    "cluster",
                    "" if message.object == then.object else f"went back in time: {news}",
                    "",
                )
            return who, news, ""
        case _:
            return "", "", ""


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
        yield (
            Key(
                str(owner.get("kind")),
                here.namespace if resource is None or resource.namespaced else None,
                str(owner.get("name")),
            ),
            here,
        )
    match here.kind:
        case SERVICE.kind:
            yield here, Key(TEMPLATE.kind, here.namespace, str(spec.get("templateRef")))
            yield here, Key(CONFIG.kind, here.namespace, str(spec.get("configRef", DEFAULT_CONFIG)))
        case TEMPLATE.kind:
            yield here, Key(CONFIG.kind, here.namespace, DEFAULT_CONFIG)
        case CACHE.kind:
            yield (
                here,
                Key(
                    CONFIG.kind,
                    here.namespace,
                    str(
                        (metadata.get("annotations") or {}).get(
                            labels.ANNOTATION_CONFIG, DEFAULT_CONFIG
                        )
                    ),
                ),
            )
        case POD.kind if service := (metadata.get("labels") or {}).get(labels.KSERVE_ISVC_LABEL):
            yield Key(INFERENCE_SERVICE.kind, here.namespace, str(service)), here
        case ROUTE.kind:
            for parent in spec.get("parentRefs") or ():
                yield (
                    here,
                    Key(
                        GATEWAY.kind,
                        parent.get("namespace") or here.namespace,
                        str(parent.get("name")),
                    ),
                )


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
