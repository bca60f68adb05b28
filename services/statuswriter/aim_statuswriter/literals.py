"""Warning Events for literal values that belong in a Secret. An Event names the variable, never the
value. Pure."""

from collections.abc import Iterator
from typing import Any

from aim_statuswriter.actions import SendEvent
from aimcontroller.plan import sanitize
from aimcontroller.projection import KubeObject
from aimschema import reasons

SECRET_NAMES = ("TOKEN", "KEY", "SECRET", "PASSWORD")
"""Ends of the names of variables whose values are secrets, in any case."""
LONGEST_NAME = 128
MOST_NAMES = 5


def literal_secrets(obj: KubeObject, since: str = "") -> list[SendEvent]:
    """The Event for an object with such literals in any `env` of its spec."""
    names = list(dict.fromkeys(_names(obj.spec)))
    if not names:
        return []
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    which = ", ".join(name[:LONGEST_NAME] for name in names[:MOST_NAMES]) + more
    message = (
        f"env sets {which} to a literal value, which everyone with read access to this object"
        " can see; put it into a Secret and use valueFrom.secretKeyRef"
    )
    return [
        SendEvent(obj.key, obj.uid, "Warning", reasons.LITERAL_SECRET, sanitize(message), since)
    ]


def _names(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _names(item)
    elif isinstance(node, dict):
        for field, value in node.items():
            if field == "env" and isinstance(value, list):
                yield from (str(item["name"]) for item in value if _is_literal_secret(item))
            else:
                yield from _names(value)


def _is_literal_secret(variable: Any) -> bool:
    return (
        isinstance(variable, dict)
        and bool(variable.get("value"))
        and str(variable.get("name", "")).upper().endswith(SECRET_NAMES)
    )
