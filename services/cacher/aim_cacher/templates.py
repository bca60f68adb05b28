"""The caches that a template requests: create the missing ones, report how warm they are. Pure.

1. A cache belongs to a source, not to a template: the oldest requester chooses its config.
2. An object of another source under the name of a cache is never changed; the condition names it.
"""

from collections.abc import Mapping, Sequence

from aim_cacher.projection import config_of, oldest_requester, oldest_requester_of_source
from aim_cacher.render import cache_for
from aimcontroller.action import ApplyObject, PatchObject
from aimcontroller.plan import Plan, actions, condition, report
from aimcontroller.projection import REJECTED, ApplyRejected, KubeObject, Projection
from aimcontroller.queries import caches_of, discovery_result_of, has_failed
from aimcontroller.removal import removal
from aimschema import labels, names, reasons
from aimschema.discovery_result import SourceModel
from aimschema.messages import ReportedCondition
from aimschema.names import DEFAULT_CONFIG
from aimschema.resources import CACHE, Key

Caches = Mapping[str, KubeObject | None]
"""By source of a template, the cache that counts; None where there is none."""


def plan_template(state: Projection, template: KubeObject) -> Plan:
    """Create the caches that are missing for a template, and report how warm they are."""
    is_warm_requested = bool(template.spec.get("warmCache"))
    answer = discovery_result_of(state, template)
    if answer is None:
        waiting = _not_warm(
            reasons.WARM_REQUESTED, "caching starts once the model's sources are discovered"
        )
        return report(template, waiting) if is_warm_requested else report(template)
    caches: Caches = {
        model.source: next(iter(caches_of(state, template.key.namespace, model.source)), None)
        for model in answer.models
    }
    missing = (
        [model for model in answer.models if caches[model.source] is None]
        if oldest_requester(state, template) is not None
        else []
    )
    conflict = _name_conflict(state, template, missing)
    if conflict is not None:
        return report(template, conflict)
    creates = [_create(state, template, model) for model in missing]
    moves = [
        _change_config(state, template, source, cache)
        for source, cache in caches.items()
        if cache is not None
    ]
    changes = actions(*creates, *(move for move in moves if move is not None))
    rejection: ApplyRejected | None = state.observation(template.key, REJECTED)
    if not is_warm_requested and not _is_permanent(rejection):
        return changes | report(template)
    return changes | report(template, _warmth(state, template, caches, missing, rejection))


def _create(state: Projection, template: KubeObject, model: SourceModel) -> ApplyObject:
    oldest = oldest_requester_of_source(state, template.key.namespace, model.source)
    config = _config_of(template if oldest is None else oldest)
    return ApplyObject(cache_for(template, model.source, model.size_bytes, config))


def _is_permanent(rejection: ApplyRejected | None) -> bool:
    return rejection is not None and not rejection.passes


def _change_config(
    state: Projection, template: KubeObject, source: str, cache: KubeObject
) -> PatchObject | None:
    """A cache that AIM created and that cannot be filled, since its config is missing, takes the
    config of its oldest requester."""
    is_created_by_aim = cache.labels.get(labels.MANAGED_BY) == labels.MANAGED_BY_AIM
    config = config_of(cache, cache.key.namespace)
    is_config_missing = config.name != DEFAULT_CONFIG and state.get(config) is None
    if (
        not is_created_by_aim
        or not is_config_missing
        or cache.is_condition_true(reasons.FILLED)
        or (oldest := oldest_requester_of_source(state, template.key.namespace, source)) is None
        or (name := _config_of(oldest)) == config.name
    ):
        return None
    patch = {"metadata": {"annotations": {labels.ANNOTATION_CONFIG: name}}}
    return PatchObject(cache.key, cache.uid, patch)


def _config_of(requester: KubeObject) -> str:
    """A template names no config."""
    return str(requester.spec.get("configRef", DEFAULT_CONFIG))


def _existing_under_name(state: Projection, template: KubeObject, source: str) -> KubeObject | None:
    """The cache that has the name that a new cache of `source` needs."""
    return state.get(Key(CACHE.kind, template.key.namespace, names.cache_for(source)))


def _name_conflict(
    state: Projection, template: KubeObject, missing: Sequence[SourceModel]
) -> ReportedCondition | None:
    """A cache of another source has the name of a missing one."""
    for model in missing:
        existing = _existing_under_name(state, template, model.source)
        if existing is not None and not existing.deleting:
            message = (
                f"ModelCache {existing.key.name} exists and is for"
                f" {existing.spec.get('sourceUri')}, not for {model.source}; give it another name"
            )
            return _not_warm(reasons.NAME_CONFLICT, message)
    return None


def _warmth(
    state: Projection,
    template: KubeObject,
    caches: Caches,
    missing: Sequence[SourceModel],
    rejection: ApplyRejected | None,
) -> ReportedCondition:
    """CacheWarm; first match wins: rejected, failed, warm, warming."""
    if rejection is not None and _is_permanent(rejection):
        message = (
            f"{rejection.target.kind} {rejection.target.name} is rejected by the API server:"
            f" {rejection.message}"
        )
        return _not_warm(rejection.reason(reasons.WARM_FAILED), message)
    existing = [cache for cache in caches.values() if cache is not None]
    failed = next((cache for cache in existing if has_failed(cache)), None)
    if failed is not None:
        why = (failed.condition(reasons.READY) or {}).get("message", "")
        return _not_warm(reasons.WARM_FAILED, f"ModelCache {failed.key.name} failed: {why}")
    is_warm = len(existing) == len(caches) and all(
        cache.status.get("status") == reasons.AVAILABLE_STATE for cache in existing
    )
    if is_warm:
        message = f"{len(existing)} of {len(caches)} model sources are cached"
        return condition(reasons.CACHE_WARM, True, reasons.WARM, message)
    progress = [f"{cache.key.name} {cache.status.get('progress', '0%')}" for cache in existing]
    blocked = _blocked_by_deletion(state, template, missing)
    detail = ", ".join([*progress, *blocked]) or "caches are being created"
    return _not_warm(reasons.WARMING, detail)


def _blocked_by_deletion(
    state: Projection, template: KubeObject, missing: Sequence[SourceModel]
) -> list[str]:
    """Caches that are being deleted and whose names missing ones need."""
    existing = (_existing_under_name(state, template, model.source) for model in missing)
    return [
        f"{removal(cache)}; it is re-created once it is deleted"
        for cache in existing
        if cache is not None
    ]


def _not_warm(reason: str, message: str) -> ReportedCondition:
    return condition(reasons.CACHE_WARM, False, reason, message)
