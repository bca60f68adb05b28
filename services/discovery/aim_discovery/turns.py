"""Decides which templates may start a discovery now. Pure.

1. At most `MOST_AT_ONCE` discoveries run in the cluster, including Jobs that are being created. A
   pod that has not started for a minute does not count.
2. At most `MOST_OF_A_NAMESPACE` of one namespace run while templates of others wait.
3. A namespace leaves a free turn to each other namespace that waits and has fewer running. One that
   has none running leaves none: it gets the next free turn when it is reconciled.
4. When a turn becomes free, namespaces with the fewest running are enqueued first. Equal ones
   follow by name, beginning after the one that had the last turn.
5. A Job counts only if it is ours: by label, by name, and owned by a template that exists. Any user
   can create Jobs with our labels.
"""

import datetime
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import chain, zip_longest

from aim_discovery.catalogue import missing_image
from aim_discovery.render import CONTAINER, DEADLINE_S
from aimcontroller.indexes import JOBS_BY_COMPONENT
from aimcontroller.projection import REJECTED, KubeObject, Projection
from aimcontroller.queries import models_named, previous_discovery
from aimcontroller.workloads import is_running, outcome, pods_of, started_at
from aimschema import labels, names
from aimschema.discovery_result import IMAGE_KEY
from aimschema.messages import parse_timestamp
from aimschema.reasons import AWAITING_DISCOVERY, DISCOVERED, DISCOVERY
from aimschema.resources import JOB, TEMPLATE, Key

MOST_AT_ONCE = 10
MOST_OF_A_NAMESPACE = 3
WOKEN_AT_ONCE = 10
UNSTARTED_COUNTS_S = 60.0
_HASH = re.compile(r"[0-9a-f]{8}")


def blocking_reason(state: Projection, template: KubeObject, now: datetime.datetime) -> str:
    """Why a template has to wait for its turn; empty where it has it."""
    at_work = at_work_by_namespace(state, now)
    own = template.key.namespace
    total = sum(at_work.values())
    if total >= MOST_AT_ONCE:
        return f"queued: {total} discovery Jobs are already running"
    mine = at_work.get(own, 0)
    others = (
        (each for each in state.in_all_namespaces(TEMPLATE.kind) if each.key.namespace != own)
        if mine
        else ()
    )
    waiting = {each.key.namespace for each in others if waits(state, each, now)}
    fewer = [namespace for namespace in waiting if at_work.get(namespace, 0) < mine]
    if (waiting and mine >= MOST_OF_A_NAMESPACE) or MOST_AT_ONCE - total <= len(fewer):
        return (
            f"queued: {mine} discovery Jobs of namespace {own} are already running, and"
            " templates of other namespaces wait"
        )
    return ""


def at_work_by_namespace(state: Projection, now: datetime.datetime) -> Mapping[str | None, int]:
    """Discoveries that run, creations under way included."""
    jobs = [
        job
        for job in state.find(JOBS_BY_COMPONENT, labels.COMPONENT_DISCOVERY)
        if is_ours(state, job) and _is_at_work(state, job, now)
    ]
    creations = (key for key in state.pending_creates(JOB.kind) if state.get(key) is None)
    return Counter([*(job.key.namespace for job in jobs), *(key.namespace for key in creations)])


def is_ours(state: Projection, job: KubeObject) -> bool:
    """Whether a Job is a discovery of a template that exists."""
    owner = job.owner(TEMPLATE.kind)
    template = None if owner is None else state.get(owner)
    inputs = job.key.name.rpartition("-")[2]
    return (
        template is not None
        and template.uid in job.owners
        and job.labels.get(labels.MANAGED_BY) == labels.MANAGED_BY_AIM
        and job.labels.get(labels.COMPONENT) == labels.COMPONENT_DISCOVERY
        and _HASH.fullmatch(inputs) is not None
        and job.key.name == names.discovery_job(template.key.name, inputs)
    )


def _is_at_work(state: Projection, job: KubeObject, now: datetime.datetime) -> bool:
    """An AIM Job ends at its deadline."""
    started = started_at(job)
    late = started is not None and (now - started).total_seconds() > DEADLINE_S + UNSTARTED_COUNTS_S
    if late or job.deleting or outcome(state, job, CONTAINER) != "active":
        return False
    return _age_s(job.creation_timestamp, now) < UNSTARTED_COUNTS_S or any(
        is_running(pod) for pod in pods_of(state, job)
    )


def waits(state: Projection, template: KubeObject, now: datetime.datetime | None = None) -> bool:
    """Whether a template would start a discovery in its turn. Without `now`, one that has failed
    before does not count.

    A template that cannot start for another reason, such as a quota, does not wait: others need not
    leave it a turn.
    """
    if template.deleting or state.observation(template.key, REJECTED) is not None:
        return False
    if any(not job.deleting for job in state.owned(template.uid, JOB.kind, template.key.namespace)):
        return False
    last_report = state.report(template.key, DISCOVERY)
    due = (template.status if last_report is None else last_report.fields).get("nextAttemptTime")
    if due is not None and (now is None or _age_s(due, now) < 0):
        return False
    model = next(iter(models_named(state, str(template.spec.get("model")))), None)
    if model is not None and missing_image(state, model):
        return False
    is_asking = last_report is not None and any(
        each.type == DISCOVERED and each.status == "False" and each.reason == AWAITING_DISCOVERY
        for each in last_report.conditions
    )
    return is_asking or (model is not None and _is_unanswered(state, template, model))


def _is_unanswered(state: Projection, template: KubeObject, model: KubeObject) -> bool:
    """Nothing is recorded, or the answer of another image: the other inputs never change."""
    record = previous_discovery(state, template)
    return record is None or (record.body.get("data") or {}).get(IMAGE_KEY) != model.spec.get(
        "image"
    )


def next_turns(state: Projection) -> list[Key]:
    """The templates to wake when a turn gets free, of each namespace the oldest first."""
    waiting: dict[str, list[KubeObject]] = defaultdict(list)
    for template in state.in_all_namespaces(TEMPLATE.kind):
        if waits(state, template):
            waiting[template.key.namespace or ""].append(template)
    jobs = [
        job
        for job in state.find(JOBS_BY_COMPONENT, labels.COMPONENT_DISCOVERY)
        if is_ours(state, job)
    ]
    active = Counter(
        job.key.namespace
        for job in jobs
        if not job.deleting and outcome(state, job, CONTAINER) == "active"
    )
    last = (jobs[-1].key.namespace or "") if jobs else ""
    order = sorted(waiting, key=lambda namespace: (active[namespace], namespace <= last, namespace))
    lanes = (
        sorted(waiting[namespace], key=lambda each: (each.creation_timestamp, each.key))
        for namespace in order
    )
    turns = (each.key for each in chain.from_iterable(zip_longest(*lanes)) if each is not None)
    return [key for _, key in zip(range(WOKEN_AT_ONCE), turns, strict=False)]


def _age_s(text: object, now: datetime.datetime) -> float:
    """Seconds since a time as the API serves it, negative for one to come; 0 where it is none."""
    try:
        return (now - parse_timestamp(str(text))).total_seconds() if text else 0.0
    except (ValueError, TypeError):
        return 0.0
