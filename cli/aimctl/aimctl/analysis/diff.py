"""Compares recorded with replayed reports and objects, field by field. It forgives only what a
replay cannot know. Pure.

- Times in a text are equal within `CLOCK_S`: the live service reconciled a moment after the event.
- Of an applied object only the fields that the service sets count. Quantities are compared by
  value, since the server may write them differently. A value that was removed before publishing or
  recording (environment variables, large values) is not compared.
"""

import datetime
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from aimschema import quantities
from aimschema.messages import ObjectChanged, StatusReported, parse_timestamp
from aimschema.published import is_ours, published_part

CLOCK_S = 2.0
SHOWN = 300
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_MISSING = object()


def alike(then: Any, now: Any) -> bool:
    """Whether two reports or two statuses are equal."""
    return bool(then == now) or next(differing(then, now), None) is None


def applied_alike(wrote: ObjectChanged, body: Any) -> bool:
    """Whether an object has every field that the service would set, as it would set it."""
    at = differing(wrote.object, as_shown(wrote.object, body), applied=True)
    return all(
        any(path == left_out or path.startswith(f"{left_out}.") for left_out in wrote.truncated)
        for path, _, _ in at
    )


def as_shown(then: Any, body: Any) -> Any:
    """The part of an applied object that its event has or can have, in any release. A literal that
    is not published is not compared."""
    return (
        _shown_of(then, body, published_part(body))
        if isinstance(body, dict) and is_ours(body)
        else body
    )


def _shown_of(then: Any, body: Any, shown: Any) -> Any:
    if isinstance(then, dict) and isinstance(body, dict):
        parts = shown if isinstance(shown, dict) else {}
        completed = {
            name: _shown_of(then[name], body[name], parts.get(name))
            for name in body
            if name in then
        }
        return completed | {
            name: parts[name] for name in body if name not in then and name in parts
        }
    if (
        isinstance(then, list)
        and isinstance(body, list)
        and isinstance(shown, list)
        and len(then) == len(body) == len(shown)
    ):
        return [_shown_of(*each) for each in zip(then, body, shown, strict=True)]
    return shown if then == shown else body


def differing(then: Any, now: Any, *, applied: bool = False) -> Iterator[tuple[str, str, str]]:
    """Path, then, now of each field that differs. `applied`: only the fields of `now` count."""
    yield from _differing(_plain(then), _plain(now), "", applied)


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value) if isinstance(value, StatusReported) else value


def _differing(then: Any, now: Any, path: str, applied: bool) -> Iterator[tuple[str, str, str]]:
    then, now = _key_list_items(then, now)
    if isinstance(then, dict) and isinstance(now, dict):
        for name in now if applied else now | then:
            yield from _differing(
                then.get(name, _MISSING),
                now.get(name, _MISSING),
                f"{path}.{name}" if path else str(name),
                applied,
            )
    elif isinstance(then, list | tuple) and isinstance(now, list | tuple) and len(then) == len(now):
        for number, (one, other) in enumerate(zip(then, now, strict=True)):
            yield from _differing(one, other, f"{path}.{number}", applied)
    elif not _same(then, now) and not (applied and _not_comparable(then, now, path)):
        yield path, _shorten(then), _shorten(now)


def _key_list_items(then: Any, now: Any) -> tuple[Any, Any]:
    """Lists whose items have a type or a name (list-maps), keyed by it: order has no meaning."""
    for name in ("type", "name"):
        both = [
            (
                {item[name]: item for item in side}
                if isinstance(side, list | tuple)
                and all(isinstance(i, dict) and name in i for i in side)
                else None
            )
            for side in (then, now)
        ]
        if (
            both[0] is not None
            and both[1] is not None
            and (len(both[0]), len(both[1])) == (len(then), len(now))
            and (then or now)
        ):
            return both[0], both[1]
    return then, now


def _same(then: Any, now: Any) -> bool:
    if then == now:
        return True
    if not (isinstance(then, str) and isinstance(now, str)):
        return False
    times = list(zip(_TIME.findall(then), _TIME.findall(now), strict=False))
    return (
        bool(times)
        and _TIME.sub("", then) == _TIME.sub("", now)
        and all(_near(one, other) for one, other in times)
    )


def _near(one: str, other: str) -> bool:
    try:
        return abs(parse_timestamp(one) - parse_timestamp(other)) <= datetime.timedelta(
            seconds=CLOCK_S
        )
    except ValueError:
        return False


def _not_comparable(then: Any, now: Any, path: str) -> bool:
    if REDACTED in (then, now) or (
        then is _MISSING and (now is None or ("env" in path.split(".") and path.endswith(".value")))
    ):
        return True
    try:
        return quantities.parse(then) == quantities.parse(now)
    except (ValueError, TypeError):
        return False


def _shorten(value: Any) -> str:
    if value is _MISSING:
        text = "nothing"
    elif isinstance(value, str):
        text = value
    else:
        text = msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def summarize(value: Any) -> str:
    """A report or a status in a line."""
    if value is None:
        return "nothing"
    plain = _plain(value)
    conditions = plain.get("conditions") or ()
    conditions_shown = [
        f"{c.get('type')}={c.get('status')} ({c.get('reason')})" for c in conditions
    ]
    if isinstance(value, StatusReported):
        fields = plain.get("fields") or {}
    else:
        fields = {"status": plain["status"]} if "status" in plain else {}
    return (
        ", ".join(
            [
                *conditions_shown,
                *(f"{name}={_shorten(field)}" for name, field in sorted(fields.items())),
            ]
        )
        or "nothing more"
    )


REDACTED = "redacted"
