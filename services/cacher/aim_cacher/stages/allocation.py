"""A cache whose claim can be created: at once, or when the quotas admit it. Pure.

While a quota holds it back, the caches that make room for it are marked for eviction.
"""

from aim_cacher.actions import CreateClaim
from aim_cacher.cache_use import caching_of, why_kept
from aim_cacher.passed_labels import with_passed_labels
from aim_cacher.render import Body, claim_for
from aim_cacher.reporting import filled_condition, report_cache, storage_not_ready
from aim_cacher.stages.eviction import mark
from aim_cacher.stages.storage import await_volume
from aim_cacher.storage_quota import Storage, Verdict, claims_of_caches, held_bytes
from aim_cacher.view import CacheView
from aimcontroller.action import ApplyObject
from aimcontroller.plan import Plan, actions, requeue_after
from aimcontroller.projection import KubeObject
from aimschema import quantities, reasons
from aimschema.resources import CACHE, Key

WAIT_S = 60.0
"""When a waiter is reconciled without an event at the latest."""
MOST_NAMED = 3


def create_claim(view: CacheView) -> Plan:
    key = view.cache.key
    size = view.claim_size or 0
    rendered = claim_for(view.cache, None, size, view.desired_class, {}, view.access_mode)
    claim = with_passed_labels(rendered, view.passed_labels)
    storage = Storage(view.state, view.now, view.options, asking=key)
    verdict = storage.verdict(key)
    if verdict is None:
        return actions(ApplyObject(claim)) | await_volume(view)
    if verdict.is_admitted:
        return actions(_within_quotas(view, claim)) | await_volume(view)
    return _wait(view, verdict)


def _within_quotas(view: CacheView, claim: Body) -> CreateClaim:
    quota = caching_of(view.state, view.cache.key.namespace).quota
    limit_bytes = None if quota is None else quantities.parse(quota)
    claims = claims_of_caches(view.state, None)
    namespaces = {str(each.key.namespace) for each in claims} | {str(view.cache.key.namespace)}
    return CreateClaim(claim, limit_bytes, view.options.quota_bytes, tuple(sorted(namespaces)))


def _wait(view: CacheView, verdict: Verdict) -> Plan:
    key = view.cache.key
    victims = [view.state.get(each) for each in sorted(verdict.allocation.victims)]
    marks = (mark(each, view.now) for each in victims if each is not None)
    if verdict.is_served(key):
        message = f"waiting for storage: {_room(view, verdict)}"
        files = filled_condition(False, reasons.WAITING_FOR_PVC, message)
    else:
        message = _excess_message(view, verdict)
        files = filled_condition(False, reasons.QUOTA_EXCEEDED, message)
    storage = storage_not_ready(reasons.PVC_PENDING, message)
    reported = report_cache(view, storage, files) | requeue_after(WAIT_S)
    return actions(*(each for each in marks if each is not None)) | reported


def _room(view: CacheView, verdict: Verdict) -> str:
    """What makes room for the cache, of its own namespace."""
    namespace = view.cache.key.namespace
    named = sorted(each.name for each in verdict.allocation.victims if each.namespace == namespace)
    if named:
        return f"ModelCache {_few(named)} is not used and is being evicted"
    older = _older(view, verdict)
    return older or "storage of deleted caches is being freed"


def _excess_message(view: CacheView, verdict: Verdict) -> str:
    scope = verdict.scope
    where = (
        "setting AIM_CACHE_QUOTA of aim-cacher"
        if scope.namespace is None
        else "spec.caching.quota of AIMNamespaceConfig default"
    )
    asked_bytes = quantities.parse(view.claim_size or 0)
    counts = (
        f"{where} is {amount(scope.limit_bytes)}, {amount(scope.used_bytes)} are used and"
        f" {amount(asked_bytes)} are asked for"
    )
    if asked_bytes > scope.limit_bytes:
        return f"{counts}, more than the whole quota; raise the quota"
    parts = [counts, _older(view, verdict), _holders(view, verdict)]
    remedy = "raise the quota, delete services that are not needed, or delete caches"
    return "; ".join([*(part for part in parts if part), remedy])


def _older(view: CacheView, verdict: Verdict) -> str:
    """The waiter that comes first, if it is another."""
    first = next(iter(verdict.scope.queue), None)
    if first is None or first.key == view.cache.key:
        return ""
    if first.key.namespace != view.cache.key.namespace:
        return "an older cache of another namespace waits first"
    return f"the older ModelCache {first.key.name} waits first"


def _holders(view: CacheView, verdict: Verdict) -> str:
    """The largest caches of the own namespace, and why they stay; of others only the storage."""
    namespace = view.cache.key.namespace
    claims = sorted(
        claims_of_caches(view.state, namespace),
        key=lambda claim: (-held_bytes(claim), claim.key.name),
    )
    named = [_holder(view, claim) for claim in claims[:MOST_NAMED]]
    named += [f"{len(claims) - MOST_NAMED} more"] if len(claims) > MOST_NAMED else []
    others_bytes = verdict.scope.used_bytes - sum(map(held_bytes, claims))
    if others_bytes > 0:
        named.append(f"other namespaces ({amount(others_bytes)})")
    return f"held by {', '.join(named)}" if named else ""


def _holder(view: CacheView, claim: KubeObject) -> str:
    owner = claim.owner(CACHE.kind) or Key(CACHE.kind, claim.key.namespace, claim.key.name)
    cache = view.state.get(owner)
    if cache is None or cache.deleting or claim.deleting:
        return f"{owner.name} ({amount(held_bytes(claim))}, being deleted)"
    why = why_kept(view.state, cache) or "not used"
    return f"{owner.name} ({amount(held_bytes(claim))}, {why})"


def _few(named: list[str]) -> str:
    more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return ", ".join(named[:MOST_NAMED]) + more


def amount(size_bytes: int) -> str:
    """In Gi, as sizes of claims are written."""
    return f"{size_bytes / quantities.GI:.4g}Gi"
