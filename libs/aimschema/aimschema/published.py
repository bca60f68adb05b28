"""The published part of an object: the fields that the services and `aimctl` read. Pure and total.

1. The five AIM kinds are published with spec and status whole, every other kind only with the paths
   in `PATHS`.
2. A foreign Job, PVC, InferenceService or HTTPRoute is published as metadata, because it can occupy
   a name that we need.
3. Only AIM annotations and those in `ANNOTATIONS` are published, if they are short. An HTTPRoute of
   ours has all short ones, since users choose some of them. Of the labels of foreign objects, only
   AIM labels are.
4. A literal that may be a secret (env, args, probe headers, header filters) is never published.
   `HASHES` of the body has its sha256, by path, so that drift repair still detects an edit.
5. An already pruned object stays unchanged: a service may apply this to an event of any release.
6. An object takes at most `limit_bytes` of its kind, without the spec of an AIM kind, whatever its
   owner writes.

A planner that reads a path needs it here. `aimcontroller.testing` passes each object through
`published_part`, so its test fails otherwise.
"""

import hashlib
from typing import Any, Final, TypeAlias

import msgspec

from aimschema.discovery_result import IMAGE_KEY, IMAGES_KEY, LARGEST_ELEMENT_BYTES, RESULT_KEY
from aimschema.labels import COMPONENT, KSERVE_PREFIX, MANAGED_BY, MANAGED_BY_AIM, PREFIX
from aimschema.reasons import READY
from aimschema.resources import (
    AIM_KINDS,
    BUDGET,
    CLAIM,
    CONFIG_MAP,
    GATEWAY,
    INFERENCE_SERVICE,
    JOB,
    POD,
    ROUTE,
    STORAGE_CLASS,
    TEMPLATE,
)

Body: TypeAlias = dict[str, Any]
Tree: TypeAlias = dict[str, Any]
"""Fields by name (`*`: each item of a list); None: all that is below."""

HASHES: Final = "hashes"
"""Top-level field of a published body: path → `sha256:<hex>` of what was left out there."""
OBJECT_BYTES: Final = 64 << 10
"""Maximum size of a published object as JSON, without the spec of an AIM kind."""
LARGER: Final = {
    CONFIG_MAP.kind: LARGEST_ELEMENT_BYTES + OBJECT_BYTES,
    TEMPLATE.kind: LARGEST_ELEMENT_BYTES + OBJECT_BYTES,
    GATEWAY.kind: 4 * OBJECT_BYTES,
}
"""Kinds with another limit: the answer of an image; status.modelSources of one; 64 listeners
with their conditions."""
LONGEST_ANNOTATION: Final = 1024
"""In characters. A longer one is not an AIM annotation."""
OWNERS_BYTES: Final = 4 << 10
"""How much of a tombstone may be owners, as JSON."""
MOST_CONDITIONS: Final = 100
MOST_LEVELS: Final = 128

METADATA: Final = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "finalizers",
    "labels",
    "annotations",
    "ownerReferences",
)
IDENTITY: Final = ("name", "namespace", "uid", "resourceVersion")
SPEC: Final = "spec"
DEFAULT_CLASS: Final = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
ANNOTATIONS: Final = (PREFIX, KSERVE_PREFIX, *DEFAULT_CLASS)
"""Beginnings of the annotations that are read."""
DATA: Final = (RESULT_KEY, IMAGE_KEY, IMAGES_KEY, "labels.json", "digest")
"""Keys of our ConfigMaps that are read."""
HASHED_DATA: Final = ("ca.crt",)
"""Keys that are only written."""

_CONDITIONS: Tree = {
    "*": dict.fromkeys(
        ("type", "status", "reason", "message", "lastTransitionTime", "observedGeneration")
    )
}
_CONTAINERS: Tree = {"*": dict.fromkeys(("name", "resources", "restartPolicy"))}
_STATUSES: Tree = {
    "*": dict.fromkeys(("name", "ready", "started", "restartCount", "state", "lastState"))
}
PATHS: Final[dict[str, Tree]] = {
    JOB.kind: {
        "spec": dict.fromkeys(("suspend", "activeDeadlineSeconds")),
        "status": {"conditions": _CONDITIONS, "startTime": None},
    },
    POD.kind: {
        "spec": {
            **dict.fromkeys(
                ("nodeName", "schedulerName", "restartPolicy", "schedulingGates", "resources")
            ),
            "volumes": {"*": dict.fromkeys(("name", "persistentVolumeClaim"))},
            "initContainers": _CONTAINERS,
            "containers": _CONTAINERS,
        },
        "status": {
            **dict.fromkeys(("phase", "reason", "message", "startTime")),
            "conditions": _CONDITIONS,
            "initContainerStatuses": _STATUSES,
            "containerStatuses": _STATUSES,
        },
    },
    CLAIM.kind: {
        "spec": None,
        "status": {"phase": None, "capacity": None, "conditions": _CONDITIONS},
    },
    CONFIG_MAP.kind: {"data": dict.fromkeys((*DATA, *HASHED_DATA))},
    INFERENCE_SERVICE.kind: {
        "spec": None,
        "status": {"conditions": _CONDITIONS, "deploymentMode": None, "modelStatus": None},
    },
    ROUTE.kind: {
        "spec": None,
        "status": {
            "parents": {"*": {"parentRef": None, "controllerName": None, "conditions": _CONDITIONS}}
        },
    },
    GATEWAY.kind: {
        "spec": dict.fromkeys(("gatewayClassName", "listeners")),
        "status": {
            "addresses": None,
            "conditions": _CONDITIONS,
            "listeners": {
                "*": {
                    "name": None,
                    "supportedKinds": None,
                    "attachedRoutes": None,
                    "conditions": _CONDITIONS,
                }
            },
        },
    },
    STORAGE_CLASS.kind: dict.fromkeys(("volumeBindingMode", "allowVolumeExpansion")),
    BUDGET.kind: {"spec": None},
}
"""Of the kinds that are not ours, what is read beside metadata."""

_OURS_WHOLE = frozenset(resource.kind for resource in AIM_KINDS)
_OF_ANY_OWNER = frozenset(resource.kind for resource in (JOB, CLAIM, INFERENCE_SERVICE, ROUTE))
_NAMED_VALUES = frozenset({"env", "httpHeaders", "set", "add"})
"""Lists of items with a name and a value; the last two are header filters of a route."""
_WHOLE_LISTS = frozenset({"args", "command"})


def published_part(body: Body) -> Body:
    """The published part of a body. `body` is not changed."""
    kind = body.get("kind")
    ours = is_ours(body)
    metadata = _metadata(
        body["metadata"], all_labels=ours, all_annotations=ours and kind == ROUTE.kind
    )
    head = {name: body[name] for name in ("apiVersion", "kind") if name in body} | {
        "metadata": metadata
    }
    if kind in _OURS_WHOLE:
        return _with_few_conditions({**body, **head})
    if not ours:
        return head
    hidden = without_literals(
        {"kind": kind, **_select(body, PATHS.get(str(kind), {})), HASHES: body.get(HASHES)}
    )
    return _with_few_conditions(hidden | head)


def without_literals(body: Body) -> Body:
    """The body with hashes in place of literals that may be secrets (rule 4)."""
    hashes: dict[str, str] = dict(body.get(HASHES) or {})
    rest = {name: value for name, value in body.items() if name != HASHES}
    if body.get("kind") == CONFIG_MAP.kind and "data" in rest:
        rest["data"] = _data(rest["data"], hashes)
    elif "spec" in rest:
        rest["spec"] = _without_values(rest["spec"], "spec", hashes)
    return rest | ({HASHES: hashes} if hashes else {})


def tombstone(body: Body) -> Body:
    """The identity and the owners of a deleted object."""
    metadata = {name: body["metadata"][name] for name in IDENTITY if name in body["metadata"]}
    owners = body["metadata"].get("ownerReferences")
    if owners and len(msgspec.json.encode(owners)) <= OWNERS_BYTES:
        metadata["ownerReferences"] = owners
    return {name: body[name] for name in ("apiVersion", "kind") if name in body} | {
        "metadata": metadata
    }


def limit_bytes(kind: str) -> int:
    """Maximum size of an object of this kind on the bus, in bytes; the spec of an AIM kind does not
    count."""
    return LARGER.get(kind, OBJECT_BYTES)


def size_bytes(body: Body) -> int:
    """Of the body as JSON; of a ConfigMap's texts without escapes, since an answer is mostly
    quotes."""
    data = body.get("data")
    if body.get("kind") != CONFIG_MAP.kind or not isinstance(data, dict):
        return len(msgspec.json.encode(body))
    texts = sum(len(f"{name}{text}".encode(errors="replace")) for name, text in data.items())
    return texts + len(
        msgspec.json.encode({name: value for name, value in body.items() if name != "data"})
    )


def goes_whole(kind: str) -> bool:
    """Whether the spec of an object of this kind goes as it is, however large."""
    return kind in _OURS_WHOLE


def is_ours(body: Body) -> bool:
    """Whether more than metadata is published. ConfigMaps need an AIM owner; other kinds may also
    qualify by kind or label."""
    kind, metadata = body.get("kind"), body["metadata"]
    if kind not in _OF_ANY_OWNER and kind != CONFIG_MAP.kind:
        return True
    references = metadata.get("ownerReferences") or ()
    if any(each.get("kind") in _OURS_WHOLE for each in references):
        return True
    return (
        kind in _OF_ANY_OWNER and (metadata.get("labels") or {}).get(MANAGED_BY) == MANAGED_BY_AIM
    )


def hashed_field(path: str) -> tuple[str, ...]:
    """The field that a key of HASHES is in, down to the first list."""
    return tuple(path.partition("[")[0].split("."))


def _metadata(metadata: Body, *, all_labels: bool, all_annotations: bool) -> Body:
    reduced: Body = {name: metadata[name] for name in METADATA if name in metadata}
    if annotations := reduced.get("annotations"):
        reduced["annotations"] = {
            name: text
            for name, text in annotations.items()
            if len(text) <= LONGEST_ANNOTATION and (all_annotations or name.startswith(ANNOTATIONS))
        }
    if not all_labels and (labels := reduced.get("labels")):
        reduced["labels"] = {
            name: text
            for name, text in labels.items()
            if name.startswith(PREFIX) or name in {MANAGED_BY, COMPONENT}
        }
    return reduced


def _select(node: Any, tree: Tree | None) -> Any:
    """What the tree names of `node`. A value of another form than the tree's goes as it is if it
    is small: a number, a null."""
    if tree is None:
        return node
    if isinstance(node, list):
        return [_select(item, tree["*"]) for item in node] if "*" in tree else []
    if isinstance(node, dict):
        return {name: _select(node[name], below) for name, below in tree.items() if name in node}
    return None if isinstance(node, str) else node


def _data(data: Any, hashes: dict[str, str]) -> Any:
    if not isinstance(data, dict):
        return data
    hashes |= {f"data[{name}]": _hash(text) for name, text in data.items() if name in HASHED_DATA}
    return {name: text for name, text in data.items() if name not in HASHED_DATA}


def _without_values(node: Any, path: str, hashes: dict[str, str], level: int = 0) -> Any:
    """The node without literals that may be secrets; `hashes` gets what they hash to."""
    if level > MOST_LEVELS:
        return None
    if isinstance(node, list):
        return [
            _without_values(item, f"{path}[{_name(item, place)}]", hashes, level + 1)
            for place, item in enumerate(node)
        ]
    if not isinstance(node, dict):
        return node
    reduced: Body = {}
    for field, value in node.items():
        here = f"{path}.{field}"
        if field in _WHOLE_LISTS and isinstance(value, list):
            hashes |= {here: _hash(value)} if value else {}
            reduced[field] = []
        elif field in _NAMED_VALUES and isinstance(value, list):
            reduced[field] = [
                _item(item, f"{here}[{_name(item, place)}]", hashes)
                for place, item in enumerate(value)
            ]
        else:
            reduced[field] = _without_values(value, here, hashes, level + 1)
    return reduced


def _item(item: Any, path: str, hashes: dict[str, str]) -> Any:
    if not isinstance(item, dict):
        return item
    if item.get("value"):
        hashes[path] = _hash(item["value"])
    return {field: value for field, value in item.items() if field != "value"}


def _name(item: Any, place: int) -> str:
    return str(item["name"]) if isinstance(item, dict) and "name" in item else str(place)


def _hash(value: Any) -> str:
    try:
        encoded = msgspec.json.encode(value, order="sorted")
    except (RecursionError, TypeError):
        encoded = b""
    return f"sha256:{hashlib.sha256(encoded).hexdigest()}"


def _with_few_conditions(body: Body) -> Body:
    """A status that grows without end shall not take Ready with it when it is cut."""
    status = body.get("status")
    conditions = status.get("conditions") if isinstance(status, dict) else None
    if status is None or not isinstance(conditions, list):
        return body
    known = [each for each in conditions if isinstance(each, dict)]
    if len(known) == len(conditions) <= MOST_CONDITIONS:
        return body
    first = sorted(known, key=lambda condition: condition.get("type") != READY)[:MOST_CONDITIONS]
    return {**body, "status": {**status, "conditions": first}}
