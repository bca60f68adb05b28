"""Invariants of a settled cluster: an independent model, written from the contract. Pure.

1. A condition that is True is true. One that is not names an existing cause in its message.
2. An object that is Progressing waits for something: a time, an unfinished dependency, or a pod
   that still has time to start.
3. Stopped services have no pods, running ones have a ready pod and a route.
4. Deleted objects leave nothing behind.
"""

import datetime
from collections.abc import Callable, Iterable, Iterator

from aim_testing.soak.state import (
    Body,
    State,
    annotation,
    claims_of,
    conditions,
    holds,
    is_deleting,
    owners,
    phase,
    where,
)
from aimschema import labels, names, reasons
from aimschema.messages import parse_timestamp
from aimschema.resources import (
    CACHE,
    CLAIM,
    CONFIG,
    CONFIG_MAP,
    GATEWAY,
    INFERENCE_SERVICE,
    JOB,
    MODEL,
    POD,
    ROUTE,
    SERVICE,
    STORAGE_CLASS,
    TEMPLATE,
    Resource,
)

START_S = 1800.0
"""How long a predictor's startup probe lets it start."""
PROTECTION = "kubernetes.io/pvc-protection"
GOOD = {"Running", "Available"}


def summary_kinds() -> tuple[Resource, ...]:
    return (MODEL, TEMPLATE, CACHE, SERVICE)


def unready(state: State) -> list[str]:
    """Objects that are not as a user wants them. That no registry is there stops nothing."""
    return [
        f"{where(body)}: {_summary_text(body)}"
        for kind in summary_kinds()
        for body in state.all(kind)
        if not holds(body, reasons.READY) or _generation(body) != body["metadata"].get("generation")
        if conditions(body).get(reasons.READY, {}).get("reason") != reasons.REGISTRY_UNREACHABLE
    ]


def problems(state: State, now: datetime.datetime) -> list[str]:
    """Everything that is wrong once the cluster has been given time, in words."""
    found = [
        f"{where(body)}: {problem}"
        for kind in summary_kinds()
        for body in state.all(kind)
        if not is_deleting(body)
        for problem in _object(state, body, now)
    ]
    return found + orphans(state)


def _object(state: State, body: Body, now: datetime.datetime) -> Iterator[str]:
    if not conditions(body):
        yield "has no status"
        return
    if _generation(body) != body["metadata"].get("generation"):
        yield f"answers generation {_generation(body)} of {body['metadata'].get('generation')}"
        return
    yield from _summary(body)
    for condition in conditions(body).values():
        if condition["type"] in reasons.DERIVED:
            continue
        judge = _JUDGES.get((condition["type"], condition["reason"]))
        if judge is None:
            yield f"{condition['type']} has reason {condition['reason']}, which no rule expects"
            continue
        yield from (
            f"{_condition_text(condition)}, but {why}" for why in judge(state, body, condition)
        )
    if body["kind"] == SERVICE.kind:
        yield from _stopped(state, body)
    if holds(body, reasons.PROGRESSING) and not _has_something_to_wait_for(state, body, now):
        yield f"progresses for ever: {_summary_text(body)}"


def _generation(body: Body) -> object:
    return (body.get("status") or {}).get("observedGeneration")


def _summary_text(body: Body) -> str:
    ready = conditions(body).get(reasons.READY, {})
    state = (body.get("status") or {}).get("status", "")
    return f"{state} {ready.get('reason', 'no status')}: {ready.get('message', '')}"


def _condition_text(condition: Body) -> str:
    text = f"{condition['type']} is {condition['status']}/{condition['reason']}"
    return f"{text} ({condition.get('message', '')[:240]})"


def _summary(body: Body) -> Iterator[str]:
    """Running and Available go with Ready; the state follows from the conditions."""
    state = (body.get("status") or {}).get("status")
    ready = holds(body, reasons.READY)
    if state is not None and ready != (state in GOOD):
        yield f"Ready is {ready}, but status is {state}"
    if state == "Failed" and not holds(body, reasons.FAILURE):
        yield "is Failed without Failure"


# --- what a condition says, and why it may not be so ---

Judge = Callable[[State, Body, Body], Iterable[str]]


def _namespace(body: Body) -> str:
    return str(body["metadata"]["namespace"])


def _template_of(state: State, service: Body) -> Body | None:
    return state.live(TEMPLATE, _namespace(service), str(service["spec"]["templateRef"]))


def _models(state: State, name: object) -> list[Body]:
    """Entries of a name, the one that counts first."""
    found = [m for m in state.all(MODEL) if m["spec"]["name"] == name and not is_deleting(m)]
    return sorted(found, key=lambda m: (m["metadata"]["creationTimestamp"], m["metadata"]["name"]))


def _config(state: State, body: Body, name: str) -> Body | None:
    return state.live(CONFIG, _namespace(body), name)


def _runtime(state: State, service: Body) -> Body | None:
    return state.get(INFERENCE_SERVICE, _namespace(service), service["metadata"]["name"])


def _answer(state: State, template: Body) -> Body | None:
    name = names.discovery_config_map(template["metadata"]["name"])
    found = state.live(CONFIG_MAP, _namespace(template), name)
    return found if found is not None and (found.get("data") or {}) else None


def _caches(state: State, namespace: str, source: object) -> list[Body]:
    found = [c for c in state.all(CACHE, namespace) if c["spec"]["sourceUri"] == source]
    live = [c for c in found if not is_deleting(c)]
    return sorted(live, key=lambda c: (c["metadata"]["creationTimestamp"], c["metadata"]["name"]))


def _sources(state: State, service: Body) -> list[str]:
    template = _template_of(state, service)
    found = [] if template is None else (template.get("status") or {}).get("modelSources") or []
    return [str(source) for source in found]


def _must(condition: bool, why: str) -> list[str]:
    return [] if condition else [why]


def _names(condition: Body, *culprits: str) -> list[str]:
    text = condition.get("message", "")
    if any(culprit in text for culprit in culprits):
        return []
    return [f"the message names none of: {', '.join(culprits) or 'nothing is wrong'}"]


def _resolved(state: State, service: Body, _: Body) -> Iterable[str]:
    template, model = _template_of(state, service), service["spec"]["model"]
    yield from _must(template is not None, "the template is not there")
    yield from _must(bool(_models(state, model)), "the model is not there")
    same = template is None or template["spec"]["model"] == model
    yield from _must(same, "the template is for another model")


def _template_missing(state: State, service: Body, condition: Body) -> Iterable[str]:
    yield from _must(_template_of(state, service) is None, "the template is there")
    yield from _names(condition, str(service["spec"]["templateRef"]))


def _model_missing(state: State, body: Body, condition: Body) -> Iterable[str]:
    yield from _must(not _models(state, body["spec"]["model"]), "the model is there")
    yield from _names(condition, str(body["spec"]["model"]))


def _config_missing(state: State, body: Body, condition: Body) -> Iterable[str]:
    of_cache = annotation(body, labels.ANNOTATION_CONFIG) or "default"
    name = str(body["spec"]["configRef"]) if body["kind"] == SERVICE.kind else of_cache
    yield from _must(_config(state, body, name) is None, "the config is there")
    yield from _names(condition, name)


def _mismatch(state: State, service: Body, condition: Body) -> Iterable[str]:
    template = _template_of(state, service)
    other = None if template is None else template["spec"]["model"]
    yield from _must(other not in {None, service["spec"]["model"]}, "both are for one model")
    yield from _names(condition, str(other))


def _template_not_ready(state: State, service: Body, condition: Body) -> Iterable[str]:
    template = _template_of(state, service)
    waits = template is not None and _answer(state, template) is None
    yield from _must(waits, "the template has an answer")
    yield from _names(condition, str(service["spec"]["templateRef"]))


def _template_failed(state: State, service: Body, condition: Body) -> Iterable[str]:
    yield from _template_not_ready(state, service, condition)
    template = _template_of(state, service)
    failed = template is not None and (template.get("status") or {}).get("status") == "Failed"
    yield from _must(failed, "the template has not failed")


def _caches_warm(state: State, service: Body, _: Body) -> Iterable[str]:
    """Of a service that is not Resolved, what its InferenceService mounts."""
    if not holds(service, reasons.RESOLVED):
        runtime = _runtime(state, service)
        mounted = (
            set() if runtime is None else claims_of({"spec": runtime["spec"].get("predictor", {})})
        )
        cold = [
            name for name in mounted if not _is_filled(state.get(CLAIM, _namespace(service), name))
        ]
        yield from _must(not cold, f"{', '.join(cold)} is not filled")
        return
    for source in _sources(state, service):
        cache = next(iter(_caches(state, _namespace(service), source)), None)
        if cache is None:
            yield f"there is no cache of {source}"
        else:
            yield from _filled(state, cache, {})


def _cache_missing(state: State, service: Body, _: Body) -> Iterable[str]:
    lacking = [s for s in _sources(state, service) if not _caches(state, _namespace(service), s)]
    yield from _must(bool(lacking), "every source has a cache")


def _cold(state: State, service: Body) -> list[Body]:
    """The caches that count of a service's sources and that are not Available."""
    found = [
        next(iter(_caches(state, _namespace(service), s)), None) for s in _sources(state, service)
    ]
    return [cache for cache in found if cache is not None and not holds(cache, reasons.READY)]


def _cache_warming(state: State, service: Body, _: Body) -> Iterable[str]:
    yield from _must(bool(_cold(state, service)), "every cache is warm")


def _cache_failed(state: State, service: Body, condition: Body) -> Iterable[str]:
    template = _template_of(state, service)
    warmth = {} if template is None else conditions(template).get(reasons.CACHE_WARM, {})
    if warmth.get("reason") in {reasons.WARM_FAILED, reasons.NAME_CONFLICT}:
        return
    failed = [c["metadata"]["name"] for c in _cold(state, service) if holds(c, reasons.FAILURE)]
    yield from _must(bool(failed), "no cache has failed")
    yield from _names(condition, *failed)


def _cache_lost(state: State, service: Body, condition: Body) -> Iterable[str]:
    runtime = _runtime(state, service)
    mounted = (
        set() if runtime is None else claims_of({"spec": runtime["spec"].get("predictor", {})})
    )
    yield from _must(bool(mounted), "nothing mounts a cache")
    lost = [c for c in mounted if not _is_filled(state.get(CLAIM, _namespace(service), c))]
    without_cache = [
        s for s in _sources(state, service) if not _caches(state, _namespace(service), s)
    ]
    yield from _must(
        bool(lost or without_cache), "every claim that is mounted is filled and has its cache"
    )
    known = {str(cache["spec"]["sourceUri"]) for cache in state.all(CACHE, _namespace(service))}
    yield from _names(condition, *_sources(state, service), *known, *mounted)


def _is_filled(claim: Body | None) -> bool:
    return (
        claim is not None
        and bool(annotation(claim, labels.ANNOTATION_FILLED))
        and not is_deleting(claim)
    )


def _uncached(state: State, service: Body, _: Body) -> Iterable[str]:
    runtime = _runtime(state, service)
    if runtime is not None:
        mounted = claims_of({"spec": runtime["spec"].get("predictor", {})})
        yield from _must(not mounted, f"the runtime mounts {', '.join(mounted)}")


def _ready_pods(state: State, service: Body) -> list[Body]:
    pods = state.predictor_pods(service)
    return [pod for pod in pods if holds(pod, reasons.READY) and not is_deleting(pod)]


def _runtime_ready(state: State, service: Body, _: Body) -> Iterable[str]:
    runtime = _runtime(state, service)
    ours = runtime is not None and service["metadata"]["uid"] in owners(runtime)
    yield from _must(ours, "it has no InferenceService")
    yield from _must(bool(_ready_pods(state, service)), "no pod is ready")


def _is_stopped(state: State, service: Body, _: Body) -> Iterable[str]:
    yield from _must(service["spec"]["replicas"] == 0, "replicas is not 0")
    pods = [pod["metadata"]["name"] for pod in state.predictor_pods(service)]
    yield from _must(not pods, f"its pods are there: {', '.join(pods)}")


def _stopped(state: State, service: Body) -> Iterator[str]:
    """Stopping is always carried out."""
    if service["spec"].get("replicas") == 0:
        pods = [pod["metadata"]["name"] for pod in state.predictor_pods(service)]
        runtime = _runtime(state, service)
        if (
            pods
            and runtime is not None
            and not is_deleting(runtime)
            and service["metadata"]["uid"] in owners(runtime)
        ):
            yield f"replicas is 0, but its pods are there: {', '.join(pods)}"


def _runtime_unready(state: State, service: Body, _: Body) -> Iterable[str]:
    """KServe may call it not Ready while pods are: during a roll-out, or below what its strategy
    asks for. Or it is being deleted."""
    runtime = _runtime(state, service)
    ready = runtime is not None and not is_deleting(runtime) and holds(runtime, reasons.READY)
    yield from _must(not (ready and _ready_pods(state, service)), "it is Ready and a pod is ready")


def _runtime_failed(state: State, service: Body, condition: Body) -> Iterable[str]:
    yield from _runtime_unready(state, service, condition)
    pods = [pod["metadata"]["name"] for pod in state.predictor_pods(service)]
    runtime = [service["metadata"]["name"]] if _runtime(state, service) is not None else []
    yield from _names(condition, *pods, *runtime)


def _route_of(state: State, service: Body) -> Body | None:
    return state.get(ROUTE, _namespace(service), service["metadata"]["name"])


def _routing(state: State, service: Body) -> Body | None:
    config = _config(state, service, str(service["spec"]["configRef"]))
    found: Body | None = None if config is None else (config.get("spec") or {}).get("routing")
    return found


def _route_ready(state: State, service: Body, _: Body) -> Iterable[str]:
    route, routing = _route_of(state, service), _routing(state, service)
    if route is None or service["metadata"]["uid"] not in owners(route):
        yield "it has no HTTPRoute"
        return
    yield from _must(bool((route.get("status") or {}).get("parents")), "no gateway has the route")
    expected = ((routing or {}).get("gateway") or {}).get("name")
    parents = [parent.get("name") for parent in route["spec"].get("parentRefs") or ()]
    yield from _must(
        parents == [expected], f"the route is for {parents}, the config has {expected}"
    )
    hosts = route["spec"].get("hostnames")
    yield from _must(not hosts or hosts == [], f"the route has host names {hosts}")


def _route_disabled(state: State, service: Body, _: Body) -> Iterable[str]:
    routing, route = _routing(state, service), _route_of(state, service)
    off = routing is None or routing.get("autoCreateRoute") is False
    yield from _must(off, "the config asks for a route")
    is_absent = route is None or service["metadata"]["uid"] not in owners(route)
    yield from _must(is_absent, "the HTTPRoute is there")


def _route_failed(state: State, service: Body, condition: Body) -> Iterable[str]:
    routing, config = _routing(state, service), str(service["spec"]["configRef"])
    if _config(state, service, config) is None:
        yield from _names(condition, config)
        return
    gateway = ((routing or {}).get("gateway") or {}) or {}
    gateway_found = state.get(GATEWAY, gateway.get("namespace"), str(gateway.get("name")))
    yield from _must(gateway_found is None, f"Gateway {gateway.get('name')} is there")
    yield from _names(condition, str(gateway.get("name")))


def _route_waits(state: State, service: Body, condition: Body) -> Iterable[str]:
    """BackendNotFound is excused until the runtime is up."""
    yield from _must(
        not _ready_pods(state, service) or _names_what_goes(state, condition), "a pod is ready"
    )


def _discovered(state: State, template: Body, _: Body) -> Iterable[str]:
    """A result that a foreign finalizer keeps is still valid."""
    config_map = state.get(
        CONFIG_MAP, _namespace(template), names.discovery_config_map(template["metadata"]["name"])
    )
    yield from _must(config_map is not None and bool(config_map.get("data")), "no answer is kept")
    yield from _must(bool((template.get("status") or {}).get("modelSources")), "no source is named")


def _awaits_discovery(state: State, template: Body, condition: Body) -> Iterable[str]:
    model = next(iter(_models(state, template["spec"]["model"])), None)
    if model is None:
        yield "there is no model"
        return
    yield from _must(_answer(state, template) is None, "there is an answer")
    if _names_what_goes(state, condition):
        return
    jobs = [job["metadata"]["name"] for job in state.owned(template, JOB)]
    image = conditions(model).get(reasons.IMAGE_INSPECTED, {}).get("reason")
    if image != reasons.IMAGE_NOT_FOUND and "running" not in condition.get("message", ""):
        yield from _must(bool(jobs), "no Job is there, and the image is in its registry")


def _discovery_failed(state: State, template: Body, condition: Body) -> Iterable[str]:
    yield from _must(bool((template.get("status") or {}).get("attempts")), "no try is counted")
    model = next(iter(_models(state, template["spec"]["model"])), None)
    yield from _names(condition, str(model["spec"]["image"]) if model else "?", "in progress")


def _template_warm(state: State, template: Body, _: Body) -> Iterable[str]:
    for source in (template.get("status") or {}).get("modelSources") or ():
        cache = next(iter(_caches(state, _namespace(template), source)), None)
        yield from _must(
            cache is not None and holds(cache, reasons.READY), f"{source} is not cached"
        )


def _template_unanswered(state: State, template: Body, _: Body) -> Iterable[str]:
    yield from _must(_answer(state, template) is None, "its image has answered")


def _template_cold(state: State, template: Body, _: Body) -> Iterable[str]:
    warm = [
        (cache := next(iter(_caches(state, _namespace(template), source)), None)) is not None
        and holds(cache, reasons.READY)
        for source in (template.get("status") or {}).get("modelSources") or ()
    ]
    yield from _must(not warm or not all(warm), "every source is cached")


def _claim(state: State, cache: Body) -> Body | None:
    return state.get(CLAIM, _namespace(cache), names.cache_claim(cache["metadata"]["name"]))


def _bound(state: State, cache: Body, _: Body) -> Iterable[str]:
    claim = _claim(state, cache)
    bound = claim is not None and phase(claim) == "Bound" and not is_deleting(claim)
    yield from _must(bound, "the claim is not Bound")


def _filled(state: State, cache: Body, _: Body) -> Iterable[str]:
    yield from _bound(state, cache, {})
    claim = _claim(state, cache)
    marked = claim is not None and annotation(claim, labels.ANNOTATION_FILLED)
    yield from _must(bool(marked), "the claim is not marked as filled")


def _unfilled(state: State, cache: Body, _: Body) -> Iterable[str]:
    claim = _claim(state, cache)
    marked = claim is not None and annotation(claim, labels.ANNOTATION_FILLED)
    yield from _must(not marked or claim is None or is_deleting(claim), "the claim is filled")


def _claim_waits(state: State, cache: Body, condition: Body) -> Iterable[str]:
    """A claim that is being deleted is held by pods, which are named; no other claim waits for
    long."""
    claim = _claim(state, cache)
    if claim is None or not is_deleting(claim):
        return
    pods = [
        pod["metadata"]["name"]
        for pod in state.all(POD, _namespace(cache))
        if claim["metadata"]["name"] in claims_of(pod) and phase(pod) not in {"Succeeded", "Failed"}
    ]
    held = [str(each) for each in claim["metadata"].get("finalizers") or () if each != PROTECTION]
    yield from _must(bool(pods or held), "nothing holds the claim")
    services = [
        service["metadata"]["name"]
        for service in state.all(SERVICE, _namespace(cache))
        if {pod["metadata"]["name"] for pod in state.predictor_pods(service)} & set(pods)
    ]
    yield from _names(condition, *pods, *services, *held)


def _claim_held(state: State, cache: Body, condition: Body) -> Iterable[str]:
    claim = _claim(state, cache)
    yield from _must(claim is not None and is_deleting(claim), "no claim is being deleted")
    yield from _claim_waits(state, cache, condition)


def _class_missing(state: State, cache: Body, condition: Body) -> Iterable[str]:
    claim, spec = _claim(state, cache), cache["spec"]
    config = _config(state, cache, annotation(cache, labels.ANNOTATION_CONFIG) or "default")
    of_config = ((config or {}).get("spec") or {}).get("cacheStorageClassName")
    class_named = spec.get("storageClassName") or of_config
    of_claim = None if claim is None else (claim.get("spec") or {}).get("storageClassName")
    named = [name for name in (class_named, of_claim) if name is not None]
    missing = [str(name) for name in named if state.get(STORAGE_CLASS, None, str(name)) is None]
    yield from _must(bool(missing), "every storage class is there")
    yield from _names(condition, *missing)


def _duplicate(state: State, cache: Body, condition: Body) -> Iterable[str]:
    first = _caches(state, _namespace(cache), cache["spec"]["sourceUri"])[0]
    yield from _must(first["metadata"]["uid"] != cache["metadata"]["uid"], "it is the oldest")
    yield from _names(condition, first["metadata"]["name"])


def _source_missing(_: State, cache: Body, condition: Body) -> Iterable[str]:
    yield from _must("gone" in cache["spec"]["sourceUri"], "the source is there")


def _inspected_or_not(_: State, _body: Body, _condition: Body) -> Iterable[str]:
    """What registries answer is not modelled here."""
    return ()


def _duplicate_name(state: State, model: Body, condition: Body) -> Iterable[str]:
    first = _models(state, model["spec"]["name"])[0]
    yield from _must(first["metadata"]["uid"] != model["metadata"]["uid"], "it is the oldest")
    yield from _names(condition, first["metadata"]["name"])


def _name_taken(state: State, body: Body, condition: Body) -> Iterable[str]:
    """A foreign object has a required name."""
    namespace, name = _namespace(body), body["metadata"]["name"]
    needed = [
        state.get(INFERENCE_SERVICE, namespace, name),
        state.get(ROUTE, namespace, name),
        state.get(CLAIM, namespace, names.cache_claim(name)),
        state.get(CONFIG_MAP, namespace, names.discovery_config_map(name)),
    ]
    taken = [
        obj for obj in needed if obj is not None and body["metadata"]["uid"] not in owners(obj)
    ]
    yield from _must(bool(taken), "no other object has a name that it needs")
    yield from _names(condition, *(str(obj["metadata"]["name"]) for obj in taken))


_JUDGES: dict[tuple[str, str], Judge] = {
    (reasons.RESOLVED, reasons.RESOLVED): _resolved,
    (reasons.RESOLVED, reasons.TEMPLATE_NOT_FOUND): _template_missing,
    (reasons.RESOLVED, reasons.MODEL_NOT_FOUND): _model_missing,
    (reasons.RESOLVED, reasons.RUNTIME_CONFIG_MISSING): _config_missing,
    (reasons.RESOLVED, reasons.VALIDATION_FAILED): _mismatch,
    (reasons.RESOLVED, reasons.TEMPLATE_NOT_READY): _template_not_ready,
    (reasons.RESOLVED, reasons.TEMPLATE_FAILED): _template_failed,
    (reasons.CACHE_READY, reasons.CACHE_NOT_REQUESTED): _uncached,
    (reasons.CACHE_READY, reasons.CACHE_WARM_REASON): _caches_warm,
    (reasons.CACHE_READY, reasons.WAITING_FOR_CACHE): _cache_missing,
    (reasons.CACHE_READY, reasons.CACHE_WARMING): _cache_warming,
    (reasons.CACHE_READY, reasons.CACHE_FAILED): _cache_failed,
    (reasons.CACHE_READY, reasons.CACHE_LOST): _cache_lost,
    (reasons.RUNTIME_READY, reasons.RUNTIME_READY): _runtime_ready,
    (reasons.RUNTIME_READY, reasons.STOPPED): _is_stopped,
    (reasons.RUNTIME_READY, reasons.CREATING_RUNTIME): _runtime_unready,
    (reasons.RUNTIME_READY, reasons.RUNTIME_FAILED): _runtime_failed,
    (reasons.ROUTING_READY, reasons.ROUTE_READY): _route_ready,
    (reasons.ROUTING_READY, reasons.ROUTING_DISABLED): _route_disabled,
    (reasons.ROUTING_READY, reasons.ROUTE_FAILED): _route_failed,
    (reasons.ROUTING_READY, reasons.CONFIGURING_ROUTE): _route_waits,
    (reasons.DISCOVERED, reasons.PROFILES_DISCOVERED): _discovered,
    (reasons.DISCOVERED, reasons.AWAITING_DISCOVERY): _awaits_discovery,
    (reasons.DISCOVERED, reasons.DISCOVERY_FAILED): _discovery_failed,
    (reasons.DISCOVERED, reasons.MODEL_NOT_FOUND): _model_missing,
    (reasons.CACHE_WARM, reasons.WARM): _template_warm,
    (reasons.CACHE_WARM, reasons.WARM_REQUESTED): _template_unanswered,
    (reasons.CACHE_WARM, reasons.WARMING): _template_cold,
    (reasons.CACHE_WARM, reasons.WARM_FAILED): _template_cold,
    (reasons.DISCOVERED, reasons.NAME_CONFLICT): _name_taken,
    (reasons.RUNTIME_READY, reasons.NAME_CONFLICT): _name_taken,
    (reasons.ROUTING_READY, reasons.NAME_CONFLICT): _name_taken,
    (reasons.STORAGE_READY, reasons.NAME_CONFLICT): _name_taken,
    (reasons.STORAGE_READY, reasons.PVC_BOUND): _bound,
    (reasons.STORAGE_READY, reasons.PVC_PENDING): _claim_waits,
    (reasons.STORAGE_READY, reasons.PVC_TERMINATING): _claim_held,
    (reasons.STORAGE_READY, reasons.PVC_PROVISIONING): _claim_waits,
    (reasons.STORAGE_READY, reasons.STORAGE_CLASS_MISSING): _class_missing,
    (reasons.FILLED, reasons.WARM): _filled,
    (reasons.FILLED, reasons.WAITING_FOR_PVC): _claim_waits,
    (reasons.FILLED, reasons.DOWNLOADING): _unfilled,
    (reasons.FILLED, reasons.RUNTIME_CONFIG_MISSING): _config_missing,
    (reasons.FILLED, reasons.SOURCE_NOT_FOUND): _source_missing,
    (reasons.FILLED, reasons.RETRY_BACKOFF): _unfilled,
    (reasons.FILLED, reasons.DOWNLOAD_FAILED): _unfilled,
    (reasons.FILLED, reasons.DUPLICATE_SOURCE): _duplicate,
    (reasons.IMAGE_INSPECTED, reasons.DUPLICATE_NAME): _duplicate_name,
    **{
        (reasons.IMAGE_INSPECTED, reason): _inspected_or_not
        for reason in (
            reasons.INSPECTED,
            reasons.IMAGE_NOT_FOUND,
            reasons.REGISTRY_UNREACHABLE,
            reasons.METADATA_MISSING,
            reasons.AUTH_ERROR,
        )
    },
}
"""By condition type and reason; a reason without a rule is a problem."""


# --- waiting ---


def _has_something_to_wait_for(state: State, body: Body, now: datetime.datetime) -> bool:
    due = (body.get("status") or {}).get("nextAttemptTime")
    if due is not None and parse_timestamp(due) >= now:
        return True
    if any(not _is_done(other, now) for other in _depends_on(state, body)):
        return True
    return any(_is_named(body, pod) for pod in _pods(state, body)) or _names_what_goes(
        state, conditions(body)[reasons.READY]
    )


def _names_what_goes(state: State, condition: Body) -> bool:
    """An object is being deleted but still in use, and the condition's message names it."""
    text = condition.get("message", "")
    deleting = [
        each
        for each in state.objects.values()
        if is_deleting(each) and each["metadata"].get("finalizers")
    ]
    return any(each["metadata"]["name"] in text for each in deleting)


def _depends_on(state: State, body: Body) -> Iterator[Body]:
    """The objects whose change would end a wait of this one."""
    match body["kind"]:
        case "AIMService":
            template = _template_of(state, body)
            if template is not None:
                yield template
            yield from _cold(state, body)
            yield from (pod for pod in state.predictor_pods(body) if not is_deleting(pod))
        case "AIMServiceTemplate":
            yield from _models(state, body["spec"]["model"])[:1]
            for source in (body.get("status") or {}).get("modelSources") or ():
                yield from _caches(state, _namespace(body), source)[:1]


def _pods(state: State, body: Body) -> Iterator[Body]:
    for job in state.owned(body, JOB):
        yield from state.owned(job, POD)


def _is_named(body: Body, pod: Body) -> bool:
    """A pod that cannot start, with the cause in the message: manual action is required."""
    text = conditions(body)[reasons.READY].get("message", "")
    return phase(pod) == "Pending" and str(pod["metadata"]["name"]) in text


def _is_done(other: Body, now: datetime.datetime) -> bool:
    """Whether nothing more is to come of it by itself."""
    if other["kind"] == POD.kind:
        created = parse_timestamp(other["metadata"]["creationTimestamp"])
        return holds(other, "Ready") or (now - created).total_seconds() > START_S
    return holds(other, reasons.READY)


# --- what is left over ---


def orphans(state: State) -> list[str]:
    """AIM objects without an owner, and Jobs with outdated inputs."""
    every = {body["metadata"]["uid"] for body in state.objects.values()}
    found = []
    for kind in (JOB, CLAIM, CONFIG_MAP, INFERENCE_SERVICE, ROUTE):
        for body in state.all(kind):
            ours = (body["metadata"].get("labels") or {}).get(
                labels.MANAGED_BY
            ) == labels.MANAGED_BY_AIM
            if ours and not is_deleting(body) and not set(owners(body)) & every:
                found.append(f"{where(body)} is ours and its owner is deleted")
    return [*found, *_outdated(state), *_abandoned(state)]


def _outdated(state: State) -> Iterator[str]:
    """Discovery Jobs for another image than the model has."""
    for template in state.all(TEMPLATE):
        model = next(iter(_models(state, template["spec"]["model"])), None)
        for job in state.owned(template, JOB):
            image = job["spec"]["template"]["spec"]["containers"][0]["image"]
            if not is_deleting(job) and (model is None or image != model["spec"]["image"]):
                yield f"{where(job)} asks {image}, which no template needs"


def _abandoned(state: State) -> Iterator[str]:
    """A failed cache that AIM created, for a source that no template has."""
    for cache in state.all(CACHE):
        ours = (cache["metadata"].get("labels") or {}).get(
            labels.MANAGED_BY
        ) == labels.MANAGED_BY_AIM
        failed = (cache.get("status") or {}).get("status") == "Failed"
        templates = state.all(TEMPLATE, _namespace(cache))
        in_use = any(
            cache["spec"]["sourceUri"] in ((t.get("status") or {}).get("modelSources") or ())
            for t in templates
        )
        if ours and failed and not in_use and not is_deleting(cache):
            yield f"{where(cache)} failed and no cache requests it"
