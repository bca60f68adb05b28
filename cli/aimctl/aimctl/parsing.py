"""Objects, times and durations, as people name them."""

import datetime
import re

from aimschema.messages import parse_timestamp
from aimschema.resources import AIM_KINDS, CACHE, MODEL, RESOURCES, SERVICE, TEMPLATE, Key, Resource

ROOTS = (SERVICE, TEMPLATE, CACHE, MODEL)
"""What `aimctl get` lists: what a chain may begin with, each with what comes after it."""

_AGO = re.compile(r"(\d+)([smhd])")


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class BadFile(ValueError):
    """A file that a command cannot use; the message says where in it."""


def resource_of(kind: str) -> Resource | None:
    """As kubectl takes a kind: itself, its plural or a short name, in any case."""
    known = {
        alias.lower(): resource
        for resource in RESOURCES.values()
        for alias in (resource.kind, resource.plural)
    }
    known |= {alias: each for each in AIM_KINDS for alias in each.short_names}
    return known.get(kind.lower())


def key_of(text: str, namespace: str | None) -> Key:
    """`KIND/NAME` as kubectl takes it. Raises ValueError."""
    kind, slash, name = text.partition("/")
    resource = resource_of(kind)
    if not slash or not name or resource is None:
        raise ValueError(
            f"{text!r} is not KIND/NAME with a kind that this control plane knows, such as"
            " AIMService/chat or mc/weights"
        )
    if resource.namespaced and namespace is None:
        raise ValueError(f"{resource.kind} is namespaced: name the namespace with -n")
    return Key(resource.kind, namespace if resource.namespaced else None, name)


def moment(text: str, now: datetime.datetime) -> datetime.datetime:
    """`90s`, `15m`, `2h`, `3d` ago, or an RFC 3339 time. Raises ValueError."""
    try:
        if found := _AGO.fullmatch(text):
            return now - datetime.timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError:
        raise ValueError(f"{text!r} is too long ago") from None
    try:
        parsed = parse_timestamp(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is neither a time such as 2030-01-02T03:04:05Z nor how long ago, such as 15m"
        ) from None
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=datetime.UTC)


def duration_s(text: str) -> float:
    """`90s`, `5m`, `1h30m`, or seconds alone. Raises ValueError."""
    parts = _AGO.findall(text)
    if "".join(map("".join, parts)) == text and parts:
        return sum(
            (datetime.timedelta(**{_UNITS[unit]: int(number)}) for number, unit in parts),
            datetime.timedelta(),
        ).total_seconds()
    if not text.isdecimal():
        raise ValueError(f"{text!r} is not a duration such as 90s or 5m")
    return float(text)
