"""Admission by LimitRange (Kubernetes, "Limit Ranges"): defaults for containers, and what is too
much or too little. Not known: maxLimitRequestRatio.
"""

from collections.abc import Iterator

from aimlab.apiserver import quantity
from aimlab.apiserver.errors import ApiError, object_details
from aimlab.apiserver.objects import Obj, dig, meta
from aimlab.apiserver.store import Store

LIMIT_RANGES = ("", "limitranges")
ANNOTATION = "kubernetes.io/limit-ranger"


def fill(obj: Obj) -> None:
    """Defaults of a LimitRange itself: what may be at most is the default, and so on down."""
    for item in dig(obj, "spec", "limits") or []:
        if item.get("type") == "Container":
            default = {**(item.get("max") or {}), **(item.get("default") or {})}
            requests = {**(item.get("min") or {}), **default, **(item.get("defaultRequest") or {})}
            item.update(
                ({"default": default} if default else {})
                | ({"defaultRequest": requests} if requests else {})
            )


def complete(store: Store, pod: Obj) -> None:
    """Fills in what containers leave open."""
    done: list[str] = []
    for item in _items(store, pod["metadata"]["namespace"], "Container"):
        for kind, word in (("containers", "container"), ("initContainers", "init container")):
            for container in pod["spec"].get(kind) or []:
                done += _complete_container(container, item, f"for {word} {container['name']}")
    if done:
        annotations = meta(pod).setdefault("annotations", {})
        annotations[ANNOTATION] = f"LimitRanger plugin set: {'; '.join(done)}"


def _complete_container(container: Obj, item: Obj, whose: str) -> list[str]:
    done = []
    for kind, source, word in (
        ("requests", "defaultRequest", "request"),
        ("limits", "default", "limit"),
    ):
        existing = dig(container, "resources", kind) or {}
        new = {
            name: text for name, text in (item.get(source) or {}).items() if name not in existing
        }
        if new:
            container.setdefault("resources", {})[kind] = {**existing, **new}
            done.append(f"{', '.join(sorted(new))} {word} {whose}")
    return done


def require(store: Store, obj: Obj) -> None:
    """ApiError 403 for what is beyond a LimitRange of the namespace."""
    namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
    found: list[str] = []
    if obj["kind"] == "Pod":
        plural = "pods"
        for item in _items(store, namespace, "Container"):
            for container in [
                *(obj["spec"].get("initContainers") or []),
                *obj["spec"]["containers"],
            ]:
                found += _beyond(item, "Container", container.get("resources") or {})
    else:
        plural = "persistentvolumeclaims"
        for item in _items(store, namespace, "PersistentVolumeClaim"):
            found += _beyond(item, "PersistentVolumeClaim", dig(obj, "spec", "resources") or {})
    if found:
        why = found[0] if len(found) == 1 else f"[{', '.join(found)}]"
        text = f'{plural} "{name}" is forbidden: {why}'
        raise ApiError(403, "Forbidden", text, object_details("", plural, name))


def _beyond(item: Obj, kind: str, resources: Obj) -> Iterator[str]:
    for bound, word, sign in (("min", "minimum", -1), ("max", "maximum", 1)):
        for name, edge in sorted((item.get(bound) or {}).items()):
            amounts = {
                side: text
                for side in ("request", "limit")
                if (text := dig(resources, f"{side}s", name)) is not None
            }
            needed = "limit" if sign > 0 and kind == "Container" else "request"
            if needed not in amounts:
                yield f"{word} {name} usage per {kind} is {edge}.  No {needed} is specified"
                continue
            for side in dict.fromkeys((needed, *amounts)):
                over = (quantity.parse(str(amounts[side])) - quantity.parse(str(edge))) * sign > 0
                if over:
                    yield f"{word} {name} usage per {kind} is {edge}, but {side} is {amounts[side]}"
                    break


def _items(store: Store, namespace: str, kind: str) -> Iterator[Obj]:
    for entry in store.collections[LIMIT_RANGES].entries(namespace):
        for item in dig(entry.obj, "spec", "limits") or []:
            if item.get("type") == kind:
                yield item
