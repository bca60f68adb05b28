"""Decide which messages make the bus equal to the cluster. Pure and total.

1. After the messages of a list are published, the last message of every subject of the kind is the
   listed state.
2. A version that the bus has, or an older one of the same object, is not published a second time.
3. For an object with a known name and another uid, the delete of the old object comes first, then
   the new object. The delete has the last known version. It does not have the version of the list:
   readers drop messages older than a delete, and the new object may be older.
4. Messages on one object are in order; KindSynced is last.
5. `epoch` is the current one (see aimschema.messages). A list that is older than the bus shows that
   the cluster went back in time. Then every object is published once more, in a new epoch.
"""

from collections.abc import Collection, Iterable
from typing import Any, TypeAlias

import msgspec
from msgspec import structs

from aim_watcher.projection import Published, PublishedObjects, live_object
from aim_watcher.prune import change_of, publishable, smaller
from aimschema.messages import KindSynced, ObjectChanged, ObjectDeleted
from aimschema.published import tombstone
from aimschema.resources import Key, Resource, key_of

Body: TypeAlias = dict[str, Any]
ObjectMessage: TypeAlias = ObjectChanged | ObjectDeleted
Outgoing: TypeAlias = ObjectMessage | KindSynced


def newest_of(message: Outgoing) -> tuple[int, int]:
    """Epoch and version of the cluster at the time of the message."""
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
    """Messages for a list of a whole kind. `known` is the state of that kind on the bus."""
    listed = {key_of(item): item for item in items}
    messages: list[Outgoing] = []
    for key, body in listed.items():
        published = live_object(known, key)
        if (
            published is None
            or published.uid != body["metadata"]["uid"]
            or _is_newer(published, body, epoch)
            or _is_published_differently(published, body)
        ):
            messages += _replacing(published, key, body, epoch)
    messages += (
        _object_deleted(key, published, resource_version, epoch)
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
    """Messages for a kind that the API server does not serve: it has no objects.

    The kind may come back with the same objects, and readers drop messages that are not newer than
    a delete. If an object is deleted here, the marker therefore begins a new epoch, in which all
    objects are published.
    """
    deletes: list[Outgoing] = [
        _object_deleted(key, published, str(published.version), epoch)
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
    """Messages for objects of namespaces that are no longer watched. As for a kind that is not
    served: they may come back unchanged."""
    return [
        _object_deleted(key, published, str(published.version), epoch)
        for key, published in _live_objects(known)
        if key.namespace not in namespaces
    ]


def join_markers(markers: Collection[KindSynced], *, begins_epoch: bool = False) -> KindSynced:
    """One marker for the lists of several namespaces, at the version of the oldest list: changes
    after it may be missing from that list."""
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
    """Messages for an added or modified object."""
    key = key_of(body)
    published = live_object(known, key)
    if (
        published is not None
        and not _is_newer(published, body, epoch)
        and not _replaces(published, body)
    ):
        return []
    return _replacing(published, key, body, epoch)


def plan_removed(known: PublishedObjects, body: Body, epoch: int = 0) -> list[Outgoing]:
    """Messages for an object that was deleted or no longer matches the selector: on the bus both
    are deletes."""
    key = key_of(body)
    published = live_object(known, key)
    if published is None or (published.epoch == epoch and _version(body) < published.version):
        return []
    last = body if published.uid == body["metadata"]["uid"] else published.body
    return [_object_deleted(key, published, body["metadata"]["resourceVersion"], epoch, last)]


def plan_hidden(known: PublishedObjects, key: Key) -> ObjectMessage:
    """The message that replaces an undecodable last message of an object: its current state.

    If the object does not exist, it is a delete at the oldest possible version. That replaces the
    undecodable message and changes nothing else.
    """
    published = known.get(key)
    if published is None or published.deleted:
        place = (
            {"name": key.name}
            if key.namespace is None
            else {"name": key.name, "namespace": key.namespace}
        )
        nothing = Published(uid="", version=0, raw=b"{}", seq=0)
        return _object_deleted(key, nothing, "0", 0, {"kind": key.kind, "metadata": place})
    return ObjectChanged(
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        uid=published.uid,
        resource_version=str(published.version),
        object=published.body,
        truncated=published.truncated,
        epoch=published.epoch,
        **published.change._asdict(),
    )


def truncated_message(message: ObjectMessage) -> ObjectMessage | None:
    """The message without the largest part of its object, and with the path of that part in
    `truncated`. None if nothing can be removed."""
    found = smaller(message.object)
    if found is None:
        return None
    body, path = found
    if isinstance(message, ObjectDeleted):
        return structs.replace(message, object=body)
    return structs.replace(message, object=body, truncated=(*message.truncated, path))


def _is_newer(published: Published, body: Body, epoch: int) -> bool:
    return (epoch, _version(body)) > (published.epoch, published.version)


def _is_published_differently(published: Published, body: Body) -> bool:
    """Whether the bus has another body for the same version: another release published it, and it
    may contain data that must not be on the bus."""
    return (
        _version(body) == published.version
        and msgspec.json.encode(publishable(body)[0]) != published.raw
    )


def _replaces(published: Published, body: Body) -> bool:
    """Whether it is a new object with the same name and version: one list may show both the delete
    and the creation."""
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
        **change_of(body)._asdict(),
    )
    if published is None or published.uid == changed.uid:
        return [changed]
    return [_object_deleted(key, published, str(published.version), published.epoch), changed]


def _object_deleted(
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
