"""The simulated cluster of tests/chaos, with the manners that users run into.

A claim that a pod mounts stays until the pod has gone. Pods wait for images, Secrets and claims,
crash, or never become ready, as the tag of their image says. Gateways that are not there accept
nothing. Users write, edit and delete.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from aim_testing.chaos.fastnode import EXIT_NOT_FOUND, Truth
from aim_testing.chaos.history import History
from aim_testing.chaos.observer import Get, contradictions, moved_back
from aim_testing.chaos.sim import Cluster
from aim_testing.soak import inputs
from aim_testing.soak.operations import HOLD, Operation
from aim_testing.soak.state import Body, State, claims_of, is_deleting, owners, phase, secrets_of
from aimcontroller.additions import merge as with_patch
from aimlab.kinds import owner_reference, stamp
from aimschema import labels
from aimschema.resources import (
    CLAIM,
    GATEWAY,
    INFERENCE_SERVICE,
    JOB,
    NAMESPACE,
    POD,
    ROUTE,
    SECRET,
    STORAGE_CLASS,
    Key,
    key_of,
)

PROTECTION = "kubernetes.io/pvc-protection"
OVER = {"Succeeded", "Failed"}
Steps = list[Callable[[], object]]


def judge(before: Body | None, after: Body, _: Get) -> list[str]:
    """What must hold at all times, whatever users do."""
    metadata = after["metadata"]
    name = f"{after['kind']} {metadata.get('namespace', '-')}/{metadata['name']}"
    return [f"{name}: {each}" for each in (*moved_back(before, after), *contradictions(after))]


class Protecting(Cluster):
    """Keeps claims that pods mount, and merges as users' patches do."""

    def delete(self, key: Key, uid: str | None = None) -> None:
        existing = self.objects.get(key)
        if (
            existing is None
            or uid not in {None, existing["metadata"]["uid"]}
            or is_deleting(existing)
        ):
            return
        held = key.kind == CLAIM.kind and self.holders(existing)
        finalizers = [
            *(existing["metadata"].get("finalizers") or []),
            *([PROTECTION] if held else []),
        ]
        if finalizers:
            stamped = {"deletionTimestamp": stamp(self._clock.now), "finalizers": finalizers}
            self.write({**existing, "metadata": existing["metadata"] | stamped})
        else:
            super().delete(key, uid)

    def release(self, key: Key, finalizer: str) -> None:
        """Nothing keeps an object that is being deleted once its last finalizer has gone."""
        existing = self.objects[key]
        left = [each for each in existing["metadata"].get("finalizers") or [] if each != finalizer]
        self.write({**existing, "metadata": existing["metadata"] | {"finalizers": left}})
        if is_deleting(existing) and not left:
            super().delete(key)

    def holders(self, claim: Body) -> list[Body]:
        name, namespace = claim["metadata"]["name"], claim["metadata"]["namespace"]
        return [
            pod
            for pod in self.of(POD.kind)
            if pod["metadata"]["namespace"] == namespace
            and name in claims_of(pod)
            and pod["spec"].get("nodeName")
            and phase(pod) not in OVER
        ]

    def create(self, body: Body) -> Body:
        """A new PVC is Pending, whatever status its writer set."""
        pending = {"status": {"phase": "Pending"}} if body["kind"] == CLAIM.kind else {}
        return super().create({**body, **pending})

    def write(self, body: Body) -> Body:
        return self._store(body)

    def merge(self, key: Key, change: Body) -> None:
        existing = self.objects.get(key)
        if existing is None:
            return
        if is_deleting(existing):
            if "finalizers" in change.get("metadata", {}):
                self.release(key, HOLD)
            return
        merged = with_patch(existing, change)
        if merged == existing:
            return
        if merged.get("spec") != existing.get("spec"):
            metadata = dict(merged["metadata"])
            merged["metadata"] = metadata | {"generation": metadata["generation"] + 1}
        self.write(merged)


class Simulation(History):
    """Users' inputs are there from the start; `apply` carries out what they do next."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.rng = rng
        self.outcome = outcome
        self._edits = []
        written = inputs.manifests().values()
        self.to_create = [body for body in written if body["kind"] != NAMESPACE.kind]

    @property
    def state(self) -> State:
        return State(self.cluster.objects)

    def make_cluster(self) -> Protecting:
        return Protecting(self.clock, judge)

    def apply(self, operation: Operation) -> None:
        cluster, key = self.cluster, operation.key
        assert isinstance(cluster, Protecting)
        if key.kind == NAMESPACE.kind:
            return self._delete_namespace(key.name) if operation.verb == "delete" else None
        match operation.verb:
            case "create" if key not in cluster.objects:
                cluster.create(operation.body)
            case "patch":
                cluster.merge(key, operation.body)
            case "delete":
                cluster.delete(key)
            case _:
                pass
        return None

    def _delete_namespace(self, namespace: str) -> None:
        """Pods first: nothing holds a claim then."""
        keys = [key for key in self.cluster.objects if key.namespace == namespace]
        for key in sorted(keys, key=lambda key: (key.kind != POD.kind, str(key))):
            self.cluster.delete(key)

    def steps_on(self, count: int) -> None:
        """Some of what could happen next, not waiting for any timer."""
        for _ in range(count):
            possible = self._now_possible()
            if not possible:
                return
            self.rng.choice(possible)()

    # --- node, KServe and gateway ---

    def _node_steps(self) -> Steps:
        found = [self._claim_steps(), self._job_steps(), self._runtime_steps(), self._route_steps()]
        return [*self._collect_steps(), *(step for steps in found for step in steps)]

    def _collect_steps(self) -> Iterator[Callable[[], object]]:
        """Objects created for an owner that was deleted meanwhile."""
        every = {body["metadata"]["uid"] for body in self.cluster.objects.values()}
        for key, body in self.cluster.objects.items():
            by = owners(body)
            if by and every.isdisjoint(by) and not is_deleting(body):
                yield partial(self.cluster.delete, key)

    def _claim_steps(self) -> Iterator[Callable[[], object]]:
        cluster = self.cluster
        assert isinstance(cluster, Protecting)
        for claim in cluster.of(CLAIM.kind):
            if is_deleting(claim):
                if PROTECTION in claim["metadata"]["finalizers"] and not cluster.holders(claim):
                    yield partial(cluster.release, key_of(claim), PROTECTION)
            elif phase(claim) != "Bound" and self._may_bind(claim):
                yield partial(self._bind, claim)

    def _may_bind(self, claim: Body) -> bool:
        name = claim["spec"].get("storageClassName", "lab")
        of_class = self.state.get(STORAGE_CLASS, None, name)
        if of_class is None:
            return False
        in_use = any(
            claim["metadata"]["name"] in claims_of(pod) for pod in self.cluster.of(POD.kind)
        )
        return of_class.get("volumeBindingMode") != "WaitForFirstConsumer" or in_use

    def _bind(self, claim: Body) -> None:
        volume = {"volumeName": f"pvc-{claim['metadata']['uid']}"}
        spec = {"storageClassName": "lab", **claim["spec"], **volume}
        bound = self.cluster.patch(claim, spec=spec)
        if bound is not None:
            self.cluster.patch(bound, status={"phase": "Bound"})

    def _job_steps(self) -> Iterator[Callable[[], object]]:
        for job in self.cluster.of(JOB.kind):
            if "conditions" in job.get("status", {}) or is_deleting(job):
                continue
            pods = self.state.owned(job, POD)
            if not pods:
                yield partial(self._make_pod, job, job["spec"]["template"], "pod", {})
                continue
            yield from self._pod_steps(pods[0], partial(self._end, job, pods[0]))
            if phase(pods[0]) in OVER:
                yield partial(self._finish, job, phase(pods[0]) == "Succeeded")

    def _make_pod(self, owner: Body, template: Body, suffix: str, more: dict[str, str]) -> None:
        metadata = owner["metadata"]
        name = {"name": f"{metadata['name']}-{suffix}", "namespace": metadata["namespace"]}
        template_labels = (template.get("metadata") or {}).get("labels") or {}
        own = {"ownerReferences": [owner_reference(owner)], "labels": template_labels | more}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": name | own, "spec": template["spec"]}
        self.cluster.create({**pod, "status": {"phase": "Pending"}})

    def _pod_steps(self, pod: Body, ends: Callable[[], object]) -> Iterator[Callable[[], object]]:
        """First match wins: not placed, waiting, about to run, running."""
        if not pod["spec"].get("nodeName"):
            if self._unplaceable(pod):
                unplaced = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
                status = {"conditions": [unplaced | {"message": self._unplaceable(pod)}]}
                yield from self._status_step(pod, status)
            else:
                yield partial(
                    self.cluster.patch, pod, spec={"nodeName": "n"}, status={"conditions": []}
                )
        elif phase(pod) == "Pending":
            waiting = self._waits_for(pod)
            if waiting:
                container = pod["spec"]["containers"][0]["name"]
                state = {"waiting": waiting}
                yield from self._status_step(
                    pod,
                    {"containerStatuses": [{"name": container, "ready": False, "state": state}]},
                )
            else:
                yield ends

    def _status_step(self, body: Body, status: Body) -> Steps:
        status_now = body.get("status") or {}
        if all(status_now.get(name) == value for name, value in status.items()):
            return []
        return [partial(self.cluster.patch, body, status=status)]

    def _unplaceable(self, pod: Body) -> str:
        if pod["spec"].get("nodeSelector"):
            return "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector"
        for name in sorted(claims_of(pod)):
            claim = self.state.get(CLAIM, pod["metadata"]["namespace"], name)
            if claim is None:
                return f'persistentvolumeclaim "{name}" not found'
            if is_deleting(claim):
                return f'persistentvolumeclaim "{name}" is being deleted'
            if phase(claim) != "Bound":
                return "pod has unbound immediate PersistentVolumeClaims"
        return ""

    def _waits_for(self, pod: Body) -> Body:
        image = pod["spec"]["containers"][0]["image"]
        if inputs.behaviour_of(image) == "missing":
            return {"reason": "ErrImagePull", "message": f"{image}: not found"}
        for name in sorted(secrets_of(pod)):
            if self.state.get(SECRET, pod["metadata"]["namespace"], name) is None:
                return {
                    "reason": "CreateContainerConfigError",
                    "message": f'secret "{name}" not found',
                }
        return {}

    def _end(self, job: Body, pod: Body) -> None:
        exit_code, log, message = self.outcome(job, self.truth)
        self._logs[key_of(pod)] = log
        container = pod["spec"]["containers"][0]["name"]
        terminated = {"exitCode": exit_code, "message": message}
        ended = [{"name": container, "state": {"terminated": terminated}}]
        ends = "Failed" if exit_code else "Succeeded"
        self.cluster.patch(pod, status={"phase": ends, "containerStatuses": ended})

    def _finish(self, job: Body, succeeded: bool) -> None:
        kind = "Complete" if succeeded else "Failed"
        since = {"lastTransitionTime": stamp(self.clock.now)}
        condition = {"type": kind, "status": "True", "reason": kind, "message": ""}
        self.cluster.patch(job, status={"conditions": [condition | since]})

    def _runtime_steps(self) -> Iterator[Callable[[], object]]:
        for runtime in self.cluster.of(INFERENCE_SERVICE.kind):
            if is_deleting(runtime):
                continue
            pods = self.state.owned(runtime, POD)
            revision = revision_of(runtime)
            replicas = replicas_of(runtime)
            pod_names = {pod["metadata"]["name"] for pod in pods}
            names = [f"{revision}-{number}" for number in range(replicas)]
            wanted_names = {f"{runtime['metadata']['name']}-{name}" for name in names}
            extra = [pod for pod in pods if pod["metadata"]["name"] not in wanted_names]
            if extra:
                yield partial(self.cluster.delete, key_of(extra[0]))
            else:
                template = {"spec": runtime["spec"]["predictor"]}
                label = {labels.KSERVE_ISVC_LABEL: runtime["metadata"]["name"]}
                for name in names:
                    if f"{runtime['metadata']['name']}-{name}" not in pod_names:
                        yield partial(self._make_pod, runtime, template, name, label)
            for pod in pods:
                yield from self._pod_steps(pod, partial(self._serves, pod))
            yield from self._status_step(runtime, runtime_status(pods, replicas))

    def _serves(self, pod: Body) -> None:
        container, image = (pod["spec"]["containers"][0][field] for field in ("name", "image"))
        behaviour = inputs.behaviour_of(image)
        ready = behaviour not in {"crash", "unready"}
        state: Body = {"running": {"startedAt": stamp(self.clock.now)}}
        status: Body = {
            "name": container,
            "ready": ready,
            "started": ready,
            "state": state,
            "restartCount": 0,
        }
        if behaviour == "crash":
            last = {"terminated": {"exitCode": 3, "reason": "Error"}}
            crashed = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": last}
            status |= crashed | {"restartCount": 1}
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        running = {"phase": "Running", "conditions": conditions, "containerStatuses": [status]}
        self.cluster.patch(pod, status=running)

    def _route_steps(self) -> Iterator[Callable[[], object]]:
        for route in self.cluster.of(ROUTE.kind):
            if is_deleting(route):
                continue
            parents = [
                {
                    "parentRef": parent,
                    "controllerName": "sim.test/gateway",
                    "conditions": accepted(route),
                }
                for parent in route["spec"].get("parentRefs") or ()
                if self.state.get(GATEWAY, parent.get("namespace"), parent["name"]) is not None
            ]
            yield from self._status_step(route, {"parents": parents})

    def possible(self) -> Steps:
        """What could happen next; where nothing can, the next timer."""
        return self._now_possible() or self._wait()

    def _now_possible(self) -> Steps:
        if self.to_create:
            return [lambda: self.cluster.create(self.to_create.pop(0))]
        steps: Steps = []
        for process in self.processes:
            steps += [partial(process.deliver, subject) for subject in process.unheard]
            steps += [partial(process.work, key) for key in process.queue]
        return steps + self._node_steps()


def accepted(route: Body) -> list[Body]:
    common = {"status": "True", "observedGeneration": route["metadata"]["generation"]}
    return [{"type": kind, "reason": kind, **common} for kind in ("Accepted", "ResolvedRefs")]


def revision_of(runtime: Body) -> str:
    """Whatever of it reaches the pod template makes other pods."""
    predictor = runtime["spec"]["predictor"]
    pod = {
        name: value
        for name, value in predictor.items()
        if name not in {"minReplicas", "maxReplicas", "deploymentStrategy"}
    }
    passed_on = {
        name: value
        for name, value in (runtime["metadata"].get("annotations") or {}).items()
        if name != labels.KSERVE_STOP
    }
    encoded = msgspec.json.encode([pod, passed_on], order="sorted")
    return hashlib.sha256(encoded).hexdigest()[:6]


def replicas_of(runtime: Body) -> int:
    annotations = runtime["metadata"].get("annotations") or {}
    if annotations.get(labels.KSERVE_STOP) == "true":
        return 0
    return int(runtime["spec"]["predictor"].get("minReplicas", 1))


def runtime_status(pods: list[Body], replicas: int) -> Body:
    """As KServe reports it; Ready needs no ready pod where one may be unavailable."""
    ready = [pod for pod in pods if _is_ready(pod)]
    stopped = {"type": "Stopped", "status": "True" if replicas == 0 else "False"}
    holds = replicas > 0 and len(ready) >= replicas - 1
    return {"conditions": [{"type": "Ready", "status": "True" if holds else "False"}, stopped]}


def _is_ready(pod: Body) -> bool:
    found = pod["status"].get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in found)


def outcome(job: Body, _: Truth) -> tuple[int, str, str]:
    """Exit code, log and termination message of a Job, by its image's tag or its source."""
    container = job["spec"]["template"]["spec"]["containers"][0]
    if container["name"] == "discovery":
        behaviour = inputs.behaviour_of(container["image"])
        model = int(container["image"].rpartition(":")[0].rpartition("-")[2])
        return 0, "[]" if behaviour == "mute" else json.dumps(answer(model, behaviour)), ""
    if "gone" in container["args"][1]:
        return EXIT_NOT_FOUND, "", json.dumps({"message": "no such model"})
    return 0, "", json.dumps({"message": "done", "bytes": 1 << 20, "revision": "r1"})


def answer(model: int, behaviour: str) -> list[Body]:
    """What `dry-run` of an image prints."""
    metadata = {
        "engine": "vllm",
        "gpu": "MI300X",
        "precision": "fp16",
        "gpu_count": 1,
        "metric": "latency",
    }
    profile = {
        "model": f"org/model-{model}",
        "metadata": metadata,
        "engine_args": {},
        "env_vars": {},
    }
    source = inputs.source(model, behaviour)
    models = [{"name": source.partition("://")[2], "source": source, "size_gb": 0.001}]
    return [{"filename": "profile.yaml", "profile": profile, "models": models}]
