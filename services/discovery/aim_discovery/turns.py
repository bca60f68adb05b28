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
from collections import Counter
from collections.abc import Iterator, Mapping
from heapq import merge
from itertools import chain, islice, takewhile, zip_longest

from aim_discovery.catalogue import missing_image
from aim_discovery.render import CONTAINER, DEADLINE_S
from aimcontroller import ordered
from aimcontroller.indexes import JOBS_BY_COMPONENT
from aimcontroller.ordered import Ordered
from aimcontroller.projection import KubeObject, Projection
from aimcontroller.queries import models_named
from aimcontroller.workloads import is_running, outcome, pods_of, started_at
from aimschema import labels, names
from aimschema.messages import parse_timestamp, timestamp
from aimschema.resources import JOB, MODEL, TEMPLATE, Key

MOST_AT_ONCE = 10
MOST_OF_A_NAMESPACE = 3
WOKEN_AT_ONCE = 10
UNSTARTED_COUNTS_S = 60.0
_AFTER_ALL = chr(0x10FFFF)
"""In the place of a creation time: after every template of a namespace."""
_HASH = re.compile(r"[0-9a-f]{8}")


def blocking_reason(state: Projection, template: KubeObject, now: datetime.datetime) -> str:
    """Why a template has to wait for its turn; empty where it has it."""
    at_work = at_work_by_namespace(state, now)
    own = template.key.namespace
    total = sum(at_work.values())
    if total >= MOST_AT_ONCE:
        return f"queued: {total} discovery Jobs are already running"
    mine = at_work.get(own, 0)
    fewer = 0
    for namespace in _waiting_namespaces(state, own, now) if mine else ():
        fewer += at_work.get(namespace, 0) < mine
        if mine >= MOST_OF_A_NAMESPACE or MOST_AT_ONCE - total <= fewer:
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


def _waiting_namespaces(
    state: Projection, except_for: str | None, now: datetime.datetime
) -> Iterator[str]:
    """Each namespace with a template that would start a discovery in its turn, also again after a
    failure.

    A template that cannot start for another reason, such as a quota, does not wait: others need not
    leave it a turn.
    """
    sequences = _without_answer(state)
    found = {except_for or ""}
    for namespace in _namespaces_after(sequences, ""):
        if namespace not in found and any(_lane(state, sequences, namespace)):
            found.add(namespace)
            yield namespace
    for namespace, name in _due(state, now):
        if namespace not in found and not _has_job(state, Key(TEMPLATE.kind, namespace, name)):
            found.add(namespace)
            yield namespace


def next_turns(state: Projection) -> list[Key]:
    """The templates to wake when a turn gets free, of each namespace the oldest first. One that has
    failed before is not among them: it is reconciled at its time."""
    jobs = [
        job
        for job in state.find(JOBS_BY_COMPONENT, labels.COMPONENT_DISCOVERY)
        if is_ours(state, job)
    ]
    active = Counter(
        job.key.namespace or ""
        for job in jobs
        if not job.deleting and outcome(state, job, CONTAINER) == "active"
    )
    last = (jobs[-1].key.namespace or "") if jobs else ""
    sequences = _without_answer(state)
    idle = (
        namespace
        for namespace in chain(
            _namespaces_after(sequences, last), _namespaces_up_to(sequences, last)
        )
        if not active[namespace]
    )
    busy = sorted(active, key=lambda namespace: (active[namespace], namespace <= last, namespace))
    lanes = (
        list(islice(_lane(state, sequences, namespace), WOKEN_AT_ONCE))
        for namespace in chain(idle, busy)
    )
    chosen = list(islice(filter(None, lanes), WOKEN_AT_ONCE))
    turns = chain.from_iterable(zip_longest(*chosen))
    return list(islice(filter(None, turns), WOKEN_AT_ONCE))


def _without_answer(state: Projection) -> list[Ordered]:
    """Templates without an answer of their model's image: (namespace, creation, name)."""
    return [
        entries
        for name, image in _startable(state)
        for entries in state.unanswered.first(name, image)
    ]


def _due(state: Projection, now: datetime.datetime) -> Iterator[tuple[str, str]]:
    """Namespace and name of those that have failed and are due again."""
    for model, image in _startable(state):
        for entries in state.unanswered.again(model, image):
            due = takewhile(lambda entry: entry[0] <= timestamp(now), ordered.entries(entries))
            yield from ((namespace, name) for _, namespace, name in due)


def _startable(state: Projection) -> Iterator[tuple[str, object]]:
    """Name and image of each model whose image may exist. The image is None where templates ask for
    a model that does not exist."""
    for model in state.in_namespace(MODEL.kind, None):
        name = str(model.spec.get("name"))
        is_first = models_named(state, name)[:1] == [model]
        if is_first and not missing_image(state, model):
            yield name, model.spec.get("image", "")
    for name in state.unanswered.models_asked:
        if not models_named(state, name):
            yield name, None


def _namespaces_after(sequences: list[Ordered], namespace: str) -> Iterator[str]:
    """Those that the sequences have, in order."""
    while True:
        start = (namespace, _AFTER_ALL, "")
        nexts = (next(ordered.entries_from(entries, start), None) for entries in sequences)
        found = [entry for entry in nexts if entry is not None]
        if not found:
            return
        namespace = min(found)[0]
        yield namespace


def _namespaces_up_to(sequences: list[Ordered], last: str) -> Iterator[str]:
    return takewhile(lambda namespace: namespace <= last, _namespaces_after(sequences, ""))


def _lane(state: Projection, sequences: list[Ordered], namespace: str) -> Iterator[Key]:
    """The templates of a namespace that wait, the oldest first."""
    start = (namespace, "", "")
    entries = (
        takewhile(lambda entry: entry[0] == namespace, ordered.entries_from(each, start))
        for each in sequences
    )
    keys = (Key(TEMPLATE.kind, namespace, name) for _, _, name in merge(*entries))
    return (key for key in keys if not _has_job(state, key))


def _has_job(state: Projection, key: Key) -> bool:
    """Whether a template has a Job that is not being deleted."""
    template = state.get(key)
    return template is None or any(
        not job.deleting for job in state.owned(template.uid, JOB.kind, key.namespace)
    )


def _age_s(text: object, now: datetime.datetime) -> float:
    """Seconds since a time as the API serves it, negative for one to come; 0 where it is none."""
    try:
        return (now - parse_timestamp(str(text))).total_seconds() if text else 0.0
    except (ValueError, TypeError):
        return 0.0
