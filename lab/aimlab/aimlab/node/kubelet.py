"""The node's kubelet: one worker for each Pod bound to it, and the end of deleted Pods.

A pod with a deletion timestamp is stopped within its grace period and then removed; a pod that no
longer exists is killed.
"""

import asyncio
import contextlib
import logging
import shutil

from aimlab.controller_loop import delete_of, try_write
from aimlab.informer import Informer
from aimlab.kinds import Body, is_deleting, is_finished, uid_of
from aimlab.node import node_object
from aimlab.node.worker import Node, PodWorker
from aimschema.resources import POD

_LOG = logging.getLogger(__name__)
SHUTDOWN_GRACE_S = 3.0
RETRY_S = 1.0


class Kubelet:
    def __init__(self, node: Node, mirror: Informer) -> None:
        self._node = node
        self._mirror = mirror
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}

    def worker_of(self, namespace: str, pod: str) -> PodWorker | None:
        """The worker of the pod of that name, ended ones included, for as long as the pod is
        there."""
        body = self._mirror.objects.find(POD, namespace, pod)
        return self._workers.get(uid_of(body)) if body is not None else None

    async def run(self) -> None:
        """Works until cancelled; then no process of any pod is left."""
        changed = self._mirror.listen()
        await self._mirror.loaded.wait()
        try:
            while True:
                changed.clear()
                self._reconcile()
                await changed.wait()
        finally:
            await self._stop_all()

    def _reconcile(self) -> None:
        ours = {
            uid_of(pod): pod
            for pod in self._mirror.objects.all(POD)
            if pod["spec"].get("nodeName") == node_object.NAME
        }
        for uid, pod in ours.items():
            if uid not in self._workers:
                self._begin(uid, pod)
            if is_deleting(pod) and uid not in self._ending:
                self._ending[uid] = asyncio.create_task(self._end(pod))
        for uid in self._workers.keys() - ours.keys() - self._ending.keys():
            self._ending[uid] = asyncio.create_task(self._forget(uid))

    def _begin(self, uid: str, pod: Body) -> None:
        worker = self._workers[uid] = PodWorker(self._node, pod)
        if not is_deleting(pod) and not is_finished(pod):
            self._tasks[uid] = asyncio.create_task(worker.run())
            self._tasks[uid].add_done_callback(lambda task: _log_failure(task, pod))

    async def _end(self, pod: Body) -> None:
        """SIGTERM, grace, SIGKILL; then the object goes, and with it everything the pod had."""
        uid = uid_of(pod)
        await self._stop(uid, pod["metadata"].get("deletionGracePeriodSeconds"))
        if await try_write(self._node.cluster, delete_of(POD, pod, grace_period_s=0)):
            await self._forget(uid)
        else:
            await asyncio.sleep(RETRY_S)
            self._ending[uid] = asyncio.create_task(self._end(pod))

    async def _forget(self, uid: str) -> None:
        await self._stop(uid, 0)
        await asyncio.to_thread(shutil.rmtree, self._node.pod_dir(uid), ignore_errors=True)
        self._workers.pop(uid, None)
        self._ending.pop(uid, None)

    async def _stop(self, uid: str, grace_s: float | None) -> None:
        task = self._tasks.pop(uid, None)
        if task is None:
            return
        if grace_s is not None:
            self._workers[uid].grace_s = grace_s
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task

    async def _stop_all(self) -> None:
        for worker in self._workers.values():
            worker.grace_s = min(worker.grace_s, SHUTDOWN_GRACE_S)
        for task in self._ending.values():
            task.cancel()
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), *self._ending.values(), return_exceptions=True)


def _log_failure(task: asyncio.Task[None], pod: Body) -> None:
    if not task.cancelled() and task.exception() is not None:
        _LOG.error(
            "pod %s broke the node's worker", pod["metadata"]["name"], exc_info=task.exception()
        )
