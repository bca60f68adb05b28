"""What a person does to put everything right: the inputs first, then what messages ask for.
Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from aim_testing.soak import inputs
from aim_testing.soak.operations import HOLD, SQUATTER, Operation, create, delete, patch
from aim_testing.soak.oracle import summary_kinds
from aim_testing.soak.state import Body, State, conditions, holds, where
from aimschema import labels, reasons
from aimschema.resources import (
    CACHE,
    CONFIG,
    INFERENCE_SERVICE,
    MODEL,
    NAMESPACE,
    OTHER_KINDS,
    SECRET,
    SERVICE,
    TEMPLATE,
    Key,
    Resource,
)

_RESOURCES = {
    each.kind: each for each in (NAMESPACE, MODEL, SECRET, CONFIG, TEMPLATE, SERVICE, CACHE)
}
_ASKS = re.compile(
    r"delete (?:the )?(?P<kind>ModelCache|InferenceService|AIMService) (?P<name>[a-z0-9.-]+)"
)
_STOP = re.compile(r"set spec\.replicas of AIMService (?P<name>[a-z0-9-]+) to 0")
_ONE_OF_THEM = re.compile(r"ModelCache (?P<name>[a-z0-9.-]+) is older .*delete one of them")


@dataclass(frozen=True, slots=True)
class ManualAction:
    """An operation that a message asks for."""

    by: str
    operation: Operation


def inputs_right(state: State) -> Iterator[Operation]:
    """Everything that a user writes is there and right; nothing that works is deleted."""
    for key, body in inputs.manifests().items():
        existing = state.objects.get(key)
        if existing is None:
            yield create(_RESOURCES[key.kind], body)
        elif "spec" in body and (changes := _changes(existing.get("spec") or {}, body["spec"])):
            yield patch(_RESOURCES[key.kind], key, {"spec": changes})
    for cache in state.all(CACHE):
        if cache["spec"].get("storageClassName") is not None and not holds(cache, reasons.READY):
            yield patch(CACHE, _key(cache), {"spec": {"storageClassName": None}})
    for runtime in state.all(INFERENCE_SERVICE):
        if (runtime["spec"].get("predictor") or {}).get("nodeSelector"):
            yield patch(
                INFERENCE_SERVICE, _key(runtime), {"spec": {"predictor": {"nodeSelector": None}}}
            )
    yield from _own_traces(state)
    twin = Key(MODEL.kind, None, "twin")
    if twin in state.objects:
        yield delete(MODEL, twin)


def _own_traces(state: State) -> Iterator[Operation]:
    """What the user has put in the way: objects under names that are needed, and finalizers."""
    for kind in OTHER_KINDS:
        for body in state.all(kind):
            finalizers = body["metadata"].get("finalizers") or []
            if HOLD in finalizers:
                left = [each for each in finalizers if each != HOLD] or None
                yield patch(kind, _key(body), {"metadata": {"finalizers": left}})
            if SQUATTER.items() <= (body["metadata"].get("labels") or {}).items():
                yield delete(kind, _key(body))


def _changes(existing: Body, desired: Body) -> Body:
    """A merge patch that makes `existing` what is wanted; fields that are defaulted may stay."""
    removed = {name: None for name in existing if name not in desired and name in _UNWANTED}
    return removed | {
        name: value for name, value in desired.items() if not _contains(existing.get(name), value)
    }


def _contains(existing: object, desired: object) -> bool:
    """The API server may have added defaults."""
    if isinstance(existing, dict) and isinstance(desired, dict):
        return all(_contains(existing.get(name), value) for name, value in desired.items())
    return existing == desired


_UNWANTED = frozenset({"cacheStorageClassName", "images"})


def retries(state: State, value: str) -> Iterator[Operation]:
    """For what waits for its next try."""
    for kind in (CACHE, TEMPLATE):
        for body in state.all(kind):
            due = (body.get("status") or {}).get("nextAttemptTime")
            if due is not None and not holds(body, reasons.READY):
                annotations = {labels.ANNOTATION_RETRY: value}
                yield patch(kind, _key(body), {"metadata": {"annotations": annotations}})


def manual_actions(state: State) -> list[ManualAction]:
    """What the messages of unready objects ask to be stopped or deleted, each once."""
    found: dict[str, ManualAction] = {}
    for kind in summary_kinds():
        for body in state.all(kind):
            ready = conditions(body).get(reasons.READY, {})
            operation = (
                None
                if ready.get("status") == "True"
                else _manual_action(body, str(ready.get("message", "")))
            )
            if operation is not None:
                by = f"{where(body)}: {ready.get('reason')}: {ready.get('message')}"
                found.setdefault(str(operation), ManualAction(by, operation))
    return list(found.values())


def _manual_action(body: Body, message: str) -> Operation | None:
    namespace = body["metadata"].get("namespace")
    stop = _STOP.search(message)
    if stop is not None:
        return patch(SERVICE, Key(SERVICE.kind, namespace, stop["name"]), {"spec": {"replicas": 0}})
    found = _ASKS.search(message)
    if found is not None:
        kinds = {each.kind: each for each in (CACHE, INFERENCE_SERVICE, SERVICE)}
        kind = kinds[found["kind"]]
        return delete(kind, Key(kind.kind, namespace, found["name"]))
    if body["kind"] == CACHE.kind and _ONE_OF_THEM.search(message):
        return delete(CACHE, _key(body))
    return None


def resource_of(kind: str) -> Resource:
    """Of what users write."""
    return _RESOURCES[kind]


def _key(body: Body) -> Key:
    metadata = body["metadata"]
    return Key(body["kind"], metadata.get("namespace"), metadata["name"])
