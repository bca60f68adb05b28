"""The actions of discovery other than apply and delete: inspect images, and read the log of a
discovery pod (at most 4 MiB, once per pod)."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aim_discovery.actions import InspectImage, ReadLog
from aim_discovery.dry_run_output import LARGEST_LOG_BYTES, LOG, ReadLogResult, digest_log
from aim_discovery.inspection import Inspector
from aimcontroller.action import Action
from aimcontroller.action_log import ActionRecord
from aimcontroller.handler import ActionContext, ActionResult
from aimcontroller.projection import KubeObject, Observation
from aimcontroller.workloads import has_succeeded
from aimkube import Cluster, NotFound, Rejected
from aimschema.labels import JOB_UID
from aimschema.messages import Finding
from aimschema.resources import JOB, POD, Key

_ONE_AT_A_TIME = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-log")
"""A log as Python objects takes up to forty times its length: never two of them."""


class Handlers:
    """The handler of InspectImage and ReadLog actions."""

    def __init__(self, inspector: Inspector) -> None:
        self._inspector = inspector

    async def __call__(self, action: Action, ctx: ActionContext) -> ActionResult:
        match action:
            case InspectImage():
                return self._inspector.start(action, ctx)
            case ReadLog():
                return await read_log(action, ctx.cluster)
            case _:
                raise TypeError(f"not an action of discovery: {action}")


async def read_log(action: ReadLog, cluster: Cluster) -> ActionResult:
    """The observation is only for the object that was read: one that is deleted meanwhile would
    never be forgotten."""
    result = await _read(cluster, action)
    observation = Observation(action.of, LOG, result, action.uid)
    finding = Finding(message=result.problem, last_lines=result.last_lines)
    record = ActionRecord(finding=finding)
    return ActionResult(observations=(observation,), requeue_after_s=0.0, record=record)


async def _read(cluster: Cluster, action: ReadLog) -> ReadLogResult:
    namespace = action.of.namespace or ""
    name = action.of.name
    if action.of.kind == JOB.kind:
        found = await _newest_succeeded_pod(cluster, action)
        if found is None:
            return ReadLogResult(problem="the pod was deleted before its log was read")
        name = found
    try:
        raw = await cluster.read_log(
            namespace, name, action.container, limit_bytes=LARGEST_LOG_BYTES + 1
        )
    except (NotFound, Rejected) as error:
        return ReadLogResult(problem=f"could not read the log of pod {name}: {error}")
    return await asyncio.get_running_loop().run_in_executor(_ONE_AT_A_TIME, digest_log, raw)


async def _newest_succeeded_pod(cluster: Cluster, action: ReadLog) -> str | None:
    """By the label of the Job controller, and the owner: every user may set a label."""
    pods = (
        await cluster.list(POD, action.of.namespace, label_selector=f"{JOB_UID}={action.uid}")
    ).items
    succeeded = [
        pod["metadata"]
        for pod in pods
        if _has_succeeded(pod, action.container)
        and any(
            owner["uid"] == action.uid for owner in pod["metadata"].get("ownerReferences") or ()
        )
    ]
    newest = max(
        succeeded,
        key=lambda metadata: (metadata["creationTimestamp"], metadata["name"]),
        default=None,
    )
    return None if newest is None else str(newest["name"])


def _has_succeeded(pod: dict[str, Any], container: str) -> bool:
    metadata = pod["metadata"]
    return has_succeeded(
        KubeObject(
            Key(POD.kind, metadata.get("namespace"), metadata["name"]),
            metadata.get("uid", ""),
            0,
            pod,
        ),
        container,
    )
