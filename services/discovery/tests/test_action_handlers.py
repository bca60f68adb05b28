"""Reading the log of a discovery pod, also of one without any event."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import cast

import pytest

import aimkube
from aim_discovery.action_handlers import read_log
from aim_discovery.actions import ReadLog
from aim_discovery.dry_run_output import LARGEST_LOG_BYTES, LOG, ReadLogResult, digest_log
from aim_discovery.render import CONTAINER
from aimcontroller.action_log import ActionRecord
from aimcontroller.handler import ActionResult, Body
from aimcontroller.projection import Observation
from aimkube import Listing, NotFound
from aimschema.labels import JOB_UID
from aimschema.messages import Finding
from aimschema.resources import JOB, POD, Key, Resource

NAMESPACE = "ml"
OF_JOB = ReadLog(Key(JOB.kind, NAMESPACE, "j"), "job-uid", CONTAINER)
OF_POD = ReadLog(Key(POD.kind, NAMESPACE, "p"), "pod-uid", CONTAINER)


def pod(
    name: str,
    *,
    phase: str = "Succeeded",
    owner: str = "job-uid",
    created: str = "2030-01-01T00:00:00Z",
) -> Body:
    metadata = {
        "name": name,
        "creationTimestamp": created,
        "labels": {JOB_UID: "job-uid"},
        "ownerReferences": [{"uid": owner}],
    }
    return {"metadata": metadata, "status": {"phase": phase}}


def with_sidecar(name: str, exit_code: int, **metadata: str) -> Body:
    """A pod whose container of the image has ended while another one still runs."""
    open_pod = pod(name, phase="Running")
    ends = {"name": CONTAINER, "state": {"terminated": {"exitCode": exit_code}}}
    open_pod["status"]["containerStatuses"] = [{"name": "proxy", "state": {"running": {}}}, ends]
    open_pod["metadata"] |= metadata
    return open_pod


class Cluster:
    """Pods and the logs of some of them."""

    def __init__(self, pods: Iterable[Body], logs: Mapping[str, bytes]) -> None:
        self._pods = tuple(pods)
        self._logs = logs

    async def list(self, resource: Resource, namespace: str, *, label_selector: str) -> Listing:
        assert (resource, namespace, label_selector) == (POD, NAMESPACE, f"{JOB_UID}=job-uid")
        return Listing(self._pods, "1")

    async def read_log(
        self, namespace: str, name: str, container: str, *, limit_bytes: int
    ) -> bytes:
        assert (namespace, container) == (NAMESPACE, CONTAINER)
        if name not in self._logs:
            raise NotFound(f"no pod {name}")
        return self._logs[name][:limit_bytes]


async def result_of(action: ReadLog, pods: list[Body], logs: dict[str, bytes]) -> ActionResult:
    return await read_log(action, cast(aimkube.Cluster, Cluster(pods, logs)))


@pytest.mark.parametrize(
    ("action", "pods", "logs", "result"),
    [
        pytest.param(OF_POD, [], {"p": b"[]"}, digest_log(b"[]"), id="of-a-pod"),
        pytest.param(
            OF_JOB,
            [pod("a"), pod("b", created="2030-01-01T00:00:01Z"), pod("c", phase="Failed")],
            {"b": b"B"},
            digest_log(b"B"),
            id="of-the-newest",
        ),
        pytest.param(
            OF_JOB,
            [pod("a", owner="another")],
            {"a": b"A"},
            ReadLogResult(problem="the pod was deleted before its log was read"),
            id="of-no-pod",
        ),
        pytest.param(
            OF_JOB,
            [with_sidecar("a", 1), with_sidecar("b", 0)],
            {"b": b"B"},
            digest_log(b"B"),
            id="beside-a-sidecar",
        ),
        pytest.param(
            OF_JOB,
            [with_sidecar("a", 0, deletionTimestamp="2030-01-01T00:00:00Z")],
            {"a": b"A"},
            ReadLogResult(problem="the pod was deleted before its log was read"),
            id="of-a-pod-that-is-being-deleted",
        ),
        pytest.param(
            OF_POD,
            [],
            {"p": b"x" * (LARGEST_LOG_BYTES + 9)},
            ReadLogResult(problem="the log is longer than 4 MiB", last_lines="(too long)"),
            id="too-long",
        ),
    ],
)
async def test_a_log(
    action: ReadLog, pods: list[Body], logs: dict[str, bytes], result: ReadLogResult
) -> None:
    observation = Observation(action.of, LOG, result, action.uid)
    finding = Finding(message=result.problem, last_lines=result.last_lines)
    assert await result_of(action, pods, logs) == ActionResult(
        observations=(observation,), requeue_after_s=0.0, record=ActionRecord(finding=finding)
    )


async def test_a_deleted_log_is_a_result_too() -> None:
    [observation] = (await result_of(OF_POD, [], {})).observations
    assert isinstance(observation.value, ReadLogResult)
    assert "could not read the log of pod p" in observation.value.problem


async def test_others_work_while_a_log_is_parsed() -> None:
    other = asyncio.ensure_future(asyncio.sleep(0))
    await result_of(OF_POD, [], {"p": b'[{"\n' * 1_000_000})
    assert other.done()
