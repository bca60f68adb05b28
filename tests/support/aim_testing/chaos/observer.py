"""Invariants, checked at every write to the API server double before the writer continues.

1. observedGeneration never decreases, neither the status's nor a condition's, and is never ahead of
   the object.
2. lastTransitionTime changes only with `status`; no condition has an empty reason; no condition
   disappears.
3. A condition that is True is true at that moment, by the objects and by what really ran.
4. A condition that is still true is never withdrawn; no failure is reported that did not happen.
"""

from collections.abc import Callable, Iterator
from typing import Any

from aim_testing.chaos import fleet
from aim_testing.chaos.fastnode import Truth
from aimlab.apiserver import ApiServer
from aimlab.apiserver.store import Change, CollectionKey
from aimschema import labels, names, reasons
from aimschema.resources import (
    AIM_GROUP,
    CACHE,
    CLAIM,
    CONFIG_MAP,
    INFERENCE_SERVICE,
    ROUTE,
    TEMPLATE,
    Resource,
)

Body = dict[str, Any]
NOT_COUNTED = frozenset({"leases", "events", "nodes"})
NEVER_TRUE = frozenset(
    {
        reasons.RUNTIME_FAILED,
        reasons.ROUTE_FAILED,
        reasons.CACHE_FAILED,
        reasons.CACHE_LOST,
        reasons.NAME_CONFLICT,
        reasons.DUPLICATE_NAME,
        reasons.DUPLICATE_SOURCE,
        reasons.UNKNOWN_GPU,
        reasons.VALIDATION_FAILED,
        reasons.TEMPLATE_FAILED,
        reasons.DISCOVERY_FAILED,
        reasons.WARM_FAILED,
        reasons.PVC_LOST,
        reasons.STORAGE_CLASS_MISSING,
        reasons.INSUFFICIENT_CAPACITY,
        reasons.DOWNLOAD_FAILED,
        reasons.AUTH_ERROR,
        reasons.SOURCE_NOT_FOUND,
        reasons.CHECKSUM_MISMATCH,
        reasons.QUOTA_EXCEEDED,
        reasons.EVICTING,
    }
)
"""Nothing of this ever happens in these runs."""
LASTING = frozenset(
    {
        reasons.READY,
        reasons.RESOLVED,
        reasons.CACHE_READY,
        reasons.RUNTIME_READY,
        reasons.ROUTING_READY,
        reasons.STORAGE_READY,
        reasons.FILLED,
        reasons.DISCOVERED,
        reasons.CACHE_WARM,
    }
)
"""Once true, these stay true: no run removes their cause."""
OF_WHAT_IS_ABSENT = frozenset({reasons.ROUTING_DISABLED})
"""Reported because the config is not known yet. Each kind has its own watch, so one may be late:
the later correction is no flicker."""
GOOD_STATES = frozenset({"Running", reasons.AVAILABLE_STATE})


Get = Callable[[Resource, str, str], Body | None]
"""The object of a kind, a namespace and a name, as it is stored at this moment."""


class Observer:
    """`violations` in the order of detection; `writes` counts changes of all kinds except leases
    and events, `versions` those of AIM kinds."""

    def __init__(self, api: ApiServer, truth: Truth) -> None:
        self.violations: list[str] = []
        self.writes = 0
        self.versions = 0
        self._store = api.cluster.store
        self._truth = truth
        self._store.observers.append(self._see)

    def _see(self, key: CollectionKey, change: Change) -> None:
        if key[1] not in NOT_COUNTED:
            self.writes += 1
        if key[0] != AIM_GROUP or change.type == "DELETED":
            return
        self.versions += 1
        before = None if change.previous is None else change.previous.obj
        self.violations += judge(before, change.entry.obj, self._get, self._truth)

    def _get(self, resource: Resource, namespace: str, name: str) -> Body | None:
        entry = self._store.collections[resource.group, resource.plural].get(namespace, name)
        return None if entry is None else entry.obj


def judge(before: Body | None, after: Body, get: Get, truth: Truth) -> list[str]:
    """Everything that is wrong with a version, in words."""
    metadata = after["metadata"]
    where = (
        f"{after['kind']} {metadata.get('namespace', '-')}/{metadata['name']}, version"
        f" {metadata['resourceVersion']}"
    )
    return [
        f"{where}: {problem}"
        for problem in (*_order(before, after), *_text_problems(after), *_untrue(after, get, truth))
    ]


def _untrue(body: Body, get: Get, truth: Truth) -> Iterator[str]:
    """What a status says that is not so at this moment."""
    claims = {
        kind for kind, condition in _conditions(body).items() if condition["status"] == "True"
    }
    namespace, name = body["metadata"].get("namespace", ""), body["metadata"]["name"]
    match body["kind"]:
        case "AIMServiceTemplate" if reasons.DISCOVERED in claims:
            if body["metadata"]["uid"] not in truth.removed_owners:
                yield "Discovered, but its image was never asked"
            if not (get(CONFIG_MAP, namespace, names.discovery_config_map(name)) or {}).get("data"):
                yield "Discovered, but the answer is not kept"
        case "ModelCache" if reasons.FILLED in claims:
            yield from (f"Filled, but {why}" for why in _not_filled(body, get, truth))
        case "ModelCache" if reasons.STORAGE_READY in claims:
            if _phase(get(CLAIM, namespace, names.cache_claim(name))) != "Bound":
                yield "StorageReady, but the claim is not Bound"
        case "AIMService":
            yield from _service_untrue(body, claims, get, truth)


def _not_filled(cache: Body, get: Get, truth: Truth) -> Iterator[str]:
    name = cache["metadata"]["name"]
    claim = get(CLAIM, cache["metadata"]["namespace"], names.cache_claim(name))
    if claim is None or _phase(claim) != "Bound":
        yield f"the claim of {name} is not Bound"
    elif labels.ANNOTATION_FILLED not in (claim["metadata"].get("annotations") or {}):
        yield f"the claim of {name} is not marked as filled"
    elif claim["metadata"]["uid"] not in truth.filled:
        yield f"no download into the claim of {name} ever succeeded"


def _service_untrue(service: Body, claims: set[str], get: Get, truth: Truth) -> Iterator[str]:
    conditions = _conditions(service)
    namespace = service["metadata"]["namespace"]
    name = service["metadata"]["name"]
    if (
        reasons.RESOLVED in claims
        and get(TEMPLATE, namespace, service["spec"]["templateRef"]) is None
    ):
        yield "Resolved, but there is no such template"
    if (
        reasons.CACHE_READY in claims
        and conditions[reasons.CACHE_READY]["reason"] == reasons.CACHE_WARM_REASON
    ):
        for source, _ in fleet.sources_of(fleet.model_of_name(service["spec"]["model"])):
            cache = get(CACHE, namespace, names.cache_for(source))
            missing = (
                [f"there is no cache of {source}"]
                if cache is None
                else list(_not_filled(cache, get, truth))
            )
            yield from (f"CacheReady, but {why}" for why in missing)
    if reasons.RUNTIME_READY in claims and service["spec"].get("replicas", 1) > 0:
        isvc = get(INFERENCE_SERVICE, namespace, name)
        if isvc is None or _conditions(isvc).get(reasons.READY, {}).get("status") != "True":
            yield "RuntimeReady, but the InferenceService is not Ready"
    if (
        reasons.ROUTING_READY in claims
        and conditions[reasons.ROUTING_READY]["reason"] == reasons.ROUTE_READY
    ):
        route = get(ROUTE, namespace, name)
        if not (route or {}).get("status", {}).get("parents"):
            yield "RoutingReady, but no gateway has accepted the route"


def _phase(claim: Body | None) -> str | None:
    return None if claim is None else claim.get("status", {}).get("phase")


def _order(before: Body | None, after: Body) -> Iterator[str]:
    """What a version must not do to the one before it."""
    yield from moved_back(before, after)
    if before is None or before["metadata"]["uid"] != after["metadata"]["uid"]:
        return
    was, now = before.get("status") or {}, after.get("status") or {}
    old, new = _conditions(before), _conditions(after)
    for kind in old.keys() - new.keys() - set(reasons.KSTATUS):
        yield f"condition {kind} went away"
    for kind in old.keys() & new.keys() & LASTING:
        yield from _taken_back(kind, old[kind], new[kind])
    if was.get("status") in GOOD_STATES and now.get("status") != was["status"]:
        yield f"status went from {was['status']} to {now.get('status')}"


def moved_back(before: Body | None, after: Body) -> Iterator[str]:
    """What a version must not do to the one before it, whatever users do: generations go back,
    or times move without cause."""
    if before is None or before["metadata"]["uid"] != after["metadata"]["uid"]:
        return
    was, now = before.get("status") or {}, after.get("status") or {}
    if now.get("observedGeneration", 0) < was.get("observedGeneration", 0):
        yield (
            f"observedGeneration went from {was['observedGeneration']} to"
            f" {now.get('observedGeneration')}"
        )
    olds, news = _conditions(before), _conditions(after)
    for kind in olds.keys() & news.keys():
        old, new = olds[kind], news[kind]
        if new.get("observedGeneration", 0) < old.get("observedGeneration", 0):
            yield (
                f"observedGeneration of {kind} went from {old['observedGeneration']} to"
                f" {new.get('observedGeneration')}"
            )
        if (
            new["status"] == old["status"]
            and new["lastTransitionTime"] != old["lastTransitionTime"]
        ):
            yield f"lastTransitionTime of {kind} moved, but its status stayed {new['status']}"


def _taken_back(kind: str, old: Body, new: Body) -> Iterator[str]:
    if (
        old["status"] == "True"
        and new["status"] != "True"
        and old["reason"] not in OF_WHAT_IS_ABSENT
    ):
        yield (
            f"{kind} was True ({old['reason']}) and is {new['status']} ({new['reason']}:"
            f" {new.get('message', '')})"
        )


def _text_problems(body: Body) -> Iterator[str]:
    """What a single status must not say."""
    yield from contradictions(body)
    for kind, condition in _conditions(body).items():
        if condition.get("reason") in NEVER_TRUE:
            yield (
                f"{kind} says {condition['reason']}, which is not so:"
                f" {condition.get('message', '')}"
            )


def contradictions(body: Body) -> Iterator[str]:
    """What a single status must not say, whatever users do."""
    status, generation = body.get("status") or {}, body["metadata"].get("generation", 0)
    if status.get("observedGeneration", 0) > generation:
        yield (
            f"observedGeneration {status['observedGeneration']} is ahead of generation {generation}"
        )
    conditions = _conditions(body)
    for kind, condition in conditions.items():
        if not condition.get("reason"):
            yield f"{kind} has no reason"
    true = [kind for kind in reasons.SUMMARY if conditions.get(kind, {}).get("status") == "True"]
    if len(true) > 1:
        yield f"{' and '.join(true)} are True at once"
    ready = reasons.READY in true
    if "status" in status and ready != (status["status"] in GOOD_STATES):
        yield f"Ready is {ready}, but status is {status['status']}"


def _conditions(body: Body) -> dict[str, Body]:
    return {
        condition["type"]: condition
        for condition in (body.get("status") or {}).get("conditions") or ()
    }
