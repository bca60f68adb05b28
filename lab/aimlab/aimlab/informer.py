"""The objects of some kinds, held in memory and kept current by watches.

Guarantees that nothing is planned before every kind was listed once. The state may be a moment old:
every write that follows from it must be one that the API rejects or that changes nothing when it is
repeated.
"""

import asyncio
from collections.abc import Iterable

from aimkube import Cluster, Deleted, KindNotServed, Modified, Snapshot
from aimlab.kinds import Body
from aimschema.resources import Resource

Place = tuple[str, str]


class Objects:
    """Objects by kind, namespace and name."""

    def __init__(self, bodies: Iterable[Body] = ()) -> None:
        self._of: dict[str, dict[Place, Body]] = {}
        for body in bodies:
            self.put(body["kind"], body)

    def put(self, kind: str, body: Body) -> None:
        self._of.setdefault(kind, {})[_place(body)] = body

    def drop(self, kind: str, body: Body) -> None:
        self._of.get(kind, {}).pop(_place(body), None)

    def replace(self, kind: str, bodies: Iterable[Body]) -> None:
        self._of[kind] = {_place(body): body for body in bodies}

    def find(self, resource: Resource, namespace: str | None, name: str) -> Body | None:
        return self._of.get(resource.kind, {}).get((namespace or "", name))

    def all(self, resource: Resource, namespace: str | None = None) -> list[Body]:
        """Oldest first, equal ages by name: the same order in every pass."""
        bodies = self._of.get(resource.kind, {}).values()
        return sorted(
            (body for body in bodies if namespace in (None, body["metadata"].get("namespace"))),
            key=_age,
        )


class Informer:
    """`objects` follows the API; `listen` gives an event that is set by every change."""

    def __init__(self, cluster: Cluster, resources: Iterable[Resource]) -> None:
        self.objects = Objects()
        self.loaded = asyncio.Event()
        self._cluster = cluster
        self._resources = tuple(resources)
        self._missing = {resource.kind for resource in self._resources}
        self._listeners: list[asyncio.Event] = []

    def listen(self) -> asyncio.Event:
        event = asyncio.Event()
        self._listeners.append(event)
        return event

    async def run(self) -> None:
        """Follows every kind until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for resource in self._resources:
                tasks.create_task(self._follow(resource))

    async def _follow(self, resource: Resource) -> None:
        async for news in self._cluster.list_and_watch(resource):
            match news:
                case Snapshot(items=items):
                    self.objects.replace(resource.kind, items)
                case Modified(body=body):
                    self.objects.put(resource.kind, body)
                case Deleted(body=body):
                    self.objects.drop(resource.kind, body)
                case KindNotServed():
                    self.objects.replace(resource.kind, [])
            self._missing.discard(resource.kind)
            if not self._missing:
                self.loaded.set()
            for listener in self._listeners:
                listener.set()


def _place(body: Body) -> Place:
    metadata = body["metadata"]
    return (metadata.get("namespace", ""), metadata["name"])


def _age(body: Body) -> tuple[str, str, str]:
    metadata = body["metadata"]
    return (metadata.get("creationTimestamp", ""), metadata.get("namespace", ""), metadata["name"])
