"""What a service found out outside of the bus, taken from what it then recorded. Pure.

- A refusal by the API server is in the record of the action, word for word.
- The log of a discovery is not. Its answer is in the ConfigMap that followed, its failure in the report that followed. So a replay does not judge how
  the log was read, but all that comes of it.
- How far a download is, is on the bus only in the cacher's own words; it stays unknown, and `known` leaves it out of a comparison.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import structs

from aim_discovery.plan import LOG, ReadLogResult
from aimbus import Event
from aimschema import reasons
from aimschema.discovered import RESULT_KEY
from aimschema.messages import ActionTaken, ObjectChanged, ReportedCondition, StatusReported
from aimschema.names import discovery_config_map
from aimschema.resources import CONFIG_MAP, JOB, Key
from aimservice.projection import REFUSED, Learned, Projection, Refusal
from aimservice.workloads import pods_of

READ_LOG = "read-log"
_FAILED_TRY = re.compile(r"try \d+, next at \S+: (?P<why>.*)", re.DOTALL)
_LAST_LINES = "; last lines of the log: "
_BY_PROGRESS = frozenset({reasons.DOWNLOADING, reasons.VERIFYING})


def learned_from(action: ActionTaken, seen: Projection, events: Sequence[Event], place: int) -> Iterator[Learned]:
    """What the service knew once the action at `events[place]` was over."""
    target = Key(action.kind, action.namespace, action.name)
    refusal: Refusal | None = seen.learned(action.about, REFUSED)
    if action.outcome == "refused":
        yield Learned(action.about, REFUSED, Refusal(target, action.detail))
    elif refusal is not None and refusal.target == target:
        yield Learned(action.about, REFUSED, None)
    if action.verb == READ_LOG and action.outcome == "done":
        result = _what_the_log_said(action.about, events, place)
        if result is not None:
            yield from (Learned(key, LOG, result) for key in _sources(action.about, seen))


def _sources(template: Key, seen: Projection) -> list[Key]:
    """The pods and Jobs whose log it may have been: the record names the template only."""
    present = seen.get(template)
    jobs = [] if present is None else seen.owned(present.uid, JOB.kind)
    return [key for job in jobs for key in (job.key, *(pod.key for pod in pods_of(seen, job)))]


def _what_the_log_said(template: Key, events: Sequence[Event], place: int) -> ReadLogResult | None:
    """By what came first: the answer that was kept, the failure that was reported. None where neither did before the log was read again."""
    kept = Key(CONFIG_MAP.kind, template.namespace, discovery_config_map(template.name))
    for event in events[place + 1 :]:
        match event.message:
            case ObjectChanged(kind=kind, namespace=namespace, name=name) as changed if (kind, namespace, name) == kept:
                answer = (changed.object.get("data") or {}).get(RESULT_KEY)
                if answer is not None:
                    return ReadLogResult(f"[{answer}]")
            case StatusReported(service=reasons.DISCOVERY) as said if (said.kind, said.namespace, said.name) == template:
                failed = next((c for c in said.conditions if c.reason == reasons.DISCOVERY_FAILED), None)
                match_ = None if failed is None else _FAILED_TRY.fullmatch(failed.message)
                if match_ is not None:
                    return _failure(match_["why"])
            case ActionTaken(service=reasons.DISCOVERY, verb="read-log", about=about) if about == template:
                return None
            case _:
                pass
    return None


def _failure(why: str) -> ReadLogResult:
    job, found, lines = why.partition(_LAST_LINES)
    if found and "exit code" in job:
        return ReadLogResult("\n".join(lines.split(" | ")))
    return ReadLogResult(problem=why)


def known(report: Any) -> Any:
    """A report without what rests on facts that a replay cannot know; a status as it is."""
    if (
        not isinstance(report, StatusReported)
        or report.service != reasons.CACHER
        or not any(c.type == reasons.FILLED and c.reason in _BY_PROGRESS for c in report.conditions)
    ):
        return report
    fields = {name: value for name, value in report.fields.items() if name != "progress"}
    return structs.replace(report, conditions=tuple(_without_progress(condition) for condition in report.conditions), fields=fields)


def _without_progress(condition: ReportedCondition) -> ReportedCondition:
    if condition.type == reasons.FILLED and condition.reason in _BY_PROGRESS:
        return msgspec.structs.replace(condition, reason=reasons.DOWNLOADING, message="")
    return condition
