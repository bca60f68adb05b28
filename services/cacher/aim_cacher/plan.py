"""Decide the next step for a cache, or for the caches a template asks for. Pure and total; `now` is
aware UTC.

A cache goes through: size found out, claim made, claim bound, download Job, filled. What has been
reached is read off the objects alone, so that it does not matter who was killed in between:

1. The claim's annotation `filled` says that the volume holds the files; a claim made anew lacks it.
2. A Job carries the number of its try and the claim it fills; the try counts once status.attempts
   says so, and only then is the Job deleted.
3. The claim's annotation `tried` says what the last try was made from: other inputs start counting
   anew, at once.
4. A claim that is being deleted waits for no Job of ours that has not started or has ended, and the
   message names who else holds it.
"""

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from aim_cacher.config_warnings import plan_config
from aim_cacher.environment import warn_of_ignored
from aim_cacher.holders import who_holds
from aim_cacher.projection import askers, askers_of, config_of
from aim_cacher.render import (
    CONTAINER,
    Body,
    Making,
    ca_config_map,
    cache_for,
    claim_for,
    download_job,
    fills,
    inputs_with,
    requested,
    size_job,
)
from aim_cacher.view import View, look
from aimcontroller.jobs import DEFAULT_RULES, JobRules
from aimcontroller.plan import (
    NOTHING,
    ApplyObject,
    DeleteObject,
    FollowLog,
    PatchObject,
    Plan,
    act,
    condition,
    look_again,
    report,
    warn_of_contest,
    with_contest,
    with_refusal,
)
from aimcontroller.projection import REFUSED, Projection, Refusal, Seen
from aimcontroller.queries import caches_of, discovered, has_failed
from aimcontroller.removal import is_of_former, of_another, of_former, removal
from aimcontroller.workloads import (
    attempt_of,
    diagnose_job,
    ended_at,
    failure,
    gated_left_s,
    has_not_started,
    is_over,
    job_state,
    last_end,
    outcome,
    over,
    pods_of,
    running,
    was_oom_killed,
)
from aimschema import labels, names, quantities, reasons
from aimschema.credentials import DEFAULT_CONFIG
from aimschema.discovery_result import SourceModel
from aimschema.kinds import CacheSpec
from aimschema.messages import Progress, ReportedCondition, timestamp
from aimschema.resources import CACHE, CLAIM, CONFIG, CONFIG_MAP, JOB, TEMPLATE, Key

FIRST_RETRY_S = 30.0
LONGEST_RETRY_S = 600.0
FAILED_FROM_ATTEMPT = 6
POD_WORD_S = 10.0
"""How long a finished Job's pod is waited for: its last state may come after the Job's."""
MISSING_POD_S = 120.0
"""The same for a Job that succeeded and of which no pod is known: the watch of pods backs off for
up to 30 s at a time, and without the pod's result the revision is unknown for good."""
NO_REVISION = "unknown"
MORE_MEMORY = "raise limits.memory in setting AIM_JOB_RESOURCES of aim-cacher"
FATAL_EXITS = {
    10: reasons.SOURCE_NOT_FOUND,
    11: reasons.AUTH_ERROR,
    12: reasons.INSUFFICIENT_CAPACITY,
    13: reasons.CHECKSUM_MISMATCH,
}
"""Exit codes of the downloader that a retry will hardly mend."""

_FIRST = "; another try follows once the last one has gone: "

PROGRESS = "progress"
"""Topic: how far the download of a cache is, as its log says (a Progress)."""


class DownloaderResult(msgspec.Struct, frozen=True):
    """The downloader's last line and termination message; all of it may be missing."""

    message: str = ""
    bytes: int | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Task:
    """A Job to be tried: the one that is there, what it is made from, how to make the n-th, and
    what to say while it works.

    `needs`: objects that its pod mounts. `stays`: a failed one is kept until the next try is due,
    for nothing else remembers what it was made from.
    """

    job: Seen | None
    inputs: str
    render: Callable[[int], Body]
    working: ReportedCondition
    needs: tuple[ApplyObject, ...] = ()
    stays: bool = False


def plan(
    seen: Projection,
    key: Key,
    now: datetime.datetime,
    *,
    downloader_image: str,
    rules: JobRules = DEFAULT_RULES,
    ca: str = "",
) -> Plan:
    """`ca`: certificates in PEM form that the Jobs trust beside the public ones."""
    present = seen.get(key)
    if present is None or present.deleting or not present.has_spec:
        return NOTHING
    if key.kind == TEMPLATE.kind:
        return plan_template(seen, present)
    if key.kind == CONFIG.kind:
        return plan_config(seen, present, now)
    found = plan_cache(seen, present, now, Making(downloader_image, rules, ca))
    return warn_of_ignored(CacheSpec.model_validate(present.spec).env, found)


def plan_template(seen: Projection, template: Seen) -> Plan:
    """Make the caches that are missing for a template, and say how warm they are."""
    warm = bool(template.spec.get("warmCache"))
    found = discovered(seen, template)
    if found is None:
        waiting = condition(
            reasons.CACHE_WARM,
            False,
            reasons.WARM_REQUESTED,
            "caching starts once the model's sources are discovered",
        )
        return report(template, waiting) if warm else report(template)
    have = {
        model.source: next(iter(caches_of(seen, template.key.namespace, model.source)), None)
        for model in found.models
    }
    asked = [
        model for model in found.models if have[model.source] is None and askers(seen, template)
    ]
    taken = _name_taken(seen, template, [model.source for model in asked])
    if taken is not None:
        return report(template, taken)
    missing = [
        ApplyObject(
            cache_for(
                template,
                model.source,
                model.size_bytes,
                _first_config(seen, template, model.source),
            )
        )
        for model in asked
    ]
    refusal: Refusal | None = seen.learned(template.key, REFUSED)
    moved = [
        _move_config(seen, template, source, cache)
        for source, cache in have.items()
        if cache is not None
    ]
    said = (
        report(template, _warmth(have, _going(seen, template, asked), refusal))
        if warm or _is_rejected(refusal)
        else report(template)
    )
    return act(*missing, *(move for move in moved if move is not None)) | said


def _is_rejected(refusal: Refusal | None) -> bool:
    return refusal is not None and not refusal.passes


def _move_config(seen: Projection, template: Seen, source: str, cache: Seen) -> PatchObject | None:
    """A cache of ours that cannot be filled, since its config is missing, takes the one that who
    asks for it first names now."""
    made = cache.labels.get(labels.MANAGED_BY) == labels.MANAGED_BY_AIM
    config = config_of(cache, cache.key.namespace)
    missing = config.name != DEFAULT_CONFIG and seen.get(config) is None
    if (
        not made
        or not missing
        or cache.holds(reasons.FILLED)
        or not askers_of(seen, template.key.namespace, source)
    ):
        return None
    named = _first_config(seen, template, source)
    return (
        None
        if named == config.name
        else PatchObject(
            cache.key, cache.uid, {"metadata": {"annotations": {labels.ANNOTATION_CONFIG: named}}}
        )
    )


def _name_taken(seen: Projection, template: Seen, missing: list[str]) -> ReportedCondition | None:
    """A cache of another source has the name that ours would get."""
    for source in missing:
        there = seen.get(Key(CACHE.kind, template.key.namespace, names.cache_for(source)))
        if there is not None and not there.deleting:
            other = (
                f"ModelCache {there.key.name} exists and is for {there.spec.get('sourceUri')}, not"
                f" for {source}; give it another name"
            )
            return condition(reasons.CACHE_WARM, False, reasons.NAME_CONFLICT, other)
    return None


def _first_config(seen: Projection, template: Seen, source: str) -> str:
    """The config of who asked for a source first; a template names none."""
    return str(
        askers_of(seen, template.key.namespace, source)[0].spec.get("configRef", DEFAULT_CONFIG)
    )


def _going(seen: Projection, template: Seen, asked: list[SourceModel]) -> list[str]:
    """Caches that are being deleted, of which others take the names."""
    there = (
        seen.get(Key(CACHE.kind, template.key.namespace, names.cache_for(model.source)))
        for model in asked
    )
    return [
        f"{removal(cache)}; it is created again once it is gone"
        for cache in there
        if cache is not None
    ]


def _warmth(
    have: dict[str, Seen | None], going: list[str], refusal: Refusal | None
) -> ReportedCondition:
    """`going`: what is in the way of caches that are missing."""
    if refusal is not None and not refusal.passes:
        words = (
            f"{refusal.target.kind} {refusal.target.name} is rejected by the API server:"
            f" {refusal.message}"
        )
        return condition(reasons.CACHE_WARM, False, refusal.reason(reasons.WARM_FAILED), words)
    caches = [cache for cache in have.values() if cache is not None]
    failed = [cache for cache in caches if has_failed(cache)]
    if failed:
        why = (failed[0].condition(reasons.READY) or {}).get("message", "")
        return condition(
            reasons.CACHE_WARM,
            False,
            reasons.WARM_FAILED,
            f"ModelCache {failed[0].key.name} failed: {why}",
        )
    if len(caches) == len(have) and all(
        cache.status.get("status") == reasons.AVAILABLE_STATE for cache in caches
    ):
        return condition(
            reasons.CACHE_WARM,
            True,
            reasons.WARM,
            f"{len(caches)} of {len(have)} model sources are cached",
        )
    known = [f"{cache.key.name} {cache.status.get('progress', '0%')}" for cache in caches]
    detail = ", ".join([*known, *going]) or "caches are being created"
    return with_refusal(condition(reasons.CACHE_WARM, False, reasons.WARMING, detail), refusal)


def plan_cache(seen: Projection, cache: Seen, now: datetime.datetime, making: Making) -> Plan:
    """First match wins: no longer wanted, not the one that counts, no size yet, volume, files."""
    view = look(seen, cache, making.ca)
    first = caches_of(seen, cache.key.namespace, str(cache.spec["sourceUri"]))[0]
    if _unasked(seen, cache) and (has_failed(cache) or first.key != cache.key):
        return act(DeleteObject(cache.key, cache.uid)) | (
            _repeat(view) if view.refusal is not None else NOTHING
        )
    if first.key != cache.key:
        other = (
            f"ModelCache {first.key.name} is older and has the same source, so this one is not"
            " filled; delete one of them"
        )
        duplicate = condition(reasons.FILLED, False, reasons.DUPLICATE_SOURCE, other)
        return _delete(*seen.owned(cache.uid, JOB.kind, cache.key.namespace)) | report(
            cache, with_refusal(duplicate, seen.learned(cache.key, REFUSED))
        )
    for there in (view.claim, view.download, view.size):
        if there is not None and cache.uid not in there.owners:
            return _foreign(seen, view, now, there)
    if view.claim is None and view.config_missing is not None:
        unknown = condition(reasons.STORAGE_READY, False, reasons.PVC_PENDING, view.config_missing)
        return _say(
            view, unknown, _filled(False, reasons.RUNTIME_CONFIG_MISSING, view.config_missing)
        )
    size = view.spec.size if view.spec.size is not None else _probed(seen, view)
    if view.claim is None and size is None:
        return _find_size(seen, view, now, making)
    return _fill(seen, view, now, making, size or 0)


def _delete(*objects: Seen | None) -> Plan:
    """Those that are there and not being deleted yet."""
    return act(
        *(
            DeleteObject(each.key, each.uid)
            for each in objects
            if each is not None and not each.deleting
        )
    )


def _repeat(view: View) -> Plan:
    """What was reported last, with what the API server rejects."""
    return report(
        view.cache, *(with_refusal(each, view.refusal) for each in view.said), **_fields(view)
    )


def _foreign(seen: Projection, view: View, now: datetime.datetime, there: Seen) -> Plan:
    """Something of a name we need is not ours; what a former cache of this name left goes by
    itself."""
    follow_up = NOTHING
    if not is_of_former(view.cache, there):
        words, reason = of_another(view.cache, there), reasons.NAME_CONFLICT
    elif there.deleting and there.key.kind == CLAIM.kind:
        held = who_holds(seen, there, now)
        words = (
            f"volume claim {there.key.name} of the former ModelCache {view.cache.key.name} is being"
            f" deleted, {held.words}"
        )
        reason, follow_up = (
            reasons.PVC_TERMINATING if held.lasts else reasons.PVC_PENDING,
            held.follow_up,
        )
    else:
        words, reason = of_former(view.cache, there), reasons.PVC_PENDING
    storage = condition(reasons.STORAGE_READY, False, reason, words)
    return report(view.cache, storage, _filled(False, reasons.WAITING_FOR_PVC, words)) | follow_up


def _unasked(seen: Projection, cache: Seen) -> bool:
    """A cache that we made and that nobody asks for any more. While an image is asked again, its
    last answer still counts."""
    made = cache.labels.get(labels.MANAGED_BY) == labels.MANAGED_BY_AIM
    return made and not askers_of(seen, cache.key.namespace, str(cache.spec["sourceUri"]))


def _needs(view: View) -> tuple[ApplyObject, ...]:
    """What the Jobs of a cache mount besides its claim."""
    return (ApplyObject(ca_config_map(view.cache, view.ca)),) if view.ca else ()


def _find_size(seen: Projection, view: View, now: datetime.datetime, making: Making) -> Plan:
    storage = condition(
        reasons.STORAGE_READY,
        False,
        reasons.PVC_PENDING,
        "the size of the source is being found out",
    )
    waiting = _filled(False, reasons.WAITING_FOR_PVC, "finding out how large the source is")
    inputs = view.inputs
    task = Task(
        view.size,
        inputs,
        lambda attempt: size_job(view.cache, making, view.env, inputs, attempt),
        waiting,
        _needs(view),
        stays=True,
    )
    return _try(seen, view, now, storage, task)


def _probed(seen: Projection, view: View) -> str | None:
    """Size for the volume, as a finished probe found it."""
    if view.size is None or outcome(seen, view.size, CONTAINER) != "succeeded":
        return None
    found = _result(seen, view.size)
    return None if found.bytes is None else quantities.with_headroom(found.bytes)


def _fill(
    seen: Projection, view: View, now: datetime.datetime, making: Making, size: str | int
) -> Plan:
    """The volume, then the files on it. Once there is a claim, nobody needs the Job that finds
    the size."""
    return (_delete(view.size) if view.claim is not None else NOTHING) | _volume(
        seen, view, now, making, size
    )


def _volume(
    seen: Projection, view: View, now: datetime.datetime, making: Making, size: str | int
) -> Plan:
    download = view.download
    annotations = dict(view.claim.annotations) if view.claim is not None else {}
    kept = {
        name: value
        for name, value in annotations.items()
        if name in {labels.ANNOTATION_FILLED, labels.ANNOTATION_TRIED}
    }
    storage = with_contest(
        seen,
        Key(CLAIM.kind, view.cache.key.namespace, names.cache_claim(view.cache.key.name)),
        _storage(view, size),
    )
    if view.claim is None:
        return act(ApplyObject(claim_for(view.cache, None, size, view.wanted_class, {}))) | _say(
            view, storage, _filled(False, reasons.WAITING_FOR_PVC, storage.message)
        )
    if view.claim.deleting:
        return _await_removal(seen, view, now, view.claim)
    if _misplaced(view):
        return _delete(view.claim) | _say(
            view, storage, _filled(False, reasons.WAITING_FOR_PVC, storage.message), progress=None
        )
    if view.filled_revision is not None:
        warm = warn_of_contest(seen, view.claim.key, _warm(seen, view, storage))
        return act(ApplyObject(claim_for(view.cache, view.claim, size, None, kept))) | warm
    if (
        download is not None
        and outcome(seen, download, CONTAINER) == "succeeded"
        and fills(download, view.claim)
    ):
        if not _settled(seen, download, now):
            return _say(view, storage, _last(view) or _downloading(seen, view)) | look_again(
                POD_WORD_S
            )
        kept[labels.ANNOTATION_FILLED] = _result(seen, download).revision or NO_REVISION
        marking = _filled(
            False, reasons.VERIFYING, "the files are there and checked; the volume is being marked"
        )
        verifying = _say(view, storage, marking, **_facts(seen, view))
        return act(ApplyObject(claim_for(view.cache, view.claim, size, None, kept))) | verifying
    if not _mountable(view):
        return _say(view, storage, _filled(False, reasons.WAITING_FOR_PVC, storage.message))
    kept[labels.ANNOTATION_TRIED] = view.inputs
    starts = act(ApplyObject(claim_for(view.cache, view.claim, size, None, kept)))
    inputs = inputs_with(view.inputs, view.claim)
    task = Task(
        download,
        inputs,
        lambda attempt: download_job(view.cache, making, view.env, inputs, attempt),
        _downloading(seen, view),
        _needs(view),
    )
    tried = warn_of_contest(seen, view.claim.key, _try(seen, view, now, storage, task))
    return (
        starts | tried
        if any(isinstance(action, ApplyObject) for action in tried.actions)
        else tried
    )


def _storage(view: View, size: str | int) -> ReportedCondition:
    claim, name = view.claim, names.cache_claim(view.cache.key.name)
    wanted = view.wanted_class if claim is None else claim.spec.get("storageClassName")
    if (
        view.refusal is not None
        and view.refusal.target.kind == CLAIM.kind
        and (claim is None or not view.refusal.passes)
    ):
        refused = f"volume claim {name} is refused: {view.refusal.message}; tried again soon"
        return condition(
            reasons.STORAGE_READY, False, view.refusal.reason(reasons.PVC_PENDING), refused
        )
    if (claim is None or claim.status.get("phase") != "Bound") and view.storage_class is None:
        missing = (
            f"storage class {wanted} does not exist"
            if wanted
            else "no storage class is named and the cluster has no default one"
        )
        return condition(
            reasons.STORAGE_READY,
            False,
            reasons.STORAGE_CLASS_MISSING,
            f"{missing}; create it, or name another in spec.storageClassName or the config's"
            " cacheStorageClassName",
        )
    if claim is None:
        return condition(
            reasons.STORAGE_READY,
            False,
            reasons.PVC_PENDING,
            f"volume claim {name} is being created",
        )
    match claim.status.get("phase"):
        case "Lost":
            return condition(
                reasons.STORAGE_READY,
                False,
                reasons.PVC_LOST,
                f"volume claim {name} lost its volume; delete ModelCache {view.cache.key.name} to"
                " start over",
            )
        case "Bound":
            has = requested(claim)
            if (
                view.spec.size is not None
                and has is not None
                and quantities.parse(view.spec.size) > quantities.parse(has)
            ):
                grow = (
                    f"spec.size is {view.spec.size} but volume claim {name} has {has}: expand the"
                    " claim, or delete the cache and make it anew"
                )
                return condition(reasons.STORAGE_READY, False, reasons.INSUFFICIENT_CAPACITY, grow)
            return condition(
                reasons.STORAGE_READY,
                True,
                reasons.PVC_BOUND,
                f"volume claim {name} ({has or size}) is bound",
            )
        case _:
            return condition(
                reasons.STORAGE_READY,
                False,
                reasons.PVC_PROVISIONING,
                f"volume claim {name} is waiting for its volume: kubectl describe pvc {name}",
            )


def _await_removal(seen: Projection, view: View, now: datetime.datetime, claim: Seen) -> Plan:
    """A claim that is being deleted: our own Job lets go of it where it has not started or has
    ended; who else holds it is named."""
    job = view.download
    lets_go = job is not None and (
        outcome(seen, job, CONTAINER) != "active" or has_not_started(seen, job, now)
    )
    going = [job] if job is not None and lets_go else []
    held = who_holds(seen, claim, now, going)
    reason = reasons.PVC_TERMINATING if held.lasts else reasons.PVC_PENDING
    storage = condition(
        reasons.STORAGE_READY,
        False,
        reason,
        f"volume claim {claim.key.name} is being deleted, {held.words}",
    )
    said = _say(
        view, storage, _filled(False, reasons.WAITING_FOR_PVC, storage.message), progress=None
    )
    return _delete(*going) | said | held.follow_up


def _misplaced(view: View) -> bool:
    """A claim that never got a volume, while a new one would have a class that exists, and
    another than this one."""
    claim = view.claim
    if (
        claim is None
        or claim.status.get("phase") not in {None, "Pending"}
        or claim.spec.get("volumeName")
        or view.class_of_new is None
    ):
        return False
    return view.storage_class is None or view.wanted_class not in {
        None,
        claim.spec.get("storageClassName"),
    }


def _mountable(view: View) -> bool:
    """Bound, or waiting for a pod that mounts it."""
    if view.claim is None or view.claim.deleting:
        return False
    waits_for_pod = (
        view.storage_class is not None
        and view.storage_class.body.get("volumeBindingMode") == "WaitForFirstConsumer"
    )
    phase = view.claim.status.get("phase")
    return phase == "Bound" or (phase == "Pending" and waits_for_pod)


def _facts(seen: Projection, view: View) -> dict[str, Any]:
    """What the download that filled the volume said of it, as long as its Job is there: until it
    is on the object, a report alone may be lost."""
    if view.download is None or view.claim is None or not fills(view.download, view.claim):
        return {}
    if outcome(seen, view.download, CONTAINER) != "succeeded":
        return {}
    found = _result(seen, view.download)
    facts = {"sizeBytes": found.bytes, "revision": found.revision or None}
    return {name: value for name, value in facts.items() if value is not None}


def _warm(seen: Projection, view: View, storage: ReportedCondition) -> Plan:
    """The volume is marked as filled. Its Job goes once the status on the object says so."""
    facts = _facts(seen, view)
    revision = None if view.filled_revision == NO_REVISION else view.filled_revision
    size = facts.get("sizeBytes", view.kept.get("sizeBytes"))
    how_much = (quantities.human(size) if size is not None else "all files") + (
        f" at revision {revision}" if revision is not None else ""
    )
    lost = view.claim is not None and view.claim.status.get("phase") == "Lost"
    filled = (
        _filled(False, reasons.PVC_LOST, storage.message)
        if lost
        else _filled(True, reasons.WARM, how_much)
    )
    changed = facts | {
        "progress": "100%",
        "revision": revision,
        "attempts": 0,
        "nextAttemptTime": None,
    }
    said = _say(view, storage, filled, **changed)
    return said | (_delete(view.download) if view.cache.holds(reasons.FILLED) else NOTHING)


def _try(
    seen: Projection, view: View, now: datetime.datetime, storage: ReportedCondition, task: Task
) -> Plan:
    """One step of a Job that is tried until it succeeds; one that succeeded with a usable answer
    is the caller's."""
    job = task.job
    if job is None:
        return _next_try(view, now, storage, task)
    if job.deleting:
        return _say(view, storage, _held_back(_last(view) or task.working, job))
    active = outcome(seen, job, CONTAINER) == "active"
    outdated = job.annotations.get(labels.ANNOTATION_INPUTS) != task.inputs
    left_s = gated_left_s(seen, job, now) if active else None
    if left_s is not None and left_s <= 0:
        return act(DeleteObject(job.key, job.uid)) | _say(
            view, storage, _last(view) or task.working
        )
    if outdated and (not active or has_not_started(seen, job, now)):
        return act(DeleteObject(job.key, job.uid)) | _say(
            view, storage, task.working, attempts=0, nextAttemptTime=None
        )
    if active:
        followed = [
            FollowLog(pod.key, pod.uid, CONTAINER, view.cache.key)
            for pod in pods_of(seen, job)
            if running(pod)
        ]
        diagnosis = diagnose_job(seen, job, now, CONTAINER)
        working = (
            task.working
            if diagnosis.message is None
            else _filled(False, task.working.reason, diagnosis.message)
        )
        said = (
            _say(view, storage, working, progress=_percent(seen, view))
            | act(*followed)
            | diagnosis.follow_up
        )
        return said if left_s is None else said | look_again(left_s)
    if not _settled(seen, job, now):
        return _say(view, storage, _last(view) or task.working) | look_again(POD_WORD_S)
    said, due, recorded = _failed_try(seen, view, now, storage, job)
    if recorded and task.stays and now < due:
        return said | look_again((due - now).total_seconds())
    return said | (act(DeleteObject(job.key, job.uid)) if recorded else NOTHING)


def _settled(seen: Projection, job: Seen, now: datetime.datetime) -> bool:
    """Whether a finished Job's pod has said how it ended, or need not be waited for any longer.

    The pod of a Job that succeeded has ended, whatever is known of it: its news is late.
    """
    if is_over(seen, job, CONTAINER):
        return True
    pods, succeeded = pods_of(seen, job), job_state(job) == "succeeded"
    if succeeded and any(not over(pod) and not pod.deleting for pod in pods):
        return False
    finished = ended_at(seen, job, CONTAINER)
    wait_s = MISSING_POD_S if succeeded and not pods else POD_WORD_S
    return finished is None or (now - finished).total_seconds() >= wait_s


def _next_try(view: View, now: datetime.datetime, storage: ReportedCondition, task: Task) -> Plan:
    if view.config_missing is not None:
        return _say(
            view, storage, _filled(False, reasons.RUNTIME_CONFIG_MISSING, view.config_missing)
        )
    due = view.next_try
    if due is not None and now < due:
        return _say(view, storage, _last(view) or task.working) | look_again(
            (due - now).total_seconds()
        )
    starts = act(*task.needs, ApplyObject(task.render(view.attempts + 1)))
    working = task.working
    if view.refusal is not None and view.refusal.target.kind in {JOB.kind, CONFIG_MAP.kind}:
        what = (
            "the Job"
            if view.refusal.target.kind == JOB.kind
            else f"ConfigMap {view.refusal.target.name} for the Job"
        )
        working = _filled(
            False,
            view.refusal.reason(working.reason),
            f"{what} cannot be created: {view.refusal.message}",
        )
    return starts | _say(view, storage, working, attempts=view.attempts, nextAttemptTime=None)


def _failed_try(
    seen: Projection, view: View, now: datetime.datetime, storage: ReportedCondition, job: Seen
) -> tuple[Plan, datetime.datetime, bool]:
    """How the try ended and when the next is; whether that is on the object, so that the Job may
    go."""
    attempt = attempt_of(job)
    found, result = last_end(seen, job, CONTAINER), _result(seen, job)
    reason, wait_s = verdict(None if found is None else found[1].exit_code, attempt)
    due = (ended_at(seen, job, CONTAINER) or now) + datetime.timedelta(seconds=wait_s)
    words = failure(seen, job, CONTAINER, "the downloader", result.message)
    if was_oom_killed(seen, job, CONTAINER):
        words += f"; {MORE_MEMORY}"
    if reason == reasons.INSUFFICIENT_CAPACITY:
        words += _way_to_more_space(view, result)
    filled = _filled(False, reason, f"try {attempt}: {words}; next try at {timestamp(due)}")
    said = _say(view, storage, filled, attempts=attempt, nextAttemptTime=timestamp(due))
    return said, due, int(view.cache.status.get("attempts", 0)) == attempt


def _way_to_more_space(view: View, result: DownloaderResult) -> str:
    """Both sizes, as far as they are known, and what to do."""
    source = "" if result.bytes is None else f"the source has {quantities.human(result.bytes)}, "
    claim = (
        ""
        if view.claim is None
        else f"volume claim {view.claim.key.name} has {requested(view.claim)}: "
    )
    return (
        f"; {source}{claim}expand the claim, or delete the cache and make it anew with a larger"
        " spec.size"
    )


def verdict(exit_code: int | None, attempt: int) -> tuple[str, float]:
    """Reason and seconds to the next try of a download that ended with this code (None: killed)
    at this try."""
    if exit_code in FATAL_EXITS:
        return FATAL_EXITS[exit_code], LONGEST_RETRY_S
    wait_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2 ** min(attempt - 1, 20))
    return (
        (reasons.RETRY_BACKOFF, wait_s)
        if attempt < FAILED_FROM_ATTEMPT
        else (reasons.DOWNLOAD_FAILED, LONGEST_RETRY_S)
    )


def _result(seen: Projection, job: Seen) -> DownloaderResult:
    """The downloader's own words from its pod's termination message."""
    found = last_end(seen, job, CONTAINER)
    if found is None:
        return DownloaderResult()
    message = found[1].message
    try:
        return msgspec.json.decode(message, type=DownloaderResult)
    except (msgspec.DecodeError, RecursionError):
        return DownloaderResult(message=message.strip().rsplit("\n", 1)[-1])


def _progress(seen: Projection, view: View) -> Progress | None:
    found: Progress | None = seen.learned(view.cache.key, PROGRESS)
    return found


def _percent(seen: Projection, view: View) -> str | None:
    progress = _progress(seen, view)
    return (
        None
        if progress is None or not progress.total
        else f"{100 * progress.bytes // progress.total}%"
    )


def _downloading(seen: Projection, view: View) -> ReportedCondition:
    progress = _progress(seen, view)
    if progress is None or not progress.total:
        return _filled(False, reasons.DOWNLOADING, f"downloading {view.spec.source_uri}")
    there = f"{quantities.human(progress.bytes)} of {quantities.human(progress.total)}"
    if progress.phase == "verifying":
        return _filled(False, reasons.VERIFYING, f"checking {there}")
    left = "" if progress.seconds_left is None else f", {progress.seconds_left:.0f} s left"
    return _filled(
        False, reasons.DOWNLOADING, f"{there} at {quantities.human(progress.rate)}/s{left}"
    )


def _filled(status: bool, reason: str, message: str) -> ReportedCondition:
    return condition(reasons.FILLED, status, reason, message)


def _last(view: View) -> ReportedCondition | None:
    """Filled as last reported, without what a Job that was in the way waited for."""
    last = next((said for said in view.said if said.type == reasons.FILLED), None)
    return (
        None
        if last is None
        else msgspec.structs.replace(last, message=last.message.partition(_FIRST)[0])
    )


def _held_back(said: ReportedCondition, job: Seen) -> ReportedCondition:
    """A Job that goes is worth a word only where a finalizer keeps it."""
    held = bool(job.body["metadata"].get("finalizers"))
    return _filled(False, said.reason, f"{said.message}{_FIRST}{removal(job)}") if held else said


def _say(view: View, storage: ReportedCondition, filled: ReportedCondition, **fields: Any) -> Plan:
    return report(
        view.cache, storage, with_refusal(filled, view.refusal), **_fields(view, **fields)
    )


def _fields(view: View, **changed: Any) -> dict[str, Any]:
    """Status fields as last said, with what changed; None takes one out. Tries that were made
    from other inputs count no longer."""
    claim = None if view.claim is None else view.claim.key.name
    kept = dict(view.kept)
    if not view.tried_before:
        kept |= {"nextAttemptTime": None} | ({"attempts": 0} if kept.get("attempts") else {})
    return {**kept, "persistentVolumeClaim": claim, "size": view.volume_size, **changed}
