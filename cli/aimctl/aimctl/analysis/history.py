"""The versions of specs, from the messages of AIM_HISTORY. Pure and total.

1. Versions are in the order of the stream. A version applies from `since` until the next one.
2. `since` is the time of the recording, in milliseconds: what is shown of a time is all of it. If
   the watcher was away, the manager wrote the version earlier, at the time in managedFields.
3. A version is named by its generation. Versions of an object that was deleted and created again
   have the same generations, so those of earlier objects are named `GENERATION@UID`, with the first
   characters of the uid.
4. Generations that are missing between two versions were never recorded.
"""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeAlias

from aimbus import Event
from aimctl.analysis.spec_diff import Path, leaves
from aimschema.messages import SpecDeleted, SpecVersion, parse_timestamp, timestamp
from aimschema.resources import RESOURCES, Key

UID_SHOWN = 8
LATE = datetime.timedelta(seconds=2)
"""A recording so long after the write was late: the watcher was away."""
Body: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a spec, or a delete.

    `since` and `written` are aware times. `missing`: how many generations before it were not
    recorded. `current`: it is of the object that exists now, or that was deleted last.
    """

    key: Key
    seq: int
    uid: str
    generation: int
    since: datetime.datetime
    spec: Body
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    written: datetime.datetime | None = None
    manager: str = ""
    operation: str = ""
    truncated: tuple[str, ...] = ()
    deleted: bool = False
    missing: int = 0
    current: bool = True

    @property
    def name(self) -> str:
        """As a user writes it after --to and --version."""
        if self.current:
            return str(self.generation)
        return f"{self.generation}@{self.uid[:UID_SHOWN]}"

    @property
    def is_whole(self) -> bool:
        """Whether the whole spec is recorded, so that it can be put back."""
        return not any(path.partition(".")[0] == "spec" for path in self.truncated)

    @property
    def manifest(self) -> Body:
        """The object as a manifest. Literal values of environment variables are hashes."""
        metadata: Body = {"name": self.key.name}
        if self.key.namespace is not None:
            metadata["namespace"] = self.key.namespace
        metadata |= {
            name: dict(values)
            for name, values in (("labels", self.labels), ("annotations", self.annotations))
            if values
        }
        return {
            "apiVersion": RESOURCES[self.key.kind].api_version,
            "kind": self.key.kind,
            "metadata": metadata,
            "spec": self.spec,
        }


def versions_of(events: Iterable[Event]) -> list[Version]:
    """The versions of one object, in the order of the stream."""
    found: list[Version] = []
    for event in events:
        version = version_of(event)
        if version is not None:
            found.append(behind(found[-1] if found else None, version))
    return [replace(version, current=version.uid == found[-1].uid) for version in found]


def version_of(event: Event) -> Version | None:
    """A message of the stream; None for any other, and for kinds that this release does not
    know."""
    message = event.message
    if not isinstance(message, SpecVersion | SpecDeleted) or message.kind not in RESOURCES:
        return None
    key = Key(message.kind, message.namespace, message.name)
    since = _milliseconds(event.time)
    if isinstance(message, SpecDeleted):
        identity = (key, event.seq, message.uid, message.generation)
        return Version(*identity, since, {}, {}, {}, deleted=True)
    return Version(
        key=key,
        seq=event.seq,
        uid=message.uid,
        generation=message.generation,
        since=since,
        written=_moment(message.time),
        spec=message.spec,
        labels=message.labels,
        annotations=message.annotations,
        manager=message.manager,
        operation=message.operation,
        truncated=message.truncated,
    )


def behind(last: Version | None, version: Version) -> Version:
    """The version as the next of its object: rules 2 and 4."""
    if version.deleted:
        return version
    is_same = last is not None and last.uid == version.uid and not last.deleted
    before = last.generation if last is not None and is_same else 0
    return replace(version, missing=max(0, version.generation - before - 1))


class States:
    """The version of each object at some moments, and the newest. It has only these in memory,
    however long the history is. `add` takes the messages in the order of the stream."""

    def __init__(self, *moments: datetime.datetime) -> None:
        self._moments = moments
        self._newest: dict[Key, Version] = {}
        self._at: dict[Key, list[Version | None]] = {}

    def add(self, event: Event) -> None:
        version = version_of(event)
        if version is None:
            return
        key = version.key
        version = self._newest[key] = behind(self._newest.get(key), version)
        at = self._at.setdefault(key, [None] * len(self._moments))
        for place, moment in enumerate(self._moments):
            if version.since <= moment:
                at[place] = None if version.deleted else version

    @classmethod
    def looked_up(cls, newest: Iterable[Event], *states: Iterable[Event]) -> "States":
        """From the last messages of all time, and the last ones at each moment."""
        found = cls()
        found._moments = (datetime.datetime.max.replace(tzinfo=datetime.UTC),)
        for event in newest:
            found.add(event)
        found._at = {key: [None] * len(states) for key in found._newest}
        for place, events in enumerate(states):
            for event in events:
                version = version_of(event)
                if version is not None and not version.deleted and version.key in found._at:
                    found._at[version.key][place] = version
        return found

    def newest(self) -> dict[Key, Version]:
        """The last version of each object, or its delete."""
        return dict(self._newest)

    def at(self, place: int) -> dict[Key, Version]:
        """The objects that existed at a moment, by its place."""
        return {
            key: replace(version, current=version.uid == self._newest[key].uid)
            for key, at in self._at.items()
            if (version := at[place]) is not None
        }


def find(versions: Sequence[Version], name: str) -> Version:
    """The version of that name. Raises ValueError that lists the names."""
    for version in reversed(versions):
        if not version.deleted and version.name == name:
            return version
    known = ", ".join(version.name for version in versions if not version.deleted)
    raise ValueError(f"there is no version {name!r}; recorded: {known or 'none'}")


@dataclass(frozen=True, slots=True)
class Change:
    """An object at two times; None where it did not exist."""

    key: Key
    before: Version | None
    after: Version | None


def changes_between(before: Mapping[Key, Version], after: Mapping[Key, Version]) -> list[Change]:
    """The objects with another spec, or that came or went, by kind and name."""
    changes = [
        Change(key, before.get(key), after.get(key)) for key in sorted({*before, *after}, key=str)
    ]
    return [change for change in changes if _is_change(change)]


def _is_change(change: Change) -> bool:
    before, after = change.before, change.after
    if before is None or after is None:
        return before is not after
    return before.uid != after.uid or before.spec != after.spec


@dataclass(frozen=True, slots=True)
class Blame:
    """A field of the newest spec, and the version that gave it its value. `exact`: the version
    before is recorded, and had another value."""

    path: Path
    value: Any
    version: Version
    exact: bool


def blame(versions: Sequence[Version]) -> list[Blame]:
    """Every field of the newest spec. Empty for an object that was deleted."""
    if not versions or versions[-1].deleted:
        return []
    newest = versions[-1]
    life = [each for each in versions if each.uid == newest.uid and not each.deleted]
    since: dict[Path, Version] = {}
    exact: dict[Path, bool] = {}
    known: dict[Path, Any] = {}
    for number, version in enumerate(life):
        fields = dict(leaves(version.spec))
        for path, value in fields.items():
            if path not in known or known[path] != value:
                since[path] = version
                exact[path] = version.missing == 0 and (number > 0 or version.generation <= 1)
        known = fields
    return [Blame(path, value, since[path], exact[path]) for path, value in known.items()]


def with_predecessors(versions: Sequence[Version]) -> list[tuple[Version, Version | None]]:
    """Each version with the one before it, if that is of the same object."""
    pairs: list[tuple[Version, Version | None]] = [(versions[0], None)] if versions else []
    for before, version in pairwise(versions):
        is_same = before.uid == version.uid and not before.deleted
        pairs.append((version, before if is_same else None))
    return pairs


def _milliseconds(moment: datetime.datetime) -> datetime.datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def time_text(moment: datetime.datetime) -> str:
    """RFC 3339 in UTC, with milliseconds if there are any."""
    if moment.microsecond == 0:
        return timestamp(moment)
    text = moment.astimezone(datetime.UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def headline(version: Version) -> str:
    """A version in a line."""
    when = time_text(version.since)
    if version.deleted:
        return f"{when}  deleted"
    author = f"{version.manager} ({version.operation})" if version.manager else "unknown manager"
    written = version.written
    is_late = written is not None and version.since - written >= LATE
    late = f", written {time_text(written)}" if written is not None and is_late else ""
    return f"{when}  version {version.name}  {author}{late}"


def _moment(text: str) -> datetime.datetime | None:
    try:
        moment = parse_timestamp(text)
        return moment.astimezone(datetime.UTC) if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
