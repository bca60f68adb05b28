"""What a service found out outside of the bus, taken from what it then recorded. Pure.

- A refusal by the API server is in the record of the action, word for word.
- The log of a discovery is not. Its answer is in the ConfigMap that followed, its failure in the
  report that followed. So a replay does not judge how the log was read, but all that comes of it.
- Nor is what a registry said of an image. The labels are in the ConfigMap that followed, a failure
  in the record of the look and the report that followed. Where neither did, nothing is known.
- How far a download is, is on the bus only in the cacher's own words; it stays unknown, and `known`
  leaves it out of a comparison.
"""

import datetime
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import structs

from aim_discovery.actions import InspectImage, ReadLog
from aim_discovery.catalogue import DIGEST_KEY, INSPECTION, LABELS_KEY, Inspection
from aim_discovery.dry_run_output import LOG, ReadLogResult
from aim_discovery.image_labels import ImageLabels
from aimbus import Event
from aimcontroller.action import Action, ApplyObject, ReadEvents
from aimcontroller.drift import same_owner
from aimcontroller.projection import (
    LATEST_WARNING,
    REJECTED,
    ApplyRejected,
    LatestWarning,
    Observation,
    Projection,
)
from aimcontroller.workloads import pods_of
from aimkube import is_from_webhook
from aimschema import labels, reasons
from aimschema.discovery_result import RESULT_KEY
from aimschema.messages import (
    ActionTaken,
    ObjectChanged,
    ReportedCondition,
    StatusReported,
    parse_timestamp,
)
from aimschema.names import discovery_config_map, image_config_map
from aimschema.resources import CONFIG_MAP, JOB, Key

_FAILED_TRY = re.compile(r"try (?P<attempt>\d+), next at (?P<due>\S+): (?P<why>.*)", re.DOTALL)
_LAST_LINES = "; last lines of the log: "
_BY_PROGRESS = frozenset({reasons.DOWNLOADING, reasons.VERIFYING})


def learned_from(
    action: ActionTaken,
    planned: Sequence[Action],
    seen: Projection,
    events: Sequence[Event],
    place: int,
) -> Iterator[Observation]:
    """What the service knew once the action at `events[place]` was over. `planned`: what it
    planned for the object right before."""
    target = Key(action.kind, action.namespace, action.name)
    refusal: ApplyRejected | None = seen.learned(action.about, REJECTED)
    if action.outcome == "refused":
        yield Observation(
            action.about,
            REJECTED,
            ApplyRejected(target, action.detail, _name_taken(target, planned, seen)),
        )
    elif action.outcome == "retry":
        yield Observation(
            action.about,
            REJECTED,
            ApplyRejected(
                target, action.detail, transient=True, by_webhook=is_from_webhook(action.detail)
            ),
        )
    elif refusal is not None and refusal.target == target:
        yield Observation(action.about, REJECTED, None)
    if action.verb == ReadEvents.verb and action.outcome == "done":
        reason, _, note = action.detail.partition(": ")
        yield Observation(target, LATEST_WARNING, LatestWarning(events[place].time, reason, note))
    if action.verb == InspectImage.verb and action.outcome == "done":
        look = next((each for each in planned if isinstance(each, InspectImage)), None)
        found = (
            None if look is None else _what_the_registry_said(look, action.detail, events, place)
        )
        if found is not None:
            yield Observation(action.about, INSPECTION, found)
    if action.verb == ReadLog.verb and action.outcome == "done":
        result = _what_the_log_said(action.about, events, place)
        if result is not None:
            yield from (Observation(key, LOG, result) for key in _sources(action.about, seen))


def _name_taken(target: Key, planned: Sequence[Action], seen: Projection) -> bool:
    """Whether the service would not write over what is somebody else's, as aimcontroller.applier
    decides it."""
    present = seen.get(target)
    bodies = [each.body for each in planned if isinstance(each, ApplyObject) and each.key == target]
    return present is not None and any(not same_owner(body, present.body) for body in bodies)


def _sources(template: Key, seen: Projection) -> list[Key]:
    """The pods and Jobs whose log it may have been: the record names the template only."""
    present = seen.get(template)
    jobs = [] if present is None else seen.owned(present.uid, JOB.kind, present.key.namespace)
    return [key for job in jobs for key in (job.key, *(pod.key for pod in pods_of(seen, job)))]


def _what_the_log_said(template: Key, events: Sequence[Event], place: int) -> ReadLogResult | None:
    """By what came first: the answer that was kept, the failure that was reported. None where
    neither did before the log was read again."""
    kept = Key(CONFIG_MAP.kind, template.namespace, discovery_config_map(template.name))
    for event in events[place + 1 :]:
        match event.message:
            case ObjectChanged(kind=kind, namespace=namespace, name=name) as changed if (
                kind,
                namespace,
                name,
            ) == kept:
                answer = (changed.object.get("data") or {}).get(RESULT_KEY)
                if answer is not None:
                    return ReadLogResult(str(answer))
            case StatusReported(service=reasons.DISCOVERY) as said if (
                said.kind,
                said.namespace,
                said.name,
            ) == template:
                failed = next(
                    (c for c in said.conditions if c.reason == reasons.DISCOVERY_FAILED), None
                )
                match_ = None if failed is None else _FAILED_TRY.fullmatch(failed.message)
                if match_ is not None:
                    return _failure(match_["why"])
            case ActionTaken(service=reasons.DISCOVERY, verb=verb, about=about) if (
                about == template and verb == ReadLog.verb
            ):
                return None
            case _:
                pass
    return None


def _failure(why: str) -> ReadLogResult:
    job, found, lines = why.partition(_LAST_LINES)
    if found and "exit code" in job:
        return ReadLogResult(problem=why, last_lines=lines)
    return ReadLogResult(problem=why)


def _what_the_registry_said(
    look: InspectImage, problem: str, events: Sequence[Event], place: int
) -> Inspection | None:
    """By what came first: the labels that were kept, the failure that was reported. None where
    neither did before the next look."""
    kept, at = image_config_map(look.model.name), events[place].time
    for event in events[place + 1 :]:
        match event.message:
            case ObjectChanged(kind=CONFIG_MAP.kind, name=name, object=body) if (
                name == kept and not problem
            ):
                if (body["metadata"].get("annotations") or {}).get(
                    labels.ANNOTATION_INPUTS
                ) == look.inputs:
                    found = msgspec.json.decode(body["data"][LABELS_KEY], type=ImageLabels)
                    return Inspection(
                        look.image, look.inputs, look.attempt, at, found, body["data"][DIGEST_KEY]
                    )
            case StatusReported(service=reasons.DISCOVERY) as said if (
                problem and (said.kind, said.namespace, said.name) == look.model
            ):
                failed = next(
                    (c for c in said.conditions if c.type == reasons.IMAGE_INSPECTED), None
                )
                return None if failed is None else _failed_look(look, at, failed, problem)
            case ActionTaken(service=reasons.DISCOVERY, verb=verb, about=about) if (
                about == look.model and verb == InspectImage.verb
            ):
                return None
            case _:
                pass
    return None


def _failed_look(
    look: InspectImage, at: datetime.datetime, said: ReportedCondition, problem: str
) -> Inspection | None:
    """The number of the try is the report's: a process that began anew in between has counted
    from 1."""
    try_ = _FAILED_TRY.fullmatch(said.message)
    if try_ is None:
        return None
    again_s = (parse_timestamp(try_["due"]) - at).total_seconds()
    return Inspection(
        look.image,
        look.inputs,
        int(try_["attempt"]),
        at,
        reason=said.reason,
        message=problem,
        retry_after_s=again_s,
    )


def known(report: Any) -> Any:
    """A report without what rests on facts that a replay cannot know; a status as it is."""
    if (
        not isinstance(report, StatusReported)
        or report.service != reasons.CACHER
        or not any(c.type == reasons.FILLED and c.reason in _BY_PROGRESS for c in report.conditions)
    ):
        return report
    fields = {name: value for name, value in report.fields.items() if name != "progress"}
    return structs.replace(
        report,
        conditions=tuple(_without_progress(condition) for condition in report.conditions),
        fields=fields,
    )


def _without_progress(condition: ReportedCondition) -> ReportedCondition:
    if condition.type == reasons.FILLED and condition.reason in _BY_PROGRESS:
        return msgspec.structs.replace(condition, reason=reasons.DOWNLOADING, message="")
    return condition
