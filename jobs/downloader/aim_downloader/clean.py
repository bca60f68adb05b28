"""Clean text from a server for use in a message. Pure. `report.redact` removes secrets from it."""

from __future__ import annotations

import re

_CHARS_MAX = 240
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_MARKUP = re.compile(r"(?i)\s*(<!doctype html|<html|<head|<body)")


def clean(text: str, chars_max: int = _CHARS_MAX) -> str:
    """One line of complete words: `redact` could not recognize a secret that is cut. Of a web page,
    its title."""
    if _MARKUP.match(text):
        text = title[1] if (title := _TITLE.search(text)) else ""
    parts = "".join(char if char.isprintable() else " " for char in text).split()
    fitting: list[str] = []
    for part in parts:
        if sum(len(part) + 1 for part in fitting) + len(part) > chars_max:
            return " ".join([*fitting, "…"])
        fitting.append(part)
    return " ".join(fitting)
