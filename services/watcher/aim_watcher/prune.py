"""What of an object goes on the bus."""

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from aimschema.reasons import READY
from aimschema.resources import JOB, POD

Body: TypeAlias = dict[str, Any]
Path: TypeAlias = tuple[str, ...]

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
POD_SPEC: dict[str, Path] = {POD.kind: ("spec",), JOB.kind: ("spec", "template", "spec")}
CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
METADATA: Path = ("metadata",)
IDENTITY = frozenset({("apiVersion",), ("kind",), *((*METADATA, name) for name in ("name", "namespace", "uid", "resourceVersion", "generation"))})
BULK = 0.5
DEEPEST = 100
"""Levels of what is published. Every reader has to decode it, with some of its own stack in use, and Python ends at 1,000."""
MOST_CONDITIONS = 100


def publishable(body: Body) -> tuple[Body, tuple[str, ...]]:
    """The body as it goes on the bus, and what had to be left out: all but identity, where it is too deep or of another shape than its kind has."""
    try:
        pruned = prune(body)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        pruned = body
    else:
        if not _is_deep(pruned):
            return pruned, ()
    return _identity(body), tuple(name for name in pruned if name not in {"apiVersion", "kind", "metadata"})


def _is_deep(node: Any) -> bool:
    level = [node]
    for _ in range(DEEPEST):
        level = [value for each in level for value in (each.values() if isinstance(each, dict) else each) if isinstance(value, dict | list)]
        if not level:
            return False
    return True


def _identity(body: Body) -> Body:
    metadata = {name: body["metadata"][name] for *_, name in sorted(IDENTITY) if name in body["metadata"]}
    return {"apiVersion": body.get("apiVersion", ""), "kind": body["kind"], "metadata": metadata}


def prune(body: Body) -> Body:
    """The body less what nobody reads (managedFields, the last-applied annotation) or nobody should (literal env values); `body` stays as it is."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    if LAST_APPLIED in (metadata.get("annotations") or {}):
        metadata["annotations"] = {name: value for name, value in metadata["annotations"].items() if name != LAST_APPLIED}
    pruned = _with_few_conditions({**body, "metadata": metadata})
    path = POD_SPEC.get(body["kind"])
    return pruned if path is None else _replaced(pruned, path, _without_env_values)


def _with_few_conditions(body: Body) -> Body:
    """Nobody has so many to say; a status that grows without end shall not take Ready with it when it is cut."""
    status = body.get("status")
    conditions = status.get("conditions") if isinstance(status, dict) else None
    if status is None or not isinstance(conditions, list) or len(conditions) <= MOST_CONDITIONS:
        return body
    kept = sorted(conditions, key=_is_not_ready)[:MOST_CONDITIONS]
    return {**body, "status": {**status, "conditions": kept}}


def _is_not_ready(condition: Any) -> bool:
    return not isinstance(condition, dict) or condition.get("type") != READY


def _replaced(node: Any, path: Path, change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(node)
    if not isinstance(node, dict) or path[0] not in node:
        return node
    return {**node, path[0]: _replaced(node[path[0]], path[1:], change)}


def _without_env_values(spec: Any) -> Any:
    return {**spec, **{name: [_container(each) for each in spec[name]] for name in CONTAINERS if spec.get(name)}}


def _container(container: Body) -> Body:
    if not container.get("env"):
        return container
    return {**container, "env": [{name: value for name, value in each.items() if name != "value"} for each in container["env"]]}


def without_largest(body: Body) -> tuple[Body, str] | None:
    """The body without the one subtree that holds most of its bulk, and the dotted path of that; None when only identity is left.

    It goes down as long as one child holds at least half of its parent, so that a single huge field goes and its neighbours stay. Lists go whole.
    """
    path: Path = ()
    node: Any = body
    while isinstance(node, dict) and (sizes := _sizes(node, path)):
        largest = max(sizes, key=lambda name: sizes[name])
        if path not in ((), METADATA) and sizes[largest] < BULK * sum(sizes.values()):
            break
        path, node = (*path, largest), node[largest]
    return (_removed(body, path), ".".join(path)) if path else None


def _sizes(node: Body, path: Path) -> dict[str, int]:
    """How large each child of `node` is, in bytes of JSON, without what must stay."""
    sizes = {}
    for name, value in node.items():
        below = (*path, name)
        if below == METADATA:
            value = {key: each for key, each in value.items() if (*METADATA, key) not in IDENTITY}  # noqa: PLW2901
        if below not in IDENTITY and (value or below != METADATA):
            sizes[name] = len(msgspec.json.encode(value))
    return sizes


def _removed(node: Body, path: Path) -> Body:
    if len(path) == 1:
        return {name: value for name, value in node.items() if name != path[0]}
    return {**node, path[0]: _removed(node[path[0]], path[1:])}
