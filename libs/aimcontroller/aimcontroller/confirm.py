"""Whether the object of an event is in the cluster: read from the API server before the first write
for it.

1. An event alone causes no write: any publisher on `aim.object.>` could forge an object, and with
   it a Job in any namespace.
2. An object is confirmed when the API server returns one of the same apiVersion, kind, namespace,
   name and uid.
3. A 404 without the reason NotFound is a proxy's: nothing is written, and the read is retried
   later.
4. This costs one GET for each object and process. The result is kept until the object is deleted,
   for at most MAX_CONFIRMED objects.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from aimcontroller.projection import KubeObject
from aimkube import Cluster, NotFound
from aimschema.resources import RESOURCES, Key

MAX_CONFIRMED = 20_000
Confirm: TypeAlias = Callable[[], Awaitable[None]]
"""Returns when writes for an object may go out; raises UnconfirmedError, or what `Cluster.get`
raises."""


class UnconfirmedError(Exception):
    """The cluster does not have the object of an event."""


class Confirmations:
    """The objects that the API server has returned, by uid."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._uids: OrderedDict[Key, str] = OrderedDict()

    async def confirm(self, key: Key, cause: KubeObject | None) -> None:
        """`cause` is the object at `key`, as a plan was made from it. Raises UnconfirmedError,
        and what `Cluster.get` raises."""
        if cause is None:
            raise UnconfirmedError(f"{key} is not known")
        resource = RESOURCES[key.kind]
        expected = (resource.api_version, *key, cause.uid)
        if _identity(cause.body) != expected:
            raise UnconfirmedError(f"the event on {key} describes another object")
        if self._uids.get(key) == cause.uid:
            return
        try:
            existing = await self._cluster.get(resource, key.namespace, key.name)
        except NotFound as error:
            if error.reason != "NotFound":
                raise
            raise UnconfirmedError(f"{key} is not in the cluster") from None
        if _identity(existing) != expected:
            raise UnconfirmedError(f"{key} in the cluster is another object than that of the event")
        self._uids[key] = cause.uid
        if len(self._uids) > MAX_CONFIRMED:
            self._uids.popitem(last=False)

    def forget(self, key: Key) -> None:
        self._uids.pop(key, None)


async def unconditionally() -> None:
    """For writes whose cause is known to exist."""


def _identity(body: dict[str, Any]) -> tuple[Any, ...]:
    metadata = body.get("metadata") or {}
    return (
        body.get("apiVersion"),
        body.get("kind"),
        metadata.get("namespace"),
        metadata.get("name"),
        metadata.get("uid"),
    )
