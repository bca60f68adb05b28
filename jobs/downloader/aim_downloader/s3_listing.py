"""Listing what is below a prefix, whole or not at all. No client library here; `Ask` gets one page.

S3 continues a listing with a token. Stores that forget it are asked for what comes after the last
key (StartAfter), and those that do not know this either, in the way of the first version (Marker).
A way that brings nothing new is left for the next; after the last of them the listing is given up:
what was listed may be a part of the model, and a part is never a success.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote, unquote_plus

Item = Mapping[str, Any]
Page = Mapping[str, Any]

_PAGE_KEYS = 1000
_EMPTY_PAGES_MAX = 1000


@dataclass(frozen=True)
class Way:
    """How to ask for a page: from the start, by the token of the page before, or for what comes
    after a key."""

    by: Literal["token", "start_after", "marker"] = "token"
    value: str = ""

    @property
    def params(self) -> dict[str, str]:
        names = {"token": "ContinuationToken", "start_after": "StartAfter", "marker": "Marker"}
        return {names[self.by]: self.value} if self.value else {}


Ask = Callable[[Way], Awaitable[Page]]


class Incomplete(Exception):
    """The store's listing cannot be trusted to be whole; the text says why."""


async def list_objects(ask: Ask, prefix: str, way: Way = Way()) -> list[Item]:
    """Every object whose key begins with the prefix, as listed. Raises Incomplete and whatever
    `ask` raises."""
    found: dict[str, Item] = {}
    tokens: set[str] = set()
    empty_pages, last = 0, ""
    while True:
        page = await ask(way)
        items = _items(page, prefix)
        keys = [item["Key"] for item in items]
        has_progress = not found.keys() >= set(keys)
        found |= {item["Key"]: item for item in items if item["Key"] not in found}
        more = _more(page, len(items))
        if more == "no" or (more == "perhaps" and not has_progress):
            return [item for key, item in found.items() if key.startswith(prefix)]
        last = keys[-1] if has_progress else last
        empty_pages = 0 if keys else empty_pages + 1
        if empty_pages > _EMPTY_PAGES_MAX:
            raise Incomplete(f"answers {empty_pages} empty pages in a row")
        token = str(page.get("NextContinuationToken") or "")
        if way.by == "token" and (has_progress or not keys) and token and token not in tokens:
            tokens.add(token)
            way = Way("token", token)
        elif keys != sorted(keys):
            raise Incomplete("lists keys out of order and gives no token to continue with")
        else:
            way = _next_way(way, last, has_progress)


def _next_way(way: Way, last: str, has_progress: bool) -> Way:
    if not last:
        raise Incomplete("says that there is more, and lists nothing")
    if has_progress:
        return Way("start_after" if way.by == "token" else way.by, last)
    if way.by == "marker":
        raise Incomplete("says that there is more, and lists the same keys again")
    return Way("start_after" if way.by == "token" else "marker", last)


def _more(page: Page, listed: int) -> Literal["yes", "perhaps", "no"]:
    """Whether another page follows. A token beside "not truncated" may be an echo, or the word
    for truncated misspelt."""
    truncated = page.get("IsTruncated")
    is_full = listed >= min(_PAGE_KEYS, page.get("MaxKeys") or _PAGE_KEYS)
    if truncated is True or (truncated is None and is_full):
        return "yes"
    return "perhaps" if page.get("NextContinuationToken") else "no"


def _items(page: Page, prefix: str) -> Sequence[Item]:
    """The listed objects. Keys that are URL-encoded although nobody said so are told by the
    prefix, which they then do not have."""
    items = [dict(item) for item in page.get("Contents") or ()]
    if any(not item.get("Key") for item in items):
        raise Incomplete("lists an object without a key")
    if not items and (page.get("KeyCount") or 0) > len(page.get("CommonPrefixes") or ()):
        raise Incomplete(f"counts {page['KeyCount']} keys and lists none")
    if items and not any(item["Key"].startswith(prefix) for item in items):
        for decode in (unquote, unquote_plus):
            if all(decode(item["Key"]).startswith(prefix) for item in items):
                return [item | {"Key": decode(item["Key"])} for item in items]
    return items
