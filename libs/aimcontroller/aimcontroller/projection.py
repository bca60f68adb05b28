"""The state of the cluster that a service builds from events.

1. A projection is a value: `fold` returns a new one and changes nothing, so it never changes under
   a planner.
2. An older version of an object is dropped, also after the object's deletion or from an earlier
   object of the same name. resourceVersions compare as integers within a kind (Kubernetes API
   concepts, KEP-5504) and an epoch (aimschema.messages). Our own writes are of the latest known
   epoch.
3. Folding the same events in any order, or twice, gives the same state. Reports have no version:
   the one with the highest sequence number counts, also after the sequence numbers restart.
4. The newest MAX_TOMBSTONES deletions of each kind are kept. The log has the events of one object
   in order, so an event after that many newer deletions is of a new object. The response to a write
   of our own may come that late; it is dropped, since the object has an event by then.
"""

import datetime
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import msgspec
from immutables import Map
from msgspec.structs import replace

from aimcontroller import ordered
from aimcontroller.indexes import (
    MOST_VALUES,
    OWNED,
    TEMPLATES_BY_CONFIG_MAP,
    Index,
    hashes,
    holds,
    of_kind,
)
from aimcontroller.ordered import Entry, Ordered
from aimcontroller.shared_parts import share_parts
from aimcontroller.unanswered import REPORTER, Place, Unanswered, place_of
from aimschema.messages import (
    BY_API_SERVER,
    BY_OWNER,
    BY_WEBHOOK,
    Conflict,
    KindSynced,
    Message,
    ObjectChanged,
    ObjectDeleted,
    Rejection,
    StatusReported,
)
from aimschema.names import discovery_config_map
from aimschema.published import HASHES, SPEC
from aimschema.reasons import NAME_CONFLICT
from aimschema.resources import CONFIG_MAP, RESOURCES, TEMPLATE, Key, key_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KubeObject:
    """The latest known version of an object: `body` as the API serves it (read only), `seq` of its
    event (0: our own write), `epoch` of the event.

    Not `complete`: a large part is missing in the event; `has_spec` is False if that is the
    spec of an AIM kind.
    """

    key: Key
    uid: str
    version: int
    body: dict[str, Any]
    seq: int = 0
    epoch: int = 0
    complete: bool = True
    has_spec: bool = True
    _read: dict[Callable[[Any], Any], Any] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def body_as(self, read: Callable[[dict[str, Any]], T]) -> T:
        """What `read`, a pure function, makes of the body: called once for this version, unless it
        raises."""
        if read not in self._read:
            self._read[read] = read(self.body)
        found: T = self._read[read]
        return found

    def spec_as(self, read: Callable[[dict[str, Any]], T]) -> T:
        """The same for the spec."""
        if read not in self._read:
            self._read[read] = read(self.spec)
        found: T = self._read[read]
        return found

    @property
    def version_key(self) -> tuple[int, int]:
        """Grows with time, also over a restored backup: epoch, version."""
        return self.epoch, self.version

    @property
    def deleting(self) -> bool:
        return "deletionTimestamp" in self.body["metadata"]

    @property
    def generation(self) -> int:
        return int(self.body["metadata"].get("generation", 0))

    @property
    def labels(self) -> dict[str, str]:
        return self.body["metadata"].get("labels") or {}

    @property
    def annotations(self) -> dict[str, str]:
        return self.body["metadata"].get("annotations") or {}

    @property
    def spec(self) -> dict[str, Any]:
        return self.body.get("spec") or {}

    @property
    def status(self) -> dict[str, Any]:
        return self.body.get("status") or {}

    @property
    def owners(self) -> frozenset[str]:
        """uids of the objects that own this one."""
        return frozenset(OWNED.values(self.body))

    def owner_reference(self) -> dict[str, Any]:
        """For objects made for this one: the garbage collector removes them with it."""
        return {
            "apiVersion": RESOURCES[self.key.kind].api_version,
            "kind": self.key.kind,
            "name": self.key.name,
            "uid": self.uid,
            "controller": True,
        }

    def owner(self, kind: str) -> Key | None:
        """The owner of this kind, in the same namespace."""
        for reference in self.body["metadata"].get("ownerReferences") or ():
            if reference.get("kind") == kind:
                return Key(kind, self.key.namespace, str(reference.get("name")))
        return None

    @property
    def conditions(self) -> list[dict[str, Any]]:
        """Those of the object's status; what is no condition counts for nothing."""
        found = self.status.get("conditions")
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    def condition(self, type_: str) -> dict[str, Any] | None:
        """The condition of this type in the object's status."""
        found = self.status.get("conditions")
        for each in found if isinstance(found, list) else ():
            if isinstance(each, dict) and each.get("type") == type_:
                return each
        return None

    def is_condition_true(self, type_: str) -> bool:
        """Whether the condition of this type is True."""
        condition = self.condition(type_)
        return condition is not None and condition.get("status") == "True"

    @property
    def creation_timestamp(self) -> str:
        """RFC 3339; compares as text."""
        return str(self.body["metadata"].get("creationTimestamp", ""))


@dataclass(frozen=True, slots=True)
class Observation:
    """The result of an action of this process, such as the content of a log or a rejection. It is
    not on the bus, and is lost with the object or the process.

    `value` None removes it. With a `uid` it is dropped unless the object with that uid exists.
    """

    key: Key
    topic: str
    value: object
    uid: str = ""


REJECTED = "refused"
"""Topic: a ApplyRejected of what was planned for the key."""
PENDING_CREATE = "creating"
"""Topic: True while an apply of the key is under way."""
FIELD_CONFLICT = "contested"
"""Topic: the FieldConflict over the object at this key."""

LATEST_WARNING = "events"
"""Topic: the LatestWarning on the object at this key."""


@dataclass(frozen=True, slots=True)
class LatestWarning:
    """The newest Warning Event on an object, as read from the API server; `reason` is empty
    where there is none."""

    read_at: datetime.datetime
    reason: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class ApplyRejected:
    """The API server rejects an apply. `name_taken`: because a foreign object has the name.

    `transient`: the server or a webhook keeps failing; the apply is retried automatically.
    Otherwise a person must change something. `by_webhook`: a webhook denied it or could not be
    called; only its owner can fix that. `earlier`: messages of the earlier rejections of the
    same target since its last accepted apply.
    """

    target: Key
    message: str
    name_taken: bool = False
    transient: bool = False
    by_webhook: bool = False
    earlier: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def passes(self) -> bool:
        """The server is overloaded or partly unavailable: this is no failure of the object, and
        resolves itself."""
        return self.transient and not self.by_webhook

    def reason(self, otherwise: str) -> str:
        """The message for the condition that reports it."""
        return NAME_CONFLICT if self.name_taken else otherwise

    @property
    def fact(self) -> Rejection:
        """For a report or a record."""
        by = BY_API_SERVER
        if self.name_taken:
            by = BY_OWNER
        elif self.by_webhook:
            by = BY_WEBHOOK
        kind, namespace, name = self.target
        return Rejection(by=by, kind=kind, namespace=namespace, name=name, message=self.message)


@dataclass(frozen=True, slots=True)
class FieldConflict:
    """Field managers keep changing `field` of the object at `target`, or keep deleting it: then
    `field` is empty. AIM restores it with backoff."""

    target: Key
    field: str = ""
    managers: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """The same while the conflict lasts."""
        name = f"{self.target.kind} {self.target.name}"
        if not self.field:
            return (
                f"{name} keeps being deleted; AIM re-creates it with backoff: stop what deletes it"
            )
        who = " and ".join(self.managers) or "an unknown field manager"
        return (
            f"{self.field} of {name} keeps being changed by {who}; AIM restores it with backoff:"
            " leave the field to AIM"
        )

    @property
    def fact(self) -> Conflict:
        """For a report."""
        kind, namespace, name = self.target
        return Conflict(
            kind=kind, namespace=namespace, name=name, field=self.field, managers=self.managers
        )


StateEvent: TypeAlias = Message | Observation
_Indexed: TypeAlias = Map[tuple[str, str, str | None, str], Ordered]
_Many: TypeAlias = "Map[tuple[str, str, str | None], Map[Key, array[int]]]"
_Names: TypeAlias = Map[str, KubeObject]
_NO_NAMES: _Names = Map()
_NO_NAMESPACES: Map[str | None, _Names] = Map()
_NO_KEYS: "Map[Key, array[int]]" = Map()
_NO_FACTS: Map[str, object] = Map()
_NO_CREATES: frozenset[Key] = frozenset()
_NEVER = (0, -1)
_NO_DELETIONS: Map[Key, tuple[int, int]] = Map()
MAX_TOMBSTONES = 5_000
"""Deletions of a kind that are remembered at least; at twice as many the older half is
forgotten."""
_NO_REPORT: tuple[int, StatusReported | None] = (0, None)


class Projection(msgspec.Struct, frozen=True):
    """Everything known, with the look-ups planners need."""

    _objects: Map[str, Map[str | None, _Names]] = msgspec.field(default_factory=Map)
    """By kind, namespace and name."""
    _indexed: _Indexed = msgspec.field(default_factory=Map)
    """By index, kind, namespace and value, oldest first."""
    _many: _Many = msgspec.field(default_factory=Map)
    """By index, kind and namespace, the objects that have too many values."""
    _deletions: Map[str, Map[Key, tuple[int, int]]] = msgspec.field(
        default_factory=Map
    )  # by kind: epoch and version of deletions
    _reports: Map[tuple[Key, str], tuple[int, StatusReported]] = msgspec.field(default_factory=Map)
    _observations: Map[Key, Map[str, object]] = msgspec.field(default_factory=Map)
    _creating: Map[str, frozenset[Key]] = msgspec.field(default_factory=Map)
    """By kind, the objects whose apply is under way."""
    unanswered: Unanswered = Unanswered()
    """The templates by the image that answered them."""
    _absent: frozenset[str] = frozenset()
    _settled: Map[str, tuple[int, int]] = msgspec.field(
        default_factory=Map
    )  # by kind: age of the last complete list, or of a deletion that is forgotten
    _epoch: int = 0

    def get(self, key: Key) -> KubeObject | None:
        kind, namespace, name = key
        return self._objects.get(kind, _NO_NAMESPACES).get(namespace, _NO_NAMES).get(name)

    def in_namespace(self, kind: str, namespace: str | None) -> Iterator[KubeObject]:
        """All of a kind in a namespace (None: of a cluster-scoped kind)."""
        return iter(self._objects.get(kind, _NO_NAMESPACES).get(namespace, _NO_NAMES).values())

    def in_all_namespaces(self, kind: str) -> Iterator[KubeObject]:
        """All of a kind in all namespaces."""
        for names in self._objects.get(kind, _NO_NAMESPACES).values():
            yield from names.values()

    def all_objects(self) -> Iterator[KubeObject]:
        for kind in self._objects:
            yield from self.in_all_namespaces(kind)

    def owned(self, uid: str, kind: str, namespace: str | None) -> list[KubeObject]:
        """Objects of `kind` in this namespace that the object with this uid owns, oldest first.

        Any user may write any uid into an ownerReference, but an owner is in the same
        namespace or cluster-scoped.
        """
        return list(self._find(OWNED, kind, namespace, uid))

    def find(self, index: Index, value: str, namespace: str | None = None) -> list[KubeObject]:
        """Objects with this value, oldest first; of this namespace unless the index is for all
        of them together."""
        return list(self.find_lazily(index, value, namespace))

    def find_lazily(
        self, index: Index, value: str, namespace: str | None = None
    ) -> Iterator[KubeObject]:
        """As `find`, for those who need only the first of many."""
        return self._find(index, index.kind, None if index.everywhere else namespace, value)

    def _find(
        self, index: Index, kind: str, namespace: str | None, value: str
    ) -> Iterator[KubeObject]:
        found = ordered.entries(self._indexed.get((index.name, kind, namespace, value), ()))
        many = self._many.get((index.name, kind, namespace), _NO_KEYS)
        if many:
            more = (self.get(key) for key, stored in many.items() if holds(stored, value))
            found = iter(sorted([*found, *(_order(obj) for obj in more if obj is not None)]))
        for _, name, of in found:
            obj = self.get(Key(kind, of or None, name))
            if obj is not None:
                yield obj

    def report(self, key: Key, service: str) -> StatusReported | None:
        """The last report of a service on an object."""
        return self._reports.get((key, service), _NO_REPORT)[1]

    def report_keys(self) -> Iterator[tuple[Key, str]]:
        return iter(self._reports)

    def observation(self, key: Key, topic: str) -> Any:
        """What this process found out, or None."""
        return self._observations.get(key, _NO_FACTS).get(topic)

    def pending_creates(self, kind: str) -> frozenset[Key]:
        """Objects of this kind whose apply is under way and whose answer is not yet here."""
        return self._creating.get(kind, _NO_CREATES)

    @property
    def latest(self) -> int:
        """The latest version of any object or list; 0 where nothing is known."""
        return max(
            (
                *(obj.version for obj in self.all_objects()),
                *(version for _, version in self._settled.values()),
            ),
            default=0,
        )

    def unconfirmed_writes(self, marker: KindSynced) -> list[KubeObject]:
        """Our own writes that a complete list does not have: what was created and deleted while
        the watch was interrupted has no event."""
        listed = _age_of(marker)
        return [
            own
            for own in self.in_all_namespaces(marker.kind)
            if not own.seq and (own.version_key <= listed or not marker.installed)
        ]

    def is_kind_served(self, kind: str) -> bool:
        """Whether the cluster has this kind."""
        return kind not in self._absent

    def is_missing(self, key: Key) -> bool:
        """Whether the cluster certainly has no such object: its kind was listed, without it."""
        return key.kind in self._settled and self.get(key) is None


def fold(state: Projection, event: StateEvent, seq: int = 0) -> Projection:
    """The state after an event. Total: an event without a change returns the same projection."""
    match event:
        case ObjectChanged():
            return _fold_change(state, event, seq)
        case ObjectDeleted():
            return _fold_deletion(state, event)
        case StatusReported():
            return _fold_report(state, event, seq)
        case KindSynced(kind=kind, installed=installed, epoch=epoch):
            absent = state._absent - {kind} if installed else state._absent | {kind}
            return replace(
                state,
                _absent=absent,
                _settled=_raise_age(state._settled, kind, _age_of(event)),
                _epoch=max(state._epoch, epoch),
            )
        case Observation():
            return _observe(state, event)
        case _:
            return state


def changed_from_response(body: dict[str, Any]) -> ObjectChanged:
    """The answer to a write as an event, so that a service sees its own writes at once; the
    watcher's event of it takes its place."""
    key, metadata = key_of(body), body["metadata"]
    return ObjectChanged(
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        object=body,
    )


def drop_object(state: Projection, key: Key) -> Projection:
    """Without an object that is missing in a reload: it was deleted at an unknown version."""
    obj = state.get(key)
    return state if obj is None else _remove(_forget_observations(state, key), obj)


def clear_observations(state: Projection) -> Projection:
    """Without the observations of this process: the state that another process has."""
    templates = [key for key in state._observations if key.kind == TEMPLATE.kind]
    return _with_places(replace(state, _observations=Map(), _creating=Map()), templates)


def drop_reports(state: Projection, reports: Iterable[tuple[Key, str]]) -> Projection:
    """Without these reports, whether they were known or not."""
    left, keys = state._reports, []
    for report in reports:
        if report in left:
            left = left.delete(report)
            keys.append(report[0])
    return _with_places(replace(state, _reports=left), keys)


def reset_report_order(state: Projection) -> Projection:
    """For a reload: what was known of the order of reports is void, since the stream may be
    another one."""
    return replace(
        state, _reports=Map({place: (0, report) for place, (_, report) in state._reports.items()})
    )


def _fold_report(state: Projection, event: StatusReported, seq: int) -> Projection:
    place = (Key(event.kind, event.namespace, event.name), event.service)
    known_seq, known = state._reports.get(place, _NO_REPORT)
    if seq < known_seq or (seq, event) == (known_seq, known):
        return state
    changed = replace(state, _reports=state._reports.set(place, (seq, event)))
    return _with_places(changed, place[:1]) if event.service == REPORTER else changed


def _forget_observations(state: Projection, key: Key) -> Projection:
    observed = state._observations.get(key, _NO_FACTS)
    for topic in observed:
        state = _set_observation(state, key, topic, None)
    return state


def _observe(state: Projection, event: Observation) -> Projection:
    obj = state.get(event.key)
    if event.uid and (obj is None or obj.uid != event.uid):
        return state
    if event.value is None and state.observation(event.key, event.topic) is None:
        return state
    return _set_observation(state, event.key, event.topic, event.value)


def _set_observation(state: Projection, key: Key, topic: str, value: object) -> Projection:
    """`value` None removes it."""
    observed = state._observations.get(key, _NO_FACTS)
    observed = observed.delete(topic) if value is None else observed.set(topic, value)
    all_ = state._observations
    changed = replace(
        state, _observations=all_.set(key, observed) if observed else all_.delete(key)
    )
    if topic == PENDING_CREATE:
        creating = changed.pending_creates(key.kind)
        creating = creating - {key} if value is None else creating | {key}
        return replace(changed, _creating=changed._creating.set(key.kind, creating))
    return _with_places(changed, [key]) if topic == REJECTED else changed


def _with_places(state: Projection, keys: Iterable[Key]) -> Projection:
    """After a change of what the places of the templates at these keys depend on."""
    unanswered = state.unanswered
    for key in keys:
        if key.kind == TEMPLATE.kind:
            unanswered = unanswered.with_place(key, _place_of(state, state.get(key)))
    return state if unanswered is state.unanswered else replace(state, unanswered=unanswered)


def _place_of(state: Projection, template: KubeObject | None) -> Place | None:
    if template is None or state.observation(template.key, REJECTED) is not None:
        return None
    name = discovery_config_map(template.key.name)
    answer = state.get(Key(CONFIG_MAP.kind, template.key.namespace, name))
    is_own = answer is not None and template.uid in answer.owners
    return place_of(
        template.body,
        answer.body if answer is not None and is_own else None,
        state.report(template.key, REPORTER),
    )


def _templates_of(state: Projection, key: Key) -> list[Key]:
    """Those whose place depends on the object at this key."""
    match key.kind:
        case TEMPLATE.kind:
            return [key]
        case CONFIG_MAP.kind:
            found = state.find(TEMPLATES_BY_CONFIG_MAP, key.name, key.namespace)
            return [template.key for template in found]
        case _:
            return []


def _age_of(marker: KindSynced) -> tuple[int, int]:
    return marker.epoch, int(marker.resource_version or "0")


def _fold_change(state: Projection, event: ObjectChanged, seq: int) -> Projection:
    """The response to a write of our own is late if it comes after a later list: the state has the
    objects of that list, and all others are deleted."""
    key = Key(event.kind, event.namespace, event.name)
    epoch, complete = event.epoch if seq else state._epoch, event.truncated in {(), (HASHES,)}
    new = KubeObject(
        key,
        event.uid,
        int(event.resource_version),
        event.object,
        seq,
        epoch,
        complete,
        SPEC not in event.truncated,
    )
    obj = state.get(key)
    if obj is not None and (
        new.version_key < obj.version_key or (new.version_key == obj.version_key and seq <= obj.seq)
    ):
        return state
    deleted = state._deletions.get(key.kind, _NO_DELETIONS).get(key, _NEVER)
    if new.version_key <= deleted or (
        not seq and new.version_key <= state._settled.get(key.kind, _NEVER)
    ):
        return state
    if obj is not None and obj.uid != event.uid:
        state = _forget_observations(state, key)
    share_parts(event.object)
    namespaces = state._objects.get(key.kind, _NO_NAMESPACES)
    names = namespaces.get(key.namespace, _NO_NAMES).set(key.name, new)
    indexed, many = _update_indexes(state, key, obj, new)
    changed = replace(
        state,
        _objects=state._objects.set(key.kind, namespaces.set(key.namespace, names)),
        _epoch=max(state._epoch, epoch),
        _indexed=indexed,
        _many=many,
    )
    return _with_places(changed, _templates_of(changed, key))


def _fold_deletion(state: Projection, event: ObjectDeleted) -> Projection:
    key = Key(event.kind, event.namespace, event.name)
    age = (event.epoch, int(event.resource_version))
    obj = state.get(key)
    if obj is not None and (
        age < obj.version_key or (obj.uid != event.uid and age <= obj.version_key)
    ):
        return state
    state = _remember_deletion(
        replace(_forget_observations(state, key), _epoch=max(state._epoch, event.epoch)), key, age
    )
    return state if obj is None else _remove(state, obj)


def _remember_deletion(state: Projection, key: Key, age: tuple[int, int]) -> Projection:
    """The newest count, not the last: so it makes no difference in which order they come."""
    deletions = state._deletions.get(key.kind, _NO_DELETIONS)
    deletions = deletions.set(key, max(age, deletions.get(key, _NEVER)))
    if len(deletions) <= 2 * MAX_TOMBSTONES:
        return replace(state, _deletions=state._deletions.set(key.kind, deletions))
    newest_first = sorted(deletions.items(), key=lambda item: item[1], reverse=True)
    settled = _raise_age(state._settled, key.kind, newest_first[MAX_TOMBSTONES][1])
    return replace(
        state,
        _deletions=state._deletions.set(key.kind, Map(newest_first[:MAX_TOMBSTONES])),
        _settled=settled,
    )


def _raise_age(
    ages: Map[str, tuple[int, int]], kind: str, age: tuple[int, int]
) -> Map[str, tuple[int, int]]:
    return ages.set(kind, max(age, ages.get(kind, _NEVER)))


def _remove(state: Projection, obj: KubeObject) -> Projection:
    kind, namespace, name = key = obj.key
    namespaces = state._objects[kind]
    names = namespaces[namespace].delete(name)
    namespaces = namespaces.set(namespace, names) if names else namespaces.delete(namespace)
    objects = state._objects.set(kind, namespaces) if namespaces else state._objects.delete(kind)
    indexed, many = _update_indexes(state, key, obj, None)
    left = replace(state, _objects=objects, _indexed=indexed, _many=many)
    return _with_places(left, _templates_of(left, key))


def _update_indexes(
    state: Projection, key: Key, old: KubeObject | None, new: KubeObject | None
) -> "tuple[_Indexed, _Many]":
    """The indexes with `new` in the place of `old`. Most changes of an object change none."""
    indexed, many = state._indexed, state._many
    for index in of_kind(key.kind):
        before, after = _values(index, old), _values(index, new)
        if before != after:
            place = (index.name, key.kind, None if index.everywhere else key.namespace)
            indexed, many = _remove_from_index(indexed, many, place, key, before)
            indexed, many = _add_to_index(indexed, many, place, key, after)
    return indexed, many


def _values(index: Index, obj: KubeObject | None) -> tuple[Entry, frozenset[str]] | None:
    return None if obj is None else (_order(obj), frozenset(index.values(obj.body)))


def _add_to_index(
    indexed: "_Indexed",
    many: "_Many",
    place: tuple[str, str, str | None],
    key: Key,
    found: tuple[Entry, frozenset[str]] | None,
) -> "tuple[_Indexed, _Many]":
    if found is None:
        return indexed, many
    entry, values = found
    if len(values) > MOST_VALUES:
        keys = many.get(place, _NO_KEYS).set(key, hashes(values))
        return indexed, many.set(place, keys)
    for value in values:
        at = (*place, value)
        indexed = indexed.set(at, ordered.with_entry(indexed.get(at, ordered.EMPTY), entry))
    return indexed, many


def _remove_from_index(
    indexed: "_Indexed",
    many: "_Many",
    place: tuple[str, str, str | None],
    key: Key,
    found: tuple[Entry, frozenset[str]] | None,
) -> "tuple[_Indexed, _Many]":
    if found is None:
        return indexed, many
    entry, values = found
    if len(values) > MOST_VALUES:
        keys = many[place].delete(key)
        return indexed, many.set(place, keys) if keys else many.delete(place)
    for value in values:
        at = (*place, value)
        left = ordered.without_entry(indexed[at], entry)
        indexed = indexed.set(at, left) if left else indexed.delete(at)
    return indexed, many


def _order(obj: KubeObject) -> Entry:
    return obj.creation_timestamp, obj.key.name, obj.key.namespace or ""
