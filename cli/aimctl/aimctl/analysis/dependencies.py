"""What belongs together, as `aimctl get`, `logs` and `retry` need it: chains as rows, pods
behind an object, what can be tried again. Pure."""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from aimcontroller.projection import KubeObject, Projection
from aimcontroller.queries import caches_of, discovery_result_of, models_named
from aimcontroller.workloads import container_termination, pod_start_failure, pods_of
from aimctl.analysis.diagnosis import diagnose, root_cause
from aimctl.analysis.object_diagnosis import Diagnosis
from aimctl.parsing import ROOTS
from aimschema import labels
from aimschema.messages import Progress
from aimschema.resources import CACHE, JOB, MODEL, POD, SERVICE, TEMPLATE, Key, Resource

NO_PROGRESS: Mapping[Key, Progress] = {}


@dataclass(frozen=True, slots=True)
class Row:
    """A chain. A column is empty if the chain starts later or the object does not exist yet. `why`
    is the root cause, or the message of Ready."""

    namespace: str
    service: str
    template: str
    model: str
    cache: str
    state: str
    why: str


def rows(
    state: Projection, root: Resource | None, namespace: str | None, now: datetime.datetime
) -> list[Row]:
    """Of every object of a kind; without one, of every service, and of what no service uses.
    `namespace` None: of all."""
    kinds = ROOTS if root is None else (root,)
    covered: set[Key] = set()
    found = []
    for kind in kinds:
        for obj in sorted(state.in_all_namespaces(kind.kind), key=lambda each: each.key):
            if (
                namespace in {None, obj.key.namespace} or not kind.namespaced
            ) and obj.key not in covered:
                chain = [obj, *_below(state, obj)]
                covered |= {each.key for each in chain}
                found.append(_row(chain, diagnose(state, obj.key, now, NO_PROGRESS)))
    return found


def _below(state: Projection, obj: KubeObject) -> Iterator[KubeObject]:
    """Template, model, caches of a service; model and caches of a template."""
    if obj.key.kind == SERVICE.kind:
        template = state.get(
            Key(TEMPLATE.kind, obj.key.namespace, str(obj.spec.get("templateRef")))
        )
        if template is not None:
            yield template
            yield from _below(state, template)
    elif obj.key.kind == TEMPLATE.kind:
        yield from models_named(state, str(obj.spec.get("model")))[:1]
        yield from caches_for(state, obj)


def caches_for(state: Projection, template: KubeObject) -> list[KubeObject]:
    """The cache that counts of each of the template's sources."""
    answer = discovery_result_of(state, template)
    return [
        cache
        for source in (answer.sources if answer else ())
        for cache in caches_of(state, template.key.namespace, source)[:1]
    ]


def _row(chain: Sequence[KubeObject], diagnosis: Diagnosis) -> Row:
    root = chain[0]
    names = {
        kind.kind: ", ".join(each.key.name for each in chain if each.key.kind == kind.kind)
        for kind in ROOTS
    }
    end = root_cause(diagnosis)
    why = diagnosis.summary if end is diagnosis else f"{end.key.kind}/{end.key.name} {end.summary}"
    return Row(
        namespace=root.key.namespace or "",
        service=names[SERVICE.kind],
        template=names[TEMPLATE.kind]
        or (str(root.spec.get("templateRef")) if root.key.kind == SERVICE.kind else ""),
        model=names[MODEL.kind] or str(root.spec.get("model", "")),
        cache=names[CACHE.kind],
        state=str(root.status.get("status") or diagnosis.state),
        why=why,
    )


def pods_behind(state: Projection, key: Key) -> list[KubeObject]:
    """The pods that belong to an object through its chain, those in trouble first, then the
    oldest. Jobs go once their outcome is recorded."""
    obj = state.get(key)
    found = {pod.key: pod for pod in (_pods(state, obj) if obj is not None else ())}
    return sorted(
        found.values(), key=lambda pod: (not in_trouble(pod), pod.creation_timestamp, pod.key)
    )


def _pods(state: Projection, obj: KubeObject) -> Iterator[KubeObject]:
    match obj.key.kind:
        case POD.kind:
            yield obj
        case JOB.kind:
            yield from pods_of(state, obj)
        case SERVICE.kind:
            pods = state.in_namespace(POD.kind, obj.key.namespace)
            yield from (
                pod for pod in pods if pod.labels.get(labels.KSERVE_ISVC_LABEL) == obj.key.name
            )
        case _:
            for job in state.owned(obj.uid, JOB.kind, obj.key.namespace):
                yield from pods_of(state, job)
    for below in _below(state, obj):
        yield from _pods(state, below)


def in_trouble(pod: KubeObject) -> bool:
    """It does not start, has failed, or was started again."""
    again = any(status.get("restartCount") for status in pod.status.get("containerStatuses") or ())
    failed = any(
        (how := container_termination(pod, name)) is not None and how.exit_code
        for name in containers(pod)
    )
    return (
        pod_start_failure(pod) is not None or again or failed or pod.status.get("phase") == "Failed"
    )


def containers(pod: KubeObject) -> list[str]:
    """All that may have a log, in the order in which they run."""
    return [
        str(each["name"])
        for part in ("initContainers", "containers")
        for each in pod.spec.get(part) or ()
    ]


def to_retry(diagnosis: Diagnosis) -> list[Key]:
    """What of a chain has failed, or waits for its next try, and would try again at once:
    templates, caches and models."""
    own = diagnosis.key.kind in {TEMPLATE.kind, CACHE.kind, MODEL.kind} and (
        diagnosis.state == "failed" or diagnosis.seconds_left is not None
    )
    found = [key for behind in diagnosis.causes for key in to_retry(behind)]
    return list(dict.fromkeys([*found, diagnosis.key] if own and not found else found))
