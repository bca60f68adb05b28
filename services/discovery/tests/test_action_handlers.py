"""Reading the log of a discovery pod, also of one without any event."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, cast

import pytest

from aim_discovery.action_handlers import read_log
from aim_discovery.actions import ReadLog
from aim_discovery.dry_run_output import LARGEST_LOG_BYTES, LOG, ReadLogResult, digested
from aim_discovery.render import CONTAINER
from aimcontroller import testing
from aimcontroller.controller import ActionRecord, Controller
from aimcontroller.projection import Observation
from aimkube import Listing, NotFound
from aimschema.labels import JOB_UID
from aimschema.messages import Finding
from aimschema.resources import JOB, POD, TEMPLATE, Key, Resource

NAMESPACE = "ml"
ABOUT = Key(TEMPLATE.kind, NAMESPACE, "t")
OF_JOB = ReadLog(Key(JOB.kind, NAMESPACE, "j"), "job-uid", CONTAINER)
OF_POD = ReadLog(Key(POD.kind, NAMESPACE, "p"), "pod-uid", CONTAINER)

KNOWN = [
    testing.obj(JOB.kind, "j", namespace=NAMESPACE, uid="job-uid"),
    testing.obj(POD.kind, "p", namespace=NAMESPACE, uid="pod-uid"),
]


def pod(
    name: str,
    *,
    phase: str = "Succeeded",
    owner: str = "job-uid",
    created: str = "2030-01-01T00:00:00Z",
) -> dict[str, Any]:
    metadata = {
        "name": name,
        "creationTimestamp": created,
        "labels": {JOB_UID: "job-uid"},
        "ownerReferences": [{"uid": owner}],
    }
    return {"metadata": metadata, "status": {"phase": phase}}


def with_sidecar(name: str, exit_code: int, **metadata: str) -> dict[str, Any]:
    """A pod whose container of the image has ended while another one still runs."""
    open_pod = pod(name, phase="Running")
    ends = {"name": CONTAINER, "state": {"terminated": {"exitCode": exit_code}}}
    open_pod["status"]["containerStatuses"] = [{"name": "proxy", "state": {"running": {}}}, ends]
    open_pod["metadata"] |= metadata
    return open_pod


class Cluster:
    """Pods and the logs of some of them."""

    def __init__(self, pods: Iterable[dict[str, Any]], logs: Mapping[str, bytes]) -> None:
        self._pods, self._logs = tuple(pods), logs

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


class Records:
    """The part of the loop that a handler uses."""

    def __init__(self, cluster: Cluster, *existing: dict[str, Any]) -> None:
        self.cluster = cluster
        self.projection = testing.projection(*existing)
        self.done: list[object] = []
        self.findings: list[Finding | None] = []

    async def record(
        self, action: object, _about: Key, _causes: object, record: ActionRecord
    ) -> None:
        self.done.append(action)
        self.findings.append(record.finding)

    def learn(self, fact: Observation, *_: object) -> None:
        self.done.append(fact)


@pytest.mark.parametrize(
    ("action", "pods", "logs", "result"),
    [
        pytest.param(OF_POD, [], {"p": b"[]"}, digested(b"[]"), id="of-a-pod"),
        pytest.param(
            OF_JOB,
            [pod("a"), pod("b", created="2030-01-01T00:00:01Z"), pod("c", phase="Failed")],
            {"b": b"B"},
            digested(b"B"),
            id="of-the-newest",
        ),
        pytest.param(
            OF_JOB,
            [pod("a", owner="another")],
            {"a": b"A"},
            ReadLogResult(problem="its pod is gone before its log could be read"),
            id="of-no-pod",
        ),
        pytest.param(
            OF_JOB,
            [with_sidecar("a", 1), with_sidecar("b", 0)],
            {"b": b"B"},
            digested(b"B"),
            id="beside-a-sidecar",
        ),
        pytest.param(
            OF_JOB,
            [with_sidecar("a", 0, deletionTimestamp="2030-01-01T00:00:00Z")],
            {"a": b"A"},
            ReadLogResult(problem="its pod is gone before its log could be read"),
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
    action: ReadLog, pods: list[dict[str, Any]], logs: dict[str, bytes], result: ReadLogResult
) -> None:
    loop = Records(Cluster(pods, logs), *KNOWN)
    await read_log(cast(Controller, loop), action, ABOUT, [1])
    assert loop.done == [action, Observation(action.of, LOG, result)]
    assert loop.findings == [Finding(message=result.problem, last_lines=result.last_lines)]


async def test_a_deleted_log_is_a_result_too() -> None:
    loop = Records(Cluster([], {}), *KNOWN)
    await read_log(cast(Controller, loop), OF_POD, ABOUT, [1])
    [_, fact] = loop.done
    assert isinstance(fact, Observation)
    assert isinstance(fact.value, ReadLogResult)
    assert "the log of pod p cannot be had" in fact.value.problem


@pytest.mark.parametrize(
    "existing",
    [[], [testing.obj(POD.kind, "p", namespace=NAMESPACE, uid="a-later-pod")]],
    ids=["gone", "another-pod"],
)
async def test_the_log_of_a_deleted_pod_is_discarded(
    existing: list[dict[str, Any]],
) -> None:
    loop = Records(Cluster([], {"p": b"[]"}), *existing)
    await read_log(cast(Controller, loop), OF_POD, ABOUT, [1])
    assert loop.done == [OF_POD]


async def test_others_work_while_a_log_is_parsed() -> None:
    loop = Records(Cluster([], {"p": b'[{"\n' * 1_000_000}), *KNOWN)

    async def what_is_done_meanwhile() -> list[object]:
        return list(loop.done)

    other = asyncio.ensure_future(what_is_done_meanwhile())
    await read_log(cast(Controller, loop), OF_POD, ABOUT, [1])
    assert other.done()
    assert (await other, len(loop.done)) == ([], 2)
