"""Text that a server wrote, made fit for a message of ours. Pure. What is secret in it is taken
out by `report.redact`."""

from __future__ import annotations

import re

_CHARS_MAX = 240
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_MARKUP = re.compile(r"(?i)\s*(<!doctype html|<html|<head|<body)")


def clean(text: str, chars_max: int = _CHARS_MAX) -> str:
    """One line of whole words: of a cut word nobody could tell any more that it is a secret. Of
    a web page, its title."""
    if _MARKUP.match(text):
        text = title[1] if (title := _TITLE.search(text)) else ""
    words = "".join(char if char.isprintable() else " " for char in text).split()
    kept: list[str] = []
    for word in words:
        if sum(len(each) + 1 for each in kept) + len(word) > chars_max:
            return " ".join([*kept, "…"])
        kept.append(word)
    return " ".join(kept)
