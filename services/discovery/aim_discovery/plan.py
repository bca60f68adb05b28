"""Decide the next step for a template's discovery (for a catalogue entry: see catalogue). Pure and
total; `now` is aware UTC.

1. An answer is kept in the template's ConfigMap with the inputs it is valid for; for the same
   inputs it is never asked again.
2. An older answer stays in force until a newer one is there.
3. A Job carries the number of its try; the try counts once status.attempts says so, and only then
   is the Job deleted.
4. Tries after a failure wait, unless what a try is made from has changed since the last (annotation
   `tried`).
5. From the first failure on the condition says so until an answer is there, also while the next try
   is at work.
6. Discovery does not wait for the image's inspection; only an image that is not in its registry is
   not asked.
"""

import datetime
from dataclasses import dataclass
from typing import Any

from aim_discovery.catalogue import missing_image, plan_model, unsupported
from aim_discovery.dry_run_output import ReadLogResult
from aim_discovery.render import CONTAINER, discovery_job, inputs_of, result_config_map, result_data
from aim_discovery.turns import UNSTARTED_COUNTS_S, in_the_way
from aimcontroller.jobs import DEFAULT_RULES, JobRules
from aimcontroller.plan import (
    MESSAGE_LENGTH,
    NOTHING,
    ApplyObject,
    DeleteObject,
    Plan,
    ReadLog,
    act,
    condition,
    look_again,
    repeated,
    report,
    warning,
    with_refusal,
)
from aimcontroller.projection import CONTESTED, REFUSED, Projection, Refusal, Seen
from aimcontroller.queries import models_named
from aimcontroller.removal import is_of_former, of_another, of_former, removal
from aimcontroller.workloads import (
    HELD_BACK,
    attempt_of,
    diagnose_job,
    ended_at,
    failure,
    gated_left_s,
    has_not_started,
    has_succeeded,
    is_over,
    last_end,
    outcome,
    pods_of,
    unstarted,
    was_oom_killed,
)
from aimschema import labels, names, reasons
from aimschema.credentials import DEFAULT_CONFIG
from aimschema.discovery_result import IMAGE_KEY, Discovered, from_config_map
from aimschema.kinds import ConfigSpec, TemplateSpec
from aimschema.messages import ReportedCondition, parse_timestamp, timestamp
from aimschema.resources import CONFIG, CONFIG_MAP, JOB, MODEL, Key

POD_WORD_S = 10.0
"""How long a finished Job's pod is waited for: its last state may come after the Job's."""
FIRST_RETRY_S = 60.0
LONGEST_RETRY_S = 3600.0
MORE_MEMORY = "raise limits.memory in setting AIM_JOB_RESOURCES of aim-discovery"
LOG = "log"
"""Topic: what the log of a pod, or of the pod of a Job, holds (a ReadLogResult)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`namespace`: the control plane's own. `first_retry_s`: how long a template waits after its
    first failure."""

    namespace: str
    first_retry_s: float
    rules: JobRules


@dataclass(frozen=True)
class View:
    """One template with everything its plan depends on. `last_fields` holds the status fields as
    last reported.

    `held` is the data of a readable answer; it counts (`found`) unless it claims the present inputs
    with another image. `image_missing` and `unsupported` say what is wrong with image and template;
    mostly empty. `contested`: who keeps changing the answer that is kept, None where nobody does.
    """

    template: Seen
    spec: TemplateSpec
    image: str
    config: ConfigSpec | None
    result: Seen | None
    found: Discovered | None
    held: dict[str, str]
    job: Seen | None
    last_fields: dict[str, Any]
    said: ReportedCondition | None
    refusal: Refusal | None
    image_missing: str
    unsupported: str
    contested: str | None
    settings: Settings

    @property
    def job_key(self) -> Key:
        return Key(
            JOB.kind,
            self.template.key.namespace,
            names.discovery_job(self.template.key.name, self.inputs),
        )

    @property
    def inputs(self) -> str:
        return inputs_of(self.image, self.spec)

    @property
    def tried(self) -> str:
        """What a try is made from: its inputs, the pull secrets, and the annotation that asks
        for another one."""
        secrets = (
            self.config.images.image_pull_secrets
            if self.config is not None and self.config.images is not None
            else []
        )
        return names.short_hash(
            [self.inputs, *secrets, self.template.annotations.get(labels.ANNOTATION_RETRY, "")]
        )

    @property
    def answered(self) -> bool:
        """Whether the answer that is kept is for the inputs as they are."""
        return (
            self.found is not None
            and self.result is not None
            and self.result.annotations.get(labels.ANNOTATION_INPUTS) == self.inputs
        )

    @property
    def tried_before(self) -> bool:
        """Whether the tries that are counted were made from the same as the next."""
        return (
            self.result is not None
            and self.result.annotations.get(labels.ANNOTATION_TRIED) == self.tried
        )

    @property
    def attempts(self) -> int:
        return int(self.last_fields.get("attempts", 0)) if self.tried_before else 0

    @property
    def kept(self) -> dict[str, Any]:
        """Status fields to be reported again; tries that were made from something else count no
        longer."""
        if self.tried_before:
            return self.last_fields
        fields = {
            name: value for name, value in self.last_fields.items() if name != "nextAttemptTime"
        }
        return fields | ({"attempts": 0} if fields.get("attempts") else {})


def plan(
    seen: Projection,
    key: Key,
    now: datetime.datetime,
    *,
    namespace: str,
    first_retry_s: float = FIRST_RETRY_S,
    rules: JobRules = DEFAULT_RULES,
) -> Plan:
    """`namespace`: the control plane's own. `first_retry_s`: how long a template waits after its
    first failure."""
    present = seen.get(key)
    if present is None or present.deleting or not present.has_spec:
        return NOTHING
    if key.kind == MODEL.kind:
        return plan_model(seen, present, now, namespace)
    return plan_template(seen, present, now, Settings(namespace, first_retry_s, rules))


def plan_template(
    seen: Projection, template: Seen, now: datetime.datetime, settings: Settings
) -> Plan:
    """First match wins: no model, a name that is taken, answered, Job at work, Job ended, next
    try. Jobs for other inputs go in any case."""
    models = models_named(seen, str(template.spec["model"]))
    if not models:
        missing = (
            f"no AIMClusterModel has spec.name {template.spec['model']}: create it, or make the"
            " template anew for another; discovery starts then"
        )
        kept = _kept(seen, template)
        unknown = condition(reasons.DISCOVERED, False, reasons.MODEL_NOT_FOUND, missing)
        return _delete_jobs(seen, template) | report(
            template, with_refusal(unknown, seen.learned(template.key, REFUSED)), **kept
        )
    view = look(seen, template, models[0], settings)
    superseded = _delete_jobs(seen, template, but=view.job_key)
    for there in (view.result, view.job):
        if there is not None and template.uid not in there.owners:
            return superseded | report(
                template, with_refusal(_foreign(template, there), view.refusal)
            )
    return superseded | (_answered(view) if view.answered else _discover(seen, view, now))


def _delete_jobs(seen: Projection, template: Seen, but: Key | None = None) -> Plan:
    """The Jobs of a template that are not being deleted yet."""
    jobs = (
        job
        for job in seen.owned(template.uid, JOB.kind, template.key.namespace)
        if job.key != but and not job.deleting
    )
    return act(*(DeleteObject(job.key, job.uid) for job in jobs))


def _foreign(template: Seen, there: Seen) -> ReportedCondition:
    """Something of a name we need is not ours; what a former template of this name left goes by
    itself."""
    if is_of_former(template, there):
        return condition(
            reasons.DISCOVERED, False, reasons.AWAITING_DISCOVERY, of_former(template, there)
        )
    return condition(reasons.DISCOVERED, False, reasons.NAME_CONFLICT, of_another(template, there))


def _discover(seen: Projection, view: View, now: datetime.datetime) -> Plan:
    if view.job is None:
        return _next_try(seen, view, now)
    match outcome(seen, view.job, CONTAINER):
        case "active" if view.image_missing and all(
            unstarted(pod) for pod in pods_of(seen, view.job)
        ):
            return _give_up(view.job) | _say(
                view, False, reasons.AWAITING_DISCOVERY, view.image_missing
            )
        case "active" if _is_outdated(view, view.job) and has_not_started(seen, view.job, now):
            return _give_up(view.job) | _at_it(
                view, "the Job is re-created, since what it was made from has changed"
            )
        case "active":
            return _at_work(seen, view, now, view.job)
        case "succeeded":
            return _read(seen, view, now, view.job)
        case _:
            return _failed_job(seen, view, now, view.job)


def _is_outdated(view: View, job: Seen) -> bool:
    """Made from other pull secrets, or before another try was asked for. (One for other inputs
    has another name.)"""
    return job.annotations.get(labels.ANNOTATION_TRIED, view.tried) != view.tried


def _give_up(job: Seen) -> Plan:
    return NOTHING if job.deleting else act(DeleteObject(job.key, job.uid))


def _at_work(seen: Projection, view: View, now: datetime.datetime, job: Seen) -> Plan:
    """What keeps the Job from its work, where something does. One that a queue holds back does
    not run yet."""
    diagnosis = diagnose_job(seen, job, now, CONTAINER)
    words, trouble = diagnosis.message or f"Job {job.key.name} asks the image", diagnosis.trouble
    left_s = gated_left_s(seen, job, now)
    if left_s is not None and left_s <= 0:
        return _give_up(job) | _at_it(
            view, f"{words}; the Job is re-created, since its deadline counts while it waits"
        )
    again = NOTHING if left_s is None else look_again(left_s)
    if trouble is not None and trouble.reason in HELD_BACK and not view.attempts:
        return _say(view, False, reasons.AWAITING_DISCOVERY, words) | diagnosis.follow_up | again
    return _at_it(view, words) | diagnosis.follow_up | again


def look(seen: Projection, template: Seen, model: Seen, settings: Settings) -> View:
    namespace, spec, image = (
        template.key.namespace,
        TemplateSpec.model_validate(template.spec),
        str(model.spec["image"]),
    )
    config = seen.get(Key(CONFIG.kind, namespace, DEFAULT_CONFIG))
    result = seen.get(
        Key(CONFIG_MAP.kind, namespace, names.discovery_config_map(template.key.name))
    )
    said = seen.report(template.key, reasons.DISCOVERY)
    answer = None if result is None else from_config_map(result.body)
    held: dict[str, str] = {} if result is None or answer is None else result.body["data"]
    return View(
        template=template,
        spec=spec,
        image=image,
        config=None if config is None else ConfigSpec.model_validate(config.spec),
        result=result,
        found=(
            None
            if result is not None and _is_of_another_image(result, held, image, spec)
            else answer
        ),
        held=held,
        job=seen.get(
            Key(JOB.kind, namespace, names.discovery_job(template.key.name, inputs_of(image, spec)))
        ),
        last_fields=_kept(seen, template),
        said=(
            next((c for c in said.conditions), None)
            if said is not None and said.uid == template.uid
            else repeated(template, reasons.DISCOVERED)
        ),
        refusal=seen.learned(template.key, REFUSED),
        image_missing=missing_image(seen, model),
        unsupported=unsupported(seen, model, spec, settings.namespace),
        contested=seen.learned(
            Key(CONFIG_MAP.kind, namespace, names.discovery_config_map(template.key.name)),
            CONTESTED,
        ),
        settings=settings,
    )


def _is_of_another_image(
    result: Seen, held: dict[str, str], image: str, spec: TemplateSpec
) -> bool:
    """Of an answer for the present inputs, which stand for the image too: somebody else wrote
    it."""
    for_these = result.annotations.get(labels.ANNOTATION_INPUTS) == inputs_of(image, spec)
    return for_these and held.get(IMAGE_KEY) != image


def _answered(view: View) -> Plan:
    """Say it; once that is on the object, the Job goes."""
    assert view.found is not None
    sources = view.found.sources
    profile = {name: value for name, value in _profile(view.found).items() if value}
    words = (
        f"found {len(sources)} model source{'s' if len(sources) != 1 else ''}: {', '.join(sources)}"
    )
    said = _report(
        view,
        True,
        reasons.PROFILES_DISCOVERED,
        words,
        modelSources=sources,
        profile=profile or None,
        attempts=0,
    )
    recorded = (
        view.template.holds(reasons.DISCOVERED)
        and view.template.status.get("modelSources") == sources
    )
    tried = (
        view.result.annotations.get(labels.ANNOTATION_TRIED, "") if view.result is not None else ""
    )
    kept = act(ApplyObject(result_config_map(view.template, view.held, view.inputs, tried)))
    return (
        kept
        | said
        | (
            act(DeleteObject(view.job.key, view.job.uid))
            if recorded and view.job is not None and not view.job.deleting
            else NOTHING
        )
    )


def _profile(found: Discovered) -> dict[str, Any]:
    metadata = found.profile.metadata
    return {
        "engine": metadata.engine,
        "gpu": metadata.gpu,
        "precision": metadata.precision,
        "gpu_count": metadata.gpu_count,
        "metric": metadata.metric,
    }


def _next_try(seen: Projection, view: View, now: datetime.datetime) -> Plan:
    due = view.kept.get("nextAttemptTime")
    if view.attempts and due is not None and now < parse_timestamp(due):
        waiting = report(
            view.template,
            *([with_refusal(view.said, view.refusal)] if view.said is not None else []),
            **view.kept,
        )
        return waiting | look_again((parse_timestamp(due) - now).total_seconds())
    if view.image_missing:
        return _say(view, False, reasons.AWAITING_DISCOVERY, view.image_missing)
    if words := in_the_way(seen, view.template, now):
        return _say(view, False, reasons.AWAITING_DISCOVERY, words) | look_again(UNSTARTED_COUNTS_S)
    job = discovery_job(
        view.template, view.image, view.config, view.tried, view.attempts + 1, view.settings.rules
    )
    words = (
        "the discovery Job is being created"
        if view.refusal is None
        else f"discovery cannot begin: {view.refusal.message}"
    )
    note = result_config_map(view.template, view.held, _valid_for(view), view.tried)
    starts = act(ApplyObject(note), ApplyObject(job))
    return starts | (
        _at_it(view, words)
        if view.refusal is None
        else _say(view, False, view.refusal.reason(reasons.AWAITING_DISCOVERY), words)
    )


def _read(seen: Projection, view: View, now: datetime.datetime, job: Seen) -> Plan:
    """The log of the newest pod that succeeded, then what it says. News of the pod may be late,
    so whether it is gone the API server must say."""
    pods = [pod for pod in pods_of(seen, job) if has_succeeded(pod, CONTAINER)]
    if not pods and _just_ended(seen, job, now):
        return _at_it(view, "the image has answered") | look_again(POD_WORD_S)
    source = pods[-1] if pods else job
    log: ReadLogResult | None = seen.learned(source.key, LOG)
    earlier: ReadLogResult | None = seen.learned(job.key, LOG)
    if log is None and earlier is not None and earlier.last_lines:  # read before the pod was known
        log = earlier
    if log is None:
        return act(ReadLog(source.key, source.uid, CONTAINER)) | _at_it(
            view, "reading what the image answered"
        )
    if log.problem:
        return _failed(view, ended_at(seen, job, CONTAINER) or now, job, log.problem)
    data = result_data(log.answer, view.image)
    keeps = act(ApplyObject(result_config_map(view.template, data, view.inputs, view.tried)))
    return keeps if view.refusal is None else keeps | _at_it(view, "the image has answered")


def _failed_job(seen: Projection, view: View, now: datetime.datetime, job: Seen) -> Plan:
    """With the exit code and the last lines of the log where a container of the image has run."""
    if not is_over(seen, job, CONTAINER) and _just_ended(seen, job, now):
        return _at_it(view, "the Job failed") | look_again(POD_WORD_S)
    why, found = failure(seen, job, CONTAINER, "the image"), last_end(seen, job, CONTAINER)
    if was_oom_killed(seen, job, CONTAINER):
        why += f"; {MORE_MEMORY}"
    at = ended_at(seen, job, CONTAINER) or now
    if found is None:
        return _failed(view, at, job, why)
    pod, _ = found
    log: ReadLogResult | None = seen.learned(pod.key, LOG)
    if log is None and not job.deleting:
        return act(ReadLog(pod.key, pod.uid, CONTAINER)) | _at_it(
            view, "the Job failed; reading its log"
        )
    said = (log.last_lines if log is not None else "") or "(not to be had)"
    return _failed(view, at, job, f"{why}; last lines of the log: {said}")


def _just_ended(seen: Projection, job: Seen, now: datetime.datetime) -> bool:
    finished = ended_at(seen, job, CONTAINER)
    return finished is not None and (now - finished).total_seconds() < POD_WORD_S


def _failed(view: View, at: datetime.datetime, job: Seen, why: str) -> Plan:
    """Say how the try ended (`at`) and when the next is; once that is on the object, the Job
    goes."""
    if job.deleting:
        return _at_it(view, f"the last try is being cleared away: {removal(job)}")
    attempt = attempt_of(job)
    if _is_outdated(view, job):
        words = (
            f"try {attempt} failed, and what it was made from has changed since: another one"
            f" starts: image {view.image}: {why}"
        )
        return _give_up(job) | _say(
            view, False, reasons.DISCOVERY_FAILED, words, attempts=0, nextAttemptTime=None
        )
    wait_s = min(LONGEST_RETRY_S, view.settings.first_retry_s * 2 ** min(attempt - 1, 20))
    due = timestamp(at + datetime.timedelta(seconds=wait_s))
    words = (
        f"try {attempt}, next at {due}, at once with annotation {labels.ANNOTATION_RETRY}: image"
        f" {view.image}: {why}"
    )
    said = _say(view, False, reasons.DISCOVERY_FAILED, words, attempts=attempt, nextAttemptTime=due)
    if view.found is not None:
        said = warning(said, reasons.DISCOVERY_FAILED, words)
    recorded = int(view.template.status.get("attempts", 0)) == attempt
    return said | (act(DeleteObject(job.key, job.uid)) if recorded else NOTHING)


def _at_it(view: View, message: str) -> Plan:
    """A try is at work; where the last one failed, that stays said."""
    if view.attempts:
        return _say(
            view,
            False,
            reasons.DISCOVERY_FAILED,
            f"try {view.attempts} failed, try {view.attempts + 1} is at work: {message}",
        )
    return _say(view, None, reasons.AWAITING_DISCOVERY, message)


def _say(view: View, status: bool | None, reason: str, message: str, **fields: Any) -> Plan:
    """While an older answer is in force, that is what is said; how the new one goes is in the
    message."""
    kept = {**view.kept, **fields}
    if view.found is not None:
        return _report(
            view,
            True,
            reasons.PROFILES_DISCOVERED,
            f"an earlier answer is in force; for the changed image: {message}",
            **kept,
        )
    return _report(view, status, reason, message, **kept)


def _report(view: View, status: bool | None, reason: str, message: str, **fields: Any) -> Plan:
    """With what the image's labels have against the template, and who fights over the answer,
    which are worth Events as well."""
    asked = {reasons.UNSUPPORTED_PROFILE: view.unsupported, reasons.CONTESTED: view.contested or ""}
    warnings = {why: words for why, words in asked.items() if words}
    more = "".join(f"; {words}" for words in warnings.values())
    both = f"{message[: MESSAGE_LENGTH - len(more)]}{more}"
    said = report(
        view.template,
        with_refusal(condition(reasons.DISCOVERED, status, reason, both), view.refusal),
        **fields,
    )
    for why, words in warnings.items():
        said = warning(said, why, words)
    return said


def _valid_for(view: View) -> str | None:
    return (
        None
        if view.result is None or view.found is None
        else view.result.annotations.get(labels.ANNOTATION_INPUTS)
    )


def _kept(seen: Projection, template: Seen) -> dict[str, Any]:
    said = seen.report(template.key, reasons.DISCOVERY)
    if said is not None and said.uid == template.uid:
        return dict(said.fields)
    owned = reasons.OWNED[template.key.kind][reasons.DISCOVERY][1]
    return {name: value for name, value in template.status.items() if name in owned}


def _age_s(present: Seen, now: datetime.datetime) -> float:
    return (now - parse_timestamp(present.created)).total_seconds() if present.created else 0.0
