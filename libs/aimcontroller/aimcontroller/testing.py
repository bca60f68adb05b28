"""Plain objects as the API serves them, and projections and words of them, for tests of planners.

Everything is made from its name: the uid of `Job a` is `job-a`, so that owners can be written down
without being looked up.
"""

import datetime
import json
import os
from collections.abc import Iterable
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from aimcontroller.action import ApplyObject
from aimcontroller.plan import Plan
from aimcontroller.projection import (
    FIELD_CONFLICT,
    REJECTED,
    ApplyRejected,
    FieldConflict,
    Observation,
    Projection,
    StateEvent,
    changed_from_response,
    fold,
)
from aimschema import labels
from aimschema.discovery_result import digest
from aimschema.messages import KindSynced, ObjectChanged, StatusReported, timestamp
from aimschema.published import published_part
from aimschema.resources import CLAIM, CONFIG_MAP, JOB, POD, RESOURCES, STORAGE_CLASS, Key

Body = dict[str, Any]
NAMESPACE = "team"
NOW = datetime.datetime(2030, 1, 2, 12, 0, 0, tzinfo=datetime.UTC)
WRITE_GOLDEN = "AIM_WRITE_GOLDEN"


def ago(seconds: float) -> str:
    """RFC 3339, so many seconds before NOW."""
    return timestamp(NOW - datetime.timedelta(seconds=seconds))


def uid_of(kind: str, name: str) -> str:
    return f"{kind.lower()}-{name}"


def obj(kind: str, name: str, **fields: Any) -> Body:
    """An object of any kind. `fields`: top-level fields; `age_s`, `labels`, `annotations`,
    `owner` (kind, name), `uid`, `generation`, `deleting` go into metadata.
    """
    resource = RESOURCES[kind]
    owner, age_s = fields.pop("owner", None), fields.pop("age_s", 3600)
    metadata: Body = {
        "name": name,
        "uid": fields.pop("uid", uid_of(kind, name)),
        "resourceVersion": str(fields.pop("version", 1)),
        "generation": fields.pop("generation", 1),
        "creationTimestamp": ago(age_s),
        "labels": fields.pop("labels", {}),
        "annotations": fields.pop("annotations", {}),
    }
    if resource.namespaced:
        metadata["namespace"] = fields.pop("namespace", NAMESPACE)
    if owner is not None:
        metadata["ownerReferences"] = [
            {
                "apiVersion": RESOURCES[owner[0]].api_version,
                "kind": owner[0],
                "name": owner[1],
                "uid": uid_of(*owner),
            }
        ]
    if fields.pop("deleting", False):
        metadata |= {"deletionTimestamp": ago(5), "finalizers": ["kubernetes.io/pvc-protection"]}
    return {"apiVersion": resource.api_version, "kind": kind, "metadata": metadata, **fields}


def held_by_finalizers(body: Body, *finalizers: str) -> Body:
    """The object while it is being deleted and these finalizers keep it."""
    return {
        **body,
        "metadata": (
            body["metadata"] | {"deletionTimestamp": ago(5), "finalizers": list(finalizers)}
        ),
    }


def cr(kind: str, name: str, spec: Body, **fields: Any) -> Body:
    """An AIM object."""
    return obj(kind, name, spec=spec, **fields)


def status_condition(
    type_: str, status: bool | None, reason: str = "Because", message: str = ""
) -> Body:
    """A condition as it stands on an object."""
    word = {True: "True", False: "False", None: "Unknown"}[status]
    return {
        "type": type_,
        "status": word,
        "reason": reason,
        "message": message,
        "lastTransitionTime": ago(60),
        "observedGeneration": 1,
    }


def job(
    name: str, owner: tuple[str, str], state: str = "active", *, ended_s: float = 60, **fields: Any
) -> Body:
    """A Job: `state` is active, succeeded or failed, the end `ended_s` before NOW."""
    type_ = {"succeeded": "Complete", "failed": "Failed"}.get(state)
    ending = (
        []
        if type_ is None
        else [
            {
                "type": type_,
                "status": "True",
                "reason": "BackoffLimitExceeded",
                "lastTransitionTime": ago(ended_s),
            }
        ]
    )
    return obj(
        JOB.kind,
        name,
        owner=owner,
        **{"age_s": ended_s + 60, "status": {"conditions": ending}, **fields},
    )


def pod(
    name: str,
    owner: tuple[str, str],
    container: str,
    state: Body | None = None,
    *,
    phase: str = "Running",
    **fields: Any,
) -> Body:
    """A pod with one container in a state: {"running": {}}, {"waiting": {...}} or {"terminated":
    {...}}."""
    statuses = [
        {
            "name": container,
            "state": {"running": {}} if state is None else state,
            "restartCount": fields.pop("restarts", 0),
        }
    ]
    return obj(
        POD.kind,
        name,
        owner=owner,
        **{"status": {"phase": phase, "containerStatuses": statuses}, **fields},
    )


def ended_pod(
    name: str,
    owner: tuple[str, str],
    container: str,
    exit_code: int,
    message: str = "",
    **fields: Any,
) -> Body:
    """`sidecar`: another container still runs, so the pod does; `reason` and `finishedAt` are
    those of the end."""
    sidecar = fields.pop("sidecar", False)
    end = {"exitCode": exit_code, "message": message} | {
        key: fields.pop(key) for key in ("reason", "finishedAt") if key in fields
    }
    over = "Failed" if exit_code else "Succeeded"
    body = pod(
        name, owner, container, {"terminated": end}, phase="Running" if sidecar else over, **fields
    )
    if sidecar:
        body["status"]["containerStatuses"].append(
            {"name": "proxy", "ready": True, "state": {"running": {}}}
        )
    return body


def claim(
    name: str,
    owner: tuple[str, str],
    phase: str = "Bound",
    *,
    size: str = "20Gi",
    storage_class: str | None = "fast",
    **fields: Any,
) -> Body:
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}}
    return obj(
        CLAIM.kind,
        name,
        owner=owner,
        **{
            "spec": spec | ({} if storage_class is None else {"storageClassName": storage_class}),
            "status": {"phase": phase},
            **fields,
        },
    )


def storage_class(
    name: str = "fast", *, waits: bool = False, default: bool = True, **fields: Any
) -> Body:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    mode = "WaitForFirstConsumer" if waits else "Immediate"
    return obj(
        STORAGE_CLASS.kind,
        name,
        **{"annotations": annotations, "volumeBindingMode": mode, **fields},
    )


def config_map(name: str, owner: tuple[str, str], data: dict[str, str], **annotations: str) -> Body:
    marks = {
        labels.PREFIX + mark: value
        for mark, value in {"digest": digest(data), **annotations}.items()
    }
    return obj(CONFIG_MAP.kind, name, owner=owner, annotations=marks, data=data)


def projection(
    *bodies: Body,
    reports: Iterable[StatusReported] = (),
    observations: Iterable[Observation] = (),
    unserved: Iterable[str] = (),
) -> Projection:
    """The published parts of these objects, as a service gets them from the watcher: a planner that
    reads an unpublished field fails its tests."""
    missing = [
        KindSynced(kind=kind, resource_version="1", objects=0, installed=False) for kind in unserved
    ]
    events: list[StateEvent] = [
        *(changed(published_part(body)) for body in bodies),
        *reports,
        *observations,
        *missing,
    ]
    return reduce(fold, events, Projection())


def changed(body: Body) -> ObjectChanged:
    return changed_from_response(body)


def rejected(
    about: Key, target: Key, message: str = "quota exceeded", *, name_taken: bool = False
) -> Observation:
    return Observation(about, REJECTED, ApplyRejected(target, message, name_taken))


def field_conflict(target: Key) -> Observation:
    return Observation(target, FIELD_CONFLICT, FieldConflict(target, "spec", ("bully",)))


def action_summaries(plan: Plan) -> list[str]:
    """The actions in words, in order, such as `apply Job a`."""
    return [action.summary for action in plan.actions]


def condition_summary(plan: Plan, type_: str, about: Key | None = None) -> str:
    """`status reason` of a reported condition, or `nothing`."""
    found = [
        c
        for report in plan.reports
        if about in {None, report.key}
        for c in report.conditions
        if c.type == type_
    ]
    return f"{found[-1].status} {found[-1].reason}" if found else "nothing"


def message(plan: Plan, type_: str) -> str:
    return next(c.message for report in plan.reports for c in report.conditions if c.type == type_)


def fields(plan: Plan) -> Body:
    """Status fields of the last report."""
    return plan.reports[-1].fields


def applied(plan: Plan, kind: str) -> Body:
    """The last object of this kind that the plan applies."""
    return [
        action.body
        for action in plan.actions
        if isinstance(action, ApplyObject) and action.key.kind == kind
    ][-1]


def golden(test_file: str, name: str, body: Body) -> None:
    """Compare with `golden/<name>.yaml` beside the test file (see `golden_file`).

    `name` is that of the function that renders it, with dashes, and of a case where there are
    several: `inference-service.cached`.
    """
    text = yaml.safe_dump(plain(body), sort_keys=False, allow_unicode=True, width=150)
    golden_file(Path(test_file).parent / "golden" / f"{name}.yaml", text)


def golden_file(file: Path, text: str) -> None:
    """Compare with the file; with AIM_WRITE_GOLDEN=1 in the environment, write it instead."""
    if os.environ.get(WRITE_GOLDEN) == "1":
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert file.read_text() == text, (
        f"{file} differs; if that is meant, run the test with {WRITE_GOLDEN}=1 and look at the"
        " difference"
    )


def plain(body: Body) -> Body:
    """A copy as it goes over the wire: no part of it is another part."""
    copy: Body = json.loads(json.dumps(body))
    return copy
