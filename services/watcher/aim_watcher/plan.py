"""Which messages bring the bus level with the cluster. Pure and total.

1. After the messages of a list have been published, the last message of every subject of the kind
   is the state that was listed.
2. A version that the bus has, or an older one of the same object, is not published again.
3. An object of another uid under a known name: first the delete of the old one, at the version last
   known, then the new one. (Not at the list's version: readers drop what is older than a delete,
   and the new one may be.)
4. The messages on one object are in order; KindSynced is last.
5. `epoch` is the present one (see aimschema.messages). A cluster that went back in time is shown by
   a list that is older than what the bus has; then everything is published once more, in a new
   epoch.
"""

from collections.abc import Collection, Iterable
from typing import Any, TypeAlias

import msgspec
from msgspec import structs

from aim_watcher.projection import Published, PublishedObjects, live_object
from aim_watcher.prune import publishable, smaller
from aimschema.messages import KindSynced, ObjectChanged, ObjectDeleted
from aimschema.published import tombstone
from aimschema.resources import Key, Resource, key_of

Body: TypeAlias = dict[str, Any]
ObjectMessage: TypeAlias = ObjectChanged | ObjectDeleted
Outgoing: TypeAlias = ObjectMessage | KindSynced


def newest_of(message: Outgoing) -> tuple[int, int]:
    """Epoch and version: how far the cluster had come when the message was true."""
    return message.epoch, int(message.resource_version or "0")


def is_older_than_published(newest: tuple[int, int], resource_version: str, epoch: int) -> bool:
    """Whether a list of a kind is older than the newest of its messages. Lists are consistent
    reads: only a restored cluster answers like that."""
    return (epoch, int(resource_version)) < newest


def plan_listed(
    known: PublishedObjects,
    resource: Resource,
    items: Iterable[Body],
    resource_version: str,
    epoch: int = 0,
) -> list[Outgoing]:
    """For a snapshot of a whole kind; `known` is what the bus has of that kind."""
    listed = {key_of(item): item for item in items}
    messages: list[Outgoing] = []
    for key, body in listed.items():
        published = live_object(known, key)
        if (
            published is None
            or published.uid != body["metadata"]["uid"]
            or _is_newer(published, body, epoch)
            or _reads_otherwise(published, body)
        ):
            messages += _replacing(published, key, body, epoch)
    messages += (
        _deleted(key, published, resource_version, epoch)
        for key, published in _live_objects(known)
        if key not in listed
    )
    return [
        *messages,
        KindSynced(
            kind=resource.kind, resource_version=resource_version, objects=len(listed), epoch=epoch
        ),
    ]


def plan_absent(known: PublishedObjects, resource: Resource, epoch: int = 0) -> list[Outgoing]:
    """For a kind that the API does not serve: nothing of it is there.

    The kind may come back with the very same objects, and readers drop what is not newer than a
    delete: where something is deleted here, the marker begins a new epoch, in which they are
    published then.
    """
    deletes: list[Outgoing] = [
        _deleted(key, published, str(published.version), epoch)
        for key, published in _live_objects(known)
    ]
    return [
        *deletes,
        KindSynced(
            kind=resource.kind,
            resource_version="",
            objects=0,
            installed=False,
            epoch=epoch + bool(deletes),
        ),
    ]


def plan_outside(
    known: PublishedObjects, namespaces: Collection[str], epoch: int = 0
) -> list[ObjectMessage]:
    """For objects of namespaces that are watched no longer. As for a kind that is absent: they
    may come back unchanged."""
    return [
        _deleted(key, published, str(published.version), epoch)
        for key, published in _live_objects(known)
        if key.namespace not in namespaces
    ]


def joined(markers: Collection[KindSynced], *, begins_epoch: bool = False) -> KindSynced:
    """One marker for lists of several namespaces; what is in none of them yet may be newer than
    the oldest of them."""
    first, *_ = markers
    oldest = min(markers, key=lambda marker: int(marker.resource_version or "0"))
    return structs.replace(
        first,
        resource_version=oldest.resource_version,
        objects=sum(marker.objects for marker in markers),
        installed=all(marker.installed for marker in markers),
        epoch=max(marker.epoch for marker in markers) + begins_epoch,
    )


def plan_changed(known: PublishedObjects, body: Body, epoch: int = 0) -> list[Outgoing]:
    """For an object that was added or modified."""
    key = key_of(body)
    published = live_object(known, key)
    if (
        published is not None
        and not _is_newer(published, body, epoch)
        and not _takes_its_place(published, body)
    ):
        return []
    return _replacing(published, key, body, epoch)


def plan_removed(known: PublishedObjects, body: Body, epoch: int = 0) -> list[Outgoing]:
    """For an object that was deleted or has left the selector: on the bus both are gone."""
    key = key_of(body)
    published = live_object(known, key)
    if published is None or (published.epoch == epoch and _version(body) < published.version):
        return []
    last = body if published.uid == body["metadata"]["uid"] else published.body
    return [_deleted(key, published, body["metadata"]["resourceVersion"], epoch, last)]


def plan_hidden(known: PublishedObjects, key: Key) -> ObjectMessage:
    """For an object whose last message on the bus cannot be read: what is so, said again.

    Where nothing is there, a delete at a version that is older than anything, which takes the
    unreadable message's place and changes nothing else.
    """
    published = known.get(key)
    if published is None or published.deleted:
        place = (
            {"name": key.name}
            if key.namespace is None
            else {"name": key.name, "namespace": key.namespace}
        )
        nothing = Published(uid="", version=0, raw=b"{}", seq=0)
        return _deleted(key, nothing, "0", 0, {"kind": key.kind, "metadata": place})
    return ObjectChanged(
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        uid=published.uid,
        resource_version=str(published.version),
        object=published.body,
        truncated=published.truncated,
        epoch=published.epoch,
    )


def truncated_message(message: ObjectMessage) -> ObjectMessage | None:
    """The message without the largest part of its object, which `truncated` then names; None
    when nothing can be left out."""
    found = smaller(message.object)
    if found is None:
        return None
    body, path = found
    if isinstance(message, ObjectDeleted):
        return structs.replace(message, object=body)
    return structs.replace(message, object=body, truncated=(*message.truncated, path))


def _is_newer(published: Published, body: Body, epoch: int) -> bool:
    return (epoch, _version(body)) > (published.epoch, published.version)


def _reads_otherwise(published: Published, body: Body) -> bool:
    """On the bus the same version holds something else: it was published by another release, and
    may hold what must not be there."""
    return (
        _version(body) == published.version
        and msgspec.json.encode(publishable(body)[0]) != published.raw
    )


def _takes_its_place(published: Published, body: Body) -> bool:
    """Another object of the name, in the same version: a list may show both the delete and the
    creation at once."""
    return published.uid != body["metadata"]["uid"] and _version(body) == published.version


def _replacing(published: Published | None, key: Key, body: Body, epoch: int) -> list[Outgoing]:
    metadata = body["metadata"]
    object_, left_out = publishable(body)
    changed = ObjectChanged(
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        object=object_,
        truncated=left_out,
        epoch=epoch,
    )
    if published is None or published.uid == changed.uid:
        return [changed]
    return [_deleted(key, published, str(published.version), published.epoch), changed]


def _deleted(
    key: Key, published: Published, resource_version: str, epoch: int, body: Body | None = None
) -> ObjectDeleted:
    return ObjectDeleted(
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        uid=published.uid,
        resource_version=resource_version,
        object=tombstone(published.body if body is None else body),
        epoch=epoch,
    )


def _live_objects(known: PublishedObjects) -> list[tuple[Key, Published]]:
    return [(key, published) for key, published in known.items() if not published.deleted]


def _version(body: Body) -> int:
    """resourceVersions of a kind compare as integers (Kubernetes API concepts, "Resource
    versions")."""
    return int(body["metadata"]["resourceVersion"])
