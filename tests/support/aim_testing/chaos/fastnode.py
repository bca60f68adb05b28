"""Node, KServe and gateway in one, without processes: what they would write into the API server
double, after small random delays.

It watches the double's store directly and writes to the double directly, so that faults between the
services and their API do not touch it. As controllers do, it works on an object once at a time and
reads it first, so that a slow step never overwrites what a later one wrote. It keeps the truth that
the observer judges by: every run of every Job, which claims hold files, which templates were asked.
"""

import asyncio
import contextlib
import json
import random
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from aim_testing.chaos import fleet
from aimkube import AlreadyExists, Cluster, Conflict, NotFound
from aimlab.apiserver import ApiServer
from aimlab.apiserver.store import Change, CollectionKey
from aimlab.certificates import make_certificate
from aimlab.kinds import Body, is_deleting, owner_reference, stamp
from aimlab.kserve.render import replicas_of
from aimlab.node.jobs import pod_for
from aimlab.node.node_object import ADDRESS, NAME, node_object, node_status
from aimlab.node.pv_binder import STORAGE_CLASSES
from aimschema import labels
from aimschema.discovery_result import GIB
from aimschema.resources import (
    CLAIM,
    GATEWAY,
    INFERENCE_SERVICE,
    JOB,
    NODE,
    POD,
    ROUTE,
    STORAGE_CLASS,
    Resource,
)

SLOWEST_S = 0.15
EXIT_AGAIN = 20
EXIT_NOT_FOUND = 10
SIZE_BYTES = 2 * GIB


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one Job. `inputs` is what it was made from; `owner` the uid of what it was made
    for."""

    namespace: str
    job: str
    owner: str
    inputs: str
    succeeded: bool
    started_s: float
    ended_s: float


@dataclass
class Truth:
    """What really happened. `filled`: uids of claims that hold all files; `removed_owners`: uids of
    templates whose image has answered."""

    runs: list[Run] = field(default_factory=list)
    filled: set[str] = field(default_factory=set)
    removed_owners: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)

    def remember(self, job: Body, exit_code: int, started_s: float, ended_s: float) -> None:
        """A Job has ended, but its status does not show it yet."""
        metadata = job["metadata"]
        owner = metadata["ownerReferences"][0]["uid"]
        inputs = metadata["annotations"].get(labels.ANNOTATION_INPUTS, "")
        self.runs.append(
            Run(
                metadata["namespace"],
                metadata["name"],
                owner,
                inputs,
                exit_code == 0,
                started_s,
                ended_s,
            )
        )
        args = job["spec"]["template"]["spec"]["containers"][0]["args"]
        if exit_code == 0 and args[0] == "fetch":
            self.filled.add(inputs.partition(".")[2])
        if exit_code == 0 and args[0] == "dry-run":
            self.removed_owners.add(owner)


def outcome_of(job: Body, truth: Truth, *, flaky: bool) -> tuple[int, str, str]:
    """Exit code, log and termination message, by what the Job asks for."""
    container = job["spec"]["template"]["spec"]["containers"][0]
    if container["name"] == "discovery":
        return 0, json.dumps(_answer(container["image"])), ""
    verb, source = container["args"][:2]
    place = (job["metadata"]["namespace"], job["metadata"]["name"])
    if (
        flaky
        and verb == "fetch"
        and source.endswith(f"-{fleet.FLAKY}")
        and all((run.namespace, run.job) != place for run in truth.runs)
    ):
        return EXIT_AGAIN, "", _result("again", "the connection was reset")
    if source == fleet.MISSING_SOURCE:
        return EXIT_NOT_FOUND, "", _result("not-found", f"{source} is not there")
    result = _result("done", "done", bytes=SIZE_BYTES, revision="r1")
    line = {
        "event": "progress",
        "phase": "downloading",
        "bytes": SIZE_BYTES // 2,
        "total": SIZE_BYTES,
        "rate": 1e9,
    }
    return 0, f"{json.dumps(line)}\n{result}\n", result


def _result(outcome: str, message: str, **more: int | str) -> str:
    return json.dumps({"event": "result", "outcome": outcome, "message": message, **more})


class FastNode:
    """Use as a context. `flaky`: the first download of one source fails."""

    def __init__(
        self, api: ApiServer, cluster: Cluster, rng: random.Random, *, flaky: bool = False
    ) -> None:
        self.truth = Truth()
        self._api = api
        self._cluster = cluster
        self._rng = rng
        self._flaky = flaky
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns: defaultdict[tuple[str, str, str], asyncio.Lock] = defaultdict(
            asyncio.Lock
        )  # by kind, namespace and name
        self._logs: dict[tuple[str, str], str] = {}
        self._kubelet: web.AppRunner | None = None

    async def __aenter__(self) -> "FastNode":
        app = web.Application()
        app.add_routes([web.get("/containerLogs/{namespace}/{pod}/{container}", self._log)])
        self._kubelet = web.AppRunner(app, access_log=None)
        await self._kubelet.setup()
        with tempfile.TemporaryDirectory() as folder:
            context = make_certificate(Path(folder), "kubelet").context()
        await web.TCPSite(self._kubelet, ADDRESS, 0, ssl_context=context).start()
        await self._cluster.create(node_object(), resource=NODE)
        status = {"status": node_status(self._kubelet.addresses[0][1], self._api.cluster.now())}
        await self._cluster.merge_patch(NODE, None, NAME, status, subresource="status")
        for storage_class in STORAGE_CLASSES:
            await self._cluster.create(storage_class, resource=STORAGE_CLASS)
        await self._make_gateway()
        self._api.cluster.store.observers.append(self._see)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._api.cluster.store.observers.remove(self._see)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self._kubelet is not None
        await self._kubelet.cleanup()

    async def idle(self) -> None:
        """Waits until it has done all that it was asked for."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _make_gateway(self) -> None:
        spec = {"gatewayClassName": "fast", "listeners": [fleet.LISTENER]}
        name, namespace = fleet.GATEWAY, fleet.GATEWAY_NAMESPACE
        body = {
            "apiVersion": GATEWAY.api_version,
            "kind": GATEWAY.kind,
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }
        await self._cluster.create(body)
        status = {"status": {"addresses": [{"type": "Hostname", "value": "gateway.test"}]}}
        await self._cluster.merge_patch(GATEWAY, namespace, name, status, subresource="status")

    def _see(self, key: CollectionKey, change: Change) -> None:
        """Called by the store after every change, before the writer continues."""
        body = change.entry.obj
        new_spec = change.type == "ADDED" or (
            change.previous is not None
            and change.previous.obj["metadata"].get("generation")
            != body["metadata"].get("generation")
        )
        if key == ("", "pods") and change.type == "MODIFIED" and is_deleting(body):
            self._start(
                self._cluster.delete(
                    POD, body["metadata"]["namespace"], body["metadata"]["name"], grace_period_s=0
                )
            )
        if change.type == "DELETED" or not new_spec or is_deleting(body):
            return
        match key[1]:
            case "jobs" if change.type == "ADDED":
                self._start(self._run_job(body))
            case "persistentvolumeclaims" if change.type == "ADDED":
                self._start(self._bind(body))
            case "inferenceservices":
                self._start(self._serve(body))
            case "httproutes":
                self._start(self._accept(body))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except (NotFound, Conflict):
            return  # deleted or re-created: then there is another event
        except Exception as error:
            self.truth.errors.append(f"the fast node: {error!r}")

    async def _pause(self) -> None:
        await asyncio.sleep(self._rng.uniform(0.0, SLOWEST_S))

    @contextlib.asynccontextmanager
    async def _latest(self, resource: Resource, body: Body) -> AsyncIterator[Body]:
        """The current object, for one step at a time. Raises NotFound if it was deleted."""
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        async with self._turns[resource.kind, namespace, name]:
            yield await self._cluster.get(resource, namespace, name)

    async def _patch(
        self, resource: Resource, body: Body, patch: Body, subresource: str | None = None
    ) -> Body:
        """Of this very object, not of a successor."""
        metadata = body["metadata"]
        guarded = patch | {"metadata": patch.get("metadata", {}) | {"uid": metadata["uid"]}}
        return await self._cluster.merge_patch(
            resource, metadata.get("namespace"), metadata["name"], guarded, subresource=subresource
        )

    def _now(self) -> str:
        return stamp(self._api.cluster.now())

    async def _run_job(self, job: Body) -> None:
        await self._pause()
        started_s = self._api.cluster.now().timestamp()
        pod = pod_for(job, 0)
        pod["spec"] = {**pod["spec"], "nodeName": NAME}
        exit_code, output, message = outcome_of(job, self.truth, flaky=self._flaky)
        self._logs[pod["metadata"]["namespace"], pod["metadata"]["name"]] = output
        made = await self._cluster.create(pod)
        running = {"running": {"startedAt": self._now()}}
        await self._patch(POD, made, _pod_status(pod, "Running", running), "status")
        await self._pause()
        if not self._exists(made):
            return  # killed before it came to its end
        self.truth.remember(job, exit_code, started_s, self._api.cluster.now().timestamp())
        terminated = {
            "exitCode": exit_code,
            "message": message,
            "startedAt": self._now(),
            "finishedAt": self._now(),
            "reason": "Completed" if exit_code == 0 else "Error",
        }
        phase = "Succeeded" if exit_code == 0 else "Failed"
        pod_status = _pod_status(pod, phase, {"terminated": terminated})
        await self._pause()
        if self._rng.random() < 0.3:  # (the Job's last word may come before its pod's)
            await self._finish(job, succeeded=exit_code == 0)
            await self._patch(POD, made, pod_status, "status")
        else:
            await self._patch(POD, made, pod_status, "status")
            await self._finish(job, succeeded=exit_code == 0)

    def _exists(self, pod: Body) -> bool:
        pods = self._api.cluster.store.collections["", "pods"]
        return pods.get(pod["metadata"]["namespace"], pod["metadata"]["name"]) is not None

    async def _finish(self, job: Body, *, succeeded: bool) -> None:
        since = {"lastProbeTime": self._now(), "lastTransitionTime": self._now()}
        condition_text = (
            ("Complete", "CompletionsReached", "done")
            if succeeded
            else ("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        )
        condition = (
            dict(zip(("type", "reason", "message"), condition_text, strict=True))
            | {"status": "True"}
            | since
        )
        ended = {"succeeded": 1, "completionTime": self._now()} if succeeded else {"failed": 1}
        await self._patch(
            JOB,
            job,
            {"status": {"startTime": self._now(), "conditions": [condition], **ended}},
            "status",
        )

    async def _bind(self, claim: Body) -> None:
        await self._pause()
        name = claim["spec"].get("storageClassName") or "lab"
        if all(name != known["metadata"]["name"] for known in STORAGE_CLASSES):
            return  # it stays Pending, as in a cluster
        await self._patch(
            CLAIM,
            claim,
            {"spec": {"storageClassName": name, "volumeName": f"pvc-{claim['metadata']['uid']}"}},
        )
        await self._pause()
        capacity = claim["spec"]["resources"]["requests"]
        await self._patch(
            CLAIM,
            claim,
            {
                "status": {
                    "phase": "Bound",
                    "accessModes": claim["spec"]["accessModes"],
                    "capacity": capacity,
                }
            },
            "status",
        )

    async def _serve(self, changed: Body) -> None:
        await self._pause()
        async with self._latest(INFERENCE_SERVICE, changed) as isvc:
            stopped = isvc["metadata"].get("annotations", {}).get(labels.KSERVE_STOP) == "true"
            replicas = 0 if stopped else replicas_of(isvc)
            await self._scale(isvc, replicas)
            await self._pause()
            ready = {
                "type": "Ready",
                "status": "True" if replicas else "False",
                "lastTransitionTime": self._now(),
            } | ({} if replicas else {"reason": "Stopped"})
            status = {"status": {"conditions": [ready]}}
            await self._patch(INFERENCE_SERVICE, isvc, status, "status")

    async def _scale(self, isvc: Body, replicas: int) -> None:
        for number in range(replicas):
            await self._start_predictor(isvc, number)
        metadata = isvc["metadata"]
        pods = await self._cluster.list(
            POD,
            metadata["namespace"],
            label_selector=f"{labels.KSERVE_ISVC_LABEL}={metadata['name']}",
        )
        for pod in pods.items:
            if int(pod["metadata"]["name"].rpartition("-")[2]) >= replicas:
                await self._cluster.delete(
                    POD,
                    metadata["namespace"],
                    pod["metadata"]["name"],
                    uid=pod["metadata"]["uid"],
                    grace_period_s=0,
                )

    async def _start_predictor(self, isvc: Body, number: int) -> None:
        metadata = isvc["metadata"]
        own = {
            "name": f"{metadata['name']}-predictor-{number}",
            "namespace": metadata["namespace"],
            "ownerReferences": [owner_reference(isvc)],
        }
        named = metadata["labels"] | {labels.KSERVE_ISVC_LABEL: metadata["name"]}
        spec = {"nodeName": NAME, "containers": isvc["spec"]["predictor"]["containers"]}
        try:
            pod = await self._cluster.create(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": own | {"labels": named},
                    "spec": spec,
                }
            )
        except AlreadyExists:
            return
        running = _container("kserve-container", {"running": {"startedAt": self._now()}}) | {
            "ready": True
        }
        conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": self._now()}]
        await self._patch(
            POD,
            pod,
            {
                "status": {
                    "phase": "Running",
                    "conditions": conditions,
                    "containerStatuses": [running],
                }
            },
            "status",
        )

    async def _accept(self, changed: Body) -> None:
        await self._pause()
        async with self._latest(ROUTE, changed) as route:
            conditions = [
                {
                    "type": kind,
                    "status": "True",
                    "reason": kind,
                    "message": "",
                    "observedGeneration": route["metadata"]["generation"],
                    "lastTransitionTime": self._now(),
                }
                for kind in ("Accepted", "ResolvedRefs")
            ]
            parent = {
                "parentRef": route["spec"]["parentRefs"][0],
                "controllerName": "fast.test/gateway",
                "conditions": conditions,
            }
            await self._patch(ROUTE, route, {"status": {"parents": [parent]}}, "status")

    async def _log(self, request: web.Request) -> web.Response:
        text = self._logs.get((request.match_info["namespace"], request.match_info["pod"]))
        return (
            web.Response(status=404, text="no such log")
            if text is None
            else web.Response(text=text)
        )


def _container(name: str, state: Body) -> Body:
    return {"name": name, "restartCount": 0, "ready": False, "state": state}


def _pod_status(pod: Body, phase: str, state: Body) -> Body:
    container = _container(pod["spec"]["containers"][0]["name"], state)
    return {"status": {"phase": phase, "containerStatuses": [container]}}


def _answer(image: str) -> list[Body]:
    """What `dry-run --format=json` of an image prints."""
    model = fleet.model_of_image(image)
    metadata = {
        "engine": "vllm",
        "gpu": "MI300X",
        "precision": "fp16",
        "gpu_count": 1,
        "metric": "latency",
    }
    profile = {
        "model": f"org/model-{model}",
        "quantized_model": "",
        "metadata": metadata,
        "engine_args": {"dtype": "float16"},
        "env_vars": {"A": 1},
    }
    models = [
        {"name": source.partition("://")[2], "source": source, "size_gb": size_gib}
        for source, size_gib in fleet.sources_of(model)
    ]
    return [{"filename": "profile.yaml", "profile": profile, "models": models}]
