"""Differences of two specs, field by field, and how to write them. Pure and total.

1. A path is a tuple of names. An item of a list whose items all have different names is addressed
   by its name; the order of such a list has no meaning. Every other list is one value.
2. Values are compared exactly: what is written back must be what was recorded, byte for byte.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

Path: TypeAlias = tuple[str, ...]


class _Absent:
    """No value; differs from every value."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()
SHOWN: Final = 300
"""Characters of a value that are shown."""
STYLES: Final = {"+": "green", "-": "red"}
"""Of a line, by its first character."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A field of the spec that differs; ABSENT where it is missing."""

    path: Path
    before: Any
    after: Any


def differences(before: Any, after: Any, path: Path = ()) -> Iterator[Difference]:
    """The smallest fields that differ."""
    if _equal(before, after):
        return
    old, new = _fields(before), _fields(after)
    if old is None or new is None or isinstance(before, dict) != isinstance(after, dict):
        yield Difference(path, before, after)
        return
    for name in old | new:
        yield from differences(old.get(name, ABSENT), new.get(name, ABSENT), (*path, name))


def leaves(spec: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every field that has a value, with its path."""
    fields = _fields(spec)
    if not fields:
        if path:
            yield path, spec
        return
    for name, value in fields.items():
        yield from leaves(value, (*path, name))


def path_text(path: Path) -> str:
    """As people write it: `spec.env.HF_TOKEN.value`."""
    return ".".join(("spec", *path))


def value_text(value: Any) -> str:
    """A value in a line; a long one is shortened."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def lines_of(found: Iterable[Difference]) -> Iterator[str]:
    """Differences as lines with - and +."""
    for each in found:
        if each.before is not ABSENT:
            yield f"- {path_text(each.path)}: {value_text(each.before)}"
        if each.after is not ABSENT:
            yield f"+ {path_text(each.path)}: {value_text(each.after)}"


def _fields(value: Any) -> dict[str, Any] | None:
    """The fields of a map, or the items of a list by name; None for a single value."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, list) or not value:
        return None
    names = [item.get("name") if isinstance(item, dict) else None for item in value]
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        return None
    return dict(zip(map(str, names), value, strict=True))


def _equal(before: Any, after: Any) -> bool:
    """As JSON: 1 is not true, and the order of fields has no meaning."""
    if before is ABSENT or after is ABSENT:
        return before is after
    return canonical(before) == canonical(after)


def canonical(value: Any) -> bytes:
    """JSON with sorted fields."""
    return msgspec.json.encode(value, order="sorted")
