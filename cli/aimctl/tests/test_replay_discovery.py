"""A failed discovery, recorded and replayed: the log that was read is in the record, not on the
bus."""

import datetime
from collections.abc import Sequence

import pytest

from aim_discovery.actions import ReadLog
from aim_discovery.dry_run_output import LOG, ReadLogResult
from aim_discovery.render import CONTAINER
from aimbus import Event
from aimcontroller import testing
from aimcontroller.projection import Observation, fold
from aimcontroller.testing import NOW, Body, ago, applied, projection
from aimctl.component_registry import planner
from aimctl.replay.check import check
from aimctl.replay.recording import VERSION, Header, Recording
from aimschema.messages import (
    ActionTaken,
    Finding,
    KindSynced,
    Message,
    StatusReported,
    subject_of,
)
from aimschema.reasons import DISCOVERY
from aimschema.resources import CONFIG_MAP, JOB, MODEL, POD, TEMPLATE, Key

SERVICE = planner(DISCOVERY)
T = Key(TEMPLATE.kind, testing.NAMESPACE, "t")
POD_KEY = Key(POD.kind, testing.NAMESPACE, "p")
MODEL_BODY = testing.cr(MODEL.kind, "m", {"name": "m:1", "image": "example.org/m:1"})
TEMPLATE_BODY = testing.cr(
    TEMPLATE.kind,
    "t",
    {
        "model": "m:1",
        "metric": "latency",
        "precision": "auto",
        "gpusPerReplica": 1,
        "gpuModel": "MI300X",
        "tensorParallelism": 1,
    },
)


def stored(kind: str) -> Body:
    """An object that discovery applies for the template, as the API server returns it."""
    body = applied(SERVICE.plan(projection(MODEL_BODY, TEMPLATE_BODY), T, NOW), kind)
    metadata = body["metadata"]
    return {
        **body,
        "metadata": metadata
        | {
            "uid": testing.uid_of(kind, metadata["name"]),
            "resourceVersion": "1",
            "creationTimestamp": ago(60),
        },
    }


def ended_job(*, failed: bool) -> Body:
    end = {"type": "Failed" if failed else "Complete", "status": "True"}
    ended = {**end, "reason": "BackoffLimitExceeded", "lastTransitionTime": ago(30)}
    return {**stored(JOB.kind), "status": {"conditions": [ended]}}


def event(seq: int, message: Message) -> Event:
    time = NOW + datetime.timedelta(seconds=seq / 100)
    return Event(seq, subject_of(message), message, time, (), "test")


def recording(bodies: Sequence[Body], read: ActionTaken, report: StatusReported) -> Recording:
    start: list[Message] = [
        *(testing.changed(body) for body in bodies),
        *(KindSynced(kind=each.kind, resource_version="1", objects=1) for each in SERVICE.watches),
    ]
    events = [event(seq, message) for seq, message in enumerate([*start, read, report], start=1)]
    header = Header(
        recording=VERSION,
        origin="test",
        until=NOW + datetime.timedelta(seconds=2),
        begins=len(start),
    )
    return Recording(header, tuple(events))


@pytest.mark.parametrize(
    ("exit_code", "result"),
    [
        pytest.param(3, ReadLogResult(last_lines="Traceback | KeyError: 'x'"), id="failed-job"),
        pytest.param(
            3,
            ReadLogResult(problem="no JSON; its last lines: x", last_lines="x"),
            id="failed-job-with-a-strange-log",
        ),
        pytest.param(
            0,
            ReadLogResult(
                problem="the image printed no JSON array; its last lines: try 7, next at noon",
                last_lines="try 7, next at noon",
            ),
            id="no-answer",
        ),
        pytest.param(0, ReadLogResult(problem="the log of pod p cannot be read: 404"), id="no-log"),
    ],
)
@pytest.mark.parametrize("release", ["this", "former"])
def test_a_failed_discovery_is_replayed(
    exit_code: int, result: ReadLogResult, release: str
) -> None:
    """A record of a former release has no finding: the content of the log is then unknown."""
    job = ended_job(failed=exit_code != 0)
    pod = testing.ended_pod(
        "p", (JOB.kind, job["metadata"]["name"]), CONTAINER, exit_code, finishedAt=ago(30)
    )
    bodies = [MODEL_BODY, TEMPLATE_BODY, stored(CONFIG_MAP.kind), job, pod]
    state = projection(*bodies)
    [reads] = [each for each in SERVICE.plan(state, T, NOW).actions if isinstance(each, ReadLog)]
    assert reads.of == POD_KEY
    failed = SERVICE.plan(fold(state, Observation(POD_KEY, LOG, result)), T, NOW).reports[0]
    assert result.last_lines in failed.conditions[0].message
    finding = Finding(message=result.problem, last_lines=result.last_lines)
    read = ActionTaken(
        service=DISCOVERY,
        verb="read-log",
        kind=T.kind,
        namespace=T.namespace,
        name=T.name,
        about=T,
        outcome="done",
        finding=finding if release == "this" else None,
    )
    found = check(SERVICE, recording(bodies, read, failed.message(DISCOVERY))).differences
    expected = [] if release == "this" else ["was reported then, would not be now"]
    assert [each.what for each in found if each.key == T] == expected
