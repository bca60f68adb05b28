"""Versions of specs read from AIM_HISTORY."""

import datetime
import re
from collections.abc import AsyncIterator, Mapping, Sequence

from aimbus import Bus, BusError, Event, read_history, read_newest
from aimctl.analysis.history import States, Version, find, versions_of
from aimctl.parsing import moment
from aimschema import subjects
from aimschema.resources import AIM_KINDS, Key

VERSION = re.compile(r"\d+(@[\w-]+)?")


async def read_events(bus: Bus, filters: Sequence[str]) -> AsyncIterator[Event]:
    """The messages that match, in order. Raises RuntimeError if they cannot be read."""
    try:
        async for item in read_history(bus, filters):
            if isinstance(item, Event):
                yield item
    except (BusError, TimeoutError) as error:
        raise _unreadable(error) from error


async def read_versions(bus: Bus, key: Key) -> list[Version]:
    """The versions of an object. Raises RuntimeError if there are none."""
    events = [event async for event in read_events(bus, [subjects.of_history(key)])]
    if not (versions := versions_of(events)):
        raise RuntimeError(f"AIM_HISTORY has no version of {key}")
    return versions


async def read_states(
    bus: Bus, key: Key | None, namespace: str | None, *moments: datetime.datetime
) -> States:
    """The states of an object; without a key, of the objects of a namespace, or of all (None).
    Raises RuntimeError."""
    patterns = [f"{subjects.HISTORY}.>"]
    if key is not None:
        patterns = [subjects.of_history(key)]
    elif namespace is not None:
        patterns = [subjects.history_in(namespace, kind.kind) for kind in AIM_KINDS]
    ends = [end_of(moment) for moment in moments]
    found = [await _look_up(bus, patterns, end) for end in (None, *ends)]
    newest, *states = [each for each in found if each is not None]
    if len(states) == len(moments):
        return States.looked_up(newest, *states)
    read = States(*moments)
    async for event in read_events(bus, patterns):
        read.add(event)
    return read


def end_of(moment: datetime.datetime) -> datetime.datetime:
    """The end of its millisecond: versions have times in milliseconds."""
    start = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    return start + datetime.timedelta(milliseconds=1)


async def _look_up(
    bus: Bus, patterns: Sequence[str], end: datetime.datetime | None
) -> list[Event] | None:
    """None if the server cannot."""
    found: list[Event] = []
    try:
        for pattern in patterns:
            events = await read_newest(bus, pattern, end)
            if events is None:
                return None
            found += [event for event in events if isinstance(event, Event)]
    except (BusError, TimeoutError) as error:
        raise _unreadable(error) from error
    return found


def _unreadable(error: Exception) -> RuntimeError:
    return RuntimeError(f"AIM_HISTORY cannot be read: {error or 'no answer'}")


def version_at(versions: Sequence[Version], text: str, now: datetime.datetime) -> Version:
    """The version that a user names, or that applied at a time. Raises ValueError."""
    if VERSION.fullmatch(text):
        return find(versions, text)
    at = moment(text, now)
    for version in reversed(versions):
        if version.since <= at:
            if version.deleted:
                raise ValueError(f"{version.key} did not exist at {text}")
            return version
    raise ValueError(f"AIM_HISTORY has no version of {versions[0].key} from before {text}")


def in_kind(found: Mapping[Key, Version], kind: str | None) -> dict[Key, Version]:
    """Only the objects of a kind; None: all."""
    return {key: version for key, version in found.items() if kind in {None, key.kind}}
