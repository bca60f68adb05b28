"""The controllers of the double: garbage collection, namespace and definition clean-up, claim
protection.

`Controllers` observes the store and marks objects; `sweep` reconciles what is marked.
Level-triggered: reconciling twice does no harm. The server decides when to call `sweep` (a moment
after a change, as real controllers do). Job, Deployment and volume controllers are not here; they
belong to the lab's node.
"""

from collections import defaultdict
from collections.abc import Callable

from aimlab.apiserver import builtin, crd
from aimlab.apiserver.cluster import NAMESPACES, Cluster
from aimlab.apiserver.deletes import FOREGROUND, ORPHAN, Options, delete, release
from aimlab.apiserver.objects import Obj, dig
from aimlab.apiserver.store import Change, CollectionKey, Entry
from aimlab.apiserver.writes import Request

CLAIMS = ("", "persistentvolumeclaims")
PODS = ("", "pods")
Place = tuple[CollectionKey, str, str]


class Controllers:
    """Keeps the index of owners; `wake` is called when there is something to sweep. `bare`: only
    what kube-apiserver itself does."""

    def __init__(self, cluster: Cluster, wake: Callable[[], None], *, bare: bool = False) -> None:
        self.cluster = cluster
        self.wake = wake
        self.bare = bare
        self.places: dict[str, Place] = {}
        self.children: defaultdict[str, set[str]] = defaultdict(set)
        self.dirty: dict[str, None] = {}
        cluster.store.observers.append(self._see)
        for key, entry in cluster.store.everything():
            self._see(key, Change("ADDED", entry, None))

    def _see(self, key: CollectionKey, change: Change) -> None:
        obj = change.entry.obj
        metadata = obj["metadata"]
        uid, namespace = metadata["uid"], metadata.get("namespace") or ""
        owners = {ref["uid"] for ref in metadata.get("ownerReferences") or ()}
        before = (
            {ref["uid"] for ref in dig(change.previous.obj, "metadata", "ownerReferences") or ()}
            if change.previous
            else set()
        )
        for owner in before - owners:
            self.children[owner].discard(uid)
        self._mark(*(before - owners))
        if change.type == "DELETED":
            self.places.pop(uid, None)
            for owner in owners:
                self.children[owner].discard(uid)
            self._mark(*self.children.get(uid, ()), *owners, *self._holders(key, namespace))
            return
        self.places[uid] = (key, namespace, metadata["name"])
        for owner in owners:
            self.children[owner].add(uid)
        if owners or "deletionTimestamp" in metadata:
            self._mark(uid)
        if key == PODS and dig(obj, "status", "phase") in ("Succeeded", "Failed"):
            self._mark(*self._holders(key, namespace))

    def _holders(self, key: CollectionKey, namespace: str) -> list[str]:
        """The uids of what may wait for an object of a collection to go: its namespace, its
        definition, claims it used."""
        collections = self.cluster.store.collections
        found = [
            collections[NAMESPACES].get("", namespace),
            collections[crd.COLLECTION].get("", f"{key[1]}.{key[0]}"),
        ]
        if key == PODS:
            found += collections[CLAIMS].entries(namespace)
        return [
            entry.obj["metadata"]["uid"]
            for entry in found
            if entry and "deletionTimestamp" in entry.obj["metadata"]
        ]

    def _mark(self, *uids: str) -> None:
        marked = dict.fromkeys(uid for uid in uids if uid in self.places)
        if marked:
            self.dirty |= marked
            self.wake()

    def sweep(self) -> None:
        """Reconcile everything marked, and what that marks."""
        while self.dirty:
            uid = next(iter(self.dirty))
            del self.dirty[uid]
            place = self.places.get(uid)
            if place and (entry := self._entry(place)):
                self._reconcile(place[0], entry)

    def _entry(self, place: Place) -> Entry | None:
        collection = self.cluster.store.collections.get(place[0])
        return collection.get(place[1], place[2]) if collection else None

    def _reconcile(self, key: CollectionKey, entry: Entry) -> None:
        if self.bare and key != crd.COLLECTION:
            return
        metadata = entry.obj["metadata"]
        finalizers = metadata.get("finalizers") or ()
        if "deletionTimestamp" not in metadata:
            self._reconcile_owners(key, entry.obj)
        elif key == NAMESPACES:
            self._empty_namespace(entry.obj)
        elif crd.CLEANUP in finalizers and key == crd.COLLECTION:
            self._empty_definition(entry.obj)
        elif builtin.PVC_PROTECTION in finalizers and key == CLAIMS:
            self._unprotect(entry.obj)
        elif builtin.PV_PROTECTION in finalizers and dig(entry.obj, "status", "phase") != "Bound":
            release(self.cluster, key, entry.obj, builtin.PV_PROTECTION)
        elif ORPHAN in finalizers:
            self._orphan(key, entry.obj)
        elif FOREGROUND in finalizers:
            self._wait_for_children(key, entry.obj)

    def _reconcile_owners(self, key: CollectionKey, obj: Obj) -> None:
        refs = obj["metadata"].get("ownerReferences") or []
        if any(
            (ref.get("apiVersion", ""), ref.get("kind", "")) not in self.cluster.known_kinds
            for ref in refs
        ):
            return  # an owner of a kind that was never served is unknown
        owners = [(ref, owner) for ref in refs if (owner := self._owner(obj, ref))]
        solid = [
            ref
            for ref, owner in owners
            if FOREGROUND not in (owner["metadata"].get("finalizers") or ())
        ]
        if solid and len(solid) < len(refs):
            self.cluster.store.put(
                key, {**obj, "metadata": {**obj["metadata"], "ownerReferences": solid}}
            )
        elif refs and not solid:
            self._delete(
                key,
                obj,
                (
                    "Foreground"
                    if owners and self.children.get(obj["metadata"]["uid"])
                    else "Background"
                ),
            )

    def _owner(self, obj: Obj, ref: Obj) -> Obj | None:
        """The object a reference means; a namespaced owner must be in the same namespace."""
        place = self.places.get(ref["uid"])
        if (
            place is None
            or place[2] != ref.get("name")
            or place[1] not in ("", obj["metadata"].get("namespace") or "")
        ):
            return None
        entry = self._entry(place)
        return entry.obj if entry and entry.obj["kind"] == ref.get("kind") else None

    def _delete(self, key: CollectionKey, obj: Obj, propagation: str) -> None:
        resource = self.cluster.served_as(key)
        metadata = obj["metadata"]
        if resource:
            request = Request(
                resource=resource, namespace=metadata.get("namespace") or "", name=metadata["name"]
            )
            delete(self.cluster, request, Options(propagation=propagation))

    def _children(self, uid: str) -> list[tuple[CollectionKey, Obj]]:
        places = [
            self.places[child] for child in self.children.get(uid, ()) if child in self.places
        ]
        return [(place[0], entry.obj) for place in places if (entry := self._entry(place))]

    def _orphan(self, key: CollectionKey, obj: Obj) -> None:
        uid = obj["metadata"]["uid"]
        for child_key, child in self._children(uid):
            metadata = dict(child["metadata"])
            other_refs = [ref for ref in metadata.pop("ownerReferences") if ref["uid"] != uid]
            self.cluster.store.put(
                child_key,
                {
                    **child,
                    "metadata": metadata | ({"ownerReferences": other_refs} if other_refs else {}),
                },
            )
        release(self.cluster, key, obj, ORPHAN)

    def _wait_for_children(self, key: CollectionKey, obj: Obj) -> None:
        uid = obj["metadata"]["uid"]
        blocking = False
        for child_key, child in self._children(uid):
            blocking |= any(
                ref["uid"] == uid and ref.get("blockOwnerDeletion")
                for ref in child["metadata"]["ownerReferences"]
            )
            if "deletionTimestamp" not in child["metadata"]:
                self._reconcile_owners(child_key, child)
        if not blocking:
            release(self.cluster, key, obj, FOREGROUND)

    def _empty_namespace(self, namespace: Obj) -> None:
        name, waiting = namespace["metadata"]["name"], False
        for key, collection in list(self.cluster.store.collections.items()):
            for entry in collection.entries(name):
                if "deletionTimestamp" not in entry.obj["metadata"]:
                    self._delete(key, entry.obj, "Background")
            waiting |= bool(collection.objects.get(name))
        if not waiting and not namespace["metadata"].get("finalizers"):
            self.cluster.store.remove(NAMESPACES, "", name)

    def _empty_definition(self, definition: Obj) -> None:
        key = (definition["spec"]["group"], definition["spec"]["names"]["plural"])
        collection = self.cluster.store.collections.get(key)
        for entry in collection.entries(None) if collection else ():
            if "deletionTimestamp" not in entry.obj["metadata"]:
                self._delete(key, entry.obj, "Background")
        if collection is None or not collection.objects:
            release(self.cluster, crd.COLLECTION, definition, crd.CLEANUP)

    def _unprotect(self, claim: Obj) -> None:
        name, namespace = claim["metadata"]["name"], claim["metadata"]["namespace"]
        for entry in self.cluster.store.collections[PODS].entries(namespace):
            volumes = dig(entry.obj, "spec", "volumes") or ()
            uses = any(
                dig(volume, "persistentVolumeClaim", "claimName") == name for volume in volumes
            )
            if uses and dig(entry.obj, "status", "phase") not in ("Succeeded", "Failed"):
                return
        release(self.cluster, CLAIMS, claim, builtin.PVC_PROTECTION)
