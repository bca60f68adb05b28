"""List a kind, then watch it without end.

1. A snapshot is one consistent list. It comes from a watch that sends initial events first
   (KEP-3157) and is complete at the bookmark that ends them. If the server rejects that or ends the
   stream early, it comes from pages.
2. A stream that the server ends regularly is resumed from the last received version, bookmarks
   included. So is a silent stream on which no bookmark has come since the list: an API server on an
   etcd without RequestWatchProgress sends none. It rejects initial events too. Both are logged once
   for a server.
3. On any other error, discard the watch and relist: 410 in both its forms, any ERROR event, a line
   that is not JSON, a lost or otherwise silent connection (a server restored from a backup never
   responds to a version from its future), or after an hour.
4. `reduce` shrinks each object on arrival: the users who create objects decide on their size, up
   to 1.5 MiB each. It must leave out managedFields, which are half of what a list of thousands
   takes. The default leaves out only them. Deleted objects come without them.
5. A single 404 proves nothing about a kind: proxies return it, and API servers that start. The kind
   is not served if the discovery document of its group no longer lists it, or `/apis` its group, in
   every request for a while. From then on, one request at a time shows whether it is installed.
6. There is at least half a second between two requests, and Retry-After of the server is respected.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeAlias

import structlog

from aimkube import backoff, errors
from aimkube.transport import Body, Query, Transport, decode, decode_list
from aimschema.resources import Resource

log = structlog.get_logger(__name__)

PAGE_SIZE = 500
SMALL_PAGE = 50
"""Page size of who keeps less than the objects: of the largest that a cluster takes, such a page
has 75 MB."""
INITIAL_EVENTS_END = "k8s.io/initial-events-end"
HEALTHY_S = 30.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All objects of a kind at `resource_version`; an object that is not in `items` is deleted."""

    items: tuple[Body, ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Modified:
    """An object was added or modified."""

    body: Body


@dataclass(frozen=True, slots=True)
class Deleted:
    """An object was deleted, or has left the selector: then `body` shows its last labels inside
    and the object lives on."""

    body: Body


@dataclass(frozen=True, slots=True)
class KindNotServed:
    """The API does not serve the kind. Sent once; a Snapshot follows when it does."""


WatchEvent: TypeAlias = Snapshot | Modified | Deleted | KindNotServed
Initial: TypeAlias = dict[tuple[str, str], Body]
Reduce: TypeAlias = Callable[[Body], Body]


def keep_whole(body: Body) -> Body:
    """Keep all but managedFields; changes the body."""
    body["metadata"].pop("managedFields", None)
    return body


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. Bookmarks come about every 60, so a stream with bookmarks that is silent for
    `quiet_s` is dead."""

    quiet_s: float = 90.0
    stream_s: tuple[float, float] = (300.0, 600.0)
    relist_s: float = 3600.0
    short_s: float = 1.0
    retry_s: float = backoff.SHORTEST_S
    absent_s: float = 10.0
    """Between requests for an absent kind: whether it has been installed."""
    deleted_s: float = 15.0
    """How long a kind that was listed has to be missing before it is called absent."""
    new_s: float = 0.3
    """The same for a kind that was not listed yet: nothing much is lost, and others wait for it."""


TIMING = Timing()


async def list_pages(
    transport: Transport, resource: Resource, path: str, query: Query, reduce: Reduce = keep_whole
) -> Snapshot:
    """All pages of one consistent list. Raises KubeError; Expired if the list took so long that its
    version has expired."""
    items: list[Body] = []
    token, limit = "", PAGE_SIZE if reduce is keep_whole else SMALL_PAGE
    while True:
        data = await transport.send(
            "GET", path, query={**query, "limit": limit, **({"continue": token} if token else {})}
        )
        metadata, page = decode_list(data)
        version, token = _place(metadata)
        for item in page:
            if _has_identity(item):
                items.append(
                    reduce({**item, "apiVersion": resource.api_version, "kind": resource.kind})
                )
            else:
                log.warning("object-without-identity", kind=resource.kind)
        if not token:
            return Snapshot(tuple(items), version)


def _place(metadata: object) -> tuple[str, str]:
    """The version of a list, and where its next page begins. Raises Unavailable for what is no
    list."""
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(version, str):
        raise errors.Unavailable("a list without a version", reason="Undecodable")
    return version, str(metadata.get("continue") or "")


def _has_identity(item: object) -> bool:
    metadata = item.get("metadata") if isinstance(item, dict) else None
    return isinstance(metadata, dict) and all(
        isinstance(metadata.get(name), str) for name in ("name", "uid", "resourceVersion")
    )


@dataclass
class Watch:
    """One endless list and watch, and where it stands. `version` None: the next round takes a
    snapshot."""

    transport: Transport
    resource: Resource
    path: str
    query: Query
    timing: Timing = TIMING
    reduce: Reduce = keep_whole
    version: str | None = field(default=None, init=False)
    listed_at: float | None = field(default=None, init=False)
    opened_at: float | None = field(default=None, init=False)
    initial_events: bool = field(default=True, init=False)
    has_bookmarks: bool = field(default=False, init=False)
    failures: int = field(default=0, init=False)
    missing_since: float | None = field(default=None, init=False)
    absent: bool = field(default=False, init=False)
    troubled: bool = field(default=False, init=False)

    async def run(self) -> AsyncGenerator[WatchEvent]:
        while True:
            self.opened_at = None
            try:
                async with aclosing(self._round()) as round_:
                    async for event in round_:
                        yield event
                        # a generator keeps what it yielded while it waits, and a quiet watch waits
                        # for hours
                        del event
                pause_s = self._on_closed()
            except errors.KubeError as error:
                if (
                    self.opened_at is None
                    and isinstance(error, errors.NotFound)
                    and (self.absent or await self._is_unserved())
                ):
                    if self._on_not_found():
                        yield KindNotServed()
                    pause_s = backoff.wait_s(
                        1, shortest_s=self.timing.absent_s if self.absent else self.timing.retry_s
                    )
                else:
                    self.missing_since = None
                    pause_s = self._on_error(error)
            await asyncio.sleep(pause_s)

    async def _round(self) -> AsyncGenerator[WatchEvent]:
        """A snapshot if one is needed, then one stream to its end."""
        if self.version is None and not self.initial_events:
            self.has_bookmarks = False
            yield self._to_snapshot(
                await list_pages(self.transport, self.resource, self.path, self.query, self.reduce)
            )
        initial: Initial | None = {} if self.version is None else None
        stream_s = random.uniform(*self.timing.stream_s)  # noqa: S311 (spread, so that streams do not all end at once)
        query = self._stream_query(int(stream_s))
        lines = self.transport.lines(
            self.path, query, quiet_s=self.timing.quiet_s, total_s=stream_s + self.timing.quiet_s
        )
        async with aclosing(lines):
            async for line in lines:
                self.opened_at = self.opened_at or time.monotonic()
                if not line.strip():
                    continue
                event = self._take(decode(line), initial)
                if isinstance(event, Snapshot):
                    initial = None
                if event is not None:
                    yield event
                    event = None

    def _stream_query(self, stream_s: int) -> Query:
        query: Query = {
            **self.query,
            "watch": True,
            "allowWatchBookmarks": True,
            "timeoutSeconds": max(1, stream_s),
        }
        if self.version is None:
            return {**query, "sendInitialEvents": True, "resourceVersionMatch": "NotOlderThan"}
        return {**query, "resourceVersion": self.version}

    def _take(self, event: Body, initial: Initial | None) -> WatchEvent | None:
        """What one event of the stream means. While `initial` collects the snapshot, nothing is
        handed on before it is whole."""
        kind, body = event.get("type"), event.get("object")
        if not isinstance(body, dict):
            raise errors.Unavailable(
                f"a watch event without an object: {kind}", reason="Undecodable"
            )
        if kind == "ERROR":
            raise errors.from_status(body)
        metadata = body.get("metadata")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("resourceVersion"), str):
            raise errors.Unavailable(
                f"a watch event with an object without a version: {kind}", reason="Undecodable"
            )
        self.has_bookmarks = self.has_bookmarks or kind == "BOOKMARK"
        if kind in {"ADDED", "MODIFIED", "DELETED"} and not _has_identity(body):
            log.warning("object-without-identity", kind=self.resource.kind)
            return None
        body = self.reduce(body) if kind in {"ADDED", "MODIFIED"} else keep_whole(body)
        if initial is not None:
            return self._collect(initial, kind, metadata, body)
        self.version = metadata["resourceVersion"]
        match kind:
            case "ADDED" | "MODIFIED":
                return Modified(body)
            case "DELETED":
                return Deleted(body)
        return None

    def _collect(
        self, initial: Initial, kind: object, metadata: Body, body: Body
    ) -> Snapshot | None:
        """The snapshot, once the bookmark shows that it is whole."""
        key = (metadata.get("namespace", ""), metadata.get("name", ""))
        match kind:
            case "BOOKMARK":
                annotations = metadata.get("annotations") or {}
                if annotations.get(INITIAL_EVENTS_END) == "true":
                    listed = Snapshot(tuple(initial.values()), metadata["resourceVersion"])
                    return self._to_snapshot(listed)
            case "ADDED" | "MODIFIED":
                initial[key] = body
            case "DELETED":
                initial.pop(key, None)
        return None

    def _to_snapshot(self, listed: Snapshot) -> Snapshot:
        self.version, self.listed_at = listed.resource_version, time.monotonic()
        self.missing_since, self.absent = None, False
        if self.troubled:
            log.info("watch-recovered", kind=self.resource.kind, objects=len(listed.items))
            self.troubled = False
        return listed

    async def _is_unserved(self) -> bool:
        """Whether the API server states that it does not serve the kind; False where it cannot
        be asked."""
        try:
            return not await is_served(self.transport, self.resource)
        except errors.KubeError as error:
            log.info(
                "discovery-unavailable",
                kind=self.resource.kind,
                status=error.status,
                error=error.message,
            )
            return False

    def _on_not_found(self) -> bool:
        """Note that the kind is not served; True when it is to be called absent: once, after it
        was missing for a while."""
        self.version = None
        now = time.monotonic()
        if self.missing_since is None:
            self.missing_since = now
        least_s = self.timing.new_s if self.listed_at is None else self.timing.deleted_s
        if self.absent or now - self.missing_since < least_s:
            return False
        self.listed_at, self.absent = None, True
        return True

    def _on_closed(self) -> float:
        """Seconds to wait after the server ended a stream in good order."""
        now = time.monotonic()
        if self.version is None:
            self.initial_events = False
        elif self.listed_at is not None and now - self.listed_at > self.timing.relist_s:
            self.version = None
        if self.opened_at is not None and now - self.opened_at >= self.timing.short_s:
            self.failures = 0
            return 0.0
        self.failures += 1
        return backoff.wait_s(self.failures, shortest_s=self.timing.retry_s)

    def _on_error(self, error: errors.KubeError) -> float:
        """Seconds to wait after anything else went wrong; a new snapshot unless the server only
        asked for patience, or has sent nothing because nothing happened."""
        opened = self.opened_at is not None
        if self.version is not None and opened and _is_silence(error) and not self.has_bookmarks:
            if self.transport.is_first_limit():
                log.info("watch-without-bookmarks", kind=self.resource.kind)
            return self._on_closed()
        rejected = self._is_watch_list_rejected(error)
        if rejected or (self.version is None and (opened or isinstance(error, errors.Expired))):
            self.initial_events = False
        if opened or not isinstance(error, errors.Throttled):
            self.version = None
        if self.opened_at is not None and time.monotonic() - self.opened_at >= HEALTHY_S:
            self.failures = 0
        self.failures += 1
        if rejected:
            if self.transport.is_first_limit():
                log.info("watch-list-rejected", kind=self.resource.kind, error=error.message)
        elif not isinstance(error, errors.Expired) and not self.troubled:
            self.troubled = True
            log.warning(
                "watch-interrupted",
                kind=self.resource.kind,
                status=error.status,
                reason=error.reason,
                error=error.message,
            )
        return backoff.wait_s(self.failures, error, shortest_s=self.timing.retry_s)

    def _is_watch_list_rejected(self, error: errors.KubeError) -> bool:
        """Whether the server may not send initial events. A list follows, and shows whether the
        server works."""
        return (
            self.version is None
            and self.initial_events
            and (isinstance(error, errors.Rejected | errors.Invalid) or error.status == 500)
        )


def _is_silence(error: errors.KubeError) -> bool:
    """Whether no answer came in time; not a Status that says so."""
    return error.status == 0 and error.reason == "Timeout"


async def is_served(transport: Transport, resource: Resource) -> bool:
    """Whether the API server's discovery documents have the kind. Raises KubeError where they do
    not come or are none."""
    path = f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"
    try:
        document = decode(await transport.send("GET", path))
    except errors.NotFound:
        return resource.api_version in _group_versions(decode(await transport.send("GET", "/apis")))
    _check_kind(document, "APIResourceList")
    return any(
        isinstance(each, dict) and each.get("name") == resource.plural
        for each in document.get("resources") or ()
    )


def _group_versions(document: Body) -> set[str]:
    _check_kind(document, "APIGroupList")
    groups = [each for each in document.get("groups") or () if isinstance(each, dict)]
    versions = [
        each for group in groups for each in group.get("versions") or () if isinstance(each, dict)
    ]
    return {str(each.get("groupVersion")) for each in versions}


def _check_kind(document: Body, kind: str) -> None:
    if document.get("kind") != kind:
        raise errors.Unavailable(
            f"not an {kind} but {document.get('kind')!s:.60}", reason="Undecodable"
        )
