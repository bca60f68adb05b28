"""Watches: which lines a change becomes for one watcher, and the stream that writes them.

Leaving a selection is a DELETED with the old object, entering it an ADDED. Versions out of the
history get a 410 as an ERROR event.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
from aiohttp import web

from aimlab.apiserver.cluster import Cluster
from aimlab.apiserver.errors import ApiError, Cause, expired_error, invalid
from aimlab.apiserver.objects import Json, Obj
from aimlab.apiserver.queries import Selection, version_of
from aimlab.apiserver.store import Change, Entry

BOOKMARK_EVERY_S = 60.0
BACKLOG = 20_000
NO_PROGRESS = (
    "a watch stream was requested by the client but the required storage feature"
    " RequestWatchProgress is disabled"
)
Render = Callable[[Obj], Json]
"""An object as the watcher wants it: itself, a Table, its metadata."""


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """What a watch request asks for."""

    version: int
    bookmarks: bool
    initial_events: bool
    timeout_s: float


def parse_watch_options(query: Mapping[str, str]) -> WatchOptions:
    """The parameters of a watch. ApiError 422 for combinations that a real server rejects, 500 for
    a version that is not a number."""
    initial = query.get("sendInitialEvents") == "true"
    match = query.get("resourceVersionMatch", "")
    if initial != (match == "NotOlderThan"):
        message = (
            "Forbidden: sendInitialEvents and resourceVersionMatch=NotOlderThan go together in a"
            " watch"
        )
        raise invalid(
            "meta.k8s.io",
            "ListOptions",
            "",
            [Cause("resourceVersionMatch", "FieldValueForbidden", message)],
        )
    seconds = query.get("timeoutSeconds", "")
    return WatchOptions(
        version=version_of(query.get("resourceVersion", "")),
        bookmarks=query.get("allowWatchBookmarks") == "true",
        initial_events=initial,
        timeout_s=float(seconds) if seconds.isdigit() and int(seconds) else _spread_timeout_s(),
    )


def _spread_timeout_s() -> float:
    """Spreads reconnects."""
    return random.uniform(1800, 3600)  # noqa: S311


class Watcher:
    """One watch: collects changes as lines until the stream takes them. Register before the
    first line is written."""

    def __init__(
        self, cluster: Cluster, chosen: Selection, render: Render | None, backlog: int = BACKLOG
    ) -> None:
        self.cluster = cluster
        self.chosen = chosen
        self.render = render
        self.backlog = backlog
        self.collection = cluster.store.collections[chosen.resource.storage]
        self.lines: deque[bytes] = deque()
        self.after = 0
        self.closed = False
        self.news = asyncio.Event()

    def start(self, options: WatchOptions) -> None:
        """Queue what the wish asks for and follow the collection."""
        current = self.cluster.store.version
        if options.initial_events and self.cluster.old_etcd:
            self.lines.append(_event("ERROR", ApiError(500, "InternalError", NO_PROGRESS).body()))
            self.close()
            return
        if options.version == 0 or options.initial_events:
            for entry in self.collection.entries(self.chosen.namespace):
                if self.chosen.takes(entry):
                    self.lines.append(self._line("ADDED", entry))
            if options.initial_events and options.bookmarks:
                self.lines.append(self.bookmark({"k8s.io/initial-events-end": "true"}))
            self.after = current
        elif options.version < self.collection.floor:
            error = expired_error(
                f"too old resource version: {options.version} ({self.collection.floor})"
            )
            self.lines.append(_event("ERROR", error.body()))
            self.close()
        else:
            self.after = options.version
            for change in self.collection.since(options.version):
                self.see(change)
        self.collection.observers.add(self.see)
        self.collection.closers.add(self.close)

    def stop(self) -> None:
        self.collection.observers.discard(self.see)
        self.collection.closers.discard(self.close)

    def close(self) -> None:
        """End the stream after what is queued."""
        self.closed = True
        self.news.set()

    def see(self, change: Change) -> None:
        """Queue the line for a change, if it concerns this watcher. One that does not keep up is
        cut off and has to come again."""
        if change.version <= self.after:
            return
        now = change.type != "DELETED" and self.chosen.takes(change.entry)
        before = change.previous is not None and self.chosen.takes(change.previous)
        if now:
            self.lines.append(self._line("MODIFIED" if before else "ADDED", change.entry))
        elif before and change.previous:
            self.lines.append(
                self._line(
                    "DELETED",
                    (
                        change.entry
                        if change.type == "DELETED"
                        else _left_selection(change.previous, change.entry)
                    ),
                )
            )
        else:
            return
        if len(self.lines) > self.backlog:
            self.lines.clear()
            self.close()
        self.news.set()

    def take(self) -> bytes:
        """Everything queued."""
        self.news.clear()
        taken = b"".join(self.lines)
        self.lines.clear()
        return taken

    def bookmark(self, annotations: Obj | None = None) -> bytes:
        """A BOOKMARK line at the current version."""
        resource = self.chosen.resource
        metadata = {
            "resourceVersion": str(self.cluster.store.version),
            **({"annotations": annotations} if annotations else {}),
        }
        obj: Obj = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        return _event("BOOKMARK", self.render(obj) if self.render else obj)

    def _line(self, kind: str, entry: Entry) -> bytes:
        viewed = self.chosen.resource.view(entry.obj)
        if self.render is None and viewed is entry.obj:
            return b'{"type":"%s","object":%s}\n' % (kind.encode(), entry.raw)
        return _event(kind, self.render(viewed) if self.render else viewed)


def _left_selection(previous: Entry, entry: Entry) -> Entry:
    """The last state inside the selection, under the version that left it."""
    metadata = {**previous.obj["metadata"], "resourceVersion": str(entry.version)}
    return Entry({**previous.obj, "metadata": metadata}, entry.version)


def _event(kind: str, obj: Json) -> bytes:
    return msgspec.json.encode({"type": kind, "object": obj}) + b"\n"


async def stream(
    request: web.Request,
    watcher: Watcher,
    options: WatchOptions,
    bookmark_every_s: float = BOOKMARK_EVERY_S,
) -> web.StreamResponse:
    """Write a watcher's lines until its time is over, the collection is closed or the client has
    disconnected."""
    response = web.StreamResponse(
        headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
    )
    response.enable_chunked_encoding()
    await response.prepare(request)
    has_bookmarks = options.bookmarks and not watcher.cluster.old_etcd
    loop = asyncio.get_running_loop()
    end, next_bookmark = loop.time() + options.timeout_s, loop.time() + bookmark_every_s
    while True:
        taken = watcher.take()
        if taken:
            await response.write(taken)
        if watcher.closed or loop.time() >= end:
            return response
        if has_bookmarks and loop.time() >= next_bookmark and not watcher.lines:
            await response.write(watcher.bookmark())
            next_bookmark = loop.time() + bookmark_every_s
        until = min(end, next_bookmark) if has_bookmarks else end
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await watcher.news.wait()
