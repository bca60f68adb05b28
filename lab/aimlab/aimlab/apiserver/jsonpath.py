"""The JSONPath of printer columns: dotted names, quoted names, indexes, `[*]` and one comparison
filter. Pure."""

import re
from functools import lru_cache

from aimlab.apiserver.objects import Json

STEP = re.compile(
    r"""\.(?P<name>[^.\[\]]+)"""
    r"""|\[(?P<index>-?\d+|\*)\]"""
    r"""|\[['"](?P<quoted>[^'"]+)['"]\]"""
    r"""|\[\?\(\s*@\.(?P<field>[A-Za-z0-9_.-]+)\s*==\s*['"]?(?P<value>[^'")]*)['"]?\s*\)\]"""
)


@lru_cache(maxsize=1024)
def _steps(path: str) -> tuple[dict[str, str | None], ...]:
    text = path.strip().strip("{}").replace("\\.", "\0").removeprefix("$")
    at = 0
    steps = []
    while at < len(text):
        match = STEP.match(text, at)
        if not match:
            return ()
        steps.append(
            {
                name: value.replace("\0", ".") if value else value
                for name, value in match.groupdict().items()
            }
        )
        at = match.end()
    return tuple(steps)


def find(value: Json, path: str) -> list[Json]:
    """Everything at a path (`.status.conditions[?(@.type=="Ready")].status`); nothing for a path
    this does not understand."""
    steps = _steps(path)
    found = [value] if steps else []
    for step in steps:
        found = [item for part in found for item in _follow(part, step)]
    return found


def _follow(value: Json, step: dict[str, str | None]) -> list[Json]:
    name = step.get("name") or step.get("quoted")
    if "*" in (name, step.get("index")):
        if isinstance(value, dict):
            return list(value.values())
        return list(value) if isinstance(value, list) else []
    if name:
        return [value[name]] if isinstance(value, dict) and name in value else []
    if step.get("index"):
        index = int(step["index"] or 0)
        return (
            [value[index]] if isinstance(value, list) and -len(value) <= index < len(value) else []
        )
    expected = step.get("value")
    return (
        [item for item in value if str(_field(item, step.get("field") or "")) == expected]
        if isinstance(value, list)
        else []
    )


def _field(item: Json, path: str) -> Json:
    for name in path.split("."):
        item = item.get(name) if isinstance(item, dict) else None
    return str(item).lower() if isinstance(item, bool) else item
