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
5. A write that the API server rejects for an object it does not have (Action.is_guarded) needs no
   GET before it. Its answer is checked instead.
"""

from collections import OrderedDict
from collections.abc import Awaitable
from typing import Any, Protocol

from aimcontroller.projection import KubeObject
from aimkube import Cluster, NotFound
from aimschema.resources import RESOURCES, Key

MAX_CONFIRMED = 20_000


class Confirm(Protocol):
    """Returns when writes for an object may go out; raises UnconfirmedError, or what `Cluster.get`
    raises. `existing`: the object as the API server has just returned it; None: it is read."""

    def __call__(self, existing: dict[str, Any] | None = None, /) -> Awaitable[None]: ...


class UnconfirmedError(Exception):
    """The cluster does not have the object of an event."""


class Confirmations:
    """The objects that the API server has returned, by uid."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._uids: OrderedDict[Key, str] = OrderedDict()

    def check(self, key: Key, cause: KubeObject) -> None:
        """Without the API server. Raises UnconfirmedError for an event that contradicts itself."""
        if _identity(cause.body) != _expected_identity(key, cause):
            raise UnconfirmedError(f"the event on {key} describes another object")

    async def confirm(
        self, key: Key, cause: KubeObject | None, existing: dict[str, Any] | None = None
    ) -> None:
        """`cause` is the object at `key`, as a plan was made from it; `existing` as in Confirm.
        Raises UnconfirmedError, and what `Cluster.get` raises."""
        if cause is None:
            raise UnconfirmedError(f"{key} is not known")
        self.check(key, cause)
        if self._uids.get(key) == cause.uid:
            return
        if existing is None:
            existing = await self._read(key)
        if _identity(existing) != _expected_identity(key, cause):
            raise UnconfirmedError(f"{key} in the cluster is another object than that of the event")
        self._uids[key] = cause.uid
        if len(self._uids) > MAX_CONFIRMED:
            self._uids.popitem(last=False)

    def forget(self, key: Key) -> None:
        self._uids.pop(key, None)

    async def _read(self, key: Key) -> dict[str, Any]:
        try:
            return await self._cluster.get(RESOURCES[key.kind], key.namespace, key.name)
        except NotFound as error:
            if error.reason != "NotFound":
                raise
            raise UnconfirmedError(f"{key} is not in the cluster") from None


async def unconditionally(_existing: dict[str, Any] | None = None, /) -> None:
    """For writes whose cause is known to exist."""


def _expected_identity(key: Key, cause: KubeObject) -> tuple[Any, ...]:
    return (RESOURCES[key.kind].api_version, *key, cause.uid)


def _identity(body: dict[str, Any]) -> tuple[Any, ...]:
    metadata = body.get("metadata") or {}
    return (
        body.get("apiVersion"),
        body.get("kind"),
        metadata.get("namespace"),
        metadata.get("name"),
        metadata.get("uid"),
    )
