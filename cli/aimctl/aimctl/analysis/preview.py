"""`aimctl plan -f`: what would be made and changed if manifests were applied. Pure but for reading
them.

1. The manifests are put over a picture of the cluster, with the defaults of the kinds; then every
   service plans as it would, its writes are put in too, and so on until nothing new is planned.
   Nothing is written.
2. It ends where the outside decides: what a model image answers, whether a volume is bound, how a
   Job ends.
3. What would be done without the manifests as well is left out.
4. The rules of admission are the API server's; what the kinds' own schema says of a manifest is
   checked.
"""

import datetime
import difflib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from aim_statuswriter.actions import WriteStatus
from aimcontroller.action import Action, ApplyObject, DeleteObject, PatchObject
from aimcontroller.additions import merged
from aimcontroller.applier import CREATE_ONLY_KINDS
from aimcontroller.component import Component
from aimcontroller.drift import managed_fields_of, same_owner
from aimcontroller.projection import KubeObject, Projection, changed_from_response, fold
from aimctl.analysis.diff import differing
from aimschema.kinds import KINDS
from aimschema.messages import ObjectDeleted, timestamp
from aimschema.reasons import READY
from aimschema.resources import AIM_GROUP, AIM_KINDS, GATEWAY, RESOURCES, STORAGE_CLASS, Key, key_of

MOST_LOOKS = 500
YOU = "you"
FOUNDATIONS = (GATEWAY, STORAGE_CLASS)
"""What others make and planners ask for: where a manifest brings one that is not there, it will
be. A change of one is not looked at."""
Body = dict[str, Any]


class BadManifest(ValueError):
    """A manifest that would not be taken; the message says which object and field."""


@dataclass(frozen=True, slots=True)
class Change:
    """`before` is None for what would be made, `after` for what would be deleted; of an object
    that is there, only the fields that are set."""

    who: str
    key: Key
    before: Body | None
    after: Body | None

    @property
    def verb(self) -> str:
        return "create" if self.before is None else "delete" if self.after is None else "change"


@dataclass(frozen=True, slots=True)
class Preview:
    """`outlook`: what each object of ours that is concerned would then say of itself."""

    changes: tuple[Change, ...]
    outlook: tuple[tuple[Key, str], ...]


def manifests(paths: Iterable[Path], namespace: str | None) -> tuple[list[Body], list[Key]]:
    """Objects of our kinds with their defaults, the `FOUNDATIONS`, and the keys of the others.
    `namespace`: for those that name none.

    Raises BadManifest or OSError.
    """
    found, others = [], []
    for path in paths:
        for file in (
            sorted([*path.glob("*.yaml"), *path.glob("*.yml"), *path.glob("*.json")])
            if path.is_dir()
            else [path]
        ):
            for document in _documents(file):
                if str(document.get("apiVersion", "")).startswith(f"{AIM_GROUP}/"):
                    found.append(_with_defaults(document, namespace, file))
                elif any(
                    (resource.kind, resource.api_version)
                    == (document["kind"], document.get("apiVersion"))
                    for resource in FOUNDATIONS
                ):
                    found.append(_placed(document, namespace))
                else:
                    others.append(key_of(document))
    return found, others


def _documents(file: Path) -> list[Body]:
    try:
        documents = [each for each in yaml.safe_load_all(file.read_text()) if each is not None]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadManifest(f"{file}: {error}") from error
    for document in documents:
        if (
            not isinstance(document, dict)
            or "kind" not in document
            or "name" not in (document.get("metadata") or {})
        ):
            raise BadManifest(f"{file}: a document without kind or metadata.name")
    return documents


def _placed(document: Body, namespace: str | None) -> Body:
    """In its namespace."""
    if not RESOURCES[document["kind"]].namespaced:
        return document
    return {
        **document,
        "metadata": {
            **document["metadata"],
            "namespace": document["metadata"].get("namespace") or namespace or "default",
        },
    }


def _with_defaults(document: Body, namespace: str | None, file: Path) -> Body:
    kind = next((each for each in KINDS if each.__name__ == document["kind"]), None)
    resource = next((each for each in AIM_KINDS if each.kind == document["kind"]), None)
    if kind is None or resource is None:
        raise BadManifest(f"{file}: {AIM_GROUP} has no kind {document['kind']}")
    try:
        spec = kind.model_validate({"spec": document.get("spec") or {}}).model_dump(
            by_alias=True, exclude_none=True, mode="json"
        )["spec"]
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise BadManifest(
            f"{file}: {document['kind']} {document['metadata']['name']}: {at}: {first['msg']}"
        ) from error
    return _placed(
        {
            "apiVersion": document["apiVersion"],
            "kind": document["kind"],
            "metadata": document["metadata"],
            "spec": spec,
        },
        namespace,
    )


def preview(
    seen: Projection, wanted: Sequence[Body], services: Sequence[Component], now: datetime.datetime
) -> Preview:
    """What applying `wanted` would lead to."""
    anyway = _Future(seen, services, now)
    anyway.run({key_of(body) for body in wanted})
    future = _Future(seen, services, now)
    future.apply_all(wanted)
    without = [(change.key, change.after) for change in anyway.changes]
    changes = tuple(
        change for change in future.changes if (change.key, change.after) not in without
    )
    return Preview(changes, tuple(_outlook(future)))


def _outlook(future: "_Future") -> Iterator[tuple[Key, str]]:
    for key in sorted(future.concerned, key=str):
        present = future.seen.get(key)
        ready = None if present is None else present.condition(READY)
        if present is not None and ready is not None:
            state = f"{present.status['status']} " if "status" in present.status else ""
            yield key, f"{state}({ready.get('reason')}): {ready.get('message', '')}"


@dataclass
class _Future:
    seen: Projection
    services: Sequence[Component]
    now: datetime.datetime
    changes: list[Change] = field(default_factory=list)
    concerned: set[Key] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._version = self.seen.latest
        self._seq = max((present.seq for present in self.seen.everything()), default=0) + 1_000_000
        self._open: deque[tuple[Component, Key]] = deque()

    def apply_all(self, wanted: Sequence[Body]) -> None:
        for body in wanted:
            if RESOURCES[body["kind"]] not in FOUNDATIONS or self.seen.get(key_of(body)) is None:
                self._write(YOU, body)
        self.run(set())

    def run(self, keys: set[Key]) -> None:
        """Until nothing new is planned. A planner that always wants something else is left alone
        after a while."""
        for key in sorted(keys, key=str):
            self._touch(
                {
                    (service, each)
                    for service in self.services
                    for each in service.affected(self.seen, key)
                }
            )
        for _ in range(MOST_LOOKS):
            if not self._open:
                return
            service, key = self._open.popleft()
            self._look(service, key)

    def _look(self, service: Component, key: Key) -> None:
        plan = service.plan(self.seen, key, self.now)
        for report in plan.reports:
            message = report.message(service.name)
            if self.seen.report(report.key, service.name) != message:
                self._seq += 1
                self.seen = fold(self.seen, message, self._seq)
                self._touch({(each, report.key) for each in self.services if each.reports})
        for action in plan.actions:
            self._act(service.name, action)

    def _act(self, who: str, action: Action) -> None:
        """As aimcontroller.applier: what is there and somebody else's is not written over, and
        what is made once is not written again."""
        match action:
            case ApplyObject(body=body):
                present = self.seen.get(action.key)
                if present is None or (
                    action.key.kind not in CREATE_ONLY_KINDS and same_owner(body, present.body)
                ):
                    self._write(who, body)
            case PatchObject(key=key, patch=patch):
                present = self.seen.get(key)
                if present is not None:
                    after = KubeObject(
                        key, present.uid, present.version, merged(present.body, patch)
                    )
                    self.changes.append(Change(who, key, _as_written(present), _as_written(after)))
                    self._put(after.body, present)
            case WriteStatus(key=key, status=status):
                present = self.seen.get(key)
                if present is not None:
                    self._put({**present.body, "status": status}, present)
            case DeleteObject(key=key):
                self._delete(who, key)
            case _:
                pass

    def _write(self, who: str, body: Body) -> None:
        key = key_of(body)
        present = self.seen.get(key)
        if present is None:
            self.changes.append(Change(who, key, None, body))
        elif present.deleting or (
            next(differing(present.body, body, applied=True), None) is None
            and not _dropped(who, present, body)
        ):
            return
        else:
            self.changes.append(
                Change(
                    who,
                    key,
                    managed_fields_of(body, present.body) if who != YOU else _as_written(present),
                    body,
                )
            )
        self._put(body if present is None else _over(present, body), present)

    def _put(self, body: Body, present: KubeObject | None) -> None:
        self._version += 1
        known: Body = {} if present is None else present.body["metadata"]
        key = key_of(body)
        generation = int(known.get("generation", 0)) + (
            present is None or present.spec != body.get("spec")
        )
        metadata = {
            "uid": f"uid-to-be-of-{key.name}",
            "creationTimestamp": timestamp(self.now),
            **known,
            **body["metadata"],
            "resourceVersion": str(self._version),
            "generation": generation,
        }
        before = self.seen
        self.seen = fold(self.seen, changed_from_response({**body, "metadata": metadata}))
        self._touch(self._touched(before, key))

    def _delete(self, who: str, key: Key) -> None:
        present = self.seen.get(key)
        if present is None or present.deleting:
            return
        self.changes.append(Change(who, key, _as_written(present), None))
        before = self.seen
        self._version += 1
        gone = ObjectDeleted(
            kind=key.kind,
            namespace=key.namespace,
            name=key.name,
            uid=present.uid,
            resource_version=str(self._version),
            object=present.body,
            epoch=present.epoch,
        )
        self.seen = fold(self.seen, gone)
        self._touch(self._touched(before, key))

    def _touched(self, before: Projection, key: Key) -> set[tuple[Component, Key]]:
        follows = [
            service
            for service in self.services
            if any(key.kind == resource.kind for resource in service.follows)
        ]
        return {
            (service, each)
            for service in follows
            for each in service.touched(before, self.seen, key)
        }

    def _touch(self, touched: set[tuple[Component, Key]]) -> None:
        for service, key in sorted(touched, key=lambda pair: (pair[0].name, str(pair[1]))):
            if (
                any(key.kind == resource.kind for resource in service.plans_for)
                and (service, key) not in self._open
            ):
                self.concerned.add(key)
                self._open.append((service, key))


def _dropped(who: str, present: KubeObject, body: Body) -> bool:
    """Whether a manifest leaves out something that is in the spec: kubectl apply takes that out."""
    return who == YOU and present.spec != body.get("spec")


def _over(present: KubeObject, body: Body) -> Body:
    """The object once `body` has been applied: what others set stays, a manifest's spec is taken
    whole."""
    metadata = dict(present.body["metadata"])
    for name, value in body["metadata"].items():
        metadata[name] = (
            {**(metadata.get(name) or {}), **value} if isinstance(value, dict) else value
        )
    return {**present.body, **body, "metadata": metadata}


def _as_written(present: KubeObject) -> Body:
    """As somebody would write it: without what the server and the control plane add."""
    metadata = {
        name: present.body["metadata"][name]
        for name in ("name", "namespace", "labels", "annotations")
        if present.body["metadata"].get(name)
    }
    return {
        name: value
        for name, value in {**present.body, "metadata": metadata}.items()
        if name != "status"
    }


def diff(change: Change) -> list[str]:
    """The lines of a unified diff, without its heads."""
    before, after = (_lines(body) for body in (change.before, change.after))
    return list(difflib.unified_diff(before, after, n=2, lineterm=""))[2:]


class _NoAliases(yaml.SafeDumper):
    """What is said twice is written twice."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _lines(body: Body | None) -> list[str]:
    return (
        []
        if body is None
        else yaml.dump(
            body, Dumper=_NoAliases, sort_keys=True, width=10_000, allow_unicode=True
        ).splitlines()
    )
