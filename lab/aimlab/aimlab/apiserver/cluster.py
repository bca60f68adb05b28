"""The state of a cluster: the store, the kinds it serves and its clock. Definitions of custom
kinds take effect with their write."""

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

from aimlab.apiserver import crd
from aimlab.apiserver.errors import ApiError, not_found
from aimlab.apiserver.kinds import BUILTINS, Resource
from aimlab.apiserver.objects import Obj, dig, same, stamp
from aimlab.apiserver.store import Change, CollectionKey, Entry, Store

NAMESPACES = ("", "namespaces")
PROTECTED_NAMESPACES = ("default", "kube-system")


def utc_now() -> datetime:
    return datetime.now(UTC)


class Cluster:
    """What all requests share. Single-threaded; every method is synchronous and quick."""

    def __init__(
        self,
        now: Callable[[], datetime] = utc_now,
        *,
        loopback_endpoints: bool = True,
        old_etcd: bool = False,
    ) -> None:
        """`loopback_endpoints` False: EndpointSlices with loopback addresses are rejected, as by a
        real server. `old_etcd`: as on an etcd without RequestWatchProgress, such as 3.4.23: no
        initial events and no bookmarks."""
        self.now = now
        self.loopback_endpoints = loopback_endpoints
        self.old_etcd = old_etcd
        self.store = Store()
        self.resources: dict[tuple[str, str, str], Resource] = {}
        self.known_kinds: set[tuple[str, str]] = set()
        self.discovery_version = 0
        for resource in BUILTINS:
            self._serve(resource)
        self.store.observers.append(self._define)
        for name in PROTECTED_NAMESPACES:
            self.store.put(NAMESPACES, self._namespace(name))

    def time(self) -> str:
        """The time now, as objects carry it."""
        return stamp(self.now())

    def _namespace(self, name: str) -> Obj:
        return {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "uid": str(uuid4()),
                "creationTimestamp": self.time(),
                "labels": {"kubernetes.io/metadata.name": name},
            },
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        }

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self.resources.get((group, version, plural))

    def served_as(self, key: CollectionKey) -> Resource | None:
        """A resource through which a collection can be read and written."""
        return next(
            (
                found
                for found in self.resources.values()
                if found.storage == key and found.group == key[0]
            ),
            None,
        )

    def get(self, resource: Resource, namespace: str, name: str) -> Entry:
        """The stored object; ApiError 404."""
        entry = self.store.collections[resource.storage].get(namespace, name)
        if entry is None:
            raise not_found(resource.group, resource.plural, name)
        return entry

    def namespace(self, name: str) -> Obj:
        """The Namespace object; ApiError 404."""
        entry = self.store.collections[NAMESPACES].get("", name)
        if entry is None:
            raise not_found("", "namespaces", name)
        return entry.obj

    def require_open_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        """ApiError 404 or 403 if nothing can be created in a namespace."""
        if "deletionTimestamp" in self.namespace(namespace)["metadata"]:
            why = (
                f"unable to create new content in namespace {namespace} because it is being"
                " terminated"
            )
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
            details = {
                "name": name,
                "group": resource.group,
                "kind": resource.plural,
                "causes": [cause],
            }
            raise ApiError(
                403, "Forbidden", f'{resource.full_name} "{name}" is forbidden: {why}', details
            )

    def _serve(self, resource: Resource) -> None:
        self.resources[resource.group, resource.version, resource.plural] = resource
        self.known_kinds.add((resource.api_version, resource.kind))
        self.store.open(resource.storage)
        self.discovery_version += 1

    def _define(self, key: CollectionKey, change: Change) -> None:
        if key != crd.COLLECTION:
            return
        definition = change.entry.obj
        before = change.previous.obj if change.previous else None
        if change.type == "DELETED":
            self._withdraw(definition)
        elif before is None or not same(before["spec"], definition["spec"]):
            if before:
                self._withdraw_versions(before)
            for resource in crd.resources(definition):
                self._serve(resource)
            if before:
                self._end_watches(
                    (definition["spec"]["group"], definition["spec"]["names"]["plural"])
                )
            status = crd.established_status(definition, self.time())
            if not same(dig(definition, "status"), status):
                self.store.put(
                    crd.COLLECTION,
                    {**definition, "metadata": dict(definition["metadata"]), "status": status},
                )

    def _end_watches(self, key: CollectionKey) -> None:
        for closer in list(self.store.collections[key].closers):
            closer()

    def _withdraw_versions(self, definition: Obj) -> None:
        for resource in crd.resources(definition):
            self.resources.pop((resource.group, resource.version, resource.plural), None)
        self.discovery_version += 1

    def _withdraw(self, definition: Obj) -> None:
        self._withdraw_versions(definition)
        self.store.close((definition["spec"]["group"], definition["spec"]["names"]["plural"]))
