"""What each version of a spec led to, from the causes on the bus. Pure.

1. An event belongs to the latest of the versions that the chains of its causes lead to first. A pod
   belongs to what its owner belongs to.
2. New pods are a restart if pods of earlier versions were deleted before the next version.
3. An object is ready for a version when its status is for that generation and Ready is True, before
   the next version.
4. AIM_LOG has seven days. Older versions have no effects here.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from aimbus import Event
from aimctl.analysis.causality import WRITE_STATUS, epochs, links
from aimctl.analysis.history import Version
from aimctl.analysis.timeline import key_of_message, owners_of, related_keys
from aimschema.messages import ActionTaken, ObjectChanged, ObjectDeleted
from aimschema.reasons import READY
from aimschema.resources import POD, Key


@dataclass(frozen=True, slots=True)
class Effect:
    """`actions`: what the services did, such as `deployer: apply InferenceService/chat`. `pods`:
    how many were started; `restarted`: earlier pods were deleted. `ready_after_s`: None if the
    object did not become ready for this version. `state`: as its status names it then. `over`: a
    later version exists."""

    actions: tuple[str, ...]
    pods: int
    restarted: bool
    ready_after_s: float | None
    state: str
    over: bool


def effects_of(versions: Sequence[Version], events: Sequence[Event]) -> dict[int, Effect]:
    """By the sequence of the version in AIM_HISTORY; without those that the log does not have."""
    starts = _starts(versions, events)
    if not starts:
        return {}
    about = related_keys(events, versions[0].key)
    related = [event for event in events if key_of_message(event.message) in about]
    caused = _Causes(starts, related).by_version()
    pods = _pods(related)
    found = {}
    nexts = [*list(starts.values())[1:], None]
    for (seq, start), later in zip(starts.items(), nexts, strict=True):
        new = [
            event.seq
            for event in caused[seq]
            if pods.get(key_of_message(event.message)) == event.seq
        ]
        ready_s, state = _readiness(start, later, events)
        found[seq] = Effect(
            tuple(dict.fromkeys(_actions(caused[seq]))),
            len(new),
            bool(new) and _replaces(pods, start, later, related),
            ready_s,
            state,
            later is not None,
        )
    return found


class _Causes:
    """Finds the version that an event belongs to (rule 1)."""

    def __init__(self, starts: Mapping[int, Event], events: Sequence[Event]) -> None:
        self._links = links(events, epochs(events))
        self._versions = {event.seq: seq for seq, event in starts.items()}
        self._found: dict[int, int | None] = dict(self._versions)
        self._starts = starts
        self._seqs: defaultdict[Key | None, list[int]] = defaultdict(list)
        for event in sorted(events, key=lambda each: each.seq):
            if isinstance(event.message, ObjectChanged):
                self._seqs[key_of_message(event.message)].append(event.seq)

    def by_version(self) -> dict[int, list[Event]]:
        """The events that belong to each version, without its own."""
        caused: dict[int, list[Event]] = {seq: [] for seq in self._starts}
        for seq in sorted(self._links):
            self._resolve(seq)
            version = self._found.get(seq)
            if version is not None and seq not in self._versions:
                caused[version].append(self._links[seq].event)
        return caused

    def _resolve(self, seq: int) -> None:
        """Causes first, without recursion: chains are as long as the log."""
        open_ = [seq]
        while open_:
            current = open_[-1]
            if current in self._found:
                open_.pop()
                continue
            causes = self._causes(current)
            waiting = [each for each in causes if each not in self._found and each not in open_]
            if waiting:
                open_ += waiting
                continue
            versions = [found for each in causes if (found := self._found.get(each)) is not None]
            self._found[current] = max(versions, default=None)
            open_.pop()

    def _causes(self, seq: int) -> list[int]:
        link = self._links[seq]
        message = link.event.message
        if isinstance(message, ActionTaken):
            return [each for each in link.event.cause if each in self._links]
        parents = [each for each in link.parents if each in self._links]
        if parents or not isinstance(message, ObjectChanged):
            return parents
        key = key_of_message(message)
        assert key is not None
        owners = [self._last_before(owner, seq) for owner in owners_of(key, message.object)]
        return [each for each in owners if each is not None]

    def _last_before(self, key: Key, seq: int) -> int | None:
        seqs = self._seqs[key]
        place = bisect_left(seqs, seq)
        return seqs[place - 1] if place else None


def _starts(versions: Sequence[Version], events: Iterable[Event]) -> dict[int, Event]:
    """The first event of each version in the log, by the sequence of the version."""
    first: dict[tuple[str, int], Event] = {}
    key = versions[0].key if versions else None
    for event in events:
        message = event.message
        if isinstance(message, ObjectChanged) and key_of_message(message) == key:
            generation = message.object.get("metadata", {}).get("generation")
            if isinstance(generation, int):
                first.setdefault((message.uid, generation), event)
    return {
        version.seq: first[version.uid, version.generation]
        for version in versions
        if not version.deleted and (version.uid, version.generation) in first
    }


def _pods(events: Iterable[Event]) -> dict[Key | None, int]:
    """The first event of each pod."""
    found: dict[Key | None, int] = {}
    for event in sorted(events, key=lambda each: each.seq):
        if isinstance(event.message, ObjectChanged) and event.message.kind == POD.kind:
            found.setdefault(key_of_message(event.message), event.seq)
    return found


def _replaces(
    pods: Mapping[Key | None, int], start: Event, later: Event | None, events: Iterable[Event]
) -> bool:
    """Whether a pod from before a version was deleted while it applied."""
    return any(
        isinstance(event.message, ObjectDeleted)
        and pods.get(key_of_message(event.message), start.seq) < start.seq < event.seq
        and (later is None or event.seq < later.seq)
        for event in events
    )


def _actions(events: Iterable[Event]) -> Iterator[str]:
    for event in events:
        message = event.message
        if isinstance(message, ActionTaken) and message.verb != WRITE_STATUS:
            yield f"{message.service}: {message.verb} {message.kind}/{message.name}"


def _readiness(
    start: Event, later: Event | None, events: Iterable[Event]
) -> tuple[float | None, str]:
    """Seconds until ready, and the state then; without it, the last state."""
    assert isinstance(start.message, ObjectChanged)
    key, state = key_of_message(start.message), ""
    generation = start.message.object["metadata"]["generation"]
    for event in events:
        message = event.message
        if not isinstance(message, ObjectChanged) or key_of_message(message) != key:
            continue
        if event.seq < start.seq or (later is not None and event.seq >= later.seq):
            continue
        status = message.object.get("status") or {}
        observed = status.get("observedGeneration")
        if not isinstance(observed, int) or observed < generation:
            continue
        conditions = status.get("conditions") or ()
        state = str(status.get("status") or READY)
        if any(each.get("type") == READY and each.get("status") == "True" for each in conditions):
            return max(0.0, (event.time - start.time).total_seconds()), state
    return None, state
