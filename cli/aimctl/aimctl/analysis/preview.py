"""`aimctl plan -f`: what applying manifests would create and change. Pure, except for reading the
manifests.

1. The manifests are applied to a copy of the cluster state, with the defaults of their kinds. Then
   every service plans, its writes are applied to the copy too, and so on until nothing new is
   planned. Nothing is written to the cluster.
2. The preview ends where the outside decides: the answer of a model image, the binding of a volume,
   the result of a Job.
3. Actions that would happen without the manifests are left out.
4. The rules of admission are the API server's. Only the schema of the kinds is checked here.
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

from aim_cacher.actions import CreateClaim
from aim_statuswriter.actions import WriteStatus
from aimcontroller.action import Action, ApplyObject, DeleteObject, PatchObject
from aimcontroller.additions import merge
from aimcontroller.applier import CREATE_ONLY_KINDS
from aimcontroller.component import Component
from aimcontroller.drift import managed_fields_of, same_owner
from aimcontroller.projection import KubeObject, Projection, changed_from_response, fold
from aimctl.analysis.diff import differing
from aimctl.parsing import BadFile
from aimschema.kinds import KINDS
from aimschema.messages import ObjectDeleted, timestamp
from aimschema.reasons import READY
from aimschema.resources import AIM_GROUP, AIM_KINDS, GATEWAY, RESOURCES, STORAGE_CLASS, Key, key_of

MAX_RECONCILES = 500
YOU = "you"
FOUNDATIONS = (GATEWAY, STORAGE_CLASS)
"""Objects that others create and planners read. One that a manifest brings counts as created; a
change of an existing one is ignored."""
Body = dict[str, Any]


class BadManifest(BadFile):
    """An invalid manifest. The message names object and field."""


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
        if self.before is None:
            return "create"
        return "delete" if self.after is None else "change"


@dataclass(frozen=True, slots=True)
class Preview:
    """`outlook` is the expected summary of each AIM object concerned."""

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
                    found.append(_with_namespace(document, namespace))
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


def _with_namespace(document: Body, namespace: str | None) -> Body:
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
    return _with_namespace(
        {
            "apiVersion": document["apiVersion"],
            "kind": document["kind"],
            "metadata": document["metadata"],
            "spec": _without_empty_defaults(spec, document.get("spec")),
        },
        namespace,
    )


def _without_empty_defaults(spec: Any, written: Any) -> Any:
    """`spec` without the empty lists and maps that `written` does not have: the API server has no
    such defaults."""
    if isinstance(spec, list) and isinstance(written, list):
        return [_without_empty_defaults(*pair) for pair in zip(spec, written, strict=False)]
    if not isinstance(spec, dict) or not isinstance(written, dict):
        return spec
    return {
        name: _without_empty_defaults(value, written.get(name))
        for name, value in spec.items()
        if name in written or value not in ([], {})
    }


def preview(
    state: Projection,
    desired: Sequence[Body],
    services: Sequence[Component],
    now: datetime.datetime,
) -> Preview:
    """What applying `desired` would lead to."""
    anyway = _Future(state, services, now)
    anyway.run({key_of(body) for body in desired})
    future = _Future(state, services, now)
    future.apply_all(desired)
    without = [(change.key, change.after) for change in anyway.changes]
    changes = tuple(
        change for change in future.changes if (change.key, change.after) not in without
    )
    return Preview(changes, tuple(_outlook(future)))


def _outlook(future: "_Future") -> Iterator[tuple[Key, str]]:
    for key in sorted(future.concerned, key=str):
        existing = future.state.get(key)
        ready = None if existing is None else existing.condition(READY)
        if existing is not None and ready is not None:
            state = f"{existing.status['status']} " if "status" in existing.status else ""
            yield key, f"{state}({ready.get('reason')}): {ready.get('message', '')}"


@dataclass
class _Future:
    state: Projection
    services: Sequence[Component]
    now: datetime.datetime
    changes: list[Change] = field(default_factory=list)
    concerned: set[Key] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._version = self.state.latest
        self._seq = (
            max((existing.seq for existing in self.state.all_objects()), default=0) + 1_000_000
        )
        self._open: deque[tuple[Component, Key]] = deque()

    def apply_all(self, desired: Sequence[Body]) -> None:
        for body in desired:
            if RESOURCES[body["kind"]] not in FOUNDATIONS or self.state.get(key_of(body)) is None:
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
                    for each in service.map_to_keys(self.state, key)
                }
            )
        for _ in range(MAX_RECONCILES):
            if not self._open:
                return
            service, key = self._open.popleft()
            self._reconcile(service, key)

    def _reconcile(self, service: Component, key: Key) -> None:
        plan = service.plan(self.state, key, self.now)
        for report in plan.reports:
            message = report.message(service.name)
            if self.state.report(report.key, service.name) != message:
                self._seq += 1
                self.state = fold(self.state, message, self._seq)
                self._touch({(each, report.key) for each in self.services if each.reports})
        for action in plan.actions:
            self._act(service.name, action)

    def _act(self, who: str, action: Action) -> None:
        """As aimcontroller.applier: never overwrites an object of another owner, and never rewrites
        a create-only kind."""
        match action:
            case ApplyObject(body=body):
                existing = self.state.get(action.key)
                if existing is None or (
                    action.key.kind not in CREATE_ONLY_KINDS and same_owner(body, existing.body)
                ):
                    self._write(who, body)
            case CreateClaim(body=body):
                if self.state.get(action.target) is None:
                    self._write(who, body)
            case PatchObject(key=key, patch=patch):
                existing = self.state.get(key)
                if existing is not None:
                    after = KubeObject(
                        key, existing.uid, existing.version, merge(existing.body, patch)
                    )
                    self.changes.append(Change(who, key, _as_written(existing), _as_written(after)))
                    self._put(after.body, existing)
            case WriteStatus(key=key, status=status):
                existing = self.state.get(key)
                if existing is not None:
                    self._put({**existing.body, "status": status}, existing)
            case DeleteObject(key=key):
                self._delete(who, key)
            case _:
                pass

    def _write(self, who: str, body: Body) -> None:
        key = key_of(body)
        existing = self.state.get(key)
        if existing is None:
            self.changes.append(Change(who, key, None, body))
        elif existing.deleting or (
            next(differing(existing.body, body, applied=True), None) is None
            and not _drops_fields(who, existing, body)
        ):
            return
        else:
            self.changes.append(
                Change(
                    who,
                    key,
                    managed_fields_of(body, existing.body) if who != YOU else _as_written(existing),
                    body,
                )
            )
        self._put(body if existing is None else _over(existing, body), existing)

    def _put(self, body: Body, existing: KubeObject | None) -> None:
        self._version += 1
        known: Body = {} if existing is None else existing.body["metadata"]
        key = key_of(body)
        generation = int(known.get("generation", 0)) + (
            existing is None or existing.spec != body.get("spec")
        )
        metadata = {
            "uid": f"uid-to-be-of-{key.name}",
            "creationTimestamp": timestamp(self.now),
            **known,
            **body["metadata"],
            "resourceVersion": str(self._version),
            "generation": generation,
        }
        before = self.state
        self.state = fold(self.state, changed_from_response({**body, "metadata": metadata}))
        self._touch(self._keys_to_reconcile(before, key))

    def _delete(self, who: str, key: Key) -> None:
        existing = self.state.get(key)
        if existing is None or existing.deleting:
            return
        self.changes.append(Change(who, key, _as_written(existing), None))
        before = self.state
        self._version += 1
        deletion = ObjectDeleted(
            kind=key.kind,
            namespace=key.namespace,
            name=key.name,
            uid=existing.uid,
            resource_version=str(self._version),
            object=existing.body,
            epoch=existing.epoch,
        )
        self.state = fold(self.state, deletion)
        self._touch(self._keys_to_reconcile(before, key))

    def _keys_to_reconcile(self, before: Projection, key: Key) -> set[tuple[Component, Key]]:
        follows = [
            service
            for service in self.services
            if any(key.kind == resource.kind for resource in service.watches)
        ]
        return {
            (service, each)
            for service in follows
            for each in service.keys_to_reconcile(before, self.state, key)
        }

    def _touch(self, touched: set[tuple[Component, Key]]) -> None:
        for service, key in sorted(touched, key=lambda pair: (pair[0].name, str(pair[1]))):
            if (
                any(key.kind == resource.kind for resource in service.reconciles)
                and (service, key) not in self._open
            ):
                self.concerned.add(key)
                self._open.append((service, key))


def _drops_fields(who: str, existing: KubeObject, body: Body) -> bool:
    """Whether a manifest leaves out something that is in the spec: kubectl apply takes that out."""
    return who == YOU and existing.spec != body.get("spec")


def _over(existing: KubeObject, body: Body) -> Body:
    """The object once `body` has been applied: what others set stays, a manifest's spec is taken
    whole."""
    metadata = dict(existing.body["metadata"])
    for name, value in body["metadata"].items():
        metadata[name] = (
            {**(metadata.get(name) or {}), **value} if isinstance(value, dict) else value
        )
    return {**existing.body, **body, "metadata": metadata}


def _as_written(existing: KubeObject) -> Body:
    """As a person would write it: without what the server and the control plane add."""
    metadata = {
        name: existing.body["metadata"][name]
        for name in ("name", "namespace", "labels", "annotations")
        if existing.body["metadata"].get(name)
    }
    return {
        name: value
        for name, value in {**existing.body, "metadata": metadata}.items()
        if name != "status"
    }


def diff(change: Change) -> list[str]:
    """The lines of a unified diff, without its heads."""
    before, after = (_lines(body) for body in (change.before, change.after))
    return list(difflib.unified_diff(before, after, n=2, lineterm=""))[2:]


class _NoAliases(yaml.SafeDumper):
    """YAML without anchors and aliases: repeated values are repeated."""

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
