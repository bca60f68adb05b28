"""The cluster as AIM services see it: a few verbs over dicts."""

import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Literal, TypeAlias

from aimkube import watch
from aimkube.errors import Forbidden, from_status, with_missing_permission
from aimkube.tracing import request
from aimkube.transport import (
    APPLY_PATCH,
    JSON,
    JSON_PATCH,
    MERGE_PATCH,
    Body,
    Fence,
    Query,
    Transport,
    decode,
)
from aimkube.watch import Snapshot, Timing, WatchEvent
from aimschema.resources import POD, RESOURCES, Key, Resource

LOG_LIMIT_BYTES = 1 << 20
LOG_QUIET_S = 300.0
LOG_LINE_BYTES = 1 << 16
OBJECT_QUIET_S = 90.0

Listing: TypeAlias = Snapshot

Propagation = Literal["Background", "Foreground", "Orphan"]


class Cluster:
    """One Kubernetes API server.

    Every call but `list_and_watch` is one request: it raises a KubeError (see aimkube.errors) and
    is not retried here. Where a body is given, its kind says which resource it is; `resource` is
    for kinds outside aimschema.resources.RESOURCES.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @classmethod
    async def connect(
        cls, kubeconfig: str | None = None, *, user_agent: str = "aim", fence: Fence | None = None
    ) -> "Cluster":
        """`kubeconfig` is a path; None means $KUBECONFIG, else the pod's service account. Makes no
        request. Raises NotConfigured.

        `fence` is awaited before every request that writes; while it does not return, nothing is
        written (see aimkube.lease).
        """
        return cls(await Transport.open(kubeconfig, user_agent, fence))

    async def close(self) -> None:
        await self._transport.close()

    async def version(self) -> str:
        """The server's release, such as `v1.36.2`."""
        return str(decode(await self._transport.send("GET", "/version")).get("gitVersion", ""))

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Body:
        """Raises NotFound."""
        return decode(await self._transport.send("GET", _path(resource, namespace, name)))

    async def serves(self, resource: Resource) -> bool:
        """Whether the discovery documents have the kind."""
        return await watch.is_served(self._transport, resource)

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Listing:
        """One consistent list, in pages; without a namespace, of all. Raises Expired if it took so
        long that its version has expired."""
        return await watch.list_pages(
            self._transport,
            resource,
            resource.path(namespace),
            _selection(label_selector, field_selector),
        )

    def list_and_watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        timing: Timing = watch.TIMING,
        reduce: watch.Reduce = watch.keep_whole,
    ) -> AsyncGenerator[WatchEvent]:
        """Endless: a Snapshot first and after every error, then the changes in the server's order;
        never raises for a fault of the cluster.

        An object may be yielded again in the same version; an object missing from a Snapshot is
        deleted. `reduce` returns the part of each object to yield; it must not raise.
        """
        selection = _selection(label_selector, field_selector)
        return watch.Watch(
            self._transport, resource, resource.path(namespace), selection, timing, reduce
        ).run()

    async def watch_object(
        self, resource: Resource, namespace: str | None, name: str, version: str
    ) -> AsyncGenerator[Body | None]:
        """The states of one object after `version`, None when it is deleted, until the server ends
        the stream, which it does after some minutes.

        RBAC allows this to who may watch the object of this name. Raises KubeError: Expired if
        `version` is too old, Unavailable also when nothing came for OBJECT_QUIET_S.
        """
        query: Query = {
            **_selection("", f"metadata.name={name}"),
            "watch": True,
            "resourceVersion": version,
            "timeoutSeconds": int(random.uniform(*watch.TIMING.stream_s)),  # noqa: S311 (spread)
        }
        lines = self._transport.lines(_path(resource, namespace), query, quiet_s=OBJECT_QUIET_S)
        async with aclosing(lines):
            async for line in lines:
                if line.strip():
                    event = decode(line)
                    body = event.get("object")
                    if event.get("type") == "ERROR":
                        raise from_status(body if isinstance(body, dict) else {})
                    yield None if event.get("type") == "DELETED" else body

    async def create(
        self, body: Body, *, resource: Resource | None = None, manager: str | None = None
    ) -> Body:
        """`manager` is the field manager; by default the server takes the user agent. Raises
        AlreadyExists, Invalid."""
        resource = resource or RESOURCES[body["kind"]]
        metadata = body["metadata"]
        path = _path(resource, metadata.get("namespace"))
        with request(
            "create",
            "POST",
            Key(resource.kind, metadata.get("namespace"), metadata.get("name", "")),
        ):
            query: Query = {} if manager is None else {"fieldManager": manager}
            return decode(await self._transport.send("POST", path, query=query, body=body))

    async def replace(self, body: Body, *, resource: Resource | None = None) -> Body:
        """PUT of the whole object: compare and swap with `metadata.resourceVersion`. Raises
        Conflict after another write, NotFound."""
        resource = resource or RESOURCES[body["kind"]]
        metadata = body["metadata"]
        return decode(
            await self._transport.send(
                "PUT", _path(resource, metadata.get("namespace"), metadata["name"]), body=body
            )
        )

    async def apply(
        self, body: Body, *, manager: str, resource: Resource | None = None, dry_run: bool = False
    ) -> Body:
        """Server-side apply, by force: `manager` owns the fields of `body`; its earlier fields that
        are not in `body` are removed. `dry_run`: nothing is stored.

        With `metadata.uid`, raises Conflict if the object has been re-created meanwhile; with
        `metadata.resourceVersion`, if an object exists in another version.
        """
        return await self._apply(body, manager, None, resource, dry_run=dry_run)

    async def apply_status(
        self, body: Body, *, manager: str, resource: Resource | None = None
    ) -> Body:
        """The whole status, by server-side apply on /status. With `metadata.resourceVersion`,
        raises Conflict after another write."""
        return await self._apply(body, manager, "status", resource)

    async def _apply(
        self,
        body: Body,
        manager: str,
        subresource: str | None,
        resource: Resource | None,
        *,
        dry_run: bool = False,
    ) -> Body:
        resource = resource or RESOURCES[body["kind"]]
        metadata = body["metadata"]
        path = _path(resource, metadata.get("namespace"), metadata["name"], subresource)
        query: Query = {"fieldManager": manager, "force": True}
        if dry_run:
            query["dryRun"] = "All"
        try:
            with request(
                "apply",
                "PATCH",
                Key(resource.kind, metadata.get("namespace"), metadata["name"]),
                subresource,
            ):
                return decode(
                    await self._transport.send(
                        "PATCH", path, query=query, body=body, content_type=APPLY_PATCH
                    )
                )
        except Forbidden as error:
            raise with_missing_permission(
                error, manager, resource, metadata.get("namespace")
            ) from error

    async def merge_patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        patch: Body,
        *,
        subresource: str | None = None,
    ) -> Body:
        """JSON merge patch (RFC 7386): null removes, lists are replaced whole. Raises NotFound,
        Conflict, Invalid."""
        path = _path(resource, namespace, name, subresource)
        return decode(
            await self._transport.send("PATCH", path, body=patch, content_type=MERGE_PATCH)
        )

    async def json_patch(self, key: Key, operations: Sequence[Body], *, manager: str) -> Body:
        """JSON patch (RFC 6902). An operation that replaces `/metadata/resourceVersion` makes the
        server compare it. Raises NotFound; Conflict after another write; Invalid, also for an
        operation or test that does not fit the object."""
        path = _path(RESOURCES[key.kind], key.namespace, key.name)
        with request("patch", "PATCH", key):
            return decode(
                await self._transport.send(
                    "PATCH",
                    path,
                    query={"fieldManager": manager},
                    body=list(operations),
                    content_type=JSON_PATCH,
                )
            )

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        propagation: Propagation = "Background",
        grace_period_s: int | None = None,
    ) -> None:
        """Returns when the delete is accepted: finalizers may hold the object. Raises NotFound,
        and Conflict where `uid` is another's."""
        options: Body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
        }
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        with request("delete", "DELETE", Key(resource.kind, namespace, name)):
            await self._transport.send(
                "DELETE", _path(resource, namespace, name), body=options, content_type=JSON
            )

    async def delete_version(self, body: Body) -> None:
        """Delete an object in exactly the version of `body`, and its dependents in the background.
        Raises NotFound, and Conflict if it has changed since."""
        metadata = body["metadata"]
        key = Key(body["kind"], metadata.get("namespace"), metadata["name"])
        preconditions = {name: metadata[name] for name in ("uid", "resourceVersion")}
        options: Body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": preconditions,
        }
        path = _path(RESOURCES[key.kind], key.namespace, key.name)
        with request("delete", "DELETE", key):
            await self._transport.send("DELETE", path, body=options, content_type=JSON)

    async def read_log(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        limit_bytes: int = LOG_LIMIT_BYTES,
        tail_lines: int | None = None,
        previous: bool = False,
    ) -> bytes:
        """What a container has written, cut at `limit_bytes`: from the beginning, or its last
        `tail_lines`. `previous`: before it was started again.

        Raises NotFound, and Rejected while it waits to start.
        """
        query: Query = {"container": container, "limitBytes": limit_bytes, **_tail(tail_lines)}
        if previous:
            query["previous"] = True
        return await self._transport.send("GET", _path(POD, namespace, pod, "log"), query=query)

    async def follow_log(
        self, namespace: str, pod: str, container: str, *, tail_lines: int | None = None
    ) -> AsyncGenerator[bytes]:
        """Lines from the beginning, or from the last `tail_lines` on, until the container ends.

        Empty lines are left out, and lines of more than LOG_LINE_BYTES: a pod may print without end
        and without a newline. Raises as `read_log` does, and Unavailable when the connection breaks
        or nothing was written for five minutes.
        """
        query: Query = {"container": container, "follow": True, **_tail(tail_lines)}
        path = _path(POD, namespace, pod, "log")
        async for line in self._transport.lines(
            path, query, quiet_s=LOG_QUIET_S, limit_bytes=LOG_LINE_BYTES
        ):
            if line:
                yield line


def _tail(lines: int | None) -> Query:
    return {} if lines is None else {"tailLines": lines}


def _path(
    resource: Resource,
    namespace: str | None,
    name: str | None = None,
    subresource: str | None = None,
) -> str:
    if resource.namespaced and namespace is None:
        raise ValueError(f"{resource.kind} {name or ''} needs a namespace")
    return resource.path(namespace, name, subresource)


def _selection(label_selector: str, field_selector: str) -> Query:
    selection: Query = {}
    if label_selector:
        selection["labelSelector"] = label_selector
    if field_selector:
        selection["fieldSelector"] = field_selector
    return selection
