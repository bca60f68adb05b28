"""Lists all objects below a prefix, or fails. No client library; `FetchPage` gets a page.

S3 continues a listing with a token. A store without a token is asked for the keys after the last
one (StartAfter), then in the way of the first API version (Marker). A method that brings no new key
is replaced by the next. After the last method the listing fails: an incomplete listing may be a
part of the model, and a part is never a success."""

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
class PageStart:
    """The start of a page: the first key, the token of the page before, or the key before."""

    by: Literal["token", "start_after", "marker"] = "token"
    value: str = ""

    @property
    def params(self) -> dict[str, str]:
        names = {"token": "ContinuationToken", "start_after": "StartAfter", "marker": "Marker"}
        return {names[self.by]: self.value} if self.value else {}


FetchPage = Callable[[PageStart], Awaitable[Page]]


class IncompleteListing(Exception):
    """The listing may be incomplete; the text says why."""


async def list_objects(
    fetch_page: FetchPage, prefix: str, start: PageStart = PageStart()
) -> list[Item]:
    """Every object whose key begins with the prefix, as listed. Raises Incomplete and whatever
    `fetch_page` raises."""
    found: dict[str, Item] = {}
    tokens: set[str] = set()
    empty_pages, last = 0, ""
    while True:
        page = await fetch_page(start)
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
            raise IncompleteListing(f"answers {empty_pages} empty pages in a row")
        token = str(page.get("NextContinuationToken") or "")
        if start.by == "token" and (has_progress or not keys) and token and token not in tokens:
            tokens.add(token)
            start = PageStart("token", token)
        elif keys != sorted(keys):
            raise IncompleteListing("lists keys out of order and gives no token to continue with")
        else:
            start = _next_start(start, last, has_progress)


def _next_start(start: PageStart, last: str, has_progress: bool) -> PageStart:
    if not last:
        raise IncompleteListing("reports more keys, and lists none")
    if has_progress:
        return PageStart("start_after" if start.by == "token" else start.by, last)
    if start.by == "marker":
        raise IncompleteListing("reports more keys, and lists the same keys again")
    return PageStart("start_after" if start.by == "token" else "marker", last)


def _more(page: Page, listed: int) -> Literal["yes", "perhaps", "no"]:
    """Whether another page follows. A token without "truncated" may be an echo, or the store
    misspells the field."""
    truncated = page.get("IsTruncated")
    is_full = listed >= min(_PAGE_KEYS, page.get("MaxKeys") or _PAGE_KEYS)
    if truncated is True or (truncated is None and is_full):
        return "yes"
    return "perhaps" if page.get("NextContinuationToken") else "no"


def _items(page: Page, prefix: str) -> Sequence[Item]:
    """The listed objects. Keys that are URL-encoded without a declaration do not have the prefix;
    they are decoded."""
    items = [dict(item) for item in page.get("Contents") or ()]
    if any(not item.get("Key") for item in items):
        raise IncompleteListing("lists an object without a key")
    if not items and (page.get("KeyCount") or 0) > len(page.get("CommonPrefixes") or ()):
        raise IncompleteListing(f"counts {page['KeyCount']} keys and lists none")
    if items and not any(item["Key"].startswith(prefix) for item in items):
        for decode in (unquote, unquote_plus):
            if all(decode(item["Key"]).startswith(prefix) for item in items):
                return [item | {"Key": decode(item["Key"])} for item in items]
    return items
