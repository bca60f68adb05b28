"""Hashes in place of literal values of environment variables, and the values again. Pure and total.

1. Every variable at any depth of a spec counts: an item of a list `env`, or an entry of a map
   `env`. References to Secrets and ConfigMaps stay.
2. A value becomes `sha256:<hex>` of its UTF-8 text, and of its JSON if it is not a text. So
   `printf %s VALUE | sha256sum` shows whether a value is the recorded one.
3. `restore` puts a value back only where another spec has a variable of the same place and name
   whose value has that hash.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import msgspec

ENV: Final = "env"
VALUE: Final = "value"
PREFIX: Final = "sha256:"
MOST_LEVELS: Final = 128
Path: TypeAlias = tuple[str, ...]
Change: TypeAlias = Callable[[Path, Any], Any]


def hash_of(value: Any) -> str:
    """`sha256:<hex>` of a literal."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return PREFIX + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def without_env_literals(spec: Any) -> Any:
    """The spec with the hash of each literal in its place. What is nested too deeply is left
    out."""
    return _replace(spec, (), lambda _, value: hash_of(value))


def restore(recorded: Any, current: Any) -> tuple[Any, tuple[Path, ...]]:
    """The recorded spec with the literals of `current`, and the places of the hashes that no
    literal of `current` has."""
    known = dict(_literals(current, ()))
    missing: list[Path] = []

    def value_of(path: Path, value: Any) -> Any:
        if path in known and value in {hash_of(known[path]), known[path]}:
            return known[path]
        missing.append(path)
        return value

    return _replace(recorded, (), value_of), tuple(missing)


def _replace(node: Any, path: Path, change: Change) -> Any:
    if len(path) > MOST_LEVELS:
        return None
    if isinstance(node, list):
        return [
            _replace(item, (*path, _name(item, place)), change) for place, item in enumerate(node)
        ]
    if not isinstance(node, dict):
        return node
    return {
        field: _replace_env(value, (*path, field), change)
        if field == ENV
        else _replace(value, (*path, field), change)
        for field, value in node.items()
    }


def _replace_env(node: Any, path: Path, change: Change) -> Any:
    if isinstance(node, dict):
        return {
            name: value if isinstance(value, dict) or not value else change((*path, name), value)
            for name, value in node.items()
        }
    if not isinstance(node, list):
        return node
    return [
        item | {VALUE: change((*path, _name(item, place)), item[VALUE])}
        if isinstance(item, dict) and item.get(VALUE)
        else item
        for place, item in enumerate(node)
    ]


def _literals(node: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    found: list[tuple[Path, Any]] = []

    def note(place: Path, value: Any) -> Any:
        found.append((place, value))
        return value

    _replace(node, path, note)
    yield from found


def _name(item: Any, place: int) -> str:
    return str(item["name"]) if isinstance(item, dict) and "name" in item else str(place)
