"""Patches of JSON objects: merge (RFC 7386), JSON patch (RFC 6902) and Kubernetes' strategic merge.
Pure.

`merge` and `strategic` take over parts of the patch, so a patch is used once; the target is not
changed.
"""

from aimlab.apiserver.errors import ApiError, bad_request
from aimlab.apiserver.objects import Json, Obj, clone, same

REJECTED = "the server rejected our request due to an error in our request"


def merge(target: Json, patch: Json) -> Json:
    """RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def json_patch(target: Obj, operations: Json) -> Obj:
    """RFC 6902. ApiError 422 for an operation that cannot be done, 400 for one that is none."""
    if not isinstance(operations, list) or not all(isinstance(step, dict) for step in operations):
        raise bad_request("a JSON patch is a list of operations")
    holder = {"": clone(target)}
    for step in operations:
        try:
            _operate(holder, step)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ApiError(422, "Invalid", REJECTED, {}) from error
    document = holder[""]
    if not isinstance(document, dict):
        raise bad_request("a JSON patch must leave an object")
    return document


def _operate(holder: Obj, step: Obj) -> None:
    match step["op"]:
        case "add":
            _put(holder, step["path"], clone(step["value"]), insert=True)
        case "replace":
            _get(holder, step["path"])
            _put(holder, step["path"], clone(step["value"]), insert=False)
        case "remove":
            _take(holder, step["path"])
        case "move":
            _put(holder, step["path"], _take(holder, step["from"]), insert=True)
        case "copy":
            _put(holder, step["path"], clone(_get(holder, step["from"])), insert=True)
        case "test":
            if not same(_get(holder, step["path"]), step["value"]):
                raise ValueError("test failed")
        case other:
            raise ValueError(f"unknown operation {other}")


def _tokens(pointer: str) -> list[str]:
    if pointer and not pointer.startswith("/"):
        raise ValueError(f"{pointer!r} is not a JSON pointer")
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")]


def _step(value: Json, token: str) -> Json:
    return value[int(token)] if isinstance(value, list) else value[token]


def _get(holder: Json, pointer: str) -> Json:
    for token in _tokens(pointer):
        holder = _step(holder, token)
    return holder


def _put(holder: Json, pointer: str, value: Json, *, insert: bool) -> None:
    *parents, last = _tokens(pointer)
    for token in parents:
        holder = _step(holder, token)
    if isinstance(holder, list):
        index = len(holder) if last == "-" else int(last)
        if not 0 <= index <= len(holder):
            raise IndexError(last)
        holder[index : index + (not insert)] = [value]
    else:
        holder[last] = value


def _take(holder: Json, pointer: str) -> Json:
    *parents, last = _tokens(pointer)
    for token in parents:
        holder = _step(holder, token)
    return holder.pop(int(last) if isinstance(holder, list) else last)


def strategic(target: Json, patch: Json, shape: Obj) -> Json:
    """Strategic merge: lists whose shape has keys merge item by item on the first key, the `$`
    directives are obeyed.

    The order a client asks for with `$setElementOrder` is taken where it names every item.
    """
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    merged = dict(target) if isinstance(target, dict) else {}
    if "$retainKeys" in patch:
        merged = {key: value for key, value in merged.items() if key in patch["$retainKeys"]}
    properties = shape.get("properties") or {}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.split("/", maxsplit=1)[1]
            merged[name] = [item for item in merged.get(name) or () if item not in value]
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            merged.pop(key, None)
            continue
        sub = properties.get(key) or {}
        if isinstance(value, list):
            merged[key] = _lists(
                merged.get(key) or [], value, sub, patch.get(f"$setElementOrder/{key}")
            )
        else:
            merged[key] = strategic(merged.get(key), value, sub)
    return merged


def _lists(
    target: list[Json], patch: list[Json], shape: Obj, order: list[Json] | None
) -> list[Json]:
    if shape.get("x-kubernetes-list-type") == "set":
        return target + [item for item in patch if item not in target]
    if shape.get("x-kubernetes-list-type") != "map" or any(
        not isinstance(item, dict) for item in patch
    ):
        return patch
    if any(item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if "$patch" not in item]
    key = shape["x-kubernetes-list-map-keys"][0]
    items = {item.get(key): item for item in target}
    for item in patch:
        if item.get("$patch") == "delete":
            items.pop(item.get(key), None)
        else:
            items[item.get(key)] = strategic(
                items.get(item.get(key)), item, shape.get("items") or {}
            )
    rank = {
        item.get(key): index for index, item in enumerate(order or ()) if isinstance(item, dict)
    }
    return (
        sorted(items.values(), key=lambda item: rank.get(item.get(key), -1))
        if rank.keys() >= items.keys()
        else list(items.values())
    )
