"""What a service found out outside of the bus, taken from what it then recorded. Pure.

- The record of an action has what the API server rejected, why a log has no answer, why an image
  could not be inspected, and which Warning Event is the newest (Finding).
- What a log or an image answered is in the ConfigMap that followed. So a replay does not judge how
  it was read, but all that follows from it.
- Records of releases before 0.3 have no Finding. Then a failed inspection is taken from the report
  that followed, as far as its fields go, and a failed discovery is unknown.
- The progress of a download is not stored; `known` leaves it out of a comparison.
"""

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
    BY_OWNER,
    BY_WEBHOOK,
    ActionTaken,
    Finding,
    ObjectChanged,
    ReportedCondition,
    StatusReported,
)
from aimschema.names import discovery_config_map, image_config_map
from aimschema.resources import CONFIG_MAP, JOB, Key

_BY_PROGRESS = frozenset({reasons.DOWNLOADING, reasons.VERIFYING})


def infer_observations(
    action: ActionTaken,
    planned: Sequence[Action],
    state: Projection,
    events: Sequence[Event],
    place: int,
) -> Iterator[Observation]:
    """What the service knew after the action at `events[place]`. `planned`: its actions for the
    object right before."""
    yield from _rejections(action, planned, state)
    if action.outcome != "done":
        return
    if action.verb == ReadEvents.verb:
        target = Key(action.kind, action.namespace, action.name)
        finding = action.finding or Finding()
        warning = LatestWarning(events[place].time, finding.reason, finding.message)
        yield Observation(target, LATEST_WARNING, warning)
    elif action.verb == InspectImage.verb:
        requested = next((each for each in planned if isinstance(each, InspectImage)), None)
        inspection = None if requested is None else _inspection(requested, action, events, place)
        if inspection is not None:
            yield Observation(action.about, INSPECTION, inspection)
    elif action.verb == ReadLog.verb:
        result = _log_result(action, events, place)
        if result is not None:
            yield from (Observation(key, LOG, result) for key in _sources(action.about, state))


def _rejections(
    action: ActionTaken, planned: Sequence[Action], state: Projection
) -> Iterator[Observation]:
    target = Key(action.kind, action.namespace, action.name)
    rejection: ApplyRejected | None = state.observation(action.about, REJECTED)
    if action.outcome in {"refused", "retry"}:
        rejected = ApplyRejected(
            target,
            action.detail,
            name_taken=_is_name_taken(action, target, planned, state),
            transient=action.outcome == "retry",
            by_webhook=_is_by_webhook(action),
        )
        yield Observation(action.about, REJECTED, rejected)
    elif rejection is not None and rejection.target == target:
        yield Observation(action.about, REJECTED, None)


def _is_by_webhook(action: ActionTaken) -> bool:
    """A record before 0.3 has only the answer of the API server."""
    if action.rejected_by:
        return action.rejected_by == BY_WEBHOOK
    return action.outcome == "retry" and is_from_webhook(action.detail)


def _is_name_taken(
    action: ActionTaken, target: Key, planned: Sequence[Action], state: Projection
) -> bool:
    """Whether the object belongs to another owner. For a record before 0.3, as
    aimcontroller.applier decides it."""
    if action.rejected_by or action.outcome == "retry":
        return action.rejected_by == BY_OWNER
    existing = state.get(target)
    bodies = [each.body for each in planned if isinstance(each, ApplyObject) and each.key == target]
    return existing is not None and any(not same_owner(body, existing.body) for body in bodies)


def _sources(template: Key, state: Projection) -> list[Key]:
    """The pods and Jobs whose log it may have been: the record names the template only."""
    existing = state.get(template)
    if existing is None:
        return []
    jobs = state.owned(existing.uid, JOB.kind, existing.key.namespace)
    return [key for job in jobs for key in (job.key, *(pod.key for pod in pods_of(state, job)))]


def _log_result(action: ActionTaken, events: Sequence[Event], place: int) -> ReadLogResult | None:
    """What was read of a log. The answer is in the ConfigMap, where one follows before the log is
    read again; None where nothing is known."""
    template, finding = action.about, action.finding
    if finding is not None and finding.message:
        return ReadLogResult(problem=finding.message, last_lines=finding.last_lines)
    stored = Key(CONFIG_MAP.kind, template.namespace, discovery_config_map(template.name))
    for event in _until_repeated(action, events, place):
        match event.message:
            case ObjectChanged() as changed if (
                Key(changed.kind, changed.namespace, changed.name) == stored
            ):
                answer = (changed.object.get("data") or {}).get(RESULT_KEY)
                if answer is not None:
                    last_lines = "" if finding is None else finding.last_lines
                    return ReadLogResult(str(answer), last_lines=last_lines)
            case _:
                pass
    return None if finding is None else ReadLogResult(last_lines=finding.last_lines)


def _until_repeated(action: ActionTaken, events: Sequence[Event], place: int) -> Iterator[Event]:
    """The events after an action, up to the next of the same sort."""
    for later in range(place + 1, len(events)):
        event = events[later]
        match event.message:
            case ActionTaken(service=service, verb=verb, about=about) if (service, verb, about) == (
                action.service,
                action.verb,
                action.about,
            ):
                return
            case _:
                yield event


def _inspection(
    requested: InspectImage, action: ActionTaken, events: Sequence[Event], place: int
) -> Inspection | None:
    """How an inspection ended; None where the record does not show it."""
    if action.finding is None and not action.detail:
        return _labels_found(requested, action, events, place)
    finding = action.finding or _finding_of_former_release(requested, action, events, place)
    if finding is None:
        return None
    return Inspection(
        requested.image,
        requested.inputs,
        finding.attempt,
        events[place].time,
        reason=finding.reason,
        message=finding.message,
        retry_after_s=finding.retry_after_s,
        way_out=finding.remedy,
    )


def _labels_found(
    requested: InspectImage, action: ActionTaken, events: Sequence[Event], place: int
) -> Inspection | None:
    """The labels are in the ConfigMap of the same inputs, where one follows before the next
    inspection."""
    stored = Key(CONFIG_MAP.kind, "", image_config_map(requested.model.name))
    for event in _until_repeated(action, events, place):
        match event.message:
            case ObjectChanged(kind=stored.kind, name=stored.name, object=body) if (
                body["metadata"].get("annotations") or {}
            ).get(labels.ANNOTATION_INPUTS) == requested.inputs:
                return Inspection(
                    requested.image,
                    requested.inputs,
                    requested.attempt,
                    events[place].time,
                    msgspec.json.decode(body["data"][LABELS_KEY], type=ImageLabels),
                    body["data"][DIGEST_KEY],
                )
            case _:
                pass
    return None


def _finding_of_former_release(
    requested: InspectImage, action: ActionTaken, events: Sequence[Event], place: int
) -> Finding | None:
    """The reason is that of the report that followed; None where none did."""
    for event in _until_repeated(action, events, place):
        match event.message:
            case StatusReported(service=reasons.DISCOVERY) as report if (
                Key(report.kind, report.namespace, report.name) == requested.model
            ):
                failed = next(
                    (each for each in report.conditions if each.type == reasons.IMAGE_INSPECTED),
                    None,
                )
                if failed is None or failed.status != "False":
                    return None
                return Finding(
                    reason=failed.reason, message=action.detail, attempt=requested.attempt
                )
            case _:
                pass
    return None


def without_unknowable(report: Any) -> Any:
    """A report without what a replay cannot know, and without the fields for programs that a former
    release does not have: the message has the same. A status as it is."""
    if not isinstance(report, StatusReported):
        return report
    report = structs.replace(
        report,
        conditions=tuple(
            ReportedCondition(
                type=each.type, status=each.status, reason=each.reason, message=each.message
            )
            for each in report.conditions
        ),
        warnings=tuple(structs.replace(each, since="") for each in report.warnings),
    )
    if report.service != reasons.CACHER or not any(
        c.type == reasons.FILLED and c.reason in _BY_PROGRESS for c in report.conditions
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
